"""The engine beside kvpress, for the methods that both have, on one model. Prints JSON.

kvpress needs an older transformers, so it runs in an environment of its own: `python -m venv ELSEWHERE`, then
`ELSEWHERE/bin/pip install kvpress`. This script starts ELSEWHERE's Python, which measures its side round by round, so
that both take turns on the same weights, prompt, number format and threads. Held = bytes of all tensors that the cache
keeps after the prompt. kvpress attends with torch's sdpa and transformers' DynamicCache, the engine with its own.

    python perf/beside_kvpress.py --python ELSEWHERE/bin/python [--model FOLDER] [--length 4096] [--tokens 24]
                                  [--factor 4] [--rounds 5]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ARMS = {
    "l2compress": "l2compress:budget={}x,skip_layers=none",
    "snapkv": "snapkv:budget={}x",
    "streamingllm": "streamingllm:budget={}x,form=evict",
    "tova": "tova:budget={}x,form=prefill",
    "adakv": "adakv:budget={}x,rule=kvpress,pooling=avg,kernel=5",
    "think": "think",
}
"""The engine's arm for each method, with the options that kvpress has."""


def presses(factor: float) -> dict[str, Any]:
    """kvpress's side of `ARMS`; called in its environment only."""
    kvpress: Any = importlib.import_module("kvpress")

    ratio = 1 - 1 / factor
    return {
        "l2compress": kvpress.KnormPress(ratio),
        "snapkv": kvpress.SnapKVPress(ratio, window_size=32),
        "streamingllm": kvpress.StreamingLLMPress(ratio),
        "tova": kvpress.TOVAPress(ratio),
        "adakv": kvpress.AdaKVPress(kvpress.SnapKVPress(ratio, window_size=32)),
        "think": kvpress.ThinKPress(key_channel_compression_ratio=0.4, window_size=32),
    }


@torch.inference_mode()
def measure_press(model: Any, press: Any, ids: torch.Tensor, tokens: int) -> dict[str, float]:
    """Wall and processor seconds of prefill and of a further token; bytes held after the prompt."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    clock = [(time.perf_counter(), time.process_time())]
    with press(model):
        logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
        token = logits[:, -1:].argmax(-1)
        clock.append((time.perf_counter(), time.process_time()))
        storages = [x.untyped_storage() for layer in cache.layers for x in (layer.keys, layer.values)]
        held = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
        for step in range(tokens - 1):
            positions = torch.full_like(token, ids.shape[1] + step)
            logits = model(token, past_key_values=cache, position_ids=positions).logits
            token = logits[:, -1:].argmax(-1)
        clock.append((time.perf_counter(), time.process_time()))
    (start, start_worked), (first, first_worked), (end, end_worked) = clock
    return {
        "prefill_seconds": first - start,
        "decode_seconds": (end - first) / (tokens - 1),
        "prefill_processor_seconds": first_worked - start_worked,
        "decode_processor_seconds": (end_worked - first_worked) / (tokens - 1),
        "held_bytes": held,
    }


def serve_presses(arguments: argparse.Namespace) -> None:
    """kvpress's side: one round for each line that comes in, as one line of JSON."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = prompt(arguments, model)
    for _ in sys.stdin:
        measured = {
            name: measure_press(model, press, ids, arguments.tokens)
            for name, press in presses(arguments.factor).items()
        }
        print(json.dumps(measured), flush=True)


def prompt(arguments: argparse.Namespace, model: Any) -> torch.Tensor:
    """The same random ids on both sides."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(arguments.length)
    return torch.randint(10, vocabulary, (1, arguments.length), generator=draw)


def script(name: str) -> Any:
    """A neighbouring script as a module."""
    spec = importlib.util.spec_from_file_location(f"perf_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="Python of the environment that has kvpress")
    parser.add_argument("--model", help="a folder; the embedded model by default")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--factor", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--presses", action="store_true", help="kvpress's side; started by the script itself")
    return parser.parse_args()


def rounds(arguments: argparse.Namespace) -> tuple[list[Any], list[Any], str]:
    """What both sides measured, round by round, taking turns; and kvpress's versions."""
    from loom_server_hf.engine import Engine

    from loom_core.api import installed, parse_arms

    measuring, methods = script("engine"), script("methods")
    engine = Engine(
        measuring.load(argparse.Namespace(model=arguments.model, random_millions=0, dtype="float32", device="cpu"))
    )
    ids = prompt(arguments, engine.model)
    arms = dict(
        zip(
            ARMS,
            parse_arms([text.format(f"{arguments.factor:g}") for text in ARMS.values()], installed())[1:],
            strict=True,
        )
    )
    told = ("length", "tokens", "factor", "threads", "model")
    command = [arguments.python, __file__, "--presses"]
    command += [part for name in told for part in (f"--{name}", str(getattr(arguments, name)))]
    ours, theirs = [], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        for _ in range(arguments.rounds + 1):
            other.stdin.write("go\n")
            other.stdin.flush()
            theirs.append(json.loads(other.stdout.readline()))
            ours.append(
                {
                    name: measuring.measure_engine(engine, ids, arguments.tokens, methods.policy_of(arm))
                    | {"held_bytes": methods.watch(engine, ids, arm)["held_bytes"]}
                    for name, arm in arms.items()
                }
            )
        other.stdin.close()
    what = (
        "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('kvpress', 'transformers', 'torch')))"
    )
    version = subprocess.run([arguments.python, "-c", what], capture_output=True, text=True, check=True).stdout.strip()
    return ours, theirs, version


def main() -> None:
    """Measure and print one JSON object."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    if arguments.presses:
        serve_presses(arguments)
        return
    if arguments.python is None:
        raise SystemExit("--python is missing: a Python that has kvpress, in an environment of its own (see --help)")
    if arguments.model is None:
        import loom_model_tiny

        arguments.model = str(loom_model_tiny.path())
    ours, theirs, version = rounds(arguments)
    rows = []
    for name, arm in ARMS.items():
        row: dict[str, Any] = {"arm": arm.format(f"{arguments.factor:g}")}
        for key in ours[0][name]:
            mine, other = (statistics.median(measured[name][key] for measured in side[1:]) for side in (ours, theirs))
            row |= {
                key: float(f"{mine:.5g}"),
                f"{key}_kvpress": float(f"{other:.5g}"),
                f"{key}_ratio": round(other / mine, 3),
            }
        rows.append(row)
    told = {name: getattr(arguments, name) for name in ("length", "tokens", "rounds", "threads")}
    print(json.dumps({"beside": version, **told, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
