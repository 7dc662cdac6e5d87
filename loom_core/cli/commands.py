"""Core's own commands, in the order of a run."""

from __future__ import annotations

from collections.abc import Sequence

from loom_core.contract.specs import CommandSpec

SUMMARIES = {
    "run": "Run benchmarks on a model, or continue a run.",
    "plan": "Show what would run, what is refused and why.",
    "prompts": "Print the exact prompts that a run would ask.",
    "score": "Score the recorded answers of a run again.",
    "list": "List what is installed.",
    "info": "Describe one benchmark, server, augmentation, metric, model or suite.",
    "data": "Fetch, lock and verify pinned data files.",
    "doctor": "Show what is installed, and what is in the way.",
}


def own_commands() -> Sequence[CommandSpec]:
    """One module a command, of its name."""
    return [
        CommandSpec(name=name, summary=summary, factory=f"loom_core.cli.{name}:{name}{'_' if name == 'list' else ''}")
        for name, summary in SUMMARIES.items()
    ]
