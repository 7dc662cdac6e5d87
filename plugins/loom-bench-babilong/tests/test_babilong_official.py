"""The authors' prompts and records: read from files of their shape, and filled byte by byte. Upstream: ../shared/data.

Where no upstream files are at hand, made-up ones of the same shape stand in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from loom_bench_babilong.benchmark import METRIC, Babilong
from loom_bench_babilong.plugin import EVALUATED, LONG, TASKS, BabilongOptions
from loom_bench_babilong.released import Cell
from loom_bench_babilong.stories import Story, read_stories
from loom_bench_babilong.wording import read_prompt
from loom_kit.upstream import serving

from loom_core.api import (
    DataDir,
    DataError,
    Graded,
    Prompt,
    Sample,
    Scored,
    Unavailable,
    UsageError,
    installed,
    segment,
)
from loom_core.api.doubles import ToyTokenizer
from loom_core.doubles.server import oracle_text

SHARED = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[4] / "shared"))
MIRROR = SHARED / "data" / "babilong"
DIGESTS = SHARED / "prompt-digests" / "babilong.json"
RECORDED = MIRROR / "babilong_evals" / "google" / "gemini-3-flash-preview"
needs_mirror = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no upstream files at {MIRROR}")
TEMPLATE = "{instruction}\n\n{examples}\n\n{post_prompt}\n\n<context>\n{context}\n</context>\n\nQuestion: {question}"
NESTED = (
    "TASK_TEMPLATE = '{instruction}\\n\\n{examples}\\n\\n{post_prompt}'\n"
    "USER_TEMPLATE = '<context>\\n{context}\\n</context>\\n\\nQuestion: {question}'\n"
    "DEFAULT_TEMPLATE = f'{TASK_TEMPLATE}\\n\\n{USER_TEMPLATE}'"
)
"""The shape of the authors' file: the template is an f-string of two constants, which hold the fields."""
EN_10K = "tasks_1-20_v1-2/en-10k"
MADE_UP = {
    task: {
        "instruction": f"MADE UP: read about {task}.",
        "examples": "<example>\nEx {1}.\n</example>",
        "post_prompt": "Say one.",
    }
    for task in TASKS
}


def prompts_file(prompts: dict[str, Any], template: str = NESTED) -> str:
    """A Python file of the shape of the authors' prompts.py: constants, and code that must never run."""
    lines = ["raise SystemExit('executed')", template, f"DEFAULT_PROMPTS = {prompts!r}"]
    return "\n".join([*lines, "def get_formatted_input(context):\n    return context.strip()"]) + "\n"


def idxs_file(**indices: list[int]) -> str:
    """A file of the shape of the authors' test_100_idxs.json."""
    return json.dumps({**{task: [0] for task in EVALUATED}, **indices})


def mirror_with(folder: Path, files: dict[str, str]) -> DataDir:
    """A mirror of these files, each named as an extract."""
    root = folder / "mirror" / "babilong"
    rows = []
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        rows.append(f'[[file]]\npath = "{name}"\nsha256 = "{sha256}"\nbytes = {len(text.encode())}\n')
    (root / "EXTRACT.toml").write_text("\n".join(rows), "utf-8")
    return DataDir(mirror=folder / "mirror", cache=folder / "cache", offline=True)


def samples(task: str, data: DataDir, lengths: tuple[int, ...] = (), **options: Any) -> list[Sample]:
    """All samples of a task."""
    bench = Babilong(BabilongOptions(**options))
    (found,) = [row for row in bench.tasks(lengths) if row.name == task]
    return list(bench.samples(found, data, ToyTokenizer(), lengths))


# --- prompts by hand -------------------------------------------------------------------------------------------------


