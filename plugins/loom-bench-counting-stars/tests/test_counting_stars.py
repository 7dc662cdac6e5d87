"""Counting-Stars: the authors' rows as they stand, loom's own text, scores and table. Upstream rows: ../shared/data."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loom_bench_counting_stars.benchmark import FIELDS, CountingStars, star_lines
from loom_bench_counting_stars.own import WORDINGS, Counts, sentences
from loom_bench_counting_stars.plugin import FORMS, CountingStarsOptions
from loom_kit.tokenizers import GRAINS, tokenizer_of

from loom_core.api import (
    DataDir,
    Graded,
    Metric,
    Prompt,
    Sample,
    Scored,
    Task,
    Tokenizer,
    Unavailable,
    UsageError,
    installed,
)
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import render
from loom_core.doubles.server import oracle_text

MIRROR = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data"
ROWS = MIRROR / "counting_stars" / "test_data"
needs_rows = pytest.mark.skipif(not ROWS.is_dir(), reason=f"no upstream rows at {MIRROR}")


def opened(**options: Any) -> tuple[CountingStars, dict[str, Task]]:
    """The benchmark and its tasks by name."""
    bench = CountingStars(CountingStarsOptions(**options))
    return bench, {task.name: task for task in bench.tasks(())}


def samples(form: str, data: DataDir, **options: Any) -> list[Sample]:
    """All samples of an official task."""
    bench, tasks = opened(**options)
    return list(bench.samples(tasks[form], data, None, ()))


def own(form: str, lengths: tuple[int, ...], tokenizer: Tokenizer | None, **options: Any) -> list[Sample]:
    """Samples of loom's variant."""
    bench, tasks = opened(variant="loom", **{"samples": 2, **options})
    return list(bench.samples(tasks[f"loom_{form}"], nowhere(Path("/nonexistent")), tokenizer, lengths))


def nowhere(cache: Path) -> DataDir:
    """No file at all."""
    return DataDir(mirror=None, cache=cache, offline=True)


def metric(name: str) -> Metric:
    """An installed metric."""
    catalog = installed()
    found: Metric = catalog.load(catalog.metrics.get(name))()
    return found


@pytest.fixture
def upstream(tmp_path: Path) -> DataDir:
    """The rows at hand."""
    return DataDir(mirror=MIRROR, cache=tmp_path, offline=True)


# --- the authors' rows -----------------------------------------------------------------------------------------------


@needs_rows
@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_is_the_authors_question(form: str, upstream: DataDir) -> None:
    (name,) = [path for path in ROWS.iterdir() if form.split("_")[0].upper() in path.name and form[3:] in path.name]
    records = {row["context_size"]: row for row in map(json.loads, name.read_text("utf-8").splitlines())}
    found = samples(form, upstream)
    assert sorted(int(one.id.rpartition("-")[2]) for one in found) == sorted(records)
    for sample in found:
        record = records[int(sample.id.rpartition("-")[2])]
        assert sample.prompt.text == record["question"]
        assert [part.kind for part in sample.prompt.segments] == ["context", "question"]
        assert sample.prompt.segments[1].text == record["retrieval_question"]
        assert list(sample.references) == record["reference_counting_results"]
        rendered = render(sample.prompt, ToyTokenizer(), chat="template")
        assert rendered.text == f"[user]{record['question']}\n[assistant]"


@needs_rows
def test_one_row_by_hand(upstream: DataDir) -> None:
    """The first English row: 3,200 words, whose first star line and whose question were read from the file by eye."""
    (sample,) = samples("en_reasoning", upstream, sizes=(1,))
    assert (sample.id, sample.level) == ("en_reasoning-3200", "4k")
    start, end, numbers = star_lines(sample.prompt.context)[0]
    line = (
        "The little penguin counted 16 ★, but found that a mistake had been made, so the counting was done again, and "
        "this time 15 ★ was counted correctly."
    )
    assert sample.prompt.context[start:end] == line and numbers == [16, 15]
    assert sample.prompt.context.startswith("July 2006 When I was in high school")
    assert sample.prompt.text.endswith("Only output the results in JSON format without any explanation.")
    assert sample.references[:3] == (15, 117, 42) and sample.meta["wrong"][:3] == [16, 116, 43]
    (record,) = [
        row
        for path in ROWS.glob("*EN*reasoning*")
        for row in map(json.loads, path.read_text("utf-8").splitlines())
        if row["context_size"] == 3200
    ]
    assert sample.prompt.text.encode() == record["question"].encode()


