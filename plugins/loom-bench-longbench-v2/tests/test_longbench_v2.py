"""LongBench v2 against the authors' prompts and answer extraction. The records are made up: none could be had."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from loom_bench_longbench_v2.benchmark import ACCURACY, COMPENSATED, LongBenchV2
from loom_bench_longbench_v2.plugin import LongBenchV2Options
from loom_kit.gold import agrees, score_gold_row
from loom_kit.upstream import put

from loom_core.api import DataDir, DataError, Graded, Prompt, Response, Sample, Scored, Timing, Unavailable, installed
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import fit

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
PROMPTS = SHARED / "data" / "longbench_v2" / "prompts"
needs_shared = pytest.mark.skipif(not PROMPTS.is_dir(), reason=f"no LongBench v2 prompts at {PROMPTS}")
ROW: Mapping[str, Any] = {
    "_id": "made-up-0002",
    "domain": "Single-Document QA",
    "sub_domain": "Academic",
    "difficulty": "hard",
    "length": "short",
    "question": "What does table 2 vary?",
    "choice_A": "depth",
    "choice_B": "width",
    "choice_C": "rate",
    "choice_D": "seed",
    "answer": "B",
    "context": "Table 2 varies the width of the layer.",
}


def mirror_with(tmp_path: Path, rows: Any) -> Path:
    folder = tmp_path / "mirror" / "longbench_v2"
    for file in PROMPTS.glob("*.txt"):
        put(folder, f"prompts/{file.name}", file.read_bytes())
    made = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    put(folder, "data.json", made)
    sha256 = hashlib.sha256(made).hexdigest()
    put(folder, "EXTRACT.toml", f'[[file]]\npath = "data.json"\nsha256 = "{sha256}"\nbytes = {len(made)}\n'.encode())
    return folder.parent


def read(tmp_path: Path, rows: Any, **options: Any) -> tuple[LongBenchV2, list[Sample], DataDir]:
    data = DataDir(mirror=mirror_with(tmp_path, rows), cache=tmp_path / "cache", offline=True)
    benchmark = LongBenchV2(LongBenchV2Options(**options))
    return benchmark, list(benchmark.samples(benchmark.tasks(())[0], data, None, ())), data


def replaced(name: str, row: Mapping[str, Any], thoughts: str = "") -> str:
    """The authors' template, its placeholders replaced in their order."""
    text = (PROMPTS / f"{name}.txt").read_text("utf-8")
    values = [("$DOC$", row["context"]), ("$Q$", row["question"])]
    values += [(f"$C_{letter}$", row[f"choice_{letter}"]) for letter in "ABCD"]
    for placeholder, value in [*values, ("$COT$", thoughts)]:
        text = text.replace(placeholder, value)
    return text


def said(text: str) -> Response:
    timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
    return Response(key="", text=text, finish="stop", n_in=0, n_out=0, timing=timing)


@needs_shared
@pytest.mark.parametrize("mode", ["direct", "no_context", "rag", "cot"])
def test_prompt_bytes_are_the_template_filled_with_the_record(tmp_path: Path, mode: str) -> None:
    name = {"direct": "0shot", "no_context": "0shot_no_context", "rag": "0shot_rag", "cot": "0shot_cot"}[mode]
    benchmark, [sample], data = read(tmp_path, [ROW], mode=mode)
    assert sample.prompt.text.encode() == replaced(name, ROW).encode()
    assert sample.prompt.context == ("" if mode == "no_context" else ROW["context"])
    assert (sample.level, sample.references, sample.meta["difficulty"]) == ("short", ("B",), "hard")
    assert benchmark.tasks(())[0].retrieval is (mode != "no_context") and not data.bad


@needs_shared
def test_direct_prompt_by_hand(tmp_path: Path) -> None:
    _, [sample], _ = read(tmp_path, [ROW])
    lines = sample.prompt.text.split("\n")
    assert lines[2:5] == ["<text>", "Table 2 varies the width of the layer.", "</text>"]
    assert lines[6].endswith(": What does table 2 vary?")
    assert lines[8:12] == ["(A) depth", "(B) width", "(C) rate", "(D) seed"]


@needs_shared
def test_placeholders_in_a_text_are_replaced_as_upstream(tmp_path: Path) -> None:
    row = {**ROW, "context": "It asks $Q$ and offers $C_B$ or $DOC$.", "question": "Is $C_A$ right?"}
    _, [sample], _ = read(tmp_path, [row])
    assert sample.prompt.text == replaced("0shot", row)
    assert sample.prompt.context == "It asks Is depth right? and offers width or $DOC$."


