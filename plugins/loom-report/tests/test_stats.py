"""Statistics against scipy and statsmodels, against their defining properties, and against simulated truth."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from loom_report.statistics import stats

scipy_stats = pytest.importorskip("scipy.stats", reason="the test extra has scipy")
proportion_module = pytest.importorskip("statsmodels.stats.proportion", reason="the test extra has statsmodels")
multitest = pytest.importorskip("statsmodels.stats.multitest", reason="the test extra has statsmodels")

PATIENT = settings(deadline=None)
COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n + 1), st.just(n + 1)))
SMALL = st.floats(-5, 5).map(lambda value: round(value, 3))


@given(COUNTS)
@PATIENT
def test_wilson_equals_statsmodels(pair: tuple[int, int]) -> None:
    k, n = pair
    low, high = proportion_module.proportion_confint(k, n, method="wilson")
    ours = stats.wilson(k, n)
    assert ours.low == pytest.approx(max(0.0, low), abs=1e-12)
    assert ours.high == pytest.approx(min(1.0, high), abs=1e-12)
    assert 0 <= ours.low <= k / n <= ours.high <= 1


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="proportion"):
        stats.wilson(k, n)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 399, 400, 401, 5000])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_t_quantile_equals_scipy(df: int, level: float) -> None:
    assert stats.t_quantile(df, level) == pytest.approx(scipy_stats.t.ppf(0.5 + level / 2, df), rel=1e-6)


@given(st.integers(0, 300), st.integers(0, 300))
@PATIENT
def test_mcnemar_equals_scipys_binomial_test(b: int, c: int) -> None:
    expected = scipy_stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert stats.mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert stats.mcnemar_exact(b, c) == stats.mcnemar_exact(c, b)


def test_mcnemar_of_very_many_pairs() -> None:
    assert stats.mcnemar_exact(5000, 5200) == pytest.approx(scipy_stats.binomtest(5000, 10200, 0.5).pvalue, rel=1e-9)
    assert 0 <= stats.mcnemar_exact(0, 5000) < 1e-300


@given(st.integers(0, 60), st.integers(0, 60))
@PATIENT
def test_sign_flip_of_single_binary_pairs_is_mcnemar(b: int, c: int) -> None:
    differences = [1.0] * b + [-1.0] * c + [0.0]
    assert stats.sign_flip(differences).p == pytest.approx(stats.mcnemar_exact(b, c), abs=1e-12)


@given(st.lists(SMALL, min_size=1, max_size=9), st.integers(1, 3))
@PATIENT
def test_sign_flip_equals_brute_force(differences: list[float], per_cluster: int) -> None:
    clusters = [i // per_cluster for i in range(len(differences))]
    sums = [sum(d for d, c in zip(differences, clusters, strict=True) if c == name) for name in sorted(set(clusters))]
    observed = abs(sum(sums))
    flips = [
        abs(sum(sign * part for sign, part in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    expected = sum(flip >= observed - 1e-9 for flip in flips) / len(flips)
    assert stats.sign_flip(differences, clusters).p == pytest.approx(expected, abs=1e-9)


def test_sign_flip_by_drawing_is_near_scipys_and_never_zero() -> None:
    generator = random.Random(3)
    differences = [generator.gauss(0.3, 1) for _ in range(40)]
    ours = stats.sign_flip(differences, seed=5)
    theirs = scipy_stats.permutation_test(
        (differences, [0.0] * 40), lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=99_999, rng=5
    )  # seeded: scipy draws as well, and its own noise must not be taken for ours
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert ours == stats.sign_flip(differences, seed=5)
    assert stats.sign_flip([0.1 + i / 1000 for i in range(60)]).p > 0


@given(st.lists(st.floats(0, 1), max_size=30))
@PATIENT
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    expected = multitest.multipletests(p_values, method="holm")[1] if p_values else []
    assert stats.holm(p_values) == pytest.approx(list(expected), abs=1e-12)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 100))
@PATIENT
def test_paired_binary_interval_holds_its_estimate(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    interval = stats.paired_binary_interval(b, c, n)
    assert -1 <= interval.low <= (b - c) / n <= interval.high <= 1
    assert interval.high > interval.low
    mirrored = stats.paired_binary_interval(c, b, n)
    assert mirrored.low == pytest.approx(-interval.high)


def test_paired_binary_interval_by_hand() -> None:
    """Bonett & Price's formula worked by hand for 10 and 3 discordant pairs of 48."""
    first, second = 11 / 50, 4 / 50
    half = 1.959963984540054 * math.sqrt((0.30 - 0.14**2) / 50)
    interval = stats.paired_binary_interval(10, 3, 48)
    assert (interval.low, interval.high) == pytest.approx((first - second - half, first - second + half))


