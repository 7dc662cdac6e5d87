"""The first thing a new user sees: `loom run` without arguments, repeated with five seeds; its finding and files."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("loom_server_hf")
loom_model_tiny = pytest.importorskip("loom_model_tiny")

from loom_core.api.serving import render  # noqa: E402
from loom_core.run.store import RunFolder  # noqa: E402

SEEDS = (0, 1, 2, 3, 4)
BUDGET, SINKS = 256, 4
SNAPKV, STREAMING, RANDOM = "snapkv:budget=256,kernel=15,pooling=max", "streamingllm:budget=256", "random:budget=256"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from loom_server_hf.card import describe
    from loom_server_hf.plugin import HFModelOptions

    return describe(str(loom_model_tiny.path()), HFModelOptions()).card.tokenizer


def where_the_key_is(sample: Any, tokenizer: Any) -> str:
    """Whether a window of the budget's size holds the needle: "in", "out", or "astride" its border."""
    rendered = render(sample.prompt, tokenizer, chat="completion")
    evidence, before = sample.evidence[0], 0
    for segment in sample.prompt.segments[: evidence.segment]:
        before += len(segment.text)
    _, offsets = tokenizer.offsets(rendered.text)
    total = len(rendered.token_ids)
    first = next(i for i, (_, end) in enumerate(offsets) if end > before + evidence.start) + total - len(offsets)
    last = next(i for i, (_, end) in enumerate(offsets) if end >= before + evidence.end) + total - len(offsets)
    window = total - (BUDGET - SINKS)
    return "in" if first >= window else "out" if last < window else "astride"


def scores_by_place(folder: RunFolder, tokenizer: Any) -> dict[tuple[str, str], list[float]]:
    """The exact-match scores of each arm by where the key lies."""
    values = {}
    for line in next(folder.path.glob("scores-passkey_exact@*.jsonl")).read_text().splitlines():
        row = json.loads(line)
        values[row["key"]] = row["value"]
    samples, places, found = folder.read_samples(), {}, defaultdict(list)
    for job in folder.read_jobs():
        if job.sample not in places:
            places[job.sample] = where_the_key_is(samples.full(job.task, job.sample), tokenizer)
        found[job.arm, places[job.sample]].append(values[job.key])
        found[job.arm, "all"].append(values[job.key])
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_first_run_shows_what_each_arm_does(loom: Any, tokenizer: Any, seed: int, of_the_day: Any) -> None:
    of_the_day(seed, SEEDS, 1)
    done = loom("run", "--seed", seed, "--offline", seconds=600)
    [path] = (loom.cwd / "runs").iterdir()
    found = scores_by_place(RunFolder(path), tokenizer)

    def mean(arm: str, place: str = "all") -> float:
        return sum(found[arm, place]) / len(found[arm, place])

    assert all(len(found[arm, "all"]) >= 90 for arm in ("dense", SNAPKV, STREAMING, RANDOM))
    assert mean("dense") >= 0.95
    assert mean(SNAPKV) >= 0.80
    assert mean(STREAMING, "out") <= 0.10
    assert mean(STREAMING, "in") >= 0.90
    # Where the key has left StreamingLLM's window, chance keeps it more often than never and less often than SnapKV.
    assert mean(STREAMING, "out") <= mean(RANDOM, "out") <= mean(SNAPKV, "out")
    for arm in ("dense", "snapkv", "streamingllm", "random"):
        assert arm in done.out
    check_files(path, done.out)


def check_files(path: Path, printed: str) -> None:
    """The report is whole, holds a heat map for each arm, and asks nothing of the network."""
    page = (path / "report.html").read_text("utf-8")
    assert f"report: runs/{path.name}/report.html" in printed
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert page.lower().count("<svg") >= 4
    report = json.loads((path / "report.json").read_text("utf-8"))
    assert report["schema"] == 1
    assert json.loads((path / "manifest.json").read_text("utf-8"))["versions"]["torch"]


def test_same_command_again_asks_nothing_and_reports(loom: Any) -> None:
    loom("run", "--limit", 3, "--offline", seconds=300)
    [path] = (loom.cwd / "runs").iterdir()
    before = (path / "responses.jsonl").read_bytes()
    again = loom("run", "--limit", 3, "--offline")
    assert (path / "responses.jsonl").read_bytes() == before
    assert "dense" in again.out and len(list((loom.cwd / "runs").iterdir())) == 1
