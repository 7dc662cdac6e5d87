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
from loom_bench_lciteeval.passages import Found, Part, Passages, cited_in_json, cited_in_line
from loom_bench_lciteeval.plugin import TASKS, LCiteEvalOptions
from loom_bench_lciteeval.prompts import Wording, read_settings, read_wording, shown_text
from loom_bench_lciteeval.scoring import bucket
from loom_kit.gold import agrees, score_gold_row

from loom_core.api import (
    DataDir,
    DataError,
    DataSource,
    Graded,
    Prompt,
    Response,
    Sample,
    Scored,
    Task,
    Timing,
    installed,
)
from loom_core.doubles.server import oracle_text

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


def shown(doc: dict[str, str]) -> str:
    """A passage with a title as the authors show it."""
    return doc["text"].strip("\n").removeprefix(doc["title"] + "\n")


@needs_shared
def test_prompt_bytes_of_a_question() -> None:
    """hotpotqa's first record, put together by hand from the authors' template."""
    file = upstream("prompt/hotpotqa_default.json")
    record = upstream("data/L-CiteEval/l-citeeval/hotpotqa.json")[0]
    demo = file["demos"][0]
    wanted = "".join(f"Passage [{i + 1}]: {shown(doc)}\n" for i, doc in enumerate(demo["docs"]))
    wanted += (
        "\n\n" + file["instruction"] + "\n\nQuestion: " + demo["question"] + "\nAnswer:" + demo["answer"] + "\n\n\n"
    )
    start = len(wanted)
    wanted += "".join(f"Passage [{i + 1}]: {shown(doc)}\n" for i, doc in enumerate(record["docs"]))
    end = len(wanted)
    wanted += "\n\n" + file["instruction"] + "\n\nQuestion: " + record["question"] + "\nAnswer:"
    _, samples, _ = read("hotpotqa")
    assert samples[0].prompt.text.encode() == wanted.encode()
    assert samples[0].prompt.context == wanted[start:end]
    assert wanted.count(file["instruction"]) == 2 and record["question"].startswith("How many of the 12 million")


DIGESTS = SHARED / "prompt-digests" / "l_citeeval.json"


@needs_shared
@pytest.mark.skipif(not DIGESTS.is_file(), reason="no digests of the authors' prompts")
def test_prompts_have_the_digests_of_the_authors() -> None:
    for row in json.loads(DIGESTS.read_text("utf-8")):
        sample = next(one for one in read(row["task"])[1] if one.id == row["record"])
        assert hashlib.sha256(sample.prompt.text.encode()).hexdigest() == row["sha256"], row["task"]


def test_passages_and_what_looks_like_a_field() -> None:
    assert shown_text({"title": "T", "text": "\n\nT\nx\n"}) == "x"
    assert shown_text({"title": "T", "text": "T x"}) == "T x" and shown_text({"text": "\nT\n"}) == "T"
    assert shown_text("\nT\n") == "\nT\n"
    demo = {"question": "D?", "docs": ["d"], "answer": ["one", "two"]}
    fields = ("{D}\n{INST}\nQ: {Q}\nA: {A}", "[{ID}] {P}\n")
    wording = Wording("do {A}it", *fields, "\n--\n", demo, "")
    said = wording.prompt("is {D} it?", ["p {ID} {A}q"], None, 1, 9).text
    assert said == "[1] d\n\ndo it\nQ: D?\nA:\none\ntwo\n--\n[1] p 1 q\n\ndo it\nQ: is [1] p 1 q\n it?\nA:"


@needs_shared
@pytest.mark.parametrize("variant", ["main", "length", "hardness"])
def test_records_are_pinned_where_the_authors_configuration_has_them(variant: Any) -> None:
    benchmark = LCiteEval(LCiteEvalOptions(variant=variant))
    for task in benchmark.tasks(()):
        config, _, records = task.sources
        text = (UPSTREAM / config.pin.rpartition(":")[2]).read_text("utf-8")
        named = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("eval_file"))
        assert records.places[0] == named == f"data/L-CiteEval/{records.pin.rpartition(':')[2]}"
        assert records.pin.startswith("hf:Jonaszky123/L-CiteEval@c79c928529593f478e6573c969cf73d22f0cf0f9:L-CiteEval-")


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
            parts = {
                part: value.value for part, value in best.items() if isinstance(value, Scored) and "passage" in part
            }
            assert parts.pop("lciteeval_passage_count") == len(sample.meta["passages"])
            assert list(parts.values()) == [1.0] * 3


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
    assert {task.generation.stop for task in tasks.values()} == {()}
    lines = LCiteEval(LCiteEvalOptions(stop="newline")).tasks(())
    assert {task.generation.stop for task in lines} == {("\n",)}
    assert {name for name, task in tasks.items() if not task.retrieval} == {"gov_report", "multi_news", "qmsum"}