@needs_mirror
def test_one_real_story_by_hand(tmp_path: Path) -> None:
    """The first question of a qa1 test file of bAbI, asked with the prompt recorded beside results."""
    parts = {}
    for task in EVALUATED:
        (path,) = RECORDED.glob(f"{task}_0k_*.json")
        parts[task] = json.loads(path.read_text("utf-8"))["prompt"]
    assert all(part["template"] == TEMPLATE for part in parts.values())
    prompts = {task: {name: part[name] for name in MADE_UP["qa1"]} for task, part in parts.items()}
    story = (MIRROR / "tasks_1-20_v1-2/en/qa1_single-supporting-fact_test.txt").read_text("utf-8")
    files = {
        "babilong/prompts.py": prompts_file(prompts),
        f"{EN_10K}/qa1_single-supporting-fact_test.txt": story,
        "data/test_100_idxs.json": idxs_file(qa1=[3, 0]),
    }
    found = samples("babi_qa1", mirror_with(tmp_path, files), variant="babi", levels=(0,))
    assert len(found) == 2, "the authors' choice, in their order"
    sample = found[1]
    assert sample.prompt.context == "John travelled to the hallway. Mary journeyed to the bathroom."
    given = parts["qa1"]
    assert (
        sample.prompt.text.encode()
        == (
            given["instruction"]
            + "\n\n"
            + given["examples"]
            + "\n\n"
            + given["post_prompt"]
            + "\n\n<context>\nJohn travelled to the hallway. Mary journeyed to the bathroom.\n</context>\n\n"
            + "Question: Where is John?"
        ).encode()
    )
    assert sample.references == ("hallway",) and sample.level == "0k"
    (evidence,) = sample.evidence
    held = sample.prompt.segments[evidence.segment].text[evidence.start : evidence.end]
    assert held == "John travelled to the hallway."


def real_stories() -> dict[str, str]:
    """The stories at hand, which are bAbI's "en" cut short, at the places of "en-10k"; any choice will do."""
    files = {f"{EN_10K}/{path.name}": path.read_text("utf-8") for path in (MIRROR / "tasks_1-20_v1-2/en").iterdir()}
    indices = {task: list(range(59, -1, -1)) for task in EVALUATED}
    return {"babilong/prompts.py": prompts_file(MADE_UP), "data/test_100_idxs.json": idxs_file(**indices), **files}


@needs_mirror
def test_every_story_of_the_test_files_scores(tmp_path: Path) -> None:
    """An answer equal to the target scores 1 by the authors' rule, but for "none" of qa7, in which it finds "one"."""
    catalog = installed()
    rule = catalog.load(catalog.metrics.get("babilong_labels"))()
    whole = catalog.load(catalog.metrics.get("babilong_whole_labels"))()
    data = mirror_with(tmp_path, real_stories())
    for task in TASKS:
        found = samples(f"babi_{task}", data, variant="babi", levels=(0,), samples=60)
        assert len(found) == 60
        for sample in found:
            right = rule.score(oracle_text(sample), sample).value
            assert right == (0.0 if sample.references == ("none",) else 1.0), (sample.id, sample.references)
            assert whole.score(oracle_text(sample), sample).value == 1.0
            assert rule.score("", sample).value == whole.score("", sample).value == 0.0


@needs_mirror
@pytest.mark.skipif(not DIGESTS.is_file(), reason=f"no recorded digests at {DIGESTS}")
def test_prompts_are_the_authors_byte_for_byte(tmp_path: Path) -> None:
    """What get_formatted_input made of these stories. Full prompts need the authors' file: see the parity adapter."""
    data = mirror_with(tmp_path, real_stories())
    prompts = Babilong(BabilongOptions()).prompts_source
    rows = json.loads(DIGESTS.read_text("utf-8"))
    stories: dict[str, list[Story]] = {}
    for row in rows:
        assert row["variant"] == "bare"
        name = row["settings"]["bAbI_file"]
        if name not in stories:
            text = (MIRROR / "tasks_1-20_v1-2/en" / name).read_text("utf-8")
            stories[name] = list(read_stories(text, where=name))
        story = stories[name][row["settings"]["sample"]]
        prompt = read_prompt(data, prompts, row["task"], bare=True).ask(" ".join(story.facts), story.question)
        assert hashlib.sha256(prompt.text.encode()).hexdigest() == row["sha256"], (row["task"], row["settings"])
        assert (story.question, [story.answer]) == (row["question"], row["references"])
    assert len(rows) >= 30


