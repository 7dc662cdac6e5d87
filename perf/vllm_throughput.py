"""vLLM through loom against vLLM alone, and what asking by context does to its prefix cache. Prints JSON.

Run it with the Python of an environment that holds vLLM (`plugins/loom-server-vllm/cpu-environment.sh`):

    export OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1
    vllm-env/bin/python perf/vllm_throughput.py

One engine, one set of prompts; rounds of both ways follow each other, the prefix cache is emptied before each.
`ratio` is the throughput of loom's session over that of `LLM.generate(all prompts)`, median of the rounds' ratios, with
the order statistics that hold the median with 95 % or more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from loom_core.api import Arm, Generation, Prompt, Request, installed
from loom_core.api.serving import EngineModelOptions

DENSE = Arm(name="dense")
BLOCK = 128
"""Tokens of a block of vLLM's cache on CPU."""


def requests(n: int, length: int, new: int, per_context: int, seed: int) -> list[Request]:
    """Random prompts of `length` tokens; `per_context` of them share all but the last 16."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        if number % per_context == 0:
            context = [draw.randrange(300, 4000) for _ in range(length - 16)]
        ids = (*context, *(draw.randrange(300, 4000) for _ in range(16)))
        generation = Generation(max_tokens=new, min_tokens=new)
        key, group = str(number), str(number // per_context)
        rows.append(
            Request(
                key=key,
                job=key,
                step=0,
                prompt=Prompt(segments=()),
                generation=generation,
                group=group,
                seed=0,
                token_ids=ids,
            )
        )
    return rows


def through_loom(session: Any, rows: Sequence[Request]) -> tuple[float, int]:
    """Seconds, and the tokens found in the prefix cache."""
    began = time.perf_counter()
    found = list(session.generate(iter(rows), DENSE))
    seconds = time.perf_counter() - began
    assert len(found) == len(rows) and not any(r.error for r in found)
    return seconds, sum(r.n_cached for r in found)


def alone(llm: Any, parameters: Any, rows: Sequence[Request]) -> float:
    """Seconds of `LLM.generate` over all prompts at once."""
    prompts = [{"prompt_token_ids": list(row.token_ids or ())} for row in rows]
    began = time.perf_counter()
    found = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.perf_counter() - began
    assert len(found) == len(rows)
    return seconds


def rounds(session: Any, llm: Any, parameters: Any, rows: Sequence[Request], n: int) -> Iterator[tuple[float, float]]:
    """(loom, alone) seconds; which goes first alternates."""
    for number in range(n):
        seconds = {}
        for way in ("loom", "alone") if number % 2 else ("alone", "loom"):
            llm.reset_prefix_cache()
            seconds[way] = through_loom(session, rows)[0] if way == "loom" else alone(llm, parameters, rows)
        yield seconds["loom"], seconds["alone"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--requests", 64), ("--length", 512), ("--new", 32), ("--rounds", 10), ("--per-context", 8)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    plugin = importlib.import_module("loom_server_vllm.plugin")
    server = importlib.import_module("loom_server_vllm.server").VllmServer(plugin.VllmOptions(eager=True, memory=0.4))
    model = str(installed().load(installed().models.get("loom-tiny"))())
    with server.open(model, EngineModelOptions()) as session:
        llm = session._llm  # the same engine, asked without loom
        parameters = importlib.import_module("vllm").SamplingParams(
            temperature=0, max_tokens=given.new, min_tokens=given.new
        )
        rows = requests(given.requests, given.length, given.new, 1, seed=1)
        list(rounds(session, llm, parameters, rows[:8], 1))
        measured = list(rounds(session, llm, parameters, rows, given.rounds))
        ratios = sorted(bare / ours for ours, bare in measured)
    print(
        json.dumps(
            {
                "engine": session.info,
                "requests": given.requests,
                "prompt_tokens": given.length,
                "new_tokens": given.new,
                "ratio": round(statistics.median(ratios), 4),
                "ratio_interval": [round(ratios[given.rounds // 5], 4), round(ratios[-1 - given.rounds // 5], 4)],
                "seconds_loom": [round(ours, 3) for ours, _ in measured],
                "seconds_alone": [round(bare, 3) for _, bare in measured],
                "order": order(plugin, model, given),
            },
            indent=1,
        )
    )


def order(plugin: Any, model: str, given: argparse.Namespace) -> dict[str, Any]:
    """Questions on shared contexts as they come and put together by context, in a cache that holds few of them."""
    blocks = max(8, 6 * given.length // BLOCK)
    options = plugin.VllmOptions(
        eager=True, memory=0.4, max_batch=4, engine=json.dumps({"num_gpu_blocks_override": blocks})
    )
    server = importlib.import_module("loom_server_vllm.server").VllmServer(options)
    shared = requests(given.requests, given.length, given.new, given.per_context, seed=2)
    mixed = [row for start in range(given.per_context) for row in shared[start :: given.per_context]]
    found: dict[str, Any] = {"cache_blocks": blocks, "questions_a_context": given.per_context}
    with server.open(model, EngineModelOptions(window=2 * given.length)) as session:
        for name, rows in (("as_they_come", [_apart(row) for row in mixed]), ("by_context", shared)):
            session._llm.reset_prefix_cache()
            seconds, tokens = through_loom(session, rows)
            found[name] = {"seconds": round(seconds, 3), "cached_tokens": tokens}
    return found


def _apart(row: Request) -> Request:
    """The request in a group of its own, so that nothing puts it beside others of its context."""
    return replace(row, group=row.key)


if __name__ == "__main__":
    main()
