"""KIVI against its definition: which tokens are whole, what is held, and how near to a dense cache it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_kivi.method import KIVI
from loom_accel_kivi.oracle import options as oracle_options
from loom_accel_kivi.plugin import KIVIOptions, loom_augmentations
from loom_kv import HeldView, compose
from loom_kv.testing import toy_model, toy_prompts
from loom_server_hf.engine import Engine, Row
from loom_server_hf.host import attached

from loom_core.api import ModelError, UsageError, build


def engine() -> Engine:
    return Engine(toy_model("llama"))


def logits(engine: Engine, options: KIVIOptions | None, steps: int = 4) -> torch.Tensor:
    """Logits of the steps after one prompt; None = dense."""
    policy = None if options is None else compose([KIVI(options)])
    with attached(engine.model):
        batch = engine.start(toy_prompts((200,), 256), [0], policy)
        batch.prefill()
        return torch.cat([batch.feed(torch.tensor([[17 + step]])) for step in range(steps)])


def test_four_bits_are_nearer_to_dense_than_two_and_a_window_nearer_still() -> None:
    own = engine()
    dense = logits(own, None)

    def distance(**values: Any) -> float:
        return float((logits(own, KIVIOptions(**{"group": 16, "window": 16, **values})) - dense).norm() / dense.norm())

    two, four, wide = distance(bits="2"), distance(bits="4"), distance(bits="4", window=144)
    assert two > 2 * four > 0
    assert four > wide > 0
    assert distance(bits="2", window=208) < 1e-6, "a window that holds everything changes nothing"


@pytest.mark.parametrize("n", [15, 16, 17, 31, 32, 100])
def test_which_tokens_are_whole_and_what_they_take(n: int) -> None:
    torch.manual_seed(0)
    k, v = torch.randn(1, 2, n, 16), torch.randn(1, 2, n, 16)
    codec = KIVI(KIVIOptions(bits="2", group=8, window=16))
    codec.start(engine().geometry)
    store = codec.encode(
        HeldView(layer=0, k=k, v=v, missing=(0,), kept=None, n_valid=(n,), queries=None, scores=None, room=8)
    )
    keys, values = store.decoded()  # type: ignore[attr-defined]
    whole_keys, whole_values = n % 16, min(n, 16)
    assert torch.equal(keys[:, :, n - whole_keys :], k[:, :, n - whole_keys :])
    assert torch.equal(values[:, :, n - whole_values :], v[:, :, n - whole_values :])
    for own, x, whole in ((keys, k, whole_keys), (values, v, whole_values)):
        if n > whole:
            assert not torch.isclose(own[:, :, : n - whole], x[:, :, : n - whole]).all()
    held = sum(t.untyped_storage().nbytes() for t in store.tensors())
    assert held == codec.bytes_held(n)


def test_an_outlier_channel_of_keys_does_not_spoil_its_neighbours() -> None:
    torch.manual_seed(0)
    k = torch.randn(1, 1, 64, 16)
    k[..., 3] *= 100
    codec = KIVI(KIVIOptions(bits="4", group=16, window=16))
    others = [channel for channel in range(16) if channel != 3]

    def error(form: Any) -> float:
        return float((form.decode(form.encode(k)) - k)[..., others].abs().max())

    assert error(codec.keys) < 0.25 < error(codec.values)


def test_bad_options_and_heads_are_refused() -> None:
    for values, words in (
        ({"bits": "3"}, "bits"),
        ({"group": "6"}, "multiple of 4"),
        ({"group": "32", "window": "48"}, "multiple of group"),
        ({"window": "0"}, "least value"),
    ):
        with pytest.raises(UsageError) as caught:
            build(KIVIOptions, values, owner="method kivi")
        assert words in str(caught.value)
    with pytest.raises(ModelError, match="group size"):
        KIVI(KIVIOptions(group=32)).start(engine().geometry)


def test_a_short_prompt_is_left_whole_and_said_so() -> None:
    row = Row(ids=toy_prompts((50,), 128)[0], max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine().run([row], compose([KIVI(KIVIOptions(group=16, window=64))]))
    assert result.kv.bytes_held == result.kv.bytes_dense
    assert result.kv.asked == "2 bits"
    assert "dense: 50 tokens fit the window of 64" in result.kv.notes


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("kivi", "real", False)
    assert oracle_options("official_kivi", {"bits": 4, "group": 32, "residual": 128}, 96) == KIVIOptions(bits="4")
    assert oracle_options("official_kivi", {"note": "all ones"}, 0) == KIVIOptions(window=32)
    assert oracle_options("official_flexgen", {"bits": 4}, 96) is None
