"""Registers the code metric and its options. Imports nothing but loom_core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import MetricSpec, hookimpl, option


@dataclass(frozen=True)
class CodeOptions:
    """Whether code is run at all, and within which limits."""

    run: bool = option(False, help="run the code that models write; without it there is no value", reach=True)
    confine: Literal["kernel", "audit"] = option(
        "kernel",
        help="kernel: system-call filter and Landlock (Linux); audit: Python's hooks, which hostile code gets around",
    )
    seconds: float = option(10.0, low=0.1, high=3600, help="wall-clock seconds, and processor seconds")
    memory_mib: int = option(512, low=64, help="address space of each of two processes, MiB")


@hookimpl
def loom_metrics() -> Sequence[MetricSpec]:
    """One answer's code passes its tests, or not; pass@k is formed over repeats (`tables.pass_at_k_line`)."""
    return (
        MetricSpec(
            name="code_passes",
            version="2",
            summary="1 where the code passes its tests in a confined process; off unless code.run=true",
            factory="loom_metric_code.passes:CodePasses",
            options=CodeOptions,
        ),
    )
