"""What every KV-cache method must fulfil, whoever wrote it: checks U1, U2 and U4 to U8 of loom's method contract.

Each check takes a `Subject` (a model, a way to make the policy, prompts) and raises AssertionError with what it found.
U3, the recorded results of the authors' code, is `oracle`. Knows the engine and the contract, no particular method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from loom_core.api import Budget
from loom_server_hf.conformance_noise import assert_noise, largest, recorded_scores, spread
from loom_server_hf.engine import Engine, Pass, Row
from loom_server_hf.kv import Merge, Policy, StepView
from loom_server_hf.kv.host import attached
from loom_server_hf.kv.streamed import StreamStore
from loom_server_hf.masked import masked_dense

STEPS = 6
"""Decoding steps that a check compares."""


def toy_model(kind: str, dtype: torch.dtype = torch.float32, *, seed: int = 0, query_heads: int = 4) -> Any:
    """A tiny random model with peaked attention: "llama" and "qwen3" (two KV heads), "mha" (as many as query heads)."""
    values: dict[str, Any] = {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": query_heads,
        "num_key_value_heads": query_heads if kind == "mha" else 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    config = Qwen3Config(**values) if kind == "qwen3" else LlamaConfig(**values)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # At the usual scale attention is flat, every score ties, and nothing is tested.
            if parameter.dim() == 2:
                parameter.mul_(6.0)
            elif name.endswith(("q_norm.weight", "k_norm.weight")):
                # Uneven weights: with equal ones every key has the same norm, and methods that rank by it see ties.
                parameter.mul_(1.0 + 2.0 * torch.rand(parameter.shape))
    return model.to(dtype).eval()


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
    """A method on a model. make: a fresh policy with a budget. prompts: of unequal lengths, longer than the budget.

    exact: float32. There logits agree to 2e-5 of their range; in sixteen bits to twice the distance that rounding alone
    puts between the dense model and its float32 twin.
    """

    model: Any
    make: Callable[[Budget], Policy]
    prompts: Sequence[tuple[int, ...]]
    budget: Budget
    chunk: int = 37
    engine: Engine = field(init=False)
    exact: bool = field(init=False)
    close: float = field(init=False)
    roundings: dict[tuple[int, ...], float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.model)
        self.exact = self.engine.geometry.dtype == torch.float32
        self.close = 2e-5 if self.exact else 2 * self._rounding()

    @property
    def shared(self) -> bool:
        """Scores decide how many slots a head or a layer keeps, so rounding of the number format may move a slot."""
        policy = self.make(self.budget)
        return type(policy).allot is not Policy.allot or policy.need.whole_model

    def slack(self, size: int) -> int:
        """Slots of each head that rounding may give to others, of a layer with `size` slots.

        One where a rule rounds the share of each head; a twentieth where the shares of layers follow from their sums.
        """
        if self.make(self.budget).need.whole_model:
            return max(1, size // (20 * self.engine.geometry.kv_heads))
        return int(self.shared)

    def _rounding(self) -> float:
        """How far the number format alone moves the dense logits."""
        twin = Engine(copy.deepcopy(self.model).float())
        distances = []
        for prompt in self.prompts:
            rows = []
            for engine in (self.engine, twin):
                with attached(engine.model):
                    batch = engine.start([prompt], [0], None)
                    rows.append(torch.stack([batch.prefill()[0], *map(batch.feed, fixed_tokens(1, engine))]))
            distances.append(spread(*rows))
        return max(distances)

    def score_rounding(self, prompt: tuple[int, ...]) -> float:
        """How far the number format alone moves the policy's scores of a prompt, in the layer where it does most."""
        if prompt not in self.roundings:
            twin = Subject(copy.deepcopy(self.model).float(), self.make, [prompt], self.budget)
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
        with attached(self.model):
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
    batch: Pass
    scores: list[Tensor] = field(default_factory=list)

    @property
    def kept(self) -> Kept:
        """What was kept of the prompt."""
        return self.steps[0]


