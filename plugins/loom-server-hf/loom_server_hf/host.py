"""The host: one attention function for every method. Knows transformers' seams and loom_kv's session.

transformers gives two seams: the cache object that a layer hands its keys to, and the registered attention function
that sees the true q, k, v. loom's cache passes keys and values through and reports the logical length; the attention
function finds its session in a context variable and lets the layer's store append, attend and evict. The mask function
passes the padding mask on untouched: what is visible is decided by the store. Nothing of a model is patched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from loom_kv import Session
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache

from loom_core.api import ModelError

NAME = "loom"


class Attends(Protocol):
    """What may stand behind the attention function: a session's layers, or the model check's probe."""

    def attend(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, rest: dict[str, Any]
    ) -> Tensor:
        """[b, n, H, d] from q [b, H, n, d] and new k, v [b, h, n, d]."""


@dataclass(frozen=True, slots=True)
class Layers:
    """A session behind the attention function: each module is the layer that it says it is."""

    session: Session

    def attend(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, rest: dict[str, Any]
    ) -> Tensor:
        """See `Attends.attend`."""
        layer: int = module.layer_idx  # type: ignore[assignment]
        return self.session.attend(layer, q, k, v, scaling)


CURRENT: ContextVar[Attends | None] = ContextVar("loom_session", default=None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The registered attention function. Raises ModelError where no session of loom is running."""
    behind = CURRENT.get()
    if behind is None:
        raise ModelError(
            "the model is attached to loom's KV host, but no session of it is running",
            why="something called the model while a batch is being answered",
            hint="finish or close the running batch first",
        )
    return behind.attend(module, query, key, value, scaling, rest), None


def _mask(attention_mask: Tensor | None = None, **_: Any) -> Tensor | None:
    """The registered mask function: the padding mask as it came."""
    return attention_mask


@contextmanager
def attached(model: Any) -> Iterator[None]:
    """The model with loom's attention; afterwards every configuration has its own implementation back."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for config in list(configs.values()):
        for key in getattr(config, "sub_configs", {}):
            if (part := getattr(config, key, None)) is not None:
                configs[id(part)] = part
    before = [(config, getattr(config, "_attn_implementation_internal", None)) for config in configs.values()]
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


class PassThrough(Cache):
    """The cache object that the model sees: hands keys and values on; its length is logical and never shrinks."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.seen = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The new keys and values themselves; the store appends them."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen."""
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Logical columns and offset; loom's mask function ignores them."""
        return self.seen + query_length, 0


def forward(model: Any, behind: Attends, cache: PassThrough, ids: Tensor, positions: Tensor) -> Tensor:
    """One forward pass of ids [b, n] at positions [b, n]: logits of the last column [b, V]."""
    token = CURRENT.set(behind)
    try:
        out = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    finally:
        CURRENT.reset(token)
    cache.seen += ids.shape[1]
    logits: Tensor = out.logits[:, -1]
    return logits
