"""The vllm server without vLLM: options, arguments, cards, refusals, and its session over an engine made for the test.

What vLLM itself does is tried in `test_vllm_engine`.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from loom_server_vllm.plugin import VllmOptions
from loom_server_vllm.server import VllmServer, check_names, import_vllm
from loom_server_vllm.session import VllmSession

from loom_core.api import (
    Arm,
    Generation,
    LoomError,
    ModelCard,
    ModelError,
    Prompt,
    Request,
    UsageError,
    build,
    installed,
    parse_arms,
    segment,
)
from loom_core.api.serving import EngineModelOptions, engines, readers


@pytest.fixture(scope="module")
def model() -> str:
    """The folder of the embedded model."""
    if "loom-tiny" not in installed().models or "hf" not in installed().servers:
        pytest.skip("needs loom-model-tiny and loom-server-hf")
    return str(installed().load(installed().models.get("loom-tiny"))())


@pytest.fixture(scope="module")
def card(model: str) -> ModelCard:
    return VllmServer(VllmOptions()).describe(model, EngineModelOptions())


CONFIG = types.SimpleNamespace(
    model_config=types.SimpleNamespace(max_model_len=64), device_config=types.SimpleNamespace(device_type="cpu")
)


@dataclass
class Engine:
    """Answers every request with the same ids at its second step; refuses prompts that begin with 13."""

    ids: tuple[int, ...] = (5, 6, 7)
    reason: str = "length"
    asked: list[tuple[str, dict[str, Any], Any]] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    most: int = 0
    vllm_config: Any = field(default_factory=lambda: CONFIG)
    engine_core: Any = None

    def add_request(self, name: str, prompt: dict[str, Any], params: Any, lora_request: Any = None) -> None:
        if prompt["prompt_token_ids"][0] == 13:
            raise ValueError("an unlucky number")
        self.asked.append((name, prompt, params))
        self.steps[name] = 0
        self.most = max(self.most, len(self.steps))

    def step(self) -> Iterator[Any]:
        for name in list(self.steps):
            self.steps[name] += 1
            finished = self.steps[name] == 2
            if finished:
                del self.steps[name]
            given = types.SimpleNamespace(token_ids=self.ids, finish_reason=self.reason, stop_reason=None)
            yield types.SimpleNamespace(
                request_id=name, finished=finished, outputs=[given], num_cached_tokens=4, metrics=None
            )

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine, with stand-ins for the three modules of vLLM that a session imports."""
    package, sampling, lora = (types.ModuleType(name) for name in ("vllm", "vllm.sampling_params", "vllm.lora.request"))
    package.SamplingParams = lambda **given: types.SimpleNamespace(**given)  # type: ignore[attr-defined]
    package.__version__ = "0"  # type: ignore[attr-defined]
    sampling.RequestOutputKind = types.SimpleNamespace(FINAL_ONLY="final")  # type: ignore[attr-defined]
    lora.LoRARequest = lambda *given: given  # type: ignore[attr-defined]
    for module in (package, types.ModuleType("vllm.lora"), sampling, lora):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return Engine()


def request(number: int, ids: tuple[int, ...] = (1, 2, 3), group: str = "g", **limits: Any) -> Request:
    name, prompt = str(number), Prompt(segments=(segment("question", "?"),))
    generation = Generation(max_tokens=3, **limits)
    return Request(key=name, job=name, step=0, prompt=prompt, generation=generation, group=group, seed=9, token_ids=ids)


def session(engine: Engine, card: ModelCard, **options: Any) -> VllmSession:
    return VllmSession(types.SimpleNamespace(llm_engine=engine), card, VllmOptions(**options))


def test_every_request_is_answered_and_the_engine_is_kept_full(engine: Engine, card: ModelCard) -> None:
    opened = session(engine, card, max_batch=2)
    responses = list(opened.generate(iter([request(n) for n in range(11)]), Arm(name="dense")))
    assert sorted(int(r.key) for r in responses) == list(range(11))
    assert engine.most == 4, "twice the batch is in the engine's hands"
    assert {(r.n_in, r.n_out, r.n_cached, r.finish) for r in responses} == {(3, 3, 4, "length")}


def test_requests_of_one_context_follow_each_other(engine: Engine, card: ModelCard) -> None:
    requests = [request(n, group="ab"[n % 2]) for n in range(6)]
    list(session(engine, card).generate(iter(requests), Arm(name="dense")))
    assert [name for name, _, _ in engine.asked] == [str(n) for n in range(1, 7)]
    opened = session(engine, card)
    order = [r.key for r in opened.generate(iter(requests), Arm(name="dense"))]
    assert order == ["0", "2", "4", "1", "3", "5"]


def test_what_does_not_fit_or_is_refused_is_a_recorded_error(engine: Engine, card: ModelCard) -> None:
    requests = [request(0, tuple(range(1, 63))), request(1, (13,)), request(2), request(3, ())]
    responses = {r.key: r for r in session(engine, card).generate(iter(requests), Arm(name="dense"))}
    assert "does not fit the window: 62 tokens + 3 new = 65 > 64" in str(responses["0"].error)
    assert responses["1"].error == "vLLM refuses the request: an unlucky number"
    assert responses["2"].error is None and "empty" in str(responses["3"].error)


