"""Run against run: pairs, tests, agreement, what differs, and every way two runs may not fit."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loom_kit.runs import DENSE, Answerer, Made, MadeArm, MadeTask, make_run, retrieves
from loom_report.cli.compare import compare as compare_command
from loom_report.cli.diff import diff as diff_command
from loom_report.compare import compare, read

from loom_core.api import Json, RunError, Sample, UsageError
from loom_core.run.settings_diff import differing, settings
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import write_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
TASK = MadeTask(levels={"1k": 32, "2k": 64}, depths=(0.0, 1.0), repeats=6)


def lucky(name: str, rate: float = 0.6) -> Answerer:
    """Right with one rate, by a luck of its own: two such runs are two seeds of one model."""

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        right = random.Random(f"{name} {sample.id} {arm.name} {repeat}").random() < rate
        return Made(text="yes" if right else "no", values={"exact_match": float(right)})

    return answer


def made(path: Path, answer: Answerer | None = None, **more: Any) -> RunFolder:
    more = {"tasks": [TASK], "arms": [DENSE, SNAP]} | more
    return make_run(path, answer or lucky(path.name), **more)


def compared(one: RunFolder, other: RunFolder, **more: Any) -> dict[str, Json]:
    return compare(read(one), read(other), **more)


def said(report: Mapping[str, Any]) -> str:
    return "\n".join(f"{b['kind']}: {b['text']}" for b in report["banners"])


def change(folder: RunFolder, **values: Json) -> None:
    """Change entries of the plan's first task."""
    plan = read_json(folder.plan)
    plan["tasks"][0] |= values
    write_json(folder.plan, plan)


def test_a_run_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "one")
    report = compared(folder, folder)
    scores = [score for row in [*report["totals"], *report["cells"]] for score in row["scores"]]
    assert len(scores) == 2 + 4
    assert all(s["delta"]["value"] == 0 and s["delta"]["p"] == 1 and not s["delta"]["significant"] for s in scores)
    assert all(s["first"] == s["second"] and s["n_equal"] == s["n"] for s in scores)
    assert [(row["n"], row["n_equal"], row["share"], row["earliest"]) for row in report["agreement"]] == [
        (24, 24, 1.0, None)
    ] * 2
    assert report["banners"] == []
    assert differing(*(settings(read_json(folder.plan), read_json(folder.manifest)),) * 2) == []


