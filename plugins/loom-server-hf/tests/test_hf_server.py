"""A real model from folder to answer: equal to `generate`, whatever the batch; and what loading refuses."""

from __future__ import annotations

import itertools
import json
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from loom_server_hf.loading import choose_device, end_ids, set_threads
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.server import HFServer
from loom_server_hf.session import HFSession
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from loom_core.api import Arm, Generation, ModelError, Part, Prompt, Request, Response, Segment, build, installed

DENSE = Arm(name="dense")
New = Callable[..., Path]


def prompts(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids without specials."""
    draw = random.Random(seed)
    return [tuple(draw.randrange(7, 400) for _ in range(n)) for n in lengths]


def request(number: int, ids: tuple[int, ...], **generation: Any) -> Request:
    return Request(
        key=str(number),
        job=str(number),
        step=0,
        prompt=Prompt(segments=(Segment(kind="question", text=""),)),
        generation=Generation(**{"max_tokens": 16, **generation}),
        group="",
        seed=number,
        token_ids=ids,
    )


def ask(session: HFSession, requests: Sequence[Request], arm: Arm = DENSE) -> list[Response]:
    """The responses, in the order of the requests."""
    by_key = {response.key: response for response in session.generate(iter(requests), arm)}
    return [by_key[r.key] for r in requests]


def generated(model: Any, ids: tuple[int, ...], n: int) -> tuple[int, ...]:
    """What transformers generates greedily after one prompt."""
    out = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=n, do_sample=False, pad_token_id=0
    )
    return tuple(out[0, len(ids) :].tolist())


LENGTHS = (3, 40, 17, 90, 5, 64, 130, 1, 33, 71)


@pytest.mark.parametrize(("batch", "chunk"), [(1, 2048), (4, 2048), (10, 2048), (10, 16)])
def test_greedy_answers_equal_generate(model_folder: Path, batch: int, chunk: int) -> None:
    reference = AutoModelForCausalLM.from_pretrained(model_folder)
    asked = prompts(LENGTHS)
    expected = [generated(reference, ids, 16) for ids in asked]
    assert len(set(expected)) == len(expected), "the premise: the model's answers depend on the prompt"
    with HFServer(HFServerOptions(batch=batch, prefill_chunk=chunk)).open(
        str(model_folder), HFModelOptions(device="cpu")
    ) as session:
        responses = ask(session, [request(i, ids) for i, ids in enumerate(asked)])
    assert [r.token_ids for r in responses] == expected
    assert all(r.error is None and r.n_out == len(r.token_ids or ()) for r in responses)
    assert all(r.kv is not None and r.kv.kept == 1.0 for r in responses)


COMMON: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": 400, "initializer_range": 0.2},
    "gpt_neox": COMMON,
    "qwen2": {**COMMON, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**COMMON, "num_key_value_heads": 2, "head_dim": 32},
    "phi3": {**COMMON, "num_key_value_heads": 4},
    "mixtral": {**COMMON, "num_key_value_heads": 1, "num_local_experts": 4},
}


def save_family(folder: Path, family: str, tokenizer: Any, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**FAMILIES.get(family, COMMON), **changes})
    untyped: Any = AutoModelForCausalLM
    untyped.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_other_architectures_equal_generate(tmp_path: Path, family: str, new_tokenizer: Any) -> None:
    """Learned and rotary positions, query norms, one KV head, tied heads, experts."""
    folder = save_family(tmp_path, family, new_tokenizer())
    reference, asked = AutoModelForCausalLM.from_pretrained(folder), prompts((3, 40, 90, 64))
    with HFServer(HFServerOptions(prefill_chunk=32)).open(str(folder), HFModelOptions(device="cpu")) as session:
        responses = ask(session, [request(i, ids, max_tokens=8) for i, ids in enumerate(asked)])
    assert [r.token_ids for r in responses] == [generated(reference, ids, 8) for ids in asked]
    assert session.card.window == 256
    assert [r.kv and r.kv.bytes_dense for r in responses] == [
        len(ids) * (session.card.kv_bytes_per_token or 0) for ids in asked
    ]


def test_a_model_that_the_cache_cannot_reproduce_is_refused(tmp_path: Path, new_tokenizer: Any) -> None:
    folder = save_family(tmp_path, "mistral", new_tokenizer(), num_key_value_heads=2, sliding_window=16)
    assert "sliding window" in opening(folder).where


def test_an_end_token_stops_as_in_generate(copy_of_model: Path) -> None:
    """Every second token ends the answer, by a list in generation_config."""
    (copy_of_model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 400, 2))}))
    reference = AutoModelForCausalLM.from_pretrained(copy_of_model)
    asked = prompts(LENGTHS, seed=1)
    with HFServer(HFServerOptions()).open(str(copy_of_model), HFModelOptions(device="cpu")) as session:
        responses = ask(session, [request(i, ids) for i, ids in enumerate(asked)])
    assert [r.token_ids for r in responses] == [generated(reference, ids, 16) for ids in asked]
    assert {r.finish for r in responses} == {"stop"}


def test_sampling_does_not_depend_on_the_batch(model_folder: Path) -> None:
    asked = [request(i, ids, temperature=1.0, top_p=0.9) for i, ids in enumerate(prompts(LENGTHS))]
    answers = []
    for batch in (1, 5):
        with HFServer(HFServerOptions(batch=batch)).open(str(model_folder), HFModelOptions(device="cpu")) as session:
            answers.append([r.token_ids for r in ask(session, asked)])
    assert answers[0] == answers[1]


def test_stop_strings_on_a_real_model(model_folder: Path) -> None:
    ids = prompts([20])[0]
    with HFServer(HFServerOptions()).open(str(model_folder), HFModelOptions(device="cpu")) as session:
        free = ask(session, [request(0, ids)])[0]
        stop = free.text[4:7]
        stopped = ask(session, [request(0, ids, stop=(stop,))])[0]
    assert stopped.text == free.text[: free.text.find(stop)]
    assert stopped.finish == "stop"
    assert stopped.n_out < free.n_out


def test_the_random_baseline_runs_by_name(model_folder: Path) -> None:
    found = installed().augmentations.get("random")
    options = build(found.spec.options, {"budget": "16"}, owner="method random")
    part = Part(name="random", version="1", kind="model", options=options, text="random:budget=16")
    with HFServer(HFServerOptions()).open(str(model_folder), HFModelOptions(device="cpu")) as session:
        asked = [request(i, ids) for i, ids in enumerate(prompts([64, 8]))]
        long, short = ask(session, asked, Arm(name="random", parts=(part,)))
        dense = ask(session, asked)
    assert long.kv is not None
    assert long.kv.kept == pytest.approx(16 / 64)
    assert long.kv.bytes_held < long.kv.bytes_dense
    assert long.kv.asked == "16"
    assert short.token_ids == dense[1].token_ids  # shorter than the budget: nothing is evicted


@pytest.mark.parametrize(
    "options",
    [
        {"rope_theta": "1e6"},
        {"rope_type": "linear", "rope_factor": "4"},
        {"rope_type": "yarn", "rope_factor": "4"},
        {"rope_type": "yarn", "rope_factor": "2", "rope_theta": "5e5"},
    ],
)
def test_rope_overrides_equal_an_edited_configuration(
    model_folder: Path, copy_of_model: Path, options: dict[str, str]
) -> None:
    config = AutoConfig.from_pretrained(copy_of_model)
    rope: dict[str, Any] = {"rope_theta": float(options.get("rope_theta", config.rope_parameters["rope_theta"]))}
    rope["rope_type"] = options.get("rope_type", "default")
    if "rope_factor" in options:
        rope["factor"] = float(options["rope_factor"])
        config.max_position_embeddings = int(512 * rope["factor"])
    if rope["rope_type"] == "yarn":
        rope["original_max_position_embeddings"] = 512
    config.rope_parameters = rope
    config.save_pretrained(copy_of_model)
    reference = AutoModelForCausalLM.from_pretrained(copy_of_model)
    ids = prompts([300])[0]
    made = build(HFModelOptions, {**options, "device": "cpu"}, owner="server hf")
    with HFServer(HFServerOptions()).open(str(model_folder), made) as session:
        assert ask(session, [request(0, ids)])[0].token_ids == generated(reference, ids, 16)
        loaded = session._engine.model.config  # type: ignore[union-attr]
        assert loaded.max_position_embeddings == session.card.window == config.max_position_embeddings
    with HFServer(HFServerOptions()).open(str(model_folder), HFModelOptions(device="cpu")) as session:
        plain = ask(session, [request(0, ids)])[0].token_ids
    assert plain != generated(reference, ids, 16), "the premise: the override changes the answer"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype_is_the_one_asked_for(model_folder: Path, dtype: Any) -> None:
    options = HFModelOptions(device="cpu", dtype=dtype)
    with HFServer(HFServerOptions()).open(str(model_folder), options) as session:
        response = ask(session, [request(0, prompts([30])[0])])[0]
        assert session.card.facts["dtype"] == dtype
    assert response.kv is not None
    assert session.card.kv_bytes_per_token is not None
    assert response.kv.bytes_dense == pytest.approx(30 * session.card.kv_bytes_per_token, rel=0.2)


def test_describe_and_open_agree(model_folder: Path) -> None:
    server = HFServer(HFServerOptions())
    card = server.describe(str(model_folder), HFModelOptions(device="cpu"))
    with server.open(str(model_folder), HFModelOptions(device="cpu")) as session:
        assert session.card.digest == card.digest
        assert session.card.facts == card.facts


def test_a_closed_session_lets_go_of_the_model(model_folder: Path) -> None:
    with HFServer(HFServerOptions()).open(str(model_folder), HFModelOptions(device="cpu")) as session:
        weights = weakref.ref(session._engine.model)  # type: ignore[union-attr]
        ask(session, [request(0, prompts([5])[0])])
    assert weights() is None
    with pytest.raises(ModelError, match="closed"):
        ask(session, [request(0, prompts([5])[0])])


# --- what loading refuses ------------------------------------------------------------------------------------------


def opening(folder: Path, options: HFModelOptions | None = None) -> ModelError:
    with (
        pytest.raises(ModelError) as caught,
        HFServer(HFServerOptions()).open(str(folder), options or HFModelOptions(device="cpu")),
    ):
        pass
    assert caught.value.hint
    return caught.value


def test_a_checkpoint_without_its_head(copy_of_model: Path) -> None:
    weights = load_file(copy_of_model / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy_of_model / "model.safetensors", metadata={"format": "pt"})
    error = opening(copy_of_model)
    assert "does not fill the model" in error.what
    assert "lm_head.weight" in error.why


def test_a_checkpoint_of_another_size(copy_of_model: Path) -> None:
    weights = load_file(copy_of_model / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][:, :-1].clone()
    save_file(weights, copy_of_model / "model.safetensors", metadata={"format": "pt"})
    assert "tiny" in opening(copy_of_model).what or "copy" in opening(copy_of_model).what


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="cuda:99") as caught:
        choose_device("cuda:99")
    assert "CUDA device(s)" in caught.value.why


def test_the_device_by_default() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before, asked = torch.get_num_threads(), list[int]()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.delenv("LOOM_THREADS", raising=False)
    set_threads(None)
    monkeypatch.setenv("LOOM_THREADS", "3")
    set_threads(None)
    set_threads(2)
    monkeypatch.setenv("LOOM_THREADS", "many")
    set_threads(None)
    assert asked == [3, 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [(5, 6, {2, 5}), ([5, 7], 6, {2, 5, 7}), (None, 6, {2, 6}), (None, [6, 8], {2, 6, 8}), (None, None, {2})],
)
def test_end_ids(model_folder: Path, generation: Any, config: Any, expected: set[int]) -> None:
    model = LlamaForCausalLM.from_pretrained(model_folder)
    model.generation_config.eos_token_id, model.config.eos_token_id = generation, config

    class Known:
        eos_id, turn_end = 2, None

        @staticmethod
        def name_of(token: int) -> str:
            return str(token)

    assert end_ids(model, Known()) == expected


# --- the embedded model --------------------------------------------------------------------------------------------


def embedded() -> Path:
    """The folder of the model package, where it is installed."""
    catalog = installed()
    for found in catalog.models:
        if found.spec.server == "hf":
            return Path(catalog.load(found)())
    pytest.skip("no model package is installed")


def needle(key: str, depth: int, length: int) -> str:
    """A pass key hidden in filler, `depth` of `length` sentences in."""
    filler = ("Rain fell on the old harbour all morning. ", "A clerk counted boxes by the door. ")
    lines = [filler[i % 2] for i in range(length)]
    lines.insert(depth, f"The pass key is {key}. Remember it. {key} is the pass key. ")
    return "".join(lines) + "What is the pass key? The pass key is"


def test_the_embedded_model_finds_pass_keys_as_generate_does() -> None:
    folder, keys = embedded(), ("8213947", "5550123", "9071346")
    places = list(itertools.product(keys, ((2, 12), (30, 40), (75, 90))))
    with HFServer(HFServerOptions()).open(str(folder), HFModelOptions(device="cpu")) as session:
        assert session.card.tokenizer is not None
        asked = [tuple(session.card.tokenizer.encode(needle(key, *at), special=True)) for key, at in places]
        responses = ask(session, [request(i, ids) for i, ids in enumerate(asked)])
        stopped = ask(session, [request(i, ids, stop=(".",)) for i, ids in enumerate(asked)])
    reference = AutoModelForCausalLM.from_pretrained(folder)
    assert [r.token_ids for r in responses] == [generated(reference, ids, 16) for ids in asked]
    assert [r.text.strip() for r in stopped] == [key for key, _ in places]
    assert {r.finish for r in stopped} == {"stop"}
