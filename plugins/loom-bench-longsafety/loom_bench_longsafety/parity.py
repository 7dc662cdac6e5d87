"""LongSafety beside its authors' program: prompts, the agents' questions, and the rates of their table.

Upstream's functions run in a process of their own (`loom parity longsafety --upstream FOLDER`); their agents ask a
scripted judge there. The documents may be absent: made-up ones stand in for the prompts.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer, answer_variants, upstream

from loom_bench_longsafety.benchmark import DOCS, META, LongSafety, sample
from loom_bench_longsafety.judging import answer_safe
from loom_bench_longsafety.official import read_official
from loom_bench_longsafety.plugin import AgentOptions, LongSafetyOptions
from loom_bench_longsafety.table import POSITIONS, RATE
from loom_core.api import Graded, Json, Scored, Unavailable
from loom_core.api.records import Record, read_records

REPLIES = (
    "0",
    "1",
    "0\n",
    "1.",
    "10",
    "Judgment: 0",
    "Error 1",
    "safe",
    "**1**",
    "１",
    "",
    " ",
    "0 (not 1)",
    "I can't",
)
LINES = {"safety_rate": "safety rate (front or end)", "safety_rate_front": "front only", "safety_rate_end": "end only"}
TABLES = 60


class Parity:
    """Prompts, agents and rates of thu-coai/LongSafety."""

    commit = "130a6b739d43870e1010ec699ae4868da06d0a0e"
    files = ("src/gen_model_response.py", "src/multi_agent_eval.py", "src/show_result.py")
    differences: Mapping[str, str] = {
        "defused": "headings of the judge's prompt and double brackets in an answer get a backslash; compared with it "
        "off: --metric-option longsafety.defuse=off"
    }

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """prompts, agents and rates."""
        os.environ.setdefault("OPENAI_API_KEY", "none: nothing is asked")
        away = ("torch", "transformers", "openai", "tqdm")
        made = upstream.module(root, "src/gen_model_response.py", absent=away)
        agents = upstream.module(root, "src/multi_agent_eval.py", absent=away)
        return {
            "prompts": lambda row: list(made.build_prompt(row)),
            "agents": partial(_agents, agents),
            "rates": partial(_rates, root),
        }

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Every record's prompts and its agents' questions, with drawn replies; drawn tables."""
        bench = LongSafety(LongSafetyOptions())
        templates = read_official(context.data, bench.program_source)
        draw = context.random("replies")
        real = _documents(context, bench)
        odd = [text for _, text in answer_variants("{risks} of {x!r} }{ {instruction}", draw) if len(text) < 500]
        for number, record in enumerate(read_records(context.data, bench.meta_source, META)):
            if context.limit is not None and number >= context.limit:
                break
            document = f"Document {record['id']}: {draw.choice(odd)}\n{{context}} text\n"
            row = {"instruction": record["instruction"], "context": document}
            yield _prompt("both positions", record, document)
            if record["id"] in real:
                yield _prompt("both positions, real documents", record, real[record["id"]])
            # Two replies to the questions about the record, two judgements.
            replies = [draw.choice(("", *odd)), draw.choice(("", *odd)), draw.choice(REPLIES), draw.choice(REPLIES)]
            given = {**row, "response_front": draw.choice(odd), "response_end": draw.choice(odd)}
            yield Case(
                kind="score",
                name="agents",
                id=str(record["id"]),
                function="agents",
                payload=[given, replies],
                ours=partial(_judged, record, templates, given, replies),
            )
        for number in range(min(TABLES, context.limit or TABLES)):
            rows = [{f"judgment_{at}": draw.choice(REPLIES) for at in POSITIONS} for _ in range(draw.randint(1, 400))]
            yield Case(
                kind="table",
                name="rates",
                id=str(number),
                function="rates",
                payload=rows,
                ours=partial(_table, rows),
                tolerance=1e-9,
            )

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None


def _documents(context: ParityContext, bench: LongSafety) -> Mapping[int, str]:
    """The documents by record; none where their file is not at hand, which is noted."""
    try:
        return {row["id"]: row["context"] for row in read_records(context.data, bench.docs_source, DOCS)}
    except Unavailable as error:
        context.missing["prompts of the real documents"] = f"{error.what}; made-up documents were compared"
        return {}


def _prompt(name: str, record: Record, document: str) -> Case:
    return Case(
        kind="prompt",
        name=name,
        id=str(record["id"]),
        function="prompts",
        payload={"instruction": record["instruction"], "context": document},
        ours=partial(_prompts, record, document),
    )


def _prompts(record: Record, document: str) -> Json:
    return [sample(record, document, position).prompt.text for position in POSITIONS]


def _judged(record: Record, templates: Mapping[str, Json], given: Mapping[str, str], replies: list[str]) -> Json:
    """The questions in the authors' order (the analysis and the summary once), and whether each answer is unsafe."""
    asked: list[str] = []
    unsafe: list[bool] = []
    for position, reply in zip(POSITIONS, replies[2:], strict=True):
        one = sample(record, given["context"], position, templates)
        judging = answer_safe(AgentOptions(defuse=False)).score(given[f"response_{position}"], one)
        texts = [next(judging).prompt.text]
        texts += [judging.send(answer(text)).prompt.text for text in replies[:2]]
        asked += texts if not asked else texts[2:]
        try:
            judging.send(answer(reply))
        except StopIteration as end:
            unsafe.append(end.value.value == 0.0)
    return [asked, unsafe]


def _table(rows: list[Json]) -> Json:
    graded: list[Graded] = []
    bench = LongSafety(LongSafetyOptions())
    for number, row in enumerate(rows):
        record = Record(
            1, {"id": number, "instruction": "", "safety_type": "", "task_type": "", "length": 0, "key_words": []}
        )
        found = LongSafety.score_gold({"prediction": row})
        for position in POSITIONS:
            value = _scored(0.0 if found[position] else 1.0)
            graded.append(Graded(task="all", sample=sample(record, "", position), repeat=0, scored=value))
    pairs = [
        Graded(task="all", sample=row.sample, repeat=0, scored=scored)
        for i in range(0, len(graded), 2)
        for row, scored in zip(graded[i : i + 2], bench.score_group(graded[i : i + 2]), strict=True)
    ]
    lines = {line.name: line.value for line in bench.aggregate(pairs)}
    return {name: round(lines[line] or 0.0, 4) for name, line in LINES.items()}


def _scored(value: float) -> dict[str, Any]:
    return {name: Scored(value=value) for name in (RATE, "longsafety_safe", "longsafety_rate_strict")}


# --- the authors' side ----------------------------------------------------------------------------------------------


def _agents(made: Any, payload: Json) -> Json:
    row, replies = payload
    asked: list[str] = []
    left = iter(replies)

    def reply(prompt: str, model: str) -> str:
        asked.append(prompt)
        return str(next(left))

    made.gen_response = reply
    found = made.MultiAgentJudge("scripted").judge(dict(row))
    return [asked, ["1" in found["judgment_front"], "1" in found["judgment_end"]]]


def _rates(root: Path, rows: Json) -> Json:
    """Their script, on a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "m"
        place.mkdir()
        (place / "j_judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        before, sys.argv = sys.argv, ["show", "--model-name", "m", "--judge-name", "j", "--output-dir", folder]
        try:
            runpy.run_path(str(root / "src/show_result.py"), run_name="__main__")
        finally:
            sys.argv = before
        found = json.loads((place / "j_judge_result.json").read_text("utf-8"))
        return {name: found[name] for name in LINES}
