"""FlexGen's cache compression against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_flexgen.method import FlexGen
from loom_accel_flexgen.oracle import options as oracle_options
from loom_accel_flexgen.plugin import FlexGenOptions, loom_augmentations
from loom_kv import compose
from loom_kv.testing import toy_model, toy_prompts
from loom_server_hf.engine import Engine
from loom_server_hf.host import attached

from loom_core.api import ModelError, UsageError, build


def engine() -> Engine:
    return Engine(toy_model("llama"))


def test_scale_codes_and_values_equal_the_definition() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 5, 16)
    form = FlexGen(FlexGenOptions(group=8)).keys
    packed = form.encode(x)
    for token in range(5):
        for group in range(2):
            part = x[0, 0, token, 8 * group : 8 * group + 8]
            scale = 15 / (part.max() - part.min())
            codes = ((part - part.min()) * scale).round()
            lines = packed.codes[0, 0, token, 4 * group : 4 * group + 4].tolist()
            assert lines == [int(16 * codes[i] + codes[i + 1]) for i in (0, 2, 4, 6)]
            assert packed.scale[0, 0, token, group] == scale
            values = form.decode(packed)[0, 0, token, 8 * group : 8 * group + 8]
            torch.testing.assert_close(values, codes / scale + part.min())


def test_every_token_is_quantised_and_only_once() -> None:
    own = engine()
    with attached(own.model):
        batch = own.start(toy_prompts((60,), 256), [0], compose([FlexGen(FlexGenOptions(group=16))]))
        batch.prefill()
        store: Any = batch.session.stores[0]
        first = store.keys.held.codes.clone()
        assert batch.session.held_bytes() == 3 * 2 * 60 * 2 * (8 + 8), "8 bytes of codes, a scale and a minimum"
        for step in range(20):
            batch.feed(torch.tensor([[step + 3]]))
        assert store.keys.recent.numel() == 0
        assert torch.equal(store.keys.held.codes[:, :, :60], first)


def test_a_constant_token_is_exact() -> None:
    x = torch.full((1, 1, 2, 16), 0.7)
    form = FlexGen(FlexGenOptions(group=16)).keys
    assert torch.equal(form.decode(form.encode(x)), x)


def test_bad_options_and_heads_are_refused() -> None:
    with pytest.raises(UsageError, match="odd"):
        build(FlexGenOptions, {"group": "3"}, owner="method flexgen")
    with pytest.raises(ModelError, match="group size"):
        FlexGen(FlexGenOptions()).start(engine().geometry)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("flexgen", "real", False)
    assert oracle_options("official_flexgen", {"bits": 4, "group": 32}, 96) == FlexGenOptions(group=32)
    assert oracle_options("official_kivi", {"bits": 4, "group": 32}, 96) is None
