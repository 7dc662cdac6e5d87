"""The engine's own behaviour: ends of answers, sampling, failing rows, budgets, refused models, memory figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from loom_kv import Allotment, LayerView, Policy, Stream
from loom_kv.testing import Subject, toy_model, toy_prompts
from loom_server_hf.baselines import RandomEviction
from loom_server_hf.engine import Engine, Row, RowResult
from loom_server_hf.host import attached
from loom_server_hf.memory import PeakMemory
from loom_server_hf.options import RandomOptions
from torch import Tensor

from loom_core.api import Budget, ModelError

PROMPTS = toy_prompts((60, 45, 70), 128)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_model("llama"))


def row(ids: tuple[int, ...], **changes: Any) -> Row:
    values: dict[str, Any] = {"ids": ids, "max_tokens": 8, "seed": 5, "eos_ids": frozenset()}
    return Row(**{**values, **changes})


def answers(engine: Engine, rows: Sequence[Row], policy: Policy | None = None) -> list[RowResult]:
    results = dict(engine.run(rows, policy))
    return [results[index] for index in range(len(rows))]


@dataclass(frozen=True)
class Options:
    budget: Budget


class Newest(Policy):
    """Keeps the newest tokens; spoils the scores of rows with a marked seed."""

    name = "newest"

    def score(self, view: LayerView) -> Tensor:
        scores = view.positions.float()
        for index, seed in enumerate(view.seeds):
            if seed == 666 and view.layer == 1:
                scores[index, 0, -1] = torch.nan
            if seed == 777 and view.layer == 2:
                scores[index, 0, -2] = torch.inf
        return scores


def test_greedy_equals_generate(engine: Engine) -> None:
    rows = [row(p, min_tokens=8, eos_ids=frozenset({2})) for p in PROMPTS]
    for prompt, result in zip(PROMPTS, answers(engine, rows), strict=True):
        own = engine.model.generate(torch.tensor([prompt]), max_new_tokens=8, min_new_tokens=8, do_sample=False)
        assert result.token_ids == tuple(own[0, len(prompt) :].tolist())
        assert result.finish == "length"
        assert result.started <= result.first_token <= result.ended


def test_ends_of_answers(engine: Engine) -> None:
    (plain,) = answers(engine, [row(PROMPTS[0])])
    third = plain.token_ids[2]
    first_at = plain.token_ids.index(third)
    stopped, waiting, string = answers(
        engine,
        [
            row(PROMPTS[0], eos_ids=frozenset({third})),
            row(PROMPTS[0], eos_ids=frozenset({third}), min_tokens=6),
            row(PROMPTS[0], stop=lambda ids: len(ids) == 4),
        ],
    )
    assert (stopped.token_ids, stopped.finish) == (plain.token_ids[: first_at + 1], "stop")
    assert len(waiting.token_ids) >= 6
    assert third not in waiting.token_ids[:6]
    assert (string.token_ids, string.finish) == (plain.token_ids[:4], "stop")


def test_sampling_depends_on_the_seed_not_on_the_batch(engine: Engine) -> None:
    def hot(seed: int, **changes: Any) -> Row:
        return row(PROMPTS[0], temperature=1.5, seed=seed, **changes)

    alone = [answers(engine, [hot(seed)])[0].token_ids for seed in (1, 2, 3)]
    assert len(set(alone)) > 1
    together = answers(engine, [hot(3), row(PROMPTS[1]), hot(1, max_tokens=3), hot(2)])
    assert [together[i].token_ids for i in (2, 3, 0)] == [alone[0][:3], alone[1], alone[2]]
    (greedy,) = answers(engine, [row(PROMPTS[0])])
    assert answers(engine, [hot(1, top_p=1e-6)])[0].token_ids == greedy.token_ids


def test_rows_that_fail_do_not_stop_others(engine: Engine) -> None:
    policy = Newest(Options(Budget(tokens=16)))
    rows = [
        row(PROMPTS[0]),
        row(PROMPTS[1], seed=666),
        row(()),
        row(PROMPTS[2], seed=777),
        row(PROMPTS[2], max_tokens=0),
    ]
    good, nan, empty, infinite, none = answers(engine, rows, policy)
    assert good.error is None
    assert good.token_ids == answers(engine, rows[:1], policy)[0].token_ids
    assert nan.error is not None and "layer 1" in nan.error and "newest" in nan.error
    assert infinite.error is not None and "layer 2" in infinite.error
    assert empty.error is not None and "empty" in empty.error
    assert none.error is not None and "max_tokens=0" in none.error
    assert all(not failed.token_ids for failed in (nan, empty, infinite, none))


def test_a_budget_below_what_is_protected_is_refused_with_the_arithmetic(engine: Engine) -> None:
    class Protecting(Newest):
        first, last = 4, 20

    result, fits = answers(engine, [row(PROMPTS[0]), row(PROMPTS[0][:10])], Protecting(Options(Budget(ratio=0.25))))
    assert result.error is not None
    assert "15 slots" in result.error and "takes 24" in result.error
    assert fits.error is not None, "a tenth of a prompt is below 24 too"
    (dense,) = answers(engine, [row(PROMPTS[0][:10])], Protecting(Options(Budget(tokens=12))))
    assert dense.error is None
    assert dense.kv.kept == 1.0
    assert dense.kv.notes == ("dense: the prompt of 10 tokens fits the budget of 12",)


def test_budgets_in_tokens_ratio_and_bytes(engine: Engine) -> None:
    prompt = PROMPTS[0]
    per_token = engine.geometry.bytes_per_token
    for budget, slots in ((Budget(tokens=20), 20), (Budget(ratio=0.25), 15), (Budget(bytes_=per_token * 12 + 5), 12)):
        (result,) = answers(engine, [row(prompt)], Newest(Options(budget)))
        use = result.kv
        assert use.kept == pytest.approx(slots / len(prompt))
        assert use.asked == str(budget)
        assert use.bytes_dense == len(prompt) * per_token
        assert slots * per_token <= use.bytes_held <= slots * (per_token + 4 * engine.geometry.layers)
        assert use.saves == "real"


def test_kept_does_not_depend_on_batch_mates(engine: Engine) -> None:
    policy = Newest(Options(Budget(tokens=50)))
    together = answers(engine, [row(p) for p in PROMPTS], policy)
    for prompt, result in zip(PROMPTS, together, strict=True):
        assert result.kv.kept == pytest.approx(min(1.0, 50 / len(prompt)))


def test_uneven_heads_and_layers(engine: Engine) -> None:
    """Allotments may differ per layer and head; empty slots are hidden, later logits equal the masked dense cache."""

    class Uneven(Newest):
        def budget(self, view: LayerView) -> Allotment:
            return Allotment(slots=[[10 + 5 * view.layer, 30 - 7 * view.layer] for _ in view.n_valid])

    from loom_kv.testing import u2_masked_dense, u4_batch

    subject = Subject(engine.model, lambda budget: Uneven(Options(budget)), PROMPTS, Budget(tokens=30))
    u2_masked_dense(subject)
    u4_batch(subject)
    kept = subject.run([PROMPTS[0]], Uneven(Options(Budget(tokens=30)))).kept[0]
    assert [[len(head) for head in layer] for layer in kept] == [[10, 30], [15, 23], [20, 16]]


def test_several_tokens_at_once_after_eviction(engine: Engine) -> None:
    tokens = torch.tensor([[5, 9, 30, 7]])
    logits = []
    for split in ([1, 1, 1, 1], [4], [3, 1]):
        with attached(engine.model):
            batch = engine.start([PROMPTS[0]], [0], RandomEviction(RandomOptions(budget=Budget(tokens=20))))
            batch.prefill()
            logits.append([batch.feed(part) for part in torch.split(tokens, split, dim=1)][-1])
    for one, other in itertools.pairwise(logits):
        assert torch.allclose(one, other, atol=1e-4)


def test_random_is_uniform_and_draws_per_head(engine: Engine) -> None:
    subject = Subject(engine.model, lambda b: RandomEviction(RandomOptions(budget=b)), PROMPTS[:1], Budget(tokens=15))
    kept = subject.run(PROMPTS[:1], subject.make(subject.budget)).kept[0]
    assert len({tuple(head) for layer in kept for head in layer}) == 6, "every layer and head draws anew"
    counts = torch.zeros(60)
    for seed in range(60):
        policy = RandomEviction(RandomOptions(budget=Budget(tokens=15), seed=seed))
        for layer in subject.run(PROMPTS[:1], policy).kept[0]:
            for head in layer:
                counts[head] += 1
    share = counts / (60 * 6)
    assert abs(float(share.mean()) - 0.25) < 1e-6
    assert float(share.min()) > 0.15 and float(share.max()) < 0.35


def test_peak_memory_sees_an_allocation() -> None:
    with PeakMemory(torch.device("cpu")) as peak:
        before = peak.bytes()
        torch.ones(64 * 2**20, dtype=torch.uint8)
        after = peak.bytes()
    if before is None or after is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    assert after - before > 32 * 2**20


def test_a_model_in_use_cannot_be_called_from_outside(engine: Engine) -> None:
    running = engine.run([row(PROMPTS[0], max_tokens=2), row(PROMPTS[1], max_tokens=5)], None)
    next(running)
    with pytest.raises(ModelError, match="no session"):
        engine.model(torch.tensor([PROMPTS[0]]))
    running.close()
    engine.model(torch.tensor([PROMPTS[0]]))


# --- which models --------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLA: dict[str, Any] = {
    **TINY,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}
WORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", TINY),
    "llama, yarn": (
        "LlamaConfig",
        {
            **TINY,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e4,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "mistral": ("MistralConfig", {**TINY, "sliding_window": None}),
    "qwen2": ("Qwen2Config", TINY),
    "qwen3": ("Qwen3Config", {**TINY, "head_dim": 16}),
    "phi3": ("Phi3Config", TINY),
    "glm4": ("Glm4Config", {**TINY, "head_dim": 16}),
    "mixtral": ("MixtralConfig", {**TINY, "num_local_experts": 2}),
    "deepseek v2": ("DeepseekV2Config", {**MLA, "q_lora_rank": None}),
    "deepseek v3": ("DeepseekV3Config", {**MLA, "q_lora_rank": 16}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral, sliding": ("MistralConfig", {**TINY, "sliding_window": 32}, "sliding window"),
    "qwen2, sliding": (
        "Qwen2Config",
        {**TINY, "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
        "layer 1 (rule: full attention)",
    ),
    "llama, odd group": (
        "LlamaConfig",
        {**TINY, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 4},
        "layer 0 (rule: group size)",
    ),
    "gemma3": ("Gemma3TextConfig", {**TINY, "head_dim": 16}, "layer 0 (rule: full attention)"),
    "gemma2, capped": (
        "Gemma2Config",
        {**TINY, "head_dim": 16, "layer_types": ["full_attention"] * 3},
        "layer 0 (rule: logit soft-capping)",
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            **TINY,
            "head_dim": 16,
            "num_local_experts": 2,
            "num_experts_per_tok": 2,
            "layer_types": ["full_attention"] * 3,
        },
        "layer 0 (rule: attention sinks)",
    ),
    "bloom": ("BloomConfig", {"vocab_size": 128, "hidden_size": 64, "n_layer": 2, "n_head": 4}, "attention interface"),
}


class InCache(Newest):
    """The streamed form with in-cache positions."""

    def stream(self, n_valid: int) -> Stream:
        return Stream(sinks=2, recent=10, in_cache=True)


def tiny(name: str, values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    return auto.from_config(getattr(transformers, name)(**values)).eval()


@pytest.mark.parametrize("kind", WORKS)
def test_models_that_work_equal_generate(kind: str) -> None:
    model = tiny(*WORKS[kind])
    engine = Engine(model, prefill_chunk=16)
    rows = [row(prompt, max_tokens=5, min_tokens=5, eos_ids=frozenset({2})) for prompt in PROMPTS]
    for prompt, result in zip(PROMPTS, answers(engine, rows), strict=True):
        own = model.generate(torch.tensor([prompt]), max_new_tokens=5, min_new_tokens=5, do_sample=False)
        assert result.token_ids == tuple(own[0, len(prompt) :].tolist())


@pytest.mark.parametrize("kind", WORKS)
def test_in_cache_positions_work_or_are_refused_by_rule(kind: str) -> None:
    engine = Engine(tiny(*WORKS[kind]))
    (result,) = answers(engine, [row(PROMPTS[0])], InCache(Options(Budget(tokens=12))))
    if kind.startswith("deepseek"):
        assert result.error is not None and "rule: rotary" in result.error
    else:
        assert result.error is None
        assert result.kv.kept == pytest.approx(12 / 60)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_are_refused(kind: str) -> None:
    name, values, rule = REFUSED[kind]
    with pytest.raises(ModelError) as caught:
        Engine(tiny(name, values))
    assert rule in str(caught.value)
