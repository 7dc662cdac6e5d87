"""CaM: what the leaving token's value becomes, by hand and by the definition; coins; both hosts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loom_accel_cam.method import CaM
from loom_accel_cam.oracle import options as oracle_options
from loom_accel_cam.plugin import CaMOptions, loom_augmentations
from loom_kv import Allotment, StepView
from loom_kv.testing import Subject, toy_model, toy_prompts, toy_view, u4_batch
from loom_server_hf.engine import Engine, Row
from torch import Tensor

from loom_core.api import Budget, UsageError, build


def options(tokens: int = 12, **values: Any) -> CaMOptions:
    return CaMOptions(**{"budget": Budget(tokens=tokens), **values})


def step(
    policy: CaM, scores: Tensor, weights: Tensor, recent: int, *, seed: int = 0, newest: int = 50, layer: int = 0
) -> StepView:
    """One row; scores [h, S], weights [h, g, S]."""
    heads, group, held = weights.shape
    view = toy_view(torch.zeros(1, heads * group, 1, 4), torch.zeros(1, heads, held, 4))
    policy.start(view.geometry)
    return StepView(
        layer=layer,
        weights=weights[None],
        scores=scores[None],
        held=torch.ones(1, 1, held, dtype=torch.bool),
        newest=(newest,),
        n_held=(held,),
        allotment=Allotment(slots=[held - 1], first=policy.first, last=[recent]),
        seeds=(seed,),
        geometry=view.geometry,
    )


def without(slot: int, heads: int, held: int) -> Tensor:
    kept = torch.ones(1, heads, held, dtype=torch.bool)
    kept[..., slot] = False
    return kept


def test_a_merge_by_hand() -> None:
    """Sinks 2, recent 4, two receivers: slot 2 of 7 leaves; sums 0.2 0.2 0.3 | 0.5 0.7 0.1 0.1 after the step."""
    policy = CaM(options(6, sinks=2, receivers=2, coin="expected"))
    sums = torch.tensor([[0.1, 0.1, 0.2, 0.4, 0.6, 0.0, 0.0]])
    view = step(policy, sums, torch.full((1, 1, 7), 0.1), recent=4)
    merge = policy.merge(view, without(2, 1, 7))
    assert merge is not None and merge.source.tolist() == [[2]]
    chance = 0.3 / 0.6
    expected = torch.tensor([[[0, 0, 0, chance / 2, chance / 2, 0, 0]]])
    assert torch.allclose(merge.shares, expected)


def test_values_are_conserved_with_one_receiver_and_certainty() -> None:
    torch.manual_seed(0)
    policy = CaM(options(10, receivers=1, coin="always"))
    view = step(policy, torch.rand(3, 11), torch.rand(3, 2, 11), recent=6)
    values = torch.randn(3, 11, 4)
    merge = policy.merge(view, without(4, 3, 11))
    assert merge is not None
    merged = values + merge.shares[0, :, :, None] * values[torch.arange(3), merge.source[0]][:, None]
    left = [slot for slot in range(11) if slot != 4]
    assert torch.allclose(merged[:, left].sum(1), values.sum(1), atol=1e-5)
    assert merge.shares.sum(-1).tolist() == [[1.0] * 3]


@pytest.mark.parametrize("recent", [3, 20])
def test_the_rule_of_question_answering(recent: int) -> None:
    """Index T - R + 1, this step's attention, all later tokens in the mean, a division by 32 whatever their number."""
    torch.manual_seed(0)
    policy = CaM(options(45, host="h2o", recent=recent, form="qa", coin="expected"))
    weights = torch.rand(2, 2, 60)
    merge = policy.merge(step(policy, torch.rand(2, 60), weights, recent), without(0, 2, 60))
    assert merge is not None
    i = 60 - recent + 1
    assert merge.source.tolist() == [[i, i]]
    mean = weights.mean(1)
    chance = (mean[:, i] / mean[:, i + 1 :].mean(1)).clamp(max=1)
    assert torch.allclose(merge.shares[0, :, i + 1 :], (chance / 32)[:, None].expand(-1, 60 - i - 1))
    assert not merge.shares[0, :, : i + 1].any()


