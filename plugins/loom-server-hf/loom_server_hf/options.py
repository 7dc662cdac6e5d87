"""Options of the engine's built-in methods. Imports only `loom_core`, so that registering them stays light."""

from __future__ import annotations

from dataclasses import dataclass

from loom_core.api import Budget, option


@dataclass(frozen=True)
class RandomOptions:
    """The baseline `random`: keep slots drawn uniformly from the prompt, for each layer and KV head anew."""

    budget: Budget = option(Budget(tokens=2048), help="slots kept per KV head: 1024, 4x, 0.25, 64MiB")
    seed: int = option(0, help="mixed into the seed of each request", low=0)
