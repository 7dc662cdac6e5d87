"""Registers `chain-of-agents`: its options and what it promises. Imports only `loom_core`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loom_core.api import AugmentationSpec, hookimpl, option


@dataclass(frozen=True)
class ChainOfAgentsOptions:
    """How much each worker reads and writes, in tokens of the evaluated model."""

    window: int | None = option(
        None, help="most tokens of text a worker reads; none = what the model's window leaves", low=16
    )
    summary: int = option(256, help="most tokens of the summary that a worker hands on", low=1)


@hookimpl
def loom_augmentations() -> Sequence[AugmentationSpec]:
    """The strategy `chain-of-agents`."""
    return (
        AugmentationSpec(
            name="chain-of-agents",
            version="1",
            summary="windows read in turn, each with a summary of those before; a manager answers from the last",
            factory="loom_accel_chain_of_agents.strategy:ChainOfAgents",
            kind="strategy",
            options=ChainOfAgentsOptions,
            query_aware=True,
            phase="prompt",
            extends_context=True,
            source="Zhang et al. 2024, Chain of Agents: Large Language Models Collaborating on Long-Context Tasks, "
            "arXiv:2406.02818, algorithm 1; loom's own wording of the prompts",
        ),
    )
