"""L-CiteEval on the extracts of its records: prompts byte for byte, gold rows, oracle and null, bad records."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loom_bench_lciteeval.benchmark import LCiteEval, known_passages, metrics_of
from loom_bench_lciteeval.passages import Passages, cited_in_json, cited_in_line
from loom_bench_lciteeval.plugin import TASKS, LCiteEvalOptions
from loom_bench_lciteeval.prompts import read_settings, read_wording

from loom_core.contracts import Graded
from loom_core.data import DataDir
from loom_core.errors import DataError
from loom_core.plugins import installed
from loom_core.testing.doubles import oracle_text
from loom_core.testing.gold import agrees, score_gold_row
from loom_core.types import DataSource, Prompt, Response, Sample, Scored, Task, Timing

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
MIRROR = SHARED / "data"
UPSTREAM = MIRROR / "l_citeeval"
needs_shared = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="no folder of shared data")


def read(
    name: str, folder: Path = MIRROR, options: LCiteEvalOptions | None = None
) -> tuple[Task, list[Sample], DataDir]:
    """A task with all its samples."""
    benchmark, data = LCiteEval(options or LCiteEvalOptions()), DataDir.from_environment(str(folder), True)
    task = next(task for task in benchmark.tasks(()) if task.name == name)
    return task, list(benchmark.samples(task, data, None, ())), data


def upstream(path: str) -> Any:
    """A JSON file of the authors."""
    return json.loads((UPSTREAM / path).read_text("utf-8"))


@needs_shared
def test_prompt_bytes_of_a_question() -> None:
    """hotpotqa's first record, put together by hand from the authors' template."""
    file = upstream("prompt/hotpotqa_default.json")
    record = upstream("data/L-CiteEval/l-citeeval/hotpotqa.json")[0]
    demo = file["demos"][0]
    wanted = "".join(f"Passage [{i + 1}]: {doc['text']}\n" for i, doc in enumerate(demo["docs"]))
    wanted += (
        "\n\n" + file["instruction"] + "\n\nQuestion: " + demo["question"] + "\nAnswer:" + demo["answer"] + "\n\n\n"
    )
    start = len(wanted)
    wanted += "".join(f"Passage [{i + 1}]: {doc['text']}\n" for i, doc in enumerate(record["docs"]))
    end = len(wanted)
    wanted += "\n\n" + file["instruction"] + "\n\nQuestion: " + record["question"] + "\nAnswer:"
    _, samples, _ = read("hotpotqa")
    assert samples[0].prompt.text.encode() == wanted.encode()
    assert samples[0].prompt.context == wanted[start:end]
    assert wanted.count(file["instruction"]) == 2 and record["question"].startswith("How many of the 12 million")


@needs_shared
def test_prompt_bytes_of_a_summary_a_dialogue_and_stars() -> None:
    for name, stem, noun in (
        ("gov_report", "gov_report", "Passage"),
        ("dialsim", "dialsim", "Conversation"),
        ("counting_stars", "counting_stars", "Passage"),
    ):
        file = upstream(f"prompt/{stem}_default.json")
        record = upstream(f"data/L-CiteEval/l-citeeval/{name}.json")[0]
        instruction = file["instruction"].replace("<<<chatbox>>>", record.get("role", ""))
        wanted = "".join(f"{noun} [{i + 1}]: {text}\n" for i, text in enumerate(record["docs"])) + "\n\n" + instruction
        wanted += {
            "gov_report": "\nSummary:",
            "dialsim": f"\n\nQuestion: {record['question']}\nAnswer:",
            "counting_stars": "\nAnswer:",
        }[name]
        _, samples, _ = read(name)
        said = samples[0].prompt.text
        assert said.endswith("\n\n\n" + wanted), name
        assert said.startswith(f"{noun} [1]: ") and "<<<chatbox>>>" not in said


@needs_shared
@pytest.mark.parametrize("name", TASKS)
def test_every_task_reads_and_its_oracle_and_null_score_as_declared(name: str) -> None:
    task, samples, data = read(name)
    assert len(samples) == 2 and not data.bad and all(sample.documents for sample in samples)
    assert {source.pin for source in task.sources} == {used.pin for used in data.used()}
    catalog, benchmark = installed(), LCiteEval(LCiteEvalOptions())
    metrics = {metric: catalog.load(catalog.metrics.get(metric))() for metric in task.metrics}
    for sample in samples:
        best, worst = (benchmark.score(sample, [answer(text)], metrics) for text in (oracle_text(sample), ""))
        first, last = best[task.metrics[0]], worst[task.metrics[0]]
        assert isinstance(first, Scored) and first.value == pytest.approx(1.0, abs=1e-6), first
        assert isinstance(last, Scored) and last.value == 0.0
        if name in ("niah", "counting_stars"):
            assert all(
                value.value == 1.0 for part, value in best.items() if isinstance(value, Scored) and "passage" in part
            )


def answer(text: str) -> Response:
    """A response with this text."""
    timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
    return Response(key="", text=text, finish="stop", n_in=1, n_out=1, timing=timing)


def test_limits_stops_and_retrieval() -> None:
    tasks = {task.name: task for task in LCiteEval(LCiteEvalOptions()).tasks(())}
    limits = {name: task.generation.max_tokens for name, task in tasks.items()}
    assert {name for name, most in limits.items() if most == 200} == {
        "natural_questions", "hotpotqa", "2wikimultihopqa", "locomo", "dialsim",
    }  # fmt: skip
    assert limits["niah"] == limits["counting_stars"] == 128 and limits["narrativeqa"] == limits["qmsum"] == 800
    assert {task.generation.stop for task in tasks.values()} == {("\n",)}
    assert {name for name, task in tasks.items() if not task.retrieval} == {"gov_report", "multi_news", "qmsum"}


@needs_shared
@pytest.mark.parametrize("name", ["l_citeeval_correct", "l_citeeval_citation"])
def test_gold_rows(name: str) -> None:
    rows = json.loads((SHARED / "gold-examples" / f"{name}.json").read_text("utf-8"))
    assert rows
    for row in rows:
        assert agrees(score_gold_row(row), row["official_score"], 1e-6), row


@pytest.mark.parametrize(
    ("text", "line", "listed"),
    [
        ("A bagel [3][12].\nAnd more [4]", [3, 12], None),
        ('{"little_penguin": [1], "passage_id": [3, "5"]} {"passage_id": [9]}', [1, 3, 9], [3, 5]),
        ('{"little_penguin": [1]}', [1], None),
        ('{"passage_id": "x"}', [], None),
        ("", [], None),
    ],
)
def test_citations_are_read(text: str, line: list[int], listed: list[int] | None) -> None:
    assert cited_in_line(text) == line and cited_in_json(text) == listed


def test_passages_are_compared_as_sets() -> None:
    sample = Sample(
        id="s", task="niah", prompt=Prompt(segments=()), references=(), meta={"passages": [3, 5], "cited_as": "line"}
    )
    values = [Passages(part).score("So it is [3][3][4].", sample).value for part in ("recall", "precision", "f1")]
    assert values == [0.5, 0.5, 0.5]
    unknown = Sample(id="s", task="niah", prompt=Prompt(segments=()), references=(), meta={"passages": []})
    assert Passages("f1").score("[3]", unknown).value is None


def test_known_passages() -> None:
    docs = ("x The little penguin counted 16 ★ y", "none", "little penguin counted 7 ★")
    assert known_passages("counting_stars", (16, 9), docs) == [1]
    assert known_passages("niah", ("Have a Bagel.",), ("to have a bagel there", "no")) == [1]


@pytest.fixture
def made_up(tmp_path: Path) -> Iterator[Path]:
    """A mirror with the authors' prompts and made-up records of the graded collections."""
    if not UPSTREAM.is_dir():
        pytest.skip("no folder of shared data")
    folder = tmp_path / "l_citeeval"
    for name in ("config", "prompt"):
        shutil.copytree(UPSTREAM / name, folder / name)
    good = {"id": 1, "question": "MADE UP: Which town?", "answer": "Port Amsel", "docs": ["Vell Atlas\nBy Ine Marrow."]}
    records = [
        {**good, "length": 7650, "hardness": "easy"},
        {**good, "length": 9000, "hardness": "hard"},
        {**good, "id": 2, "docs": "one text"},
        {**good, "id": 3, "answer": {"a": 1}},
        {**good, "id": 4, "question": None},
        {**good, "id": 5, "answer": 12, "length": 99000, "docs": [{"title": "T", "text": "T\nx"}]},
    ]
    rows = []
    for exp in ("l-citeeval-length", "l-citeeval-hardness"):
        path = f"data/L-CiteEval/{exp}/hotpotqa.json"
        data = json.dumps(records).encode()
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append(f'[[file]]\npath = "{path}"\nsha256 = "{digest}"\nbytes = {len(data)}\n')
    (folder / "EXTRACT.toml").write_text("\n".join(rows), "utf-8")
    yield tmp_path


