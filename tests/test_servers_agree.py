"""The same questions through four servers, as one study: hf, vLLM in another environment, and two OpenAI-compatible
endpoints that nobody here wrote, vLLM's own and `transformers serve`; all with the embedded model in float32.

LOOM_VLLM names the environment with vLLM (plugins/loom-server-vllm/cpu-environment.sh), LOOM_TRANSFORMERS the
`transformers` command of one with `transformers[serving]`. Skips where one of them is missing.
"""

from __future__ import annotations

import contextlib
import os
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
from loom_lab.study import read_study

from loom_core.api import installed
from loom_core.api.serving import render
from loom_core.run.placement import interpreter
from loom_core.run.selection import Selection, select
from loom_core.run.store import RunFolder, read_lines

pytestmark = pytest.mark.servers
START_SECONDS = 180.0
MOST_UNEQUAL, NEAR = 0.05, 1e-3
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
STUDY = """
benchmarks = ["passkey", "babilong:loom_qa1,loom_qa2"]
lengths = [256, 384, 512]
limit = 50
model_options = {{dtype = "float32"}}
[systems.hf]
server = "hf"
[systems.vllm]
server = "vllm"
python = "{python}"
server_options = {{eager = true, memory = 0.25}}
[systems.vllm-http]
server = "api"
model = "tiny"
model_options = {{}}
server_options = {{base_url = "{vllm}", tokenizer = "{model}", token_ids = true, return_token_ids = true}}
[systems.serve]
server = "api"
model = "{model}"
model_options = {{}}
server_options = {{base_url = "{serve}", tokenizer = "{model}", check = false, window = 4096, concurrency = 4}}
"""


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the embedded model; skips where a server is missing."""
    for name in ("LOOM_VLLM", "LOOM_TRANSFORMERS"):
        if not os.environ.get(name):
            pytest.skip(f"{name} names no environment")
    return str(installed().load(installed().models.get("loom-tiny"))())


@contextlib.contextmanager
def serving(command: list[str], health: str, home: Path) -> Iterator[str]:
    """A server process; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.mkdir()
    environment = {**os.environ, **CPU, "HF_HOME": str(home)}
    with (home / "log").open("w") as log:
        arguments = [*command, "--host", "127.0.0.1", "--port", str(port)]
        child = subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait(f"http://127.0.0.1:{port}{health}", child, home / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            child.wait(30)


def wait(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers; fails with its last words."""
    for _ in range(int(START_SECONDS)):
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        if child.poll() is not None:
            break
        time.sleep(1)
    pytest.fail("no server: " + " | ".join(log.read_text("utf-8").splitlines()[-5:]))


@pytest.fixture(scope="module")
def study(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished study."""
    home = tmp_path_factory.mktemp("study")
    python = interpreter(os.environ["LOOM_VLLM"])
    engine = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "tiny"]
    engine += ["--enforce-eager", "--dtype", "float32", "--gpu-memory-utilization", "0.25"]
    plain = [os.environ["LOOM_TRANSFORMERS"], "serve", "--dtype", "float32"]
    with serving(engine, "/health", home / "v") as vllm, serving(plain, "/health", home / "t") as serve:
        file = home / "four.toml"
        file.write_text(STUDY.format(python=python, vllm=vllm, serve=serve, model=model))
        command = [sys.executable, "-m", "loom_core", "run", str(file), "--out", str(home / "out"), "--quiet"]
        done = subprocess.run(command, env={**os.environ, **CPU}, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
    return home / "out"


def answers(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of a system, by task and sample."""
    return {(row["task"], row["sample"]): row for _, row in read_lines(folder / "responses.jsonl")}


@pytest.mark.parametrize("system", ["vllm", "vllm-http", "serve"])
def test_prompts_are_equal_and_answers_agree(study: Path, model: str, system: str) -> None:
    ours, theirs = answers(study / "hf"), answers(study / system)
    assert ours.keys() == theirs.keys() and len(ours) >= 100
    parted = []
    for place, row in theirs.items():
        mine = ours[place]
        assert row["error"] is None
        assert (row["n_in"], row["prompt_digest"]) == (mine["n_in"], mine["prompt_digest"])
        if row["text"] != mine["text"]:
            parted.append(place)
    assert len(parted) <= MOST_UNEQUAL * len(ours), parted
    (config,) = [c for n, c in _systems(study).items() if n == "hf"]
    selection = select(config, installed())
    gaps = {place: gap(model, selection, study / "hf", ours[place], theirs[place]) for place in parted}
    assert all(distance < NEAR for distance in gaps.values()), gaps


def _systems(study: Path) -> Any:
    found = read_study(study.parent / "four.toml", {"out": str(study)})
    assert found is not None
    return found.systems


def gap(model: str, selection: Selection, folder: Path, mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The distance of hf's two best logits where the two answers part."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = selection.describe().tokenizer
    assert tokenizer is not None
    _, task = selection.task(mine["task"])
    sample = RunFolder(folder).read_samples().full(mine["task"], mine["sample"])
    prompt = list(render(sample.prompt, tokenizer, chat=task.chat).token_ids or ())
    given = theirs["token_ids"] or tokenizer.encode(theirs["text"])
    at = next((i for i, (a, b) in enumerate(zip(mine["token_ids"], given, strict=False)) if a != b), 0)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.inference_mode():
        best = net(torch.tensor([[*prompt, *mine["token_ids"][:at]]])).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def test_one_report_compares_them(study: Path) -> None:
    command = [sys.executable, "-m", "loom_core", "compare", str(study / "hf"), str(study / "vllm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "agreement, token for token" in done.stdout
    page = (study / "report.html").read_text("utf-8")
    assert all(f"{name}/dense" in page for name in ("vllm", "vllm-http", "serve"))
