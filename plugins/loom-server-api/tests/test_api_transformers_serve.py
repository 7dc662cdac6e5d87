"""The api server against `transformers serve`, which nobody here wrote, with the embedded model: as hf answers.

LOOM_TRANSFORMERS names the `transformers` command of an environment with `transformers[serving]`; without it, the
command beside this Python is taken where fastapi and uvicorn are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loom_server_api.plugin import ApiOptions
from loom_server_api.server import ApiServer

from loom_core.api import Arm, Generation, Prompt, Request, installed, segment
from loom_core.api.serving import render

pytestmark = pytest.mark.servers
START_SECONDS = 120.0
SAMPLES = int(os.environ.get("LOOM_SERVE_SAMPLES", "10"))
MOST_UNEQUAL = 0.05


def serving_command() -> str:
    """The `transformers` command; skips where it cannot serve."""
    if named := os.environ.get("LOOM_TRANSFORMERS"):
        return named
    beside = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if beside is None or not all(map(importlib.util.find_spec, ("fastapi", "uvicorn"))):
        pytest.skip(
            'transformers serve is not installed: pip install "transformers[serving]", or set LOOM_TRANSFORMERS'
        )
    return beside


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the embedded model."""
    if "loom-tiny" not in installed().models or "hf" not in installed().servers:
        pytest.skip("needs loom-model-tiny and loom-server-hf")
    return str(installed().load(installed().models.get("loom-tiny"))())


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running `transformers serve`, in a cache folder of its own, in float32."""
    command, home = serving_command(), tmp_path_factory.mktemp("hub")
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = (home / "serve.log").open("w")
    arguments = [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    child = subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/health", child, home / "serve.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.terminate()
        child.wait(30)
        log.close()


def _wait(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail("transformers serve did not start: " + " | ".join(log.read_text("utf-8").splitlines()[-5:]))


def run(out: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """The records of a run of passkey, by sample."""
    if "passkey" not in installed().benchmarks:
        pytest.skip("needs the benchmark passkey (loom-bench-passkey)")
    what = f"passkey@words=64,depths={SAMPLES}:loom"
    arguments = [sys.executable, "-m", "loom_core", "run", what, "-n", str(SAMPLES), "--out", str(out), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOOM_OFFLINE": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text("ascii").splitlines()]
    assert len(rows) == SAMPLES
    return {row["sample"]: row for row in rows}


def api(base_url: str, *more: str) -> list[str]:
    """The flags of the api server; the served folder is in no list of models."""
    options = [f"base_url={base_url}", "check=false", "concurrency=4", *more]
    return ["-s", "api", *(flag for option in options for flag in ("--server-option", option))]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_same_prompts_and_answers_as_the_hf_server(base_url: str, model: str, stream: str, tmp_path: Path) -> None:
    theirs = run(tmp_path / "api", "-m", model, *api(base_url, f"tokenizer={model}", "window=4096", f"stream={stream}"))
    ours = run(tmp_path / "hf", "-m", model, "--model-option", "dtype=float32")
    assert theirs.keys() == ours.keys()
    for sample, row in theirs.items():
        assert row["notes"] == [], "the endpoint counts as many prompt tokens as loom rendered"
        assert (row["n_in"], row["prompt_digest"]) == (ours[sample]["n_in"], ours[sample]["prompt_digest"])
        assert (row["timing"]["first_token"] is not None) == (stream == "true")
    unequal = [sample for sample, row in theirs.items() if row["text"] != ours[sample]["text"]]
    assert len(unequal) <= MOST_UNEQUAL * SAMPLES, {s: (theirs[s]["text"], ours[s]["text"]) for s in unequal}


def test_token_ids_are_refused_and_the_reason_is_recorded(base_url: str, model: str, tmp_path: Path) -> None:
    """`transformers serve` takes no ids: each request is a recorded error with the server's words."""
    flags = api(base_url, f"tokenizer={model}", "token_ids=true", "window=4096")
    out = tmp_path / "ids"
    with pytest.raises(AssertionError):
        run(out, "-m", model, *flags)
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text("ascii").splitlines()]
    assert {row["error"] for row in rows} == {"HTTP 400: prompt must be a string."}


@pytest.mark.parametrize("stream", [True, False])
def test_the_chat_route_renders_and_answers_as_the_hf_server(base_url: str, model: str, stream: bool) -> None:
    """The server's own template gives as many tokens as loom's rendering, and the same greedy answers."""
    catalog = installed()
    hf = catalog.servers.get("hf")
    server = catalog.load(hf)(hf.spec.options())
    with server.open(model, hf.spec.model_options(dtype="float32")) as session:
        tokenizer = session.card.tokenizer
        requests = [chat_request(i, tokenizer) for i in range(SAMPLES)]
        ours = {r.key: r for r in session.generate(iter(requests), Arm(name="dense"))}
    options = ApiOptions(base_url=base_url, check=False, tokenizer=model, stream=stream, concurrency=4)
    with ApiServer(options).open(model, None) as session:
        theirs = {r.key: r for r in session.generate(iter(requests), Arm(name="dense"))}
    assert {r.error for r in theirs.values()} == {None}
    assert {r.notes for r in theirs.values()} == {()}
    assert all(theirs[key].n_in == ours[key].n_in for key in ours)
    unequal = [key for key in ours if theirs[key].text != ours[key].text]
    assert len(unequal) <= MOST_UNEQUAL * SAMPLES, {k: (theirs[k].text, ours[k].text) for k in unequal}


def chat_request(i: int, tokenizer: Any) -> Request:
    """A question for the chat template, rendered as loom's core does."""
    context = segment("context", f"Note {i}: the number is {i * 7919}. " * 3)
    prompt = Prompt(segments=(context, segment("question", "Which?")))
    return Request(
        key=str(i),
        job=str(i),
        step=0,
        prompt=prompt,
        generation=Generation(max_tokens=12),
        group=prompt.context_digest,
        seed=i,
        chat="template",
        token_ids=render(prompt, tokenizer, chat="template").token_ids,
    )
