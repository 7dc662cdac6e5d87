"""Samples of the needle test: where the key stands, how long the prompt is, and that nothing depends on the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_bench_passkey.benchmark import Passkey, spread, upstream_keys
from loom_bench_passkey.filler import WORD, Essays, sentences
from loom_bench_passkey.plugin import PasskeyOptions
from loom_bench_passkey.prompts import hide
from loom_bench_passkey.settings import LOOM, Settings, spaced

from loom_core.api import DataDir, Sample, UsageError, build, digest
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import most_units, render
from loom_core.contract.keys import plain

NOWHERE = DataDir(mirror=None, cache=Path("/nonexistent"), offline=True)


def samples(lengths: tuple[int, ...] = (), *, tokenizer: ToyTokenizer | None = None, **options: Any) -> list[Sample]:
    bench = Passkey(PasskeyOptions(**options))
    (task,) = bench.tasks(lengths)
    return list(bench.samples(task, NOWHERE, tokenizer, lengths))


def test_defaults() -> None:
    rows = samples()
    assert len(rows) == 3 * 10 * 3
    assert len({row.id for row in rows}) == 90
    assert {row.level for row in rows} == {"256 words", "512 words", "1024 words"}
    assert {row.depth for row in rows} == set(spaced(0.0, 1.0, 10))
    assert "loom-w512-d0.11-r0" in {row.id for row in rows}
    assert len({row.references[0] for row in rows}) == 90


def test_the_text_of_a_sample() -> None:
    row = next(row for row in samples(words=(64,), depths=3, repeats=1) if row.id == "loom-w64-d0.50-r0")
    instruction, context, question = row.prompt.segments
    (key,) = row.references
    needle = f"The pass key is {key}. Remember it. {key} is the pass key."
    assert instruction.text.startswith("There is an important info hidden inside a lot of irrelevant text.")
    assert question.text == "\nWhat is the pass key? The pass key is"
    assert [s.kind for s in row.prompt.segments] == ["instruction", "context", "question"]
    (evidence,) = row.evidence
    assert (evidence.segment, context.text[evidence.start : evidence.end]) == (1, needle)
    before, after = context.text.split(needle)
    assert (len(before.split()), len(after.split())) == (32, 32)
    assert before.endswith(" ")
    assert not before.endswith("  ")
    assert after.startswith(" ")
    assert context.text == context.text.strip()


@pytest.mark.parametrize(("depths", "expected"), [(1, [0]), (2, [0, 10]), (4, [0, 3, 6, 10])])
def test_depths_are_truncated_to_whole_words(depths: int, expected: list[int]) -> None:
    rows = samples(words=(10,), depths=depths, repeats=1)
    assert sorted(row.meta["position"] for row in rows) == expected


def test_the_ends_of_the_filler() -> None:
    first, last = sorted(samples(words=(20,), depths=2, repeats=1), key=lambda row: row.depth or 0)
    assert first.prompt.context.startswith("The pass key is ")
    assert last.prompt.context.endswith(" is the pass key.")
    assert first.prompt.text.count("\n") == last.prompt.text.count("\n") == 2


def test_64_digits() -> None:
    rows = samples(digits=64, words=(20,), depths=2, repeats=1)
    assert {row.task for row in rows} == {"loom_64digits"}
    assert all(len(row.references[0]) == 64 and row.references[0][0] != "0" for row in rows)
    assert rows[0].id.startswith("loom_64digits-w20-d")
    (task,) = Passkey(PasskeyOptions(digits=64)).tasks(())
    assert task.generation.max_tokens > 64


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"digits": "8"}, "expected one of 7, 64"),
        ({"variant": "essay"}, "expected one of loom, essays"),
        ({"words": "0"}, "below the least value 1"),
        ({"words": "{512,512}"}, "given twice"),
        ({"depths": "0"}, "below"),
        ({"word": "5"}, "words"),
    ],
)
def test_options_that_cannot_be_meant(values: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        build(PasskeyOptions, values, owner="benchmark passkey")


def test_options_as_text() -> None:
    options = build(PasskeyOptions, {"variant": "essays", "words": "{512,2k}", "digits": "64"}, owner="x")
    assert options == PasskeyOptions(variant="essays", words=(512, 2048), digits=64)


def test_same_bytes_in_another_process() -> None:
    code = (
        "from pathlib import Path\n"
        "from loom_bench_passkey.benchmark import Passkey\n"
        "from loom_bench_passkey.plugin import PasskeyOptions\n"
        "from loom_core.data.access import DataDir\n"
        "from loom_core.contract.keys import digest, plain\n"
        "bench = Passkey(PasskeyOptions(words=(40, 300), repeats=1, seed=5))\n"
        "data = DataDir(mirror=None, cache=Path('nowhere'), offline=True)\n"
        "print(digest([plain(s) for s in bench.samples(bench.tasks(())[0], data, None, ())]))\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {digest([plain(row) for row in samples(words=(40, 300), repeats=1, seed=5)])}


def test_samples_do_not_depend_on_their_neighbours() -> None:
    alone = {row.id: row for row in samples(words=(50,), depths=2, repeats=1)}
    among = {row.id: row for row in samples(words=(50, 80), depths=2, repeats=2)}
    assert all(among[name] == row for name, row in alone.items())
    other = {row.id: row for row in samples(words=(50,), depths=2, repeats=1, seed=1)}
    assert all(other[name].references != row.references for name, row in alone.items())
    assert all(other[name].prompt.context != row.prompt.context for name, row in alone.items())


@given(st.integers(1, 6), st.integers(1, 24), st.integers(1, 3))
def test_any_first_samples_are_fair(n_levels: int, n_depths: int, repeats: int) -> None:
    order = list(spread(n_levels, n_depths, repeats))
    assert len(set(order)) == len(order) == n_levels * n_depths * repeats
    for n in range(len(order) + 1):
        levels = [sum(row[1] == i for row in order[:n]) for i in range(n_levels)]
        assert max(levels) - min(levels) <= 1
    for begin in range(0, len(order), n_levels * n_depths):
        assert len({row[1:] for row in order[begin : begin + n_levels * n_depths]}) == n_levels * n_depths
    for i in range(n_levels):
        depths = [row[2] for row in order if row[1] == i]
        assert all(set(depths[k : k + n_depths]) == set(range(n_depths)) for k in range(0, len(depths), n_depths))


def test_the_first_depths_reach_both_halves() -> None:
    first = [row[2] for row in spread(1, 10, 1)][:6]
    assert min(first) < 3
    assert max(first) > 6


@pytest.mark.parametrize("lengths", [(400,), (1024, 2048), (777,)])
def test_lengths_in_tokens(lengths: tuple[int, ...]) -> None:
    tokenizer = ToyTokenizer()
    longest = max(len(word) for word in WORD.findall(" ".join(sentences()) + " "))
    for row in samples(lengths, tokenizer=tokenizer, depths=4, repeats=1):
        target = int(row.id.split("-")[1][1:])
        tokens = len(render(row.prompt, tokenizer, chat="completion").token_ids or ())
        assert target - longest - 1 <= tokens <= target
        assert row.level == {1024: "1k", 2048: "2k"}.get(target, str(target))
        assert "length_estimated" not in row.meta


def test_lengths_without_a_tokenizer_are_labelled_estimates() -> None:
    for row in samples((1024,), depths=3, repeats=1):
        assert row.meta["length_estimated"] is True
        assert 4 * 1024 - 20 <= len(row.prompt.text) <= 4 * 1024


def test_a_length_too_short_for_the_needle() -> None:
    with pytest.raises(UsageError, match=r"(?s)too short for the needle.*--lengths 50.*ask for at least \d+ tokens"):
        samples((50,), tokenizer=ToyTokenizer())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 300), st.integers(0, 50))
def test_most_words_is_the_most(costs: list[int], target: int, start: int) -> None:
    def count(n: int) -> int:
        rounds, rest = divmod(n, len(costs))
        return start + n + rounds * sum(costs) + sum(costs[:rest])

    found = most_units(count, target)
    if start > target:
        assert found == -1
    else:
        assert count(found) <= target < count(found + 1)


@given(st.integers(1000, 100_000), st.sampled_from([1.1, 1.45, 2.0, 3.7]))
def test_most_words_asks_few_times(target: int, density: float) -> None:
    asked: list[int] = []

    def count(n: int) -> int:
        asked.append(n)
        return 60 + round(n * density)

    most_units(count, target)
    assert len(asked) <= 10


WORDS = st.lists(
    st.tuples(st.text("ab.é", min_size=1, max_size=4), st.sampled_from([" ", "  ", "\n", "\n\n"])), max_size=30
)


@settings(deadline=None)
@given(WORDS, st.floats(0, 1), st.booleans())
def test_hiding_keeps_every_word_and_finds_the_needle(pairs: list[tuple[str, str]], depth: float, tidy: bool) -> None:
    words = [word + space for word, space in pairs]
    found = hide(LOOM, words, "1234567", depth, tidy=tidy)
    context = found.prompt.segments[1].text
    needle = LOOM.needle_with("1234567")
    assert context[found.evidence.start : found.evidence.end] == needle
    assert found.position == int(len(words) * depth)
    before, after = context[: found.evidence.start], context[found.evidence.end :]
    assert before.split() == [word for word, _ in pairs[: found.position]]
    assert after.split() == [word for word, _ in pairs[found.position :]]
    if not tidy:
        halves = "".join(words[: found.position]).strip(), "".join(words[found.position :]).strip()
        assert context == " ".join([halves[0], needle, halves[1], ""])


def test_an_official_prompt_by_hand() -> None:
    """The paper's form, on made-up wording: parts stripped, joined by spaces, one more at the end."""
    made = Settings(instruction="Find it.\n", needle="Key <K>. <K>!", placeholder="<K>", question="\nKey? ", words=(5,))
    words = WORD.findall("One  two\nthree four\n\nfive ")
    found = hide(made, words, "42", 0.5, tidy=False)
    assert found.prompt.text == "Find it.\nOne  two Key 42. 42! three four\n\nfive \nKey? "
    ends = [hide(made, words, "42", depth, tidy=False).prompt.context for depth in (0.0, 1.0)]
    assert ends == [
        " Key 42. 42! One  two\nthree four\n\nfive ",
        "One  two\nthree four\n\nfive Key 42. 42!  ",
    ]


