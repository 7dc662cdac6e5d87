"""A small causal model reading on: the loss of each next token, given what was kept so far. Knows tokens, no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


class Stream:
    """What was kept, as a KV cache. head: ids that always lead (a question); window: most tokens read at once.

    Where what was kept no longer fits the window, its older half is forgotten.
    """

    def __init__(self, model: Any, start: int, window: int, head: Sequence[int] = ()) -> None:
        self._model, self._window = model, window
        self._head = [start, *list(head)[-window // 4 :]]
        self._kept: list[int] = []
        self.read = 0
        self._rewind([])

    @torch.inference_mode()
    def losses(self, ids: Sequence[int]) -> Tensor:
        """-log p of each of these ids, float32 [n], given what was kept and the ids before; nothing is remembered."""
        self._make_room(len(ids))
        logits = self._forward(ids)
        self._cache.crop(-len(ids))
        before = torch.cat([self._last[None], logits[:-1]])
        target = torch.tensor(list(ids), device=logits.device)
        return torch.nn.functional.cross_entropy(before, target, reduction="none").cpu()

    @torch.inference_mode()
    def keep(self, ids: Sequence[int]) -> None:
        """Read these ids on."""
        if ids:
            self._make_room(len(ids))
            self._kept.extend(ids)
            self._last = self._forward(ids)[-1]

    def _make_room(self, n: int) -> None:
        room = self._window - len(self._head) - n
        if len(self._kept) > room:
            half = max(0, room) // 2
            self._rewind(self._kept[len(self._kept) - half :])

    @torch.inference_mode()
    def _rewind(self, kept: Sequence[int]) -> None:
        self._cache = DynamicCache()
        self._kept = list(kept)
        self._last = self._forward([*self._head, *self._kept])[-1]

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        """Float32 logits [n, V] of these ids behind the cache, which grows by them."""
        self.read += len(ids)
        rows = torch.tensor([list(ids)], device=self._model.device)
        out = self._model(input_ids=rows, past_key_values=self._cache, use_cache=True)
        logits: Tensor = out.logits[0].float()
        return logits