@needs_rows
@pytest.mark.parametrize("form", ["en_reasoning", "zh_reasoning"])
def test_mistaken_counts_are_the_authors(form: str, upstream: DataDir) -> None:
    wrong = ast.literal_eval((MIRROR / "counting_stars" / "context_data" / "r_stars.txt").read_text("utf-8"))["32"]
    for sample in samples(form, upstream):
        assert sample.meta["wrong"] == wrong


@needs_rows
@pytest.mark.parametrize("form", FORMS)
def test_evidence_oracle_and_null(form: str, upstream: DataDir) -> None:
    _, tasks = opened()
    scorer = metric(tasks[form].metrics[0])
    for sample in samples(form, upstream):
        for one, right in zip(sample.evidence, sample.references, strict=True):
            line = sample.prompt.context[one.start : one.end]
            assert "★" in line and str(right) in line and "\n" not in line
        assert scorer.score(oracle_text(sample), sample).value == 1.0
        assert scorer.score("", sample).value == 0.0


def test_tasks_are_described() -> None:
    _, tasks = opened()
    assert tuple(tasks) == FORMS
    for name, task in tasks.items():
        assert (task.capability, task.language, task.grid, task.retrieval) == ("reasoning", name[:2], True, True)
        assert task.metrics == (f"counting_stars_{name[3:]}",) and "MIT" in task.licence and len(task.sources) == 1
    assert all(not task.grid and not task.sources for task in opened(variant="loom")[1].values())


def test_missing_files_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"Counting_Stars_EN.*searching"):
        samples("en_searching", nowhere(tmp_path))


# --- made-up rows ----------------------------------------------------------------------------------------------------


def made_up(folder: Path, rows: list[dict[str, Any]]) -> DataDir:
    """A mirror with these rows as the English searching file."""
    (source,) = opened()[1]["en_searching"].sources
    path = folder / "mirror" / "counting_stars" / source.pin.rpartition(":")[2]
    path.parent.mkdir(parents=True)
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    path.write_text(text, "utf-8")
    listed = f'path = "{source.pin.rpartition(":")[2]}"\nsha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"'
    (folder / "mirror/counting_stars/EXTRACT.toml").write_text(f"[[file]]\n{listed}\n", "utf-8")
    return DataDir(mirror=folder / "mirror", cache=folder / "cache", offline=True)


def row(step: int, **other: Any) -> dict[str, Any]:
    """A made-up row with two stars."""
    context, asked = f"MADE UP words.\nA cat counted {step} ★\nMore words.\nA cat counted 99 ★\n", "\nCollect ★."
    return {
        "question": context + asked,
        "context_size": 3200 * step,
        "retrieval_question": asked,
        "reference_counting_results": [step, 99],
        "parameters": {"temperature": 0.0},
        **other,
    }


def test_sizes_come_interleaved_and_can_be_chosen(tmp_path: Path) -> None:
    data = made_up(tmp_path, [row(step) for step in range(1, 33)])
    levels = [sample.level for sample in samples("en_searching", data)]
    assert levels[:4] == ["4k", "68k", "36k", "100k"] and len(set(levels)) == 32
    assert [sample.level for sample in samples("en_searching", data, sizes=(1, 32))] == ["4k", "128k"]


def test_bad_rows_are_named_and_left_out(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2, context_size="6400"),
        row(3, retrieval_question="?"),
        row(4, reference_counting_results=[1, 2]),
    ]
    data = made_up(tmp_path, rows)
    assert [sample.level for sample in samples("en_searching", data)] == ["4k"]
    places = [(bad.place, bad.field) for bad in data.bad]
    assert places == [
        ("line 2", "context_size"),
        ("line 3", "retrieval_question"),
        ("line 4", "reference_counting_results"),
    ]
    assert set(FIELDS) == {"question", "context_size", "retrieval_question", "reference_counting_results"}


# --- loom's own text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAINS)
@pytest.mark.parametrize("form", FORMS)
def test_lengths_under_three_tokenizers(form: str, name: str) -> None:
    tokenizer = tokenizer_of(name)
    if tokenizer is None:
        pytest.skip("the embedded model is not installed")
    for sample in own(form, (6000, 12000), tokenizer, stars=12):
        wanted = int(sample.id.split("-t")[1].split("-")[0])
        assert 0.98 * wanted <= len(render(sample.prompt, tokenizer, chat="template").token_ids or ()) <= wanted


