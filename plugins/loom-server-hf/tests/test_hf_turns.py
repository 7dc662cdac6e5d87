"""Where answers begin and end: marks of thinking that are special tokens, ends of a turn, prefixes, and templates with
variables, dates and no place for a system message."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from loom_server_hf.ends import ends
from loom_server_hf.plugin import HFModelOptions, HFServerOptions
from loom_server_hf.server import HFServer
from loom_server_hf.template import FOLD, variables
from loom_server_hf.tokenizer import HFTokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from loom_core.api import Generation, LoomError, ModelError, Prompt, Request, Response, Timing, UsageError, segment
from loom_core.api.serving import all_stop_ids, render, said
from loom_core.prompting.thinking import Thinking

New = Callable[..., PreTrainedTokenizerFast]
TURNS = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
BEGIN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def wrapped(new: New, template: str | None = TURNS + BEGIN, **options: Any) -> HFTokenizer:
    return HFTokenizer(new(template=template), name="m", **options)


def asked(marks: tuple[str, ...] = (), stop: tuple[str, ...] = ()) -> Request:
    limits = Generation(max_tokens=9, stop=stop)
    prompt = Prompt(segments=(segment("question", "x"),))
    return Request(key="k", job="j", step=0, prompt=prompt, generation=limits, group="", seed=0, marks=marks)


# --- thinking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("special", [True, False])
def test_thinking_is_split_whether_its_marks_are_special_tokens_or_not(new_tokenizer: New, special: bool) -> None:
    core = new_tokenizer()
    core.add_tokens(["[THINK]", "[/THINK]"], special_tokens=special)
    tokenizer = HFTokenizer(core)
    ids = tokenizer.encode("[THINK]Maybe it is 48210 or 99999. Hmm.[/THINK]It is 77777.")
    thinking = Thinking("[THINK]", "[/THINK]", 64)
    text = said(tokenizer, ids, asked((thinking.begin, thinking.end)))
    assert text == "[THINK]Maybe it is 48210 or 99999. Hmm.[/THINK]It is 77777."
    timing = Timing(queued=0.0, started=0.0, first_token=None, ended=0.0)
    response = Response(key="k", text=text, finish="stop", n_in=1, n_out=len(ids), timing=timing)
    found = thinking.split(response, Generation(max_tokens=9), None)
    assert (found.text, found.reasoning) == ("It is 77777.", "Maybe it is 48210 or 99999. Hmm.")


def test_marks_of_several_special_tokens_stand_and_others_are_dropped(new_tokenizer: New) -> None:
    tokenizer = wrapped(new_tokenizer)
    ids = tokenizer.encode("<|user|>final<|end|><|assistant|>analysis<|user|>Hm.<|assistant|>final<|user|>42")
    marks = ("<|assistant|>analysis<|user|>", "<|assistant|>final<|user|>")
    assert said(tokenizer, ids[3:], asked(marks)).endswith("analysis<|user|>Hm.<|assistant|>final<|user|>42")
    assert "<|end|>" not in said(tokenizer, ids, asked(marks))
    assert "<|" not in said(tokenizer, ids, asked())


# --- the end of a turn ------------------------------------------------------------------------------------------------


def test_the_end_of_a_turn_is_what_the_template_puts_behind_an_answer(new_tokenizer: New) -> None:
    tokenizer = wrapped(new_tokenizer)
    end = tokenizer.encode("<|end|>")[0]
    assert tokenizer.turn_end == end and tokenizer.eos_id == 2
    found = ends([7], tokenizer)
    assert found.ids == {7, 2, end}
    assert [note.split(",")[0] for note in found.notes] == ["answers end at </s> too", "answers end at <|end|> too"]
    assert ends([2, end], tokenizer).notes == () and ends(None, tokenizer).ids == {2, end}


@pytest.mark.parametrize(
    ("template", "end"),
    [
        # The last message ends otherwise than earlier ones: an earlier one's end also ends a channel of thinking.
        ("{% for m in messages %}{{ m['content'] }}{{ '</s>' if loop.last else '<|end|>' }}{% endfor %}", "</s>"),
        # Nothing ends a turn but the beginning of the next.
        ("{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}" + BEGIN, "<|user|>"),
        ("{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", None),
        ("{% for m in messages %}<s>{{ m['content'] }}{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
        (None, None),
    ],
)
def test_ends_of_other_templates(new_tokenizer: New, template: str | None, end: str | None) -> None:
    tokenizer = wrapped(new_tokenizer, template)
    assert tokenizer.turn_end == (None if end is None else tokenizer.encode(end)[0])


def test_the_card_names_the_ends_for_every_server(copy_of_model: Path) -> None:
    server = HFServer(HFServerOptions())
    card = server.describe(str(copy_of_model), HFModelOptions())
    assert card.tokenizer is not None
    end = card.tokenizer.encode("<|end|>")[0]
    assert card.facts["end_ids"] == sorted({2, end}) == all_stop_ids(card, Generation(max_tokens=1))
    assert [note.split(" too")[0] for note in card.notes] == ["answers end at <|end|>"]
    generation = copy_of_model / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [2, end]}), "utf-8")
    assert server.describe(str(copy_of_model), HFModelOptions()).notes == ()


# --- what stands in front ---------------------------------------------------------------------------------------------


def test_a_plain_prompt_has_the_prefix_of_the_post_processor_and_no_end(new_tokenizer: New) -> None:
    core = new_tokenizer(template=None)
    core.add_special_tokens({"additional_special_tokens": ["[gMASK]", "<sop>"]})
    pairs = [(name, core.convert_tokens_to_ids(name)) for name in ("[gMASK]", "<sop>", "</s>")]
    core.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A </s>", special_tokens=pairs
    )
    tokenizer = HFTokenizer(core)
    prompt = Prompt(segments=(segment("context", "The fox."), segment("question", " Which?")))
    found = render(prompt, tokenizer, chat="completion")
    ids = tuple(core("The fox. Which?")["input_ids"])
    assert ids[-1] == pairs[2][1] and found.token_ids == ids[:-1]
    assert [(s.kind, s.start) for s in found.spans][:2] == [("template", 0), ("context", 2)]
    assert (found.bos, found.expected_bos, tokenizer.lead_ids) == (0, 0, (pairs[0][1], pairs[1][1]))


# --- variables, dates, system messages --------------------------------------------------------------------------------

QUIET = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}"
USER = [{"role": "user", "content": "U"}]


def test_variables_of_a_template_reach_it_and_its_digest(new_tokenizer: New) -> None:
    plain = wrapped(new_tokenizer, TURNS + BEGIN + QUIET)
    quiet = wrapped(new_tokenizer, TURNS + BEGIN + QUIET, variables=variables("enable_thinking=false"))
    assert plain.chat(USER) == "<s><|user|>U<|end|>\n<|assistant|>"
    assert quiet.chat(USER) == "<s><|user|>U<|end|>\n<|assistant|><think>\n\n</think>"
    assert quiet.template_digest != plain.template_digest and quiet.digest == plain.digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("enable_thinking=false,reasoning_effort=low", {"enable_thinking": False, "reasoning_effort": "low"}),
        ('{"date_string": "26 Jul 2024", "n": 3}', {"date_string": "26 Jul 2024", "n": 3}),
        ("date_string=26 Jul 2024", {"date_string": "26 Jul 2024"}),
    ],
)
def test_variables_are_read(text: str, expected: Mapping[str, Any]) -> None:
    assert variables(text) == expected


@pytest.mark.parametrize("text", ["messages=3", '{"add_generation_prompt": false}', "{broken", "nofile.json"])
def test_variables_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="template"):
        variables(text)


def test_a_variable_that_the_template_does_not_have_is_refused(new_tokenizer: New) -> None:
    for template in (TURNS, None):
        with pytest.raises(ModelError, match=r"no variable 'enable_thinking'|no chat template"):
            wrapped(new_tokenizer, template, variables={"enable_thinking": False})


def test_the_model_option_reaches_the_card(copy_of_model: Path) -> None:
    (copy_of_model / "chat_template.jinja").write_text(TURNS + BEGIN + QUIET, "utf-8")
    card = HFServer(HFServerOptions()).describe(str(copy_of_model), HFModelOptions(template="enable_thinking=false"))
    assert card.tokenizer is not None and str(card.tokenizer.chat(USER)).endswith("</think>")


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("%-d %B %Y", "26 July 2024"),
        ("%e %b %Y, %H:%M:%S", "26 Jul 2024, 00:00:00"),
        ("%Y-%m-%d %A week %V", "2024-07-26 Friday week 30"),
        ("100%% %j", "100% 208"),
        ("%F %T", "2024-07-26 00:00:00"),
    ],
)
def test_every_form_of_date_is_rendered(new_tokenizer: New, form: str, shown: str) -> None:
    template = "{% macro head() %}{{ strftime_now('" + form + "') }}{% endmacro %}{{ head() }}|{{ strftime_now('%d') }}"
    assert wrapped(new_tokenizer, template).chat(USER) == f"{shown}|26"


@pytest.mark.parametrize("form", ["%s", "%Q", "%+"])
def test_a_date_without_a_fixed_value_is_refused(new_tokenizer: New, form: str) -> None:
    with pytest.raises(ModelError, match="refuses") as caught:
        wrapped(new_tokenizer, "{{ strftime_now('" + form + "') }}").chat(USER)
    assert form in caught.value.why


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPS = TURNS.replace("in messages", "in messages if m['role'] != 'system'")


@pytest.mark.parametrize("template", [NO_SYSTEM + TURNS + BEGIN, DROPS + BEGIN])
def test_a_system_message_that_is_not_taken_heads_the_users_turn(new_tokenizer: New, template: str) -> None:
    tokenizer, plain = wrapped(new_tokenizer, template), wrapped(new_tokenizer)
    assert (tokenizer.folds_system, plain.folds_system) == (True, False)
    system = segment("system", "Be brief.", role="system")
    prompt = Prompt(segments=(system, segment("context", "The fox. "), segment("question", "Which?")))
    found = render(prompt, tokenizer, chat="template")
    assert found.text == f"<s><|user|>Be brief.{FOLD}The fox. Which?<|end|>\n<|assistant|>"
    kinds = [span.kind for span in found.spans]
    assert [kind for kind in kinds if kind != "template"] == ["system", "context", "question"]
    assert tokenizer.chat(USER) == plain.chat(USER)


def test_folding_is_part_of_the_templates_identity(new_tokenizer: New) -> None:
    from hashlib import sha256

    for template, folds in ((NO_SYSTEM + TURNS, True), (TURNS, False)):
        assert (wrapped(new_tokenizer, template).template_digest == sha256(template.encode()).hexdigest()) is not folds


def test_a_template_that_cannot_be_read_says_so(new_tokenizer: New) -> None:
    with pytest.raises(LoomError, match="the chat template cannot be read"):
        wrapped(new_tokenizer, "{% for m in messages %}{{ m.content").chat(USER)


def test_control_tokens_are_known_for_counting(new_tokenizer: New) -> None:
    assert {"</s>", "<|user|>", "<|end|>"} <= set(wrapped(new_tokenizer).control_tokens)
