"""The choice of slow cases by the day: so many run today, and before a release all of them do."""

from __future__ import annotations

from typing import Any

import pytest


def chosen(choose: Any, n: int) -> list[int]:
    """The cases that are not skipped."""
    found = []
    for case in range(7):
        try:
            choose(case, range(7), n)
        except pytest.skip.Exception:
            continue
        found.append(case)
    return found


def test_so_many_cases_run_today_and_all_where_that_is_asked(of_the_day: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOM_TEST_ALL", raising=False)
    assert [len(chosen(of_the_day, n)) for n in (1, 2, 3)] == [1, 2, 3]
    monkeypatch.setenv("LOOM_TEST_ALL", "1")
    assert chosen(of_the_day, 1) == list(range(7))
