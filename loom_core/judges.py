"""The judge that a run names, `SERVER:MODEL`: any model on any server, with their options. Loads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from loom_core.contracts import ModelCard, Server
from loom_core.errors import UsageError
from loom_core.options import build, identity
from loom_core.plugins import Catalog, Found
from loom_core.specs import ServerSpec
from loom_core.types import Json


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """The judge that a config names: a model on a server, with their options."""

    text: str
    server: Found[ServerSpec]
    server_options: Any
    model: str
    model_options: Any

    def open_server(self, catalog: Catalog) -> Server:
        """The server, built with its options."""
        server: Server = catalog.make(self.server, self.server_options)
        return server

    def identity(self, card: ModelCard) -> dict[str, Json]:
        """What of the judge enters the key of a call."""
        return {
            "digest": card.digest,
            "template": card.tokenizer.template_digest if card.tokenizer else None,
            "server": [self.server.spec.name, self.server.spec.version],
            "model_options": identity(self.model_options),
            "server_options": identity(self.server_options),
        }


def parse_judge(text: str | None, given: Mapping[str, str], catalog: Catalog) -> JudgeChoice | None:
    """The judge `SERVER:MODEL` with its options; None where there is none. Raises UsageError for what is unknown or out
    of range. given: options of the server by their names; what the server does not have is for the model.
    """
    if text is None:
        if given:
            raise UsageError("a judge's options without a judge", where="--judge-option", hint="add --judge")
        return None
    name, colon, model = text.partition(":")
    if not colon or not model:
        raise UsageError(
            "a judge is a model on a server", where=text, hint="--judge SERVER:MODEL, e.g. --judge api:NAME"
        )
    server = catalog.servers.get(name)
    ours = {f.name for f in fields(server.spec.options)}
    return JudgeChoice(
        text=text,
        server=server,
        server_options=build(
            server.spec.options, {k: v for k, v in given.items() if k in ours}, owner=f"judge's server {name}"
        ),
        model=str(catalog.make(catalog.models.get(model))) if model in catalog.models else model,
        model_options=build(
            server.spec.model_options,
            {k: v for k, v in given.items() if k not in ours},
            owner=f"judge's model on server {name}",
        ),
    )
