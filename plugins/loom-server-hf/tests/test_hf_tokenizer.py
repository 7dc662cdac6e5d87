"""The tokenizer: ids and text agree, offsets tile the text, BOS is measured, templates are rendered reproducibly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_server_hf.folder import read_object
from loom_server_hf.tokenizer import HFTokenizer, load_tokenizer
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from loom_core.api import ModelError

New = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def tokenizer(new_tokenizer: New) -> HFTokenizer:
    return HFTokenizer(new_tokenizer())


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_decode_gives_the_text_back(tokenizer: HFTokenizer, text: str) -> None:
    if "<" not in text:  # a special token written out is read as that token
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_space_is_cleaned_up(tokenizer: HFTokenizer) -> None:
    text = " a , b . c 's  do n't ! "
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_skips_special_tokens(tokenizer: HFTokenizer) -> None:
    ids = [tokenizer.bos_id or 0, *tokenizer.encode("The fox"), tokenizer.eos_id or 0]
    assert tokenizer.decode(ids) == "The fox"


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="ab \n\tä日é.0<|>", max_size=60))
def test_offsets_tile_the_text(tokenizer: HFTokenizer, text: str) -> None:
    ids, spans = tokenizer.offsets(text)
    assert ids == tokenizer.encode(text)
    assert len(spans) == len(ids)
    assert all(start < end for start, end in spans)
    covered = 0
    for start, end in spans:
        assert start <= covered <= end  # no gap; tokens of one character overlap
        covered = end
    assert covered == len(text)


def test_trimmed_spaces_are_given_back(new_tokenizer: New) -> None:
    core = new_tokenizer(add_bos=False)
    core.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    raw = core("a  b c", add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert any(end < start for (_, end), (start, _) in itertools.pairwise(raw))  # the premise: gaps
    _, spans = HFTokenizer(core).offsets("a  b c")
    assert spans[0][0] == 0
    assert spans[-1][1] == 6
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_is_measured(new_tokenizer: New, add_bos: bool) -> None:
    wrapped = HFTokenizer(new_tokenizer(add_bos=add_bos))
    assert wrapped.bos_id == 1
    assert wrapped.adds_bos is add_bos
    assert (wrapped.encode("x", special=True)[0] == 1) is add_bos
    assert wrapped.encode("x")[0] != 1


def test_chat_renders_up_to_the_assistant(tokenizer: HFTokenizer) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert tokenizer.chat(messages) == "<s><|system|>S<|end|>\n<|user|>U<|end|>\n<|assistant|>"


def test_chat_without_a_template(new_tokenizer: New) -> None:
    assert HFTokenizer(new_tokenizer(template=None)).chat([{"role": "user", "content": "U"}]) is None


def test_a_template_that_refuses_is_a_clear_error(new_tokenizer: New) -> None:
    template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ModelError, match="refuses") as caught:
        HFTokenizer(new_tokenizer(template=template), name="m").chat([{"role": "system", "content": "S"}])
    assert "System role not supported" in caught.value.why
    assert "system" in caught.value.why


def test_a_template_with_a_date_is_the_same_tomorrow(new_tokenizer: New) -> None:
    template = (
        "\n{% macro head() %}Today: {{ strftime_now('%d %b %Y') }}{% endmacro %}"
        "{% if strftime_now is defined %}{% set date = strftime_now('%Y-%m-%d') %}{% endif %}"
        "{{ head() }} {{ date }}{% for m in messages %} {{ strftime_now('%B') }}{% endfor %}."
    )
    messages = [{"role": "user", "content": "U"}]
    wrapped = HFTokenizer(new_tokenizer(template=template))
    assert wrapped.chat(messages) == "\nToday: 26 Jul 2024 2024-07-26 July."
    clock = new_tokenizer(template=template).apply_chat_template(messages, tokenize=False)
    assert isinstance(clock, str)
    assert clock.startswith("\nToday: ")  # but for the date, the text is the one transformers renders
    assert clock.endswith(".")


def test_digests_follow_content(new_tokenizer: New) -> None:
    one, same = HFTokenizer(new_tokenizer()), HFTokenizer(new_tokenizer())
    other, plain = HFTokenizer(new_tokenizer(add_bos=False)), HFTokenizer(new_tokenizer(template=None))
    assert one.digest == same.digest == plain.digest != other.digest
    assert one.template_digest == other.template_digest != plain.template_digest


def test_a_call_does_not_change_the_digest(new_tokenizer: New) -> None:
    core = new_tokenizer()
    before = HFTokenizer(core).digest
    core(["a b c", "a"], padding=True, truncation=True, max_length=2)
    assert HFTokenizer(core).digest == before


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="slow"):
        HFTokenizer(Slow())


def test_the_short_way_gives_what_autotokenizer_gives(model_folder: Path, new_tokenizer: New) -> None:
    short = load_tokenizer(model_folder, read_object(model_folder / "config.json"), name="m")
    full = HFTokenizer(AutoTokenizer.from_pretrained(model_folder))
    assert short.digest == full.digest
    assert short.template_digest == full.template_digest
    assert type(short._tokenizer) is type(full._tokenizer)


def test_a_broken_tokenizer_file_is_a_clear_error(copy_of_model: Path) -> None:
    (copy_of_model / "tokenizer.json").write_text("{}")
    config: dict[str, Any] = read_object(copy_of_model / "config.json")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        load_tokenizer(copy_of_model, config, name="m")
    assert str(copy_of_model) in caught.value.where
