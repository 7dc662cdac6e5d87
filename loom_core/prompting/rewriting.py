"""An arm's prompt augmentations applied to a prompt: what came out, what it took, and what became of the evidence.

Augmentations see the full context, in the order of the stack. Knows contracts; knows no session and no method.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loom_core.contract import border
from loom_core.contract.errors import PluginError
from loom_core.contract.evidence import Kept, Rewritten, Trail, kept_ends
from loom_core.contract.guard import guarded
from loom_core.contract.prompt import only_context_changed
from loom_core.contract.protocols import PromptAugmentation, Tokenizer
from loom_core.contract.types import Evidence, Json, Prompt, Sample
from loom_core.prompting.render import Chat, render

MOST_SPANS = 256
"""Kept spans that a record may list; a compressor that keeps single words has more, and lists none."""

Kepts = Sequence[tuple[Kept, ...] | None]
"""What each of several rewritings kept; None for one that does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """A rewritten prompt. kept: by augmentation. dropped: tokens lost in augmentations that do not say what they kept.

    facts: what was done, equal in any process. cost: what it took: seconds, of them those for an index that further
    questions share, calls to other models, tokens they read, money. Both are None where nothing rewrites.
    """

    prompt: Prompt
    kept: Kepts = ()
    dropped: int = 0
    facts: Json = None
    cost: Json = None


def rewrite(
    augmentations: Iterable[tuple[str, PromptAugmentation]],
    prompt: Prompt,
    tokenizer: Tokenizer | None,
    chat: Chat,
    *,
    where: str = "",
) -> Rewriting:
    """The prompt after these augmentations (name, opened), one after the other.

    Raises PluginError for one that changes more than the context.
    """
    kept: list[tuple[Kept, ...] | None] = []
    parts: list[tuple[str, Rewritten]] = []
    dropped, seconds = 0, 0.0
    for name, augmentation in augmentations:
        began = time.perf_counter()
        with guarded(f"augmentation {name}", "rewrite()"):
            given = border.rewritten(augmentation.rewrite(prompt, tokenizer, chat=chat), f"augmentation {name}")
        seconds += time.perf_counter() - began
        made = given if isinstance(given, Rewritten) else Rewritten(prompt=given, kept=kept_ends(prompt, given))
        if not only_context_changed(prompt, made.prompt):
            raise PluginError(f"{name} changed more than the context", where=where)
        if made is not given and tokenizer is not None and made.prompt != prompt:
            dropped += max(0, _count(prompt, tokenizer, chat) - _count(made.prompt, tokenizer, chat))
        kept.append(made.kept)
        parts.append((name, made))
        prompt = made.prompt
    if not parts:
        return Rewriting(prompt=prompt)
    cost = _cost([made for _, made in parts], seconds)
    return Rewriting(prompt=prompt, kept=tuple(kept), dropped=dropped, facts=_facts(parts), cost=cost)


def _count(prompt: Prompt, tokenizer: Tokenizer, chat: Chat) -> int:
    return len(render(prompt, tokenizer, chat=chat).token_ids or ())


def _facts(parts: Sequence[tuple[str, Rewritten]]) -> dict[str, Json]:
    """Context tokens before the first and after the last augmentation that counts them, and what each wants recorded.

    spans: [segment, start, end] of the contexts' kept characters, where one augmentation knows a few of them.
    """
    before = [made.tokens_before for _, made in parts if made.tokens_before is not None]
    after = [made.tokens_after for _, made in parts if made.tokens_after is not None]
    facts: dict[str, Json] = {
        "tokens_before": before[0] if before else None,
        "tokens_after": after[-1] if after else None,
        "parts": [{"name": name, **made.facts} for name, made in parts],
        "spans": None,
    }
    if len(parts) == 1 and (kept := parts[0][1].kept) is not None:
        segments = parts[0][1].prompt.segments
        spans = [[k.segment, k.start, k.end] for k in kept if segments[k.segment].kind == "context"]
        facts["spans"] = spans if len(spans) <= MOST_SPANS else None
    return facts


def _cost(parts: Sequence[Rewritten], seconds: float) -> dict[str, Json]:
    known = [made.cost for made in parts if made.cost is not None]
    return {
        "seconds": round(seconds, 6),
        "index_seconds": round(sum(made.index_seconds for made in parts), 6),
        "calls": sum(made.calls for made in parts),
        "read_tokens": sum(made.read_tokens for made in parts),
        "cost": sum(known) if known else None,
    }


def evidence_left(sample: Sample, source: Prompt, rewritten: Kepts, cut: Kepts) -> dict[str, Json] | None:
    """What of a sample's evidence reached the model: {n, rewritten, final, share}.

    n: pieces of evidence. rewritten: how many stand whole after the augmentations; final: after truncation as well.
    share: of the evidence's characters in the end. source: the prompt of the turn, before anything was done to it. None
    where the sample has no evidence, where the turn does not hold the sample's own context (a strategy's own prompt, a
    summary), and where an augmentation wrote text anew.
    """
    if not sample.evidence or None in rewritten or None in cut or not _holds(sample, source, sample.evidence):
        return None
    trail = Trail(sample.evidence)
    for kept in rewritten:
        trail.follow(kept or ())
    after_rewriting = trail.whole
    for kept in cut:
        trail.follow(kept or ())
    return {"n": len(trail), "rewritten": after_rewriting, "final": trail.whole, "share": round(trail.share, 6)}


def _holds(sample: Sample, source: Prompt, evidence: Sequence[Evidence]) -> bool:
    """True if the segments with evidence stand in `source` where they are in the sample."""
    places = {item.segment for item in evidence}
    segments = sample.prompt.segments
    return all(i < len(source.segments) and source.segments[i].text == segments[i].text for i in places)
