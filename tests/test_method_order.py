"""The table of KV-cache methods in small: one command on the needle test; bytes by formula, scores in their order."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest

pytest.importorskip("loom_server_hf")
pytest.importorskip("loom_model_tiny")

EVICTING = ("random", "streamingllm", "h2o", "snapkv")
FACTORS = ("2x", "4x", "6x", "8x")
GRID = [part for name in EVICTING for part in ("--accel", name + ":budget={" + ",".join(FACTORS) + "}")]


def test_methods_lose_and_hold_what_their_definitions_say(loom: Any) -> None:
    what = ("passkey@words=512,depths=5,repeats=1", *GRID, "--accel", "kivi:bits={4,2}")
    loom("run", *what, "--server-option", "batch=1", "--quiet")
    samples = [json.loads(line) for line in (loom.folder() / "samples.jsonl").read_text().splitlines()]
    keys = {sample["id"]: (sample["depth"], sample["references"][0]) for sample in samples}
    found: dict[str, dict[float, bool]] = defaultdict(dict)
    for record in loom.records():
        depth, key = keys[record["sample"]]
        found[record["arm"]][depth] = key in record["text"]
        kv = record["kv"]
        if record["arm"] != "dense":
            assert kv["bytes_held"] == pytest.approx(kv["bytes_asked"], rel=0.02), record["arm"]
    score = {arm: sum(depths.values()) for arm, depths in found.items()}
    assert len(score) == 1 + 4 * len(FACTORS) + 2 and all(len(depths) == 5 for depths in found.values())

    # Quantised caches hold every token: nothing is lost on this test.
    assert score["kivi:bits=4"] == score["kivi:bits=2"] == score["dense"] == 5
    for factor in FACTORS:
        at = {name: score[f"{name}:budget={factor}"] for name in EVICTING}
        assert max(at.values()) < score["kivi:bits=2"]
        # Sinks and the newest tokens: a needle is answered just where it lies in the window, whose border is uncertain.
        border = 1 - 1 / float(factor.removesuffix("x"))
        for depth, answered in found[f"streamingllm:budget={factor}"].items():
            assert answered == (depth > border) or abs(depth - border) < 0.1, (factor, depth)
        # Where half of all is kept, a draw may find a needle or not. With less it loses every one of so many tokens,
        # the newest tokens hold the last needle, and heavy hitters and the question's choice can only add to those.
        if factor != "2x":
            assert 0 == at["random"] < at["streamingllm"] <= at["h2o"] <= at["snapkv"]
    for name in EVICTING:
        by_factor = [score[f"{name}:budget={factor}"] for factor in FACTORS]
        assert by_factor == sorted(by_factor, reverse=True), f"{name}: a smaller budget answers more"
