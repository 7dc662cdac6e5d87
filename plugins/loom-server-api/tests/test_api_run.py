"""Whole runs through the api server: faults, SIGKILL and resuming, refusals at plan time, and no secret on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loom_server_api.testing import Endpoint, prompt_of

from loom_core.api import installed

SECRET = "planted-secret-4711"
FAULTS = dict.fromkeys(("429", "429-after", "500", "reset", "slow", "cut", "malformed", "wrong-usage"), 0.03)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a run: offline, with a key."""
    cache = str(tmp_path / "cache")
    return {**os.environ, "OMP_NUM_THREADS": "1", "LOOM_OFFLINE": "1", "LOOM_CACHE": cache, "MY_ACCESS": SECRET}


def key_in(body: dict[str, Any]) -> str:
    """The pass key of the prompt: the right answer."""
    found = re.search(r"\d{7}", prompt_of(body))
    return found[0] if found else "none"


def command(endpoint: Endpoint, out: Path, *more: str, samples: int = 20) -> list[str]:
    """A run of passkey samples on the endpoint."""
    if "passkey" not in installed().benchmarks:
        pytest.skip("needs the benchmark passkey (loom-bench-passkey)")
    options = [f"base_url={endpoint.base_url}", "concurrency=16", "backoff=0.02", "timeout=5", "key_env=MY_ACCESS"]
    flags = [flag for option in (*options, *more) for flag in ("--server-option", option)]
    what = f"passkey@words=32,depths=10,repeats={samples // 10}:loom"
    return [sys.executable, "-m", "loom_core", "run", what, "-m", "echo", "-s", "api", "--out", str(out), *flags]


def run(arguments: list[str], environment: dict[str, str], code: int) -> str:
    """Run to the end, with this exit code; what it printed."""
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def records(out: Path) -> list[dict[str, Any]]:
    """The recorded responses; a line that is being written is none yet."""
    path = out / "responses.jsonl"
    lines = path.read_text("ascii").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_a_thousand_questions_through_faults_and_sigkill(tmp_path: Path, environment: dict[str, str]) -> None:
    """Killed twice in the middle; in the end every question has one answer, the same as in an undisturbed run."""
    out = tmp_path / "run"
    with Endpoint(key_in, faults=FAULTS, seconds=0.02, slow_seconds=0.1) as endpoint:
        arguments = command(endpoint, out, samples=1000)
        for enough in (100, 500):
            child = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while len(records(out)) < enough and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert enough <= len(records(out)) < 1000
        run(arguments, environment, 0)
        found = records(out)
        answered = Counter(record["job"] for record in found if record["finish"] != "error")
        assert len(answered) == 1000 and set(answered.values()) == {1}
        well = {prompt_of(seen.body) for seen in endpoint.seen if seen.fault in ("", "slow", "wrong-usage")}
        assert len(well) == 1000
        n_before = len(endpoint.seen)
        run(arguments, environment, 0)
        assert len(endpoint.seen) == n_before, "nothing is left to ask"
    with Endpoint(key_in) as calm:
        other = tmp_path / "calm"
        run(command(calm, other, samples=1000), environment, 0)
    texts = [{record["sample"]: record["text"] for record in rows} for rows in (found, records(other))]
    assert texts[0] == texts[1] and len(set(texts[0].values())) > 900


def test_errors_are_recorded_and_only_they_are_asked_again(tmp_path: Path, environment: dict[str, str]) -> None:
    out, bad = tmp_path / "run", {"on": True}

    def choose(body: dict[str, Any]) -> str:
        return "overflow" if bad["on"] and len(prompt_of(body)) % 2 else ""

    with Endpoint(choose=choose) as endpoint:
        said = run(command(endpoint, out, "retries=0"), environment, 3)
        failed = [record for record in records(out) if record["finish"] == "error"]
        assert 0 < len(failed) < 20
        assert all(record["error"].startswith("context overflow reported by the server") for record in failed)
        assert "context overflow" in said or "error" in said
        bad["on"], before = False, len(endpoint.seen)
        run(command(endpoint, out, "retries=0"), environment, 0)
        assert len(endpoint.seen) - before == len(failed)


def test_what_the_endpoint_ignores_is_an_event_of_the_run(tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "run"
    with Endpoint(faults={"ignore-limit": 1.0}) as endpoint:
        run(command(endpoint, out), environment, 0)
    events = json.loads((out / "manifest.json").read_text("utf-8"))["events"]
    assert len([event for event in events if "ignored the limit of new tokens" in event]) == 1
    assert all(record["notes"] for record in records(out))


def test_no_secret_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    """The key is wrong, and the endpoint repeats it in each error."""
    out = tmp_path / "run"
    with Endpoint(key="another") as endpoint:
        said = run(command(endpoint, out, "check=false"), environment, 3)
        said += run(command(endpoint, tmp_path / "none"), environment, 1)
    assert all(record["finish"] == "error" for record in records(out))
    assert SECRET not in said
    for path in out.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert not (tmp_path / "none" / "plan.json").exists()


def test_an_arm_that_needs_local_weights_is_refused_at_plan_time(environment: dict[str, str]) -> None:
    known = installed()
    names = [found.spec.name for found in known.augmentations if "local_model" in found.spec.requires]
    if not names:
        pytest.skip("no method for local models is installed")
    able = [found.spec.name for found in known.servers if "local_model" in found.spec.capabilities]
    budget = f"{names[0]}:budget=64"
    arguments = [sys.executable, "-m", "loom_core", "plan", "passkey", "-m", "echo", "-s", "api", "-a", budget]
    said = run(arguments, environment, 2)
    assert f"server api cannot do {names[0]}" in said and "local_model" in said
    assert able and all(name in said for name in able)
