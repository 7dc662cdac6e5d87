"""The authors' own totals with intervals: drawn through their aggregation, in closed form where that is the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, pvariance

import pytest
from loom_report import cells, composition, official
from loom_report.statistics import stats
from loom_report.statistics.resample import strata_of

from loom_core.api import BenchmarkBase, Graded, Line, PluginError, Prompt, Sample, Scored, segment
from loom_core.contract import border
from loom_core.contract.keys import plain

METRIC = cells.Metric("em", "1", 0.0, 1.0, True, True, False, None)
METRICS = {"em": METRIC}


class Macro(BenchmarkBase):
    """The mean of each task in per cent, and the mean of those means, as LongBench and others have it."""

    calls = 0

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        self.calls += 1
        lines = [
            Line(
                name=line.name, metric=line.metric, value=100 * line.value if line.value is not None else None, n=line.n
            )
            for line in super().aggregate(rows)
        ]
        known = [line.value for line in lines if line.value is not None]
        return [*lines, Line(name="average", metric="em", value=fmean(known) if known else None, n=len(rows))]


def row(
    number: int, value: float | None, task: str = "qa", cluster: str | None = None, group: str | None = None
) -> Graded:
    prompt = Prompt(segments=(segment("question", "?"),))
    sample = Sample(id=f"{number}", task=task, prompt=prompt, references=(), cluster=cluster, group=group)
    scored = {"em": Scored(value=value)} if value is not None else {}
    return Graded(task=task, sample=sample, repeat=0, scored=scored, answered=value is not None)


def rows_of(rates: dict[str, tuple[int, float]], seed: int) -> list[Graded]:
    """`rates`: task → (n, share of right answers)."""
    generator = random.Random(seed)
    return [row(i, float(generator.random() < p), task) for task, (n, p) in rates.items() for i in range(n)]


def made(rows: Sequence[Graded], base: Sequence[Graded] | None = None, benchmark: BenchmarkBase | None = None) -> dict:
    found = official.table(benchmark or Macro(), rows, base, METRICS, "test")
    return {line["name"]: line for line in found}


def test_a_plain_mean_keeps_its_closed_form() -> None:
    rows = rows_of({"qa": (40, 0.7), "vt": (80, 0.2)}, 1)
    lines = made(rows)
    values = [r.scored["em"].value for r in rows if r.task == "vt"]
    expected = stats.proportion(sum(v == 1 for v in values), 80)
    assert (lines["vt"]["low"], lines["vt"]["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert lines["vt"]["interval"] == "wilson and near-exact"
    assert lines["average"]["interval"] == "wilson and near-exact, stratified"
    benchmark = BenchmarkBase()
    assert {line["interval"] for line in official.table(benchmark, rows, None, METRICS, "x")} == {
        "wilson and near-exact"
    }


def test_a_macro_average_gets_its_own_interval() -> None:
    """The variance of a mean of task means is the mean of their variances over the tasks; 12 answers must not drown."""
    rows = rows_of({"small": (12, 0.5), "large": (400, 0.5)}, 3)
    line = made(rows)["average"]
    by_task = {t: [r.scored["em"].value for r in rows if r.task == t] for t in ("small", "large")}
    error = math.sqrt(sum(pvariance(v) / (len(v) - 1) for v in by_task.values())) / 2
    assert line["value"] == pytest.approx(50 * sum(map(fmean, by_task.values())))
    assert (line["high"] - line["low"]) / 2 == pytest.approx(100 * 1.97 * error, rel=0.12)
    pooled = stats.wilson(sum(map(sum, by_task.values())), 412)
    assert line["high"] - line["low"] > 2 * 100 * (pooled.high - pooled.low)


def test_intervals_of_a_macro_average_cover() -> None:
    """300 draws of two unequal tasks, one with 5 questions a document. Nominal 95 %; 92 to 98 % is the 98 % band."""
    hits = n = 0
    for seed in range(300):
        generator = random.Random(seed)
        rows = [row(i, float(generator.random() < 0.3), "qa") for i in range(25)]
        for document in range(12):
            p = generator.choice([0.4, 0.8])
            rows += [row(100 * document + i, float(generator.random() < p), "doc", f"d{document}") for i in range(5)]
        line = official.table(Sparse(), rows, None, METRICS, f"{seed}")[-1]
        n += 1
        hits += line["low"] <= 100 * (0.3 + 0.6) / 2 <= line["high"]
    assert 0.92 <= hits / n <= 0.98


class Sparse(BenchmarkBase):
    """The macro average alone, quickly."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        sums: dict[str, list[float]] = {}
        for each in rows:
            value = each.scored["em"].value
            assert value is not None
            sums.setdefault(each.task, []).append(value)
        value = 100 * sum(sum(v) / len(v) for v in sums.values()) / len(sums)
        return [Line(name="average", metric="em", value=value, n=len(rows))]


