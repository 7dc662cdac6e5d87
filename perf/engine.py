"""Prefill and decode of loom's engine against plain `model.generate`, batch 1, on one loaded model. Prints JSON.

Interleaved, medians: each round measures both, one after the other, with the same weights, number format and threads.
`generate` runs with its DynamicCache and sdpa. Prefill = seconds to the first token; decode = per further token.
Processor seconds cover the whole answer and do not suffer from other work on the machine.

    python perf/engine.py [--model FOLDER | --random-millions 40] [--lengths 512,2048,8192] [--tokens 64] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from loom_server_hf.engine import Engine, Row
from loom_server_hf.kv.host import attached
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


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
    """A streamer that notes when each token came; `generate` hands it the prompt first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """A token, already on the CPU."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to flush."""


def measure_generate(model: Any, ids: torch.Tensor, tokens: int) -> tuple[float, float, float]:
    """(seconds to the first token, seconds per further token, processor seconds in all) of `model.generate`."""
    clock = Clock()
    synchronise(str(ids.device))
    worked = time.process_time()
    start = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        streamer=clock,
    )
    first, last = clock.times[1], clock.times[-1]
    return first - start, (last - first) / (tokens - 1), time.process_time() - worked


def measure_engine(engine: Engine, ids: torch.Tensor, tokens: int) -> tuple[float, float, float]:
    """(seconds to the first token, seconds per further token, processor seconds in all) of the dense engine."""
    row = Row(ids=tuple(ids[0].tolist()), max_tokens=tokens, seed=0, eos_ids=frozenset())
    start, worked = time.perf_counter(), time.process_time()
    _, result = next(iter(engine.run([row], None)))
    decode = (result.ended - result.first_token) / (tokens - 1)
    return result.first_token - start, decode, time.process_time() - worked


def measure_batch(engine: Engine, ids: torch.Tensor, tokens: int, rows: int) -> float:
    """Seconds per decoding step of a batch of equal rows."""
    row = Row(ids=tuple(ids[0].tolist()), max_tokens=tokens, seed=0, eos_ids=frozenset())
    result = list(engine.run([row] * rows, None))[-1][1]
    return (result.ended - result.first_token) / (tokens - 1)


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
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    """Measure and print one JSON object."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    model = load(arguments)
    engine = Engine(model, prefill_chunk=arguments.prefill_chunk)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = []
    for length in (int(text) for text in arguments.lengths.split(",")):
        ids = torch.randint(10, vocabulary, (1, length), generator=torch.Generator().manual_seed(length))
        ids = ids.to(arguments.device)
        ours, theirs = [], []
        for number in range(arguments.rounds + 1):
            # Alternate who goes first; the first round warms up and is dropped.
            if number % 2:
                ours.append(measure_engine(engine, ids, arguments.tokens))
            theirs.append(measure_generate(model, ids, arguments.tokens))
            if not number % 2:
                ours.append(measure_engine(engine, ids, arguments.tokens))
        prefill, decode, worked = (statistics.median(column) for column in zip(*ours[1:], strict=True))
        prefill_generate, decode_generate, worked_generate = (
            statistics.median(column) for column in zip(*theirs[1:], strict=True)
        )
        step = measure_batch(engine, ids, arguments.tokens, arguments.batch) if arguments.batch else None
        rows.append(
            {
                "length": length,
                "prefill_seconds": round(prefill, 5),
                "prefill_seconds_generate": round(prefill_generate, 5),
                "prefill_speedup": round(prefill_generate / prefill, 3),
                "decode_seconds_per_token": round(decode, 6),
                "decode_seconds_per_token_generate": round(decode_generate, 6),
                "decode_speedup": round(decode_generate / decode, 3),
                "processor_seconds": round(worked, 5),
                "processor_seconds_generate": round(worked_generate, 5),
                "processor_speedup": round(worked_generate / worked, 3),
                "batch": arguments.batch,
                "decode_seconds_per_batch_step": step and round(step, 6),
            }
        )
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
