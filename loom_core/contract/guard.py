"""The one place where code of plugins is called: whatever it raises leaves as an error that names the plugin.

A plugin may cost what depends on it, never the program: what would end the interpreter (SystemExit of a library's
argument parser, a stray GeneratorExit) is a fault like any other. Only the user's own Ctrl-C passes. Knows errors
alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from loom_core.contract.errors import LoomError, PluginError

T = TypeVar("T")
LONGEST = 300
END = object()


class Accident(PluginError):
    """What a plugin did not mean to raise. It may go otherwise in another process; what it refuses it refuses again."""

    def to_json(self) -> dict[str, str]:
        """See `LoomError`: across a process border it is a PluginError."""
        return {**super().to_json(), "type": "PluginError"}


@contextmanager
def guarded(owner: str, doing: str = "") -> Iterator[None]:
    """Run a plugin's code. What it raises, but for a `LoomError` and Ctrl-C, becomes a PluginError.

    owner: whose code it is ("benchmark passkey"); doing: what was asked of it ("tasks()"), for the message.
    """
    try:
        yield
    except (LoomError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Accident(
            f"{owner}{': ' if doing else ''}{doing} raised {described(error)}",
            where=_place(error),
            why="" if isinstance(error, Exception) else "a plugin may not end the program",
            hint="report it to its author, or leave it out",
        ) from error


def each(items: Iterable[T], owner: str, doing: str) -> Iterator[T]:
    """The items of an iterable that a plugin gave; what it raises between them is a PluginError. It is closed with this
    iterator.
    """
    with guarded(owner, doing):
        iterator = iter(items)
    try:
        while True:
            with guarded(owner, doing):
                item = next(iterator, END)
            if item is END:
                return
            yield item  # type: ignore[misc]
    finally:
        if (close := getattr(iterator, "close", None)) is not None:
            with guarded(owner, doing):
                close()


def described(error: BaseException) -> str:
    """An exception's type and first words; its text may be anything, or raise."""
    try:
        text = " ".join(str(error).splitlines())
    except Exception:  # noqa: BLE001 - an exception class of a plugin
        text = ""
    shown = text[:LONGEST] + ("…" if len(text) > LONGEST else "")
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def reason(error: LoomError) -> str:
    """An error for records that say whose it is: of an accident, what was raised."""
    if isinstance(error, Accident) and error.__cause__ is not None:
        return described(error.__cause__)
    return str(error)


def _place(error: BaseException) -> str:
    """File and line that raised, in the words of whoever looks for them."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}, line {last.lineno}"
