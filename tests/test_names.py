"""The names users type: benchmarks and arms, their grids, and the near names of what is mistyped."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from loom_core.api import Catalog, UsageError, parse_arms
from loom_core.registry.names import arm_from_json, arm_identity, arm_to_json, parse_benchmark, refusal


def test_a_benchmark_with_options_and_tasks(catalog: Catalog) -> None:
    choice = parse_benchmark("fable@n=5,mood=moody:chat, tell", catalog)
    assert (choice.options.n, choice.options.mood, choice.tasks) == (5, "moody", ("chat", "tell"))
    assert parse_benchmark("fable", catalog).tasks == ()


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("fabel", "unknown benchmark 'fabel'", "did you mean fable?"),
        ("fable:tel", "unknown task 'tel' of benchmark fable", "did you mean tell?"),
        ("fable:zzz", "unknown task 'zzz'", "known: chat, tell"),
        ("fable@words=0", "bad value for option 'words'", "words of a context"),
        ("fable@wrods=3", "unknown option 'wrods'", "did you mean words?"),
        ("fable@n", "'n' is not an option", "name=value"),
    ],
)
def test_mistyped_benchmarks(catalog: Catalog, text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_benchmark(text, catalog)
    assert what in caught.value.what and hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("fable_haed", "unknown augmentation 'fable_haed'", "did you mean fable_head"),
        ("fable_head:keep=2", "bad value for option 'keep'", "share of the context"),
        ("fable_head:kepe=1", "unknown option 'kepe'", "did you mean keep?"),
        ("fable_leak:x=1", "unknown option 'x'", "takes no options"),
        ("", "an empty arm", "method:option=value"),
        ("fable_head:keep={}", "an empty arm", "method:option=value"),
        ("fable_again+fable_stuck", "one strategy at most", ""),
    ],
)
def test_mistyped_arms(catalog: Catalog, text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arms([text], catalog)
    assert what in caught.value.what and hint in caught.value.hint


def test_dense_comes_first_and_grids_expand(catalog: Catalog) -> None:
    arms = parse_arms(["fable_head:keep={0.1,0.2}+fable_again:calls={1,2}", "dense", "fable_head:keep=0.1"], catalog)
    assert [arm.name for arm in arms] == [
        "dense",
        "fable_head:keep=0.1+fable_again:calls=1",
        "fable_head:keep=0.1+fable_again:calls=2",
        "fable_head:keep=0.2+fable_again:calls=1",
        "fable_head:keep=0.2+fable_again:calls=2",
        "fable_head:keep=0.1",
    ]
    assert [part.kind for part in arms[1].parts] == ["prompt", "strategy"]


def test_an_arm_given_twice_counts_once(catalog: Catalog) -> None:
    assert len(parse_arms(["fable_leak", "fable_leak", "fable_leak"], catalog)) == 2


def test_the_same_options_written_otherwise_have_one_identity(catalog: Catalog) -> None:
    spelt, left = parse_arms(["fable_head:keep=0.5", "fable_head"], catalog)[1:]
    assert arm_identity(spelt) == arm_identity(left)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 100)), min_size=1, max_size=3))
def test_arms_cross_a_process_border_unchanged(catalog: Catalog, rows: list[tuple[float, int]]) -> None:
    texts = [f"fable_head:keep={keep!r}+fable_again:calls={calls}" for keep, calls in rows]
    arms = parse_arms(texts, catalog)
    assert tuple(arm_from_json(arm_to_json(arm), catalog) for arm in arms) == arms
    again = parse_arms([arm.name for arm in arms], catalog)
    assert again == arms


def test_a_server_refuses_what_it_cannot_do(catalog: Catalog) -> None:
    dense, head, cache = parse_arms(["fable_head", "fable_cache"], catalog)
    able = frozenset({"token_ids"})
    assert refusal(dense, able, "double", catalog) is None and refusal(head, able, "double", catalog) is None
    problem = refusal(cache, able, "double", catalog)
    assert problem is not None
    assert "server double cannot do fable_cache" in problem.what and "needs local_model" in problem.why
