"""Eight kinds of run against what they gave before: keys of answers never move, nor do prompts, answers and scores.

`tests/golden.json` holds digests, made by LOOM_GOLDEN=write. It changes only where a behaviour version does, and then
the changed rows alone. Answers of a real model may differ in their last bits between machines: of those the keys are
held.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).with_name("golden.json")
DOUBLE = ("--server", "double", "--model", "toy")
SMALL = "passkey@words=64,depths=2,repeats=2"
STUDY = f"""
benchmarks = ["{SMALL}"]
model = "toy"
server = "double"
[systems.one]
[systems.other]
server_options = {{ answers = "null" }}
"""
RUNS: dict[str, tuple[str, ...]] = {
    "kv methods": ("--limit", "2"),
    "retrieval": ("passkey@words=200,depths=2,repeats=2", *DOUBLE, "--accel", "bm25:k=2"),
    "strategy": ("passkey@words=200,depths=2,repeats=2", *DOUBLE, "--accel", "self-route"),
    "judge": ("niah", *DOUBLE, "--lengths", "1k", "-n", "3", "--judge", "double:toy"),
    "context-only": (SMALL, "--accel", "snapkv:budget=64", "--protocol", "context-only"),
    "thinking": (SMALL, *DOUBLE, "--thinking", "<think>,</think>", "--thinking-budget", "32"),
    "anytime": ("passkey@words=64,depths=10,repeats=20", *DOUBLE, "--until", "ci=20"),
    "study": ("study.toml",),
}
REAL = ("kv methods", "context-only")
NEEDS = (
    *("loom_bench_passkey", "loom_bench_niah", "loom_accel_bm25", "loom_accel_self_route", "loom_accel_snapkv"),
    *("loom_accel_streamingllm", "loom_lab", "loom_report", "loom_server_hf", "loom_model_tiny"),
)


def digest(rows: list[Any]) -> str:
    """Of rows in any order."""
    return hashlib.sha256("\n".join(sorted(json.dumps(row, sort_keys=True) for row in rows)).encode()).hexdigest()[:16]


def told(loom: Any, name: str) -> dict[str, Any]:
    """What a run asked, was answered and scored, as digests."""
    folder = loom.cwd / "made"
    records = loom.records(folder)
    asked = [(r["job"], r["key"], r["prompt_digest"], r["n_in"], r["task"], r["sample"], r["arm"]) for r in records]
    found: dict[str, Any] = {"n": len(records), "asked": digest(asked)}
    if name not in REAL:
        found["answers"] = digest([(r["key"], r["text"], r["answer"], r["finish"], r["n_out"]) for r in records])
        scores = [json.loads(line) for path in folder.glob("scores-*.jsonl") for line in path.open("rb")]
        found["scores"] = digest([(s["key"], s["metric"], s["metric_version"], s["value"]) for s in scores])
        report = json.loads((folder / "report.json").read_text("utf-8"))
        found["report"] = digest([(row["task"], row["arm"], row["scores"]) for row in report["totals"]])
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_what_it_was(loom: Any, name: str) -> None:
    for module in NEEDS:
        pytest.importorskip(module)
    (loom.cwd / "study.toml").write_text(STUDY, "utf-8")
    loom("run", *RUNS[name], "--out", "made", "--quiet")
    found = told(loom, name)
    golden = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("LOOM_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps({**golden, name: found}, indent=1, sort_keys=True) + "\n", "utf-8")
        return
    assert found == golden[name]