def test_an_engine_stops_at_every_end_of_the_model(engine: Engine, card: ModelCard) -> None:
    other = replace(card, facts={**card.facts, "end_ids": [2, 6, 99]})
    list(session(engine, other).generate(iter([request(1)]), Arm(name="dense")))
    assert engine.asked[0][2].stop_token_ids == [2, 6, 99]


def test_greedy_is_greedy_and_draws_are_seeded(engine: Engine, card: ModelCard) -> None:
    requests = [request(0), request(1, temperature=0.7, stop=("x",), min_tokens=2)]
    list(session(engine, card).generate(iter(requests), Arm(name="dense")))
    greedy, drawn = (params for _, _, params in engine.asked)
    assert (greedy.temperature, greedy.seed, greedy.stop, greedy.detokenize) == (0.0, None, None, False)
    assert (drawn.temperature, drawn.seed, drawn.stop, drawn.min_tokens, drawn.detokenize) == (0.7, 9, ["x"], 2, True)


def test_the_end_token_is_no_text(engine: Engine, card: ModelCard) -> None:
    engine.reason = "stop"
    (response,) = session(engine, card).generate(iter([request(0)]), Arm(name="dense"))
    assert card.tokenizer is not None
    assert response.token_ids == (5, 6, 7) and response.text == card.tokenizer.decode([5, 6])


def test_an_abandoned_run_gives_its_requests_back(engine: Engine, card: ModelCard) -> None:
    answers = session(engine, card, max_batch=2).generate(iter([request(n) for n in range(9)]), Arm(name="dense"))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(engine.aborted) == 3


def test_a_given_up_request_is_an_error(engine: Engine, card: ModelCard) -> None:
    engine.reason = "abort"
    (response,) = session(engine, card).generate(iter([request(0)]), Arm(name="dense"))
    assert response.finish == "error" and "abort" in str(response.error)


def test_cache_methods_are_refused_when_the_run_is_planned() -> None:
    from loom_core.registry.names import refusal

    catalog = installed()
    if "snapkv" not in catalog.augmentations:
        pytest.skip("needs loom-accel-snapkv")
    arm = parse_arms(("snapkv:budget=64",), catalog)[-1]
    problem = refusal(arm, catalog.servers.get("vllm").spec.capabilities, "vllm", catalog)
    assert problem is not None and "hf" in str(problem)


def test_further_engine_arguments(model: str, card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("block_size = 32")
    (tmp_path / "a.json").write_text('{"swap_space": 1}')
    for text, name in (
        ('{"kv_cache_dtype": "fp8"}', "kv_cache_dtype"),
        (str(tmp_path / "a.toml"), "block_size"),
        (str(tmp_path / "a.json"), "swap_space"),
    ):
        assert name in VllmServer(VllmOptions(engine=text)).arguments(card, EngineModelOptions())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"dtype": "half"}', "model option dtype"),
        ("{nonsense", "cannot be read"),
        ("./nowhere.json", "cannot be read"),
        ('{"max_num_seqs": 3}', "max_batch"),
    ],
)
def test_bad_engine_arguments(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        VllmServer(VllmOptions(engine=text))


def test_an_argument_that_vllm_does_not_have() -> None:
    with pytest.raises(UsageError, match="no engine argument 'blocksize'"):
        check_names({"blocksize": 1}, {"block_size", "model"})


def test_the_card_is_the_one_of_every_server(model: str, card: ModelCard) -> None:
    other = readers.model_card(model, asked_by="test")
    assert card.digest == other.digest and card.window == other.window
    small = VllmServer(VllmOptions()).describe(model, EngineModelOptions(window=512))
    assert small.window == 512
    arguments = VllmServer(VllmOptions()).arguments(card, EngineModelOptions())
    assert arguments["dtype"] == "float32" and arguments["model"] == card.path and "max_model_len" not in arguments


def test_an_adapter_makes_another_model(model: str, card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    options = EngineModelOptions(lora=str(tmp_path))
    server = VllmServer(VllmOptions())
    with_it = server.describe(model, options)
    assert with_it.digest != card.digest and with_it.facts["lora_rank"] == 16
    assert server.arguments(with_it, options)["max_lora_rank"] == 16
    (tmp_path / "adapter_model.safetensors").write_bytes(b"other")
    assert server.describe(model, options).digest != with_it.digest
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="not a LoRA adapter"):
        server.describe(model, options)


def test_without_vllm_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    for name in ("VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ModelError, match="--python PATH"):
        import_vllm(own_process=False)


def test_an_engine_that_does_not_start_is_told_in_its_own_words() -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("first\n\nno memory is left\nfree some")

    with pytest.raises(ModelError) as caught:
        engines.start(refuse, {}, name="vLLM", model="tiny")
    assert "no memory is left | free some" in str(caught.value)


@pytest.mark.parametrize("values", [{"memory": "2"}, {"max_batch": "0"}, {"tensor_parallel": "0"}, {"eager": "maybe"}])
def test_bad_options(values: dict[str, str]) -> None:
    with pytest.raises(LoomError):
        build(VllmOptions, values, owner="server vllm")
