"""When two values are equal, what a certificate may hold of one, and what an adapter may not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_parity.comparing import compare, equal, limited, shown
from loom_parity.contract import Case, ParityContext

from loom_core.api import Json, PluginError, UsageError

NUMBERS = st.floats(allow_nan=True) | st.integers() | st.booleans()
VALUES = st.recursive(
    NUMBERS | st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(VALUES)
def test_a_value_equals_itself(value: Json) -> None:
    assert equal(value, value, 0.0)


@pytest.mark.parametrize(
    ("theirs", "ours", "tolerance", "same"),
    [
        (0.5, 0.5000001, 0.0, False),
        (0.5, 0.5000001, 1e-6, True),
        (1e9, 1e9 + 1, 1e-6, True),
        (1, 1.0, 0.0, True),
        (True, 1.0, 0.0, True),
        (0.0, None, 1.0, False),
        ("1", 1, 1.0, False),
        ([1, 2], [1], 0.0, False),
        ({"a": 1}, {"a": 1, "b": None}, 0.0, False),
        (float("inf"), 1e308, 1e-6, False),
        (float("nan"), 0.0, 1.0, False),
    ],
)
def test_equality_is_by_shape_text_and_number(theirs: Json, ours: Json, tolerance: float, same: bool) -> None:
    assert equal(theirs, ours, tolerance) is same
    assert equal(ours, theirs, tolerance) is same


@given(VALUES.filter(lambda value: not isinstance(value, (int, float, type(None)))))
def test_a_certificate_holds_no_text(value: Json) -> None:
    assert set(shown(value)) == {"sha256", "n"}


class Adapter:
    """Cases of a list, one named difference."""

    commit, files = "0" * 40, ()
    differences: Mapping[str, str] = {"known": "as it is"}

    def __init__(self, cases: list[Case], name: str | None = None) -> None:
        self._cases, self._name = cases, name

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        return {}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        yield from self._cases

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        return self._name


def case(**changed: Any) -> Case:
    fields = {"kind": "score", "name": "f1", "id": "1", "function": "f", "payload": 1, "ours": lambda: 1.0}
    return Case(**{**fields, **changed})


def context(limit: int | None = None) -> ParityContext:
    return ParityContext(benchmark=None, tasks=(), data=None, root=Path(), limit=limit)  # type: ignore[arg-type]


def test_an_adapter_out_of_contract_is_named() -> None:
    with pytest.raises(PluginError, match="two cases of one name"):
        list(limited(Adapter([case(), case()]), context(), frozenset("f")))
    with pytest.raises(PluginError, match="no function 'g'"):
        list(limited(Adapter([case(function="g")]), context(), frozenset("f")))
    with pytest.raises(PluginError, match="an unknown difference 'new'"):
        compare(Adapter([], "new"), iter([case()]), lambda function, payload: {"value": 2.0}, lambda found: None)


def test_the_limit_counts_each_kind_and_name() -> None:
    rows = [case(name=name, id=str(i)) for i in range(5) for name in ("f1", "rouge")]
    assert len(list(limited(Adapter(rows), context(2), frozenset("f")))) == 4


def test_what_loom_raises_is_a_difference() -> None:
    def wrong() -> Json:
        raise ZeroDivisionError

    def refuses() -> Json:
        raise UsageError("no")

    made = compare(
        Adapter([]),
        iter([case(ours=wrong), case(id="2", ours=refuses)]),
        lambda function, payload: {"value": 1.0},
        lambda found: None,
    )
    assert [row["ours"] for row in made.unexplained_rows()] == [
        {"raises": "ZeroDivisionError"},
        {"raises": "UsageError"},
    ]
