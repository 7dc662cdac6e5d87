"""A request as the JSON body of one HTTP call. Knows the routes' fields; sends nothing.

Every limit of the generation is sent, temperature 0 included, unless the option `omit` names it. What cannot be sent as
the prompt means it is refused with the reason, never changed silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loom_core.api import Json, ModelError, Request, UsageError, table
from loom_core.api.serving import messages, prefill_text
from loom_server_api.plugin import ApiOptions

ROUTES = {"chat": "/chat/completions", "completions": "/completions"}
SEED_BITS = 0x7FFFFFFF
"""Seeds are sent with 31 bits: some engines take no more, and all take these."""

OWN_FIELDS = frozenset(
    ("model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop")
) | {"stream", "n", "return_token_ids"}
"""What loom sends itself; `extra` may not name them, for records would then tell of another request."""

SECRET_FIELD = re.compile(r"(?i)(api_?key|secret|password|passwd|credential|authorization)")

CONTINUES = frozenset(("vllm", "sglang"))
"""What `owned_by` in /models says where the engine knows continue_final_message."""

PLAIN_ON_CHAT = "a prompt meant as plain text was sent as a chat message: the endpoint put it into its chat template"
APPENDED = "the start of the answer was put behind the user's message (prefill=append)"


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent for a request. n_ids: the prompt's tokens where they are sent as ids. notes: for the response."""

    route: Literal["chat", "completions"]
    body: dict[str, Json]
    n_ids: int | None = None
    notes: tuple[str, ...] = ()


def read_extra(text: str) -> dict[str, Json]:
    """The option `extra` as fields. UsageError where it is not a JSON object, or names what loom sends itself."""
    values = table(text, name="extra", owner="server api", taken=dict.fromkeys(OWN_FIELDS, "loom itself"))
    for name in _names(values):
        if SECRET_FIELD.search(name):
            raise UsageError(
                f"the field {name!r} in extra looks like a secret",
                where="server api",
                why="options are written to the run folder",
                hint="give the key in the environment (key_env=NAME)",
            )
    return values


def _names(value: Json) -> list[str]:
    if isinstance(value, Mapping):
        return [str(k) for k in value] + [name for item in value.values() for name in _names(item)]
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    return []


class Composer:
    """Makes the calls of one model on one endpoint. engine: what the endpoint says it is, in lower case."""

    def __init__(self, model: str, options: ApiOptions, engine: str) -> None:
        self._model, self._options, self._engine = model, options, engine
        self._extra = read_extra(options.extra)

    def compose(self, request: Request) -> Call:
        """The call for a request. Raises ModelError where the route cannot carry the prompt."""
        options = self._options
        generation = request.generation
        if generation.max_tokens < 1:
            raise ModelError(f"max_tokens={generation.max_tokens}: an answer has at least one token")
        fields: dict[str, Json] = {
            "model": self._model,
            options.limit_field: generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": request.seed & SEED_BITS,
        }
        if generation.stop:
            fields["stop"] = list(generation.stop)
        if generation.min_tokens:
            fields["min_tokens"] = generation.min_tokens
        if options.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        if options.return_token_ids:
            fields["return_token_ids"] = True
        for name in options.omit:
            fields.pop(name, None)
        fields |= self._extra
        plain = request.chat == "completion"
        if options.route == "chat" or (options.route == "auto" and not plain and not options.token_ids):
            return self._chat(request, fields)
        return self._completion(request, fields)

    def _completion(self, request: Request, fields: dict[str, Json]) -> Call:
        if self._options.token_ids:
            if not request.token_ids:
                raise ModelError("the prompt is empty: there is no token to continue from")
            return Call("completions", {**fields, "prompt": list(request.token_ids)}, n_ids=len(request.token_ids))
        if request.chat == "template":
            raise ModelError(
                "the completions route puts no chat template around a prompt that needs one",
                hint="route=chat or route=auto; or tokenizer=FOLDER and token_ids=true, and loom renders the template",
            )
        if not request.prompt.text:
            raise ModelError("the prompt is empty")
        return Call("completions", {**fields, "prompt": request.prompt.text})

    def _chat(self, request: Request, fields: dict[str, Json]) -> Call:
        rows, start, notes = messages(request.prompt), prefill_text(request.prompt), []
        if not rows:
            raise ModelError("the prompt is empty: the chat route needs at least one message")
        if request.chat == "completion":
            notes.append(PLAIN_ON_CHAT)
        if start:
            how = self._prefill()
            if how == "append":
                rows[-1] = {**rows[-1], "content": rows[-1]["content"] + start}
                notes.append(APPENDED)
            else:
                rows.append({"role": "assistant", "content": start})
            if how == "continue":
                fields |= {"continue_final_message": True, "add_generation_prompt": False}
        return Call("chat", {**fields, "messages": rows}, notes=tuple(notes))

    def _prefill(self) -> str:
        how = self._options.prefill
        if how == "auto" and self._engine in CONTINUES:
            return "continue"
        if how in ("auto", "refuse"):
            raise ModelError(
                "this prompt begins the assistant's answer, which the chat route cannot carry here",
                why="prefill=refuse" if how == "refuse" else "the endpoint does not say that it can continue a message",
                hint="prefill=continue (vLLM, SGLang), prefill=assistant, or prefill=append, which changes the prompt",
            )
        return how


def plain_fields(call: Call) -> Mapping[str, Any]:
    """The body without the prompt, for messages and tests."""
    return {k: v for k, v in call.body.items() if k not in ("messages", "prompt")}
