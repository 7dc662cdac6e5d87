"""What this package registers: the server `hf`, and the honest baselines `random` and `truncate`.

Option classes and specs only; imports `loom_core`, never torch or transformers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import AugmentationSpec, Budget, ServerSpec, hookimpl, option
from loom_core.api.serving import TEMPLATE_HELP
from loom_server_hf.options import RandomOptions


@dataclass(frozen=True)
class HFServerOptions:
    """How the server works; nothing here changes an answer beyond floating-point rounding."""

    batch: int = option(8, help="most requests answered together; halved when memory runs out", low=1, how=True)
    prefill_chunk: int = option(2048, help="prompt tokens read in one forward pass", low=1, how=True)
    share_prefix: bool = option(
        True, help="read what several questions begin with once; false = every prompt whole", how=True
    )
    threads: int | None = option(
        None, help="CPU threads of torch; none = LOOM_THREADS, else torch's own choice", low=1, how=True
    )


@dataclass(frozen=True)
class HFModelOptions:
    """What is loaded. Every option but the device is part of the model's identity in keys and manifests."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number format of weights and cache; auto = the one the model was saved in"
    )
    device: str = option("auto", help="auto (a GPU where there is one), cpu, cuda or cuda:N", how=True)
    rope_theta: float | None = option(None, help="base of the rotary embedding; none = the model's own", low=1)
    rope_type: Literal["linear", "yarn"] | None = option(
        None, help="rotary scaling, replaces the model's own; needs rope_factor"
    )
    rope_factor: float | None = option(None, help="how many times longer the window becomes; needs rope_type", low=1)
    window: int | None = option(
        None, help="most tokens of prompt and answer; none = the configuration's, times rope_factor", low=1
    )
    lora: str | None = option(None, help="folder of a LoRA adapter, merged into the weights at loading")
    revision: str | None = option(None, help="branch, tag or commit of a hub model; none = main")
    template: str = option("", help=TEMPLATE_HELP, reach=True)
    trust_remote_code: bool = option(False, help="run Python code that comes with the model; read it first", reach=True)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device={self.device} is not one of auto, cpu, cuda, cuda:N")
        if (self.rope_type is None) != (self.rope_factor is None):
            raise ValueError("rope_type and rope_factor are given together or not at all")


@dataclass(frozen=True)
class TruncateOptions:
    """The `truncate` baseline: how long the whole prompt may be, template and question included."""

    budget: Budget = option(help="tokens kept of the prompt: 1024, 4x, 0.25")

    def __post_init__(self) -> None:
        if self.budget.bytes_ is not None:
            raise ValueError("a prompt has no bytes of keys and values; write the budget as tokens or as a ratio")


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `hf`."""
    return (
        ServerSpec(
            name="hf",
            version="2",
            summary="any causal language model of transformers, from a folder or the hub, with loom's own KV cache",
            factory="loom_server_hf.server:HFServer",
            capabilities=frozenset({"local_model", "token_ids", "device", "stream", "context_only"}),
            options=HFServerOptions,
            model_options=HFModelOptions,
            oracle="loom_server_hf.kit:oracle",
            kit="loom_server_hf.kit:check",
            status="never run on a GPU",
        ),
    )


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The baselines that every method is compared with."""
    return (
        AugmentationSpec(
            name="random",
            version="1",
            summary="baseline: keeps slots of the prompt drawn at random, separately for each layer and KV head",
            factory="loom_server_hf.baselines:RandomEviction",
            kind="model",
            options=RandomOptions,
            requires=frozenset({"local_model"}),
            saves="real",
            shares_prefix=True,
            source="loom: the floor of every eviction; a method that does not beat it chooses no better than chance",
        ),
        AugmentationSpec(
            name="truncate",
            version="1",
            summary="baseline: no cache compression; the middle of the context is cut until the prompt fits the budget",
            factory="loom_server_hf.truncate:Truncate",
            kind="prompt",
            options=TruncateOptions,
            saves="real",
            phase="prompt",
            source="loom: the plainest way to spend a budget of tokens; a method that does not beat it has no value",
        ),
    )