def recorded_merges(policy: Policy | None) -> list[Merge | None]:
    """A list that the policy's merges will be written to; empty for policies that never merge."""
    merges: list[Merge | None] = []
    if policy is None or type(policy).merge is Policy.merge:
        return merges
    merge = type(policy).merge

    def recording(view: StepView, kept: Tensor) -> Merge | None:
        merges.append(merge(policy, view, kept))
        return merges[-1]

    setattr(policy, "merge", recording)  # noqa: B010
    return merges


def fixed_tokens(rows: int, engine: Engine) -> list[Tensor]:
    """Ids [b, 1] that are fed after the prompt, equal for all rows."""
    vocabulary = int(engine.model.get_input_embeddings().weight.shape[0])
    return [torch.full((rows, 1), (17 + 31 * step) % vocabulary) for step in range(STEPS)]


def kept_slots(batch: Pass) -> Kept:
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
        if isinstance(trace.batch.session.stores[0], StreamStore):
            return
        for number, step in enumerate(trace.steps):
            for head in (head for layer in step[0] for head in layer):
                assert head == sorted(set(head)), "U2: slots are not sorted by position"
                assert head[0] >= 0 and head[-1] < len(prompt) + number, "U2: a slot lies outside the text"
                assert number == 0 or head[-1] == len(prompt) + number - 1, "U2: a new token's slot is not the last"
        steps = [step[0] for step in trace.steps]
        expected = masked_dense(subject.model, prompt, steps, fixed_tokens(1, subject.engine), trace.merges)
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
        slot = (geometry.key_dim + geometry.value_dim) * geometry.dtype.itemsize + 4 + 4 * policy.need.decode
        slots = _held_as_by_formula(trace, slot)
        allowed = policy.most_slots(len(prompt))
        _slots_as_asked(policy, len(prompt))
        if policy.saves == "real":
            assert slots <= allowed, f"U6: {slots} slots kept, the method allows {allowed}"
        if policy.need.decode:
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
    rows = [
        Row(ids=prompt, max_tokens=2 + 3 * number, seed=100 + len(prompt), eos_ids=frozenset())
        for number, prompt in enumerate(subject.prompts)
    ]
    together = dict(subject.engine.run(rows, subject.make(subject.budget)))
    for index, row in enumerate(rows):
        alone = next(iter(subject.engine.run([row], subject.make(subject.budget))))[1]
        result = together[index]
        assert result.error is None, result.error
        assert len(result.token_ids) == row.max_tokens, f"row {index} has {len(result.token_ids)} tokens"
        slack = 1 / len(row.ids) if subject.shared and not subject.exact else 1e-6
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


def twins() -> tuple[Any, Any]:
    """A model without grouped heads, and one that computes the same with two equal query heads in each group."""
    twin, grouped = toy_model("mha", query_heads=2), toy_model("llama", query_heads=4)
    state = twin.state_dict()
    for name, value in state.items():
        if name.endswith("q_proj.weight"):
            state[name] = value.view(2, 16, -1).repeat_interleave(2, dim=0).reshape(64, -1)
        elif name.endswith("o_proj.weight"):
            state[name] = value.view(-1, 2, 16).repeat_interleave(2, dim=1).reshape(-1, 64) / 2
    grouped.load_state_dict(state)
    return twin, grouped


def u7_groups(make: Callable[[Budget], Policy], budget: Budget, prompt: tuple[int, ...]) -> None:
    """A model whose query heads are equal within each group keeps the same tokens as its ungrouped twin."""
    subjects = [Subject(model, make, [prompt], budget) for model in twins()]
    traces = [subject.run([prompt], make(budget)) for subject in subjects]
    assert traces[0].kept == traces[1].kept, "U7: the group reduction changes what equal heads keep"
    assert largest(traces[1].logits, traces[0].logits) < 1e-4, "U7: the logits differ"
