"""What every codec must fulfil, alone or behind a policy: the checks U1 to U9 where keys and values are held otherwise.

Each check takes a `CodecSubject` and raises AssertionError with what it found. Knows the contract and what a host does,
no particular method. Slots are compared as in `checks`; beside them, what the store says it holds is taken at its word
and proved: attention over exactly these keys and values gives the logits, and nothing else is kept anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

from loom_core.api import Budget
from loom_kv.codec import Codec
from loom_kv.policy import Policy
from loom_kv.testing.checks import rows_leave, twins, u8_detach, u8_isolation
from loom_kv.testing.host import Batch, Host, installed_host
from loom_kv.testing.subject import STEPS, Kept, Subject, fixed_tokens, kept_slots, largest, spread

FLIPPED = 0.01
"""Share of the held numbers that rounding noise may move by a step of their format."""
NEAR = 1e-4
"""Distance of two held numbers that counts as none, as a share of the largest."""
LONG = 40
"""Tokens decoded to see that nothing is encoded twice."""

Held = list[tuple[Tensor, Tensor, Tensor]]
"""Keys and values [b, h, S, d] of each layer as attention sees them; bool [b, S], False on empty slots."""


@dataclass
class CodecSubject(Subject):
    """A codec on a model. make: from a budget to a policy with the codec; codecs alone ignore the budget.

    exact: float32, and the codec does not round. strict: float32. Where a codec rounds, noise in a key's last bit may
    move a held number by a whole step, so batches and chunks are compared by what they hold.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strict = self.exact
        self.exact = self.exact and not self.codec.rounds

    @property
    def codec(self) -> Codec:
        """A codec as `make` gives it."""
        codec = self.make(self.budget).codec
        assert codec is not None, "the method has no codec"
        codec.start(self.engine.geometry)
        return codec

    def near(self, one: Tensor, other: Tensor, what: str) -> None:
        """Raises where logits differ that come of the same held numbers."""
        distance = largest(one, other) if self.strict else spread(one, other)
        assert distance <= self.close, f"{what}: logits differ by {distance:.1e} (at most {self.close:.1e})"

    def same(self, one: Held, other: Held, what: str) -> None:
        """Raises where more held numbers differ than noise may move."""
        for layer, pairs in enumerate(zip(one, other, strict=True)):
            for name, mine, theirs in zip(("keys", "values"), pairs[0][:2], pairs[1][:2], strict=True):
                assert mine.shape == theirs.shape, f"{what}: layer {layer} holds {name} {tuple(mine.shape)}"
                moved = (mine - theirs).abs() > NEAR * theirs.abs().max()
                share = float(moved.float().mean())
                limit = 0.0 if self.exact else FLIPPED
                assert share <= limit, f"{what}: {share:.2%} of the {name} of layer {layer} differ"


@dataclass
class Followed:
    """A run step by step. logits [b, 1 + n, V]; steps, held: after the prompt and after each token; bytes_ held at the
    end of the prompt."""

    logits: Tensor
    steps: list[Kept]
    held: list[Held]
    bytes_: int
    batch: Batch

    @property
    def kept(self) -> Kept:
        """What was kept of the prompt."""
        return self.steps[0]


