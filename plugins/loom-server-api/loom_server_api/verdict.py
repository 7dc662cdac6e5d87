"""A reply against what was asked: stop strings and limits held, counts possible, price. Knows no network.

An endpoint may ignore `stop` or `max_tokens`, or count wrongly. Text is cut where the request said it must end; what
was found is a note on the response, in the same words each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loom_core.api import Json, Request, Response, Timing, Tokenizer
from loom_core.api.serving import first_stop
from loom_server_api.body import Call
from loom_server_api.plugin import ApiOptions
from loom_server_api.reply import Reply

CHARACTERS_PER_TOKEN = 4
TEMPLATE_TOKENS = 4096
"""More tokens than any chat template puts around a prompt; a byte of the prompt is at most one token."""
MOST_CHARACTERS_PER_TOKEN = 8
"""Of a prompt, on average: twice the estimate. Text that packs more into a token is rare."""
LONGEST_TOKEN = 512
"""Characters: longer than any run of white space that a vocabulary has."""
TOKENIZER_SLACK = 64
"""Tokens by which an endpoint's template may differ from the tokenizer's before that is worth a word."""
HIDDEN_TOKENS = 16

IGNORED_STOP = "the endpoint ignored `stop`: the answer was cut at the stop string by loom"
IGNORED_LIMIT = "the endpoint ignored the limit of new tokens: it generated more than were asked for"
CUT_TO_LIMIT = "an answer beyond the limit of new tokens was cut to it by loom"
IGNORED_MINIMUM = "the endpoint ignored min_tokens: the answer is shorter"
EARLY_STOP = "the endpoint began an answer with a stop string though min_tokens forbids it: the answer is empty"
NO_USAGE = "the endpoint reported no token counts: they are counted with the tokenizer, or estimated"
WRONG_USAGE = "the endpoint reported impossible token counts: they are counted with the tokenizer, or estimated"
OTHER_LENGTH = "the endpoint counts another number of prompt tokens than loom: its template or tokenizer differs"
FEWER = "the endpoint counts far fewer prompt tokens than the prompt can have: it may have cut the prompt"
REFUSED = "the endpoint says that the model refused: its words of refusal are recorded as the answer"
SURPLUS = "the endpoint sent text behind the end of an answer, or of further answers: it is left out"
UNSAID_END = "the endpoint did not say why the answer ended"
OTHER_END = "the endpoint ended an answer for a reason of its own (a tool call, for example)"

STOPPED = frozenset(("stop", "eos", "eos_token", "end_turn", "stop_sequence"))
CUT_SHORT = frozenset(("length", "max_tokens", "max_length"))


@dataclass(slots=True)
class Counts:
    """Tokens of a call as they will be recorded."""

    n_in: int
    n_out: int
    n_cached: int


def response_of(
    request: Request, call: Call, reply: Reply, timing: Timing, *, options: ApiOptions, tokenizer: Tokenizer | None
) -> Response:
    """The response to record for a reply."""
    notes = list(call.notes)
    counts = _counts(request, call, reply, tokenizer, notes)
    generation, finish = request.generation, _finish(reply, notes)
    text = reply.text
    if reply.refused:
        notes.append(REFUSED)
    if reply.surplus:
        notes.append(SURPLUS)
    if counts.n_out > generation.max_tokens:
        notes.append(IGNORED_LIMIT)
        if tokenizer is not None and len(ids := tokenizer.encode(text)) > generation.max_tokens:
            text, finish = tokenizer.decode(ids[: generation.max_tokens]), "length"
            notes.append(CUT_TO_LIMIT)
    if generation.min_tokens and counts.n_out < generation.min_tokens and reply.usage is not None:
        notes.append(IGNORED_MINIMUM)
    if generation.min_tokens and generation.stop and not text and finish == "stop":
        notes.append(EARLY_STOP)
    if not generation.min_tokens and (end := first_stop(text, generation.stop)) is not None:
        at, length = end
        if at + length < len(text):
            notes.append(IGNORED_STOP)
        text, finish = text[:at], "stop"
    return Response(
        key=request.key,
        text=text,
        finish="length" if finish == "length" else "stop",
        n_in=counts.n_in,
        n_out=counts.n_out,
        timing=timing,
        token_ids=tuple(reply.token_ids) or None,
        reasoning=reply.reasoning or None,
        n_cached=counts.n_cached,
        n_dropped=request.n_dropped,
        cost=price(options, counts),
        notes=tuple(dict.fromkeys(notes)),
    )


def price(options: ApiOptions, counts: Counts) -> float | None:
    """What the call cost by the user's price table; None without one."""
    if options.price_in is None or options.price_out is None:
        return None
    cached = options.price_in if options.price_cached is None else options.price_cached
    fresh = counts.n_in - counts.n_cached
    return (fresh * options.price_in + counts.n_cached * cached + counts.n_out * options.price_out) / 1e6


