"""What an endpoint tells of a model before it is asked anything: that it has it, its window, and a digest. No weights.

An endpoint's weights cannot be seen: the digest says where the model was asked for and what was reported of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from loom_core.api import Json, ModelCard, ModelError, digest, nearest
from loom_core.api.serving import readers
from loom_server_api.body import read_extra
from loom_server_api.client import NO_KEY, key_of, sync_client
from loom_server_api.failure import Redactor, message_of
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Refused

ASK_SECONDS = 30.0
WINDOWS = ("max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens")
"""The names under which engines and vendors report the window in /models."""
TELLING = ("root", "parent", "owned_by", "quantization", "max_model_len")
"""Reported facts that tell one model from another; `created` is the start of the server and does not."""


@dataclass(frozen=True, slots=True)
class Described:
    """A card, and what the endpoint says it is (`owned_by`, lower case)."""

    card: ModelCard
    engine: str


def describe(model: str, options: ApiOptions) -> Described:
    """The card of a model. Raises ModelError for a wrong URL, a refused key, or a model the endpoint does not have."""
    listed = find(model, options) if options.check else {}
    window = options.window or next((n for n in map(listed.get, WINDOWS) if isinstance(n, int) and n > 0), None)
    telling = {name: listed[name] for name in TELLING if isinstance(listed.get(name), (str, int))}
    base_url = options.base_url.rstrip("/")
    facts: dict[str, Json] = {
        "endpoint": base_url,
        "listed": bool(listed),
        **{f"reported_{name}": value for name, value in telling.items()},
        "weights": "unseen: the digest covers the endpoint, the model's name and what the endpoint reports of it",
    }
    if options.price_in is not None:
        facts["price_per_million"] = {"in": options.price_in, "cached": options.price_cached, "out": options.price_out}
    card = ModelCard(
        name=model,
        path=f"{base_url} {model}",
        digest=digest({"endpoint": base_url, "model": model, "reported": telling, "extra": read_extra(options.extra)}),
        window=window,
        tokenizer=readers.tokenizer(options.tokenizer, asked_by="option tokenizer") if options.tokenizer else None,
        facts=facts,
    )
    return Described(card, str(listed.get("owned_by") or "").lower())


def find(model: str, options: ApiOptions) -> Mapping[str, Json]:
    """What /models reports of a model; raises ModelError where it is not there, with near names."""
    rows = list_models(options)
    names = {model, f"models/{model}", f"{model}:latest"}
    for row in rows:
        if row.get("id") in names:
            return row
    offered = [str(row["id"]) for row in rows if row.get("id")]
    raise ModelError(
        f"the endpoint offers no model {model!r}",
        where=options.base_url,
        why=nearest(model, offered) if len(offered) > 8 else "it offers: " + (", ".join(offered) or "none"),
        hint="take a name it offers; check=false where it serves models it does not list (transformers serve)",
    )


def list_models(options: ApiOptions) -> list[Mapping[str, Json]]:
    """The endpoint's models. Raises ModelError for whatever keeps it from telling them."""
    redact = Redactor(key_of(options))
    try:
        with sync_client(options, ASK_SECONDS) as client:
            response = client.get("/models", cast_to=httpx2.Response)
        value: Any = response.json()
    except openai.APIStatusError as error:
        raise _refused(error, options, redact) from None
    except openai.APIConnectionError as error:
        raise ModelError(
            "the endpoint cannot be reached",
            where=options.base_url,
            why=redact(_cause(error)),
            hint="check base_url, and that the server is up: --server-option base_url=http://HOST:PORT/v1",
        ) from None
    except Refused as error:
        raise ModelError(
            "the endpoint's list of models is not taken",
            where=options.base_url,
            why=redact(str(error)),
            hint="set base_url to where the endpoint is; check=false skips the list",
        ) from None
    except (ValueError, RecursionError):
        raise _no_endpoint(options, "GET /models returned no readable JSON") from None
    rows = value.get("data") if isinstance(value, Mapping) else value
    if not isinstance(rows, list):
        raise _no_endpoint(options, "GET /models returned no list of models")
    return [row for row in rows if isinstance(row, Mapping)]


def _refused(error: openai.APIStatusError, options: ApiOptions, redact: Redactor) -> ModelError:
    said = redact(f"HTTP {error.status_code}: {message_of(error.body)}")
    if error.status_code in (401, 403):
        held = "holds no key" if key_of(options) == NO_KEY else "holds a key that was refused"
        return ModelError(
            "the endpoint refuses the key",
            where=options.base_url,
            why=f"{said}; the environment variable {options.key_env} {held}",
            hint=f"export {options.key_env}=…, or name another variable with key_env=NAME",
        )
    if error.status_code in (404, 405):
        return _no_endpoint(options, f"GET /models returned {said}")
    return ModelError(
        "the endpoint does not list its models", where=options.base_url, why=said, hint="check=false skips the list"
    )


def _no_endpoint(options: ApiOptions, why: str) -> ModelError:
    ends = options.base_url.rstrip("/").endswith("/v1")
    return ModelError(
        "there is no OpenAI-compatible endpoint at this address, or it lists no models",
        where=options.base_url,
        why=why,
        hint="check=false where the endpoint has no such list"
        if ends
        else f"base_url usually ends in /v1: base_url={options.base_url.rstrip('/')}/v1",
    )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
