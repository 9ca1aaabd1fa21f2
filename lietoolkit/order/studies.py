"""All orders of a few sources, trained for real, and the orders that planners choose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.from_end import plan_from_end
from lietoolkit.order.tournament import tournament
from lietoolkit.training.truth import run_schedules

LARGEST = 5  # sources: 120 orders
# Planning from the end: the share of a stage's steps that stands for it; whether one round is all.
WAYS = {
    "from the end": (1.0, False),
    "from the end, k/4": (0.25, False),
    "from the end, k/10": (0.1, False),
    "one-shot, k/4": (0.25, True),
}
PLANNERS = ("tournament", "solo, best last", "solo, best first", *WAYS)


@dataclass(frozen=True)
class Planned:
    """An order, how it was chosen, and what that cost.

    Attributes:
        order: trained-first first.
        cost: in training runs of all sources: gradient equivalents / (N · steps).
        rounds: planning from the end: {name: score} per choice, last position first.
    """

    order: list[str]
    cost: float
    rounds: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class ScheduleStudy:
    """Every order of N sources trained, and the orders that planners chose.

    Attributes:
        names: the sources. steps: per stage, k.
        orders: all N! of them. losses: the target's loss after each, in loss units, [N!].
        plans: by planner.
    """

    names: list[str]
    steps: int
    orders: list[tuple[str, ...]]
    losses: np.ndarray
    plans: dict[str, Planned]

    def loss(self, order: Sequence[str]) -> float:
        """The target's loss after one of the orders."""
        return float(self.losses[self.orders.index(tuple(order))])

    def rank(self, order: Sequence[str]) -> int:
        """1 for the best order."""
        return 1 + int((self.losses < self.loss(order)).sum())

    def gap_share(self, loss: float) -> float:
        """The share of the way from the median order (0) to the best (1)."""
        median = float(np.median(self.losses))
        return (median - loss) / (median - float(self.losses.min()))

    def share(self, planner: str) -> float:
        """The gap share of a planner's order."""
        return self.gap_share(self.loss(self.plans[planner].order))

    def percentile(self, planner: str) -> float:
        """The share of the other orders that are worse, in %: 100 is the best, 50 is chance."""
        loss = self.loss(self.plans[planner].order)
        others = len(self.losses) - 1
        ties = int((self.losses == loss).sum()) - 1
        return 100 * (float((self.losses > loss).sum()) + 0.5 * ties) / others

    def random(self, runs: int) -> float:
        """The expected gap share of the best of so many orders, tried at random."""
        return self.gap_share(best_of_random(self.losses, runs))

    def explained(self, place: int) -> float:
        """The share of the losses' variance that who stands at a place (0: first) explains."""
        groups = [
            self.losses[[order[place] == name for order in self.orders]] for name in self.names
        ]
        return float(np.var([group.mean() for group in groups]) / np.var(self.losses))


def best_of_random(losses: np.ndarray | Sequence[float], runs: int) -> float:
    r"""The expected lowest loss of ``runs`` different orders drawn at random.

    With the n losses sorted, the i-th (from 0) is the lowest of B drawn when it is drawn and the
    others come from the n - 1 - i above it:

    .. math:: \sum_i L_{(i)} \binom{n-1-i}{B-1} / \binom{n}{B}

    Raises:
        InputError: fewer than one run or more than there are losses.

    >>> best_of_random([3.0, 1.0, 2.0], 2)
    1.3333333333333333
    """
    ordered = np.sort(np.asarray(losses, dtype=float))
    n = len(ordered)
    if not 1 <= runs <= n:
        raise InputError(f"runs: expected 1 to {n}, one for each loss; found {runs}")
    ways = [math.comb(n - 1 - i, runs - 1) for i in range(n)]
    return float(sum(x * w for x, w in zip(ordered.tolist(), ways, strict=True)) / sum(ways))


def study_schedules(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int,
    optimizer: str = "sgd",
    schedule: str = "constant",
    warmup: int = 0,
) -> ScheduleStudy:
    """Train all orders, and let each planner choose one.

    The planners: the local tournament; each source trained alone, and the one after which the
    target's loss is lowest put last or first; planning from the end, exactly, with all k steps of
    a stage or fewer, and sorted by the scores of the first round alone ("one-shot").

    Args:
        sources: 2 to 5 objectives by name.
        target: the loss that should end low.
        theta: start, [P].
        lr, steps, optimizer, schedule, warmup: as in ``run_schedules``.

    Raises:
        InputError: too many sources, or bad settings.
    """
    n = len(sources)
    if not 2 <= n <= LARGEST:
        raise InputError(f"sources: expected 2 to {LARGEST}, all orders are trained; found {n}")
    orders = list(itertools.permutations(sources))
    losses = run_schedules(
        sources, target, theta, orders, lr, steps, optimizer, schedule=schedule, warmup=warmup
    ).numpy()
    once = n * steps
    with metered() as cost:
        solo = run_schedules(
            sources, target, theta, [[name] for name in sources], lr, steps, optimizer,
            schedule=schedule, warmup=warmup,
        ).tolist()  # fmt: skip
    alone = sorted(sources, key=dict(zip(sources, solo, strict=True)).__getitem__)
    t = tournament(sources, target, theta, lr, steps)
    plans = {
        "tournament": Planned(t.order, t.cost.total / once),
        "solo, best last": Planned(alone[::-1], cost.total / once),
        "solo, best first": Planned(alone, cost.total / once),
    }
    found: dict[tuple[int, bool], Planned] = {}
    for name, (part, one_shot) in WAYS.items():
        way = max(1, round(steps * part)), one_shot
        if way not in found:
            plan = plan_from_end(
                sources, target, theta, lr, steps, optimizer, way[0],
                effort="exact", one_shot=one_shot, schedule=schedule, warmup=warmup,
            )  # fmt: skip
            found[way] = Planned(plan.order, plan.cost.total / once, tuple(plan.rounds))
        plans[name] = found[way]
    return ScheduleStudy(list(sources), steps, orders, losses, plans)