def test_graded_collections_and_bad_records(made_up: Path) -> None:
    _, samples, data = read("hotpotqa_length", made_up, LCiteEvalOptions(variant="length"))
    assert [(sample.id, sample.level) for sample in samples] == [("1", "8k"), ("1#2", "16k"), ("5", "48k")]
    assert samples[2].references == (12,) and samples[2].documents == ("T\nx",)
    told = [str(bad) for bad in data.bad]
    assert len(told) == 3 and all("l-citeeval-length/hotpotqa.json" in row for row in told)
    for row, place in zip(
        told, ("item 3, field 'docs'", "item 4, field 'answer'", "item 5, field 'question'"), strict=True
    ):
        assert place in row
    _, samples, _ = read("hotpotqa_hardness", made_up, LCiteEvalOptions(variant="hardness"))
    assert [sample.level for sample in samples] == ["easy", "hard", None]


def test_files_of_another_shape_are_refused() -> None:
    source = DataSource(pin="github:a/b@c:prompt.json", folder="x")
    for text in ("{", "{}", '{"demos": [], "instruction": 1}'):
        with pytest.raises(DataError, match="prompt file"):
            read_wording(text, source)
    for text in ("", "shot: 2\nndoc: 5\nprompt_file: x", "shot: one\nndoc: 5\nprompt_file: x"):
        with pytest.raises(DataError, match="run configuration"):
            read_settings(text, source)


def test_the_table_is_by_task_and_level() -> None:
    def row(level: str | None, value: float | None) -> Graded:
        sample = Sample(id="s", task="hotpotqa", prompt=Prompt(segments=()), references=(), level=level)
        scored = {"lciteeval_f1": Scored(value=value), "citation_count": Scored(value=2.0)}
        return Graded(task="hotpotqa", sample=sample, repeat=0, scored=scored)

    lines = LCiteEval(LCiteEvalOptions()).aggregate([row("16k", 0.5), row("8k", 1.0), row("8k", None)])
    found = {(line.name, line.metric): (line.value, line.n, line.missing) for line in lines}
    assert found["hotpotqa", "lciteeval_f1"] == (75.0, 2, 1)
    assert found["hotpotqa 8k", "lciteeval_f1"] == (100.0, 1, 1)
    assert found["hotpotqa", "citation_count"] == (2.0, 3, 0)
    assert [line.name for line in lines][:3] == ["hotpotqa", "hotpotqa 8k", "hotpotqa 16k"]


def test_metrics_are_installed() -> None:
    catalog = installed()
    assert all(catalog.metrics.get(name) for base in TASKS for name in metrics_of(base))
