"""A watched iterator: the same items, made only when asked for; what hangs is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from loom_core.score.silence import Silent, watched


def test_items_come_in_order_and_only_when_asked_for() -> None:
    made: list[int] = []
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            for number in range(3):
                made.append(number)
                yield number
        finally:
            closed.set()

    found = watched(items(), 60.0)
    assert next(found) == 0 and made == [0]
    assert list(found) == [1, 2]
    again = watched(items(), 60.0)
    assert next(again) == 0
    closed.clear()
    again.close()  # type: ignore[attr-defined]
    assert closed.wait(60.0), "an iterator that is left is closed"


def test_what_making_raises_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    found = watched(items(), 60.0)
    assert next(found) == 1
    with pytest.raises(KeyError, match="gone"):
        next(found)


def test_what_hangs_is_given_up() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait()

    found = watched(items(), 0.05)
    assert next(found) == 1
    with pytest.raises(Silent, match=r"no answer within 0\.05 s"):
        next(found)
    never.set()
