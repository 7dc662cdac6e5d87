"""LongBench against its authors' files: prompts byte for byte, the order of cut and template, scores, bad records.

The real extracts and gold rows are looked for at ../shared; where only the schema is known, records are made up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loom_bench_longbench.benchmark import LongBench
from loom_bench_longbench.plugin import EXTENDED_TASKS, TASKS, LongBenchOptions
from loom_bench_longbench.prompts import fill
from loom_bench_longbench.settings import GROUPS, SETTINGS, bucket
from loom_kit.gold import agrees, score_gold_row
from loom_kit.upstream import put

from loom_core.api import DataDir, DataError, Graded, Sample, Scored, Task, installed
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import fit, render

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
MIRROR = SHARED / "data"
CONFIG = MIRROR / "longbench" / "LongBench" / "config"
needs_shared = pytest.mark.skipif(not CONFIG.is_dir(), reason=f"no LongBench files at {MIRROR}")


def opened(**options: Any) -> LongBench:
    return LongBench(LongBenchOptions(**options))


def task_of(benchmark: LongBench, name: str) -> Task:
    return next(task for task in benchmark.tasks(()) if task.name == name)


def read(tmp_path: Path, mirror: Path, name: str, **options: Any) -> tuple[list[Sample], DataDir]:
    data = DataDir(mirror=mirror, cache=tmp_path / "cache", offline=True)
    benchmark = opened(**options)
    return list(benchmark.samples(task_of(benchmark, name), data, None, ())), data


def made_up(**changed: Any) -> dict[str, Any]:
    row = {
        "input": "Who repaired the clock?",
        "context": "The clock was repaired by Oda Lind.",
        "answers": ["Oda Lind"],
        "length": 812,
        "dataset": "hotpotqa",
        "language": "en",
        "all_classes": None,
        "_id": "made-up-0001",
    }
    return {name: value for name, value in {**row, **changed}.items() if value != "absent"}


def mirror_with(tmp_path: Path, task: str, rows: list[Any]) -> Path:
    """The authors' config files and made-up records."""
    folder = tmp_path / "mirror" / "longbench"
    for file in CONFIG.glob("*.json"):
        put(folder, f"LongBench/config/{file.name}", file.read_bytes())
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    put(folder, f"data/{task}.jsonl", "\n".join(lines).encode())
    return folder.parent


