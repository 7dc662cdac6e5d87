"""The rwkv server: random RWKV-4 weights against transformers' Rwkv; stop strings, limits, refusals, the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rwkv", reason="needs the package rwkv")

import torch
from hypothesis import given, settings, strategies as st
from loom_server_rwkv.plugin import RwkvModelOptions, RwkvOptions
from loom_server_rwkv.server import RwkvServer, checkpoint
from loom_server_rwkv.session import RwkvSession, choose
from loom_server_rwkv.world import WorldTokenizer
from torch import Tensor

from loom_core.api import (
    Arm,
    Generation,
    LoomError,
    ModelError,
    Prompt,
    Request,
    Response,
    Segment,
    build,
    installed,
    parse_arms,
)
from loom_core.registry.names import refusal

transformers = pytest.importorskip("transformers", reason="the reference is transformers' Rwkv")
DENSE = Arm(name="dense")
VOCABULARY = 300


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names of RWKV-4 weights as the rwkv package's."""
    pairs = (
        ("rwkv.", ""),
        ("embeddings.", "emb."),
        ("head.", "head."),
        (".pre_ln.", ".ln0."),
        (".attention.", ".att."),
        (".feed_forward.", ".ffn."),
        ("time_mix_key", "time_mix_k"),
        ("time_mix_value", "time_mix_v"),
        ("time_mix_receptance", "time_mix_r"),
    )
    found = {}
    for name, tensor in weights.items():
        for theirs, ours in pairs:
            name = name.replace(theirs, ours)
        found[name] = tensor.clone()
    return found


@pytest.fixture(scope="module")
def reference() -> Any:
    """A tiny random Rwkv of transformers whose weights are all random, as trained ones are."""
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, intermediate_size=64, rescale_every=0
    )
    model = transformers.RwkvForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "time_mix" in name:
                parameter.uniform_(0.0, 1.0)
            elif "ln" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "time" in name:
                parameter.normal_(0.0, 1.0)
            else:
                parameter.normal_(0.0, 0.4)
    return model.eval()


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rwkv")
    torch.save(renamed(reference.state_dict()), path / "tiny.pth")
    return path


@pytest.fixture(scope="module")
def session(folder: Path) -> Any:
    with RwkvServer(RwkvOptions(prefill_chunk=16)).open(str(folder), RwkvModelOptions(window=200)) as opened:
        yield opened


def request(key: str, ids: tuple[int, ...], protocol: Any = "query-aware", **limits: Any) -> Request:
    prompt = Prompt(segments=(Segment(kind="question", text="x"),))
    generation = Generation(**{"max_tokens": 12, **limits})
    return Request(
        key=key,
        job=key,
        step=0,
        prompt=prompt,
        generation=generation,
        group="",
        seed=4,
        token_ids=ids,
        protocol=protocol,
    )


def ids(n: int) -> tuple[int, ...]:
    return tuple((place * 37 + 11) % (VOCABULARY - 1) + 1 for place in range(n))


def ask(session: RwkvSession, *requests: Request) -> list[Response]:
    return list(session.generate(iter(requests), DENSE))


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 70])
@torch.inference_mode()
def test_logits_equal_those_of_transformers(session: Any, reference: Any, n: int) -> None:
    logits, state = session.read(ids(n))
    read = list(ids(n))
    for token in (5, 77, 120):
        expected = reference(torch.tensor([read]), use_cache=False).logits[0, -1]
        assert float((logits - expected).abs().max()) < 1e-4 and float(expected.abs().max()) > 0.5
        logits, state = session._model.forward([token], state)
        read.append(token)


@torch.inference_mode()
def test_greedy_answers_equal_transformers(session: Any, reference: Any) -> None:
    (answer,) = ask(session, request("a", ids(40)))
    read = list(ids(40))
    for token in answer.token_ids or ():
        logits = reference(torch.tensor([read]), use_cache=False).logits[0, -1]
        assert float(logits.max() - logits[token]) < 1e-4
        read.append(token)
    assert answer.n_in == 40 and answer.n_out == len(answer.token_ids or ()) and answer.timing.batch == 1


def test_the_state_does_not_grow(session: Any) -> None:
    short, long = ask(session, request("a", ids(5)), request("b", ids(150)))
    assert short.kv is not None and long.kv is not None
    assert short.kv.bytes_held == long.kv.bytes_held == 3 * 5 * 32 * 4


