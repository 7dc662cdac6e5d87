"""Make a prompt fit: policies that shrink the context, or cut the raw prompt as some benchmark authors do; and how much
filler a prompt may have.

A cut is made in the text, at token borders, and rendered again; what was removed is counted. Only `context` segments
shrink unless the policy's scope is "prompt"; that cut reads as the authors' decoding of the kept tokens does, with
U+FFFD for a part of a character. Knows a tokenizer's contract, no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from loom_core.contract.errors import ModelError
from loom_core.contract.prompt import context_indices, with_texts
from loom_core.contract.protocols import Rendered, Tokenizer, lead_ids
from loom_core.contract.types import Prompt, Truncation
from loom_core.prompting.render import Chat, render

FALSE_POSITIONS = 8


def fit(
    prompt: Prompt, tokenizer: Tokenizer, *, chat: Chat, truncation: Truncation, limit: int, budget: int | None = None
) -> tuple[Prompt, Rendered]:
    """The prompt, cut so that it renders to at most `limit` tokens, and its rendering.

    budget: an even smaller number of tokens for the whole prompt (the `truncate` baseline). Raises ModelError with the
    arithmetic when what may not be cut is already too long.
    """
    limit = min(limit, budget) if budget is not None else limit
    whole = render(prompt, tokenizer, chat=chat)
    n_whole, original = _length(whole), prompt
    if truncation.scope == "prompt":
        most = min(truncation.limit or limit, limit)
        prompt = _cut_prompt(prompt, tokenizer, truncation, most)
        whole = whole if prompt is original else render(prompt, tokenizer, chat=chat)
        if prompt is not original and _length(whole) > limit:
            # A part of a character may be read back as more tokens than it was; where they do not fit, it is left out.
            prompt = _cut_prompt(original, tokenizer, truncation, most, exact=False)
            whole = render(prompt, tokenizer, chat=chat)
    final, rendered, excess = prompt, whole, 0
    offsets = tokenizer.offsets(prompt.context)[1] if _length(whole) > limit else []
    while (over := _length(rendered) - limit) > 0:
        if excess >= len(offsets):
            raise ModelError(
                "the prompt does not fit even with an empty context",
                why=f"{n_whole} tokens in all, {limit} allowed; without its context it still has {_length(rendered)}",
                hint="choose a larger budget or window, or fewer new tokens",
            )
        # The joint of a cut may tokenise differently, so the excess grows until the prompt fits.
        excess = min(excess + over, len(offsets))
        final = _cut_context(prompt, offsets, truncation.side, excess)
        rendered = render(final, tokenizer, chat=chat)
    dropped = max(0, n_whole - _length(rendered))
    return final, replace(rendered, n_dropped=dropped, cut=tuple(sorted(_changed(original, final))))


def most_units(count: Callable[[int], int], target: int) -> int:
    """The largest number of units (words, sentences) whose prompt has at most `target` tokens; -1 where not even 0 fit.

    count: tokens of the prompt with n units, nearly linear in n. It is called few times: by false position between the
    brackets, which for a text of even density needs three to six.
    """
    low, n_low = 0, count(0)
    if n_low > target:
        return -1
    high, n_high = max(1, target - n_low), 0
    while (n_high := count(high)) <= target:
        low, n_low, high = high, n_high, high * 2
    tried = 0
    while high - low > 1 and n_low < target:
        # An uneven text may hold false position back; halving ends it.
        share = (target - n_low) / max(1, n_high - n_low) if tried < FALSE_POSITIONS else 0.5
        middle = min(high - 1, max(low + 1, low + int(share * (high - low))))
        n_middle = count(middle)
        if n_middle <= target:
            low, n_low = middle, n_middle
        else:
            high, n_high = middle, n_middle
        tried += 1
    return low


def keep_ends(n: int, keep: int, side: str) -> tuple[int, int]:
    """The range [start, end) to remove from `n` items so that `keep` stay; side names the part that goes."""
    drop = n - keep
    start = {"middle": (keep + 1) // 2, "left": 0, "right": keep}[side]
    return start, start + drop


def _length(rendered: Rendered) -> int:
    assert rendered.token_ids is not None
    return len(rendered.token_ids)


def _changed(before: Prompt, after: Prompt) -> set[str]:
    pairs = zip(before.segments, after.segments, strict=True)
    return {old.kind for old, new in pairs if old.text != new.text}


def _removed(offsets: Sequence[tuple[int, int]], first: int, last: int, end: int) -> tuple[int, int]:
    """The characters of tokens `first` to `last` of a text of `end` characters; one that a border splits goes whole."""
    start = offsets[first][0] if first < len(offsets) else end
    stop = offsets[last][0] if last < len(offsets) else end
    if 0 < last < len(offsets) and offsets[last] == offsets[last - 1]:
        stop = offsets[last][1]
    return start, stop


def _cut_context(prompt: Prompt, offsets: Sequence[tuple[int, int]], side: str, excess: int) -> Prompt:
    """Remove `excess` of the concatenated context's tokens, which lie at these offsets."""
    first, last = keep_ends(len(offsets), len(offsets) - excess, side)
    start, end = _removed(offsets, first, last, len(prompt.context))
    texts, at = {}, 0
    for i in context_indices(prompt):
        text = prompt.segments[i].text
        low, high = min(max(start - at, 0), len(text)), min(max(end - at, 0), len(text))
        texts[i] = text[:low] + text[high:]
        at += len(text)
    return with_texts(prompt, texts)


