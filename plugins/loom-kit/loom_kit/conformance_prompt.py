"""What every prompt method and retriever must fulfil: only the context changes, nothing is remembered, spans hold.

Knows the contract of prompt augmentations; knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from loom_core.contract.errors import LoomError
from loom_core.contract.evidence import Kept, Rewritten
from loom_core.contract.options import build
from loom_core.contract.prompt import context_indices, only_context_changed, segment
from loom_core.contract.protocols import Tokenizer
from loom_core.contract.specs import AugmentationSpec
from loom_core.contract.types import Prompt
from loom_core.doubles.server import ToyTokenizer
from loom_kit.rows import NotChecked, Row, TooSlow, attempt, bounded, reason

HUGE = 100_000
"""Characters of the huge context."""
MOST_SECONDS = 60.0
"""Processor time for it; a method that runs a model may need more, and is then not checked."""
TRIED_BUDGETS = ("0.25", "2048", "512", "4x")
"""Budgets tried, one after the other, where a method needs one: shares first, for they suit any prompt."""

TOPICS = ("harbour", "orchard", "library", "station", "observatory", "bakery", "theatre", "museum")


def _text(paragraphs: int, seed: int = 0) -> str:
    """Paragraphs that each tell of one place; no two are alike."""
    rows = []
    for number in range(paragraphs):
        place = TOPICS[(number + seed) % len(TOPICS)]
        rows.append(
            f"The {place} of town {number} was opened in {1800 + number} by a family of {3 + number % 7}. "
            f"On market days the {place} sells {number * 17 + 5} tickets. Its door is painted in colour {number * 31}."
        )
    return "\n\n".join(rows)


def _prompt(*contexts: str, question: str = "\nWhen was the orchard of town 9 opened?") -> Prompt:
    return Prompt(
        segments=(
            segment("system", "You answer briefly."),
            *(segment("context", text) for text in contexts),
            segment("instruction", "\nUse the text only."),
            segment("question", question),
            segment("prefill", "Answer:"),
        )
    )


def prompts() -> dict[str, Prompt]:
    """What a method meets: one and several contexts, other scripts, short, empty and none."""
    return {
        "a context": _prompt(_text(24)),
        "two contexts": _prompt(_text(12), _text(12, seed=3)),
        "other scripts": _prompt("灯台は月曜に開く。鍵は赤い。" * 40 + "\U0001f469\u200d\U0001f4bb e\u0301 " * 20),
        "a short context": _prompt("The key is red."),
        "an empty context": _prompt(""),
        "no context": _prompt(),
    }


@dataclass
class Method:
    """A prompt method as the kit runs it. make: a fresh one. tokenizer: of the target; None = a server shows none.

    Opening may load a model, so what one method makes of the kit's prompts is kept for all rules.
    """

    make: Callable[[], Any]
    tokenizer: Tokenizer | None = field(default_factory=ToyTokenizer)
    seen: dict[str, Rewritten | None] = field(default_factory=dict)

    def rewritten(self, given: Mapping[str, Prompt]) -> dict[str, Rewritten | None]:
        """What one method, opened once, makes of prompts in their order; None where it refuses with a LoomError.

        Raises AssertionError for whatever else it raises.
        """
        method = self.make()
        with ExitStack() as stack:
            stack.enter_context(method.open(self.tokenizer))
            return {what: self._one(method, prompt, what) for what, prompt in given.items()}

    def _one(self, method: Any, prompt: Prompt, what: str) -> Rewritten | None:
        try:
            made = method.rewrite(prompt, self.tokenizer, chat="completion")
        except LoomError:
            return None
        except TooSlow:
            raise
        except Exception as error:
            why = f"raised {reason(error)} for {what}: give the prompt back, or raise ModelError"
            raise AssertionError(why) from error
        if isinstance(made, Rewritten):
            return made
        assert isinstance(made, Prompt), f"rewrite returned a {type(made).__name__}, not a Prompt or Rewritten"
        return Rewritten(prompt=made, kept=None)

    def each(self) -> Iterator[tuple[str, Prompt, Rewritten]]:
        """(what, prompt, rewritten) of each of the kit's prompts that is not refused."""
        given = prompts()
        self.seen = self.seen or self.rewritten(given)
        for what, prompt in given.items():
            made = self.seen[what]
            if made is not None:
                yield what, prompt, made


