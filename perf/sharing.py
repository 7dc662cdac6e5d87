"""Several questions on one context: with the prefix read once, and without. Prints JSON.

Interleaved, medians: each round answers the same requests through one opened session with sharing and through one
without, on the same loaded model. Throughput = answers per second of wall time, reading the prefix included.

    python perf/sharing.py [--model FOLDER | --random-millions 40] [--context 4096] [--questions 8] [--rounds 5]
                           [--question-tokens 48] [--answer-tokens 16] [--methods snapkv:budget=512] [--threads 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from loom_server_hf.engine import Engine
from loom_server_hf.session import HFSession

from loom_core.api import Arm, Generation, ModelCard, Prompt, Request, Segment, installed, parse_arms
from loom_core.api.doubles import ToyTokenizer


def engine_script() -> Any:
    """perf/engine.py, which loads models."""
    spec = importlib.util.spec_from_file_location("perf_engine", Path(__file__).with_name("engine.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requests(arguments: argparse.Namespace, vocabulary: int) -> list[Request]:
    """Random questions of one length on one random context."""
    draw = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, vocabulary, (n,), generator=draw).tolist())

    context = ids(arguments.context)
    generation = Generation(max_tokens=arguments.answer_tokens, min_tokens=arguments.answer_tokens)
    prompt = Prompt(segments=(Segment(kind="context", text=""),))
    return [
        Request(
            key=str(number),
            job=str(number),
            step=0,
            prompt=prompt,
            generation=generation,
            group="one",
            seed=0,
            token_ids=(*context, *ids(arguments.question_tokens)),
        )
        for number in range(arguments.questions)
    ]


def seconds(session: HFSession, asked: list[Request], arm: Arm) -> float:
    """Wall time of all answers."""
    start = time.perf_counter()
    responses = list(session.generate(iter(asked), arm))
    assert not any(response.error for response in responses), responses[0].error
    return time.perf_counter() - start


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--random-millions", type=float, default=0)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--question-tokens", type=int, default=48)
    parser.add_argument("--answer-tokens", type=int, default=16)
    parser.add_argument("--methods", nargs="*", default=["snapkv:budget=512"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Measure and print one JSON object."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    engine = Engine(engine_script().load(arguments))
    asked = requests(arguments, int(engine.model.get_input_embeddings().weight.shape[0]))
    card = ModelCard(name="measured", path="", digest="", window=None, tokenizer=ToyTokenizer())
    sessions = {
        shared: HFSession(engine, card, eos_ids=frozenset(), batch=arguments.questions, share_prefix=shared)
        for shared in (True, False)
    }
    rows = []
    for arm in parse_arms(arguments.methods, installed()):
        taken: dict[bool, list[float]] = {True: [], False: []}
        for number in range(arguments.rounds + 1):
            # Alternate who goes first; the first round warms up and is dropped.
            for shared in (True, False) if number % 2 else (False, True):
                taken[shared].append(seconds(sessions[shared], asked, arm))
        shared_seconds, whole_seconds = (statistics.median(taken[shared][1:]) for shared in (True, False))
        rows.append(
            {
                "arm": arm.name,
                "answers_per_second": round(len(asked) / shared_seconds, 4),
                "answers_per_second_unshared": round(len(asked) / whole_seconds, 4),
                "speedup": round(whole_seconds / shared_seconds, 3),
            }
        )
    sizes = {name: getattr(arguments, name) for name in ("context", "questions", "question_tokens", "answer_tokens")}
    parameters = sum(p.numel() for p in engine.model.parameters())
    print(json.dumps({"parameters": parameters, "threads": torch.get_num_threads(), **sizes, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
