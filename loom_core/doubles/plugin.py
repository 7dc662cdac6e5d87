"""Registers the test doubles: a server that answers by rule, and the toy model it runs. Imports only loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.options import option
from loom_core.contract.specs import ModelSpec, ServerSpec


@dataclass(frozen=True)
class DoubleOptions:
    """How the double answers and how it misbehaves."""

    answers: Literal["oracle", "null", "echo"] = option(
        "oracle", help="oracle: a reference; null: nothing; echo: the prompt's last words"
    )
    script: str | None = option(
        None,
        help='JSON lines of {"if": text in the prompt, "say": answer or "fail": reason}; the first that fits',
        reach=True,
    )
    errors: float = option(
        0.0, low=0.0, high=1.0, help="share of requests that fail, drawn independently in each process"
    )
    seconds: float = option(0.0, low=0.0, help="seconds that each answer takes", how=True)
    die_after: int | None = option(None, low=1, help="the worker kills itself after this many answers", how=True)
    batch: int = option(64, low=1, help="requests taken at a time", how=True)


@dataclass(frozen=True)
class ToyModelOptions:
    """The toy model."""

    window: int = option(1 << 22, low=1, help="most tokens of prompt and answer; a token is a byte")


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The double."""
    return (
        ServerSpec(
            name="double",
            version="1",
            summary="test double: answers by rule (oracle, null, echo), fails or dies on demand; runs no model",
            factory="loom_core.doubles.server:DoubleServer",
            capabilities=frozenset({"token_ids", "references"}),
            options=DoubleOptions,
            model_options=ToyModelOptions,
        ),
    )


@hookimpl
def loom_models() -> Sequence[ModelSpec]:
    """The toy model of the double."""
    return (
        ModelSpec(
            name="toy",
            version="1",
            summary="no model: the bytes of the prompt, for the double server",
            factory="loom_core.doubles.server:toy_model",
            server="double",
        ),
    )
