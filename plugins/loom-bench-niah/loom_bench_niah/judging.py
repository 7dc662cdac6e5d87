"""The authors' judge: its prompt, read from the pinned files, and its mark. Knows no sample's making and no server.

Source: needlehaystack/evaluators/openai.py (CRITERIA; the needle is the reference; temperature 0). It fills langchain's
template for a score against a reference (langchain/evaluation/scoring: prompt.py, and the rules of eval_chain.py).
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping, Sequence

from loom_bench_niah.plugin import NiahJudgeOptions
from loom_core.api import (
    Data,
    DataError,
    DataSource,
    Defused,
    Generation,
    Json,
    Judging,
    Prompt,
    Sample,
    Scored,
    Segment,
    Turn,
    defused,
)

CRITERIA = "OpenAIEvaluator.CRITERIA"
TEMPLATE = "SCORING_TEMPLATE_WITH_REFERENCE"
FIELDS = {"criteria", "reference", "input", "prediction"}
MARK = re.compile(r"\[\[(.*?)\]\]")
MARKS = tuple(str(mark) for mark in range(1, 11))
JUDGE_TOKENS = 1024
"""Room for the judge's reply; the authors set no limit."""


def read_judge(data: Data, evaluator: DataSource, template: DataSource, *, question: str, needle: str) -> list[Json]:
    """The judge's messages with everything but the answer filled in: rows of role, text before it, text behind it (None
    where the message has no answer). Raises DataError where a file is not as expected."""
    criteria = data.constants(evaluator, [CRITERIA])[CRITERIA]
    lead = data.constants(template, ["CRITERIA_INSTRUCTIONS"])["CRITERIA_INSTRUCTIONS"]
    if not isinstance(criteria, Mapping) or not criteria or not isinstance(lead, str):
        raise DataError("the authors' criteria cannot be read", where=evaluator.pin, why=f"{criteria!r:.80}")
    told = "\n".join(f"{name}: {text}" for name, text in criteria.items()).strip()
    values = {"criteria": f"{lead}{told}\n", "reference": needle, "input": question}
    return [[role, *_split(text, values)] for role, text in _messages(data, template)]


def _messages(data: Data, source: DataSource) -> list[tuple[str, str]]:
    """Role and text of each message of the template: a call with one list of pairs."""
    try:
        tree = ast.parse(data.text(source))
        (call,) = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == TEMPLATE for t in node.targets)
        ]
        if not isinstance(call, ast.Call) or len(call.args) != 1 or not isinstance(call.args[0], ast.List):
            raise ValueError(f"{TEMPLATE} is not a call with a list of messages")
        pairs = [item.elts for item in call.args[0].elts if isinstance(item, ast.Tuple)]
        names = [node.id for _, node in pairs if isinstance(node, ast.Name)]
        known = data.constants(source, names)
        found = [
            (ast.literal_eval(role), known[text.id] if isinstance(text, ast.Name) else ast.literal_eval(text))
            for role, text in pairs
        ]
        fields = sorted(name for _, text in found for _, name, _, _ in string.Formatter().parse(text) if name)
        if fields != sorted(FIELDS) or not all(role in ("system", "human") for role, _ in found):
            raise ValueError(f"other roles, or other fields than {', '.join(sorted(FIELDS))}")
    except (SyntaxError, ValueError, TypeError) as error:
        raise DataError("the judge's template cannot be read", where=source.pin, why=str(error)) from error
    return found


def _split(text: str, values: Mapping[str, str]) -> tuple[str, str | None]:
    """The text filled, before and behind the answer."""
    sides, found = ["", ""], False
    for literal, name, _, _ in string.Formatter().parse(text):
        sides[found] += literal
        if name == "prediction":
            found = True
        elif name:
            sides[found] += values[name]
    return sides[0], sides[1] if found else None


class Judge:
    """The authors' mark: 1 to 10, the first text in double brackets of the judge's reply. meta: judge (read_judge)."""

    def __init__(self, options: NiahJudgeOptions | None = None) -> None:
        self._options = options or NiahJudgeOptions()

    def score(self, prediction: str, sample: Sample) -> Judging:
        """The mark. Raises ValueError where the reply has none, as the authors' parser does."""
        rows: Sequence[Json] = sample.meta.get("judge") or ()
        if not rows:
            return Scored(value=None, detail={"error": "this sample has no prompt for a judge"})
        shown = defused(prediction) if self._options.defuse else Defused(prediction, 0)
        segments = []
        for role, before, behind in rows:
            system = role == "system"
            text = before if behind is None else f"{before}{shown.text}{behind}"
            kind, speaker = ("system", "system") if system else ("question", "user")
            segments.append(Segment(kind=kind, text=text, role=speaker))  # type: ignore[arg-type]
        reply = yield Turn(
            prompt=Prompt(segments=tuple(segments)),
            generation=Generation(max_tokens=JUDGE_TOKENS),
            notes=(shown.note,) if shown.n else (),
        )
        told = {"defused": shown.n} if shown.n else {}
        return Scored(value=float(mark(reply.text)), extracted=reply.text[:300], detail=told)


def mark(reply: str) -> int:
    """The mark of a reply. Raises ValueError where the first double brackets hold no whole number from 1 to 10."""
    found = MARK.search(reply)
    if not found or found[1] not in MARKS:
        raise ValueError("the judge's reply has no mark from 1 to 10 in double brackets")
    return int(found[1])
