"""What the test kit asks of the server that hosts KV-cache methods, and which installed one it uses. Knows no server.

A server registers a `Kit` (as its spec's `kit`) and an `Oracle` (as its spec's `oracle`), each made with its host.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from loom_core.api import KVUse, LoomError, UsageError, installed, resolve
from loom_kv.picker import Picker
from loom_kv.policy import Policy
from loom_kv.session import Session
from loom_kv.views import Geometry, Merge


class Batch(Protocol):
    """One left-padded batch that is driven by hand, on a model that is `attached`."""

    session: Session
    ids: Tensor
    device: torch.device

    def prefill(self) -> tuple[Tensor, dict[int, LoomError]]:
        """Read the prompts: logits [b, V] of their last tokens, and the rows that failed."""

    def feed(self, ids: Tensor) -> Tensor:
        """Continue each row with ids [b, n]: logits [b, V] of the last one."""

    def fork(self, rows: int) -> Batch:
        """A batch of `rows` rows that all continue this one's only row; this one stays as it is."""


class Engine(Protocol):
    """A model that can be attached. Making one raises ModelError where the model breaks a rule of the host."""

    model: Any

    @property
    def geometry(self) -> Geometry:
        """The shape of the model's keys and values."""

    def start(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], policy: Policy | None, **options: Any
    ) -> Batch:
        """A batch. options: chunk (prompt tokens of a forward pass), prefix (as `Host.read` gives it), repeat_heads."""


class Answer(Protocol):
    """What a row of a batch was answered."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Generated, with the end-of-sequence token."""

    @property
    def kv(self) -> KVUse:
        """Measured at the end of the prompt."""

    @property
    def error(self) -> str | None:
        """Why there is no answer."""


class Host(Protocol):
    """A server's seams. engine: anything that `engine` has returned."""

    def __hash__(self) -> int:
        """Models that the kit makes are kept for each host."""

    def toy_model(self, kind: str, dtype: torch.dtype, *, seed: int, query_heads: int) -> Any:
        """A tiny random model with peaked attention: "llama" and "qwen3" (two KV heads), "mha" (one each)."""

    def embedded(self) -> Sequence[tuple[str, Any]]:
        """Names and models of the installed embedded models that this server runs, in float32."""

    def load(self, folder: Path) -> Any:
        """The model in a folder, in float32, ready to be asked."""

    def engine(self, model: Any) -> Engine:
        """The model, examined. Raises ModelError where it breaks a rule of the host."""

    def attached(self, model: Any) -> AbstractContextManager[None]:
        """While it is open the model attends through the host; afterwards it is as it was."""

    def answers(
        self, engine: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int], method: Policy | Picker | None
    ) -> Mapping[int, Answer]:
        """A batch answered greedily, `lengths` tokens each, no end token; a row's seed is 100 + its prompt's length."""

    def masked_dense(
        self,
        model: Any,
        prompt: Sequence[int],
        kept: Sequence[Any],
        tokens: Sequence[Tensor],
        merges: Sequence[Merge | None] = (),
        held: Sequence[Any] = (),
    ) -> Tensor:
        """Logits [1 + steps, V] of a cache that is not loom's, with what was evicted hidden from an eager softmax.

        kept[step][layer][head]: what each token of `tokens` sees beside itself; merges: of each step and layer, if any.
        held[step][layer]: keys and values [h, S, d] of these slots, where a codec has changed them.
        """

    def read(self, engine: Any, ids: Sequence[int]) -> Any:
        """A prefix, read dense, that several prompts may continue: the option `prefix` of `Engine.start`."""

    def may_share(self, engine: Any, policy: Policy, n_tokens: int) -> bool:
        """True if prompts of up to `n_tokens` tokens may continue a prefix that was read without this policy."""

    def pick(self, engine: Any, picker: Picker, ids: Sequence[int]) -> list[int]:
        """The positions of the prompt that the picker chooses, in order."""


@dataclass(frozen=True)
class OnHost:
    """What a server registers of this kit; it says which host runs the checks."""

    host: Host


@functools.cache
def installed_host() -> Host:
    """The host of the first installed server that registers this kit. Raises UsageError where there is none."""
    for found in installed().servers:
        if found.spec.kit and isinstance(kit := resolve(found.spec.kit), OnHost):
            return kit.host
    raise UsageError(
        "no installed server hosts KV-cache methods",
        why="the checks run methods on a server's models",
        hint="pip install loom-server-hf",
    )
