"""What every KV-cache method must fulfil, whoever wrote it: checks U1, U2 and U4 to U8 of loom's method contract.

Each check takes a `Subject` (a model, a way to make the policy, prompts) and raises AssertionError with what it found.
U3, the recorded results of the authors' code, is `oracle`. Knows the contract and what a host does; no particular
method and no particular server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from loom_core.api import Budget
from loom_kv.policy import Policy
from loom_kv.testing.host import Answer, Host, installed_host
from loom_kv.testing.noise import assert_noise
from loom_kv.testing.subject import STEPS, Subject, Trace, assert_kept, fixed_tokens, largest


def u1_identity(subject: Subject) -> None:
    """A budget that holds prompt and answer changes nothing."""
    for prompt in subject.prompts:
        budget = Budget(tokens=len(prompt) + STEPS)
        trace, dense = subject.run([prompt], subject.make(budget)), subject.run([prompt], None)
        subject.agree(trace.logits, dense.logits, "U1")
        assert any("dense" in note for note in trace.batch.session.uses()[0].notes), "U1: the fall-back is not noted"


def u2_masked_dense(subject: Subject) -> None:
    """Later logits equal those of the dense cache with the evicted columns masked, step by step, and merges added.

    Not for a streamed prefill, where the prompt itself was read with gaps.
    """
    for prompt in subject.prompts:
        trace = subject.run([prompt], subject.make(subject.budget), subject.chunk)
        if trace.batch.session.clock is not None:
            return
        for number, step in enumerate(trace.steps):
            for head in (head for layer in step[0] for head in layer):
                assert head == sorted(set(head)), "U2: slots are not sorted by position"
                assert head[0] >= 0 and head[-1] < len(prompt) + number, "U2: a slot lies outside the text"
                assert number == 0 or head[-1] == len(prompt) + number - 1, "U2: a new token's slot is not the last"
        steps = [step[0] for step in trace.steps]
        tokens = fixed_tokens(1, subject.engine)
        expected = subject.host.masked_dense(subject.model, prompt, steps, tokens, trace.merges)
        subject.agree(trace.logits[0], expected, "U2")


ALONE = " (scored in a left-padded batch, not as alone: do padding columns count, or the width of the batch?)"


def u4_batch(subject: Subject) -> None:
    """A row of a left-padded batch keeps the same tokens and gives the same logits as alone."""
    together = subject.run(subject.prompts, subject.make(subject.budget))
    for row, prompt in enumerate(subject.prompts):
        alone = subject.run([prompt], subject.make(subject.budget))
        assert_kept(subject, together.kept[row], alone.kept[0], f"U4 row {row}{ALONE}")
        assert_noise(subject, together, alone, row, 0, f"U4 row {row}{ALONE}")
        if subject.exact:
            subject.agree(together.logits[row], alone.logits[0], f"U4 row {row}{ALONE}")
            for number, (mine, theirs) in enumerate(zip(together.steps, alone.steps, strict=True)):
                assert_kept(subject, mine[row], theirs[0], f"U4 row {row}, step {number}")


def u5_chunks(subject: Subject) -> None:
    """A prefill in chunks equals one shot."""
    for prompts in ([subject.prompts[0]], subject.prompts):
        whole = subject.run(prompts, subject.make(subject.budget))
        for chunk in (subject.chunk, 5):
            parts = subject.run(prompts, subject.make(subject.budget), chunk)
            for row in range(len(prompts)):
                assert_kept(subject, parts.kept[row], whole.kept[row], f"U5 chunk {chunk}")
                assert_noise(subject, parts, whole, row, row, f"U5 chunk {chunk}")
            if subject.exact:
                subject.agree(parts.logits, whole.logits, f"U5 chunk {chunk}")
                assert parts.steps == whole.steps, f"U5 chunk {chunk}: other slots are kept while decoding"


def u6_memory(subject: Subject) -> None:
    """Storages hold what the kept slots take, 2 % more at most. A slot's position costs 4 bytes and is counted.

    So is its score where a method evicts while decoding; such a method holds no more later but the new token's slot.
    In a batch only rows of unequal length may be padded.
    """
    geometry = subject.engine.geometry
    for prompt in subject.prompts:
        policy = subject.make(subject.budget)
        trace = subject.run([prompt], policy, subject.chunk)
        slot = (geometry.key_dim + geometry.value_dim) * geometry.dtype.itemsize + 4 + 4 * (policy.steps is not None)
        slots = _held_as_by_formula(trace, slot)
        allowed = policy.most_slots(len(prompt))
        _slots_as_asked(policy, len(prompt))
        if policy.saves == "real":
            assert slots <= allowed, f"U6: {slots} slots kept, the method allows {allowed}"
        if policy.steps is not None:
            later = sum(len(head) for layer in trace.steps[-1][0] for head in layer)
            assert later <= allowed, f"U6: {later} slots kept after {STEPS} steps, the method allows {allowed}"
            formula = (later + geometry.layers * geometry.kv_heads) * slot
            held = trace.batch.session.held_bytes()
            assert held <= 1.02 * formula, f"U6: {held} bytes held after {STEPS} steps, {formula} by the formula"
    equal = sorted(map(len, subject.prompts))[-2:][0]
    prompts = [prompt[:equal] for prompt in subject.prompts if len(prompt) >= equal]
    _held_as_by_formula(subject.run(prompts, subject.make(subject.budget), subject.chunk), slot)


def _slots_as_asked(policy: Policy, n_valid: int) -> None:
    """`Policy.slots` against the user's own Budget, computed here: what a method allows itself is no measure of it."""
    asked, given = policy.asked, policy.slots(n_valid)
    if asked.tokens is not None and policy.saves == "real":
        assert given <= asked.tokens, f"U6: slots() gives {given} slots per head for a budget of {asked.tokens}"