def follow(
    subject: CodecSubject, prompts: Sequence[tuple[int, ...]], policy: Policy, *, n: int = STEPS, **options: Any
) -> Followed:
    """Prefill and n fixed tokens, looking at the cache after each. options: of the engine's `start`."""
    tokens = (fixed_tokens(len(prompts), subject.engine) * (1 + n // STEPS))[:n]
    with subject.host.attached(subject.model):
        batch = subject.engine.start(prompts, [100 + len(p) for p in prompts], policy, **options)
        logits, failed = batch.prefill()
        assert not failed, failed
        bytes_ = batch.session.held_bytes()
        rows, steps, held = [logits.float()], [kept_slots(batch)], [held_now(batch)]
        for ids in tokens:
            rows.append(batch.feed(ids).float())
            steps.append(kept_slots(batch))
            held.append(held_now(batch))
    return Followed(torch.stack(rows, dim=1), steps, held, bytes_, batch)


def held_now(batch: Batch) -> Held:
    """What every layer holds, in the order of its positions."""
    held = []
    for store in batch.session.stores:
        k, v = store.decoded()
        held.append((k.clone(), v.clone(), store.positions()[:, 0] >= 0))
    return held


def row_of(held: Held, row: int) -> Held:
    """One row of a batch without its empty slots: [1, h, S, d]."""
    return [
        (k[row : row + 1, :, some[row]], v[row : row + 1, :, some[row]], some[row : row + 1, some[row]])
        for k, v, some in held
    ]


def c1_identity(subject: CodecSubject) -> None:
    """At the setting that changes no number, with a budget for everything, logits are those of the dense cache."""
    if subject.codec.identity() is None:
        return
    for prompt in subject.prompts:
        policy = subject.make(Budget(tokens=len(prompt) + STEPS))
        policy.codec = subject.codec.identity()
        trace, dense = subject.run([prompt], policy), subject.run([prompt], None)
        subject.near(trace.logits, dense.logits, "U1")
        assert trace.batch.session.uses()[0].notes, "U1: the fall-back is not noted"


def c2_held_dense(subject: CodecSubject) -> None:
    """Each step's logits are those of a dense cache that holds what the store says it holds, others hidden."""
    for prompt in subject.prompts:
        run = follow(subject, [prompt], subject.make(subject.budget), chunk=subject.chunk)
        held = [[(k[0], v[0]) for k, v, _ in layers] for layers in run.held]
        steps = [step[0] for step in run.steps]
        for step in steps:
            for head in (head for layer in step for head in layer):
                assert head == sorted(set(head)), "U2: slots are not sorted by position"
        tokens = fixed_tokens(1, subject.engine)
        expected = subject.host.masked_dense(subject.model, prompt, steps, tokens, held=held)
        subject.near(run.logits[0], expected, "U2")


def c4_batch(subject: CodecSubject) -> None:
    """A row of a left-padded batch holds what it holds alone, at every step."""
    together = follow(subject, subject.prompts, subject.make(subject.budget))
    for row, prompt in enumerate(subject.prompts):
        alone = follow(subject, [prompt], subject.make(subject.budget))
        mine, theirs = ([list(map(len, layer)) for layer in run] for run in (together.kept[row], alone.kept[0]))
        assert mine == theirs, f"U4 row {row} holds other numbers of slots"
        if not subject.strict:
            continue
        for step in range(STEPS + 1):
            assert together.steps[step][row] == alone.steps[step][0], f"U4 row {row}: other slots at step {step}"
            if step == 0 or subject.exact:
                subject.same(row_of(together.held[step], row), alone.held[step], f"U4 row {row}, step {step}")
        if subject.exact:
            subject.near(together.logits[row], alone.logits[0], f"U4 row {row}")


def c5_chunks(subject: CodecSubject) -> None:
    """A prefill in chunks ends in the same cache as one shot."""
    for prompts in ([subject.prompts[0]], subject.prompts):
        whole = follow(subject, prompts, subject.make(subject.budget), n=0)
        for chunk in (subject.chunk, 5):
            parts = follow(subject, prompts, subject.make(subject.budget), n=0, chunk=chunk)
            if subject.strict:
                assert parts.steps == whole.steps, f"U5 chunk {chunk}: other slots"
                subject.same(parts.held[0], whole.held[0], f"U5 chunk {chunk}")


def c6_memory(subject: CodecSubject) -> None:
    """Storages hold what the codec's formula says, to 2 %, with 4 bytes for a slot's position where some were evicted;
    and the stores refer to no tensor that they do not count."""
    heads = subject.engine.geometry.kv_heads
    for prompt in subject.prompts:
        policy = subject.make(subject.budget)
        run = follow(subject, [prompt], policy, n=1, chunk=subject.chunk)
        slots = [len(layer[0]) for layer in run.steps[0][0]]
        lists = [store.positions().shape[1] for store in run.batch.session.stores]
        positions = sum(4 * count * n for count, n in zip(lists, slots, strict=True) if n < len(prompt))
        formula = sum(subject.codec.bytes_held(n) for n in slots) + positions
        assert abs(run.bytes_ - formula) <= 0.02 * formula, f"U6: {run.bytes_} bytes held, {formula} by the formula"
        allowed = policy.most_slots(len(prompt))
        assert heads * sum(slots) <= allowed, f"U6: {heads * sum(slots)} slots kept, the method allows {allowed}"
        for layer, store in enumerate(run.batch.session.stores):
            counted = {t.untyped_storage().data_ptr() for t in store.tensors()}
            hidden = [t for t in tensors_of(store) if t.numel() and t.untyped_storage().data_ptr() not in counted]
            assert not hidden, f"U6: layer {layer} holds {tuple(hidden[0].shape)} and does not count it"


def tensors_of(thing: Any) -> Iterator[Tensor]:
    """Every tensor that an object's fields, lists and tuples refer to."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from tensors_of(item)
    elif is_dataclass(thing) and not isinstance(thing, type):
        for name in thing.__dataclass_fields__:
            yield from tensors_of(getattr(thing, name))
    elif hasattr(thing, "__dict__") and not isinstance(thing, (type, torch.dtype)):
        for item in vars(thing).values():
            yield from tensors_of(item)


def c9_prefix(subject: CodecSubject) -> None:
    """Prompts that continue a prefix read once hold what unshared ones hold; a fork leaves the original as it was."""
    first = subject.prompts[0]
    prompts = [first, first[: len(first) // 2] + tuple(reversed(first[len(first) // 2 :]))]
    policy = subject.make(subject.budget)
    if not policy.shares_prefix:
        return
    prefix = subject.host.read(subject.engine, first[: len(first) // 2])
    shared = follow(subject, prompts, policy, n=0, prefix=prefix)
    whole = follow(subject, prompts, subject.make(subject.budget), n=0)
    if subject.strict:
        assert shared.steps == whole.steps, "U9: other slots behind a shared prefix"
        subject.same(shared.held[0], whole.held[0], "U9")
    alone = follow(subject, [first], subject.make(subject.budget), n=0)
    tokens = fixed_tokens(1, subject.engine)
    with subject.host.attached(subject.model):
        fork = alone.batch.fork(2)
        twice = [fork.feed(token.repeat(2, 1)) for token in tokens]
        once = [alone.batch.feed(token) for token in tokens]
    for mine, theirs in zip(twice, once, strict=True):
        subject.near(mine, theirs.expand_as(mine), "U9: a fork")


def encoded_once(subject: CodecSubject) -> None:
    """A slot's key and value change once at most while decoding: what is encoded is not encoded again."""
    prompt = subject.prompts[0]
    run = follow(subject, [prompt], subject.make(subject.budget), n=LONG)
    for layer in range(len(run.held[0])):
        for part, name in enumerate(("keys", "values")):
            slots = run.held[0][layer][part].shape[2]
            changes = torch.zeros(slots + LONG)
            for before, after in zip(run.held[:-1], run.held[1:], strict=True):
                old, new = before[layer][part][0], after[layer][part][0]
                moved = (new[:, : old.shape[1]] - old).abs().amax(dim=(0, 2)) > 0
                changes[: old.shape[1]] += moved
            assert changes.max() <= 1, f"{name} of layer {layer} are encoded {int(changes.max())} times"


CODEC_CHECKS: dict[str, Callable[[CodecSubject], None]] = {
    "U1 identity": c1_identity,
    "U2 held dense": c2_held_dense,
    "U4 batch": c4_batch,
    "U5 chunks": c5_chunks,
    "U6 memory": c6_memory,
    "U8 isolation": u8_isolation,
    "U8 detach": u8_detach,
    "U9 prefix": c9_prefix,
    "encoded once": encoded_once,
    "rows leave": rows_leave,
}
"""Every check that needs one codec on one model. U7 (grouped heads) needs two models: `c7_groups`."""


def c7_groups(
    make: Callable[[Budget], Policy], budget: Budget, prompt: tuple[int, ...], host: Host | None = None
) -> None:
    """A model whose query heads are equal within each group holds the same as its ungrouped twin.

    host: None = the installed one.
    """
    host = host or installed_host()
    subjects = [CodecSubject(model, make, [prompt], budget, host=host) for model in twins(host)]
    runs = [follow(subject, [prompt], make(budget), n=0) for subject in subjects]
    assert runs[0].steps == runs[1].steps, "U7: the group reduction changes what equal heads keep"
    subjects[0].same(runs[0].held[0], runs[1].held[0], "U7")
