"""From predictions to an order: which planner at which effort, and what its order would change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective, WeightedSum
from lietoolkit.order.constraints import obeys, parse_constraints
from lietoolkit.order.from_end import plan_from_end
from lietoolkit.order.linear_ordering import EXACT_LIMIT
from lietoolkit.order.schedule_bracket import order_against_reverse
from lietoolkit.order.tournament import Tournament
from lietoolkit.training.optimizers import Optimizer
from lietoolkit.training.truth import run_schedules

PLANNERS = ("auto", "tournament", "from-end")
# A gradient held for many updates of plain gradient descent acts like one long step. Above 2, lr
# times curvature times the updates it is held for, it would leave the valley; half of that measured
# well with any number of gradients.
HELD_STEP = 1.0
# Of the k gradients of a stage, a rehearsal should take this share: with fewer, language models
# trained with AdamW were misjudged.
LEAST_SHARE = 0.2
# Orders rehearsed as a whole at the end: the plan's, the tournament's, and both in reverse.
COMPARED = 4


@dataclass(frozen=True)
class Effort:
    """A planner and how much it may spend.

    Attributes:
        planner: "tournament" or "from-end".
        sweeps: gradients that stand for a stage (from the end).
        one_shot: sort by the first round's scores.
        why: the reason, in plain words.
    """

    planner: str
    sweeps: int = 1
    one_shot: bool = False
    why: str = ""


@dataclass(frozen=True)
class Recommendation:
    """An order and what it is predicted to change.

    Attributes:
        order: trained-first first.
        effort: how it was found.
        rounds: of ``plan_from_end``; empty for a tournament.
        plan_vs_reverse: predicted loss difference from the reverse order, per target.
        forgetting: the same with each source as a target.
    """

    order: list[str]
    effort: Effort
    rounds: list[dict[str, float]] = field(default_factory=list)
    plan_vs_reverse: dict[str, float] = field(default_factory=dict)
    forgetting: dict[str, float] = field(default_factory=dict)


def choose_effort(
    sources: int,
    steps: int,
    optimizer: str,
    budget: float = 4.0,
    planner: str = "auto",
    schedule: str = "constant",
) -> Effort:
    r"""The planner that measured best at a price of at most ``budget`` training runs.

    A training run is N k gradients. One step of plain SGD is the tournament's own case. Beyond it,
    planning from the end with m gradients a stage costs about :math:`(N(N+1)/2 - 1)\,m/k` runs,
    and N m/k when all positions are taken from its first round, which is worth it only at a
    constant step size, where a source does much the same in every place. The orders compared at
    the end cost m/k each.

    Args:
        sources: N. steps: k. optimizer: its name.
        budget: training runs that planning may cost.
        planner: "auto", or the one to use whatever the budget.
        schedule: of the step size over the run.

    >>> choose_effort(5, 20, "adamw", budget=4.0).sweeps
    4
    >>> choose_effort(5, 1, "sgd").planner
    'tournament'
    """
    if not (isinstance(budget, int | float) and math.isfinite(budget) and budget > 0):
        raise InputError(f"budget: expected training runs, a positive number, found {budget!r}")
    if planner == "tournament":
        return Effort("tournament", why="asked for")
    if planner == "auto" and steps == 1 and optimizer == "sgd":
        return Effort("tournament", why="one step of plain SGD is what the local score predicts")
    full = (sources * (sources + 1) / 2 - 1 + COMPARED) / steps
    first = (sources + COMPARED) / steps
    words = f"{steps} steps with {optimizer} are beyond the local score"
    least = math.ceil(LEAST_SHARE * steps)
    ways = ((full, False), (first, True)) if schedule == "constant" else ((full, False),)
    for price, one_shot in ways:
        sweeps = min(steps, int(budget / price + 1e-9))
        if sweeps >= least:
            return Effort(
                "from-end", sweeps, one_shot,
                f"{words}; {sweeps} gradients a stage fit into {budget:g} training runs",
            )  # fmt: skip
    if planner == "from-end":
        return Effort("from-end", least, why=f"asked for; costs {least * full:.2g} training runs")
    return Effort(
        "tournament",
        why=f"{words}, but planning from the end needs {least * ways[-1][0]:.2g} training runs "
        f"and the budget is {budget:g}",
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
    progress: bool = False,
) -> Recommendation:
    """Find the order with the chosen effort, and what it changes against its reverse.

    A tournament's changes are sums of its pair effects. Planning from the end stands the other
    sources in for each other while it chooses; so the order it finds, the tournament's and both
    in reverse are rehearsed as they are, with as many gradients a stage, and the best of them is
    taken. With plain SGD all this is at a step size small enough to hold the gradients.

    Args:
        effort: of ``choose_effort``.
        t: the tournament of the same sources and targets; constraints are taken from it.
        sources, targets, weights, theta: as in ``tournament``.
        optimizer, schedule, warmup: of the training that is planned for.
        lambda_max: largest curvature of the sources; needed to rehearse SGD and momentum.
        hvp: how products are made.
        forgetting: predict what the order does to each source's own loss.
        progress: show progress bars.
    """
    if effort.planner == "tournament":
        # The best order of all predicted effects costs no more than its Borda approximation.
        order = t.best_order("exact" if len(sources) <= EXACT_LIMIT else "search")
        return Recommendation(
            order,
            effort,
            plan_vs_reverse={
                name: against_reverse(matrix, t.names, order) for name, matrix in t.targets.items()
            },
            forgetting=order_against_reverse(sources, order, theta, t.lr, t.steps, hvp, progress)
            if forgetting
            else {},
        )
    run: dict[str, Any] = {"schedule": schedule, "warmup": warmup, "progress": progress}
    lr = rehearsal_lr(t.lr, optimizer, lambda_max, effort.sweeps, t.steps)
    if lr < t.lr:
        smaller = f"rehearsed at lr {lr:.2g} to stay stable, so real changes are larger"
        effort = replace(effort, why=f"{effort.why}; {smaller}")
    settings = (theta, lr, t.steps, optimizer, effort.sweeps)
    planned = plan_from_end(
        sources, WeightedSum(targets, weights), *settings,
        effort="exact", one_shot=effort.one_shot, constraints=t.constraints, **run,
    )  # fmt: skip
    read = [*targets.values(), *(sources.values() if forgetting else ())]
    ahead = [planned.order, t.best_order("exact" if len(sources) <= EXACT_LIMIT else "search")]
    orders = [*ahead, *(order[::-1] for order in ahead)]
    losses = run_schedules(
        sources, {str(i): objective for i, objective in enumerate(read)}, theta,
        orders, lr, t.steps, optimizer, sweeps=effort.sweeps, **run,
    )  # fmt: skip
    mixed = losses[:, : len(targets)] @ torch.tensor(
        [weights[name] for name in targets], dtype=losses.dtype
    )
    before = parse_constraints(t.constraints, t.names)
    allowed = [
        i for i, order in enumerate(orders) if obeys([t.names.index(n) for n in order], before)
    ]
    best = min(allowed, key=lambda i: float(mixed[i]))
    changes = (losses[best] - losses[(best + 2) % 4]).tolist()
    return Recommendation(
        orders[best],
        effort,
        planned.rounds,
        dict(zip(targets, changes, strict=False)),
        dict(zip(sources, changes[len(targets) :], strict=False)),
    )


def neighbors(
    t: Tournament, chosen: Recommendation, resamples: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """For each adjacent pair of the order: its effect, and how often the sign survives.

    Args:
        t: the tournament; with chunks, for the bootstrap.
        chosen: the recommendation. From the end, the effect of a pair is the score of its second
            source as the last one less that of its first, where a round compared the two, and
            nothing is resampled.
        resamples, seed: of the bootstrap.
    """
    survival = None
    if t.resampler is not None and chosen.effort.planner == "tournament":
        survival = t.resampler.survival(t.matrix / (t.steps * t.lr) ** 2, resamples, seed)
    rows = []
    for first, second in itertools.pairwise(chosen.order):
        i, j = t.names.index(first), t.names.index(second)
        effect = float(t.matrix[i, j])
        if chosen.rounds:
            # The round that placed the second source; with one_shot there is only one.
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
            }
        )
    return rows


def rehearsal_lr(
    lr: float, optimizer: Optimizer, lambda_max: float, sweeps: int, steps: int
) -> float:
    """The step size of a rehearsal: lr, or less where a held gradient would go too far.

    >>> from lietoolkit.training.optimizers import SGD
    >>> rehearsal_lr(0.1, SGD(), lambda_max=2.0, sweeps=1, steps=20)
    0.025
    """
    if optimizer.name == "adamw" or lambda_max <= 0:
        return lr  # adaptive steps do not grow with the gradient
    longest = HELD_STEP * (1 - getattr(optimizer, "beta", 0.0)) / lambda_max
    return min(lr, longest * sweeps / steps)


def against_reverse(matrix: Tensor, names: Sequence[str], order: Sequence[str]) -> float:
    """Sum of the pair effects of an order: its predicted loss less that of its reverse."""
    places = [names.index(name) for name in order]
    return float(matrix[places][:, places].triu(1).sum())
