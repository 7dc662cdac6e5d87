"""Prefill and decode of loom's engine against plain `model.generate`, alone and in a batch. Prints JSON.

Interleaved, medians: each round measures both, one after the other, with the same weights, number format and threads.
`generate` runs with its DynamicCache and sdpa. Prefill = seconds to the first token; decode = per further token, of all
rows. Processor seconds do not suffer from other work on the machine; a speed-up is generate's time over the engine's.

    python perf/engine.py [--model FOLDER | --random-millions 40] [--lengths 512,2048,8192] [--tokens 64] [--rounds 5]
                          [--batches 1,8]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from loom_kv import Policy
from loom_server_hf.engine import Engine, Row
from loom_server_hf.host import attached
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, StoppingCriteriaList


def load(arguments: argparse.Namespace) -> Any:
    """The model to measure: a folder, a random Llama of about so many million parameters, or the embedded one."""
    dtype = getattr(torch, arguments.dtype)
    if arguments.random_millions:
        hidden = 512
        layers = max(2, round(arguments.random_millions * 1e6 / (hidden * hidden * 12)))
        config = LlamaConfig(
            vocab_size=8192,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=131072,
        )
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(arguments.device, dtype).eval()
    folder = arguments.model
    if folder is None:
        import loom_model_tiny

        folder = loom_model_tiny.path()
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype).to(arguments.device).eval()


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Clock:
    """When the first token came, and the last, in wall time and in processor time; a stopping rule of `generate`."""

    def __init__(self) -> None:
        self.start = self.now()
        self.times: list[tuple[float, float]] = []

    @staticmethod
    def now() -> tuple[float, float]:
        """Wall and processor seconds."""
        return time.perf_counter(), time.process_time()

    def note(self) -> None:
        """A token of each row is there."""
        self.times.append(self.now())

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Nobody stops early."""
        synchronise(str(ids.device))
        self.note()
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

    def measured(self) -> dict[str, float]:
        """Seconds to the first token and per further one, on both clocks."""
        (first, first_worked), (last, last_worked) = self.times[0], self.times[-1]
        further = len(self.times) - 1
        return {
            "prefill_seconds": first - self.start[0],
            "decode_seconds": (last - first) / further,
            "prefill_processor_seconds": first_worked - self.start[1],
            "decode_processor_seconds": (last_worked - first_worked) / further,
        }


def measure_generate(model: Any, ids: torch.Tensor, tokens: int) -> dict[str, float]:
    """`Clock.measured` of `model.generate`."""
    synchronise(str(ids.device))
    clock = Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return clock.measured()


def measure_engine(engine: Engine, ids: torch.Tensor, tokens: int, policy: Policy | None = None) -> dict[str, float]:
    """`Clock.measured` of the engine; policy None = dense."""
    synchronise(str(ids.device))
    clock = Clock()

    def stop(_: Any) -> bool:
        clock.note()
        return False

    first, *others = ids.tolist()
    rows = [Row(ids=tuple(first), max_tokens=tokens, seed=0, eos_ids=frozenset(), stop=stop)]
    rows += [Row(ids=tuple(other), max_tokens=tokens, seed=0, eos_ids=frozenset()) for other in others]
    results = dict(engine.run(rows, policy))
    assert not any(result.error for result in results.values()), results[0].error
    return clock.measured()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each key; the first round warms up and is left out."""
    return {key: statistics.median(measured[key] for measured in rounds[1:]) for key in rounds[0]}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--random-millions", type=float, default=0)
    parser.add_argument("--lengths", default="512,2048,8192")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prefill-chunk", type=int, default=2048)
    parser.add_argument("--batches", default="1,8")
    return parser.parse_args()


def compare(engine: Engine, ids: torch.Tensor, tokens: int, rounds: int) -> dict[str, Any]:
    """Both, interleaved, on prompts [b, n]: medians and speed-ups."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for number in range(rounds + 1):
        # Alternate who goes first; the first round warms up.
        if number % 2:
            ours.append(measure_engine(engine, ids, tokens))
        theirs.append(measure_generate(engine.model, ids, tokens))
        if not number % 2:
            ours.append(measure_engine(engine, ids, tokens))
    mine, other = medians(ours), medians(theirs)
    row: dict[str, Any] = {"length": ids.shape[1], "batch": ids.shape[0]}
    for key in mine:
        row |= {key: round(mine[key], 6), f"{key}_generate": round(other[key], 6)}
        row[f"{key.replace('_seconds', '')}_speedup"] = round(other[key] / mine[key], 3)
    return row


def main() -> None:
    """Measure and print one JSON object."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    model = load(arguments)
    engine = Engine(model, prefill_chunk=arguments.prefill_chunk)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = []
    for batch in (int(text) for text in arguments.batches.split(",")):
        for length in (int(text) for text in arguments.lengths.split(",")):
            ids = torch.randint(10, vocabulary, (batch, length), generator=torch.Generator().manual_seed(length))
            rows.append(compare(engine, ids.to(arguments.device), arguments.tokens, arguments.rounds))
    with attached(model):
        implementation = model.config._attn_implementation
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in model.parameters()),
                "attention": {"engine": implementation, "generate": model.config._attn_implementation},
                "dtype": arguments.dtype,
                "threads": torch.get_num_threads(),
                "rounds": arguments.rounds,
                "prefill_chunk": arguments.prefill_chunk,
                "rows": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
