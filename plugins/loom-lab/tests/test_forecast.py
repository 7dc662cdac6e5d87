"""What `loom plan` foretells: fit to the window, memory, tokens, time from earlier runs, cost, power."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from loom_kit.runs import DENSE, MadeArm, MadeTask, make_run, retrieves
from loom_lab.forecast import forecast
from loom_report.statistics import stats

from loom_core.run.sizes import EDGES, Sizes
from loom_core.run.store import RunFolder, read_json
from loom_core.run.writing import write_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
TOY = ("plan", "passkey@words={32,64},depths=2,repeats=5", "--model", "toy")


def test_every_prompt_is_in_one_class() -> None:
    sizes = Sizes(window=100, batch=3)
    for length in (5, 15, 16, 80, 90, 91, 150, 190, 1000):
        sizes.measure(length, 10)
        sizes.ask("dense", length, 10)
    rows = sizes.to_json(kv_bytes_per_token=8)["histogram"]
    assert [(row["over"], row["up_to"]) for row in rows][-1] == (EDGES[-1], None)
    counts = {row["up_to"]: row["n"] for row in rows if row["n"]}
    assert counts == {0.25: 2, 0.5: 1, 0.9: 1, 1.0: 1, 1.1: 1, 2.0: 2, None: 1}
    made = sizes.to_json(kv_bytes_per_token=8)
    assert made["batch_kv_bytes"] == 8 * 3 * 100, "what is too long is cut to the window"
    assert made["arms"]["dense"] == {
        "n": 9,
        "tokens_in": 5 + 15 + 16 + 80 + 5 * 90,
        "tokens_out_most": 90,
    }
    assert Sizes(window=None).to_json(None) == {"histogram": [], "batch": 1, "batch_kv_bytes": None, "arms": {}}


def planned(folder: RunFolder, **changes: Any) -> dict[str, Any]:
    """The plan of a made-up run with its sizes."""
    arms = {
        "dense": {"n": 10, "tokens_in": 10_000, "tokens_out_most": 100},
        SNAP.name: {"n": 10, "tokens_in": 20_000, "tokens_out_most": 100},
    }
    sizes = {"histogram": [], "batch": 1, "batch_kv_bytes": None, "arms": arms}
    return {**read_json(folder.plan), "sizes": sizes, **changes}


def test_time_is_from_the_newest_run_of_the_same_kind(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"run {i}", retrieves({}), arms=[DENSE, SNAP]) for i in range(3)]
    for i, folder in enumerate(folders):
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86400 * (i + 1)))
        write_json(folder.manifest, {**read_json(folder.manifest), "created": created})
    other = read_json(folders[0].plan)
    other["model"]["digest"] = "of another model"
    write_json(folders[0].plan, other)
    folders[2].manifest.write_text("no manifest", "utf-8")
    plan = planned(folders[1])
    ahead = forecast(plan, tmp_path, workers=2)
    assert ahead["no_earlier_run"] == []
    row = ahead["earlier"]["dense"]
    assert row["run"] == str(folders[1].path) and row["age_seconds"] == pytest.approx(2 * 86400, abs=60)
    records = [json.loads(line) for line in folders[1].responses.read_text("ascii").splitlines()]
    dense = [record for record in records if record["arm"] == "dense"]
    spent = sum(record["timing"]["ended"] - record["timing"]["started"] for record in dense)
    per_token = spent / sum(record["n_in"] for record in dense)
    assert ahead["seconds_by_arm"]["dense"] == pytest.approx(10_000 * per_token / 2)
    assert ahead["seconds"] == pytest.approx(sum(ahead["seconds_by_arm"].values()))
    plan["arms"][1]["parts"][0]["options"] = {"budget": "8x"}
    ahead = forecast(plan, tmp_path, workers=2)
    assert ahead["no_earlier_run"] == [SNAP.name] and ahead["seconds"] is None
    assert forecast(plan, tmp_path / "nowhere", 1)["earlier"] == {}


def test_cost_is_by_the_servers_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}))
    plan = planned(folder)
    assert forecast(plan, tmp_path, 1)["cost_most"] is None
    plan["model"]["facts"] = {"price_per_million": {"in": 2.0, "cached": 1.0, "out": 10.0}}
    assert forecast(plan, tmp_path, 1)["cost_most"] == pytest.approx((30_000 * 2 + 200 * 10) / 1e6)


def test_power_is_that_of_the_paired_test(tmp_path: Path) -> None:
    tasks = [MadeTask(levels={"1k": 1024, "2k": 2048}), MadeTask(name="other:loom", levels={"1k": 64}, repeats=1)]
    folder = make_run(tmp_path / "run", retrieves({}), tasks=tasks)
    power = forecast(planned(folder), tmp_path, 1)["power"]
    assert [(row["n"], row["detectable_loss"]) for row in power] == [
        (30, stats.detectable_loss(30)),
        (30, stats.detectable_loss(30)),
        (5, None),
    ]
    plan = planned(folder)
    assert forecast({**plan, "arms": plan["arms"][:1]}, tmp_path, 1)["power"] == []


def test_it_is_shown(loom: Any) -> None:
    done = loom(*TOY, "--model-option", "window=400", "--overlength", "truncate", "--accel", "fable_head")
    assert "share of the window" in done.out and "too long" in done.out and "█" in done.out
    assert "no earlier run of this model and server" in done.out and "finds a loss of" in done.out
    loom("run", "passkey@words=32,depths=2,repeats=5", "--model", "toy")
    done = loom(*TOY, "--accel", "fable_head")
    assert "no earlier run of fable_head" in done.out and "runs/passkey-toy-" in done.out
    made = json.loads(loom(*TOY, "--format", "json").out)
    assert made["forecast"]["tokens_in"] == made["sizes"]["arms"]["dense"]["tokens_in"] > 0
    assert sum(row["n"] for row in made["sizes"]["histogram"]) == made["n_samples"] == 20