def test_essays_are_joined_as_they_are_and_begin_again() -> None:
    essays = Essays(["one two", "three\r\nfour ", "  "])
    assert essays.first(2) == ["one ", "two"]
    assert essays.first(3) == ["one ", "twothree\n", "four "], "no white space parts two and three"
    assert essays.first(4) == ["one ", "twothree\n", "four "], "upstream counts essay by essay, and has one word less"
    assert essays.first(5) == ["one ", "twothree\n", "four   ", "one ", "two"]
    assert essays.first(2) == ["one ", "two"]
    with pytest.raises(ValueError, match="no essay has a word"):
        Essays([" "]).first(1)


def test_keys_may_begin_with_zero() -> None:
    keys = upstream_keys(300, 7, 0)
    assert all(len(key) == 7 and key.isdigit() for key in keys)
    assert sum(key.startswith("0") for key in keys) == 22, "as many as upstream's 300 of seed 42"
    assert upstream_keys(300, 7, 1)[0] != keys[0]


def test_the_filler() -> None:
    lines = sentences()
    assert len(lines) == len(set(lines)) >= 150
    text = " ".join(lines)
    assert text.isascii()
    assert not any(char.isdigit() for char in text)
    assert not {"key", "pass", "remember", "secret"} & set(text.lower().replace(",", "").replace(".", "").split())