def test_the_difference_to_the_baseline_is_paired() -> None:
    base = rows_of({"qa": (60, 0.8), "vt": (60, 0.8)}, 5)
    rows = [
        row(int(r.sample.id), 0.0 if r.task == "vt" and int(r.sample.id) < 6 else r.scored["em"].value, r.task)
        for r in base
    ]
    lines = made(rows, base)
    lost = sum(r.scored["em"].value == 1 for r in base if r.task == "vt" and int(r.sample.id) < 6)
    assert lines["vt"]["delta"]["value"] == pytest.approx(-100 * lost / 60)
    assert lines["vt"]["delta"]["interval"] == "bonett-price"
    delta = lines["average"]["delta"]
    assert delta["value"] == pytest.approx(-50 * lost / 60)
    assert delta["low"] < delta["value"] < delta["high"] < 0.5
    width = lines["average"]["high"] - lines["average"]["low"]
    assert delta["high"] - delta["low"] < 0.7 * width
    assert lines["qa"]["delta"]["value"] == 0
    assert delta["n_pairs"] == 120


def test_only_what_both_answered_is_a_pair() -> None:
    base = rows_of({"qa": (20, 0.5), "vt": (20, 0.5)}, 7)
    rows = [row(int(r.sample.id), None if int(r.sample.id) < 5 else r.scored["em"].value, r.task) for r in base]
    lines = made(rows, base)
    assert lines["average"]["delta"]["value"] == 0
    assert lines["average"]["delta"]["n_pairs"] == 30
    assert lines["average"]["delta"]["low"] < 0 < lines["average"]["delta"]["high"], "30 equal pairs are no certainty"


class Pairs(BenchmarkBase):
    """A pair of questions counts only where both are right."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        groups: dict[str, list[float]] = {}
        for each in rows:
            groups.setdefault(str(each.sample.group), []).append(each.scored["em"].value or 0.0)
        assert {len(values) for values in groups.values()} == {2}, "a group was torn or two were mixed"
        return [Line(name="pairs", metric="both", value=fmean(min(v) for v in groups.values()), n=len(groups))]


def test_groups_are_drawn_whole_and_never_mixed() -> None:
    generator = random.Random(2)
    rows = [row(i, float(generator.random() < 0.7), group=f"g{i // 2}") for i in range(60)]
    line = official.table(Pairs(), rows, None, METRICS, "x")[0]
    p = line["value"]
    assert (line["high"] - line["low"]) / 2 == pytest.approx(1.96 * math.sqrt(p * (1 - p) / 30), rel=0.25)


def test_documents_and_groups_that_share_a_question_are_one_cluster() -> None:
    rows = [row(0, 1.0, cluster="a"), row(1, 1.0, cluster="a", group="g"), row(2, 0.0, group="g"), row(3, 0.0)]
    assert sorted(len(cluster.rows) for stratum in strata_of(rows) for cluster in stratum) == [1, 3]


def test_one_answer_a_task_says_little() -> None:
    assert (made([])) == {"average": made([])["average"]}
    rows = [row(0, 1.0, task) for task in ("qa", "vt")]
    line = made(rows, rows)["average"]
    assert (line["value"], line["high"]) == (100.0, 100.0)
    assert line["low"] < 40


class Geometric(BenchmarkBase):
    """The geometric mean of the means of tasks: no weighted mean of answers."""

    calls = 0

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        self.calls += 1
        means = [fmean(r.scored["em"].value or 0.0 for r in rows if r.task == task) for task in ("qa", "vt")]
        return [Line(name="both", metric="em", value=math.sqrt(math.prod(means)), n=len(rows))]


def test_what_is_no_mean_is_resampled_only_where_there_is_enough_to_draw_from(monkeypatch: pytest.MonkeyPatch) -> None:
    few = made(rows_of({"qa": (9, 0.5), "vt": (60, 0.5)}, 1), benchmark=Geometric())["both"]
    assert (few["low"], few["interval"]) == (None, official.few_clusters(composition.NO_MEAN))
    monkeypatch.setattr(official, "MOST_WORK", 20_000)
    benchmark = Geometric()
    line = made(rows_of({"qa": (40, 0.5), "vt": (60, 0.5)}, 1), benchmark=benchmark)["both"]
    assert line["interval"] == "bootstrap through the aggregation, 200 draws"
    assert benchmark.calls < 230
    assert line["low"] < line["value"] < line["high"]


class Careful(BenchmarkBase):
    """Refuses values that no scorer gives."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        values = [r.scored["em"].value for r in rows]
        if not set(values) <= {0.0, 1.0}:
            raise PluginError("no such score")
        return [Line(name="all", metric="em", value=fmean(value or 0.0 for value in values), n=len(rows))]


