"""Keys: one text for one value, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Budget, Generation, Prompt, canonical, digest, seed_of, segment
from loom_core.contract.keys import call_key, job_key, plain, prompt_digest

texts = st.text(st.characters(exclude_categories=()), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def reordered(value: Any) -> Any:
    """The same value with every mapping's order turned around."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_order_does_not_matter(value: Any) -> None:
    assert canonical(value) == canonical(reordered(value))


@given(values)
def test_the_canonical_text_is_json_of_the_same_value(value: Any) -> None:
    text = canonical(value)
    assert text.isascii() and "\n" not in text and json.loads(text) == value


@given(values, values)
def test_different_values_have_different_texts(one: Any, other: Any) -> None:
    if canonical(one) == canonical(other):
        assert one == other


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, {"deep": [math.nan]}])
def test_no_nan_ever_enters_a_key(bad: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest(bad)


def test_what_is_no_json_value_is_refused() -> None:
    with pytest.raises(TypeError, match="not a JSON value"):
        plain(object())


def test_records_sets_and_tuples_become_plain() -> None:
    assert plain({"a": (1, {"y", "x"}), 2: Budget(tokens=3)}) == {
        "a": [1, ["x", "y"]],
        "2": {"tokens": 3, "ratio": None, "bytes_": None},
    }


def test_another_process_with_another_hash_seed_gives_the_same_key() -> None:
    code = (
        "from loom_core.contract.keys import digest; from loom_core.contract.types import Generation;"
        "print(digest({'b': {'x', 'y', 'z'}, 'a': Generation(max_tokens=3, stop=('\\n',)), 'c': 0.1}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    wanted = digest({"c": 0.1, "a": Generation(max_tokens=3, stop=("\n",)), "b": {"x", "y", "z"}})
    assert found == {wanted + "\n"}


def test_keys_are_what_they_were() -> None:
    """Keys name what is stored on users' disks: they may change only on purpose."""
    text = rb'{"a":"\u00fc\ud800","b":[1,2.5,null]}'
    assert digest({"b": [1, 2.5, None], "a": "ü\ud800"}) == hashlib.sha256(text).hexdigest()


BASE: dict[str, Any] = {
    "sample": "s",
    "source_digest": "d",
    "task": {"name": "t"},
    "repeat": 0,
    "model": {"digest": "m"},
    "arm": [["a", "1", {}]],
    "protocol": "query-aware",
}


@pytest.mark.parametrize("name", BASE)
def test_every_part_of_a_job_changes_its_key(name: str) -> None:
    changed = {**BASE, name: 1 if name == "repeat" else "another"}
    assert job_key(**BASE) != job_key(**changed)


def test_call_keys_differ_by_step_prompt_and_generation() -> None:
    base = ("job", 0, [1, 2], Generation(max_tokens=3))
    others = [
        ("bob", *base[1:]),
        ("job", 1, *base[2:]),
        ("job", 0, [1], base[3]),
        (*base[:3], Generation(max_tokens=4)),
    ]
    assert len({call_key(*row) for row in [base, *others]}) == 5


def test_prompts_with_other_borders_have_other_digests() -> None:
    one = Prompt(segments=(segment("context", "ab"), segment("question", "c")))
    other = Prompt(segments=(segment("context", "a"), segment("question", "bc")))
    assert one.text == other.text and prompt_digest(one) != prompt_digest(other)
    assert one.context_digest != other.context_digest


@given(texts)
def test_seeds_have_63_bits(key: str) -> None:
    seed = seed_of(key.encode("utf-8", "ignore").decode())
    assert 0 <= seed < 2**63 and seed == seed_of(key.encode("utf-8", "ignore").decode())
