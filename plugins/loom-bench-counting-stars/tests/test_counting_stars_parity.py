"""The adapter's own side: what it explains, its cases, and what it asks a program of the authors' shape."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loom_bench_counting_stars.benchmark import METRICS, CountingStars
from loom_bench_counting_stars.parity import ORDER, TIES, Parity, _mean
from loom_bench_counting_stars.plugin import CountingStarsOptions
from loom_parity.contract import Case, ParityContext

from loom_core.api import DataDir, installed

ASKED = "\n\nCollect them."


@pytest.fixture
def context(tmp_path: Path) -> ParityContext:
    """Counts of our own, and no file of the authors'."""
    (tmp_path / "context_data").mkdir()
    for name, first in (("a_stars", 1), ("r_stars", 101)):
        line = repr({"32": list(range(first, first + 32))})
        (tmp_path / "context_data" / f"{name}.txt").write_text(line + "\n", "utf-8")
    bench = CountingStars(CountingStarsOptions())
    metrics = {name: installed().load(installed().metrics.get(name))() for name in METRICS.values()}
    data = DataDir(mirror=tmp_path / "none", cache=tmp_path / "cache", offline=True).for_benchmark("counting-stars")
    return ParityContext(
        benchmark=bench, tasks=tuple(bench.tasks(())), data=data, root=tmp_path, metrics=metrics, limit=2
    )


def case(kind: str, name: str) -> Case:
    return Case(kind=kind, name=name, id="0", function="asked", payload=[], ours=dict)


def row(words: str, size: int = 3200) -> dict[str, Any]:
    text = f"{words} end\nThe little penguin counted 7 ★\nrest"
    return {"question": text + ASKED, "retrieval_question": ASKED, "context_size": size}


def test_only_the_text_between_the_counts_may_differ_and_only_in_english() -> None:
    explain = Parity().explain
    assert explain(case("prompt", "en_searching"), row("a b"), row("c d")) == ORDER
    assert explain(case("prompt", "zh_searching"), row("a b"), row("c d")) is None
    assert explain(case("prompt", "en_searching"), row("a b"), row("c d e")) is None
    assert explain(case("prompt", "en_searching"), row("a b"), row("c d", 6400)) is None
    assert explain(case("prompt", "en_searching"), row("a b"), {**row("c d"), "retrieval_question": "?"}) is None
    assert explain(case("prompt", "en_searching"), {"raises": "ValueError"}, row("c d")) is None


def test_only_a_tie_of_equal_means_is_a_rounding() -> None:
    explain = Parity().explain
    assert explain(case("table", "en_searching"), [0.462, 0.4625], [0.463, 0.4625]) == TIES
    assert explain(case("table", "en_searching"), [0.462, 0.4624], [0.463, 0.4625]) is None
    assert explain(case("table", "en_searching"), [0.462, 0.463], [0.463, 0.463]) is None
    assert explain(case("score", "en_searching"), [0.462, 0.4625], [0.463, 0.4625]) is None
    assert explain(case("table", "en_searching"), {"raises": "TypeError"}, [0.463, 0.4625]) is None


def test_cases_are_named_once_and_the_same_twice(context: ParityContext) -> None:
    found = list(Parity().cases(context))
    assert not [name for name, n in Counter((one.kind, one.name, one.id) for one in found).items() if n > 1]
    assert [one.payload for one in found] == [one.payload for one in Parity().cases(context)]
    assert len(context.missing) == 4
    whole = {one.name: one for one in found if one.id == "0 own JSON"}
    for form, one in whole.items():
        _, [[text, _]], right = one.payload
        counts = set(next(iter(json.loads(text).values()))[:32])
        bad = set(range(101, 133)) if form.endswith("reasoning") else set()
        hits = [
            (0.5 if a + 100 in counts & bad else 1.0) if a in counts else 0.25 * (a + 100 in counts & bad)
            for a in right
        ]
        assert one.ours()[1] == pytest.approx(sum(hits) / 32)


def test_a_scorer_of_their_shape_is_given_lines_of_answers() -> None:
    def read(lines: list[str], *asked: Any) -> Any:
        rows = [json.loads(line) for line in lines]
        assert asked == (128_000, 32, 32, "Reasoning")
        table = SimpleNamespace(to_numpy=lambda: SimpleNamespace(mean=lambda: len(rows) / 3))
        return table, round(len(rows) / 3, 3)

    made = SimpleNamespace(get_data_EN=read)
    assert _mean(made, ["en_reasoning", [["x", 3200]], [1]]) == [0.333, 1 / 3]