@needs_shared
@pytest.mark.parametrize("path", sorted((SHARED / "gold-examples").glob("l_citeeval*.json")), ids=lambda p: p.stem)
def test_gold_rows(path: Path) -> None:
    rows = json.loads(path.read_text("utf-8"))
    assert rows
    for row in rows:
        ours, official = score_gold_row(row), row["official_score"]
        if isinstance(official, dict) and "raises" in official:
            # Where the authors' scorer raises, the sample stays and scores 0.
            assert not any(ours.values() if isinstance(ours, dict) else [ours]), row
        else:
            assert agrees(ours, official, 1e-6), row


NEEDLE = {"passages": [3], "cited_as": "line"}
STARS = {"passages": [2, 5], "cited_as": "json"}


@pytest.mark.parametrize(
    ("meta", "text", "values"),
    [
        (NEEDLE, "A bagel [3].\nAnd more [4]", [1, 1, 1, 1]),
        (NEEDLE, "\n\n A bagel [1][2][4][3].", [0, 0, 0, 3]),
        (NEEDLE, "A bagel [3][3].", [1, 0.5, 2 / 3, 2]),
        (NEEDLE, "A bagel [1][3][3][3].", [1, 1 / 3, 0.5, 3]),
        (NEEDLE, "A bagel.", [0, 0, 0, 0]),
        (STARS, '{"passage_id": [2, 2, 5, 7]} {"passage_id": [9]}', [1, 2 / 3, 0.8, 3]),
        (STARS, '```json\n{"passage_id": [5.0]}```', [0.5, 1, 2 / 3, 1]),
        (STARS, '{"passage_id": ["2", "5"]}', [0, 0, 0, 2]),
        (STARS, '{"passage_id": "25"}', [0, 0, 0, 2]),
        (STARS, '{"little_penguin": [1]}', [0, 0, 0, 0]),
        (STARS, "[2]", [0, 0, 0, 0]),
        (STARS, "} {", [0, 0, 0, 0]),
        (STARS, "", [0, 0, 0, 0]),
    ],
)
def test_known_passages_by_hand(meta: dict[str, Any], text: str, values: list[float]) -> None:
    sample = Sample(id="s", task="niah", prompt=Prompt(segments=()), references=(), meta=meta)
    parts: tuple[Part, ...] = ("recall", "precision", "f1", "count")
    assert [Passages(part).score(text, sample).value for part in parts] == pytest.approx(values)


@pytest.mark.parametrize(
    ("meta", "text", "why"),
    [
        (STARS, '{"passage_id": []}', "ZeroDivisionError"),
        (STARS, '{"passage_id": [[2]]}', "TypeError"),
        (STARS, '{"passage_id": 2}', "TypeError"),
        ({**STARS, "passages": []}, '{"passage_id": [2]}', "ZeroDivisionError"),
        (NEEDLE, "[" + "3" * 5000, "ValueError"),
        ({**NEEDLE, "passages": []}, "[3]", "NameError"),
    ],
)
def test_what_the_authors_code_raises_on_is_zero_and_named(meta: dict[str, Any], text: str, why: str) -> None:
    sample = Sample(id="s", task="niah", prompt=Prompt(segments=()), references=(), meta=meta)
    scored = Passages("f1").score(text, sample)
    assert scored.value == 0 and why in str(scored.detail["official"])


def test_an_answer_without_passages_is_left_out_of_their_mean_number() -> None:
    assert cited_in_json('{"little_penguin": [1]}', [2]) is None and cited_in_json("no", [2]) == Found((), 0)
    assert cited_in_line("[7][3]", [3]) == Found((7, 3), 1)
    sample = Sample(id="s", task="counting_stars", prompt=Prompt(segments=()), references=(), meta=STARS)
    assert "left out" in str(Passages("count").score('{"a": 1}', sample).detail["official"])


def test_known_passages() -> None:
    docs = ("x The little penguin counted 16 ★ y", "none", "little penguin counted 7 ★")
    assert known_passages("counting_stars", (16, 9), docs) == [1]
    needles = ("have a bagel", "to Have a Bagel.", "Have a Bagel.")
    assert known_passages("niah", ("Have a Bagel.",), needles) == [2]
    assert known_passages("niah", ("Have a scone",), needles) == []


def test_buckets_are_the_authors() -> None:
    sizes = [0, 7999, 8000, 8001, 16000, 39999, 47999, 48000, 99000]
    assert [bucket(n, "qmsum") for n in sizes] == ["8k", "8k", "16k", "16k", "24k", "40k", "48k", None, None]
    assert [bucket(n, "qmsum", strict=True) for n in (0, 1, 8000, 8001)] == [None, "8k", None, "16k"]
    assert [bucket(n, "multi_news") for n in (40000, 40001, 99000)] == ["48k", "40k", "40k"]
    assert [bucket(n, "hotpotqa_length") for n in (7999, 16000, 31999, 32000)] == ["8k", "32k", "32k", None]


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
    for exp in ("L-CiteEval-Length", "L-CiteEval-Hardness"):
        path = f"{exp}/hotpotqa.json"
        data = json.dumps(records).encode()
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append(f'[[file]]\npath = "{path}"\nsha256 = "{digest}"\nbytes = {len(data)}\n')
    (folder / "EXTRACT.toml").write_text("\n".join(rows), "utf-8")
    yield tmp_path


