"""Every installed KV-cache method, and the dense engine, on every model, number format and check: one matrix."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loom_kv import Picker, Policy
from loom_kv.testing import CHECKS, Subject, toy_model, toy_prompts, u7_groups, u9_context_only, u9_prefix
from transformers import AutoModelForCausalLM

from loom_core.api import AugmentationSpec, Budget, Found, installed

SHARED = Path(os.environ.get("LOOM_SHARED", Path(__file__).parents[4] / "shared"))
BUDGET = Budget(tokens=48)
MODELS = ("toy-llama", "toy-qwen3", "toy-mha", "oracle-llama", "oracle-qwen3", "oracle-mha")
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "adakv": (
        {"window": 8},
        {"window": 8, "rule": "kvpress", "floor": 0.0, "pooling": "avg"},
        {"base": "expected-attention", "rule": "kvpress", "epsilon": 0.01},
    ),
    "cakekv": ({"window": 8}, {"window": 16, "gamma": 5.0, "tau1": 1.6, "tau2": 0.4, "cascading": False}),
    "cam": (
        {"coin": "draw"},
        {"coin": "always", "form": "qa", "receivers": 8},
        {"coin": "expected", "host": "h2o", "recent": 20, "stride": 3},
        {"coin": "never"},
    ),
    "h2o": (
        {},
        {"recent": 8, "stride": 4},
        {"form": "oneshot", "group": "max", "recent": 16},
    ),
    "l2compress": ({"skip_layers": "1"}, {"skip_layers": "none"}),
    "pyramidkv": (
        {"window": 8},
        {"window": 8, "kernel": 7, "pooling": "max", "beta": 5.0, "rule": "kvpress", "pool": "before"},
    ),
    "snapkv": (
        {"window": 8, "kernel": 5},
        {"window": 16, "kernel": 7, "pooling": "max", "pool": "after", "group": "max"},
    ),
    "streamingllm": ({"form": "evict"}, {"form": "streamed"}, {"form": "streamed", "positions": "original"}),
    "tova": ({}, {"form": "prefill"}),
}
"""Which options the matrix runs; a method that is not named here runs with its defaults."""


def policies() -> list[tuple[str, Found[AugmentationSpec], dict[str, Any]]]:
    """(id, method, options) of every installed policy; codecs, which have no budget, are in `test_kv_codecs`, and
    pickers, which choose no slots, bring tests of their own."""
    rows = []
    for found in installed().augmentations:
        budgeted = any(field.name == "budget" for field in dataclasses.fields(found.spec.options))
        factory = installed().load(found) if found.spec.kind == "model" else None
        picks = isinstance(factory, type) and issubclass(factory, Picker)
        if found.spec.kind == "model" and "local_model" in found.spec.requires and budgeted and not picks:
            for number, options in enumerate(VARIANTS.get(found.spec.name, ({},))):
                rows.append((f"{found.spec.name}{number}", found, options))
    return rows


POLICIES = policies()


def maker(found: Found[AugmentationSpec], options: dict[str, Any]) -> Callable[[Budget], Policy]:
    """A function from a budget to a fresh policy."""
    factory = installed().load(found)
    defaults = {"budget": Budget(tokens=100_000)}

    def make(budget: Budget) -> Policy:
        chosen = dataclasses.replace(found.spec.options(**defaults, **options), budget=budget)
        policy: Policy = factory(chosen)
        return policy

    return make


@functools.cache
def model(name: str, dtype: torch.dtype) -> Any:
    """A toy model, or one of the oracle's."""
    family, _, kind = name.partition("-")
    if family == "toy":
        return toy_model(kind, dtype)
    folder = SHARED / "oracle" / "models" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set LOOM_SHARED to the folder with the recorded models")
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(str(folder), dtype=dtype).eval()


@functools.cache
def subject(index: int, name: str, dtype: torch.dtype) -> Subject:
    """A method on a model, with three prompts of unequal length."""
    _, found, options = POLICIES[index]
    chosen = model(name, dtype)
    vocabulary = int(chosen.get_input_embeddings().weight.shape[0])
    return Subject(chosen, maker(found, options), toy_prompts((97, 150, 64), vocabulary), BUDGET)


FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
FIRST = [*((f"toy-{kind}", label) for kind in ("llama", "qwen3", "mha") for label in FORMATS), ("oracle-qwen3", "fp32")]
"""Where a method's first options run: every kind of model in both number formats, and a model of other sizes."""
FURTHER = [("toy-llama", "fp32"), ("toy-mha", "fp32"), ("toy-qwen3", "bf16")]
CASES = [
    pytest.param(index, name, FORMATS[label], id=f"{case}-{name}-{label}")
    for index, (case, _, _) in enumerate(POLICIES)
    for name, label in (FIRST if case.endswith("0") else FURTHER)
]


@pytest.mark.parametrize(("index", "name", "dtype"), CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_method(check: str, index: int, name: str, dtype: torch.dtype) -> None:
    CHECKS[check](subject(index, name, dtype))


@pytest.mark.parametrize(
    ("name", "dtype"), [("toy-llama", torch.float32), ("toy-mha", torch.float32), ("toy-qwen3", torch.bfloat16)]
)
@pytest.mark.parametrize("index", range(len(POLICIES)), ids=[row[0] for row in POLICIES])
@pytest.mark.parametrize("check", [u9_prefix, u9_context_only])
def test_shared_tokens(check: Callable[[Subject], None], index: int, name: str, dtype: torch.dtype) -> None:
    check(subject(index, name, dtype))


@pytest.mark.parametrize("index", range(len(POLICIES)), ids=[row[0] for row in POLICIES])
def test_equal_heads_in_a_group_choose_as_one(index: int) -> None:
    _, found, options = POLICIES[index]
    u7_groups(maker(found, options), BUDGET, toy_prompts((90,), 128)[0])


@pytest.mark.parametrize("name", MODELS)
def test_dense_in_batches_and_chunks(name: str) -> None:
    chosen = model(name, torch.float32)
    dense = Subject(chosen, lambda budget: None, toy_prompts((97, 150, 64), 128), BUDGET)  # type: ignore[arg-type,return-value]
    together = dense.run(dense.prompts, None, 40)
    for row, prompt in enumerate(dense.prompts):
        alone = dense.run([prompt], None)
        dense.agree(together.logits[row], alone.logits[0], f"row {row}")
        with torch.inference_mode():
            own = chosen(torch.tensor([prompt])).logits[0, -1]
        dense.agree(alone.logits[0, 0], own, "transformers")