def test_nothing_is_merged_when_the_token_that_leaves_the_window_stays() -> None:
    policy = CaM(options(10, host="h2o", recent=4, coin="always"))
    view = step(policy, torch.rand(2, 11), torch.rand(2, 1, 11), recent=4)
    kept = without(6, 2, 11)
    kept[0, 1] = torch.tensor([slot != 2 for slot in range(11)])
    merge = policy.merge(view, kept)
    assert merge is not None
    assert merge.shares[0, 0].any() and not merge.shares[0, 1].any(), "the second head drops an older token"


def test_coins() -> None:
    """Draws depend on seed, layer, position and head only, and fall as often as the probability says."""
    sums, weights = torch.full((400, 11), 1.0), torch.zeros(400, 1, 11)
    sums[:, 4] = 0.3

    def share(coin: Any, **where: int) -> Tensor:
        policy = CaM(options(10, receivers=2, coin=coin))
        merge = policy.merge(step(policy, sums, weights, 6, **where), without(4, 400, 11))
        assert merge is not None
        return merge.shares[0, :, 5]

    drawn = share("draw")
    assert set(drawn.tolist()) == {0.0, 0.5}
    assert 0.2 < float((drawn > 0).float().mean()) < 0.4
    assert torch.equal(drawn, share("draw"))
    for other in ({"seed": 1}, {"layer": 1}, {"newest": 51}):
        assert not torch.equal(drawn, share("draw", **other))
    assert sorted(set(share("expected").tolist())) == pytest.approx([0.15])
    assert set(share("always").tolist()) == {0.5}
    policy = CaM(options(coin="never"))
    assert policy.merge(step(policy, sums, weights, 6), without(4, 400, 11)) is None


@pytest.mark.parametrize("host", ["streamingllm", "h2o"])
def test_without_merges_it_is_the_host(host: Any) -> None:
    (prompt,) = toy_prompts((70,), 128)

    def make(budget: Budget, coin: Any = "never") -> CaM:
        return CaM(options(budget=budget, host=host, coin=coin))

    subject = Subject(toy_model("llama"), make, [prompt], Budget(tokens=20))
    never, always = (subject.run([prompt], make(subject.budget, coin)) for coin in ("never", "always"))
    if host == "streamingllm":
        for number, kept in enumerate(never.steps):
            expected = [*range(4), *range(70 + number - 16, 70 + number)]
            assert all(head == expected for layer in kept[0] for head in layer)
    assert never.kept == always.kept
    # The token that is fed at a step still sees unmerged values when it is the first to evict.
    assert torch.equal(never.logits[:, :2], always.logits[:, :2])
    assert not torch.allclose(never.logits[:, 2], always.logits[:, 2])


def test_draws_do_not_depend_on_the_batch() -> None:
    u4_batch(Subject(toy_model("mha"), lambda b: CaM(options(budget=b)), toy_prompts((64, 50), 128), Budget(tokens=16)))


def test_budgets_and_bad_options() -> None:
    engine, (prompt,) = Engine(toy_model("llama")), toy_prompts((60,), 128)
    row = Row(ids=prompt, max_tokens=2, seed=0, eos_ids=frozenset())
    ((_, result),) = engine.run([row], CaM(CaMOptions(budget=Budget(ratio=0.05))))
    assert result.error is not None and "3 slots" in result.error and "takes 5" in result.error
    for values, words in (
        ({"recent": "8"}, "host=h2o"),
        ({"budget": "4"}, "no recent token"),
        ({"host": "h2o", "budget": "8", "recent": "9"}, "smaller than recent"),
        ({"coin": "heads"}, "expected"),
    ):
        with pytest.raises(UsageError) as caught:
            build(CaMOptions, values, owner="method cam")
        assert words in str(caught.value)


def test_registration_and_oracle_mapping() -> None:
    (spec,) = loom_augmentations()
    assert (spec.name, spec.saves, spec.phase) == ("cam", "real", "both")
    setting = {"H": 3, "T": 64, "d": 4, "recent": 40, "start": 4, "merge_budget": 32, "coin": "always"}
    assert oracle_options("official_cam", setting, 0) == options(44, sinks=4, form="qa", receivers=32, coin="always")
    setting = {"H": 3, "T": 64, "d": 4, "recent": 40, "merge_num": 16, "coin": "never"}
    assert oracle_options("official_cam", setting, 0) == options(63, sinks=23, receivers=16, coin="never")
    assert oracle_options("official_h2o", {"hh": 8, "recent": 8}, 100) is None