def make_one(method: Method, prompt: Prompt | None = None) -> Rewritten:
    """What a fresh method makes of a prompt; raises what it raises."""
    made = method.make()
    with made.open(method.tokenizer):
        given = made.rewrite(prompt or prompts()["a context"], method.tokenizer, chat="completion")
    return given if isinstance(given, Rewritten) else Rewritten(prompt=given, kept=None)


def option_sets(spec: AugmentationSpec) -> Iterator[Mapping[str, str]]:
    """Options to try, the default first: a budget is given where the method takes one."""
    yield {}
    if any(f.name == "budget" for f in fields(spec.options)):
        yield from ({"budget": budget} for budget in TRIED_BUDGETS)


def check_prompt_method(
    spec: AugmentationSpec, factory: Callable[[Any], Any], given: Mapping[str, str] | None = None, *, huge: int = HUGE
) -> Iterator[Row]:
    """One row a rule. factory: from options to the method. given: options as text; None = the first set that works.

    A method that cannot be opened here (its model or endpoint is not at hand) is not checked.
    """
    name, problem = spec.name, None
    for options in [given] if given is not None else option_sets(spec):
        try:
            built = build(spec.options, options, owner=name)
            method = Method(partial(factory, built))
            make_one(method)
        except LoomError as error:
            problem = error
            continue
        except Exception as error:  # noqa: BLE001 - whatever a method raises is its result
            yield Row(name, "rewrites a prompt", False, f"raised {reason(error)}")
            return
        yield Row(name, "rewrites a prompt", True)
        yield from _rows(spec, method, factory, options, huge)
        return
    assert problem is not None
    yield Row(name, "rewrites a prompt", True, reason(problem), checked=False)


def _rows(
    spec: AugmentationSpec, method: Method, factory: Callable[[Any], Any], options: Mapping[str, str], huge: int
) -> Iterator[Row]:
    name = spec.name
    yield attempt(name, "changes nothing but the context", partial(_only_context, method))
    yield attempt(name, "what it says it kept is there", partial(_spans, method))
    yield attempt(name, "counts and costs are numbers", partial(_numbers, method))
    yield attempt(name, "keeps nothing from prompt to prompt", partial(_stateless, method))
    yield attempt(name, "works without a tokenizer", partial(_no_tokenizer, replace(method, tokenizer=None)))
    yield attempt(name, f"a context of {huge:,} characters is rewritten", partial(_huge, method, huge))
    yield attempt(name, "declares query_aware", partial(_query_aware, spec, method))
    if spec.retrieval:
        yield attempt(name, "chunks are pieces of the context, in order", partial(_pieces, method))
        yield attempt(name, "keeps k chunks at most", partial(_most_chunks, spec, factory, options))


def _only_context(method: Method) -> None:
    for what, prompt, made in method.each():
        after = made.prompt
        if not only_context_changed(prompt, after):
            kinds = sorted({b.kind for b, a in zip(prompt.segments, after.segments, strict=False) if b != a})
            raise AssertionError(
                f"{what}: changes more than the context ({', '.join(kinds) or 'the number of segments'}): only texts "
                "of segments of kind context may change"
            )
        before, now = len(context_indices(prompt)), len(context_indices(after))
        assert before == now, f"{what}: {before} context segments become {now}: empty them instead"
        pairs = zip(prompt.segments, after.segments, strict=False)
        other = [b.kind for b, a in pairs if replace(b, text="") != replace(a, text="")]
        assert not other, f"{what}: a segment ({other[0]}) changes its kind, role or place: only its text may change"
        assert all(isinstance(s.text, str) for s in after.segments), f"{what}: a segment's text is not a string"


def _spans(method: Method) -> None:
    told = 0
    for what, prompt, made in method.each():
        if made.kept is None:
            continue
        told += 1
        for span in made.kept:
            _span(span, prompt, made.prompt, what)
    if not told:
        raise NotChecked("it returns prompts, not Rewritten with the spans kept: loom finds out itself where it can")


