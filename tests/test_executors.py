"""Where answers are made: worker processes or this process; what a breakpoint and an exception do in either."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

LINE = ("run", "passkey@words=32,depths=2,repeats=2", "--model", "any", "--server", "stops", "--quiet")
PLUGIN = """
from contextlib import contextmanager
import sys, time
from loom_core.api import ModelCard, Response, ServerSpec, Timing, hookimpl
from loom_core.api.doubles import ToyTokenizer

@hookimpl
def loom_servers():
    return [ServerSpec(name="stops", version="1", summary="stops", factory="stops:Stops", capabilities=frozenset())]

class Stops:
    def __init__(self, options): pass
    def describe(self, model, options):
        return ModelCard(name=model, path=model, digest="d" * 64, window=8192, tokenizer=ToyTokenizer())
    @contextmanager
    def open(self, model, options):
        yield Session(self.describe(model, options))

class Session:
    def __init__(self, card): self.card = card
    def generate(self, requests, arm):
        for r in requests:
            at = time.perf_counter()
            {code}
            yield Response(key=r.key, text="none", finish="stop", n_in=len(r.token_ids or ()), n_out=1,
                           timing=Timing(queued=at, started=at, first_token=at, ended=at))
"""


@pytest.fixture
def stops(tmp_path: Path) -> Any:
    """Installs the server `stops`, which runs a line of code at each answer; gives the environment."""

    def install(code: str) -> dict[str, str]:
        site = tmp_path / "more"
        info = site / "stops-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "stops.py").write_text(PLUGIN.replace("{code}", code), "utf-8")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stops\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text("[loom]\nstops = stops\n", "utf-8")
        return {"PYTHONPATH": os.pathsep.join([str(site), os.environ["PYTHONPATH"]])}

    return install


def told(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What both ways must agree on."""
    return sorted((r["key"], r["text"], r["finish"], r["n_in"], r["n_out"], r["prompt_digest"]) for r in records)


def test_inline_records_what_worker_processes_record(loom: Any) -> None:
    line = ("run", "fable@n=6,turns=2", "--model", "toy", "--accel", "fable_again")
    for executor in ("local", "inline"):
        loom(*line, "--out", executor, "--executor", executor)
    one, other = (loom.records(loom.cwd / name) for name in ("local", "inline"))
    assert told(one) == told(other) and one
    keys = [[row["key"] for row in loom.scores("fable_exact@1", loom.cwd / name)] for name in ("local", "inline")]
    assert keys[0] == keys[1]


def test_a_run_goes_on_under_the_other_executor(loom: Any) -> None:
    line = ("run", "fable@n=6", "--model", "toy", "--server-option", "errors=0.3", "--out", "both")
    codes = [loom(*line, "--executor", "inline", code=None).code]
    while codes[-1] and len(codes) < 40:
        codes.append(loom("run", "both", "--executor", ("local", "inline")[len(codes) % 2], code=None).code)
    assert codes[-1] == 0 and set(codes) <= {0, 3}
    answered = [record["key"] for record in loom.records(loom.cwd / "both") if record["finish"] == "stop"]
    assert len(answered) == len(set(answered)) and answered


def test_a_breakpoint_stops_inline_and_is_told_in_a_worker(loom: Any, stops: Any) -> None:
    env = stops("breakpoint()")
    done = loom(*LINE, "--executor", "inline", env=env, input="p r.task\n" + "c\n" * 4)
    assert "(Pdb)" in done.out and "stops.py" in done.out
    refused = loom(*LINE, "--out", "local", env=env, code=None)
    said = refused.out + refused.err + json.dumps(loom.records(loom.cwd / "local"))
    assert refused.code != 0 and "no terminal" in said and "--executor inline" in said


def test_reading_standard_input_takes_no_order_away(loom: Any, stops: Any) -> None:
    loom(*LINE, "--out", "reads", env=stops("assert sys.stdin.read() == ''"))
    assert len(loom.records(loom.cwd / "reads")) == 4


def test_an_exception_comes_with_its_traceback(loom: Any, stops: Any) -> None:
    env = stops("raise RuntimeError('my own fault')")
    child = loom.start(*LINE, "--executor", "inline", env=env)
    out, err = child.communicate(timeout=120)
    assert child.returncode not in (0, None) and "RuntimeError: my own fault" in out + err
    assert "stops.py" in err and "Traceback" in err


@pytest.mark.parametrize("flag", ["--workers", "--devices", "--python"])
def test_inline_is_one_worker_here(loom: Any, tmp_path: Path, flag: str) -> None:
    (tmp_path / "other").symlink_to(sys.executable)  # another interpreter, as far as its path tells
    value = {"--workers": "2", "--devices": "0", "--python": tmp_path / "other"}[flag]
    done = loom("run", "fable@n=2", "--model", "toy", "--executor", "inline", flag, value, code=2)
    assert f"{flag} does not go with --executor inline" in done.err


def test_an_unknown_executor_names_its_neighbours(loom: Any) -> None:
    done = loom("run", "fable@n=2", "--model", "toy", "--executor", "inlin", code=2)
    assert "unknown executor 'inlin'" in done.err and "inline" in done.err
