r"""Linear ordering: the order with the least sum :math:`\sum_{i\ before\ j} M_{ij}`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import Precedence, obeys

EXACT_LIMIT = 14


def order_value(matrix: np.ndarray, order: Sequence[int]) -> float:
    r"""Predicted loss of an order, up to a constant: :math:`\frac{1}{2}\sum_{i\ before\ j} M_{ij}`.

    M is antisymmetric, so a pair turned round changes the value by :math:`M_{ij}`.

    >>> order_value(np.array([[0.0, -2.0], [2.0, 0.0]]), [0, 1])
    -1.0
    """
    permuted = np.asarray(matrix)[np.ix_(order, order)]
    return float(0.5 * np.triu(permuted, 1).sum())


def borda_order(matrix: np.ndarray, before: Precedence | None = None) -> list[int]:
    """Ascending row sums; with constraints, always the smallest of those that may come next.

    >>> borda_order(np.array([[0.0, 2.0], [-2.0, 0.0]]))
    [1, 0]
    """
    matrix = np.asarray(matrix)
    scores = matrix.sum(axis=1)
    left, order = set(range(len(scores))), []
    while left:
        free = [i for i in left if not any((j, i) in (before or ()) for j in left)]
        best = min(free, key=lambda i: (scores[i], i))
        order.append(best)
        left.remove(best)
    return order


def exact_order(matrix: np.ndarray, before: Precedence | None = None) -> list[int]:
    """The best order by dynamic programming over subsets, for up to 14 sources.

    Time and memory O(2^N N). Raises InputError above 14.

    >>> exact_order(np.array([[0.0, 2.0], [-2.0, 0.0]]))
    [1, 0]
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    n = len(matrix)
    if n > EXACT_LIMIT:
        raise InputError(
            f"method 'exact': expected at most {EXACT_LIMIT} sources, found {n}; use 'search'"
        )
    required = [0] * n
    for i, j in before or ():
        required[j] |= 1 << i
    # into[j, S]: what the sources in S, all before j, contribute.
    into = np.zeros((n, 1 << n))
    for i in range(n):
        into[:, 1 << i : 2 << i] = into[:, : 1 << i] + matrix[i][:, None]
    best = np.full(1 << n, np.inf)
    last = np.full(1 << n, -1)
    best[0] = 0.0
    for subset in range(1, 1 << n):
        for j in range(n):
            rest = subset & ~(1 << j)
            if subset >> j & 1 and rest & required[j] == required[j]:
                value = best[rest] + into[j, rest]
                if value < best[subset]:
                    best[subset], last[subset] = value, j
    order, subset = [], (1 << n) - 1
    while subset:
        order.append(int(last[subset]))
        subset &= ~(1 << order[-1])
    return order[::-1]


def search_order(
    matrix: np.ndarray, before: Precedence | None = None, restarts: int = 8, seed: int = 0
) -> list[int]:
    """Local search by insertion (take a source out, put it where it is best), any N.

    Starts from the Borda order and from ``restarts`` random ones; keeps the best found.

    >>> search_order(np.array([[0.0, 2.0], [-2.0, 0.0]]))
    [1, 0]
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    before = before or set()
    random = np.random.default_rng(seed)
    n = len(matrix)
    starts = [borda_order(matrix, before)]
    for _ in range(restarts):
        noise = random.normal(size=n)
        starts.append(borda_order(np.diag(noise), before))
    ends = [_insertion(matrix, start, before) for start in starts]
    return min(ends, key=lambda order: order_value(matrix, order))


def _insertion(matrix: np.ndarray, order: list[int], before: Precedence) -> list[int]:
    scale = np.abs(matrix).max(initial=0.0)
    improved = True
    while improved:
        improved = False
        for source in list(order):
            rest = [i for i in order if i != source]
            # Moving the source from place p to p+1 turns its pair with rest[p] round.
            row = matrix[source, rest]
            values = np.concatenate([[row.sum()], row.sum() - 2 * np.cumsum(row)])
            allowed = [
                p
                for p in range(len(rest) + 1)
                if not any((source, i) in before for i in rest[:p])
                and not any((i, source) in before for i in rest[p:])
            ]
            place = min(allowed, key=lambda p: (values[p], p))
            if values[place] < values[order.index(source)] - 1e-12 * scale:
                order = [*rest[:place], source, *rest[place:]]
                improved = True
    assert obeys(order, before)
    return order