def test_bare_prompts_and_lengths(tmp_path: Path) -> None:
    story = "".join(f"{i} Ann went to the garden.\n" for i in range(1, 4)) + "4 Where is Ann? \tgarden\t3\n"
    path = f"{EN_10K}/qa1_single-supporting-fact_test.txt"
    files = {"babilong/prompts.py": prompts_file(MADE_UP), path: story, "data/test_100_idxs.json": idxs_file()}
    data = mirror_with(tmp_path, files)
    (bare,) = samples("babi_qa1", data, variant="babi", levels=(0,), prompts="bare")
    facts = " ".join(["Ann went to the garden."] * 3)
    assert bare.prompt.text == f"<context>\n{facts}\n</context>\n\nQuestion: Where is Ann?"
    (full,) = samples("babi_qa1", data, (3000,), variant="babi")
    assert full.prompt.text.startswith(
        "MADE UP: read about qa1.\n\n<example>\nEx {1}.\n</example>\n\nSay one.\n\n<context>"
    )
    assert any("loom's own" in note for note in data.notes)
    book = tmp_path / "book.txt"
    book.write_text("A line of a book. " * 5, "utf-8")
    (own,) = samples("babi_qa1", data, (2000,), variant="babi", text=str(book))
    assert (
        set(own.prompt.context.replace("Ann went to the garden.", "").split(". "))
        <= {
            "A line of a book",
            "A line of a book.",
            " A line of a book",
        }
        or own.prompt.context.count("A line of a book.") > 50
    )


@pytest.mark.parametrize("indices", ['{"qa1": [1]}', '{"qa1": ["x"]}', "[]", "no JSON", '{"qa2": [0]}'])
def test_a_choice_of_stories_that_does_not_fit(tmp_path: Path, indices: str) -> None:
    story = "1 Ann went to the garden.\n2 Where is Ann? \tgarden\t1\n"
    path = f"{EN_10K}/qa1_single-supporting-fact_test.txt"
    data = mirror_with(
        tmp_path, {"babilong/prompts.py": prompts_file(MADE_UP), path: story, "data/test_100_idxs.json": indices}
    )
    with pytest.raises(DataError, match="authors'"):
        samples("babi_qa1", data, variant="babi", levels=(0,))
    assert len(samples("babi_qa1", data, variant="babi", levels=(0,), seed=1)) == 1, "another seed needs no choice"


# --- released records ------------------------------------------------------------------------------------------------


def record(i: int, **other: Any) -> dict[str, Any]:
    """A made-up record of the hub's columns."""
    return {
        "input": f" MADE UP noise. Mary moved to the garden. {i}\n",
        "target": "garden",
        "question": "Where is Mary? ",
        **other,
    }


def test_released_records(tmp_path: Path) -> None:
    files = {
        "babilong/prompts.py": prompts_file(MADE_UP),
        "data/qa1/0k.json": json.dumps([record(i) for i in range(3)]),
        "data/qa1/4k.json": json.dumps([record(0), record(1, target=7), record(2)]),
    }
    data = mirror_with(tmp_path, files)
    found = samples("qa1", data, variant="official", levels=(0, 4096, 8192))
    assert [sample.id for sample in found] == ["qa1-0k-1", "qa1-4k-1", "qa1-0k-2", "qa1-4k-3", "qa1-0k-3"]
    assert found[0].prompt.text == (
        "MADE UP: read about qa1.\n\n<example>\nEx {1}.\n</example>\n\nSay one.\n\n"
        "<context>\nMADE UP noise. Mary moved to the garden. 0\n</context>\n\nQuestion: Where is Mary?"
    )
    assert [part.kind for part in found[0].prompt.segments] == ["instruction", "context", "question"]
    assert (found[0].level, found[0].meta["question"], found[0].meta["task"]) == ("0k", "Where is Mary?", "qa1")
    (bad,) = data.bad
    assert (bad.place, bad.field) == ("item 2", "target")
    assert any("8k is unavailable here" in note for note in data.notes)
    with pytest.raises(Unavailable, match=r"data/qa2/0k\.json"):
        samples("qa2", data, variant="official", levels=(0,))