def _span(span: Kept, before: Prompt, after: Prompt, what: str) -> None:
    place = f"{what}: the kept span [{span.start}, {span.end}) of segment {span.segment}"
    assert 0 <= span.segment < len(before.segments), f"{place} is of no segment"
    old, new = before.segments[span.segment].text, after.segments[span.segment].text
    assert 0 <= span.start <= span.end <= len(old), f"{place} lies outside its text of {len(old)} characters"
    stands = new[span.at : span.at + span.end - span.start]
    assert stands == old[span.start : span.end], f"{place} is not what is at {span.at} of the new text"


def _numbers(method: Method) -> None:
    for what, _, made in method.each():
        for number in ("calls", "read_tokens", "cost", "index_seconds", "tokens_before", "tokens_after"):
            value = getattr(made, number)
            assert value is None or value >= 0, f"{what}: {number}={value!r}: 0 or more, None where it is not known"
        before, after = made.tokens_before, made.tokens_after
        assert before is None or after is None or after <= before, f"{what}: {before} tokens become {after}"


def _stateless(method: Method) -> None:
    first = {what: made for what, _, made in method.each()}
    turned = {what: prompt for what, prompt in reversed(prompts().items()) if what in first}
    again = method.rewritten(turned)
    for what, made in first.items():
        other = again[what]
        same = other is not None and other.prompt == made.prompt
        assert same, f"{what}: asked in another order, it is rewritten otherwise: state between prompts, or chance"


def _no_tokenizer(method: Method) -> None:
    try:
        made = method.rewritten({"a server that shows no tokenizer (tokenizer=None)": prompts()["a context"]})
    except LoomError as error:
        raise NotChecked(f"it refuses servers without a tokenizer: {error.what}") from error
    if None in made.values():
        raise NotChecked("it refuses servers without a tokenizer, with a message")


def _huge(method: Method, size: int) -> None:
    text = _text(size // 180 + 1)[:size]
    try:
        with bounded(MOST_SECONDS):
            method.rewritten({f"a context of {size:,} characters": _prompt(text)})
    except TooSlow as error:
        raise NotChecked(f"it takes {error}") from error


def _query_aware(spec: AugmentationSpec, method: Method) -> None:
    """Two questions of one length: a method that does not look at them rewrites the context alike."""
    if spec.query_aware:
        return
    asked = {
        place: _prompt(_text(24), question=f"\nWhen was the {place} of town 9 opened?")
        for place in ("orchard", "station")
    }
    contexts = {made.prompt.context for made in method.rewritten(asked).values() if made is not None}
    assert len(contexts) <= 1, "query_aware=False is declared, but another question changes the context"


def _pieces(method: Method) -> None:
    for what, prompt, made in method.each():
        assert made.kept is not None, "a retriever returns Rewritten with the spans kept (kept=None)"
        for i in context_indices(prompt):
            spans = sorted((span for span in made.kept if span.segment == i), key=lambda span: span.at)
            starts = [span.start for span in spans]
            assert starts == sorted(starts), f"{what}: chunks are not in the order of the context"
            covered = sum(span.end - span.start for span in spans)
            new = made.prompt.segments[i].text
            rest = len("".join(new.split())) - sum(
                len("".join(new[s.at : s.at + s.end - s.start].split())) for s in spans
            )
            assert covered <= len(prompt.segments[i].text), f"{what}: more is kept than the context has"
            assert rest <= 4 * (len(spans) + 1), f"{what}: {rest} characters of the new context are not part of the old"


def _most_chunks(spec: AugmentationSpec, factory: Callable[[Any], Any], options: Mapping[str, str]) -> None:
    names = {f.name for f in fields(spec.options)}
    if "k" not in names:
        raise NotChecked("it has no option k")
    for k in (1, 2):
        given = {**{name: value for name, value in options.items() if name != "budget"}, "k": str(k)}
        if "size" in names:
            given["size"] = "200"
        prompt = prompts()["two contexts"]
        made = make_one(Method(partial(factory, build(spec.options, given, owner=spec.name))), prompt)
        contexts = set(context_indices(prompt))
        spans = [span for span in made.kept or () if span.segment in contexts and span.end > span.start]
        assert len(spans) <= k, f"k={k} is asked for, and {len(spans)} separate pieces are kept"
        assert spans, f"k={k} is asked for, and nothing is kept"