def test_a_difference_by_hand(tmp_path: Path) -> None:
    """The second run loses the 12 questions of 2k with snapkv and nothing else."""

    def worse(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        right = arm.name == "dense" or sample.level == "1k"
        return Made(text="yes" if right else "yet", values={"exact_match": float(right)})

    report = compared(
        made(tmp_path / "one", lambda *_: Made(text="yes", values={"exact_match": 1.0})), made(tmp_path / "two", worse)
    )
    dense, snap = (row["scores"][0] for row in report["totals"])
    assert (dense["delta"]["value"], dense["delta"]["p_holm"]) == (0.0, 1.0)
    assert (snap["first"], snap["second"], snap["delta"]["value"]) == (1.0, 0.5, -0.5)
    assert (snap["delta"]["n_better"], snap["delta"]["n_worse"], snap["delta"]["test"]) == (0, 12, "mcnemar, exact")
    assert snap["delta"]["p"] == 2 / 2**12
    assert snap["delta"]["p_holm"] == 2 * snap["delta"]["p"]
    by_level = {(row["arm"], row["level"]): row["scores"][0]["delta"]["value"] for row in report["cells"]}
    assert by_level[SNAP.name, "2k"] == -1.0
    agreement = report["agreement"][1]
    assert (agreement["n_equal"], agreement["n"], agreement["unit"]) == (12, 24, "characters")
    assert (agreement["earliest"], agreement["median"]) == (2, 2)


def test_tokens_are_compared_where_one_tokenizer_made_them(tmp_path: Path) -> None:
    folders = []
    for name, ids in (("one", [5, 6, 7]), ("two", [5, 6])):
        folder = made(tmp_path / name, lambda *_: Made(text="abcdef", values={"exact_match": 1.0}))
        rows = [json.loads(line) | {"token_ids": ids} for line in folder.responses.read_text("ascii").splitlines()]
        folder.responses.write_text("".join(json.dumps(row) + "\n" for row in rows), "ascii")
        folders.append(folder)
    agreement = compared(*folders)["agreement"][0]
    assert (agreement["unit"], agreement["n_equal"], agreement["earliest"]) == ("tokens", 0, 2)
    plan = read_json(folders[1].plan)
    plan["model"]["digest"] = "another model"
    write_json(folders[1].plan, plan)
    agreement = compared(*folders)["agreement"][0]
    assert (agreement["unit"], agreement["n_equal"]) == ("characters", 24)


def test_two_seeds_raise_few_false_alarms(tmp_path: Path) -> None:
    """40 pairs of equally good runs, each with luck of its own: at most 5 % of them may hold an alarm; 7 of 40 is the
    99.9 % quantile of that."""
    task = MadeTask(levels={"1k": 16}, depths=(0.5,), repeats=40)
    alarms = 0
    for i in range(40):
        sides = [read(made(tmp_path / f"{i} {k}", lucky(f"{i} {k}"), tasks=[task])) for k in range(2)]
        alarms += any(row["scores"][0]["delta"]["significant"] for row in compare(*sides)["totals"])
    assert alarms <= 7, f"{alarms} false alarms in 40 comparisons"


def test_arms_may_be_paired_by_hand(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", retrieves({SNAP.name: 0.4}))
    report = compared(folder, folder, arms=[("dense", SNAP.name)])
    assert [(row["arm"], row["other_arm"]) for row in report["totals"]] == [("dense", SNAP.name)]
    assert report["totals"][0]["scores"][0]["delta"]["significant"]
    with pytest.raises(UsageError, match="no arm 'snap'"):
        compared(folder, folder, arms=[("dense", "snap")])


def test_runs_without_common_samples(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two", seed=1)
    with pytest.raises(RunError, match="no question in common") as caught:
        compared(one, other)
    assert "48 questions share their names, but ask something else" in caught.value.why
    report = compared(one, other, by_name=True)
    assert report["totals"][0]["n_pairs"] == 24
    assert "paired by name alone" in said(report)
    far = made(tmp_path / "far", tasks=[MadeTask(levels={"8k": 32}, depths=(0.5,))])
    with pytest.raises(RunError, match="no question in common"):
        compared(one, far)
    with pytest.raises(RunError, match="no task in common"):
        compared(one, made(tmp_path / "else", tasks=[MadeTask(name="ruler:vt", levels={"1k": 32})]))
    with pytest.raises(RunError, match="no arm in common"):
        compared(one, made(tmp_path / "arms", arms=[MadeArm("random:budget=4x", 0.25)]))


def test_other_versions_are_not_compared(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two")
    change(other, version="2")
    with pytest.raises(RunError, match="no task in common") as caught:
        compared(one, other)
    assert "task version 1 and 2" in caught.value.why
    more = {"tasks": [TASK, MadeTask(name="ruler:vt", levels={"1k": 32}, repeats=2)]}
    one, other = made(tmp_path / "three", **more), made(tmp_path / "four", **more)
    change(other, benchmark_version="9")
    report = compared(one, other)
    assert [row["task"] for row in report["totals"]] == ["ruler:vt"] * 2
    assert "Not compared: passkey:loom: benchmark version 1 and 9" in said(report)


def test_other_metric_versions_are_not_compared(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two")
    metric = read_json(other.plan)["tasks"][0]["metrics"][0]
    change(other, metrics=[metric | {"version": "2"}])
    report = compared(one, other)
    assert all(row["scores"] == [] for row in report["totals"])
    assert "exact_match has versions 1 and 2" in said(report)


@pytest.mark.parametrize("kind", ["missing", "error", "none"])
def test_partial_and_failed_runs(tmp_path: Path, kind: str) -> None:
    def broken(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made | None:
        if kind == "none":
            return None
        if sample.id.endswith("-0"):
            return None if kind == "missing" else Made(error="CUDA out of memory")
        return Made(text="yes", values={"exact_match": 1.0})

    one, other = made(tmp_path / "one"), made(tmp_path / "two", broken)
    if kind == "none":
        with pytest.raises(RunError, match="no answered question in common"):
            compared(one, other)
        return
    report = compared(one, other)
    assert [row["n_pairs"] for row in report["totals"]] == [20, 20]
    assert f"two is not complete: 40 of 48 answers, {8 if kind == 'error' else 0} failed" in said(report)


def test_a_folder_that_is_being_prepared_or_written(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two")
    with other.writing(), other.responses.open("a") as file:
        file.write('{"job": "torn')
        file.flush()
        report = compared(one, other)
    assert report["totals"][0]["n_pairs"] == 24
    assert "files of two are damaged" in said(report)
    other.plan.unlink()
    with pytest.raises(RunError, match="nothing to compare") as caught:
        compared(one, other)
    assert "still being prepared" in caught.value.why


@pytest.mark.parametrize("n", [0, 1])
def test_few_pairs(tmp_path: Path, n: int) -> None:
    task = MadeTask(levels={"1k": 16}, depths=(None,), repeats=1)
    empty = MadeTask(name="ruler:vt", levels={} if n == 0 else {"1k": 16}, depths=(None,), repeats=1)
    one, other = (made(tmp_path / name, tasks=[task, empty]) for name in ("one", "two"))
    report = compared(one, other)
    assert [row["n_pairs"] for row in report["totals"]] == [1, 1, n, n]
    json.dumps(report, allow_nan=False)


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two")
    path = other.scores("exact_match", "1")
    rows = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    rows[0]["value"], rows[1]["value"] = float("nan"), None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "ascii")
    report = compared(one, other)
    assert sum(row["scores"][0]["n_unscored"] for row in report["totals"]) == 2
    assert "2 pairs have no score on one side" in said(report)
    json.dumps(report, allow_nan=False)


def test_what_differs(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two", arms=[DENSE, MadeArm("random:budget=4x", 0.25)])
    plan, manifest = read_json(other.plan), read_json(other.manifest)
    plan["bos"] = [{"found": 2, "expected": 1, "n": 24}]
    plan["model"]["template"] = "abc"
    plan["server"]["options"]["batch"] = 8
    plan["tasks"][0]["truncation"]["side"] = "left"
    manifest["versions"]["torch"] = "2.14.0"
    manifest["data"] = [{"pin": "hf:x@1:y", "sha256": "aa", "n_bytes": 3, "extract": False}]
    write_json(other.plan, plan)
    write_json(other.manifest, manifest)
    mine, theirs = (settings(read_json(run.plan), read_json(run.manifest)) for run in (one, other))
    found = {f"{knob.group} {knob.name}": (knob.first, knob.second) for knob in differing(mine, theirs)}
    assert found["prompts bos"][1] == ["24 prompts with 2 of 1 BOS"]
    assert found["tokenizer template"] == (None, "abc")
    assert found["server options.batch"] == (1, 8)
    assert found["tasks passkey:loom.truncation.side"] == ("middle", "left")
    assert found["versions torch"] == ("2.13.0", "2.14.0")
    assert found["data hf:x@1:y"] == ("(absent)", "(present)")
    assert found[f"arms {SNAP.name}"] == ("(present)", "(absent)")
    assert not any("path" in name for name in found)


@pytest.mark.parametrize("form", ["table", "md", "json"])
@pytest.mark.parametrize("command", [compare_command, diff_command])
def test_on_the_command_line(tmp_path: Path, command: Any, form: str) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "two", retrieves({SNAP.name: 0.3}))
    arguments = [str(one.path), str(other.path), "--format", form]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False, env={"COLUMNS": "100"})
    assert done.exit_code == 0
    assert SNAP.name in done.output
    if form == "json":
        json.loads(done.output)
    if form == "table":
        assert max(map(len, done.output.splitlines())) <= 100


def test_diff_of_runs_that_share_nothing(tmp_path: Path) -> None:
    one = made(tmp_path / "one")
    other = made(tmp_path / "two", tasks=[MadeTask(name="ruler:vt", levels={"1k": 32})])
    done = CliRunner().invoke(diff_command, [str(one.path), str(other.path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "No scores side by side: these runs have no task in common" in " ".join(done.output.split())
    shutil.rmtree(other.path)
    with pytest.raises(RunError, match="nothing to compare"):
        CliRunner().invoke(diff_command, [str(one.path), str(other.path)], catch_exceptions=False)
