"""The judge that a run names, `SERVER:MODEL`: any model on any server, with their options; how its replies are taken.

Loads no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from loom_core.contract.errors import UsageError
from loom_core.contract.options import build, identity, option
from loom_core.contract.protocols import ModelCard, Server
from loom_core.contract.specs import ServerSpec
from loom_core.contract.types import Generation, Json, Response
from loom_core.prompting.thinking import Thinking, declared, marks
from loom_core.registry.plugins import Catalog, Found


@dataclass(frozen=True)
class ReplyOptions:
    """How a judge's replies are taken, on any server."""

    thinking: str = option("", help="marks around the judge's thinking, as in <think>,</think>; it is split off")
    thinking_budget: int = option(0, help="tokens for its thinking, added to each reply's limit", low=0)
    max_tokens: int = option(0, help="limit of tokens of each reply; 0: what the metric asks for", low=0)
    silence: float = option(
        1800.0, help="seconds without an answer after which the judge is given up", low=0.001, how=True
    )

    def __post_init__(self) -> None:
        if self.thinking:
            marks(self.thinking)
        elif self.thinking_budget:
            raise ValueError("thinking_budget without thinking=<think>,</think>")

    @property
    def thinks(self) -> Thinking | None:
        """What is split off its replies."""
        return declared(marks(self.thinking) if self.thinking else None, self.thinking_budget)

    def limits(self, generation: Generation) -> Generation:
        """The limits of a reply: the metric's, or those given, with room to think."""
        limits = replace(generation, max_tokens=self.max_tokens) if self.max_tokens else generation
        return self.thinks.limits(limits) if self.thinks else limits

    def taken(self, response: Response, generation: Generation, count: Callable[[str], int] | None) -> Response:
        """The response with its thinking apart."""
        return self.thinks.split(response, generation, count) if self.thinks else response

    def facts(self) -> dict[str, Json]:
        """What of it enters the key of a call: what differs from the defaults."""
        told = {f.name: f.default for f in fields(self) if not f.metadata.get("how")}
        return {name: value for name, value in asdict(self).items() if name in told and value != told[name]}


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """The judge that a config names: a model on a server, with their options, and how its replies are taken."""

    text: str
    server: Found[ServerSpec]
    server_options: Any
    model: str
    model_options: Any
    reply: ReplyOptions = ReplyOptions()

    def open_server(self, catalog: Catalog) -> Server:
        """The server, built with its options."""
        server: Server = catalog.make(self.server, self.server_options)
        return server

    def identity(self, card: ModelCard) -> dict[str, Json]:
        """What of the judge enters the key of a call."""
        return {
            "digest": card.digest,
            "template": card.tokenizer.template_digest if card.tokenizer else None,
            "server": [self.server.spec.name, self.server.spec.version],
            "model_options": identity(self.model_options),
            "server_options": identity(self.server_options),
            **({"reply": self.reply.facts()} if self.reply.facts() else {}),
        }


def recorded_replies(identity: Mapping[str, Json] | None) -> ReplyOptions:
    """How the replies of a recorded judge were taken. Raises UsageError where the record holds something else."""
    given = (identity or {}).get("reply") or {}
    if not isinstance(given, Mapping):
        raise UsageError("the record of the judge is damaged", where="judge.json", why=f"reply: {given!r:.80}")
    return _replies({str(name): str(value) for name, value in given.items()})


def _replies(given: Mapping[str, str]) -> ReplyOptions:
    made: ReplyOptions = build(ReplyOptions, given, owner="judge's replies")
    return made


def parse_judge(text: str | None, given: Mapping[str, str], catalog: Catalog) -> JudgeChoice | None:
    """The judge `SERVER:MODEL` with its options; None where there is none. Raises UsageError for what is unknown or out
    of range. given: how its replies are taken (`ReplyOptions`), options of the server by their names; what neither has
    is for the model.
    """
    if text is None:
        if given:
            raise UsageError("a judge's options without a judge", where="--judge-option", hint="add --judge")
        return None
    name, colon, model = text.partition(":")
    if not colon or not model:
        raise UsageError(
            "a judge is a model on a server", where=text, hint="--judge SERVER:MODEL, e.g. --judge api:NAME"
        )
    server = catalog.servers.get(name)
    of_server = {f.name for f in fields(server.spec.options)}
    of_replies = {f.name for f in fields(ReplyOptions)} - of_server
    return JudgeChoice(
        text=text,
        server=server,
        server_options=build(
            server.spec.options, {k: v for k, v in given.items() if k in of_server}, owner=f"judge's server {name}"
        ),
        model=str(catalog.make(catalog.models.get(model))) if model in catalog.models else model,
        model_options=build(
            server.spec.model_options,
            {k: v for k, v in given.items() if k not in of_server | of_replies},
            owner=f"judge's model on server {name}",
        ),
        reply=_replies({k: v for k, v in given.items() if k in of_replies}),
    )
