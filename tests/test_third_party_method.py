"""A KV-cache method that someone else wrote from docs/plugins.md: short, installed by pip, checked and run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "third_party" / "loom-accel-vatp"
RULES = ("U1", "U2", "U4", "U5", "U6", "U7", "U8", "U9")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has it installed."""
    if not all(map(importlib.util.find_spec, ("pip", "flit_core", "torch"))):
        pytest.skip("pip and flit_core install it, and torch runs it")
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(SOURCE)], check=True, capture_output=True, timeout=120)
    path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def test_it_is_short() -> None:
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".toml")]
    assert sum(len(path.read_text("utf-8").splitlines()) for path in files) < 100


def test_it_passes_every_rule(loom: Any, env: dict[str, str]) -> None:
    done = loom("check", "loom-accel-vatp", env=env, seconds=300)
    assert "no check failed" in done.out and "FAIL" not in done.out
    assert [rule for rule in RULES if f"ok   vatp: {rule} " not in done.out] == []
    assert "U3 recorded results\n     loom check --oracle FOLDER" in done.out


def test_it_runs_in_both_protocols(loom: Any, env: dict[str, str]) -> None:
    what = ("run", "passkey@words=128,depths=2,repeats=1", "--accel", "vatp:budget={4x,40}", "--quiet")
    for protocol in ("query-aware", "context-only"):
        out = loom.cwd / protocol
        loom(*what, "--protocol", protocol, "--out", out, env=env, seconds=300)
        records = loom.records(out)
        assert len(records) == 6 and not any(record["error"] for record in records)
        assert {record["protocol"] for record in records} == {protocol}
        held = {record["kv"]["tokens_held"] for record in records if record["arm"] == "vatp:budget=40"}
        assert held == {40.0}
