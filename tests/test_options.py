"""Options: text to typed dataclasses and back, ranges, grids, refusals."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Budget, UsageError, build, number, option
from loom_core.contract.options import as_json, assignments, budget, describe, grid, identity, show, split


@dataclass(frozen=True)
class Everything:
    """One option of each kind."""

    flag: bool = option(False, help="a flag")
    count: int = option(3, low=1, high=10_000_000, help="how many")
    share: float = option(0.5, low=0.0, high=1.0, help="a share")
    word: str = option("a", help="a word")
    mode: Literal["mean", "max"] = option("mean", help="a mode")
    limit: int | None = option(None, low=2, help="a limit")
    budget: Budget = option(Budget(ratio=0.25), help="a budget")
    sizes: tuple[int, ...] = option((1, 2), low=1, help="sizes")
    names: tuple[str, ...] = option((), help="names")
    batch: int = option(1, low=1, help="how", how=True)


@dataclass(frozen=True)
class Needy:
    """One required option, and a rule between two."""

    path: str = option(help="a path")
    low: int = option(0, help="low")
    high: int = option(9, help="high")

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


def made(text: str) -> Everything:
    """The options of a command line."""
    built: Everything = build(Everything, assignments(text, where=text), owner="test")
    return built


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("flag=true", "flag", True),
        ("flag=On", "flag", True),
        ("flag=0", "flag", False),
        ("count=4096", "count", 4096),
        ("count=4k", "count", 4096),
        ("count=2M", "count", 2 * 1024**2),
        ("share=0", "share", 0.0),
        ("share=1e-3", "share", 0.001),
        ("word=", "word", ""),
        ("word=a=b", "word", "a=b"),
        ("word= x ", "word", "x"),
        ("mode=max", "mode", "max"),
        ("limit=none", "limit", None),
        ("limit=8", "limit", 8),
        ("budget=1k", "budget", Budget(tokens=1024)),
        ("budget=4x", "budget", Budget(ratio=0.25)),
        ("sizes={1,2k}", "sizes", (1, 2048)),
        ("sizes=5", "sizes", (5,)),
        ("names={a,b}", "names", ("a", "b")),
    ],
)
def test_each_kind_of_option(text: str, name: str, value: Any) -> None:
    assert getattr(made(text), name) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuont=3", ["unknown option 'cuont'", "count"]),
        ("names={}", ["bad value for option 'names'", "{} holds no value"]),
        ("count=0", ["bad value for option 'count'", "below the least value 1", "how many"]),
        ("count=99999999", ["above the greatest value"]),
        ("count=3.5", ["expected a whole number"]),
        ("count=-3", ["expected a whole number"]),
        ("share=1.5", ["share=1.5 is above the greatest value 1"]),
        ("share=many", ["expected a number, got 'many'"]),
        ("share=nan", ["expected a finite number"]),
        ("share=inf", ["expected a finite number"]),
        ("flag=perhaps", ["expected true or false"]),
        ("mode=median", ["expected one of mean, max"]),
        ("limit=1", ["below the least value 2"]),
        ("budget=big", ["expected a budget", "write 1024, 4x, 0.25 or 64MiB"]),
        ("budget=0", ["positive"]),
        ("budget=0x", ["positive"]),
        ("budget=0.5x", ["ratio in (0, 1]"]),
        ("budget=150%", ["ratio in (0, 1]"]),
        ("sizes={3,0}", ["sizes=0 is below"]),
        ("count", ["'count' is not an option", "name=value"]),
        ("=3", ["is not an option"]),
        ("count=3,count=4", ["given twice"]),
        ("sizes={1,2", ["unbalanced braces"]),
        ("sizes=1}", ["unbalanced braces"]),
        ("api_key=abc", ["looks like a secret", "environment"]),
        ("hf_token=abc", ["looks like a secret"]),
        ("password=abc", ["looks like a secret"]),
    ],
)
def test_what_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        made(text)
    for word in words:
        assert word in str(caught.value)


def test_names_that_only_sound_like_secrets_are_options() -> None:
    assert assignments("max_tokens=5,tokens=3,keys=2,tokenizer=x", where="") == {
        "max_tokens": "5",
        "tokens": "3",
        "keys": "2",
        "tokenizer": "x",
    }


def test_required_options_and_rules_between_options() -> None:
    with pytest.raises(UsageError, match="'path' is required"):
        build(Needy, {}, owner="test")
    with pytest.raises(UsageError, match="do not go together") as caught:
        build(Needy, {"path": "p", "low": "10"}, owner="test")
    assert "low is above high" in str(caught.value)


def test_an_owner_without_options_says_so() -> None:
    from loom_core.api import NoOptions

    with pytest.raises(UsageError) as caught:
        build(NoOptions, {"x": "1"}, owner="method plain")
    assert "method plain takes no options" in str(caught.value)


def test_identity_leaves_out_how_the_work_is_done() -> None:
    assert "batch" not in identity(made("")) and "batch" in as_json(made(""))


def test_describe_tells_all() -> None:
    rows = {row["name"]: row for row in describe(Everything)}
    assert rows["count"] | {"help": ""} == {
        "name": "count",
        "type": "whole number",
        "default": "3",
        "low": 1,
        "high": 10_000_000,
        "help": "",
    }
    assert rows["budget"]["default"] == "4x" and rows["sizes"]["default"] == "{1,2}"
    assert {row["default"] for row in describe(Needy)} == {"required", "0", "9"}


budgets = st.one_of(
    st.integers(1, 10**9).map(lambda n: Budget(tokens=n)),
    st.integers(1, 10**13).map(lambda n: Budget(bytes_=n)),
    st.floats(1e-12, 1.0, allow_subnormal=False).map(lambda r: Budget(ratio=r)),
    st.integers(1, 10**7).map(lambda n: Budget(ratio=1 / n)),
)


@given(budgets)
def test_budgets_survive_their_own_text(value: Budget) -> None:
    assert budget(str(value)) == value
    assert budget(show(value)) == value


@given(st.floats(1e-6, 1.0), st.integers(1, 10**6))
def test_slots_of_a_ratio_are_the_floor_of_the_product(ratio: float, n: int) -> None:
    slots = Budget(ratio=ratio).slots(n)
    assert 1 <= slots <= n and abs(slots - max(1, ratio * n)) < 1


def test_a_ratio_whose_product_is_whole_is_not_floored_below_it() -> None:
    assert Budget(ratio=0.1).slots(30) == 3
    assert Budget(ratio=1 / 3).slots(9) == 3


values = st.builds(
    Everything,
    flag=st.booleans(),
    count=st.integers(1, 10_000_000),
    share=st.floats(0, 1),
    word=st.text("abcxyz -_./", max_size=8).map(str.strip),
    mode=st.sampled_from(["mean", "max"]),
    limit=st.none() | st.integers(2, 10**6),
    budget=budgets,
    sizes=st.lists(st.integers(1, 10**6), max_size=4).map(tuple),
    names=st.lists(st.text("abc", min_size=1, max_size=3), max_size=3).map(tuple),
    batch=st.integers(1, 64),
)


@given(values)
def test_options_survive_json_and_the_command_line(value: Everything) -> None:
    assert build(Everything, as_json(value), owner="test") == value
    # An empty list is what is left out, or comes from TOML and JSON: typed, {} is a slip and refused.
    given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != ()}
    empty = {f.name: () for f in fields(value) if f.name not in given}
    text = ",".join(f"{name}={show(one)}" for name, one in given.items())
    if value.word.lower() != "none":
        assert replace(made(text), **empty) == value


@given(st.lists(st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3), min_size=1, max_size=3))
def test_grids_have_every_combination_once_in_order(columns: list[list[str]]) -> None:
    from itertools import product

    written = {f"o{i}": "{" + ",".join(items) + "}" for i, items in enumerate(columns)}
    assert [tuple(row.values()) for row in grid(written)] == list(product(*columns))


def test_number_and_split() -> None:
    assert number(" 32K ") == 32768
    assert split("a+b:x={1+2,3}+c", "+") == ["a", "b:x={1+2,3}", "c"]
    assert split("", ",") == []
