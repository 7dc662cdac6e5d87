"""Answers in the authors' layout: which record a row is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from loom_bench_babilong.answers import read
from loom_bench_babilong.benchmark import Babilong
from loom_bench_babilong.plugin import BabilongOptions

from loom_core.api import DataError, Prompt, Sample, Task, UsageError

TASKS = {task.name: task for task in Babilong(BabilongOptions(variant="official")).tasks(())}
NAME = "qa1_4k_instruction_yes_examples_yes_post_prompt_yes.csv"


def samples_of(task: Task) -> list[Sample]:
    """Eleven records of two lengths, in turn."""
    return [
        Sample(
            id=f"{task.name}-{level}-{number}",
            task=task.name,
            prompt=Prompt(segments=()),
            references=(f"place {number}",),
            level=level,
            meta={"question": f"Where is {number}?"},
        )
        for number in range(1, 12)
        for level in ("4k", "0k")
    ]


def given(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    found = read(path, [TASKS["qa1"]], lambda task: iter(samples_of(task)))
    assert found is not None
    return [(one.id, one.texts) for one in found]


def test_a_row_is_the_record_that_its_first_column_counts(tmp_path: Path) -> None:
    rows = ",target,output,question\n0,place 1,a,Where is 1? \n10,place 11,,Where is 11? \n"
    (tmp_path / NAME).write_text(rows, "utf-8")
    (tmp_path / "notes.csv").write_text("x\n", "utf-8")
    expected = [("qa1-4k-1", ("a",)), ("qa1-4k-11", ("",))]
    assert given(tmp_path / NAME) == given(tmp_path) == expected
    assert read(tmp_path / "notes.csv", list(TASKS.values()), lambda task: iter(())) is None


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (",target,output,question\n0,place 2,a,Where is 1?\n", "row 1\n  why: question and target"),
        (",target,output,question\n11,place 1,a,Where is 1?\n", "record 11, and there are 11"),
        (",target,question\n0,place 1,Where is 1?\n", "output"),
    ],
)
def test_files_of_other_questions_are_refused(tmp_path: Path, rows: str, why: str) -> None:
    (tmp_path / NAME).write_text(rows, "utf-8")
    with pytest.raises(DataError) as caught:
        given(tmp_path)
    assert why in str(caught.value)


def test_a_folder_of_two_settings_is_refused(tmp_path: Path) -> None:
    for name in (NAME, "qa1_4k_instruction_no_examples_no_post_prompt_no.csv"):
        (tmp_path / name).write_text(",target,output,question\n", "utf-8")
    with pytest.raises(UsageError, match="several settings"):
        given(tmp_path)
