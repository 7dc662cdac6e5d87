"""The two ways out to a terminal, standard output and standard error. Everything that a command prints passes here.

What came from outside (answers, errors of endpoints, names in a run folder, a worker's last words) may hold escape
sequences; they are spelt out. What the terminal's encoding cannot say becomes ASCII words. A reader that went away
(`loom run | head -1`) stops the printing, not the command. Knows no command.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from loom_core.contract.foreign import escaped, visible

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 110
"""Columns of tables that go to a file or a pipe."""

WORDS = {"Δ": "diff", "µ": "u", "μ": "u", "–": "-", "—": "-", "−": "-", "…": "...", "·": "*", "±": "+/-", "×": "x"}
WORDS |= {
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "█": "#",
    "≈": "~",
    "⟨": "<",
    "⟩": ">",
    "“": '"',
    "”": '"',
    "’": "'",
    "²": "2",
}


class Painted(str):
    """A text that may hold escape sequences, because loom put them there."""


def paint(text: str, **style: Any) -> Painted:
    """A text in a colour or weight (`click.style`); what is in it is made visible first."""
    return Painted(click.style(visible(text), **style))


def say(*pieces: str, err: bool = False) -> None:
    """Print a line made of pieces; all that is not `paint`ed is made visible."""
    _print("".join(piece if isinstance(piece, Painted) else visible(piece) for piece in pieces), err)


def say_all(items: Iterable[object]) -> None:
    """Print lines of text, and renderables of rich, as wide as the terminal or as `FILE_WIDTH` in a file or a pipe."""
    out: Console | None = None
    for item in items:
        if isinstance(item, str):
            say(item)
            continue
        if out is None:
            out = console()
            out = out if out.is_terminal else console(width=FILE_WIDTH)
        out.print(item)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    _print(escaped(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)), False)


def say_data(text: str) -> bool:
    """Print a text in a format of its own: exactly into a file or a pipe, visibly on a terminal. False where the reader
    has just gone, so that whoever streams may stop."""
    return _print(visible(text) if sys.stdout is not None and sys.stdout.isatty() else text, False)


def console(*, err: bool = False, width: int | None = None) -> Console:
    """A console of rich for tables and bars, whose texts are made visible."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Visible(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            self.quiet = True
            _close(err)

    return Visible(stderr=err, width=width)


def prepare() -> None:
    """Let both streams say everything, whatever their encoding is."""
    codecs.register_error("loom.words", _in_words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="loom.words")


def flush() -> None:
    """Force out what was printed. Raises OSError where it cannot be; nothing is left for the interpreter to fail on."""
    for err, stream in ((False, sys.stdout), (True, sys.stderr)):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BrokenPipeError:
            _close(err)
        except OSError:
            _close(err)
            raise


def _print(text: str, err: bool) -> bool:
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return True
    try:
        stream.write((text if stream.isatty() else click.unstyle(text)) + "\n")
        stream.flush()
    except BrokenPipeError:
        _close(err)
        return False
    except OSError:
        _close(err)
        raise
    return True


def _close(err: bool) -> None:
    """Send what is still printed nowhere, the interpreter's own last flush included."""
    stream = sys.stderr if err else sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _in_words(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(WORDS.get(character, "?") for character in found), error.end
