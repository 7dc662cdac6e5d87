"""Model folders and hub models, read by the installed server that reads them itself: one reader for all servers.

An engine in another environment or behind HTTP then gets the same token ids, window and digest as any other. Loads no
weights; knows no model format.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from loom_core.contracts import ModelCard, Tokenizer
from loom_core.errors import ModelError
from loom_core.plugins import Found, installed
from loom_core.specs import ServerSpec


def tokenizer(name: str, *, asked_by: str) -> Tokenizer:
    """The tokenizer of a model folder or hub id. Raises ModelError where no installed server reads one."""
    server, _ = _reader(asked_by)
    found: Tokenizer = server.tokenizer(name)
    return found


def model_card(name: str, *, asked_by: str, **options: Any) -> ModelCard:
    """The card of a model folder or hub id. options: those of the reader's model options that are not None.

    Raises ModelError where no installed server reads models, or the reader has no such option.
    """
    server, found = _reader(asked_by)
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := given.keys() - {f.name for f in fields(found.spec.model_options)}:
        raise ModelError(
            f"the reader of models, server {found.spec.name}, has no option {', '.join(sorted(unknown))}",
            where=asked_by,
            hint="install versions of the two plugins that belong together",
        )
    card: ModelCard = server.describe(name, found.spec.model_options(**given))
    return card


def _reader(asked_by: str) -> tuple[Any, Found[ServerSpec]]:
    catalog = installed()
    for found in catalog.servers:
        if "local_model" in found.spec.capabilities:
            server = catalog.load(found)(found.spec.options())
            if hasattr(server, "tokenizer"):
                return server, found
    raise ModelError(
        "no installed server reads a tokenizer",
        where=asked_by,
        why="this plugin brings no reader of models of its own",
        hint="pip install loom-server-hf (--no-deps is enough where transformers and jinja2 are there)",
    )
