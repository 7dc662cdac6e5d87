"""Model folders and hub models, read by the installed server that reads them itself: one reader for all servers.

An engine in another environment or behind HTTP then gets the same token ids, window and digest as any other. Loads no
weights. Knows no model format, but that of LoRA adapters, which every engine takes the same way.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from loom_core.contract.errors import ModelError
from loom_core.contract.keys import digest
from loom_core.contract.protocols import ModelCard, Tokenizer
from loom_core.contract.specs import ServerSpec
from loom_core.registry.plugins import Found, installed


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
            server = catalog.make(found, found.spec.options())
            if hasattr(server, "tokenizer"):
                return server, found
    raise ModelError(
        "no installed server reads a tokenizer",
        where=asked_by,
        why="this plugin brings no reader of models of its own",
        hint="pip install loom-server-hf (--no-deps is enough where transformers and jinja2 are there)",
    )


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter in a folder, as `peft` saves it. digest: of configuration and weights. rank: of its matrices."""

    path: str
    digest: str
    rank: int


def adapter(folder: str) -> Adapter:
    """The LoRA adapter in a folder. Raises ModelError where there is none, or it is of another kind."""
    path = Path(folder).expanduser().resolve()
    files = [path / "adapter_config.json", *sorted(path.glob("adapter_model.*"))]
    try:
        config = json.loads(files[0].read_text("utf-8"))
        content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    except (OSError, ValueError) as error:
        raise ModelError("the LoRA adapter cannot be read", where=folder, why=str(error)) from error
    kind, rank = config.get("peft_type"), config.get("r")
    if kind != "LORA" or not isinstance(rank, int) or len(files) < 2:
        why = f"peft_type is {kind!r}, r is {rank!r}, {len(files) - 1} weight file(s) named adapter_model.*"
        raise ModelError("not a LoRA adapter", where=folder, why=why, hint="a folder that peft's LoRA saved")
    return Adapter(str(path), digest(content), rank)


def with_adapter(card: ModelCard, found: Adapter | None) -> ModelCard:
    """The card of the model with the adapter on it: another model, by its digest."""
    if found is None:
        return card
    facts = {**card.facts, "lora": found.path, "lora_rank": found.rank, "lora_digest": found.digest}
    return replace(card, digest=digest([card.digest, found.digest]), facts=facts)
