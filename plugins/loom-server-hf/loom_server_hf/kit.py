"""What this server gives loom_kv's test kit: its models, its engine, and transformers' own cache to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from loom_kv import Merge, Picker, Policy
from loom_kv.testing import Kit, Oracle
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from loom_core.api import installed
from loom_server_hf.engine import Engine, Row, RowResult
from loom_server_hf.host import attached
from loom_server_hf.loading import no_progress_bar
from loom_server_hf.masked import masked_dense
from loom_server_hf.picking import PickingEngine, pick
from loom_server_hf.prefix import Prefix
from loom_server_hf.shared import may_share, read


class HFHost:
    """See `loom_kv.testing.Host`."""

    def toy_model(self, kind: str, dtype: torch.dtype, *, seed: int, query_heads: int) -> Any:
        """See `Host.toy_model`."""
        values: dict[str, Any] = {
            "vocab_size": 256,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": query_heads,
            "num_key_value_heads": query_heads if kind == "mha" else 2,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        }
        torch.manual_seed(seed)
        config = Qwen3Config(**values) if kind == "qwen3" else LlamaConfig(**values)
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # At the usual scale attention is flat, every score ties, and nothing is tested.
                if parameter.dim() == 2:
                    parameter.mul_(6.0)
                elif name.endswith(("q_norm.weight", "k_norm.weight")):
                    # Uneven weights: with equal ones every key has the same norm, and methods that rank by it see ties.
                    parameter.mul_(1.0 + 2.0 * torch.rand(parameter.shape))
        return model.to(dtype).eval()

    def embedded(self) -> Sequence[tuple[str, Any]]:
        """See `Host.embedded`."""
        models = []
        for found in installed().models:
            if found.spec.server == "hf":
                with no_progress_bar():
                    models.append((found.spec.name, self.load(installed().load(found)())))
        return models

    def load(self, folder: Path) -> Any:
        """See `Host.load`."""
        auto: Any = AutoModelForCausalLM
        return auto.from_pretrained(str(folder), dtype=torch.float32).eval()

    def engine(self, model: Any) -> Engine:
        """See `Host.engine`."""
        return Engine(model)

    def attached(self, model: Any) -> AbstractContextManager[None]:
        """See `Host.attached`."""
        return attached(model)

    def answers(
        self, engine: Any, prompts: Sequence[Sequence[int]], lengths: Sequence[int], method: Policy | Picker | None
    ) -> Mapping[int, RowResult]:
        """See `Host.answers`."""
        rows = [
            Row(ids=tuple(ids), max_tokens=length, seed=100 + len(ids), eos_ids=frozenset())
            for ids, length in zip(prompts, lengths, strict=True)
        ]
        if isinstance(method, Picker):
            return dict(PickingEngine(engine, method).run(rows, None))
        return dict(engine.run(rows, method))

    def masked_dense(
        self,
        model: Any,
        prompt: Sequence[int],
        kept: Sequence[Any],
        tokens: Sequence[Tensor],
        merges: Sequence[Merge | None] = (),
        held: Sequence[Any] = (),
    ) -> Tensor:
        """See `Host.masked_dense`."""
        return masked_dense(model, prompt, kept, tokens, merges, held)

    def read(self, engine: Any, ids: Sequence[int]) -> Prefix:
        """See `Host.read`."""
        return read(engine, ids)

    def may_share(self, engine: Any, policy: Policy, n_tokens: int) -> bool:
        """See `Host.may_share`."""
        return may_share(engine, policy, n_tokens)

    def pick(self, engine: Any, picker: Picker, ids: Sequence[int]) -> list[int]:
        """See `Host.pick`."""
        return pick(engine, picker, ids)


check = Kit(HFHost())
oracle = Oracle(check.host)
