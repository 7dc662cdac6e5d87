"""Recomputed tables: what becomes of a cell, the command on its way from outputs to a record, and what is committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from loom_parity import certificate, published_cells as reproduced
from loom_parity.published_cells import Cell, Reproduced

from loom_core.api import installed

SPECS = {found.spec.name: found.spec for found in installed().benchmarks if found.spec.published}


def cell(printed: str, value: float | None, why: str = "") -> Cell:
    return Cell(table="t", row="r", column="c", printed=printed, source="s", value=value, n=3, why=why)


@pytest.mark.parametrize(
    ("printed", "value", "outcome"),
    [
        ("17.77", 17.7778, "cut"),
        ("17.78", 17.7778, "equal"),
        ("17.76", 17.7778, "other"),
        ("17.79", 17.7778, "other"),
        ("64", 63.5, "equal"),
        ("63", 63.5, "equal"),
        ("63", 63.9, "cut"),
        ("65", 63.9, "other"),
        ("0.0", None, "no outputs"),
    ],
)
def test_what_becomes_of_a_cell(printed: str, value: float | None, outcome: str) -> None:
    assert cell(printed, value).outcome == outcome


def test_only_a_cell_that_is_off_without_a_word_is_unexplained() -> None:
    cells = (cell("1", 1.2), cell("1", 3.0), cell("1", 4.0, "known"), cell("1", None))
    record = Reproduced(benchmark="b", version="1", metrics={}, commit="c" * 40, command="loom", cells=cells)
    assert record.unexplained == [cells[1]]
    assert Reproduced.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_page_names_sources_and_reasons() -> None:
    record = Reproduced(
        benchmark="b", version="7", metrics={}, commit="abcdefghij", command="loom x", cells=[cell("1", 4.0, "known")]
    )
    page = reproduced.page("# Head\n", [(next(iter(SPECS.values())), record)])
    assert "| r | c | 1 | 4.00 | 3 | other |" in page and "- r (c): known" in page
    assert "Printed in: s." in page and "`loom x` at commit `abcdefg`, version 7: 1 other." in page


@pytest.mark.parametrize("name", SPECS)
def test_committed_tables_are_of_the_installed_versions(name: str) -> None:
    record = reproduced.read(SPECS[name])
    assert record is not None, f"run loom reproduced {name} --upstream FOLDER --write"
    versions = {found.spec.name: found.spec.version for found in installed().metrics}
    assert certificate.stale(record, SPECS[name], versions) == ""
    assert record.unexplained == [] and record.cells and record.commit


def test_published_exam_answers_become_cells(loom: Any, tmp_path: Path) -> None:
    """On a checkout made up here: two answers of three are right, and one model has no file."""
    folder = tmp_path / "Predictions" / "exam_eval" / "gpt4-32k"
    folder.mkdir(parents=True)
    rows = [{"gt": "A", "gpt4_pred": text, "evaluation": "exam"} for text in ("A", "B", "A")]
    (folder / "quality.pred.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    done = loom("reproduced", "leval:quality", "--upstream", tmp_path, "--format", "json", code=1)
    cells = {row["row"]: row for row in json.loads(done.out)["cells"]}
    assert cells["GPT-4-32k"]["value"] == pytest.approx(200 / 3) and cells["GPT-4-32k"]["n"] == 3
    assert cells["Turbo-16k-0613"]["value"] is None


def babilong_outputs(folder: Path, prompt: str, answers: Mapping[str, str]) -> None:
    """Two answers a task at 0k: a right one, and the one given, in which {} stands for the right one."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, answer in answers.items():
        label = "milk" if task == "qa5" else "garden"
        text = f'target,output,question\n{label},"{answer.format(label)}",Where?\n{label},{label},Where?\n'
        (folder / f"{task}_0k_{prompt}.csv").write_text(text, "utf-8")


def test_published_babilong_outputs_become_cells(loom: Any, tmp_path: Path) -> None:
    """Without outputs every cell says so; with a length of five tasks its mean is there, by both rules; each task has
    the better of its prompts, and the branch's folder is taken where it is there."""
    done = loom("reproduced", "babilong", "--upstream", tmp_path, "--format", "json")
    rows = json.loads(done.out)["cells"]
    assert len(rows) > 200 and all(row["value"] is None and not row["outputs"] for row in rows)
    model, names = "microsoft/Phi-3-mini-128k-instruct", [f"qa{n}" for n in range(1, 6)]
    full, bare = "instruction_yes_examples_yes_post_prompt_yes", "instruction_no_examples_no_post_prompt_no"
    folder = tmp_path / "babilong_evals" / model
    babilong_outputs(folder, full, dict.fromkeys(names, "{}\noffice and apple"))
    assert babilong_cells(loom, tmp_path, model) == [50.0, 100.0]
    babilong_outputs(folder, f"{bare}_chat_template_no", {"qa1": "{}", "qa5": "none"})
    assert babilong_cells(loom, tmp_path, model) == [60.0, 100.0]
    babilong_outputs(tmp_path / "predictions_06_2024" / "babilong_evals" / model, full, dict.fromkeys(names, "none"))
    assert babilong_cells(loom, tmp_path, model) == [50.0, 50.0]


def babilong_cells(loom: Any, folder: Path, model: str) -> list[float]:
    """The model's figures at 0k in both tables."""
    done = loom("reproduced", "babilong", "--upstream", folder, "--format", "json", code=None)
    return [row["value"] for row in json.loads(done.out)["cells"] if (row["row"], row["column"]) == (model, "0k")]


def test_a_benchmark_without_published_tables_is_refused(loom: Any, tmp_path: Path) -> None:
    done = loom("reproduced", "passkey", "--upstream", tmp_path, code=2)
    assert "recomputes no published table" in done.err and "leval" in done.err
    assert "not a folder" in loom("reproduced", "leval", "--upstream", tmp_path / "no", code=2).err
