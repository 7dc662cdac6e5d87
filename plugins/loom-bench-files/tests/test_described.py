"""Benchmarks without code: from a TOML file and JSON lines through the whole pipeline, beside one of a third party."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loom_bench_files.description import Described, described, read_description

from loom_core.api import (
    Catalog,
    DataDir,
    DataError,
    Graded,
    Sample,
    Scored,
    UsageError,
    build,
    hookimpl,
    is_description,
)

TOY = ("--model", "toy")
RECORDS = [
    {"n": 1, "text": "The kiln is red.", "ask": "What colour is the kiln?", "answers": ["red"], "size": "s"},
    {"n": 2, "text": "The barge is blue.", "ask": "What colour is the barge?", "answers": ["blue"], "size": "s"},
    {"n": 3, "text": "The chapel is grey. " * 3, "ask": "What colour is the chapel?", "answers": ["grey"], "size": "l"},
]
TOML = """
[benchmark]
name = "colours"
version = "3"
summary = "what colour something is"
capability = "retrieval"
licence = "CC0-1.0"

[tasks.ask]
records = "colours.jsonl"
system = "Be short."
prompt = "Read {{this}}:\\n{text}\\nQ{n}: {ask}\\nA:"
prefill = " It is"
context = ["text"]
question = ["ask"]
references = "answers"
metrics = ["fable_exact"]
max_tokens = 8
stop = ["\\n"]
id = "n"
level = "size"
truncation = {scope = "prompt", side = "left", limit = 4000}

[[table]]
name = "by size"
average = "macro"
over = ["level"]
scale = 100
digits = 1

[[table]]
name = "all"
average = "micro"
"""


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A description with its records."""
    return written(tmp_path)


