"""Search among orders: the losses of a few that were tried say which one to try next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy
from torch.special import ndtr

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import Precedence, obeys
from lietoolkit.order.linear_ordering import borda_order

ENUMERATED = 6  # sources: 720 orders; with more, candidates are drawn
DRAWN = 500  # random candidates a try
NOISE = 0.02  # of a tried loss, as a share of the variance of losses
DECAY = 2.0  # how fast orders cease to be alike, with the share of pairs turned round

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Searched:
    """Orders that were tried, in turn.

    Attributes:
        order: the one with the lowest loss.
        tried: every order. losses: of each.
    """

    order: list[int]
    tried: list[list[int]]
    losses: list[float]

    def expected(self, orders: Sequence[Sequence[int]]) -> Array:
        """The losses to expect of any orders, given those that were tried, [len(orders)]."""
        return _surrogate(self.tried, self.losses, orders)[0]

    def lead(self, order: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """How much lower an order's loss is than that of others, as expected, and the variance.

        Both in units of the spread of the losses tried, [len(others)] each.
        """
        compared = np.array([list(order), *map(list, others)])
        solved, cross, scale = _weights(self.tried, self.losses, compared)
        mean = (np.array(self.losses) - np.mean(self.losses)) @ solved / scale
        left = order_kernel(compared, compared) - cross.T @ solved
        variance = left[0, 0] + np.diag(left)[1:] - 2 * left[0, 1:]
        return mean[1:] - mean[0], np.maximum(variance, 0.0)


def search_orders(
    evaluate: Callable[[list[int]], float],
    sources: int,
    tries: int,
    first: Sequence[Sequence[int]] = (),
    before: Precedence | None = None,
    seed: int = 0,
) -> Searched:
    r"""Find a good order in few tries.

    The loss of an order is modelled as a Gaussian process whose kernel says which orders are alike
    (``order_kernel``): a source then does much the same at neighboring places, and a pair much the
    same wherever it stands. The next order tried is the one with the largest expected improvement,

    .. math:: E[\max(0, L_{best} - L_\pi)]
              = (L_{best} - \mu_\pi)\,\Phi(u) + s_\pi\,\varphi(u),
              \qquad u = (L_{best} - \mu_\pi)/s_\pi .

    Up to 6 sources all orders are considered; with more, 500 random ones and all single moves from
    the best three tried.

    Args:
        evaluate: order, as numbers 0 to N-1 with the first trained first -> loss. Whether it is a
            real run or a rehearsal, a try costs what this costs.
        sources: N, 2 or more.
        tries: how many orders may be tried.
        first: orders to begin with; without any, a random one and its reverse, which differ in
            every pair.
        before: pairs (i, j): i before j. Orders in ``first`` that break one are left out.
        seed: of what is random.

    Raises:
        InputError: fewer than two sources or no try.

    Source: expected improvement is Jones, Schonlau and Welch (1998), "Efficient global optimization
    of expensive black-box functions".

    >>> search_orders(lambda order: float(order.index(0)), 3, tries=6).order[0]
    0
    """
    if sources < 2 or tries < 1:
        raise InputError(f"sources, tries: expected at least 2 and 1, found {sources} and {tries}")
    before = before or set()
    random = np.random.default_rng(seed)
    allowed: list[list[int]] = []
    if sources <= ENUMERATED:
        allowed = [list(o) for o in itertools.permutations(range(sources)) if obeys(o, before)]
    ahead = [list(order) for order in first if obeys(order, before)]
    if not ahead:
        start = _random_order(sources, before, random)
        ahead = [start, start[::-1]] if obeys(start[::-1], before) else [start]
    tried: list[list[int]] = []
    losses: list[float] = []
    while len(tried) < tries:
        fresh = [order for order in ahead if order not in tried]
        if not fresh:
            pool = allowed or _pool(tried, losses, sources, before, random)
            pool = [order for order in pool if order not in tried]
            if not pool:
                break  # all were tried
            gain = _expected_improvement(min(losses), *_surrogate(tried, losses, pool))
            fresh = [pool[int(gain.argmax())]]
        tried.append(fresh[0])
        losses.append(float(evaluate(fresh[0])))
    return Searched(tried[int(np.argmin(losses))], tried, losses)


def order_kernel(one: NDArray[np.int64], other: NDArray[np.int64]) -> Array:
    r"""How alike orders are, [n, m]; 1 for equal ones, 0 on average over all orders.

    The mean of three: the correlation of the places (Spearman), of the signs of all pairs
    (Kendall's :math:`\tau`), and :math:`e^{-\lambda d}` with d the share of pairs turned round
    (Mallows), less its mean over all orders. The first is linear in places, the second in pairs,
    the third can follow any function of the order.

    Args:
        one, other: [n, N] and [m, N] orders as numbers 0 to N-1.

    >>> order_kernel(np.array([[0, 1, 2]]), np.array([[0, 1, 2], [2, 1, 0]])).round(2).tolist()
    [[1.0, -0.86]]
    """
    n = one.shape[1]
    a, b = (np.argsort(orders, axis=1) - (n - 1) / 2 for orders in (one, other))
    places = a @ b.T / (n * (n**2 - 1) / 12)
    i, j = np.triu_indices(n, 1)
    pairs = np.sign(a[:, i] - a[:, j]) @ np.sign(b[:, i] - b[:, j]).T / len(i)
    decayed = np.exp(-DECAY * (1 - pairs) / 2)
    # The generating function of the number of inversions, at one factor a pair.
    q = np.exp(-DECAY / len(i))
    mean = np.prod([(1 - q**size) / (size * (1 - q)) for size in range(1, n + 1)])
    return np.asarray((places + pairs + (decayed - mean) / (1 - mean)) / 3)


def _surrogate(
    tried: Sequence[Sequence[int]], losses: Sequence[float], orders: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    """Mean and standard deviation of the losses to expect of orders, [len(orders)] each."""
    solved, cross, scale = _weights(tried, losses, np.array(orders))
    mean = np.mean(losses)
    spread = scale * np.sqrt(np.maximum(1 - (cross * solved).sum(0), 1e-12))
    return mean + (np.array(losses) - mean) @ solved, spread


def _weights(
    tried: Sequence[Sequence[int]], losses: Sequence[float], orders: NDArray[np.int64]
) -> tuple[Array, Array, float]:
    """What each try counts for orders, [tries, len(orders)], their kernel, and the spread."""
    known = np.array(tried)
    inner = order_kernel(known, known) + NOISE * np.eye(len(known))
    cross = order_kernel(known, orders)
    return np.asarray(np.linalg.solve(inner, cross)), cross, float(np.std(losses)) or 1.0


def _expected_improvement(best: float, mean: Array, spread: Array) -> Array:
    gain = best - mean
    u = gain / spread
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(gain * ndtr(from_numpy(u)).numpy() + spread * density)


def _random_order(n: int, before: Precedence, random: np.random.Generator) -> list[int]:
    return borda_order(np.diag(random.normal(size=n)), before)


def _pool(
    tried: list[list[int]],
    losses: list[float],
    n: int,
    before: Precedence,
    random: np.random.Generator,
) -> list[list[int]]:
    """Random orders, and the best tried with one source moved."""
    pool = [_random_order(n, before, random) for _ in range(DRAWN)]
    for at in np.argsort(losses)[:3]:
        for source, place in itertools.product(range(n), range(n)):
            moved = [i for i in tried[at] if i != source]
            moved.insert(place, source)
            if obeys(moved, before):
                pool.append(moved)
    return [list(order) for order in dict.fromkeys(map(tuple, pool))]
