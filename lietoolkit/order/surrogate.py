"""What the losses of a few orders, tried cheaply or truly, say about all others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NOISE = 0.02  # of a tried loss, as a share of the variance of losses
DECAY = 2.0  # how fast orders cease to be alike, with the share of pairs turned round
REACH = 0.2  # how far apart places are alike, as a share of the run
# What is supposed of the correlation of a level's losses with those of the next: with the true
# ones, and between rough ones. Equally likely before anything is tried.
TRUE, ROUGH = (0.1, 0.5, 0.8, 0.97), (0.3, 0.6, 0.9)
LEVEL = 4.0  # variance of a level's mean, in units of that of its losses: all but unknown
# Gauss and Hermite's rule for means over a normal variable.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

Array = NDArray[np.float64]
Orders = NDArray[np.int64]


def pair_kernel(one: Orders, other: Orders) -> Array:
    r"""How alike orders are in which source comes before which, [n, m].

    The mean of two: the correlation of the signs of all pairs (Kendall's :math:`\tau`), and
    :math:`e^{-\lambda d}` with d the share of pairs turned round (Mallows), less its mean over all
    orders. The first knows sums over pairs, the second can follow any function of the order.
    1 for equal orders, 0 on average over all orders.

    Args:
        one, other: [n, N] and [m, N] orders as numbers 0 to N-1.

    >>> pair_kernel(np.array([[0, 1, 2]]), np.array([[0, 1, 2], [2, 1, 0]])).round(2).tolist()
    [[1.0, -0.78]]
    """
    n = one.shape[1]
    i, j = np.triu_indices(n, 1)
    signs, others = (np.sign(at[:, i] - at[:, j]) for at in map(_places, (one, other)))
    pairs = signs @ others.T / len(i)
    # The generating function of the number of inversions, at one factor a pair.
    q = np.exp(-DECAY / len(i))
    mean = np.prod([(1 - q**size) / (size * (1 - q)) for size in range(1, n + 1)])
    return np.asarray((pairs + _centered(np.exp(-DECAY * (1 - pairs) / 2), mean)) / 2)


def place_kernel(one: Orders, other: Orders) -> Array:
    """How alike orders are in where each source stands, [n, m].

    The mean of three: how near each source's places are, as a Gaussian of their distance, averaged
    over sources; whether the same one is first; and whether the same one is last. It knows sums of
    what each source does at its place, for which a step size that falls over the run, or the
    forgetting of what came early, make one place unlike the next. 1 for equal orders, 0 on average.

    Args:
        one, other: [n, N] and [m, N] orders as numbers 0 to N-1.

    >>> place_kernel(np.array([[0, 1, 2]]), np.array([[0, 1, 2], [2, 1, 0]])).round(2).tolist()
    [[1.0, -0.4]]
    """
    n = one.shape[1]
    near = np.exp(-0.5 * (np.subtract.outer(np.arange(n), np.arange(n)) / (REACH * n)) ** 2)
    a, b = _places(one), _places(other)
    alike = np.mean([near[np.ix_(a[:, source], b[:, source])] for source in range(n)], axis=0)
    ends = [(one[:, end, None] == other[None, :, end]).astype(float) for end in (0, -1)]
    return np.asarray(
        (_centered(alike, near.mean()) + sum(_centered(end, 1 / n) for end in ends)) / 3
    )


def _places(orders: Orders) -> Orders:
    return np.argsort(orders, axis=1)


def _centered(kernel: Array, mean: float) -> Array:
    return (kernel - mean) / (1 - mean)


# What the losses may follow, equally likely before anything is tried.
KERNELS = (pair_kernel, place_kernel)


class Supposed(NamedTuple):
    """One supposition of what losses follow and how far levels can be trusted.

    Attributes:
        weight: its probability, given the tries.
        kernel: its place in ``KERNELS``.
        trust: correlations of the levels, [levels, levels].
        root: Cholesky factor of the covariance of the tries. solved: its inverse times the losses.
    """

    weight: float
    kernel: int
    trust: Array
    root: Array
    solved: Array


class Surrogate:
    r"""A Gaussian process over orders and levels.

    The loss of order :math:`\pi` at level l is :math:`m_l + s_l f_l(\pi)` with
    :math:`\mathrm{cov}(f_l(\pi), f_{l'}(\pi')) = \rho_{ll'}\, k(\pi, \pi')`. Whether k is the
    ``pair_kernel`` or the ``place_kernel``, and how neighboring levels correlate, is not known:
    every supposition in ``KERNELS``, ``TRUE`` and ``ROUGH`` is weighed by how likely it makes the
    losses seen, and all are averaged.

    Args:
        tried: orders as numbers 0 to N-1. levels: of each, 0 the cheapest. losses: of each.
        count: of levels; the last is the truth, whether it was tried or not.

    Source: levels of one function as correlated processes are Kennedy and O'Hagan (2000),
    "Predicting the output from a complex computer code when fast approximations are available".

    >>> seen = Surrogate([[0, 1, 2], [2, 1, 0]], [0, 0], [1.0, 3.0], count=2)
    >>> low, high = seen.losses(np.array([[0, 2, 1], [2, 0, 1]]))
    >>> bool(1 < low < 2 < high < 3)
    True
    """

    def __init__(
        self,
        tried: Sequence[Sequence[int]],
        levels: Sequence[int],
        losses: Sequence[float],
        count: int = 1,
    ):
        self.known, self.levels = np.array(tried), np.array(levels)
        y, self.top = np.array(losses, dtype=float), count - 1
        centers, scales = _standards(y, self.levels)
        dearest = max(levels)
        self.center, self.scale = centers[dearest], scales[dearest]
        z = np.array([(v - centers[at]) / scales[at] for v, at in zip(y, levels, strict=True)])
        # What all tries of a level share: its mean, which is not known.
        self.same = LEVEL * (self.levels[:, None] == self.levels[None, :])
        found = []
        kernels = [kernel(self.known, self.known) for kernel in KERNELS]
        for at, trust in itertools.product(range(len(KERNELS)), _suppositions(count)):
            inner = trust[np.ix_(self.levels, self.levels)] * kernels[at] + self.same
            root = np.linalg.cholesky(inner + NOISE * np.eye(len(z)))
            solved = np.linalg.solve(root, z)
            likely = -0.5 * solved @ solved - np.log(np.diag(root)).sum()
            found.append(Supposed(likely, at, trust, root, solved))
        # Weights are logarithms so far.
        best = max(s.weight for s in found)
        total = sum(np.exp(s.weight - best) for s in found)
        self.supposed = [s._replace(weight=float(np.exp(s.weight - best) / total)) for s in found]

    def losses(self, orders: Orders) -> Array:
        """The true losses to expect, in the unit and origin of the dearest level tried,
        [len(orders)].
        """
        cross = [kernel(self.known, orders) for kernel in KERNELS]
        mean = sum(
            s.weight * (self._whitened(s, cross[s.kernel]).T @ s.solved) for s in self.supposed
        )
        return np.asarray(self.center + self.scale * mean)

    def lead(self, orders: Orders) -> tuple[Array, Array]:
        """Expected loss of each later order less that of the first, and its variance.

        In units of the spread of losses, [len(orders) - 1] each.
        """
        cross = [kernel(self.known, orders) for kernel in KERNELS]
        prior = [kernel(orders, orders) for kernel in KERNELS]
        leads, variances, weights = [], [], []
        for s in self.supposed:
            white = self._whitened(s, cross[s.kernel])
            mean, left = white.T @ s.solved, prior[s.kernel] - white.T @ white
            leads.append(mean[1:] - mean[0])
            variances.append(np.maximum(left[0, 0] + np.diag(left)[1:] - 2 * left[0, 1:], 0.0))
            weights.append(s.weight)
        lead = np.average(leads, axis=0, weights=weights)
        second = np.average(np.square(leads) + variances, axis=0, weights=weights)
        return lead, np.maximum(second - lead**2, 0.0)

    def knowledge_gradient(self, orders: Orders) -> Array:
        """How much lower one more try makes the lowest expected loss, on average.

        For a try of each of the orders at each level, in units of the spread of losses,
        [levels, len(orders)].
        """
        cross = [kernel(self.known, orders) for kernel in KERNELS]
        prior = [kernel(orders, orders) for kernel in KERNELS]
        gain = np.zeros((self.top + 1, len(orders)))
        for s in self.supposed:
            if s.weight < 1e-3:
                continue
            true = self._whitened(s, cross[s.kernel])
            mean = true.T @ s.solved
            for level in range(self.top + 1):
                shared = LEVEL * (self.levels == level)[:, None]
                seen = np.linalg.solve(
                    s.root, s.trust[self.levels, level][:, None] * cross[s.kernel] + shared
                )
                variance = np.maximum(1 + LEVEL - (seen**2).sum(0), 0.0) + NOISE
                moved = s.trust[level, self.top] * prior[s.kernel] - true.T @ seen
                moved /= np.sqrt(variance)
                # Only orders that can become the lowest count.
                near = mean - NODES[-1] * np.abs(moved).max(1) <= mean.min()
                lows = [(mean[near, None] + x * moved[near]).min(0) for x in NODES]
                gain[level] += s.weight * (mean.min() - WEIGHTS @ lows)
        return gain

    def _whitened(self, s: Supposed, cross: Array) -> Array:
        return np.asarray(np.linalg.solve(s.root, s.trust[self.levels, self.top][:, None] * cross))


def _suppositions(count: int) -> list[Array]:
    """Correlations of all levels, [count, count] each: products of those of neighbors."""
    steps = [*[ROUGH] * (count - 2), TRUE][: count - 1] if count > 1 else []
    found = []
    for chain in itertools.product(*steps):
        trust = np.eye(count)
        for a, b in itertools.combinations(range(count), 2):
            trust[a, b] = trust[b, a] = np.prod(chain[a:b])
        found.append(trust)
    return found


def _standards(y: Array, levels: NDArray[np.int64]) -> tuple[dict[int, float], dict[int, float]]:
    """Mean and spread of each level's losses; few tries borrow the spread of all levels."""
    own = {int(level): y[levels == level] for level in np.unique(levels)}
    freedom = {level: len(v) - 1 for level, v in own.items()}
    spread = {level: v.var(ddof=1) if len(v) > 1 else 0.0 for level, v in own.items()}
    total = sum(freedom.values())
    pooled = sum(freedom[level] * spread[level] for level in own) / total if total else 0.0
    pooled = pooled or 1.0
    scales = {
        level: float(np.sqrt((2 * pooled + freedom[level] * spread[level]) / (2 + freedom[level])))
        for level in own
    }
    return {level: float(v.mean()) for level, v in own.items()}, scales
