"""Samples of the needle test: lengths, places, evidence, independence of process and neighbours, the grid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_bench_niah.benchmark import Niah, spaced, stride
from loom_bench_niah.haystack import Haystack, own_sentences
from loom_bench_niah.plugin import NiahOptions, task_name
from loom_bench_niah.wording import ACTIVITIES, TOWNS
from loom_kit.tokenizers import GRAINS, tokenizer_of

from loom_core.api import DataDir, Graded, Sample, Scored, Tokenizer, UsageError, build, digest
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import render
from loom_core.contract.keys import plain

NOWHERE = DataDir(mirror=None, cache=Path("/nonexistent"), offline=True)


def samples(lengths: tuple[int, ...] = (), tokenizer: Tokenizer | None = None, **options: Any) -> list[Sample]:
    bench = Niah(NiahOptions(**options))
    (task,) = bench.tasks(lengths)
    return list(bench.samples(task, NOWHERE, tokenizer, lengths))


def test_defaults() -> None:
    rows = samples()
    assert len(rows) == len({row.id for row in rows}) == 30
    assert {row.level for row in rows} == {"1k", "2k", "4k"}
    assert {row.depth for row in rows} == {round(i / 9, 4) for i in range(10)}
    (task,) = Niah(NiahOptions()).tasks(())
    assert (task.name, task.metrics, task.judge, task.sources) == (
        "loom",
        ("niah_contains", "niah_word_recall"),
        None,
        (),
    )


def test_the_authors_grid() -> None:
    rows = samples(grid="authors")
    assert len(rows) == 35 * 35
    lengths = sorted({int(row.id.split("-")[1][1:]) for row in rows})
    assert (lengths[0], lengths[1], lengths[-1], len(lengths)) == (1000, 1441, 16000, 35)
    assert len({row.depth for row in rows}) == 35


@pytest.mark.parametrize("needles", [1, 2, 10])
def test_length_evidence_and_needles(needles: int) -> None:
    tokenizer = ToyTokenizer()
    for row in samples((2500, 6000), tokenizer, needles=needles, depths=5):
        wanted = int(row.id.split("-")[1][1:])
        tokens = len(render(row.prompt, tokenizer, chat="template").token_ids or ())
        assert 0.98 * wanted <= tokens <= wanted, row.id
        assert row.task == task_name("loom", needles)
        assert len(row.references) == len(row.evidence) == needles
        assert [segment.kind for segment in row.prompt.segments] == ["instruction", "context", "question", "prefill"]
        context = row.prompt.context
        for evidence, fact in zip(row.evidence, row.references, strict=True):
            needle = context[evidence.start : evidence.end]
            assert fact in needle
            assert context.count(needle) == 1
            before, after = context[: evidence.start], context[evidence.end :]
            assert not before or before.endswith(". ") or row.depth == 1 or not after
            assert not after or (after[0] == " " and after[1] != " ")
        starts = [evidence.start for evidence in row.evidence]
        assert starts == sorted(starts)
        assert "  " not in context
        assert context == context.strip()


@pytest.mark.parametrize("name", GRAINS)
def test_lengths_under_three_tokenizers(name: str) -> None:
    tokenizer = tokenizer_of(name)
    if tokenizer is None:
        pytest.skip("the embedded model is not installed")
    for row in samples((2048, 6000, 16384), tokenizer, depths=2):
        wanted = int(row.id.split("-")[1][1:])
        assert 0.98 * wanted <= len(render(row.prompt, tokenizer, chat="template").token_ids or ()) <= wanted, row.id
        assert all(row.references[0] in row.prompt.context[one.start : one.end] for one in row.evidence)


def test_depths_are_where_they_say() -> None:
    for row in samples((8000,), ToyTokenizer(), depths=11):
        (evidence,) = row.evidence
        assert row.depth is not None
        share = evidence.start / (len(row.prompt.context) - (evidence.end - evidence.start))
        assert row.depth - 0.03 < share <= row.depth + 0.001
    rows = {row.depth: row for row in samples((8000,), ToyTokenizer(), depths=2)}
    assert rows[0.0].evidence[0].start == 0
    assert rows[1.0].evidence[0].end == len(rows[1.0].prompt.context)


def test_several_needles_are_spread_from_the_depth_to_the_end() -> None:
    for row in samples((9000,), ToyTokenizer(), needles=4, depths=3):
        assert row.depth is not None
        shares = [evidence.start / len(row.prompt.context) for evidence in row.evidence]
        wanted = [row.depth + i * (1 - row.depth) / 4 for i in range(4)]
        assert all(abs(share - want) < 0.06 for share, want in zip(shares, wanted, strict=True))


def test_without_a_tokenizer_lengths_are_estimates() -> None:
    for row in samples((1024,), depths=3):
        assert row.meta["length_estimated"] is True
        assert 0.97 * 1024 <= len(row.prompt.text) / 4 <= 1024


def test_samples_do_not_depend_on_their_neighbours() -> None:
    alone = {row.id: row for row in samples((2048,), ToyTokenizer(), depths=3)}
    among = {row.id: row for row in samples((4000, 2048, 9000), ToyTokenizer(), depths=5, repeats=2)}
    shared = alone.keys() & among.keys()
    assert len(shared) == 3
    assert all(among[name] == alone[name] for name in shared)
    other = {row.id: row for row in samples((2048,), ToyTokenizer(), depths=3, seed=1)}
    assert all(other[name].prompt.context != row.prompt.context for name, row in alone.items())
    texts = [row.prompt.context[:60] for row in alone.values() if row.depth != 0]
    assert len(set(texts)) == len(texts)


def test_same_bytes_in_another_process() -> None:
    code = (
        "from pathlib import Path\n"
        "from loom_bench_niah.benchmark import Niah\n"
        "from loom_bench_niah.plugin import NiahOptions\n"
        "from loom_core.data.access import DataDir\n"
        "from loom_core.contract.keys import digest, plain\n"
        "bench = Niah(NiahOptions(needles=2, depths=4, seed=5))\n"
        "data = DataDir(mirror=None, cache=Path('nowhere'), offline=True)\n"
        "print(digest([plain(s) for s in bench.samples(bench.tasks(())[0], data, None, ())]))\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {digest([plain(row) for row in samples(needles=2, depths=4, seed=5)])}


@given(st.integers(1, 60))
def test_the_stride_visits_every_depth(n: int) -> None:
    assert {k * stride(n) % n for k in range(n)} == set(range(n))


def test_any_first_samples_are_fair() -> None:
    rows = samples((1024, 2048), depths=10, repeats=2)
    assert [row.level for row in rows[:4]] == ["1k", "2k", "1k", "2k"]
    first = [row.depth or 0 for row in rows[:8]]
    assert min(first) < 0.35
    assert max(first) > 0.65
    for level in ("1k", "2k"):
        depths = [row.depth for row in rows if row.level == level]
        assert all(len(set(depths[k : k + 10])) == 10 for k in (0, 10))


class StuckTokenizer(ToyTokenizer):
    """Gives a token to the first character of a text and none to the rest."""

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids, spans = super().offsets(text)
        return ids[:1], spans[:1]


def test_lengths_that_cannot_be_had() -> None:
    with pytest.raises(UsageError, match=r"(?s)too short for the needle.*niah, length 60.*ask for more than \d+"):
        samples((60,), ToyTokenizer())
    with pytest.raises(UsageError, match=r"(?s)does not reach a length.*niah, length 4000"):
        samples((4000,), StuckTokenizer(), depths=1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"variant": "essays"}, "expected one of loom, official"),
        ({"needles": "11"}, "above the greatest value 10"),
        ({"levels": "{1k,1024}"}, "given twice"),
        ({"variant": "official", "repeats": "2"}, "one sample"),
        ({"depth": "5"}, "depths"),
    ],
)
def test_options_that_cannot_be_meant(values: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        build(NiahOptions, values, owner="benchmark niah")


def test_spaced() -> None:
    assert spaced(0, 1, 3) == [0, 0.5, 1]
    assert spaced(0, 1, 1) == [0]


TEXT = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=40).map(
    lambda words: " ".join(word + "." * (i % 3 == 2) for i, word in enumerate(words))
)


@settings(deadline=None)
@given(TEXT, st.integers(0, 50), st.integers(1, 120), st.floats(0, 1), st.booleans(), st.integers(1, 3))
def test_hiding_keeps_the_text_and_finds_the_needles(
    text: str, begin: int, tokens: int, depth: float, tidy: bool, n: int
) -> None:
    haystack = Haystack.of(text, ToyTokenizer())
    needles = [f"N{i}." for i in range(n)]
    context, spans = haystack.hide(begin, tokens, needles, depth, tidy=tidy)
    assert [context[start:end] for start, end in spans] == needles
    rest = context
    for needle in needles:
        rest = rest.replace(needle, "", 1)
    assert "".join(rest.split()) in "".join(text.split())
    # A tidy needle brings a space of its own, which the plan's prompt without filler counts already.
    assert len(" ".join(rest.split()) if tidy else rest) <= tokens
    if tidy:
        assert "  " not in context


def test_an_official_place_by_hand() -> None:
    haystack = Haystack.of("One two. Three four. Five six seven.", ToyTokenizer())
    assert haystack.hide(0, 30, ["\nX.\n"], 0.5, tidy=False)[0] == "One two.\nX.\n Three four. Five six "
    assert haystack.hide(0, 30, ["\nX.\n"], 0.7, tidy=False)[0] == "One two. Three four.\nX.\n Five six "
    assert haystack.hide(0, 30, ["\nX.\n"], 1.0, tidy=False)[0] == "One two. Three four. Five six \nX.\n"
    assert haystack.hide(0, 30, ["\nX.\n"], 0.1, tidy=False)[0].startswith("\nX.\nOne two.")


def test_the_filler_and_the_facts() -> None:
    lines = own_sentences()
    assert len(lines) == len(set(lines)) >= 80
    text = " ".join(lines)
    assert text.isascii()
    assert not any(char.isdigit() for char in text)
    assert not any(town in text for town in TOWNS)
    assert not any(activity in text for activity in ACTIVITIES)
    assert not any(a in b for a in ACTIVITIES for b in ACTIVITIES if a != b)
    assert "best thing" not in text


def test_the_table_of_an_arm() -> None:
    rows = [
        Graded(task="loom", sample=row, repeat=0, scored={"niah_contains": Scored(value=float(row.depth == 0))})
        for row in samples((1024, 2048), depths=2)
    ]
    lines = {line.name: line for line in Niah(NiahOptions()).aggregate(rows)}
    assert lines["loom"].value == 0.5
    assert lines["loom 2k"].n == 2
    assert len(lines) == 1 + 2