def _cut_prompt(
    prompt: Prompt, tokenizer: Tokenizer, truncation: Truncation, limit: int, *, exact: bool = True
) -> Prompt:
    """Cut the tokenised raw prompt to `limit` tokens, BOS counted, wherever that falls (LongBench pred.py's rule:
    the first and the last half). exact: parts of characters at the border are U+FFFD, as decoding has them."""
    text = prompt.text
    ids, offsets = tokenizer.offsets(text)
    lead = len(lead_ids(tokenizer))
    if len(ids) + lead <= limit:
        return prompt
    half, rest, whole = max(0, limit // 2), max(0, limit - lead), truncation.decoded == "whole"
    middle = (max(0, half - lead), limit - half if whole else half)
    head, tail = {"middle": middle, "right": (rest, 0), "left": (0, rest)}[truncation.side]
    start, end = _removed(offsets, head, len(ids) - tail, len(text))
    first, last = ids[:head], ids[len(ids) - tail :]
    decoded = tokenizer.decode([*first, *last]) if whole else tokenizer.decode(first) + tokenizer.decode(last)
    between, end = _between(decoded, text, start, end) if exact else ("", end)
    bounds, at = [], 0
    for segment in prompt.segments:
        bounds.append(at)
        at += len(segment.text)
    texts, cut = {}, max(0, bisect_right(bounds, start) - 1)
    for i in range(cut, len(bounds)):
        segment_text = prompt.segments[i].text
        low = min(max(start - bounds[i], 0), len(segment_text))
        high = min(max(end - bounds[i], 0), len(segment_text))
        texts[i] = segment_text[:low] + (between if i == cut else "") + segment_text[high:]
    return with_texts(prompt, texts)


def _between(decoded: str, text: str, start: int, end: int) -> tuple[str, int]:
    """What decoding puts between text[:start] and text[end:], and where the second begins.

    That is U+FFFD where a border lies in a character, and nothing otherwise; some tokenizers drop the space that a
    part begins with. Where a tokenizer does not give its text back at all, nothing is changed.
    """
    for begin in (end, end + 1):
        rest = text[begin:]
        space = begin == end or text[end : end + 1] == " "
        if space and decoded.startswith(text[:start]) and decoded.endswith(rest):
            length = len(decoded) - len(rest) - start
            if length >= 0:
                return decoded[start : start + length], begin
    return "", end