def test_what_does_not_fit_is_an_error(session: Any) -> None:
    found = ask(
        session,
        request("long", ids(195)),
        request("empty", ()),
        request("only", ids(5), "context-only"),
        request("strange", (99999,)),
        request("fine", ids(5)),
    )
    told = ("does not fit the window", "empty", "rule: own state", "IndexError")
    assert [error for answer, text in zip(found, told, strict=False) if text not in (error := str(answer.error))] == []
    assert found[-1].error is None


def test_stop_strings_and_least_tokens(session: Any) -> None:
    (plain,) = ask(session, request("a", ids(30)))
    assert len(plain.text) > 3
    stop = plain.text[2:4]
    (cut,) = ask(session, request("b", ids(30), stop=(stop,)))
    assert cut.text == plain.text[: plain.text.index(stop)] and cut.finish == "stop" and cut.n_out <= plain.n_out
    (least,) = ask(session, request("c", ids(30), stop=(stop,), min_tokens=12))
    assert least.n_out == 12


def test_draws_are_seeded_and_an_end_can_be_banned(session: Any) -> None:
    one, two = ask(session, request("a", ids(9), temperature=1.0), request("b", ids(9), temperature=1.0))
    assert one.token_ids == two.token_ids
    logits = torch.zeros(50)
    logits[7] = 9.0
    greedy, nucleus = Generation(max_tokens=1), Generation(max_tokens=1, temperature=1.0, top_p=0.5)
    generator = torch.Generator().manual_seed(0)
    assert choose(logits, greedy, generator, ()) == 7 and choose(logits, greedy, generator, {7}) != 7
    assert {choose(logits, nucleus, generator, ()) for _ in range(50)} == {7}
    drawn = {choose(torch.zeros(4), Generation(max_tokens=1, temperature=1.0), generator, {2}) for _ in range(200)}
    assert drawn == {0, 1, 3}


def test_methods_are_refused(session: Any) -> None:
    catalog = installed()
    if "snapkv" not in catalog.augmentations:
        pytest.skip("needs loom-accel-snapkv")
    arm = parse_arms(["snapkv:budget=64"], catalog)[-1]
    assert refusal(arm, catalog.servers.get("rwkv").spec.capabilities, "rwkv", catalog) is not None
    with pytest.raises(ModelError) as caught:
        list(session.generate(iter([]), arm))
    assert "rule: own state" in caught.value.where and "layer 0" in caught.value.where


def test_files_that_are_no_checkpoint(tmp_path: Path, folder: Path) -> None:
    assert checkpoint(str(folder)) == checkpoint(str(folder / "tiny.pth"))
    server = RwkvServer(RwkvOptions())
    for name in (str(tmp_path), str(tmp_path / "none.pth")):
        with pytest.raises(ModelError, match="not an RWKV checkpoint"):
            server.describe(name, RwkvModelOptions())
    (tmp_path / "a.pth").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="not an RWKV checkpoint"), server.open(str(tmp_path), RwkvModelOptions()):
        pass
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="not an RWKV checkpoint"), server.open(str(tmp_path), RwkvModelOptions()):
        pass
    torch.save({"emb.weight": torch.zeros(2, 2)}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="did not load this"), server.open(str(tmp_path), RwkvModelOptions()):
        pass


def test_the_digest_is_of_the_file(folder: Path, tmp_path: Path) -> None:
    server, data = RwkvServer(RwkvOptions()), (folder / "tiny.pth").read_bytes()
    (tmp_path / "other.pth").write_bytes(data + b"0")
    one, other = (server.describe(str(path), RwkvModelOptions()) for path in (folder, tmp_path))
    assert one.digest != other.digest and one.name == "tiny" and one.window is None


@pytest.fixture(scope="module")
def world() -> WorldTokenizer:
    return WorldTokenizer()


@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_vocabulary_gives_the_text_back(world: WorldTokenizer, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    tokens, spans = world.offsets(text)
    assert world.decode(tokens) == text and world.encode(text) == tokens
    assert all(start < end for start, end in spans)
    assert {place for start, end in spans for place in range(start, end)} == set(range(len(text)))


def test_ids_that_stand_for_nothing(world: WorldTokenizer) -> None:
    assert world.decode([0]) == "" and world.decode([10**6]) == "\ufffd" and world.chat([]) is None


@pytest.mark.parametrize("values", [{"strategy": "tpu fp32"}, {"window": "0"}, {"tokeniser": "x"}])
def test_bad_options(values: dict[str, str]) -> None:
    with pytest.raises(LoomError):
        build(RwkvModelOptions, values, owner="server rwkv")