def written(folder: Path, toml: str = TOML, records: list[dict[str, Any]] | None = None) -> Path:
    """Write both files."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row) for row in (RECORDS if records is None else records)]
    (folder / "colours.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "colours.toml").write_text(toml, "utf-8")
    return folder / "colours.toml"


def opened(file: Path) -> Described:
    """The benchmark."""
    return Described(build(described(file).options, {}, owner="test"))


def samples_of(file: Path, data: DataDir) -> list[Sample]:
    """All samples of its first task."""
    benchmark = opened(file)
    return list(benchmark.samples(benchmark.tasks(())[0], data, None, ()))


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """No data at all."""
    return DataDir(mirror=None, cache=tmp_path / "cache", offline=True)


def test_prompt_bytes_and_segments(colours: Path, data: DataDir) -> None:
    sample = samples_of(colours, data)[0]
    assert [(part.kind, part.role, part.text) for part in sample.prompt.segments] == [
        ("system", "system", "Be short."),
        ("instruction", "user", "Read {this}:\n"),
        ("context", "user", "The kiln is red."),
        ("question", "user", "\nQ"),
        ("instruction", "user", "1"),
        ("question", "user", ": What colour is the kiln?\nA:"),
        ("prefill", "assistant", " It is"),
    ]
    assert (sample.id, sample.level, sample.references) == ("1", "s", ("red",))
    (task,) = opened(colours).tasks(())
    assert task.generation.max_tokens == 8 and task.generation.stop == ("\n",)
    assert (task.truncation.scope, task.truncation.side, task.truncation.limit) == ("prompt", "left", 4000)


def test_macro_and_micro(colours: Path, data: DataDir) -> None:
    values = {"1": 1.0, "2": 0.0, "3": 1.0}
    rows = [
        Graded(task="ask", sample=sample, repeat=0, scored={"fable_exact": Scored(value=values[sample.id])})
        for sample in samples_of(colours, data)
    ]
    by_size, whole = opened(colours).aggregate(rows)
    assert (by_size.value, by_size.digits, by_size.n) == (75.0, 1, 3)
    assert whole.value == pytest.approx(2 / 3)


def test_a_record_without_a_field_is_left_out_and_named(tmp_path: Path, data: DataDir) -> None:
    rows = [RECORDS[0], {**RECORDS[1], "ask": ["no text"]}, {k: v for k, v in RECORDS[2].items() if k != "answers"}]
    file = written(tmp_path / "bad", records=rows)
    assert [sample.id for sample in samples_of(file, data)] == ["1"]
    first, second = map(str, data.bad)
    assert "colours.jsonl, line 2, field 'ask'" in first and "colours.jsonl, line 3, field 'answers': missing" in second


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        (("max_tokens = 8", "max_token = 8"), "tasks.ask.max_token", "no such key"),
        (("max_tokens = 8", 'max_tokens = "8"'), "tasks.ask.max_tokens", "not a whole number but a text"),
        (('licence = "CC0-1.0"', ""), "benchmark.licence", "missing"),
        (("{text}", "{text!r}"), "tasks.ask.prompt", ""),
        (("{text}", "{text"), "tasks.ask.prompt", "'{' in field name"),
        (('context = ["text"]', 'context = ["txt"]'), "tasks.ask.context", "'txt' is not a field of the prompt"),
        (('average = "micro"', 'average = "mean"'), "table 2.average", "not one of macro, micro"),
        (('over = ["level"]', 'over = ["levle"]'), "table 1.over", "'levle' is not one of"),
        (('side = "left"', 'side = "top"'), "tasks.ask.truncation.side", "not one of"),
        (('name = "colours"', 'name = "two colours"'), "benchmark.name", "letters, digits"),
        (("[tasks.ask]", '[tasks."a:b"]'), "tasks.a:b", "letters, digits"),
        (("[tasks.ask]", "[task.ask]"), "task", "no such key"),
        (("[benchmark]", "[benchmark"), "colours.toml", ""),
    ],
)
def test_bad_descriptions_are_named(tmp_path: Path, change: tuple[str, str], where: str, why: str) -> None:
    assert change[0] in TOML
    with pytest.raises(UsageError) as caught:
        read_description(written(tmp_path / "bad", TOML.replace(*change)))
    assert "colours.toml" in caught.value.where and where in caught.value.where
    assert why in caught.value.why


def test_records_that_are_not_there_are_named(colours: Path) -> None:
    (colours.parent / "colours.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        read_description(colours)
    assert caught.value.where.endswith("colours.jsonl")


def test_any_change_is_another_version(tmp_path: Path) -> None:
    versions = {
        described(written(tmp_path / "a")).version,
        described(written(tmp_path / "b", TOML.replace("Read", "Study"))).version,
        described(written(tmp_path / "c", records=RECORDS[:2])).version,
    }
    assert len(versions) == 3 and all(version.startswith("3+") for version in versions)
    assert described(written(tmp_path / "d")).version in versions


def test_a_study_is_no_description(tmp_path: Path, colours: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('benchmarks = ["passkey"]\n', "utf-8")
    assert not is_description(str(study)) and is_description(str(colours)) and is_description(f"{colours}:ask")
    assert not is_description("passkey") and not is_description(str(tmp_path / "none.toml"))


def test_the_name_of_an_installed_benchmark_is_taken(loom: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "taken", TOML.replace('"colours"', '"fable"'))
    done = loom("plan", file, *TOY, code=2)
    assert "the name 'fable' is taken by an installed benchmark" in done.err


def test_runs_beside_a_third_party_to_the_report(loom: Any, colours: Path) -> None:
    """One of no lines and one of a few, in one run, twice: the second time nothing is asked."""
    shutil.copy(colours, loom.cwd / "colours.toml")
    shutil.copy(colours.parent / "colours.jsonl", loom.cwd / "colours.jsonl")
    asked = ("./colours.toml", "./colours.toml:ask")
    done = loom("run", asked[0], "proverbs", *TOY, "--workers", "2")
    assert "colours:ask" in done.out and "proverbs:finish" in done.out
    assert {row["task"] for row in tasks(loom)} == {"colours:ask", "proverbs:finish"}
    official = json.loads((loom.folder() / "official.json").read_text("utf-8"))
    lines = {line["name"]: line["value"] for line in official["colours"]["dense"]}
    assert lines == {"by size": 100.0, "all": 1.0}
    assert "colours:ask" in (loom.folder() / "report.html").read_text("utf-8")
    n = len(loom.records())
    loom("run", loom.folder())
    loom("run", asked[0], "proverbs", *TOY)
    assert len(loom.records()) == n == 5
    planned = json.loads(loom("plan", asked[1], *TOY, "--format", "json").out)
    assert [task["name"] for task in planned["tasks"]] == ["colours:ask"]
    assert "unknown task 'ax'" in loom("plan", "./colours.toml:ax", *TOY, code=2).err


def tasks(loom: Any) -> list[dict[str, Any]]:
    """The cells of the report."""
    cells: list[dict[str, Any]] = json.loads((loom.folder() / "report.json").read_text("utf-8"))["totals"]
    return cells


def test_a_plugin_may_register_one(colours: Path, catalog: Catalog) -> None:
    @hookimpl
    def loom_benchmarks() -> Any:
        return (described(colours),)

    plugin = ModuleType("loom_bench_colours")
    vars(plugin)["loom_benchmarks"] = loom_benchmarks
    catalog.register(plugin, "colours", "loom-bench-colours", "0.1.0")
    assert not catalog.broken
    found = catalog.benchmarks.get("colours")
    benchmark = catalog.load(found)(build(found.spec.options, {}, owner="colours"))
    assert [task.name for task in benchmark.tasks(())] == ["ask"]
