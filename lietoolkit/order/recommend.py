"""From predictions and rehearsals to an order, and what it would change."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective, WeightedSum
from lietoolkit.order.calibration import order_chances, pair_chances, typical_effect
from lietoolkit.order.constraints import Precedence, obeys, parse_constraints
from lietoolkit.order.effort import COMPARED, Effort
from lietoolkit.order.from_end import plan_from_end
from lietoolkit.order.linear_ordering import EXACT_LIMIT, borda_order
from lietoolkit.order.schedule_bracket import order_against_reverse
from lietoolkit.order.search import Searched, search_levels
from lietoolkit.order.tournament import Tournament
from lietoolkit.training.optimizers import Optimizer
from lietoolkit.training.trail import KEPT, Trail
from lietoolkit.training.truth import run_schedules

# A gradient held for many updates of plain gradient descent acts like one long step. Above 2, lr
# times curvature times the updates it is held for, several of them leave the valley; and curvature
# grows in training: at 1.0 some rehearsals of a language model went astray, at 0.5 none did. One
# long step a stage has no next one to go astray in.
HELD_STEP, ONLY_STEP = 0.5, 1.0
# What states along an order may take of the memory.
TRAIL_BYTES = 4 << 30
# Of so many sources the expected losses of all orders are told: 720.
TABLED = 6


@dataclass(frozen=True)
class Recommendation:
    """An order and what it is predicted to change.

    Attributes:
        order: trained-first first.
        effort: how it was found.
        rounds: of ``plan_from_end``, else empty.
        plan_vs_reverse: predicted loss difference from the reverse order, per target.
        forgetting: the same with each source as a target.
        expected: of an order that was tried among others: for each target the loss to expect of
            every order less that of the recommended one, by the numbers of the tournament's names,
            "201". Empty with more than 6 sources.
        searched: the orders that were tried, as numbers of the tournament's names.
    """

    order: list[str]
    effort: Effort
    rounds: list[dict[str, float]] = field(default_factory=list)
    plan_vs_reverse: dict[str, float] = field(default_factory=dict)
    forgetting: dict[str, float] = field(default_factory=dict)
    expected: dict[str, dict[str, float]] = field(default_factory=dict)
    searched: Searched | None = None

    @property
    def tries(self) -> dict[str, int]:
        """How many orders were tried, by how a stage was stood for (``Rehearsal.label``)."""
        if self.searched is None:
            return {}
        return {
            rehearsal.label: self.searched.levels.count(level)
            for level, rehearsal in enumerate(self.effort.levels)
            if level in self.searched.levels
        }

    def worse_than(self, before: float) -> str:
        """What to say if no order that was trained whole ends below the loss before, else ''."""
        found = self.searched
        if found is None:
            return ""
        tries = zip(found.losses, found.levels, strict=True)
        whole = [loss for loss, level in tries if found.costs[level] == 1]
        if not whole or min(whole) < before:
            return ""
        return (
            f"every order that was trained whole raises the target's loss, from {before:.3g} to "
            f"{min(whole):.3g} or more: lower lr, or check whether these sources serve the target"
        )


def recommend(
    effort: Effort,
    t: Tournament,
    sources: Mapping[str, Objective],
    targets: Mapping[str, Objective],
    weights: Mapping[str, float],
    theta: Tensor,
    optimizer: Optimizer,
    *,
    lambda_max: float = 0.0,
    schedule: str = "constant",
    warmup: int = 0,
    hvp: str = "auto",
    forgetting: bool = True,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Recommendation:
    """Find the order with the chosen effort, and what it changes against its reverse.

    A tournament's changes are sums of its pair effects. A search rehearses whole orders, or trains
    them, that of the tournament and its reverse first (``search_levels``). Planning from the end
    rehearses its own order, the tournament's, and both in reverse. The reverse of what is found is
    tried as well, and taken where it is better. With plain SGD rehearsals are at a step size small
    enough to hold the gradients.

    Args:
        effort: of ``choose_effort``.
        t: the tournament of the same sources and targets; constraints are taken from it.
        sources, targets, weights, theta: as in ``tournament``.
        optimizer, schedule, warmup: of the training that is planned for.
        lambda_max: largest curvature of the sources; needed to rehearse SGD and momentum.
        hvp: how products are made.
        forgetting: predict what the order does to each source's own loss.
        folder: where the orders that were tried are kept, to resume after an interruption.
        progress: show progress bars.
    """
    before = parse_constraints(t.constraints, t.names)
    # The best order of all predicted effects costs no more than its Borda approximation.
    by_pairs = t.best_order("exact" if len(sources) <= EXACT_LIMIT else "search")
    if effort.planner in ("tournament", "given"):
        order = by_pairs if effort.planner == "tournament" else as_given(t.names, before)
        return Recommendation(
            order,
            effort,
            plan_vs_reverse={
                name: against_reverse(matrix, t.names, order) for name, matrix in t.targets.items()
            },
            forgetting=order_against_reverse(
                sources, order, theta, t.lr, t.steps, hvp, progress, t.steps_of
            )
            if forgetting
            else {},
        )
    run: dict[str, Any] = {"schedule": schedule, "warmup": warmup}
    lrs = [rehearsal_lr(t.lr, optimizer, lambda_max, m, t.steps) for m, _ in effort.levels]
    read_of = [
        {name: source.thinned(thin) for name, source in sources.items()}
        for _, thin in effort.levels
    ]
    if min(lrs) < t.lr:
        smaller = f"rehearsed at lr {min(lrs):.2g} to stay stable, so real changes are larger"
        effort = replace(effort, why=f"{effort.why}; {smaller}")
    read = {f"target {name}": objective for name, objective in targets.items()}
    if forgetting:
        read |= {f"source {name}": objective for name, objective in sources.items()}
    ends: dict[tuple[tuple[int, ...], int], Tensor] = {}
    space, top = next(iter(sources.values())).space, len(effort.levels) - 1
    # Of a sharded model the size of the whole, on which all processes agree.
    held = KEPT * (1 + len(optimizer.init(theta[:1]).buffers)) * theta.element_size()
    held *= getattr(space, "count", theta.numel())
    trail = Trail() if effort.planner == "search" and held <= TRAIL_BYTES else None

    def rehearse(level: int, *orders: Sequence[int]) -> list[Tensor]:
        """Losses of all that is read after these orders."""
        keys = [(tuple(order), level) for order in orders]
        new = [key for key in dict.fromkeys(keys) if key not in ends]
        if new:
            losses = run_schedules(
                read_of[level], read, theta, [[t.names[i] for i in order] for order, _ in new],
                lrs[level], t.steps, optimizer, sweeps=effort.levels[level].gradients,
                steps_of=t.steps_of, folder=folder, trail=trail if level == top else None, **run,
            )  # fmt: skip
            ends.update(zip(new, losses, strict=True))
        return [ends[key] for key in keys]

    def weighted(order: Sequence[int], level: int) -> float:
        (losses,) = rehearse(level, order)
        return sum(
            weight * float(loss)
            for weight, loss in zip(map(weights.__getitem__, targets), losses, strict=False)
        )

    def together(orders: Sequence[Sequence[int]]) -> None:
        """Several processes need not wait for what the first orders teach."""
        # Trained in turn, the second may have something in common with the first.
        if ranks.size() > 1 and (trail is None or top > 0):
            rehearse(0, *orders)

    pairs = [t.names.index(name) for name in by_pairs]
    costs = tuple(rehearsal.cost(t.steps) for rehearsal in effort.levels)
    rounds: list[dict[str, float]] = []
    # Planning from the end has a bar of its own; here are only the orders it is compared with.
    total = effort.budget if effort.planner == "search" else COMPARED * costs[0]
    with tqdm(total=total, desc="orders", unit="run", unit_scale=True, disable=not progress) as bar:
        if effort.planner == "search":
            first = [order for order in (pairs, pairs[::-1]) if obeys(order, before)]
            together(first)
            lengths = [t.steps_of.get(name, t.steps) for name in t.names]
            found = search_levels(
                weighted, len(t.names), effort.budget, costs, first, before,
                lengths=lengths if trail else None, pay=bar.update,
            )  # fmt: skip
        else:
            planned = plan_from_end(
                sources, WeightedSum(targets, weights), theta, lrs[0], t.steps, optimizer,
                effort.levels[0].gradients, effort="exact", constraints=t.constraints,
                progress=progress, **run,
            )  # fmt: skip
            chosen = [t.names.index(name) for name in planned.order]
            first = [o for o in (chosen, pairs, chosen[::-1], pairs[::-1]) if obeys(o, before)]
            first = [list(order) for order in dict.fromkeys(map(tuple, first))]
            together(first)
            losses = []
            for ahead in first:
                losses.append(weighted(ahead, 0))
                bar.update(costs[0])
            lowest = first[losses.index(min(losses))]
            # A rehearsal is not the run: what it says of orders is as uncertain as in a search.
            known = costs if costs[0] == 1 else (*costs, 1.0)
            found = Searched(lowest, first, losses, [0] * len(first), known)
            rounds = planned.rounds
    # What the plan is compared with is one more try, and may be the better order.
    level = max(at for o, at in zip(found.tried, found.levels, strict=True) if o == found.order)
    ahead, reverse = found.order, found.order[::-1]
    if (reverse, level) not in zip(found.tried, found.levels, strict=True):
        better = weighted(reverse, level) < weighted(ahead, level) and obeys(reverse, before)
        found = replace(
            found,
            order=reverse if better else ahead,
            tried=[*found.tried, reverse],
            losses=[*found.losses, weighted(reverse, level)],
            levels=[*found.levels, level],
        )
    best, worst = rehearse(level, found.order, found.order[::-1])
    changes = (best - worst).tolist()
    tries = [ends[tuple(o), at] for o, at in zip(found.tried, found.levels, strict=True)]
    return Recommendation(
        [t.names[i] for i in found.order],
        effort,
        rounds,
        plan_vs_reverse=dict(zip(targets, changes, strict=False)),
        forgetting=dict(zip(sources, changes[len(targets) :], strict=False)),
        expected={
            name: changes_expected(replace(found, losses=[float(losses[m]) for losses in tries]))
            for m, name in enumerate(targets)
        }
        if len(t.names) <= TABLED
        else {},
        searched=found,
    )


def changes_expected(found: Searched) -> dict[str, float]:
    """The loss to expect of every order less that of the one to take, by the order's numbers.

    >>> found = Searched([0, 1], [[0, 1], [1, 0]], [2.0, 3.0], [0, 0])
    >>> {order: round(change, 1) for order, change in changes_expected(found).items()}
    {'01': 0.0, '10': 1.0}
    """
    orders = list(itertools.permutations(range(len(found.order))))
    losses = found.expected(orders)
    losses = losses - losses[orders.index(tuple(found.order))]
    return {"".join(map(str, o)): float(x) for o, x in zip(orders, losses, strict=True)}


def as_given(names: Sequence[str], before: Precedence) -> list[str]:
    """The sources in the order they came in, but for what constraints demand.

    >>> as_given(["a", "b", "c"], {(2, 0)})
    ['b', 'c', 'a']
    """
    places = np.diag(np.arange(len(names), dtype=float))
    return [names[i] for i in borda_order(places, before)]


def neighbors(
    t: Tournament,
    chosen: Recommendation,
    resamples: int = 200,
    seed: int = 0,
    lambda_max: float = 0.0,
) -> list[dict[str, Any]]:
    """For each adjacent pair of the order: its effect, how often its sign survives, its chance.

    Args:
        t: the tournament; with chunks, for the bootstrap.
        chosen: the recommendation. Of rehearsed orders, the effect of a pair is what the search
            expects of turning it round, or, from the end, the score of its second source as the
            last one less that of its first; and nothing is resampled.
        resamples, seed: of the bootstrap.
        lambda_max: largest curvature of the sources, for the chance of local effects.
    """
    local = _local_chances(t, chosen, t.matrix, lambda_max)
    survival = None
    if t.resampler is not None and chosen.searched is None:
        survival = t.resampler.survival(t.sigma, resamples, seed)
    rows = []
    for first, second in itertools.pairwise(chosen.order):
        i, j = t.names.index(first), t.names.index(second)
        effect = float(t.matrix[i, j])
        chance = None if local is None else float(local[i, j])
        if chosen.searched is not None:
            order = [t.names.index(name) for name in chosen.order]
            turned = [j if x == i else i if x == j else x for x in order]
            kept, swapped = chosen.searched.expected([order, turned])
            effect = float(kept - swapped)
            chance = _searched_chance(chosen.searched, order, turned)
        if chosen.rounds:
            # The round that placed the second source.
            asked = [r for r in chosen.rounds if first in r and second in r]
            if asked:
                effect = asked[-1][second] - asked[-1][first]
        rows.append(
            {
                "first": first,
                "second": second,
                "effect": effect,
                "survival": None if survival is None else float(survival[i, j]),
                "resamples": resamples,
                "chance": chance,
            }
        )
    return rows


def chance_against_reverse(
    t: Tournament, chosen: Recommendation, change: float, lambda_max: float
) -> float | None:
    """The calibrated probability that the order is better than its reverse; None: not known.

    Args:
        t, chosen, lambda_max: as in ``neighbors``.
        change: predicted loss of the order less that of its reverse.
    """
    if chosen.searched is None:
        known = _local_chances(t, chosen, torch.tensor(change), lambda_max)
        return None if known is None else float(known)
    order = [t.names.index(name) for name in chosen.order]
    return _searched_chance(chosen.searched, order, order[::-1])


def _searched_chance(searched: Searched, order: list[int], other: list[int]) -> float:
    ours, theirs = searched.trained(order), searched.trained(other)
    if ours is not None and theirs is not None and ours != theirs:
        return float(ours < theirs)  # nothing to guess
    return float(order_chances(*searched.lead(order, [other]))[0])


def _local_chances(
    t: Tournament, chosen: Recommendation, effects: Tensor, lambda_max: float
) -> Tensor | None:
    """That effects are really negative; None where the local score knows nothing of it."""
    known = t.optimizer == "sgd" and t.method != "stage" and lambda_max > 0
    if not known or chosen.effort.planner != "tournament":
        return None
    right = pair_chances(effects, typical_effect(t.matrix), t.steps * t.lr * lambda_max)
    return torch.where(effects > 0, 1 - right, right)


def rehearsal_lr(
    lr: float, optimizer: Optimizer, lambda_max: float, sweeps: int, steps: int
) -> float:
    """The step size of a rehearsal: lr, or less where a held gradient would go too far.

    >>> from lietoolkit.training.optimizers import SGD
    >>> rehearsal_lr(0.1, SGD(), lambda_max=2.0, sweeps=1, steps=20)
    0.025
    """
    if sweeps >= steps or optimizer.name == "adamw" or lambda_max <= 0:
        return lr  # nothing is held, or adaptive steps do not grow with the gradient
    reach = ONLY_STEP if sweeps == 1 else HELD_STEP
    longest = reach * (1 - getattr(optimizer, "beta", 0.0)) / lambda_max
    return min(lr, longest * sweeps / steps)


def against_reverse(matrix: Tensor, names: Sequence[str], order: Sequence[str]) -> float:
    """Sum of the pair effects of an order: its predicted loss less that of its reverse."""
    places = [names.index(name) for name in order]
    return float(matrix[places][:, places].triu(1).sum())
