"""An iterator watched from outside: where its next item does not come in time, the wait ends. Knows threads only.

The items are made in a thread of their own, one at a time and only when asked for, as a generator would. A thread that
hangs in foreign code cannot be ended: it is left behind and ends with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Silent(Exception):
    """The next item did not come in time."""


def watched(items: Iterator[T], seconds: float) -> Iterator[T]:
    """The items, in order. Raises `Silent` where one takes longer than `seconds`; what making them raises is raised."""
    wanted: queue.Queue[bool] = queue.Queue()
    made: queue.Queue[tuple[str, Any]] = queue.Queue()
    threading.Thread(target=_make, args=(items, wanted, made), name="watched", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            try:
                kind, value = made.get(timeout=seconds)
            except queue.Empty:
                raise Silent(f"no answer within {seconds:g} s") from None
            if kind == "end":
                return
            if kind == "raise":
                raise value
            yield value
    finally:
        wanted.put(False)


def _make(items: Iterator[T], wanted: queue.Queue[bool], made: queue.Queue[tuple[str, Any]]) -> None:
    while wanted.get():
        try:
            made.put(("item", next(items)))
        except StopIteration:
            made.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits for the item
            made.put(("raise", error))
    if (close := getattr(items, "close", None)) is not None:
        close()
