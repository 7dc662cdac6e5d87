"""One task that cannot be asked never ends the run of the others; it is named, and the exit code says so."""

from __future__ import annotations

import gzip
import json
from typing import Any

REASON = "fable:chat is refused and does not run: no fable is that long (question 4)"


def test_a_task_that_refuses_half_way_leaves_no_trace_and_the_other_runs(loom: Any) -> None:
    done = loom("run", "fable@refusing=4,n=6,per_context=1", "--model", "toy", code=3)
    assert "refused, did not run: fable:chat: no fable is that long (question 4)" in done.out
    assert "incomplete" not in done.out
    folder = loom.folder()
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    tell, chat = plan["tasks"]
    assert (tell["n_samples"], tell["refused"], tell["unavailable"]) == (6, None, None)
    assert chat["n_samples"] == 0 and chat["levels"] == [] and chat["refused"]["type"] == "UsageError"
    assert plan["n_samples"] == plan["n_jobs"] == 6 and plan["overlength"]["longest"] > 0
    assert sum(row["n"] for row in plan["sizes"]["histogram"]) == 6
    assert f"{REASON} (next: ask for fewer words)" in plan["notes"]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("ascii").splitlines()]
    jobs = [json.loads(line) for line in gzip.decompress((folder / "jobs.jsonl.gz").read_bytes()).splitlines()]
    assert {row["task"] for row in samples} == {row["task"] for row in jobs} == {"fable:tell"}
    assert len(samples) == len(jobs) == len(loom.records()) == 6
    stored = {part["stored"] for row in samples for part in row["prompt"]["segments"] if "stored" in part}
    assert {path.stem for path in (folder / "contexts").glob("*.gz")} == stored
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert [b["kind"] for b in report["banners"] if "fable:chat is refused and did not run" in b["text"]] == ["error"]
    page, text = folder.joinpath("report.html").read_text("utf-8"), folder.joinpath("report.md").read_text("utf-8")
    assert "<h2>Refused</h2>" in page and "Unavailable here" not in page
    assert "Refused: no fable is that long" in text
    assert "refused, did not run" in loom("run", folder, code=3).out, "continued: still refused, nothing asked again"
    assert len(loom.records()) == 6
    made = loom("plan", "fable@refusing=4", "--model", "toy")
    assert "fable:chat  refused" in made.out and REASON in " ".join(made.out.split())


def test_contexts_of_a_refused_task_alone_are_taken_out(loom: Any) -> None:
    loom("run", "proverbs", "fable@refusing=4,words=60:chat", "--model", "toy", code=3)
    folder = loom.folder()
    assert len(list((folder / "contexts").glob("*.gz"))) == 2
    assert {job["task"] for job in loom.records()} == {"proverbs:finish"}


def test_where_every_task_is_refused_the_run_ends(loom: Any) -> None:
    done = loom("run", "fable@refusing=0:chat", "--model", "toy", code=2)
    assert "error: no fable is that long" in done.err and "next: ask for fewer words" in done.err
    assert not (loom.cwd / "runs").exists() or not list((loom.cwd / "runs").iterdir())
    assert "refused: no fable is that long" in loom("plan", "fable@refusing=0:chat", "--model", "toy", code=2).err
