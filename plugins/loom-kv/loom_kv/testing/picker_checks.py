"""The rules that a picker is held to: tokens in order, as many as asked, the same again, dense where all fit.

Called by the kit with its models. Knows the rules; no method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from loom_kit import Row

from loom_core.api import Budget
from loom_kv.picker import Picker
from loom_kv.testing.host import Host
from loom_kv.testing.subject import toy_prompts

LENGTHS, BUDGET, ANSWER = (97, 150), 48, 6


def check_picker(name: str, picker: Picker, models: Sequence[tuple[str, Any]], host: Host) -> Iterator[Row]:
    """One row for each rule, on every model."""
    made, whole = (
        type(picker)(replace(picker.options, budget=Budget(tokens=tokens))) for tokens in (BUDGET, max(LENGTHS))
    )
    found: dict[str, list[str]] = {
        "U1 all tokens = dense": [],
        "U8 the same again": [],
        "picks in order, as many as asked": [],
    }
    for label, model in models:
        engine = host.engine(model)
        prompts = toy_prompts(list(LENGTHS), int(model.get_input_embeddings().weight.shape[0]))
        for ids in prompts:
            places = host.pick(engine, made, ids)
            if places != sorted(set(places)) or len(places) != BUDGET or not 0 <= places[0] <= places[-1] < len(ids):
                found["picks in order, as many as asked"].append(f"{label}: {len(places)} of {len(ids)} tokens")
            if host.pick(engine, made, ids) != places:
                found["U8 the same again"].append(label)
        dense, picked = (
            {index: answer.token_ids for index, answer in host.answers(engine, prompts, [ANSWER] * 2, method).items()}
            for method in (None, whole)
        )
        if picked != dense:
            found["U1 all tokens = dense"].append(label)
    for rule, wrong in found.items():
        yield Row(name, rule, not wrong, "; ".join(wrong))
    yield Row(name, "U3 recorded results", True, "loom check --oracle FOLDER", checked=False)
