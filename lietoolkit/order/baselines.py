"""What people do without brackets: sort by a single number per source, in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.order.constraints import parse_constraints
from lietoolkit.order.linear_ordering import borda_order
from lietoolkit.training.optimizers import Optimizer
from lietoolkit.training.truth import run_schedules


def solo_gain(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int = 1,
    optimizer: str | Optimizer = "sgd",
    **run: Any,
) -> dict[str, float]:
    """How much each source alone lowers the target's loss, in loss units; N stages.

    Args as in ``run_schedules``.
    """
    before = float(target.loss(theta))
    after = run_schedules(
        sources, target, theta, [[name] for name in sources], lr, steps, optimizer, **run
    )
    return {name: before - loss for name, loss in zip(sources, after.tolist(), strict=True)}


def baseline_orders(
    figures: Mapping[str, Mapping[str, float]], constraints: Sequence[str] = ()
) -> dict[str, dict]:
    """Orders by each figure in both directions, constraints obeyed.

    Args:
        figures: name of the figure -> {source: value}.
        constraints: as in ``tournament``.

    Returns:
        "gradient norm, small first" and so on -> {"scores": {source: value}, "order": [names]}.

    >>> baseline_orders({"norm": {"a": 2.0, "b": 1.0}})["norm, small first"]["order"]
    ['b', 'a']
    """
    orders = {}
    for figure, values in figures.items():
        names = list(values)
        before = parse_constraints(constraints, names)
        for sign, direction in ((1, "small first"), (-1, "large first")):
            # Row sums of a diagonal matrix are its entries: the same rule as for the plan.
            diagonal = np.diag([sign * values[name] for name in names])
            order = [names[i] for i in borda_order(diagonal, before)]
            orders[f"{figure}, {direction}"] = {"scores": dict(values), "order": order}
    return orders