def _finish(reply: Reply, notes: list[str]) -> str:
    reason = reply.finish_reason
    if reason in CUT_SHORT:
        return "length"
    if reason is None:
        notes.append(UNSAID_END)
    elif reason not in STOPPED:
        notes.append(OTHER_END)
    return "stop"


def _counts(request: Request, call: Call, reply: Reply, tokenizer: Tokenizer | None, notes: list[str]) -> Counts:
    """The endpoint's counts where they are possible, else our own."""
    measured = call.n_ids if call.n_ids is not None else len(request.token_ids) if request.token_ids else None
    usage: Mapping[str, Json] = reply.usage or {}
    n_in, n_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    n_cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    wrong = False
    if not _possible_in(n_in, request):
        wrong, n_in = wrong or n_in is not None, None
    if not _possible_out(n_out, reply, _detail(usage, "completion_tokens_details", "reasoning_tokens") or 0):
        wrong, n_out = wrong or n_out is not None, None
    if n_cached is not None and not 0 <= n_cached <= (n_in if n_in is not None else measured or 0):
        wrong, n_cached = True, None
    if wrong:
        notes.append(WRONG_USAGE)
    elif n_in is None or n_out is None:
        notes.append(NO_USAGE)
    if n_in is not None:
        _compare(n_in, measured, call, request, notes)
    if call.n_ids is not None:
        n_in = call.n_ids
    elif n_in is None:
        n_in = measured if measured is not None else _estimate(request.prompt.text)
    if n_out is None:
        n_out = len(reply.token_ids) or (
            len(tokenizer.encode(reply.text + reply.reasoning))
            if tokenizer
            else _estimate(reply.text + reply.reasoning)
        )
    return Counts(int(n_in), int(n_out), int(n_cached or 0))


def _compare(n_in: int, measured: int | None, call: Call, request: Request, notes: list[str]) -> None:
    """Note a prompt that the endpoint counts otherwise than it was sent or measured."""
    if measured is None:
        if n_in * MOST_CHARACTERS_PER_TOKEN < len(request.prompt.text):
            notes.append(FEWER)
    elif call.n_ids is not None:
        if n_in != measured:
            notes.append(OTHER_LENGTH)
    elif n_in < 0.8 * measured - TOKENIZER_SLACK:
        notes.append(FEWER)
    elif abs(n_in - measured) > TOKENIZER_SLACK + 0.02 * measured:
        notes.append(OTHER_LENGTH)


def _whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _possible_in(value: Json, request: Request) -> bool:
    """A prompt has at least one token, and no more than its bytes and a template have."""
    if not _whole(value) or value < 1:
        return False
    characters = len(request.prompt.text)
    # At most four bytes a character: the exact count is taken only where that bound does not decide.
    if value <= characters + TEMPLATE_TOKENS:
        return True
    return bool(value <= len(request.prompt.text.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS)


def _possible_out(value: Json, reply: Reply, hidden: int) -> bool:
    """Text needs a token for each of its longest words, and a token that leaves no trace in it is rare."""
    said = reply.text + reply.reasoning
    if not _whole(value) or value < 0 or value * LONGEST_TOKEN < len(said.strip()):
        return False
    return bool(
        value <= len(said.encode("utf-8", "surrogatepass")) + hidden + HIDDEN_TOKENS or (value < 4096 and not said)
    )


def _detail(usage: Mapping[str, Json], group: str, name: str) -> int | None:
    values = usage.get(group)
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if _whole(value) else None


def _estimate(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
