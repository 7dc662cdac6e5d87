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
from loom_bench_babilong.benchmark import Babilong
from loom_bench_babilong.plugin import EVALUATED, RELEASED, TASKS, BabilongOptions
from loom_bench_babilong.stories import read_stories

from loom_core.data import DataDir, Unavailable
from loom_core.errors import DataError, UsageError
from loom_core.plugins import installed
from loom_core.testing.doubles import ToyTokenizer, oracle_text
from loom_core.types import Sample

MIRROR = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data" / "babilong"
RECORDED = MIRROR / "babilong_evals" / "google" / "gemini-3-flash-preview"
needs_mirror = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no upstream files at {MIRROR}")
TEMPLATE = "{instruction}\n\n{examples}\n\n{post_prompt}\n\n<context>\n{context}\n</context>\n\nQuestion: {question}"
MADE_UP = {
    task: {
        "instruction": f"MADE UP: read about {task}.",
        "examples": "<example>\nEx {1}.\n</example>",
        "post_prompt": "Say one.",
    }
    for task in TASKS
}


def prompts_file(prompts: dict[str, Any], template: str | None = TEMPLATE) -> str:
    """A Python file of the shape of the authors' prompts.py: constants, and code that must never run."""
    lines = ["raise SystemExit('executed')", f"DEFAULT_PROMPTS = {prompts!r}"]
    if template is not None:
        lines.append(f"DEFAULT_TEMPLATE = {template!r}")
    return "\n".join([*lines, "def get_formatted_input(context):\n    return context.strip()"]) + "\n"


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
@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_one_real_story_by_hand(tmp_path: Path, template: str | None) -> None:
    """The first question of bAbI's qa1 test file, asked with the prompt recorded beside results."""
    parts = {}
    for task in EVALUATED:
        (path,) = RECORDED.glob(f"{task}_0k_*.json")
        parts[task] = json.loads(path.read_text("utf-8"))["prompt"]
    assert all(part["template"] == TEMPLATE for part in parts.values())
    prompts = {task: {name: part[name] for name in MADE_UP["qa1"]} for task, part in parts.items()}
    story = "tasks_1-20_v1-2/en/qa1_single-supporting-fact_test.txt"
    files = {"babilong/prompts.py": prompts_file(prompts, template), story: (MIRROR / story).read_text("utf-8")}
    found = samples("babi_qa1", mirror_with(tmp_path, files), variant="babi", levels=(0,), samples=0)
    facts = "John travelled to the hallway. Mary journeyed to the bathroom."
    (sample,) = [one for one in found if one.prompt.context == facts]
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


@needs_mirror
def test_every_story_of_the_test_files_scores(tmp_path: Path) -> None:
    """An answer equal to the target scores 1 by the authors' rule, but for "none" of qa7, in which it finds "one"."""
    catalog = installed()
    rule = catalog.load(catalog.metrics.get("babilong_labels"))()
    whole = catalog.load(catalog.metrics.get("babilong_whole_labels"))()
    stories = {
        f"tasks_1-20_v1-2/en/{path.name}": path.read_text("utf-8") for path in (MIRROR / "tasks_1-20_v1-2/en").iterdir()
    }
    data = mirror_with(tmp_path, {"babilong/prompts.py": prompts_file(MADE_UP), **stories})
    for task in TASKS:
        found = samples(f"babi_{task}", data, variant="babi", levels=(0,), samples=60)
        assert len(found) == 60
        for sample in found:
            right = rule.score(oracle_text(sample), sample).value
            assert right == (0.0 if sample.references == ("none",) else 1.0), (sample.id, sample.references)
            assert whole.score(oracle_text(sample), sample).value == 1.0
            assert rule.score("", sample).value == whole.score("", sample).value == 0.0


def test_bare_prompts_and_lengths(tmp_path: Path) -> None:
    story = "".join(f"{i} Ann went to the garden.\n" for i in range(1, 4)) + "4 Where is Ann?\tgarden\t3\n"
    path = "tasks_1-20_v1-2/en/qa1_single-supporting-fact_test.txt"
    data = mirror_with(tmp_path, {"babilong/prompts.py": prompts_file(MADE_UP), path: story})
    (bare,) = samples("babi_qa1", data, variant="babi", levels=(0,), prompts="bare")
    facts = " ".join(["Ann went to the garden."] * 3)
    assert bare.prompt.text == f"\n\n\n\n\n\n<context>\n{facts}\n</context>\n\nQuestion: Where is Ann?"
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


def test_without_the_prompts_a_task_is_unavailable(tmp_path: Path) -> None:
    data = mirror_with(tmp_path, {"data/qa1/0k.json": json.dumps([record(0)])})
    with pytest.raises(Unavailable, match=r"babilong/prompts\.py"):
        samples("qa1", data, variant="official", levels=(0,))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (prompts_file({"qa2": MADE_UP["qa2"]}), "DEFAULT_PROMPTS"),
        (prompts_file({"qa1": {**MADE_UP["qa1"], "examples": 3}}), "is no text"),
        (prompts_file(MADE_UP, "{instruction} {context}"), "template"),
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
    assert names["official"] == list(RELEASED) and len(names["babi"]) == 20
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
    assert len(members) == 20 and all("tasks_1-20_v1-2.zip#tasks_1-20_v1-2/en/qa" in pin for pin in members)
    assert list(read_stories("", where="here")) == []
    shutil.rmtree(tmp_path)
