"""How fast prompts are compressed: tokens of the context a second, for each compressor and rate. Prints JSON.

The scorers are the embedded loom-tiny (llmlingua, longllmlingua) and a one-layer random BERT over characters
(llmlingua2): the figures tell of loom's own work and of the machine, not of the authors' ones. Tokens are loom-tiny's.

    python perf/compression.py [--tokens 4096] [--rounds 3] [--rates 0.5,0.25,0.125]

Needs loom-accel-llmlingua, loom-bench-passkey, loom-server-hf and loom-model-tiny.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from loom_accel_llmlingua.toy import make_classifier

from loom_core.api import Prompt, build, installed, segment
from loom_core.api.serving import readers

SENTENCE = "On day {} nothing of note happened in the harbour town; the baker sold {} loaves before noon.\n"


def document(tokenizer: Any, tokens: int) -> Prompt:
    """A prompt whose context has about so many tokens."""
    each = len(tokenizer.encode(SENTENCE.format(100, 17)))
    text = "".join(SENTENCE.format(i, 7 * i % 97) for i in range(tokens // each))
    parts = (segment("instruction", "Read this.\n"), segment("context", text), segment("question", "What happened?"))
    return Prompt(segments=parts)


def measure(name: str, options: dict[str, str], source: Prompt, tokenizer: Any, rounds: int) -> dict[str, Any]:
    """Seconds and reached rate of one compressor, opened once; the first call is not counted."""
    catalog = installed()
    found = catalog.augmentations.get(name)
    compressor = catalog.load(found)(build(found.spec.options, options, owner=name))
    seconds = []
    with compressor.open(tokenizer):
        for number in range(rounds + 1):
            began = time.perf_counter()
            made = compressor.rewrite(source, tokenizer)
            if number:
                seconds.append(time.perf_counter() - began)
    took = statistics.median(seconds)
    return {
        "seconds": round(took, 3),
        "tokens_per_second": round(made.tokens_before / took),
        "read_by_the_scorer": made.read_tokens,
        "rate_reached": round(made.tokens_after / made.tokens_before, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", default="0.5,0.25,0.125")
    given = parser.parse_args()
    model = str(installed().load(installed().models.get("loom-tiny"))())
    tokenizer = readers.tokenizer(model, asked_by="perf/compression.py")
    source = document(tokenizer, given.tokens)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_classifier(Path(folder))
        for name in ("llmlingua", "longllmlingua", "llmlingua2"):
            for rate in given.rates.split(","):
                options = {"rate": rate} | ({"model": folder} if name == "llmlingua2" else {})
                rows[f"{name}:rate={rate}"] = measure(name, options, source, tokenizer, given.rounds)
    print(json.dumps({"context_tokens": len(tokenizer.encode(source.context)), "compressors": rows}, indent=1))


if __name__ == "__main__":
    main()
