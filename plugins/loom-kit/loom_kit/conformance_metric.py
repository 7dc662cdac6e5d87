"""What every metric must fulfil, whoever wrote it: values in the declared range for any answer, the same each time.

Answers are made from references (right, wrong, partial, odd, huge); metrics that ask a model are given replies of all
sorts in its place. Knows the contract of metrics; knows no metric.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from loom_parity.contract import answer, answer_variants

from loom_core.contract import border
from loom_core.contract.errors import LoomError
from loom_core.contract.guard import described
from loom_core.contract.keys import plain
from loom_core.contract.prompt import segment
from loom_core.contract.protocols import MOST_CALLS
from loom_core.contract.specs import MetricSpec
from loom_core.contract.types import Prompt, Sample, Scored, Turn
from loom_core.doubles.server import oracle_text
from loom_kit.rows import NotChecked, Row, TooSlow, attempt, bounded, reason

HUGE = 1_000_000
"""Characters of the huge answer: what a model that never stops may say."""
MOST_SECONDS = 20.0
"""Processor time that one answer may take."""
TOLERANCE = 1e-8
ODD = (
    "\ud800 lone",
    "e\u0301\u0323\u0323" * 50,
    "\U0001f469\u200d\U0001f4bb \u202eabc\u202c",
    "\x00\x1b[31m",
    "٣٤ ４２ Ⅷ",
)
"""Answers of odd characters: a lone surrogate, stacked marks, joined emoji and direction, control, other digits."""
REPLIES = ("", "Rating: [[7]]", "Yes", "I'd rather not say.", '{"score": 1}', "[[", "é" * 1000, "5")
"""What a judge may reply."""


SHAPES = (*REPLIES, "no", "A", "The correct answer is (B).", "[1]", "{'a': 1}")
"""Shapes of answers that metrics look for."""


def plain_samples() -> tuple[Sample, ...]:
    """Samples with text references and nothing else, for metrics that no benchmark at hand names."""
    segments = (segment("context", "The key of the north gate is Paris 42. Bread is red."), segment("question", "Key?"))
    prompt = Prompt(segments=segments)
    return tuple(
        Sample(id=f"plain-{number}", task="plain", prompt=prompt, references=references)
        for number, references in enumerate((("Paris 42",), ("the blue boat", "a blue boat"), ("7",)))
    )


def check_metric(
    spec: MetricSpec,
    make: Callable[[], Any],
    samples: Sequence[Sample] = (),
    *,
    needs: str = "",
    huge: int = HUGE,
) -> Iterator[Row]:
    """One row a rule. make: a fresh metric. samples: of a benchmark that names it; without any, `plain_samples`.

    needs: why no such samples are at hand, where a benchmark names the metric: it may then rely on what plain samples
    lack, and what it raises over them is not a fault.
    """
    name = spec.name
    chosen = tuple(samples) or plain_samples()
    try:
        usable = _usable(make, chosen)
    except LoomError as error:
        yield Row(name, "scores answers", True, reason(error), checked=False)
        return
    except Exception as error:  # noqa: BLE001 - whatever a metric raises is its result
        if needs:
            yield Row(name, "scores answers", True, f"needs samples of its own benchmark: {needs}", checked=False)
        else:
            why = f"raised {reason(error)} for a right answer: return Scored(value=None) with a reason instead"
            yield Row(name, "scores answers", False, why)
        return
    yield Row(name, "scores answers", True)
    if not usable:
        yield attempt(name, "any reply of a judge ends in a value or a reason", partial(_judged, spec, make, chosen))
        return
    yield attempt(name, f"values are numbers in [{spec.low:g}, {spec.high:g}]", partial(_in_range, spec, make, usable))
    yield attempt(name, "the same answer has the same value", partial(_stateless, make, usable))
    yield attempt(name, "samples stay as they are", partial(_untouched, make, usable))
    yield attempt(name, "a reference beats a wrong and an empty answer", partial(_ordered, spec, make, usable))
    yield attempt(name, f"an answer of {huge:,} characters is scored", partial(_huge, spec, make, usable, huge))


def _usable(make: Callable[[], Any], samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples; none where the metric asks a model."""
    metric = make()
    for sample in samples:
        given = metric.score(oracle_text(sample), sample)
        if isinstance(given, Generator):
            given.close()
            return ()
    return tuple(samples)


def _answers(sample: Sample) -> list[tuple[str, str]]:
    made = list(answer_variants(oracle_text(sample)[:2000], random.Random(f"check {sample.id}")))
    return [*((shape, text) for shape, text in made if len(text) < 4000), *(("odd characters", text) for text in ODD)]


def _value(spec: MetricSpec, scored: Any, shape: str) -> float | None:
    """The value of what a metric returned; raises AssertionError for what is not a score."""
    assert isinstance(scored, Scored), f"returned a {type(scored).__name__}, not a Scored, for an answer ({shape})"
    kept = border.scored(scored, spec.name)
    finite = not isinstance(scored.value, float) or math.isfinite(scored.value)
    if border.REFUSED in kept.detail and finite:
        raise AssertionError(f"{kept.detail['error']}, for an answer ({shape}): its value would be lost")
    value = scored.value
    if value is None:
        assert scored.detail, f"no value and no reason for an answer ({shape}): say why in Scored.detail"
        return None
    number = isinstance(value, (int, float)) or hasattr(value, "__float__")
    assert number, f"the value of an answer ({shape}) is a {type(value).__name__}, not a number"
    value = float(value)
    assert not math.isnan(value), f"the value of an answer ({shape}) is NaN: return None with a reason"
    inside = spec.low - TOLERANCE <= value <= spec.high + TOLERANCE
    assert inside, (
        f"the value {value:g} of an answer ({shape}) is outside the declared range [{spec.low:g}, {spec.high:g}]: "
        "declare low and high in the MetricSpec, or scale the value"
    )
    return value


