"""Overrides of the rotary embedding, and the window they give. Works on plain dictionaries; knows no torch.

Scaling types whose frequencies depend on how long the input is (`dynamic`, and `longrope` beyond its first range)
change under chunked reading and with a batch's longest row. loom holds such models to the lengths at which their
frequencies stay fixed, and offers no such override.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loom_core.api import ModelError
from loom_server_hf.plugin import HFModelOptions

NO_ROPE_HINT = "leave the rope options out; this model encodes positions in another way"


@dataclass(frozen=True, slots=True)
class Positions:
    """What the options make of a model's positions.

    rope: the rotary parameters to load with; None = as configured. length: `max_position_embeddings` to load with;
    None = as configured. window: most tokens of prompt and answer; None = unknown. note: why it is held shorter.
    """

    rope: Mapping[str, Any] | None
    length: int | None
    window: int | None
    note: str = ""


def positions(
    name: str, configured: Mapping[str, Any] | None, window: int | None, options: HFModelOptions
) -> Positions:
    """What the options make of a model's rotary parameters and window.

    configured: `rope_parameters` of the configuration, None where it has none. window: `max_position_embeddings`.
    Raises ModelError for overrides that this model cannot take.
    """
    rope = _override(name, configured, window, options)
    limit, length, note = window, None, ""
    if options.rope_factor is not None and configured and window:
        limit = length = int(_trained(configured, window) * options.rope_factor)
    fixed = _fixed_up_to(configured if rope is None else rope, window)
    if fixed is not None and limit is not None:
        limit = min(limit, fixed)
        note = f"beyond {fixed} tokens its rotary frequencies depend on the length of the longest input of a batch"
    if options.window is None:
        return Positions(rope, length, limit, note)
    if limit is not None and options.window > limit and (fixed is not None or not configured):
        raise ModelError(
            f"window={options.window} is more than {name} can hold",
            why=note or f"it has learned positions for {limit} tokens",
            hint=f"window={limit} or less",
        )
    return Positions(rope, length, options.window, note)


def _override(
    name: str, configured: Mapping[str, Any] | None, window: int | None, options: HFModelOptions
) -> dict[str, Any] | None:
    """The rotary parameters to load with, or None where no option asks for a change."""
    if options.rope_theta is None and options.rope_type is None:
        return None
    if not configured:
        raise ModelError(f"{name} has no rotary embedding to override", hint=NO_ROPE_HINT)
    if any(isinstance(value, Mapping) for value in configured.values()):
        raise ModelError(
            f"{name} has a rotary embedding for each type of layer",
            why="one rope_theta or rope_type cannot mean all of them: " + ", ".join(configured),
            hint="edit rope_parameters in a copy of its config.json",
        )
    rope = dict(configured)
    if options.rope_type is not None:
        if window is None:
            raise ModelError(f"{name} does not say how long its window is", hint="rope_type needs a known window")
        kept = ("rope_theta", "partial_rotary_factor")
        rope = {key: configured[key] for key in kept if key in configured}
        rope |= {"rope_type": options.rope_type, "factor": options.rope_factor}
        if options.rope_type == "yarn":
            rope["original_max_position_embeddings"] = _trained(configured, window)
    if options.rope_theta is not None:
        rope["rope_theta"] = options.rope_theta
    return rope


def _trained(rope: Mapping[str, Any], window: int) -> int:
    """The length a model was trained at before any scaling of its own."""
    return int(rope.get("original_max_position_embeddings") or window)


def _fixed_up_to(rope: Mapping[str, Any] | None, window: int | None) -> int | None:
    """Up to how many tokens the frequencies do not depend on the length of the input; None = always the same."""
    if not rope or window is None:
        return None
    limits = []
    for group in [value for value in rope.values() if isinstance(value, Mapping)] or [rope]:
        kind = group.get("rope_type", group.get("type"))
        if kind == "dynamic":
            limits.append(window)
        elif kind == "longrope":
            limits.append(_trained(group, window))
    return min(limits, default=None)
