"""The result of one check of a plugin, and how a check is tried. Knows no kind of plugin.

A check raises AssertionError with the fault, `NotChecked` with what was in the way, or nothing where all is well.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loom_core.contract.errors import LoomError
from loom_core.contract.guard import described
from loom_core.data.access import Unavailable


@dataclass(frozen=True, slots=True)
class Row:
    """One check of one subject. why: what failed, or what could not be checked here.

    checked: False where the check could not be made; such a row is not a failure (passed is True) and no pass either.
    """

    subject: str
    check: str
    passed: bool
    why: str = ""
    checked: bool = True


class NotChecked(Exception):
    """A check that cannot be made here; says why, and what is needed."""


class TooSlow(Exception):
    """A trial that used more processor time than it is given."""


def attempt(subject: str, check: str, trial: Callable[[], Any]) -> Row:
    """The row of a trial: whatever a plugin raises is its result, never a traceback."""
    try:
        with contained():
            trial()
    except Unavailable as error:
        return Row(subject, check, True, str(error.what) + (f" ({error.hint})" if error.hint else ""), checked=False)
    except NotChecked as error:
        return Row(subject, check, True, str(error), checked=False)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this check's result
        return Row(subject, check, False, reason(error))
    return Row(subject, check, True)


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, AssertionError) and error.args and isinstance(text := error.args[0], str) and text:
        return text.partition("\n")[0]
    if isinstance(error, LoomError):
        return "; ".join([error.what, *(text for _, text in error.parts() if text)]).replace("\n", " ")
    return described(error)


class Ended(Exception):
    """A plugin raised what would end the program."""


@contextmanager
def contained() -> Iterator[None]:
    """Let what would end the program (SystemExit, a stray GeneratorExit) be a fault like others; Ctrl-C passes."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Ended(f"raised {described(error)}: a plugin may not end the program") from error


def rows_told(rows: Iterator[Row], subject: str) -> Iterator[Row]:
    """The rows of a kit; what a plugin raises between them is a failed row, and the last."""
    while True:
        try:
            with contained():
                row = next(rows, None)
        except Exception as error:  # noqa: BLE001 - as in `attempt`
            yield Row(subject, "can be checked", False, reason(error))
            return
        if row is None:
            return
        yield row


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raises TooSlow where the body uses more processor time than this: a busy machine changes nothing.

    Needs the main thread and a system with interval timers; elsewhere there is no bound.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {seconds:g} seconds of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