# --- prompts ---------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("name", ["multi_news", "multifieldqa_zh", "passage_retrieval_zh"])
def test_prompt_bytes_are_the_template_filled_with_the_record(tmp_path: Path, name: str) -> None:
    samples, data = read(tmp_path, MIRROR, name)
    lines = (MIRROR / "longbench" / "data" / f"{name}.jsonl").read_text("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    template = json.loads((CONFIG / "dataset2prompt.json").read_text("utf-8"))[name]
    before, after = template.split("{context}")
    assert len(samples) == len(rows) == 6 and not data.bad
    for sample, row in zip(samples, rows, strict=True):
        expected = before + row["context"] + after.replace("{input}", row["input"])
        assert sample.prompt.text.encode() == expected.encode()
        assert sample.prompt.context == row["context"]
        assert sample.references == tuple(row["answers"])
    assert all(used.extract for used in data.used() if used.pin.endswith(".jsonl"))
    assert not any(used.extract for used in data.used() if used.pin.endswith(".json"))


@needs_shared
def test_cut_is_the_authors_middle_of_the_raw_prompt_and_the_template_comes_after(tmp_path: Path) -> None:
    samples, tokenizer = read(tmp_path, MIRROR, "multi_news")[0], ToyTokenizer()
    # The toy tokenizer has a token for each byte: take a prompt whose ends have no others.
    long = [s for s in samples if len(s.prompt.text) > 1000]
    sample = next(s for s in long if (s.prompt.text[:500] + s.prompt.text[-500:]).isascii())
    raw = sample.prompt.text
    task = task_of(opened(max_length=1000), "multi_news")
    cut, rendered = fit(sample.prompt, tokenizer, chat=task.chat, truncation=task.truncation, limit=10_000)
    ids = tokenizer.encode(raw, special=True)
    expected = tokenizer.decode(ids[:500]) + tokenizer.decode(ids[-500:])
    assert cut.text == expected and len(expected) == 999
    assert tokenizer.decode(rendered.token_ids or ()) == f"[user]{expected}\n[assistant]"


@needs_shared
def test_six_tasks_are_asked_without_chat_template(tmp_path: Path) -> None:
    plain = {task.name for task in opened().tasks(()) if task.chat == "completion"}
    assert plain == {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    mirror = mirror_with(tmp_path, "lcc", [made_up(input="")])
    sample = read(tmp_path, mirror, "lcc")[0][0]
    text = render(sample.prompt, ToyTokenizer(), chat="completion").text
    assert text == sample.prompt.text == fill_by_hand("lcc", made_up(input=""))


def fill_by_hand(name: str, row: dict[str, Any]) -> str:
    template: str = json.loads((CONFIG / "dataset2prompt.json").read_text("utf-8"))[name]
    return template.replace("{context}", row["context"], 1).replace("{input}", row["input"], 1)


@needs_shared
@pytest.mark.parametrize("name", [*TASKS, *EXTENDED_TASKS])
def test_every_task_reads_records_of_the_schema(tmp_path: Path, name: str) -> None:
    base = name.removesuffix("_e")
    row = made_up(dataset=base, all_classes=["Food", "Date"])
    samples, data = read(tmp_path, mirror_with(tmp_path, name, [row]), name, view="both")
    assert [sample.prompt.text for sample in samples] == [fill_by_hand(base, row)]
    assert samples[0].level == ("0-4k" if name.endswith("_e") else None)
    assert not data.bad


def test_fill_is_format() -> None:
    values = {"context": "{c}", "input": "{input}"}
    for template in ("a {context} b {input} {{c}}", "{input}{context}", "{context}{input}{input}"):
        assert fill(template, values).text == template.format(**values)
    assert [s.kind for s in fill("{input} {context}.", values).segments] == ["instruction", "context", "question"]
    with pytest.raises(DataError, match="asks for what a record has not"):
        fill("{other}", values)


@needs_shared
def test_limits_and_names_are_those_of_the_authors_config() -> None:
    limits = json.loads((CONFIG / "dataset2maxlen.json").read_text("utf-8"))
    assert {name: settings.max_tokens for name, settings in SETTINGS.items()} == limits
    assert list(limits) and set(limits) == set(TASKS)
    assert len(TASKS) == 21 and len(EXTENDED_TASKS) == 13
    assert [task.name for task in opened(view="both").tasks(())] == [*TASKS, *EXTENDED_TASKS]
    samsum = task_of(opened(), "samsum").generation
    assert (samsum.stop, samsum.min_tokens) == (("\n",), 1)


# --- bad input -------------------------------------------------------------------------------------------------------


@needs_shared
def test_bad_records_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    wrong = [made_up(context=None), made_up(answers="Oda"), made_up(length="absent"), "{", made_up(answers=[])]
    mirror = mirror_with(tmp_path, "hotpotqa", [made_up(), *wrong, made_up(_id="x")])
    samples, data = read(tmp_path, mirror, "hotpotqa")
    assert [sample.id for sample in samples] == ["hotpotqa-1-made-up-0001", "hotpotqa-7-x"]
    assert [(bad.place, bad.field) for bad in data.bad] == [
        ("line 2", "context"),
        ("line 3", "answers"),
        ("line 4", "length"),
        ("line 5", ""),
        ("line 6", "answers"),
    ]
    assert all("data/hotpotqa.jsonl" in str(bad) for bad in data.bad)


@needs_shared
def test_changed_config_is_refused(tmp_path: Path) -> None:
    mirror = mirror_with(tmp_path, "hotpotqa", [made_up()])
    file = mirror / "longbench/LongBench/config/dataset2prompt.json"
    file.write_text(file.read_text("utf-8").replace("passages", "pages"), "utf-8")
    with pytest.raises(DataError, match="data file LongBench/config/dataset2prompt"):
        read(tmp_path, mirror, "hotpotqa")


@needs_shared
def test_classes_are_needed_where_the_metric_reads_them(tmp_path: Path) -> None:
    mirror = mirror_with(tmp_path, "trec", [made_up(), made_up(all_classes=["Food", "Oda Lind"])])
    samples, data = read(tmp_path, mirror, "trec")
    assert samples[0].meta["all_classes"] == ["Food", "Oda Lind"]
    assert [bad.field for bad in data.bad] == ["all_classes"]


# --- scores and tables -----------------------------------------------------------------------------------------------


def gold() -> Iterator[Any]:
    files = sorted((SHARED / "gold-examples").glob("longbench_*.json"))
    for path in (path for path in files if not path.name.startswith(("longbench_v2", "longbench_pro"))):
        for i, row in enumerate(json.loads(path.read_text("utf-8"))):
            yield pytest.param(row, id=f"{path.stem}-{i}")
    if not files:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no gold rows at {SHARED}"))


@pytest.mark.parametrize("row", list(gold()))
def test_equals_the_official_score(row: dict[str, Any]) -> None:
    assert agrees(score_gold_row(row), row["official_score"], 1e-6)


def test_gold_row_by_bucket() -> None:
    row = {"benchmark": "longbench", "task": "hotpotqa_e", "metric": "scorer_e", "extra": {"lengths": [10, 20, 9000]}}
    rest = {"prediction": ["a b", "x", "a"], "references": [["a b"], ["y"], ["b"]]}
    assert score_gold_row({**row, **rest}) == {"0-4k": 50.0, "4-8k": None, "8k+": 0.0}


def graded(task: str, value: float | None, level: str | None = None) -> Graded:
    prompt = fill("{context}", {"context": ""})
    sample = Sample(id=f"{task}{value}", task=task, prompt=prompt, references=("",), level=level)
    metric = SETTINGS[task.removesuffix("_e")].metric
    scored = {} if value is None else {metric: Scored(value=value)}
    return Graded(task=task, sample=sample, repeat=0, scored=scored, answered=value is not None)


def test_extended_tasks_by_bucket() -> None:
    assert [bucket(words) for words in (0, 3999, 4000, 7999, 8000, 60_000)] == ["0-4k"] * 2 + ["4-8k"] * 2 + ["8k+"] * 2
    rows = [graded("lcc_e", 0.5, "8k+"), graded("lcc_e", 1.0, "0-4k"), graded("lcc_e", 0.25, "0-4k")]
    lines = opened(view="both").aggregate([*rows, graded("lcc", 0.1), graded("lcc", None)])
    assert [(line.name, line.value, line.n, line.missing) for line in lines] == [
        ("lcc_e 0-4k", 62.5, 2, 0),
        ("lcc_e 8k+", 50.0, 1, 0),
        ("lcc", 10.0, 1, 1),
    ]


def test_extended_samples_come_in_turn_from_each_bucket(tmp_path: Path) -> None:
    if not CONFIG.is_dir():
        pytest.skip(f"no LongBench files at {MIRROR}")
    rows = [made_up(length=words, _id=str(words)) for words in (1, 2, 3, 5000, 5001, 9000)]
    samples, _ = read(tmp_path, mirror_with(tmp_path, "hotpotqa_e", rows), "hotpotqa_e", view="e")
    assert [sample.meta["words"] for sample in samples] == [1, 5000, 9000, 2, 5001, 3]


def test_groups_are_the_second_papers() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == 15 and "passage_count" not in names
    benchmark = opened(view="groups")
    assert {task.name for task in benchmark.tasks(())} == set(names)
    # Table 2, Llama-3-8B-Instruct, baseline: the groups' printed means give the printed average of the 15 tasks.
    means = dict(zip(GROUPS, (36.8, 34.9, 26.8, 69.1, 67.0, 54.1), strict=True))
    rows = [graded(name, means[group] / 100) for group, members in GROUPS.items() for name in members]
    lines = {line.name: line for line in benchmark.aggregate(rows)}
    assert {group: round(lines[group].value or 0, 1) for group in GROUPS} == means
    assert round(lines["average"].value or 0, 1) == 45.2 and not lines["average"].note
    assert "mean of 14 of 15" in benchmark.aggregate(rows[1:])[-1].note


def test_metrics_are_installed_and_only_the_first_line_counts_where_the_authors_say_so() -> None:
    catalog = installed()
    for name, settings in SETTINGS.items():
        metric = catalog.load(catalog.metrics.get(settings.metric))()
        reference = {"passage_retrieval_en": "Paragraph 3", "passage_retrieval_zh": "段落3", "passage_count": "3"}
        wanted = reference.get(name, "北京 的 答案")
        meta = {"first_line_only": settings.first_line, "all_classes": [wanted, "x"]}
        sample = Sample(id="x", task=name, prompt=fill("{context}", {"context": ""}), references=(wanted,), meta=meta)
        assert metric.score(wanted, sample).value == pytest.approx(1, abs=1e-8)
        assert metric.score("", sample).value == 0
        if settings.first_line:
            assert metric.score(f"\n{wanted}\nx", sample).value == pytest.approx(1, abs=1e-8)
