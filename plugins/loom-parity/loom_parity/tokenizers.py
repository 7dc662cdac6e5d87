"""The tokenizers by which both sides of a comparison are asked for prompts. Knows no benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loom_core.contract.options import build
from loom_core.contract.protocols import Server, Tokenizer
from loom_core.doubles.server import ToyTokenizer, WordTokenizer
from loom_core.registry.plugins import installed


def embedded_tokenizer() -> Tokenizer | None:
    """The tokenizer of loom-tiny; None where it or the server that reads it is not installed."""
    catalog = installed()
    if "loom-tiny" not in catalog.models or "hf" not in catalog.servers:
        return None
    spec = catalog.servers.get("hf")
    folder = str(catalog.load(catalog.models.get("loom-tiny"))())
    server: Server = catalog.load(spec)(build(spec.spec.options, {}, owner="server hf"))
    return server.describe(folder, build(spec.spec.model_options, {}, owner="server hf")).tokenizer


TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "bytes": ToyTokenizer,
    "words": WordTokenizer,
    "loom-tiny": embedded_tokenizer,
}
"""By name, each made again. bytes and words are doubles: the first puts a token in front and is cut inside characters,
the second gives every text back as it was. loom-tiny is the embedded model's byte-level BPE, None where it is not
installed."""