def test_graded_collections_and_bad_records(made_up: Path) -> None:
    _, samples, data = read("hotpotqa_length", made_up, LCiteEvalOptions(variant="length"))
    assert [(sample.id, sample.level) for sample in samples] == [("1", "8k"), ("1#2", "16k"), ("5", None)]
    assert samples[2].references == (12,) and samples[2].documents == ("T\nx",)
    assert samples[2].meta["titles"] == ["T"] and samples[2].prompt.context == "Passage [1]: x\n"
    told = [str(bad) for bad in data.bad]
    assert len(told) == 3 and all("L-CiteEval-Length/hotpotqa.json" in row for row in told)
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


def graded(task: str, level: str | None, scored: dict[str, Scored], length: int | None = None) -> Graded:
    """A graded sample."""
    meta = {} if length is None else {"length": length}
    sample = Sample(id="s", task=task, prompt=Prompt(segments=()), references=(), level=level, meta=meta)
    return Graded(task=task, sample=sample, repeat=0, scored=scored)


def found_in(rows: list[Graded]) -> dict[tuple[str, str], tuple[float | None, int, int]]:
    """The lines of the authors' table: value, number and missing."""
    return {
        (line.name, line.metric): (line.value, line.n, line.missing)
        for line in LCiteEval(LCiteEvalOptions()).aggregate(rows)
    }


def test_the_table_is_by_task_and_level() -> None:
    def row(level: str | None, value: float | None) -> Graded:
        scored = {"lciteeval_f1": Scored(value=value), "citation_count": Scored(value=2.0)}
        return graded("hotpotqa", level, scored)

    rows = [row("16k", 0.5), row("8k", 1.0), row("8k", None)]
    found = found_in(rows)
    assert found["hotpotqa", "lciteeval_f1"] == (75.0, 2, 1)
    assert found["hotpotqa 8k", "lciteeval_f1"] == (100.0, 1, 1)
    assert found["hotpotqa", "citation_count"] == (2.0, 3, 0)
    assert [name for name, _ in found][:3] == ["hotpotqa", "hotpotqa 8k", "hotpotqa 16k"]
    hard = found_in([graded("locomo_hardness", level, {"m": Scored(value=1.0)}, 99_000) for level in ("hard", "easy")])
    assert list(hard) == [("locomo_hardness", "m"), ("locomo_hardness easy", "m"), ("locomo_hardness hard", "m")]


def test_totals_of_the_two_scripts_differ_beyond_the_buckets() -> None:
    """Of the lengths 7000, 8000 and 48000, citations take the first two, correctness counts the last two as 0."""
    scored = {"lciteeval_f1": Scored(value=1.0), "citation_f1": Scored(value=1.0)}
    found = found_in([graded("qmsum", None, scored, length) for length in (7000, 8000, 48_000)])
    assert found["qmsum", "citation_f1"] == (100.0, 2, 0)
    assert found["qmsum 8k", "citation_f1"] == found["qmsum 16k", "citation_f1"] == (100.0, 1, 0)
    value, n, missing = found["qmsum", "lciteeval_f1"]
    assert value == pytest.approx(100 / 3) and (n, missing) == (3, 0)


def test_answers_without_a_sentence_are_left_out_of_citations() -> None:
    left_out = Scored(value=0.0, detail={"official": "left out: the answer has no sentence"})
    rows = [graded("qmsum", "8k", {"citation_f1": one, "lciteeval_f1": one}) for one in (left_out, Scored(value=1.0))]
    assert found_in(rows)["qmsum", "citation_f1"] == (100.0, 1, 0)


@needs_shared
def test_a_snapshot_of_the_hub_is_found_as_it_lies(tmp_path: Path) -> None:
    for name in ("config", "prompt"):
        shutil.copytree(UPSTREAM / name, tmp_path / "l_citeeval" / name)
    places = ("l_citeeval/L-CiteEval-Data", "l_citeeval/data/L-CiteEval-Data", "L-CiteEval/L-CiteEval-Data")
    for place, name in zip(places, ("hotpotqa", "niah", "qmsum"), strict=True):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(UPSTREAM / f"data/L-CiteEval/l-citeeval/{name}.json", tmp_path / place)
        data = DataDir(mirror=tmp_path, cache=tmp_path / "cache", offline=True)
        benchmark = LCiteEval(LCiteEvalOptions())
        task = next(task for task in benchmark.tasks(()) if task.name == name)
        assert len(list(benchmark.samples(task, data, None, ()))) == 2


def test_metrics_are_installed() -> None:
    catalog = installed()
    assert all(catalog.metrics.get(name) for base in TASKS for name in metrics_of(base))
