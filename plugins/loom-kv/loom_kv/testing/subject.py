"""A method on a model, and what its runs on fixed tokens say: the ground that every check of the kit stands on.

Knows the contract and what a host does; no particular method, no particular server and no single check.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loom_core.api import Budget
from loom_kv.policy import Policy
from loom_kv.testing.host import Batch, Engine, Host, installed_host
from loom_kv.views import LayerView, Merge, StepView

STEPS = 6
"""Decoding steps that a check compares."""


def toy_model(kind: str, dtype: torch.dtype = torch.float32, *, seed: int = 0, query_heads: int = 4) -> Any:
    """A tiny random model with peaked attention: "llama" and "qwen3" (two KV heads), "mha" (as many as query heads)."""
    return installed_host().toy_model(kind, dtype, seed=seed, query_heads=query_heads)


def toy_prompts(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Random ids, one prompt of each length; none twice in a prompt where the vocabulary allows, so that no two tokens
    tie in a layer that sees nothing but the id."""
    generator = torch.Generator().manual_seed(seed)
    prompts = []
    for n in lengths:
        order = torch.randperm(vocabulary - 3, generator=generator) + 3
        prompts.append(tuple(order.repeat(-(-n // len(order)))[:n].tolist()))
    return prompts


@dataclass
class Subject:
    """A method on a model of a host. make: a fresh policy with a budget. prompts: of unequal lengths, longer than it.

    exact: float32. There logits agree to 2e-5 of their range; in sixteen bits to twice the distance that rounding alone
    puts between the dense model and its float32 twin.
    """

    model: Any
    make: Callable[[Budget], Policy]
    prompts: Sequence[tuple[int, ...]]
    budget: Budget
    chunk: int = 37
    host: Host = field(default_factory=installed_host)
    engine: Engine = field(init=False)
    exact: bool = field(init=False)
    close: float = field(init=False)
    roundings: dict[tuple[int, ...], float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = self.host.engine(self.model)
        self.exact = self.engine.geometry.dtype == torch.float32
        self.close = 2e-5 if self.exact else 2 * self._rounding()

    @property
    def shared(self) -> bool:
        """Scores decide how many slots a head or a layer keeps, so rounding of the number format may move a slot."""
        policy = self.make(self.budget)
        return policy.shares_heads is not None or policy.shares_layers is not None

    def slack(self, size: int) -> int:
        """Slots of each head that rounding may give to others, of a layer with `size` slots.

        One where a rule rounds the share of each head; a twentieth where the shares of layers follow from their sums.
        """
        if self.make(self.budget).shares_layers is not None:
            return max(1, size // (20 * self.engine.geometry.kv_heads))
        return int(self.shared)

    def _rounding(self) -> float:
        """How far the number format alone moves the dense logits."""
        twin = self.host.engine(copy.deepcopy(self.model).float())
        distances = []
        for prompt in self.prompts:
            rows = []
            for engine in (self.engine, twin):
                with self.host.attached(engine.model):
                    batch = engine.start([prompt], [0], None)
                    rows.append(torch.stack([batch.prefill()[0], *map(batch.feed, fixed_tokens(1, engine))]))
            distances.append(spread(*rows))
        return max(distances)

    def score_rounding(self, prompt: tuple[int, ...]) -> float:
        """How far the number format alone moves the policy's scores of a prompt, in the layer where it does most."""
        if prompt not in self.roundings:
            twin = Subject(copy.deepcopy(self.model).float(), self.make, [prompt], self.budget, host=self.host)
            one, other = (subject.run([prompt], subject.make(subject.budget)).scores for subject in (self, twin))
            self.roundings[prompt] = max(spread(a, b) for a, b in zip(one, other, strict=True))
        return self.roundings[prompt]

    def agree(self, one: Tensor, other: Tensor, what: str) -> None:
        """Raises where logits differ by more than `close`."""
        distance = largest(one, other) if self.exact else spread(one, other)
        assert distance <= self.close, f"{what}: logits differ by {distance:.1e} (at most {self.close:.1e})"

    def run(self, prompts: Sequence[tuple[int, ...]], policy: Policy | None, chunk: int = 4096) -> Trace:
        """Prefill and STEPS fixed tokens: the logits, and what was kept."""
        merges, scores = recorded_merges(policy), recorded_scores(policy)
        with self.host.attached(self.model):
            batch = self.engine.start(prompts, [100 + len(p) for p in prompts], policy, chunk=chunk)
            logits, failed = batch.prefill()
            assert not failed, failed
            steps, bytes_ = [kept_slots(batch)], batch.session.held_bytes()
            rows = [logits.float()]
            for tokens in fixed_tokens(len(prompts), self.engine):
                rows.append(batch.feed(tokens).float())
                steps.append(kept_slots(batch))
        return Trace(torch.stack(rows, dim=1), steps, bytes_, merges, batch, scores)


Kept = list[list[list[list[int]]]]
"""Original positions, [row][layer][head]."""


@dataclass
class Trace:
    """logits [b, 1 + STEPS, V]; steps: what was kept at the end of the prompt and after each step.

    bytes_: held at the end of the prompt. merges: what was added to values at each step, in the order of the layers.
    scores: the policy's of each layer that it ranked, [b, h or 1, N].
    """

    logits: Tensor
    steps: list[Kept]
    bytes_: int
    merges: list[Merge | None]
    batch: Batch
    scores: list[Tensor] = field(default_factory=list)

    @property
    def kept(self) -> Kept:
        """What was kept of the prompt."""
        return self.steps[0]


def recorded_scores(policy: Policy | None) -> list[Tensor]:
    """A list that the policy's scores of the prompt will be written to, layer by layer."""
    scores: list[Tensor] = []
    if policy is None:
        return scores
    score = type(policy).score

    def recording(view: LayerView) -> Tensor:
        scores.append(score(policy, view))
        return scores[-1]

    setattr(policy, "score", recording)  # noqa: B010
    return scores


def recorded_merges(policy: Policy | None) -> list[Merge | None]:
    """A list that the policy's merges will be written to; empty for policies that never merge."""
    merges: list[Merge | None] = []
    if policy is None or (merger := policy.merges) is None:
        return merges
    merge = type(merger).merge

    def recording(view: StepView, kept: Tensor) -> Merge | None:
        merges.append(merge(merger, view, kept))
        return merges[-1]

    setattr(merger, "merge", recording)  # noqa: B010
    return merges


def fixed_tokens(rows: int, engine: Engine) -> list[Tensor]:
    """Ids [b, 1] that are fed after the prompt, equal for all rows."""
    vocabulary = int(engine.model.get_input_embeddings().weight.shape[0])
    return [torch.full((rows, 1), (17 + 31 * step) % vocabulary) for step in range(STEPS)]


def kept_slots(batch: Batch) -> Kept:
    """Positions held now, [row][layer][head]; a store that is the same for all heads is shown for each."""
    heads = batch.session.geometry.kv_heads
    layers = [
        places.expand(-1, heads, -1) if places.shape[1] == 1 else places
        for places in (store.positions() for store in batch.session.stores)
    ]
    rows = len(batch.session.n_valid)
    return [[[[p for p in head if p >= 0] for head in layer[row].tolist()] for layer in layers] for row in range(rows)]


def assert_kept(subject: Subject, one: Any, other: Any, what: str) -> None:
    """Equal sets of every head; in sixteen bits, where near scores change places, four fifths of a layer's slots."""
    for layer, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        if subject.exact:
            for head, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                assert len(a) == len(b), f"{what}: layer {layer} head {head} keeps {len(a)} slots, not {len(b)}"
                assert a == b, f"{what}: layer {layer} head {head} keeps other slots"
            continue
        size, other_size = sum(map(len, mine)), sum(map(len, theirs))
        slack = subject.slack(size) * len(mine)
        assert abs(size - other_size) <= slack, f"{what}: layer {layer} keeps {size} slots, not {other_size}"
        same = sum(len(set(a) & set(b)) for a, b in zip(mine, theirs, strict=True))
        assert same >= 0.8 * size, f"{what}: layer {layer} keeps other slots"


def largest(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the range."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def spread(one: Tensor, other: Tensor) -> float:
    """The root mean square difference, as a share of the root mean square."""
    return float((one.float() - other.float()).norm() / other.float().norm().clamp(min=1e-30))
