"""Two small statistics used by tables, figures and benchmarks; plain Python, no dependencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from lietoolkit.errors import InputError

__all__ = ["chance", "rank_correlation", "wilson_interval"]


def chance(probability: float) -> str:
    """A calibrated probability as text; no calibration tells numbers above 99 % apart.

    >>> chance(0.874), chance(0.9999)
    ('87%', 'over 99%')
    """
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"


def wilson_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share: k successes in n independent trials.

    With p = k/n and z the normal quantile of the confidence, the bounds are
    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z √(p(1−p)/n) it stays inside
    [0, 1] and keeps a width at k = 0 and k = n.

    Args:
        k: successes, 0 <= k <= n.
        n: trials. With n = 0 nothing is known and the interval is (0, 1).
        confidence: share of intervals that cover the true value, between 0 and 1.

    Returns:
        (low, high), both in [0, 1].

    Raises:
        InputError: k is not between 0 and n, or confidence is not between 0 and 1.

    Source: Wilson, J. Amer. Statist. Assoc. 22 (1927).

    >>> [round(x, 3) for x in wilson_interval(9, 10)]
    [0.596, 0.982]
    >>> wilson_interval(0, 0)
    (0.0, 1.0)
    """
    if not 0 <= k <= n:
        raise InputError(f"wilson_interval: expected 0 <= k <= n, found k={k}, n={n}")
    if not 0 < confidence < 1:
        raise InputError(
            f"wilson_interval: expected a confidence between 0 and 1, found {confidence}"
        )
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = k / n
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Rounding must not push a bound past the share itself (k = 0 and k = n).
    return max(0.0, min(p, (center - half) / scale)), min(1.0, max(p, (center + half) / scale))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation: the correlation of the ranks, ties given their mean rank.

    Args:
        x: n numbers.
        y: n numbers.

    Returns:
        A number in [-1, 1]; NaN when either side is constant or n < 2.

    Raises:
        InputError: the lengths differ.

    >>> rank_correlation([1, 2, 3], [10, 200, 3000])
    1.0
    >>> rank_correlation([1, 2, 3], [3, 2, 1])
    -1.0
    """
    if len(x) != len(y):
        raise InputError(
            f"rank_correlation: expected two lists of one length, found {len(x)} and {len(y)}"
        )
    a, b = _ranks(x), _ranks(y)
    mean = (len(a) + 1) / 2
    products = math.fsum((p - mean) * (q - mean) for p, q in zip(a, b, strict=True))
    spread = math.fsum((p - mean) ** 2 for p in a) * math.fsum((q - mean) ** 2 for q in b)
    return products / math.sqrt(spread) if spread else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first: dict[float, int] = {}
    count: dict[float, int] = {}
    for position, value in enumerate(ordered, start=1):
        first.setdefault(value, position)
        count[value] = count.get(value, 0) + 1
    return [first[v] + (count[v] - 1) / 2 for v in values]