class Misnamed(BenchmarkBase):
    """Names half of the rows that it counts."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        mean = fmean(r.scored["em"].value or 0.0 for r in rows)
        return [Line(name="all", metric="em", value=mean, n=len(rows), rows=rows[::2])]


def test_why_a_line_has_no_interval_is_said() -> None:
    rows = rows_of({"qa": (6, 0.5), "vt": (6, 0.5)}, 1)
    for benchmark, why in ((Careful(), composition.UNREAD), (Misnamed(), composition.UNNAMED)):
        (line,) = official.table(benchmark, rows, rows, METRICS, "x")
        assert (line["low"], line["interval"]) == (None, official.few_clusters(why))
        assert line["delta"]["interval"] == official.few_clusters(why)
    wide = {"em": replace(METRIC, high=math.inf)}
    line = official.table(Macro(), rows, None, wide, "x")[-1]
    assert line["interval"] == official.few_clusters(official.UNBOUNDED)


def test_the_same_rows_give_the_same_table() -> None:
    rows = rows_of({"qa": (30, 0.5), "vt": (30, 0.5)}, 1)
    assert made(rows, rows) == made(rows, rows)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_no_numbers_lose_their_value(value: float) -> None:
    kept = border.scored(Scored(value=value, extracted="x", detail={"why": "y"}), "em")
    assert (kept.value, kept.extracted, kept.detail) == (
        None,
        "x",
        {"why": "y", "error": f"the scorer returned {value} (metric em)", border.REFUSED: True},
    )


class NotANumber(BenchmarkBase):
    """Divides by nothing."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        return [Line(name="average", metric="em", value=math.nan, n=0)]


def test_a_line_that_is_no_number_is_none() -> None:
    line = official.table(NotANumber(), rows_of({"qa": (5, 0.5)}, 1), None, METRICS, "x")[0]
    assert (line["value"], line["low"]) == (None, None)
    plain(line)


def test_the_scale_of_a_line_of_zeros_is_not_lost() -> None:
    rows = [row(i, 0.0, task) for i in range(10) for task in ("qa", "vt")]
    lines = made(rows)
    expected = stats.proportion(0, 10)
    assert (lines["vt"]["low"], lines["vt"]["high"]) == pytest.approx((0.0, 100 * expected.high))
    plain_lines = official.table(BenchmarkBase(), rows, None, METRICS, "x")
    assert [line["high"] for line in plain_lines] == pytest.approx([expected.high] * 2)


def test_a_difference_of_a_line_is_tested_by_flips_or_swaps() -> None:
    base = rows_of({"small": (12, 0.5), "large": (200, 0.5)}, 5)
    lost = [replace(r, scored={"em": Scored(value=0.0)}) if r.task == "large" else r for r in base]
    lines = made(lost, base)
    assert lines["average"]["delta"]["p"] <= 1e-4
    assert lines["average"]["delta"]["test"].startswith("sign flip")
    assert lines["large"]["delta"]["test"] == "mcnemar, exact"
    same = made(base, base)["average"]["delta"]
    assert (same["value"], same["p"]) == (0.0, 1.0)
    base = rows_of({"qa": (30, 0.8), "vt": (200, 0.8)}, 5)
    lost = [replace(r, scored={"em": Scored(value=0.0)}) if int(r.sample.id) % 2 else r for r in base]
    delta = made(lost, base, Geometric())["both"]["delta"]
    most = official.MOST_WORK // (2 * 230)
    assert (delta["p"], delta["test"]) == (1 / (most + 1), f"swaps through the aggregation, {most} draws")
    assert delta["high"] < 0