def shards(mirror: Path, names: dict[str, list[dict[str, Any]]]) -> None:
    """Parquet files of the columns that the hub's description gives, in the folder of the mirror."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # type: ignore[import-untyped]

    for name, rows in names.items():
        path = mirror / "babilong" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_the_release_of_a_thousand(tmp_path: Path) -> None:
    """At 0k one file, at 4k two shards that are one list, at 8k nothing; columns in any order, a wrong row is noted."""
    data = mirror_with(tmp_path, {"babilong/prompts.py": prompts_file(MADE_UP)})
    turned = [dict(reversed(record(i).items())) for i in range(3)]
    shards(
        tmp_path / "mirror",
        {
            "0k/qa1-00000-of-00001.parquet": turned,
            "4k/qa1-00000-of-00002.parquet": [record(0), record(1)],
            "4k/qa1-00001-of-00002.parquet": [{**record(2), "target": None}, record(3)],
        },
    )
    found = samples("qa1", data, variant="official", release="1000", levels=(0, 4096, 8192))
    assert [sample.id for sample in found] == [
        *("qa1-0k-1000-1", "qa1-4k-1000-1", "qa1-0k-1000-2", "qa1-4k-1000-2", "qa1-0k-1000-3", "qa1-4k-1000-3"),
    ]
    assert found[0].prompt.text.endswith("Mary moved to the garden. 0\n</context>\n\nQuestion: Where is Mary?")
    assert "garden. 3\n" in found[-1].prompt.text and found[-1].references == found[0].references
    ((place, field),) = [(bad.place, bad.field) for bad in data.bad]
    assert (place, field) == ("row 1", "target")
    assert any("8k is unavailable here" in note for note in data.notes)
    with pytest.raises(Unavailable, match=r"0k/qa2-00000-of-00001\.parquet"):
        samples("qa2", data, variant="official", release="1000", levels=(0,))
    shards(tmp_path / "mirror", {"0k/qa3-00000-of-00001.parquet": [{"input": "a", "answer": "b", "question": "c"}]})
    with pytest.raises(DataError, match="no column 'target'"):
        samples("qa3", data, variant="official", release="1000", levels=(0,))


def test_a_shard_that_is_missing_on_the_hub_is_looked_for_under_the_next_number(tmp_path: Path) -> None:
    shards(tmp_path, {name: [record(0)] for name in ("qa1-00000-of-00002.parquet", "qa1-00001-of-00002.parquet")})
    with serving() as upstream:
        for i in range(2):
            name = f"qa1-0000{i}-of-00002.parquet"
            path = f"/datasets/RMT-team/babilong-1k-samples/resolve/main/0k/{name}"
            upstream.files[path] = (tmp_path / "babilong" / name).read_bytes()
        data = upstream.data_dir(tmp_path / "cache")
        files = Cell("1000", "qa1", 0).files(data)
        assert [row.number for _, row in Cell("1000", "qa1", 0).records(data, files)] == [1, 1]
        with pytest.raises(DataError, match="404"):
            Cell("1000", "qa2", 0).files(data)


def test_tasks_and_levels_of_the_release_of_a_thousand() -> None:
    bench = Babilong(BabilongOptions(variant="official", release="1000"))
    names = [source.pin for source in bench.tasks(())[-1].sources]
    assert names[1:] == ["hf:RMT-team/babilong-1k-samples@main:0k/qa20-00000-of-00001.parquet"]
    assert sum("babilong-1k-samples" in source.pin for source in bench.sources()) == 5 * 9
    with pytest.raises(UsageError, match="no records of length 256k"):
        Babilong(BabilongOptions(variant="official", release="1000", levels=(256 * 1024,))).tasks(())
    with pytest.raises(ValueError, match="only with variant=official"):
        BabilongOptions(release="1000")


def test_without_the_prompts_a_task_is_unavailable(tmp_path: Path) -> None:
    data = mirror_with(tmp_path, {"data/qa1/0k.json": json.dumps([record(0)])})
    with pytest.raises(Unavailable, match=r"babilong/prompts\.py"):
        samples("qa1", data, variant="official", levels=(0,))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (prompts_file({"qa2": MADE_UP["qa2"]}), "DEFAULT_PROMPTS"),
        (prompts_file({"qa1": {**MADE_UP["qa1"], "examples": 3}}), "is not a text"),
        (prompts_file(MADE_UP, "DEFAULT_TEMPLATE = '{instruction} {context}'"), "template"),
        (prompts_file(MADE_UP, "DEFAULT_TEMPLATE = f'{TASK_TEMPLATE}{USER_TEMPLATE}'"), "template"),
        (prompts_file(MADE_UP, ""), "DEFAULT_TEMPLATE"),
        ("PROMPTS = {}\n", "DEFAULT_PROMPTS"),
    ],
)
def test_prompts_of_another_shape_are_refused(tmp_path: Path, text: str, why: str) -> None:
    data = mirror_with(tmp_path, {"babilong/prompts.py": text, "data/qa1/0k.json": json.dumps([record(0)])})
    with pytest.raises(DataError) as caught:
        samples("qa1", data, variant="official", levels=(0,))
    assert why in str(caught.value)


def test_tasks_and_levels() -> None:
    names = {
        variant: [task.name for task in Babilong(BabilongOptions(variant=variant)).tasks(())]
        for variant in ("official", "babi", "loom")
    }
    assert names["official"] == list(TASKS) and len(names["babi"]) == 20
    long = Babilong(BabilongOptions(variant="official", levels=(1024, 4096)))
    assert [task.name for task in long.tasks(())] == list(LONG), "qa11 to qa20 are released as facts alone"
    last = Babilong(BabilongOptions(variant="official")).tasks(())[-1]
    assert [source.pin.rpartition(":")[2] for source in last.sources] == ["babilong/prompts.py", "data/qa20/0k.json"]
    assert names["loom"] == [f"loom_{name}" for name in EVALUATED]
    (task, *_) = Babilong(BabilongOptions(variant="official")).tasks(())
    assert task.generation.max_tokens == 20 and task.generation.temperature == 0 and task.chance == 1 / 6
    assert [source.pin.rpartition("/")[2] for source in task.sources[:4]] == [
        "prompts.py",
        "0k.json",
        "1k.json",
        "2k.json",
    ]
    with pytest.raises(UsageError, match="no records of length 1000"):
        Babilong(BabilongOptions(variant="official", levels=(1000,))).tasks(())


def test_stories_of_the_archive_are_pinned_by_member(tmp_path: Path) -> None:
    sources = [source.pin for source in Babilong(BabilongOptions(variant="babi")).sources()]
    members = [pin for pin in sources if "#" in pin]
    assert len(members) == 20 and all(f"tasks_1-20_v1-2.zip#{EN_10K}/qa" in pin for pin in members)
    assert list(read_stories("", where="here")) == []
    shutil.rmtree(tmp_path)


def graded(task: str, level: str, value: float | None) -> Graded:
    """A graded answer."""
    sample = Sample(
        id=f"{task}-{level}",
        task=task,
        prompt=Prompt(segments=(segment("question", "x"),)),
        references=("a",),
        level=level,
    )
    return Graded(task=task, sample=sample, repeat=0, scored={METRIC: Scored(value=value)})


@pytest.mark.parametrize(
    ("cells", "average"),
    [
        ({f"qa{i}": i % 2 for i in range(1, 11)}, 60.0),  # five of ten: qa1, qa3 and qa5
        ({f"qa{i}": 1 for i in range(1, 5)}, None),  # fewer than five
        ({f"qa{i}": float(i == 6) for i in (1, 2, 3, 4, 6)}, 20.0),  # the first five that were run
        ({**{f"qa{i}": 1 for i in range(1, 7)}, "qa2": None}, None),
        ({f"qa{i}": 1 for i in range(11, 16)}, None),  # never of qa11 to qa20
    ],
)
def test_the_authors_average_takes_the_first_five_tasks(cells: dict[str, float | None], average: float | None) -> None:
    rows = [graded(task, "4k", value) for task, value in reversed(cells.items())]
    lines = {line.name: line for line in Babilong(BabilongOptions(variant="official")).aggregate(rows)}
    assert lines["avg 4k"].value == average
    assert "mean 4k" in lines


def test_the_authors_average_is_none_where_a_length_lacks_a_task() -> None:
    rows = [graded(f"qa{i}", level, 1.0) for i in range(1, 6) for level in ("0k", "4k") if (i, level) != (3, "4k")]
    lines = {line.name: line.value for line in Babilong(BabilongOptions(variant="official")).aggregate(rows)}
    assert (lines["avg 0k"], lines["avg 4k"], lines["mean 4k"]) == (100.0, None, 100.0)
    assert not any(name.startswith("babi_avg") for name in lines)
