"""The rules that a picker is held to: tokens in order, as many as asked, the same again, dense where all fit.

Called by the kit with its models. Knows the rules; no method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from loom_kit import Row

from loom_core.api import Budget
from loom_server_hf.conformance import toy_prompts
from loom_server_hf.engine import Engine, Row as Prompt
from loom_server_hf.kv.picker import Picker
from loom_server_hf.picking import PickingEngine, pick

LENGTHS, BUDGET = (97, 150), 48


def check_picker(name: str, picker: Picker, models: Sequence[tuple[str, Any]]) -> Iterator[Row]:
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
        engine = Engine(model)
        prompts = toy_prompts(list(LENGTHS), int(model.get_input_embeddings().weight.shape[0]))
        for ids in prompts:
            places = pick(engine, made, ids)
            if places != sorted(set(places)) or len(places) != BUDGET or not 0 <= places[0] <= places[-1] < len(ids):
                found["picks in order, as many as asked"].append(f"{label}: {len(places)} of {len(ids)} tokens")
            if pick(engine, made, ids) != places:
                found["U8 the same again"].append(label)
        rows = [Prompt(ids=tuple(ids), max_tokens=6, seed=0, eos_ids=frozenset()) for ids in prompts]
        dense = {index: result.token_ids for index, result in engine.run(rows, None)}
        if {index: result.token_ids for index, result in PickingEngine(engine, whole).run(rows, None)} != dense:
            found["U1 all tokens = dense"].append(label)
    for rule, wrong in found.items():
        yield Row(name, rule, not wrong, "; ".join(wrong))
    yield Row(name, "U3 recorded results", True, "loom check --oracle FOLDER", checked=False)
