"""ThinK against its definition, written once more in the plainest way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_think.method import ThinK
from loom_accel_think.oracle import options as oracle_options
from loom_accel_think.plugin import ThinKOptions, loom_augmentations
from loom_kv import HeldView
from loom_kv.testing import toy_model
from loom_server_hf.engine import Engine
from torch import Tensor
from torch.nn import functional

from loom_core.api import UsageError, build

N, DIM = 40, 16


def view(n_valid: tuple[int, ...] = (N,), window: int = 8, scores: Tensor | None = None) -> HeldView:
    """Two KV heads of two query heads each; noise in the empty slots and queries."""
    torch.manual_seed(4)
    rows = len(n_valid)
    return HeldView(
        layer=0,
        k=torch.randn(rows, 2, N, DIM) * 3,
        v=torch.randn(rows, 2, N, DIM),
        missing=tuple(N - n for n in n_valid),
        kept=None,
        n_valid=n_valid,
        queries=torch.randn(rows, 4, window, DIM) * 3,
        scores=scores,
        room=4,
    )


def codec(**values: Any) -> ThinK:
    own = ThinK(ThinKOptions(**{"window": 8, "recent": 10, **values}))
    own.start(Engine(toy_model("llama")).geometry)
    return own


def reference(seen: HeldView, row: int, ratio: float, window: int) -> list[list[int]]:
    """The channels that each head keeps, with Python loops: the definition in the method's header."""
    assert seen.queries is not None
    n, kept = seen.n_valid[row], []
    for head in range(2):
        weights = []
        for channel in range(DIM):
            queries = [
                float(seen.queries[row, 2 * head + member, i, channel]) ** 2
                for member in range(2)
                for i in range(window - min(window, n), window)
            ]
            keys = [float(seen.k[row, head, i, channel]) ** 2 for i in range(N - n, N)]
            weights.append(sum(queries) / len(queries) * sum(keys) / len(keys))
        order = sorted(range(DIM), key=lambda channel: weights[channel])
        kept.append(sorted(order[int(ratio * DIM) :]))
    return kept


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.4, 0.9])
def test_channels_equal_the_definition_whatever_stands_in_the_padding(ratio: float) -> None:
    seen = view((N, 25, 5))
    store: Any = codec(ratio=ratio).encode(seen)
    for row in range(3):
        assert store.channels[row].tolist() == reference(seen, row, ratio, 8)


def test_what_is_held_is_the_keys_without_their_channels() -> None:
    seen, own = view(), codec(ratio=0.4)
    store: Any = own.encode(seen)
    keys, values = store.decoded()
    assert torch.equal(values, seen.v)
    assert torch.equal(keys[:, :, -10:], seen.k[:, :, -10:])
    for head in range(2):
        left = store.channels[0, head].tolist()
        gone = [channel for channel in range(DIM) if channel not in left]
        assert len(gone) == 6
        assert torch.equal(keys[0, head, :-10, left], seen.k[0, head, :-10, left])
        assert (keys[0, head, :-10, gone] == 0).all()
    assert sum(t.untyped_storage().nbytes() for t in store.tensors()) == own.bytes_held(N)


def test_attention_equals_that_over_keys_with_zeros() -> None:
    seen = view((N, 25))
    store: Any = codec(ratio=0.5).encode(seen)
    keys, values = store.decoded()
    q, k, v = torch.randn(2, 4, 3, DIM), torch.randn(2, 2, 3, DIM), torch.randn(2, 2, 3, DIM)
    out = store.attend(q, k, v, None)
    keys, values = (torch.cat(pair, 2).repeat_interleave(2, 1) for pair in ((keys, k), (values, v)))
    visible = torch.ones(2, 1, 3, N + 3, dtype=torch.bool).tril(N)
    visible[1, :, :, : N - 25] = False
    expected = functional.scaled_dot_product_attention(q, keys, values, attn_mask=visible)
    torch.testing.assert_close(out, expected.transpose(1, 2))


def test_the_order_of_a_top_k_says_which_tokens_stay_whole() -> None:
    scores = torch.randperm(N).float()[None, None]
    scores[..., -4:] = torch.inf
    store: Any = codec(order="rank", recent=6).encode(view(scores=scores))
    worst = scores[0, 0, :-4].argsort()[:2].tolist()
    for head in range(2):
        places = store.positions()[0, head].tolist()
        assert places[-4:] == [36, 37, 38, 39]
        assert set(places[-6:-4]) == set(worst)
        assert sorted(places) == list(range(N))


def test_bad_options_are_refused() -> None:
    for values, words in (({"ratio": "1.0"}, "every channel"), ({"window": "0"}, "least value")):
        with pytest.raises(UsageError) as caught:
            build(ThinKOptions, values, owner="method think")
        assert words in str(caught.value)


def test_notes_say_where_nothing_is_dropped() -> None:
    assert "no whole channel" in codec(ratio=0.01).notes(100)[0]
    assert "newest 10" in codec().notes(10)[0]
    assert codec().notes(100) == ()


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.query_aware) == ("think", "real", True)
    row = oracle_options("kvpress_think", {"key_channel_compression_ratio": 0.5, "window_size": 16}, 9)
    assert row == ThinKOptions(ratio=0.5, recent=0, window=16)
    assert oracle_options("official_think", {"ratio": 0.4, "recent": 32, "B": 0, "w": 0}, 9) == ThinKOptions()
    arm = oracle_options("official_think", {"ratio": 0.4, "recent": 32, "B": 96, "w": 16}, 9)
    assert arm == "snapkv:budget=96,window=16+think:ratio=0.4,recent=32,order=rank"
    assert oracle_options("kvpress_snapkv", {}, 9) is None
