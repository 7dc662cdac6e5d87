"""Registers the server `elsewhere`: answers that were not made by loom (`loom score --answers`). It asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.keys import digest
from loom_core.contract.options import build, option
from loom_core.contract.protocols import ModelCard, Session, Tokenizer
from loom_core.contract.specs import ServerSpec
from loom_core.contract.types import Arm, Request, Response
from loom_core.registry.plugins import installed
from loom_core.serving.answering import failure

CAPABILITY = "given_answers"
"""What marks a server whose answers loom did not make."""
READER = "hf"
"""The server that reads the tokenizer of a model's folder."""


@dataclass(frozen=True)
class ElsewhereOptions:
    """Which answers they are."""

    file: str = option("", help="name of the file that was read", how=True)
    sha256: str = option("", help="sha256 of that file: other answers are another run")
    tokenizer: str = option(
        "", help="a model whose tokenizer makes the questions; its weights are not read", reach=True
    )


class Elsewhere:
    """Knows a model by its name alone; what is asked of it fails."""

    def __init__(self, options: ElsewhereOptions) -> None:
        self._options = options
        self.card = ModelCard(name="", path="", digest="", window=None, tokenizer=None)

    def describe(self, model: str, options: Any) -> ModelCard:
        """A card without window: nothing is known of the model but its name, and a tokenizer where one was named."""
        name = self._options.tokenizer
        tokenizer = _tokenizer(name) if name else None
        return ModelCard(name=model, path=model, digest=digest(["elsewhere", model]), window=None, tokenizer=tokenizer)

    def open(self, model: str, options: Any) -> AbstractContextManager[Session]:
        """Itself."""
        return nullcontext(self)

    def generate(self, requests: Iterator[Request], arm: Arm) -> Iterator[Response]:
        """An error for each: no answer was given."""
        for request in requests:
            yield failure(request, "no answer was given for this question", n_in=0, queued=0.0, started=0.0)


def _tokenizer(name: str) -> Tokenizer | None:
    """The tokenizer of an installed model, by its own server, or of a model's folder."""
    catalog = installed()
    model = catalog.models.get(name) if name in catalog.models else None
    found = catalog.servers.get(model.spec.server if model else READER)
    server = catalog.make(found, build(found.spec.options, {}, owner=f"server {found.spec.name}"))
    options = build(found.spec.model_options, {}, owner=f"model on server {found.spec.name}")
    card: ModelCard = server.describe(str(catalog.make(model)) if model else name, options)
    return card.tokenizer


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """One server."""
    return (
        ServerSpec(
            name="elsewhere",
            version="2",
            summary="answers that were not made by loom, read by loom score --answers; asks nobody",
            factory="loom_core.elsewhere:Elsewhere",
            capabilities=frozenset({CAPABILITY}),
            options=ElsewhereOptions,
        ),
    )