@pytest.mark.parametrize("n", [2, 20])
def test_a_line_of_one_length_has_the_interval_of_that_length(n: int) -> None:
    """Where every answer scores alike, a length's line must not take the rows of all lengths for its own."""
    rows = [
        replace(row(100 * k + i, 1.0), sample=replace(row(100 * k + i, 1.0).sample, level=level))
        for k, level in enumerate(("1k", "2k", "4k"))
        for i in range(n)
    ]
    for named in (True, False):
        lines = made(rows, rows, Levels(named))
        expected = stats.proportion(n, n)
        assert (lines["2k"]["low"], lines["2k"]["high"]) == pytest.approx((100 * expected.low, 100.0))
        assert lines["2k"]["delta"]["n_pairs"] == n
        assert lines["all"]["low"] == pytest.approx(100 * stats.proportion(3 * n, 3 * n).low)


class Levels(BenchmarkBase):
    """The mean of each length, and of all."""

    def __init__(self, named: bool) -> None:
        self._named = named

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        groups: dict[str, list[Graded]] = {"all": list(rows)}
        for each in rows:
            groups.setdefault(str(each.sample.level), []).append(each)
        return [
            Line(
                name=name,
                metric="em",
                value=100 * fmean(r.scored["em"].value or 0.0 for r in members),
                n=len(members),
                rows=members if self._named else None,
            )
            for name, members in groups.items()
        ]


class Hard(BenchmarkBase):
    """The mean of every other question: no line of whole tasks and lengths."""

    def __init__(self, named: bool) -> None:
        self._named = named

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        hard = [r for r in rows if int(r.sample.id.partition("#")[0]) % 2]
        value = fmean(r.scored["em"].value or 0.0 for r in hard) if hard else None
        return [Line(name="hard", metric="em", value=value, n=len(hard), rows=hard if self._named else None)]


class Mixed(BenchmarkBase):
    """The mean over two tasks that have metrics of their own, under a third name."""

    def aggregate(self, rows: Sequence[Graded]) -> Sequence[Line]:
        found: dict[str, list[float]] = {}
        for each in rows:
            found.setdefault(each.task, []).extend(one.value or 0.0 for one in each.scored.values())
        return [Line(name="mean", metric="both", value=100 * fmean(map(fmean, found.values())), n=len(rows))]


def test_a_mean_over_tasks_of_several_metrics_has_its_interval() -> None:
    rows = [row(i, 1.0, "qa") for i in range(20)]
    rows += [replace(row(i, 1.0, "vt"), scored={"any": Scored(value=1.0)}) for i in range(20)]
    found = official.table(Mixed(), rows, rows, METRICS | {"any": replace(METRIC, name="any")}, "x")[0]
    assert (found["low"], found["high"]) == pytest.approx((100 * stats.proportion(40, 40).low, 100.0))
    assert (found["delta"]["n_pairs"], found["headline"]) == (40, True)


def test_rows_that_a_line_names_are_its_own() -> None:
    rows = [row(i, 1.0) for i in range(12)]
    assert made(rows, benchmark=Hard(True))["hard"]["low"] == pytest.approx(stats.proportion(6, 6).low)
    assert "rows" not in made(rows, benchmark=Hard(True))["hard"]
    assert made(rows[:6], benchmark=Hard(False))["hard"]["low"] is None, "what is not named is not guessed"


def test_equal_arms_raise_few_alarms() -> None:
    """200 pairs of equally good arms: p below 0.05 in about 10 of them; 19 is the 99.7 % quantile."""
    alarms = 0
    for seed in range(200):
        mine, theirs = (rows_of({"a": (15, 0.6), "b": (40, 0.6)}, 2 * seed + side) for side in (0, 1))
        pairs = official.Paired(mine, theirs)
        value = official._differences(Sparse(), pairs.rows, pairs.base)
        alarms += next(iter(official._swap(Sparse(), pairs, value, f"{seed}").values())).p < 0.05
    assert alarms <= 19