@needs_shared
def test_two_calls_of_the_thinking_mode(tmp_path: Path) -> None:
    benchmark, [sample], _ = read(tmp_path, [ROW], mode="cot")
    first, thoughts = benchmark.tasks(())[0].generation, " The table has a column $Q$ of widths.\n"
    turn = benchmark.follow_up(sample, [said(thoughts)])
    assert turn is not None
    assert (first.max_tokens, first.temperature) == (1024, 0.1)
    assert (turn.generation.max_tokens, turn.generation.temperature) == (128, 0.1)
    assert turn.prompt.text == replaced("0shot_cot_ans", ROW, thoughts.strip())
    assert ROW["context"] not in turn.prompt.text
    assert benchmark.follow_up(sample, [said(thoughts), said("x")]) is None
    metrics = {name: installed().load(installed().metrics.get(name))() for name in (ACCURACY, COMPENSATED)}
    answers = [said("The correct answer is (A)"), said("**The correct answer is (B)**")]
    assert benchmark.score(sample, answers, metrics)[ACCURACY] == Scored(value=1.0, extracted="B")


@needs_shared
def test_one_call_in_the_other_modes(tmp_path: Path) -> None:
    benchmark, [sample], _ = read(tmp_path, [ROW])
    assert benchmark.follow_up(sample, [said("x")]) is None


@needs_shared
def test_cut_is_the_middle_of_the_raw_prompt(tmp_path: Path) -> None:
    row = {**ROW, "context": "".join(f"{i} " for i in range(1000))}
    benchmark, [sample], _ = read(tmp_path, [row], max_length=600)
    task, tokenizer = benchmark.tasks(())[0], ToyTokenizer()
    raw = replaced("0shot", {**row, "context": row["context"].strip()})
    for window in (10_000, 600):
        cut, _ = fit(sample.prompt, tokenizer, chat="completion", truncation=task.truncation, limit=window)
        # 300 tokens of each end, the first of them BOS.
        assert cut.text == raw[:299] + raw[-300:]
    assert benchmark.tasks(())[0].truncation.limit == 600
    assert LongBenchV2(LongBenchV2Options()).tasks(())[0].truncation.limit == 120_000


@needs_shared
def test_bad_records_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    without = {name: value for name, value in ROW.items() if name != "question"}
    rows = [without, {**ROW, "answer": "E"}, {**ROW, "length": 3}, {**ROW, "context": None}, 7, ROW]
    _, samples, data = read(tmp_path, rows)
    assert [sample.id for sample in samples] == ["made-up-0002"]
    assert [(bad.place, bad.field) for bad in data.bad] == [
        ("item 1", "question"),
        ("item 2", "answer"),
        ("item 3", "length"),
        ("item 4", "context"),
        ("item 5", ""),
    ]


@needs_shared
def test_what_is_absent_is_unavailable_and_what_is_changed_refused(tmp_path: Path) -> None:
    mirror = mirror_with(tmp_path, [ROW])
    benchmark = LongBenchV2(LongBenchV2Options())
    (mirror / "longbench_v2/data.json").unlink()
    data = DataDir(mirror=mirror, cache=tmp_path / "cache", offline=True)
    with pytest.raises(Unavailable, match=r"data\.json"):
        list(benchmark.samples(benchmark.tasks(())[0], data, None, ()))
    (mirror / "longbench_v2/prompts/0shot.txt").write_text("another prompt", "utf-8")
    data = DataDir(mirror=mirror, cache=tmp_path / "cache", offline=True)
    with pytest.raises(DataError, match="0shot"):
        list(benchmark.samples(benchmark.tasks(())[0], data, None, ()))


def graded(value: float | None, level: str, difficulty: str) -> Graded:
    sample = Sample(
        id=f"{value}",
        task="direct",
        prompt=Prompt(segments=()),
        references=("B",),
        level=level,
        meta={"difficulty": difficulty},
    )
    scored = {ACCURACY: Scored(value=value or 0), COMPENSATED: Scored(value=0.25 if value is None else value)}
    return Graded(task="direct", sample=sample, repeat=0, scored=scored)


def test_table_by_difficulty_and_length() -> None:
    rows = [graded(1, "short", "easy"), graded(0, "short", "hard"), graded(None, "long", "hard")]
    lines = LongBenchV2(LongBenchV2Options()).aggregate(rows)
    assert [(line.name, round(line.value or 0, line.digits), line.n) for line in lines] == [
        ("overall", 33.3, 3),
        ("easy", 100.0, 1),
        ("hard", 0.0, 2),
        ("short", 50.0, 2),
        ("long", 0.0, 1),
        ("overall", 41.7, 3),
        ("easy", 100.0, 1),
        ("hard", 12.5, 2),
        ("short", 50.0, 2),
        ("long", 25.0, 1),
    ]
    assert [line.metric for line in lines] == [ACCURACY] * 5 + [COMPENSATED] * 5


def gold() -> Iterator[Any]:
    path = SHARED / "gold-examples" / "longbench_v2_extract.json"
    for i, row in enumerate(json.loads(path.read_text("utf-8")) if path.is_file() else []):
        yield pytest.param(row, id=str(i))
    if not path.is_file():
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no gold rows at {SHARED}"))


@pytest.mark.parametrize("row", list(gold()))
def test_equals_the_official_extraction(row: dict[str, Any]) -> None:
    assert agrees(score_gold_row(row), row["official_score"], 1e-6)