def _held_as_by_formula(trace: Trace, slot_bytes: int) -> int:
    """The slots of all rows at the end of the prompt; raises where more than 2 % beyond their bytes is held."""
    slots = sum(len(head) for row in trace.kept for layer in row for head in layer)
    formula = slots * slot_bytes
    assert trace.bytes_ <= 1.02 * formula, f"U6: {trace.bytes_} bytes held, {formula} by the formula"
    return slots


def u8_isolation(subject: Subject) -> None:
    """Prompts one after another through one policy equal fresh ones; repeating changes nothing."""
    policy = subject.make(subject.budget)
    for prompt in (*subject.prompts, *subject.prompts):
        used, fresh = subject.run([prompt], policy), subject.run([prompt], subject.make(subject.budget))
        assert used.steps == fresh.steps, "U8: a policy that has seen another prompt keeps other slots"
        assert torch.equal(used.logits, fresh.logits), "U8: a policy that has seen another prompt gives other logits"


def u8_detach(subject: Subject) -> None:
    """Afterwards the model is bit-equal: weights, attention implementation, logits."""
    model, ids = subject.model, torch.tensor([subject.prompts[0]])
    weights = {name: p.detach().clone() for name, p in model.state_dict().items()}
    implementation = model.config._attn_implementation
    with torch.inference_mode():
        before = model(ids).logits
        subject.run([subject.prompts[0]], subject.make(subject.budget))
        assert model.config._attn_implementation == implementation, "U8: the attention implementation is not restored"
        assert torch.equal(model(ids).logits, before), "U8: the model's logits have changed"
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), f"U8: {name} has changed"


def rows_leave(subject: Subject) -> None:
    """Rows that finish early leave the batch and change nothing for the others."""
    lengths = [2 + 3 * number for number in range(len(subject.prompts))]

    def answers(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> Mapping[int, Answer]:
        return subject.host.answers(subject.engine, prompts, lengths, subject.make(subject.budget))

    together = answers(subject.prompts, lengths)
    for index, (prompt, length) in enumerate(zip(subject.prompts, lengths, strict=True)):
        alone, result = answers([prompt], [length])[0], together[index]
        assert result.error is None, result.error
        assert len(result.token_ids) == length, f"row {index} has {len(result.token_ids)} tokens"
        slack = 1 / len(prompt) if subject.shared and not subject.exact else 1e-6
        assert abs(result.kv.kept - alone.kv.kept) <= slack, f"row {index}: kept depends on the batch"
        if subject.exact:
            assert result.token_ids == alone.token_ids, f"row {index} answers differently in a batch"


CHECKS: dict[str, Callable[[Subject], None]] = {
    "U1 identity": u1_identity,
    "U2 masked dense": u2_masked_dense,
    "U4 batch": u4_batch,
    "U5 chunks": u5_chunks,
    "U6 memory": u6_memory,
    "U8 isolation": u8_isolation,
    "U8 detach": u8_detach,
    "rows leave": rows_leave,
}
"""Every check that needs one method on one model. U7 (grouped heads) needs two models: `u7_groups`."""


def twins(host: Host) -> tuple[Any, Any]:
    """A model without grouped heads, and one that computes the same with two equal query heads in each group."""
    twin, grouped = (
        host.toy_model(kind, torch.float32, seed=0, query_heads=heads) for kind, heads in (("mha", 2), ("llama", 4))
    )
    state = twin.state_dict()
    for name, value in state.items():
        if name.endswith("q_proj.weight"):
            state[name] = value.view(2, 16, -1).repeat_interleave(2, dim=0).reshape(64, -1)
        elif name.endswith("o_proj.weight"):
            state[name] = value.view(-1, 2, 16).repeat_interleave(2, dim=1).reshape(-1, 64) / 2
    grouped.load_state_dict(state)
    return twin, grouped


def u7_groups(
    make: Callable[[Budget], Policy], budget: Budget, prompt: tuple[int, ...], host: Host | None = None
) -> None:
    """A model whose query heads are equal within each group keeps the same tokens as its ungrouped twin.

    host: None = the installed one.
    """
    host = host or installed_host()
    subjects = [Subject(model, make, [prompt], budget, host=host) for model in twins(host)]
    traces = [subject.run([prompt], make(budget)) for subject in subjects]
    assert traces[0].kept == traces[1].kept, "U7: the group reduction changes what equal heads keep"
    assert largest(traces[1].logits, traces[0].logits) < 1e-4, "U7: the logits differ"