def test_bootstrap_is_near_scipys_where_clusters_are_many() -> None:
    generator = random.Random(0)
    values = [generator.random() ** 2 for _ in range(400)]
    ours = stats.bootstrap(values, seed=1, draws=8000)
    theirs = scipy_stats.bootstrap((values,), lambda x, axis: x.mean(axis=axis), method="percentile", n_resamples=8000)
    assert ours is not None
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.004)


@given(st.lists(SMALL, min_size=2, max_size=30), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_bootstrap_is_seeded_and_holds_the_mean(values: list[float], seed: int) -> None:
    interval = stats.bootstrap(values, seed=seed, draws=200)
    assert interval is not None
    assert interval == stats.bootstrap(values, seed=seed, draws=200)
    assert min(values) - 1e-9 <= interval.low <= sum(values) / len(values) + 1e-9 <= interval.high + 2e-9
    # An answer asked twice in one cluster tells nothing new: the interval is that of the single answers.
    doubled = [value for value in values for _ in "ab"]
    twice = stats.bootstrap(doubled, [i // 2 for i in range(len(doubled))], seed=seed, draws=200)
    assert twice is not None
    assert (twice.low, twice.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_too_few_clusters_give_no_interval_and_bad_values_are_refused() -> None:
    assert stats.bootstrap([0.3]) is None
    assert stats.bootstrap([0.1, 0.9], ["document", "document"]) is None
    one_document = stats.bounded_mean([0, 1], ["document", "document"])
    assert one_document.high - one_document.low > 0.8
    for values in ([], [math.nan], [math.inf]):
        with pytest.raises(ValueError, match="finite"):
            stats.bootstrap(values)
    with pytest.raises(ValueError, match="clusters"):
        stats.bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="both sides"):
        stats.paired_bootstrap([1.0], [1.0, 2.0])


def test_a_mean_that_never_varies_still_gets_an_honest_width() -> None:
    interval = stats.mean_interval([100.0] * 12, bounds=(0.0, 100.0))
    assert interval is not None
    assert interval.high == 100.0
    assert interval.low == pytest.approx(100 * stats.wilson(12, 12).low)
    one = stats.mean_interval([0.25], bounds=(0.0, 1.0))
    assert one is not None
    assert one.high - one.low > 0.5
    same = stats.mean_interval([0.25] * 12, bounds=(0.0, 1.0))
    assert same is not None
    assert same.high - same.low > 0.3


def test_a_score_outside_its_metrics_range_is_not_forced_into_it() -> None:
    assert stats.mean_interval([3.0], bounds=(0.0, math.inf)) is None
    values = [0.5, 1.5, 1.0] * 15
    interval = stats.mean_interval(values, bounds=(0.0, 1.0))
    assert interval is not None
    assert interval.method == "bootstrap"
    assert stats.mean_interval(values[:3], bounds=(0.0, 1.0)) is None  # too few for a metric without bounds
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        stats.bounded_mean([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 5))
@PATIENT
def test_bounded_mean_holds_the_mean(values: list[float], per_cluster: int) -> None:
    interval = stats.bounded_mean(values, [i // per_cluster for i in range(len(values))])
    assert 0 <= interval.low <= sum(values) / len(values) + 1e-9 <= interval.high + 2e-9 <= 1 + 2e-9


def _binomial_tail(n: int, p: float, at_least: int) -> float:
    return float(scipy_stats.binom.sf(at_least - 1, n, p))


def test_power_of_the_paired_test() -> None:
    """Six lost pairs are needed at least; a simulation of these rates found 92 % and 13 %."""
    assert stats.mcnemar_power(90, 0.08, 0.0) == pytest.approx(_binomial_tail(90, 0.08, 6), abs=1e-9)
    assert stats.mcnemar_power(500, 0.045, 0.01) == pytest.approx(0.92, abs=0.02)
    assert stats.mcnemar_power(100, 0.045, 0.01) == pytest.approx(0.13, abs=0.02)
    assert stats.mcnemar_power(15, 0.045, 0.01) < 0.001
    assert stats.mcnemar_power(0, 0.1, 0.0) == 0.0


def test_power_equals_a_brute_force_sum() -> None:
    n, loss, gain = 25, 0.3, 0.1
    total = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if stats.mcnemar_exact(b, c) <= 0.05:
                total += float(scipy_stats.multinomial.pmf([b, c, n - b - c], n, [loss, gain, 1 - loss - gain]))
    assert stats.mcnemar_power(n, loss, gain) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("n", [10, 30, 90, 500])
def test_detectable_loss_reaches_its_power(n: int) -> None:
    loss = stats.detectable_loss(n)
    assert loss is not None
    assert stats.mcnemar_power(n, loss, 0.0) == pytest.approx(0.8, abs=1e-3)


def test_five_pairs_detect_nothing() -> None:
    assert stats.detectable_loss(5) is None
    assert stats.detectable_loss(0) is None


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 0.9, 0.5], (1, False, False)),
        ([1.0, 0.5, 0.9], (2, True, True)),
        ([0.8, 0.68], (1, True, False)),
        ([0.8, None], (0, True, False)),
        ([1.0], (0, True, False)),
    ],
)
def test_effective_length(scores: Sequence[float | None], expected: Any) -> None:
    assert stats.effective_length(scores) == expected


def test_effective_length_against_the_score_of_another() -> None:
    """What keeps its own poor score holds nothing: a method is measured by the baseline's short score."""
    assert stats.effective_length([0.4, 0.4, 0.4], reference=1.0) is None
    assert stats.effective_length([0.9, 0.86, 0.4], reference=1.0) == (1, False, False)


@pytest.mark.parametrize("scores", [[], [None, 1.0], [0.0, 1.0]])
def test_effective_length_needs_a_short_score(scores: Sequence[float | None]) -> None:
    assert stats.effective_length(scores) is None


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_intervals_of_single_answers_cover(n: int, p: float) -> None:
    """2,000 simulated cells: a nominal 95 % interval holds the truth in 93 to 97 % of them."""
    generator = random.Random(f"{n} {p}")
    hits = 0
    for _ in range(2000):
        interval = stats.wilson(sum(generator.random() < p for _ in range(n)), n)
        hits += interval.low <= p <= interval.high
    assert 0.93 <= hits / 2000 <= 0.97


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("scale", ["0/1", "graded"])
def test_intervals_of_clustered_answers_cover(n: int, p: float, scale: str) -> None:
    """Ten questions a document, correlated within it: 93 to 97 %, where ignorant intervals have < 90 %."""
    import numpy as np

    generator = np.random.default_rng(round(n * 10 + p * 10))
    clusters = [i // 10 for i in range(n)]
    hits = ignorant = 0
    for _ in range(2000):
        rates = generator.beta(p * 4, (1 - p) * 4, size=n // 10).clip(1e-6, 1 - 1e-6)[:, None]
        if scale == "0/1":
            drawn = (generator.random((n // 10, 10)) < rates).astype(float)
        else:
            drawn = generator.beta(3 * rates, 3 * (1 - rates), size=(n // 10, 10))
        values: list[float] = drawn.ravel().tolist()
        clustered, single = stats.bounded_mean(values, clusters), stats.bounded_mean(values)
        hits += clustered.low <= p <= clustered.high
        ignorant += single.low <= p <= single.high
    assert 0.93 <= hits / 2000 <= 0.97
    assert ignorant / 2000 < 0.9


def test_bootstrap_of_clustered_differences_covers() -> None:
    """Differences of graded scores, 20 documents of 5 questions."""
    import numpy as np

    generator = np.random.default_rng(11)
    clusters = [i // 5 for i in range(100)]
    hits = 0
    for seed in range(1000):
        document = generator.normal(0.1, 0.1, size=20)[:, None]
        differences: list[float] = (document + generator.normal(0, 0.2, size=(20, 5))).ravel().tolist()
        interval = stats.paired_bootstrap(differences, [0.0] * 100, clusters, seed=seed, draws=500)
        assert interval is not None
        hits += interval.low <= 0.1 <= interval.high
    assert 0.93 <= hits / 1000 <= 0.97


def test_paired_intervals_cover_and_tests_keep_their_level() -> None:
    """A true loss of 3.5 points on 200 pairs; and, without any loss, at most 5 % false alarms."""
    import numpy as np

    generator = np.random.default_rng(7)
    hits = alarms = 0
    for _ in range(2000):
        b, c, _ = (int(count) for count in generator.multinomial(200, [0.045, 0.01, 0.945]))
        interval = stats.paired_binary_interval(b, c, 200)
        hits += interval.low <= 0.035 <= interval.high
        b, c, _ = (int(count) for count in generator.multinomial(200, [0.05, 0.05, 0.9]))
        alarms += stats.mcnemar_exact(b, c) < 0.05
    assert 0.93 <= hits / 2000 <= 0.985
    assert alarms / 2000 <= 0.05


def test_few_equal_differences_are_no_evidence() -> None:
    """Three pairs that all lose 0.1: no resample crosses zero, and yet one in four random labellings looks the same."""
    assert stats.sign_flip([-0.1, -0.1, -0.1]).p == 0.25
