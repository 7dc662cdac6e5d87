"""What each KV-cache method costs and holds: scoring's share of prefill, decode by budget, bytes. Prints JSON.

Interleaved, medians: each round measures every arm on the same prompt and loaded model. Scoring = what a method looks
at, ranks, evicts and encodes, between the layers' attention; a method that cuts the cache while the prompt is read has
none, and its whole prefill is shown against dense. Held = bytes at the end of the prompt; formula = what the
definition's slots take, or what the codec's formula says. Peak = most bytes that the cache held while the prompt was
read; its bound = one whole layer beside what is held at the end, or the dense cache where the prompt is read in chunks.

    python perf/methods.py [--model FOLDER | --random-millions 40] [--length 8192] [--budgets 2x,4x,8x] [--tokens 24]
                           [--methods snapkv,h2o] [--rounds 5] [--batch 1] [--prefill-chunk 2048]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from loom_kv import Policy, Session, compose
from loom_server_hf.engine import Engine
from loom_server_hf.host import attached
from torch import Tensor

from loom_core.api import installed, parse_arms

Arms = dict[str, Any]


def engine_script() -> Any:
    """perf/engine.py, which loads models and measures the engine."""
    spec = importlib.util.spec_from_file_location("perf_engine", Path(__file__).with_name("engine.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watch:
    """Adds up the seconds of a session's scoring, and remembers the most bytes that its cache held."""

    def __init__(self, session: Session) -> None:
        self.seconds = self.processor_seconds = 0.0
        self.peak_bytes = 0
        self.session, self.attend, self.read = session, session.attend, session._read
        # The instance's own attributes: the class stays as it is.
        vars(session).update(attend=self.attending, _read=self.reading)

    def attending(self, *arguments: Any) -> Tensor:
        """`Session.attend`."""
        out = self.attend(*arguments)
        self.peak_bytes = max(self.peak_bytes, self.session.held_bytes())
        return out

    def reading(self, layer: int, q: Tensor, scaling: float | None) -> None:
        """`Session._read`, where a layer is ranked, evicted and encoded."""
        self.peak_bytes = max(self.peak_bytes, self.session.held_bytes())
        start, worked = time.perf_counter(), time.process_time()
        self.read(layer, q, scaling)
        self.seconds += time.perf_counter() - start
        self.processor_seconds += time.process_time() - worked


def methods(names: str, budgets: str) -> list[str]:
    """Every installed method that runs in the engine, with each budget where it has one."""
    grid = ":budget={" + budgets + "}"
    arms = []
    for found in installed().augmentations:
        spec = found.spec
        if spec.kind != "model" or "local_model" not in spec.requires or (names and spec.name not in names.split(",")):
            continue
        if spec.name == "kivi":
            arms.append("kivi:bits={2,4}")
        elif any(field.name == "budget" for field in dataclasses.fields(spec.options)):
            arms.append(spec.name + grid)
        else:
            arms.append(spec.name)
    return arms


def policy_of(arm: Any) -> Policy | None:
    """A fresh policy of an arm; None = dense."""
    found = {found.spec.name: found for found in installed().augmentations}
    return compose([installed().load(found[part.name])(part.options) for part in arm.parts])


def watch(engine: Engine, ids: Tensor, arm: Any) -> dict[str, Any]:
    """One prefill: seconds of scoring, and bytes."""
    policy = policy_of(arm)
    prompts = [tuple(row) for row in ids.tolist()]
    with attached(engine.model):
        batch = engine.start(prompts, [0] * len(prompts), policy)
        seen = Watch(batch.session)
        start, worked = time.perf_counter(), time.process_time()
        _, failed = batch.prefill()
        taken, taken_worked = time.perf_counter() - start, time.process_time() - worked
        assert not failed, failed
        held = batch.session.held_bytes()
    formula = held_formula(engine, policy, ids.shape[1]) * ids.shape[0]
    geometry = engine.geometry
    dense = ids.shape[0] * ids.shape[1] * geometry.bytes_per_token
    whole_layer = dense // geometry.layers
    one_shot = policy is not None and ids.shape[1] <= engine.prefill_chunk
    bound = formula + whole_layer if one_shot else max(dense, formula)
    return {
        "prefill_seconds": taken,
        "scoring_share": seen.seconds / taken,
        "scoring_share_processor": seen.processor_seconds / taken_worked,
        "held_bytes": held,
        "held_of_formula": held / formula,
        "held_of_dense": held / dense,
        "peak_bytes": seen.peak_bytes,
        "peak_of_bound": seen.peak_bytes / bound,
    }


def held_formula(engine: Engine, policy: Policy | None, n: int) -> int:
    """Bytes of one prompt of n tokens after compression, positions not counted."""
    geometry = engine.geometry
    if policy is None:
        return n * geometry.bytes_per_token
    if policy.codec is not None:
        return geometry.layers * policy.codec.bytes_held(min(n, policy.slots(n)))
    slot = (geometry.key_dim + geometry.value_dim) * geometry.dtype.itemsize
    return policy.most_slots(n) * slot


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--random-millions", type=float, default=0)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--budgets", default="2x,4x,8x")
    parser.add_argument("--methods", default="", help="names with commas; all that are installed by default")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prefill-chunk", type=int, default=2048)
    return parser.parse_args()


def main() -> None:
    """Measure and print one JSON object."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    script = engine_script()
    engine = Engine(script.load(arguments), prefill_chunk=arguments.prefill_chunk)
    vocabulary = int(engine.model.get_input_embeddings().weight.shape[0])
    draw = torch.Generator().manual_seed(arguments.length)
    ids = torch.randint(10, vocabulary, (arguments.batch, arguments.length), generator=draw).to(arguments.device)
    arms = parse_arms(methods(arguments.methods, arguments.budgets), installed())
    rounds: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for _ in range(arguments.rounds + 1):
        for arm in arms:
            measured = watch(engine, ids, arm)
            timed = script.measure_engine(engine, ids, arguments.tokens, policy_of(arm))
            rounds[arm.name].append(measured | timed)
    rows: list[dict[str, Any]] = []
    for name, seen in rounds.items():
        row = {key: statistics.median(one[key] for one in seen[1:]) for key in seen[0]}
        rows.append({"arm": name, **{key: float(f"{value:.5g}") for key, value in row.items()}})
    for row in rows:
        for key in ("prefill", "decode"):
            dense = rows[0][f"{key}_processor_seconds"] / row[f"{key}_processor_seconds"]
            row[f"{key}_processor_speedup_to_dense"] = round(dense, 3)
    named = ("length", "batch", "prefill_chunk", "dtype", "rounds", "tokens")
    sizes = {name: getattr(arguments, name) for name in named}
    parameters = sum(p.numel() for p in engine.model.parameters())
    print(json.dumps({"parameters": parameters, "threads": torch.get_num_threads(), **sizes, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
