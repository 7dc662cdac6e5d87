"""The exact prompts of a selection, one record a call: what would be asked, with digests to compare it by.

The prompts of the arm `dense`, cut by the task's own rule. Streams; asks no model and loads no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice

from loom_core.contract.errors import ModelError
from loom_core.contract.keys import canonical
from loom_core.contract.protocols import MOST_CALLS, ModelCard
from loom_core.contract.types import Generation, Json, Prompt, Response, Sample, Task, Turn
from loom_core.data.access import DataDir
from loom_core.prompting.render import messages, prefill_text
from loom_core.run.config import RunConfig
from loom_core.run.conversation import fitted
from loom_core.run.selection import Chosen
from loom_core.run.stratify import subset
from loom_core.serving.answering import answer


def sha256(text: str) -> str:
    """sha256 (hex) of a text in UTF-8; lone surrogates as they are stored."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests(prompt: Prompt, rendered: str | None) -> dict[str, Json]:
    """The digests of a prompt, for whatever part of it an author's program would have sent.

    text: all segments one after the other, before any chat template, as a completion is asked. contents: each message's
    content, in order. segments: each segment's text (neighbours of one role share a message). joined: the contents,
    joined by one line break. messages: the messages as canonical JSON (sorted keys, no spaces, ASCII), [{"content",
    "role"}, …]. rendered: what the chat template makes of it (None without a tokenizer).
    """
    rows = messages(prompt)
    contents = [row["content"] for row in rows]
    return {
        "text": sha256(prompt.text),
        "contents": [sha256(content) for content in contents],
        "segments": [sha256(segment.text) for segment in prompt.segments],
        "joined": sha256("\n".join(contents)),
        "messages": sha256(canonical(rows)),
        "rendered": None if rendered is None else sha256(rendered),
    }


def prompts(
    chosen: Chosen, task: Task, config: RunConfig, card: ModelCard | None, data: DataDir, reply: str | None = None
) -> Iterator[dict[str, Json]]:
    """A record for each call of each sample of a task: its names, messages, texts, digests, limits and stops.

    card: of the model whose tokenizer renders and cuts; None = raw prompts, which no rule that counts tokens has cut.
    reply: what each answer is taken to be, so that later turns can be told; None = first turns only.
    """
    tokenizer = card.tokenizer if card else None

    def made() -> Iterator[Sample]:
        return chosen.benchmark.samples(task, data.for_benchmark(chosen.name), tokenizer, config.lengths)

    kept = made() if config.subset is None else subset(made, config.subset, config.subset_seed, task.name)
    for sample in islice(chosen.prompted(task, kept), config.limit):
        responses: list[Response] = []
        turn: Turn | None = Turn(prompt=sample.prompt, generation=task.generation)
        while turn is not None and len(responses) < MOST_CALLS:
            record = _record(chosen, task, sample, turn.prompt, turn.generation, card, config.overlength)
            yield {**record, "turn": len(responses)}
            if reply is None:
                break
            responses.append(answer(reply))
            turn = chosen.benchmark.follow_up(sample, responses)


def _record(
    chosen: Chosen,
    task: Task,
    sample: Sample,
    prompt: Prompt,
    generation: Generation,
    card: ModelCard | None,
    policy: str,
) -> dict[str, Json]:
    rendered, too_long = None, ""
    if card is not None and card.tokenizer is not None:
        try:
            prompt, rendered = fitted(prompt, generation.max_tokens, task, card.tokenizer, card.window, policy)
        except ModelError as error:
            if not error.hint.startswith("--overlength"):
                raise
            too_long = error.why
            prompt, rendered = fitted(prompt, generation.max_tokens, task, card.tokenizer, None, policy)
    uncut = task.truncation.scope != "context" and rendered is None
    return {
        "task": chosen.full_name(task),
        "id": sample.id,
        "level": sample.level,
        "sha256": digests(prompt, rendered.text if rendered else None),
        "max_tokens": generation.max_tokens,
        "stop": list(generation.stop),
        "chat": task.chat,
        "n_tokens": len(rendered.token_ids or ()) if rendered else None,
        "n_dropped": rendered.n_dropped if rendered else None,
        "note": too_long or ("not cut: the authors' rule counts tokens, name a --model" if uncut else ""),
        "messages": messages(prompt),
        "prefill": prefill_text(prompt),
        "rendered": rendered.text if rendered else None,
    }
