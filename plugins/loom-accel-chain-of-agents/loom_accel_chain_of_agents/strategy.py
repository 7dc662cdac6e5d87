"""Chain-of-Agents: worker i reads window i and the summary so far, and writes the next one; the manager answers.

Knows windows and wording; knows no model. Algorithm 1 of the paper: s_i = worker(s_(i-1), c_i, q), answer =
manager(s_n, q). A context that fits one window still has one worker and the manager.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

from loom_rag import Window, note_limits, reading, task_text, windows, with_context

from loom_accel_chain_of_agents.plugin import ChainOfAgentsOptions
from loom_core.api import ModelCard, Prompt, Response, Turn
from loom_core.api.serving import n_tokens

NOTHING = "(nothing yet)"
NOTES = "Notes taken while reading a long text from beginning to end:\n"


class ChainOfAgents:
    """The strategy `chain-of-agents`."""

    def __init__(self, options: ChainOfAgentsOptions) -> None:
        self._options = options
        self._card: ModelCard | None = None

    @contextmanager
    def open(self, card: ModelCard) -> Iterator[None]:
        """Learn the model's tokenizer and window."""
        self._card = card
        yield

    def solve(self, turn: Turn) -> Generator[Turn, Response, str]:
        """One call a window, and one for the manager."""
        summary = ""
        for window in self._windows(turn):
            worker = worker_prompt(turn.prompt, window, summary)
            limits = note_limits(turn, self._options.summary)
            summary = (yield reading(turn.prompt, *worker, limits)).text.strip()
        if not turn.prompt.context.strip():
            return (yield turn).text
        manager = with_context(turn.prompt, f"{NOTES}{summary or NOTHING}\n")
        return (yield replace(turn, prompt=manager, augment=False)).text

    def _windows(self, turn: Turn) -> tuple[Window, ...]:
        assert self._card is not None, "open() comes first"
        options, limits = self._options, note_limits(turn, self._options.summary)
        empty = reading(turn.prompt, *worker_prompt(turn.prompt, Window("", 99, 99), ""), limits).prompt
        overhead = n_tokens(empty, self._card.tokenizer, chat="template")
        found = windows(
            turn.prompt,
            self._card,
            size=options.window,
            overhead=overhead,
            reserved=2 * options.summary,
            further_calls=1,
        )
        return tuple(found)


def worker_prompt(source: Prompt, window: Window, summary: str) -> tuple[str, str, str]:
    """What a worker is shown before the window, the window, and what it is asked after it."""
    before = (
        f"A long text is read in {window.n} parts, one after the other. You read part {window.number}. "
        "What you write is all that later readers will know of the parts so far.\n\n"
        f"The task that will be solved in the end:\n{task_text(source)}\n\n"
        f"Summary of the earlier parts:\n{summary or NOTHING}\n\nPart {window.number}:\n"
    )
    after = (
        "\n\nWrite the new summary: keep what the earlier one holds for the task, and add what this part says for it "
        "(names, numbers and wording exactly as they stand). Do not solve the task.\nSummary:\n"
    )
    return before, window.text, after
