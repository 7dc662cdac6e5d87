"""Answers in the authors' layout: order, references, turns, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loom_bench_leval.answers import read
from loom_bench_leval.benchmark import LEval
from loom_bench_leval.plugin import LEvalOptions

from loom_core.api import DataError, GivenAnswer, Prompt, Sample, Task

TASKS = {task.name: task for task in LEval(LEvalOptions()).tasks(())}


def samples_of(task: Task) -> list[Sample]:
    """Two documents with two questions each, in loom's order: documents in turn."""
    places = ((1, 1), (2, 2), (1, 2), (2, 1))
    return [
        Sample(id=f"loom-{task.name}-{d}-{q}", task=task.name, prompt=Prompt(segments=()), references=(f"r{d}{q}",))
        for d, q in places
    ]


def rows(answer: str = "a") -> list[dict[str, Any]]:
    """A file's rows in the order of the data, with one that people judge."""
    scored = [{"gt": f"r{d}{q}", "m-16k_pred": f"{answer}{d}{q}", "evaluation": "exam"} for d in (1, 2) for q in (1, 2)]
    return [scored[0], {"gt": "x", "m-16k_pred": "y", "evaluation": "LLM"}, *scored[1:]]


def given(path: Path, *names: str) -> list[GivenAnswer]:
    """What the reader finds for these tasks."""
    found = read(path, [TASKS[name] for name in names], lambda task: iter(samples_of(task)))
    assert found is not None
    return list(found)


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("\n".join(map(json.dumps, content)) + "\n", "utf-8")
    return path


def test_rows_are_the_questions_in_the_order_of_the_data(tmp_path: Path) -> None:
    file = write(tmp_path / "quality.pred.jsonl", rows())
    found = given(file, "quality")
    assert [(one.id, one.texts) for one in found] == [
        (f"loom-quality-{d}-{q}", (f"a{d}{q}",)) for d in (1, 2) for q in (1, 2)
    ]
    assert found[1].place == "quality.pred.jsonl, line 3" and found[1].task == "quality"
    write(tmp_path / "tpo.pred.jsonl", rows())
    assert {one.task for one in given(tmp_path, "quality", "tpo", "gsm100")} == {"quality", "tpo"}


def test_science_fiction_has_two_turns_in_one_text(tmp_path: Path) -> None:
    content = rows("True [fact: False [fact: x")
    content[0]["m-16k_pred"] = "True [fact: False.]"
    content[2]["m-16k_pred"] = "True"
    found = given(write(tmp_path / "sci_fi.pred.jsonl", content), "sci_fi")
    assert [one.texts for one in found[:3]] == [("True", "False."), ("True",), ("True", "False [fact: x21")]


def test_other_layouts_are_left_to_loom(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "answers.jsonl", write(tmp_path / "other.pred.jsonl", rows())):
        assert read(path, list(TASKS.values()), lambda task: iter(samples_of(task))) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content.pop(), "3 answers, and the task has 4 questions"),
        (lambda content: content.reverse(), "not that of loom-tpo-1-1"),
        (lambda content: content[2].update({"m-16k_pred": 3}), "expected a text under 'm-16k_pred', got 3"),
        (lambda content: [row.pop("m-16k_pred") for row in content], "no key with '_pred'"),
        (lambda content: content.clear(), "no key with '_pred'"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, change: Any, why: str) -> None:
    content = rows()
    change(content)
    with pytest.raises(DataError) as caught:
        given(write(tmp_path / "tpo.pred.jsonl", content), "tpo")
    assert why in caught.value.why


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tpo.pred.jsonl"
    for text in ('{"gt": "x"}\n{', "[1]"):
        file.write_text(text, "utf-8")
        with pytest.raises(DataError, match=r"a line is not (a )?JSON"):
            given(file, "tpo")
