"""Prompt compression in whole runs: every compressor once with a double, counted, metered, its losses attributed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loom_accel_llmlingua.toy import make_classifier

RUN = ("run", "passkey@words=200,depths=2,repeats=1", "--model", "toy", "--quiet", "--out", "run")


def test_every_compressor_runs_and_is_metered(loom: Any, tmp_path: Path) -> None:
    make_classifier(tmp_path / "classifier")
    arms = [
        "llmlingua:rate={0.5,0.25},piece=200",
        "longllmlingua:rate=0.25,piece=200",
        f"llmlingua2:rate=0.25,model={tmp_path / 'classifier'}",
    ]
    loom(*RUN, *(argument for arm in arms for argument in ("--accel", arm)), seconds=300)
    records = loom.records(loom.cwd / "run")
    assert len(records) == 2 * 5 and not [r["error"] for r in records if r["error"]]
    for record in records:
        if record["arm"] == "dense":
            continue
        did, took = record["rewriting"], record["rewriting_cost"]
        rate = 0.5 if "rate=0.5" in record["arm"] else 0.25
        assert 0 < did["tokens_after"] <= rate * did["tokens_before"]
        assert took["calls"] == 1 and took["read_tokens"] > 0 and took["seconds"] > 0
        assert record["evidence"]["n"] == 1 and 0 <= record["evidence"]["share"] <= 1
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    kept = {row["arm"]: row["cost"]["rewriting"] and row["cost"]["rewriting"]["kept"] for row in report["totals"]}
    assert kept.pop("dense") is None and len(kept) == 4 and all(0 < share <= 0.5 for share in kept.values())


def test_a_scorer_that_cannot_be_opened_is_an_error_of_its_arm(loom: Any) -> None:
    loom(*RUN, "--accel", "llmlingua2:rate=0.25,model=nowhere/none", env={"LOOM_OFFLINE": "1"}, code=3)
    errors = {r["error"] for r in loom.records(loom.cwd / "run") if r["arm"] != "dense"}
    assert len(errors) == 1 and "the scoring model cannot be opened" in errors.pop()


def test_gemfilter_runs_on_the_embedded_model_and_is_dense_where_all_fits(loom: Any) -> None:
    arms = ("--accel", "gemfilter:budget={4k,4x},layer=1", "--accel", "gemfilter:budget=4x,layer=1+snapkv:budget=48")
    loom("run", "passkey@words=200,depths=2,repeats=1", *arms, "--quiet", "--out", "run")
    records = {(r["arm"], r["sample"]): r for r in loom.records(loom.cwd / "run")}
    assert len(records) == 8 and not [r["error"] for r in records.values() if r["error"]]
    for (arm, sample), record in records.items():
        dense, kept = records["dense", sample], record["kv"]["kept"]
        assert record["n_in"] == dense["n_in"] and record["timing"]["shared_seconds"] == 0
        if arm == "gemfilter:budget=4k,layer=1":
            assert record["token_ids"] == dense["token_ids"] and kept == 1
        elif arm == "gemfilter:budget=4x,layer=1":
            assert 0.24 < kept <= 0.25 and record["kv"]["bytes_held"] < dense["kv"]["bytes_held"]
            assert record["kv"]["bytes_dense"] == dense["kv"]["bytes_dense"]
        elif arm != "dense":
            assert kept < 0.25 and record["kv"]["asked"] == "4x + 48"


def test_a_shorter_prompt_is_no_broken_promise_of_the_cache(loom: Any) -> None:
    loom("run", "passkey@words=64,depths=2,repeats=1", "--accel", "truncate:budget=2x", "--quiet", "--out", "run")
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    assert {arm["name"]: arm["saves"] for arm in report["arms"]} == {"dense": "none", "truncate:budget=2x": "real"}
    assert not [b for b in report["banners"] if "declares" in b["text"]]


def test_methods_that_cannot_stand_together_are_refused_before_anything_is_made(loom: Any) -> None:
    arm = "snapkv:budget=512+kivi:bits=4+think"
    done = loom("run", "passkey@words=64", "--accel", arm, "--quiet", "--out", "run", code=1)
    assert "rule: one codec" in done.err and not (loom.cwd / "run").exists()
