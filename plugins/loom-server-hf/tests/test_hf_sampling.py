"""How the next token is drawn."""

from __future__ import annotations

import torch
from loom_server_hf.sampling import Sampler


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    drawn = {0.4: {0}, 0.79: {0, 1}, 0.81: {0, 1, 2}, 1.0: {0, 1, 2, 3}}
    for top_p, expected in drawn.items():
        sampler = Sampler(1.0, top_p, seed=0)
        assert {sampler.next(logits) for _ in range(300)} == expected
    sampler = Sampler(1.0, 1.0, seed=1)
    counts = torch.bincount(torch.tensor([sampler.next(logits) for _ in range(2000)]), minlength=4) / 2000
    assert torch.allclose(counts, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.04)
    assert {Sampler(1.0, 1.0, seed=2).next(logits, banned={0, 1, 3, 99})} == {2}
