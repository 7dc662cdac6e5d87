"""Every installed codec, alone and behind SnapKV, on every model, number format and check: one matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loom_kv import Policy
from loom_kv.testing import CODEC_CHECKS, CodecSubject, c7_groups, toy_model, toy_prompts
from loom_server_hf.session import load_policy

from loom_core.api import Budget, installed, parse_arms

ARMS = (
    "kivi:bits=2,group=16,window=32",
    "flexgen:group=16",
    "think:ratio=0.4,recent=16,window=16",
    "think:ratio=0.5,recent=0,window=100",
    "snapkv:window=8,budget={B}+kivi:bits=4,group=8,window=16",
    "snapkv:window=8,budget={B}+think:ratio=0.4,recent=16",
    "pyramidkv:window=8,budget={B}+flexgen:group=8",
    "tova:form=prefill,budget={B}+kivi:bits=2,group=16,window=16",
)
CASES = [
    pytest.param(kind, dtype, id=f"{kind}-{label}")
    for kind in ("llama", "qwen3", "mha")
    for dtype, label in ((torch.float32, "fp32"), (torch.bfloat16, "bf16"))
]


def maker(arm: str) -> Callable[[Budget], Policy]:
    """A function from a budget to the method of an arm; {B} stands for the budget."""

    def make(budget: Budget) -> Policy:
        policy: Policy = load_policy(parse_arms([arm.replace("{B}", str(budget))], installed())[-1])
        return policy

    return make


@functools.cache
def subject(arm: str, kind: str, dtype: torch.dtype) -> CodecSubject:
    """An arm on a toy model, with three prompts of unequal length."""
    model: Any = toy_model(kind, dtype)
    return CodecSubject(model, maker(arm), toy_prompts((97, 150, 64), 256), Budget(tokens=48))


@pytest.mark.parametrize(("kind", "dtype"), CASES)
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("check", CODEC_CHECKS)
def test_codec(check: str, arm: str, kind: str, dtype: torch.dtype) -> None:
    CODEC_CHECKS[check](subject(arm, kind, dtype))


@pytest.mark.parametrize("arm", ARMS)
def test_equal_heads_in_a_group_hold_the_same(arm: str) -> None:
    c7_groups(maker(arm), Budget(tokens=48), toy_prompts((90,), 128)[0])
