"""What this package registers: the server `api` and its options.

Option classes and specs only; imports `loom_core`, never the openai client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from loom_core.api import ServerSpec, hookimpl, option

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class ApiOptions:
    """Where the endpoint is, what is sent to it, and how. Keys come from the environment and from nowhere else."""

    base_url: str = option(OPENAI_URL, help="the endpoint, up to and including /v1", reach=True)
    key_env: str = option(
        "OPENAI_API_KEY", help="environment variable that holds the key; may be unset", how=True, reach=True
    )
    route: Literal["auto", "chat", "completions"] = option(
        "auto", help="auto = chat for prompts meant for a chat template, completions for plain ones and for token ids"
    )
    concurrency: int = option(32, help="most requests under way at once", low=1, high=4096, how=True)
    timeout: float = option(600.0, help="seconds one attempt may take in all", low=0.01, how=True)
    retries: int = option(6, help="further attempts after a failure that may pass", low=0, high=100, how=True)
    backoff: float = option(
        1.0, help="seconds before the first retry, doubled for each further one, with jitter", low=0.0, how=True
    )
    patience: float = option(
        120.0,
        help="longest wait in seconds before a retry; a longer Retry-After is an error",
        low=0.0,
        how=True,
    )
    stream: bool = option(True, help="stream the answers, which tells the time to the first token", how=True)
    check: bool = option(True, help="ask for the endpoint's models first; false where it has no such list", how=True)
    window: int | None = option(None, help="most tokens of prompt and answer; none = what the endpoint reports", low=1)
    tokenizer: str | None = option(
        None, help="folder or hub id of the model's tokenizer, for exact lengths and truncation (needs loom-server-hf)"
    )
    token_ids: bool = option(
        False, help="send token ids to the completions route: needs tokenizer and an engine that takes them (vLLM)"
    )
    return_token_ids: bool = option(False, help="ask for the ids of the answer (an extension of vLLM)")
    prefill: Literal["auto", "refuse", "continue", "assistant", "append"] = option(
        "auto",
        help="a prompt that begins the answer, on the chat route: continue = as vLLM and SGLang do it, assistant = a "
        "last message, append = put behind the user's, refuse; auto = continue where /models names such an engine",
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = option(
        "max_tokens", help="the field that limits the answer; newer OpenAI models take max_completion_tokens only"
    )
    omit: tuple[Literal["temperature", "top_p", "seed", "stop", "stream_options"], ...] = option(
        (), help="fields that are not sent, for endpoints that refuse them"
    )
    extra: str = option("", help="further fields of every request: a JSON object, or a .json or .toml file", reach=True)
    price_in: float | None = option(None, help="price of a million prompt tokens", low=0.0, how=True)
    price_cached: float | None = option(None, help="of a million cached ones; none = price_in", low=0.0, how=True)
    price_out: float | None = option(None, help="of a million generated tokens", low=0.0, how=True)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url begins with http:// or https:// and names a host")
        if url.username or url.password or url.query or url.fragment:
            # The value is not repeated here: it may hold a secret.
            raise ValueError("base_url holds no user, password, query or fragment; keys go into the environment")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            raise ValueError("key_env is the name of an environment variable, not the key itself")
        if self.token_ids and not self.tokenizer:
            raise ValueError("token_ids=true needs tokenizer=FOLDER")
        if self.token_ids and self.route == "chat":
            raise ValueError("the chat route takes no token ids: route=completions or route=auto")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out are given together or not at all")
        if self.price_cached is not None and self.price_in is None:
            raise ValueError("price_cached needs price_in")

    @property
    def batch(self) -> int:
        """How many requests a worker should be handed: enough that few wait for the last of a bundle."""
        return 4 * self.concurrency


@hookimpl
def loom_servers() -> Sequence[ServerSpec]:
    """The server `api`."""
    return (
        ServerSpec(
            name="api",
            version="2",
            summary="any OpenAI-compatible endpoint over HTTP: vendors, vLLM, SGLang, TGI, llama.cpp, Ollama",
            factory="loom_server_api.server:ApiServer",
            capabilities=frozenset({"stream", "prefix_cache"}),
            options=ApiOptions,
        ),
    )
