"""Quantiles that intervals are made of: the normal one, Student's t, and the near-exact limit of a proportion.

Knows distributions and no score; numpy and scipy are not needed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 400
COUNTED = 0.7
"""Share of the observed count's probability that a limit counts: 1 is Clopper and Pearson's exact one, 0.5 mid-p."""
LEVEL = 0.95


def z_quantile(level: float = LEVEL) -> float:
    """The two-sided normal quantile: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + level / 2)


@lru_cache(maxsize=4096)
def t_quantile(df: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t with `df` ≥ 1 degrees of freedom.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4 (finite series of the distribution, inverted by bisection), and
    26.7.5 (expansion in 1/df) above 400.
    """
    if df < 1:
        raise ValueError("Student's t needs at least one degree of freedom")
    z = z_quantile(level)
    if df > 400:
        return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, df) < level else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(df)


def _t_within(theta: float, df: int) -> float:
    """P(|T| ≤ tan(theta) · sqrt(df)) for Student's t."""
    sine, cosine = math.sin(theta), math.cos(theta)
    if df % 2:
        term, total = cosine, 0.0
        for k in range(1, df, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        return 2 / math.pi * (theta + sine * total)
    term, total = 1.0, 0.0
    for k in range(2, df + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    return sine * total


@lru_cache(maxsize=65536)
def near_exact_upper(k: float, n: float, tail: float = 0.025) -> float:
    """The p at which P(X < k) + `COUNTED` · P(X = k) = `tail` for X ~ Binomial(n, p), 0 <= k <= n; 1 where k = n.

    Source: Clopper & Pearson 1934, Biometrika 26 (all of it counts); Berry & Armitage 1995, "Mid-P confidence
    intervals", The Statistician 44 (half does). The share between is loom's own, for what it covers (see
    `stats.proportion`). The sums are incomplete beta functions, which take fractions too.
    """
    rest = n - k
    if rest <= 1e-9:
        return 1.0
    low, high = k / n, 1.0
    p = min(1.0 - 1e-12, low + (1.0 - low) * 0.5)
    for _ in range(100):
        below = (1.0 - COUNTED) * incomplete_beta(k, rest + 1.0, p) + COUNTED * incomplete_beta(k + 1.0, rest, p)
        miss = 1.0 - below - tail
        low, high = (p, high) if miss > 0 else (low, p)
        slope = (1.0 - COUNTED) * _density(k, rest + 1.0, p) + COUNTED * _density(k + 1.0, rest, p)
        step = p + miss / slope if slope > 0 else low
        step = step if low < step < high else (low + high) / 2
        if abs(step - p) < 1e-10:
            return step
        p = step
    return p


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a >= 0, b > 0; I_x(0, b) is 1.

    Source: Abramowitz & Stegun 26.5.8 (continued fraction), by Lentz's method.
    """
    if x <= 0:
        return 1.0 if a <= 0 else 0.0
    if x >= 1 or a <= 0:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - front * _fraction(b, a, 1.0 - x) / b
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _kept(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS):
        for top in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d, c = 1.0 / _kept(1.0 + top * d), _kept(1.0 + top / c)
            value *= d * c
        if abs(d * c - 1.0) < 1e-13:
            break
    return value


def _kept(value: float) -> float:
    """Never zero: it is divided by."""
    return value if abs(value) > _TINY else _TINY


def _density(a: float, b: float, x: float) -> float:
    """The derivative of I_x(a, b) in x."""
    if a <= 0:
        return 0.0
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + (a - 1.0) * math.log(x) + (b - 1.0) * math.log1p(-x)
    return math.exp(logs)
