"""Search among orders: the losses of a few that were tried say which one to try next, and how."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import Precedence, obeys
from lietoolkit.order.linear_ordering import borda_order
from lietoolkit.order.surrogate import Surrogate
from lietoolkit.training.trail import shared_stages

ENUMERATED = 5  # sources: 120 orders; with more, candidates are drawn
DRAWN = 300  # random candidates a try
# Smaller gains, in units of the spread of losses, are rounding errors, which differ by machine.
GAIN_DIGITS = 9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Searched:
    """Orders that were tried, in turn.

    Attributes:
        order: the one to take.
        tried: every order. losses: of each.
        levels: how each was tried, a place in ``costs``. costs: of a try at each level, cheap to
            dear; losses of two levels are not to be compared.
        lengths: of each source's stage, where what a try shared with the one before was not paid
            for again.
    """

    order: list[int]
    tried: list[list[int]]
    losses: list[float]
    levels: list[int]
    costs: tuple[float, ...] = (1.0,)
    lengths: tuple[float, ...] | None = None

    @property
    def spent(self) -> float:
        """What all tries cost."""
        total, last = 0.0, None
        for order, level in zip(self.tried, self.levels, strict=True):
            total += _price(order, level, self.costs, last, self.lengths)
            last = order if level == len(self.costs) - 1 else last
        return total

    def trained(self, order: Sequence[int]) -> float | None:
        """The loss of an order that was tried at the dearest level; None: it was not."""
        top = len(self.costs) - 1
        tries = zip(self.tried, self.levels, self.losses, strict=True)
        return next((loss for o, at, loss in tries if at == top and o == list(order)), None)

    def expected(self, orders: Sequence[Sequence[int]]) -> Array:
        """The losses to expect of any orders, as ``Surrogate.losses``, [len(orders)]."""
        return self._surrogate().losses(np.array(orders))

    def lead(self, order: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """How much lower an order's loss is than that of others, as expected, and the variance.

        Both in units of the spread of losses at the dearest level, [len(others)] each.
        """
        return self._surrogate().lead(np.array([list(order), *map(list, others)]))

    def _surrogate(self) -> Surrogate:
        return Surrogate(self.tried, self.levels, self.losses, len(self.costs))


def search_orders(
    evaluate: Callable[[list[int]], float],
    sources: int,
    tries: int,
    first: Sequence[Sequence[int]] = (),
    before: Precedence | None = None,
    seed: int = 0,
) -> Searched:
    """Find a good order in few tries, all of one kind: ``search_levels`` with one level.

    Args:
        evaluate: order, as numbers 0 to N-1 with the first trained first -> loss.
        sources: N, 2 or more.
        tries: how many orders may be tried.
        first, before, seed: as there.

    >>> search_orders(lambda order: float(order.index(0)), 3, tries=6).order[0]
    0
    """
    if sources < 2 or tries < 1:
        raise InputError(f"sources, tries: expected at least 2 and 1, found {sources} and {tries}")
    return search_levels(
        lambda order, _: evaluate(order), sources, tries, (1.0,), first, before, seed
    )


def search_levels(
    evaluate: Callable[[list[int], int], float],
    sources: int,
    budget: float,
    costs: Sequence[float],
    first: Sequence[Sequence[int]] = (),
    before: Precedence | None = None,
    seed: int = 0,
    lengths: Sequence[float] | None = None,
    pay: Callable[[float], object] | None = None,
) -> Searched:
    r"""Find a good order from tries of several kinds, cheap and rough to dear and true.

    The loss of an order is modelled as a Gaussian process over orders and levels (``Surrogate``),
    which learns from the tries how far a cheap level can be trusted. The next try is the order and
    level with the largest knowledge gradient for its cost: how much lower, on average over what the
    try may show, the lowest expected loss at the dearest level will be,

    .. math:: \frac{1}{c_l}\,
              E\left[\min_\pi \mu_\pi - \min_\pi \mu_\pi^{\text{after the try}}\right] .

    Taken is the best order tried at the dearest level, or, where fewer than two were, the order
    tried with the lowest expected loss. Up to 5 sources all orders are considered; with more, 300
    random ones and all single moves from the best three tried.

    Args:
        evaluate: order, as numbers 0 to N-1 with the first trained first, and level -> loss.
        sources: N, 2 or more.
        budget: what all tries may cost.
        costs: of a try at each level, rising. The last level is the truth.
        first: orders to begin with, at the cheapest level; without any, a random one and its
            reverse, which differ in every pair.
        before: pairs (i, j): i before j. Orders in ``first`` that break one are left out.
        seed: of what is random.
        lengths: of each source's stage. Given, a try at the dearest level pays only for the stages
            that it does not share with the one before it, see ``shared_stages``.
        pay: is told what each try cost.

    Raises:
        InputError: fewer than two sources, costs that do not rise, or no try within the budget.

    Source: the knowledge gradient is Frazier, Powell and Dayanik (2009), "The knowledge-gradient
    policy for correlated normal beliefs".

    >>> truth = lambda order, level: float(order.index(0)) + (0.1 * order[0] if level == 0 else 0)
    >>> found = search_levels(truth, 3, budget=2.0, costs=(0.1, 1.0))
    >>> found.order[0], found.spent <= 2.0
    (0, True)
    """
    if sources < 2 or not costs or costs[0] <= 0 or list(costs) != sorted(set(costs)):
        raise InputError(
            f"sources, costs: expected at least 2, and rising numbers, found {sources} and {costs}"
        )
    if costs[0] > budget + 1e-9:
        raise InputError(f"budget: expected at least one try, {costs[0]:.3g}, found {budget:.3g}")
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
    levels: list[int] = []
    losses: list[float] = []
    left = budget + 1e-9
    last: list[int] | None = None  # of the orders tried at the dearest level
    while True:
        done = set(zip(map(tuple, tried), levels, strict=True))
        fresh = [order for order in ahead if (tuple(order), 0) not in done]
        if fresh:
            order, level = fresh[0], 0
            if _price(order, level, costs, last, lengths) > left:
                break
        else:
            pool = allowed or _pool(tried, losses, levels, sources, before, random)
            surrogate = Surrogate(tried, levels, losses, len(costs))
            gains = surrogate.knowledge_gradient(np.array(pool))
            best = None
            for level in range(len(costs)):
                prices = np.array([_price(order, level, costs, last, lengths) for order in pool])
                open_ = [
                    n for n, o in enumerate(pool)
                    if prices[n] <= left and (tuple(o), level) not in done
                ]  # fmt: skip
                if not open_:
                    continue
                gain = gains[level, open_].round(GAIN_DIGITS) / prices[open_]
                place = int(gain.argmax())
                if best is None or gain[place] > best[0]:
                    best = gain[place], pool[open_[place]], level
            if best is None:
                break  # all were tried, or are too dear
            _, order, level = best
        paid = _price(order, level, costs, last, lengths)
        tried.append(order)
        levels.append(level)
        losses.append(float(evaluate(order, level)))
        left -= paid
        if pay is not None:
            pay(paid)
        if level == len(costs) - 1:
            last = order
    best_order = _best(tried, levels, losses, len(costs))
    own = None if lengths is None else tuple(lengths)
    return Searched(best_order, tried, losses, levels, tuple(costs), own)


def _price(
    order: Sequence[int],
    level: int,
    costs: Sequence[float],
    last: Sequence[int] | None,
    lengths: Sequence[float] | None,
) -> float:
    """What a try costs after ``last`` was the one before at the dearest level."""
    if lengths is None or last is None or level < len(costs) - 1:
        return costs[level]
    begun = order[: shared_stages(last, order)]
    return costs[level] * (1 - sum(lengths[i] for i in begun) / sum(lengths))


def _best(tried: list[list[int]], levels: list[int], losses: list[float], count: int) -> list[int]:
    true = [n for n, level in enumerate(levels) if level == count - 1]
    if count == 1 or len({tuple(tried[n]) for n in true}) > 1:
        return tried[min(true, key=losses.__getitem__)]
    expected = Surrogate(tried, levels, losses, count).losses(np.array(tried))
    return tried[int(expected.argmin())]


def _random_order(n: int, before: Precedence, random: np.random.Generator) -> list[int]:
    return borda_order(np.diag(random.normal(size=n)), before)


def _pool(
    tried: list[list[int]],
    losses: list[float],
    levels: list[int],
    n: int,
    before: Precedence,
    random: np.random.Generator,
) -> list[list[int]]:
    """Random orders, those tried, and the best tried with one source moved."""
    pool = [*tried, *(_random_order(n, before, random) for _ in range(DRAWN))]
    # Losses of one level only can be compared: of the one that was used most.
    level = max(set(levels), key=levels.count)
    ranked = sorted((loss, at) for at, loss in enumerate(losses) if levels[at] == level)
    for _, at in ranked[:3]:
        for source, place in itertools.product(range(n), range(n)):
            moved = [i for i in tried[at] if i != source]
            moved.insert(place, source)
            if obeys(moved, before):
                pool.append(moved)
    return [list(order) for order in dict.fromkeys(map(tuple, pool))]
