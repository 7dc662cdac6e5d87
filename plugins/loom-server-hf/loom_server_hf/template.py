"""A chat template of transformers: its variables, its date, its system message, and what ends an assistant's turn.

A template that asks for today's date gets a fixed one: the same prompt must have the same key tomorrow. One that takes
no system message gets it at the head of the user's turn. Knows templates, no tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from loom_core.api import Json, ModelError, canonical, table

TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date that templates see: the one Llama 3.1's template itself falls back to."""
DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z%]")
OF_THIS_PLACE = frozenset("szZ+")
"""Directives that depend on where and when loom runs: seconds since 1970, time zones."""
PERCENT = "\ue002"

OURS = dict.fromkeys(
    (
        *("messages", "add_generation_prompt", "continue_final_message", "chat_template", "conversation", "tokenize"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "sanitize_control_tokens", "strftime_now", "raise_exception"),
    ),
    "loom itself",
)
"""Names that are not variables of a template, or that loom decides."""

FOLD = "\n\n"
FOLDED = "a system message stands at the head of the user's turn, two line breaks before it"


def variables(text: str) -> dict[str, Json]:
    """The model option `template`: a JSON object, a .json or .toml file, or key=value pairs with commas between.

    A value that is JSON is that (`false`, `3`), any other is text. Raises UsageError.
    """
    if "=" not in text or text.lstrip().startswith("{"):
        return table(text, name="template", owner="model option", taken=OURS)
    found: dict[str, Json] = {}
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value.strip()
    return table(json.dumps(found), name="template", owner="model option", taken=OURS)


class ChatTemplate:
    """The template of a tokenizer of transformers, with values for its variables.

    folds: it refuses or drops system messages, and they are put into the user's turn. digest: of everything that
    decides the text. Raises ModelError for a variable that the template does not have.
    """

    def __init__(self, tokenizer: Any, template: str, given: Mapping[str, Json], *, name: str) -> None:
        self._tokenizer, self._given, self._name = tokenizer, dict(given), name
        for variable in given:
            if not re.search(rf"(?<!\w){re.escape(variable)}(?!\w)", template):
                raise ModelError(
                    f"the chat template has no variable {variable!r}", where=name, hint="check the option template"
                )
        self._template = with_fixed_date(template)
        self.folds = self._refuses_system()
        parts = [template, *([canonical(dict(given))] if given else []), *([FOLDED] if self.folds else [])]
        self.digest = sha256("\0".join(parts).encode()).hexdigest()

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The messages up to where the assistant's turn begins. Raises ModelError with the template's own words."""
        from jinja2 import TemplateError, TemplateSyntaxError

        rows = folded(messages) if self.folds else messages
        try:
            return self._render(rows, begin=True)
        except TemplateSyntaxError as error:
            raise ModelError(
                "the chat template cannot be read",
                where=self._name,
                why=f"line {error.lineno}: {error.message}",
                hint="mend the model's chat template (chat_template.jinja or tokenizer_config.json)",
            ) from error
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(
                "the chat template refuses these messages",
                where=self._name,
                why=f"{error}; roles: {', '.join(m['role'] for m in messages)}",
                hint="use a prompt template of your own for the task, or a model whose template takes these roles",
            ) from error

    def behind_an_answer(self) -> tuple[str, ...]:
        """What follows an assistant's message: where it is the last, and before the user's next; () where the
        template does not tell."""
        asked, said, again = ("\ue000q\ue001", "\ue000a\ue001", "\ue000r\ue001")
        rows = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        tails = []
        for more in ([], [{"role": "user", "content": again}]):
            text = self._tried([*rows, *more], begin=False)
            if text is not None and said in text:
                tails.append(text.partition(said)[2].partition(again)[0])
        return tuple(tails)

    def _refuses_system(self) -> bool:
        """True if a system message raises, or its words are dropped, where the user's alone are taken."""
        system, user = "\ue000s\ue001", "\ue000u\ue001"
        alone = self._tried([{"role": "user", "content": user}], begin=True)
        both = self._tried([{"role": "system", "content": system}, {"role": "user", "content": user}], begin=True)
        return alone is not None and user in alone and (both is None or system not in both)

    def _tried(self, messages: Sequence[Mapping[str, str]], *, begin: bool) -> str | None:
        from jinja2 import TemplateError

        try:
            return self._render(messages, begin=begin)
        except (TemplateError, ValueError, TypeError):
            return None

    def _render(self, messages: Sequence[Mapping[str, str]], *, begin: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=begin,
            **self._given,
        )
        return text


def folded(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The messages without system ones: each stands at the head of the user's turn that follows it."""
    rows: list[dict[str, str]] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif held and message["role"] == "user":
            rows.append({**message, "content": FOLD.join([*held, message["content"]])})
            held = []
        else:
            rows.append(dict(message))
    return [*rows, {"role": "user", "content": FOLD.join(held)}] if held else rows


def with_fixed_date(template: str) -> str:
    """The template, with its own `strftime_now` (a macro that shadows the clock) where it asks for the date.

    A form of date that cannot be given is refused where the template asks for it.
    """
    if "strftime_now" not in template:
        return template
    forms = {form: shown for form in sorted(set(DIRECTIVE.findall(template))) if (shown := _shown(form)) is not None}
    filters = f"|replace('%%', '{PERCENT}')" + "".join(f"|replace('{k}', '{v}')" for k, v in forms.items())
    refusal = "{{ raise_exception('it asks for the date as ' ~ form ~ ', which has no fixed value') }}"
    body = (
        f"{{% set shown = form{filters} %}}{{% if '%' in shown %}}{refusal}{{% endif %}}"
        f"{{{{ shown|replace('{PERCENT}', '%') }}}}"
    )
    # The empty expression keeps the tag before it from swallowing a line break that the template begins with.
    return f"{{% macro strftime_now(form) %}}{body}{{% endmacro %}}{{{{ '' }}}}{template}"


def _shown(form: str) -> str | None:
    """The fixed date in one directive of strftime; None for what has no fixed value, or no meaning here."""
    if form == "%%" or form[-1] in OF_THIS_PLACE:
        return None
    try:
        shown = TEMPLATE_DATE.strftime(form)
    except ValueError:
        return None
    return None if "%" in shown or "'" in shown else shown
