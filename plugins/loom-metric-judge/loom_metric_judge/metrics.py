"""Judged metrics: what is asked, in which turns, and what the replies are worth. Knows prompts; asks no model itself.

The forms follow the suites that use them (LooGLE's true or false, NIAH's 1/3/5/7/10, LongWriter's six marks,
comparisons in both orders against position bias); the wording is loom's own.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from functools import cached_property
from pathlib import Path
from statistics import fmean

from loom_core.api import (
    DataError,
    Defused,
    Generation,
    Json,
    Judging,
    Prompt,
    Response,
    Sample,
    Scored,
    Turn,
    defused,
    read_toml,
    segment,
)
from loom_metric_judge.plugin import JudgeOptions
from loom_metric_judge.replies import label, mark, marks, short

OWN = Path(__file__).with_name("prompts.toml")
NAMES = ("correct", "grade", "needle", "quality", "compare", "panel_accuracy", "panel_completeness", "panel_clarity")
NEEDLE = (1.0, 3.0, 5.0, 7.0, 10.0)
QUALITIES = ("relevance", "accuracy", "coherence", "clarity", "breadth_and_depth", "reading_experience")
RUBRIC = "how helpful, right, complete and clear the answer is"
_FIELD = re.compile(r"\{(question|reference|answer|rubric|first|second)\}")


def read_prompts(path: Path) -> Mapping[str, Json]:
    """The prompts of a TOML file (see prompts.toml). Raises DataError naming what is missing or wrong."""
    try:
        values = read_toml(path)
        for name in NAMES:
            if not isinstance(values[name]["prompt"], str) or not isinstance(values[name]["max_tokens"], int):
                raise ValueError(f"{name} needs prompt (text) and max_tokens (whole number)")
        if not isinstance(values["version"], str):
            raise ValueError("version is not a text")
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        hint = f"write it like {OWN.name} of loom-metric-judge"
        raise DataError("the judge's prompts cannot be read", where=str(path), why=why, hint=hint) from error
    return values


def question_of(sample: Sample) -> str:
    """What was asked: `meta["question"]`, or the prompt's question."""
    asked = sample.meta.get("question")
    parts = [s.text for s in sample.prompt.segments if s.kind == "question"]
    return str(asked) if asked is not None else "".join(parts).strip()


class Judged:
    """What the metrics share. meta: question (optional), rubric (optional); references as they are, one a line."""

    def __init__(self, options: JudgeOptions | None = None) -> None:
        self._options = options or JudgeOptions()

    @cached_property
    def _prompts(self) -> Mapping[str, Json]:
        return read_prompts(Path(self._options.prompts) if self._options.prompts else OWN)

    def _told(self, answer: Defused, sample: Sample) -> dict[str, str]:
        return {
            "question": question_of(sample),
            "reference": "\n".join(map(str, sample.references)),
            "answer": answer.text,
            "rubric": str(sample.meta.get("rubric") or RUBRIC),
        }

    def _ask(self, name: str, told: Mapping[str, str], answer: Defused) -> Generator[Turn, Response, str]:
        """One turn; fields are filled all at once, so that what a value holds is never read as a field. Raises
        ValueError over a reply that was cut: the mark stands at the end, and a cut reply has none.
        """
        row = self._prompts[name]
        text = _FIELD.sub(lambda found: told.get(found[1], found[0]), row["prompt"])
        reply = yield Turn(
            prompt=Prompt(segments=(segment("question", text),)),
            generation=Generation(max_tokens=row["max_tokens"]),
            notes=(answer.note,) if answer.n else (),
        )
        if reply.finish == "length":
            raise ValueError(f"the judge's reply was cut at its limit of tokens: {short(reply.text)}")
        return reply.text

    def _scored(self, answer: Defused, value: float, *replies: str, **detail: Json) -> Scored:
        told = {"defused": answer.n} if answer.n else {}
        said = [reply[:300] for reply in replies]
        return Scored(value=value, extracted=said, detail={"prompts": self._prompts["version"], **told, **detail})


class Correct(Judged):
    """Yes or no against the reference."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """1 or 0."""
        answer = defused(prediction)
        reply = yield from self._ask("correct", self._told(answer, sample), answer)
        return self._scored(answer, float(label(reply, ("yes", "no")) == "yes"), reply)


class Grade(Judged):
    """A grade from 1 to 10 by a rubric."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """(grade - 1) / 9."""
        answer = defused(prediction)
        reply = yield from self._ask("grade", self._told(answer, sample), answer)
        grade = mark(reply, 1, 10)
        return self._scored(answer, (grade - 1) / 9, reply, grade=grade)


class Needle(Judged):
    """The needle test's five marks."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """Mark / 10: 0.1 to 1."""
        answer = defused(prediction)
        reply = yield from self._ask("needle", self._told(answer, sample), answer)
        found = mark(reply, 1, 10, NEEDLE)
        return self._scored(answer, found / 10, reply, mark=found)


class Quality(Judged):
    """Six marks for a text."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """(mean - 1) / 4; LongWriter prints 100 times that."""
        answer = defused(prediction, keys=QUALITIES)
        reply = yield from self._ask("quality", self._told(answer, sample), answer)
        found = marks(reply, QUALITIES, 1, 5)
        return self._scored(answer, (fmean(found.values()) - 1) / 4, reply, marks=dict(found))


class Pairwise(Judged):
    """The answer against the first reference, asked in both orders."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """The mean over both orders: 1 where the answer is better, 0.5 for a tie, 0 where the reference is."""
        answer, values, replies = defused(prediction), [], []
        # Shown alike, or the judge could tell which of the two is under test.
        told, rival = self._told(answer, sample), defused(str(sample.references[0])).text
        for first, second, ours in ((answer.text, rival, "a"), (rival, answer.text, "b")):
            reply = yield from self._ask("compare", {**told, "first": first, "second": second}, answer)
            said = label(reply, ("a", "b", "tie"))
            values.append(0.5 if said == "tie" else float(said == ours))
            replies.append(reply)
        return self._scored(answer, fmean(values), *replies, orders_agree=values[0] == values[1])


class Panel(Judged):
    """Three agents, each with its own concern."""

    def score(self, prediction: str, sample: Sample) -> Judging:
        """(mean mark - 1) / 4; without a value where one of them gives no mark."""
        answer, found, replies = defused(prediction), [], []
        told = self._told(answer, sample)
        for agent in ("panel_accuracy", "panel_completeness", "panel_clarity"):
            reply = yield from self._ask(agent, told, answer)
            found.append(mark(reply, 1, 5))
            replies.append(reply)
        return self._scored(answer, (fmean(found) - 1) / 4, *replies, marks=found)