def _scored(metric: Any, text: str, sample: Sample, shape: str) -> Any:
    try:
        with bounded(MOST_SECONDS):
            return metric.score(text, sample)
    except (LoomError, TooSlow) as error:
        raise AssertionError(f"{reason(error)}, for an answer ({shape})") from error
    except Exception as error:
        raise AssertionError(
            f"raised {described(error)} for an answer ({shape}): models say anything, so score "
            "it or return Scored(value=None) with a reason"
        ) from error


def _in_range(spec: MetricSpec, make: Callable[[], Any], samples: Sequence[Sample]) -> None:
    metric = make()
    for sample in samples:
        for shape, text in _answers(sample):
            _value(spec, _scored(metric, text, sample, shape), shape)


def _stateless(make: Callable[[], Any], samples: Sequence[Sample]) -> None:
    metric = make()
    for sample in samples:
        texts = [text for _, text in _answers(sample)][::3]
        first = [_stored(metric.score(text, sample)) for text in texts]
        again = [_stored(metric.score(text, sample)) for text in reversed(texts)][::-1]
        assert first == again, "the value depends on what was scored before: keep no state between calls"
        alone = [_stored(make().score(text, sample)) for text in texts[:3]]
        assert first[:3] == alone, "a fresh metric gives other values: keep no state, draw no unseeded random numbers"


def _stored(scored: Scored) -> str:
    return repr((scored.value, scored.extracted))


def _untouched(make: Callable[[], Any], samples: Sequence[Sample]) -> None:
    metric = make()
    for sample in samples:
        given = copy.deepcopy(sample)
        before = json.dumps(plain(given), sort_keys=True)
        for text in ("", oracle_text(sample), "something else"):
            metric.score(text, given)
        after = json.dumps(plain(given), sort_keys=True)
        assert before == after, "the sample (its references or meta) is changed by scoring: copy what you alter"


def _ordered(spec: MetricSpec, make: Callable[[], Any], samples: Sequence[Sample]) -> None:
    metric, sign, tried, told = make(), 1 if spec.higher_is_better else -1, 0, False
    worst, reached = spec.low if spec.higher_is_better else spec.high, False
    for sample in samples:
        if not sample.references or not isinstance(sample.references[0], str) or not sample.references[0].strip():
            continue
        right = metric.score(oracle_text(sample), sample).value
        for shape, text in (("empty", ""), ("wrong", "zxqj")):
            value = metric.score(text, sample).value
            if right is not None and value is not None and not math.isnan(right + value):
                tried += 1
                told, reached = told or abs(value - right) > TOLERANCE, reached or abs(right - worst) > TOLERANCE
                better = f"a reference scores {right:g}, and an answer ({shape}) {value:g}, which is better"
                assert sign * (value - right) <= TOLERANCE, better + ": is higher_is_better declared rightly?"
    if not tried:
        raise NotChecked("the samples have no references as text")
    if not reached:
        raise NotChecked("a reference of the samples at hand scores worst: it needs samples of its own")
    if not told:
        texts = [(sample, text) for sample in samples for text in (*(text for _, text in _answers(sample)), *SHAPES)]
        values = {metric.score(text, sample).value for sample, text in texts}
        assert len(values) > 1, f"{len(texts)} right, wrong and empty answers all score alike: what does it measure?"


def _huge(spec: MetricSpec, make: Callable[[], Any], samples: Sequence[Sample], size: int) -> None:
    metric, sample = make(), min(samples, key=lambda sample: len(oracle_text(sample)))
    words = f"{oracle_text(sample)[:200]} and so on, it says. "
    for shape, text in (("huge", (words * (size // len(words) + 1))[:size]), ("one huge word", "x" * size)):
        _value(spec, _scored(metric, text, sample, shape), shape)


def _judged(spec: MetricSpec, make: Callable[[], Any], samples: Sequence[Sample]) -> None:
    for sample in samples:
        for reply in REPLIES:
            for text in (oracle_text(sample), "", "something else"):
                _ask(spec, make().score(text, sample), reply)


def _ask(spec: MetricSpec, judging: Any, reply: str) -> None:
    if isinstance(judging, Scored):
        _value(spec, judging, "without asking")
        return
    try:
        turn = next(judging)
        for _ in range(MOST_CALLS):
            assert isinstance(turn, Turn), f"yielded a {type(turn).__name__} for the judge, not a Turn"
            assert turn.prompt.text.strip(), "asks the judge nothing: the prompt of its turn is empty"
            turn = judging.send(answer(reply))
    except StopIteration as end:
        _value(spec, end.value, f"judged {reply[:20]!r}")
        return
    except AssertionError:
        raise
    except Exception:  # noqa: BLE001 - what is raised over a reply costs the value, by the contract
        return
    raise AssertionError(f"asks the judge more than {MOST_CALLS} times")
