"""The baseline `truncate`: spend the budget on a shorter prompt instead of a smaller cache.

The middle of the context is cut until the whole prompt (template, question and prefill included) fits the budget;
nothing else is touched. Knows tokens, no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from loom_core.api import ModelError, Prompt, Tokenizer, Truncation
from loom_core.api.serving import fit, render
from loom_server_hf.plugin import TruncateOptions


class Truncate:
    """A prompt augmentation. Raises ModelError where the budget is smaller than what may not be cut."""

    def __init__(self, options: TruncateOptions) -> None:
        self._budget = options.budget

    @contextmanager
    def open(self, tokenizer: Tokenizer | None) -> Iterator[None]:
        """Nothing is held. Raises ModelError on a server that keeps its tokenizer to itself."""
        if tokenizer is None:
            raise ModelError(
                "truncate counts tokens, and this server shows no tokenizer",
                hint="use the server hf, or leave the arm out",
            )
        yield

    def rewrite(
        self, prompt: Prompt, tokenizer: Tokenizer | None, *, chat: Literal["template", "completion"] = "template"
    ) -> Prompt:
        """The prompt, cut so that it renders to at most the budget's tokens.

        chat: how the prompt will be rendered. A ratio is of the whole rendered prompt, as it is for cache methods.
        """
        assert tokenizer is not None, "open() refuses this"
        whole = render(prompt, tokenizer, chat=chat).token_ids
        assert whole is not None
        keep = self._budget.slots(len(whole))
        if len(whole) <= keep:
            return prompt
        shorter, _ = fit(prompt, tokenizer, chat=chat, truncation=Truncation(), limit=keep)
        return shorter