@pytest.mark.parametrize("form", FORMS)
def test_own_lines_hold_the_counts(form: str) -> None:
    scorer = metric(f"counting_stars_{form[3:]}")
    for sample in own(form, (9000,), ToyTokenizer(), stars=20):
        assert len(set(sample.references)) == 20 and len(sample.evidence) == 20
        for one, right in zip(sample.evidence, sample.references, strict=True):
            assert str(right) in sample.prompt.context[one.start : one.end]
        assert scorer.score(oracle_text(sample), sample).value == 1.0
        assert scorer.score("", sample).value == 0.0
        key = WORDINGS[form[:2]].key
        assert f'{{"{key}": [' in sample.prompt.text
        if form.endswith("reasoning"):
            mistaken = json.dumps({key: sample.meta["wrong"]}, ensure_ascii=False)
            assert scorer.score(mistaken, sample).value == 0.25
            assert not set(sample.meta["wrong"]) & set(sample.references)


def test_a_length_too_short_names_the_least() -> None:
    with pytest.raises(UsageError, match="too short for the counts") as caught:
        own("en_searching", (600,), ToyTokenizer())
    assert "stars" in caught.value.hint


def test_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib, json\nfrom pathlib import Path\n"
        "from loom_bench_counting_stars.benchmark import CountingStars\n"
        "from loom_bench_counting_stars.plugin import CountingStarsOptions\n"
        "from loom_core.contract.keys import canonical\nfrom loom_core.doubles.server import ToyTokenizer\n"
        "bench = CountingStars(CountingStarsOptions(variant='loom', samples=2, seed=4))\n"
        "rows = [s for t in bench.tasks(()) for s in bench.samples(t, None, ToyTokenizer(), (20000,))]\n"
        "print(hashlib.sha256(canonical(rows).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and len(found.pop().strip()) == hashlib.sha256().digest_size * 2


def test_counts_and_filler() -> None:
    import random

    counts = Counts.drawn(random.Random(1), 32)
    assert len({*counts.right, *counts.wrong}) == 64
    assert all(abs(a - b) == 1 for a, b in zip(counts.right, counts.wrong, strict=True))
    for language in ("en", "zh"):
        rows = sentences(language)
        assert len(set(rows)) == len(rows) >= 20 and not any(c.isdigit() or c == "★" for one in rows for c in one)


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_the_mean_of_the_tasks() -> None:
    bench, _ = opened()
    values = {"en_searching": [1.0, 0.5], "en_reasoning": [0.25], "zh_searching": [0.5], "zh_reasoning": [0.0]}
    prompt = own("en_searching", (6000,), ToyTokenizer(), stars=4, samples=1)[0].prompt
    rows = [
        Graded(
            task=task,
            sample=Sample(id=f"{task}-{i}", task=task, prompt=prompt, references=()),
            repeat=0,
            scored={f"counting_stars_{task[3:]}": Scored(value=value)},
        )
        for task, given in values.items()
        for i, value in enumerate(given)
    ]
    lines = {line.name: line for line in bench.aggregate(rows)}
    assert lines["en_searching"].value == 0.75 and lines["average"].value == pytest.approx(0.375)
    assert all(line.digits == 3 for line in lines.values()) and lines["average"].note == ""
    fewer = {line.name: line for line in bench.aggregate(rows[:3])}
    assert fewer["average"].note == "mean of 2 of 4 tasks"


def test_mended_english_answers_are_counted() -> None:
    """The authors' English program ends on broken JSON; loom mends it, gives credit, and says how often."""
    metric = installed().load(installed().metrics.get("counting_stars_searching"))()
    rows = []
    for task, key in (("en_searching", "little_penguin"), ("zh_searching", "小企鹅")):
        whole = f'{{"{key}": [1, 2]}}'
        for number, text in enumerate((whole, f"{{'{key}': [1]}}", f"```json\n{whole}\n```")):
            sample = Sample(
                id=f"{task}{number}", task=task, prompt=Prompt(segments=()), references=(1, 2), meta={"key": key}
            )
            scored = {"counting_stars_searching": metric.score(text, sample)}
            rows.append(Graded(task=task, sample=sample, repeat=0, scored=scored))
    lines = {line.name: line for line in CountingStars(CountingStarsOptions()).aggregate(rows)}
    assert lines["en_searching"].note.startswith("1 of 3 answers are broken JSON")
    assert (lines["zh_searching"].note, lines["en_searching"].value) == ("", 2.5 / 3)
