"""The proof of a plan: train it, its reverse, the baselines' orders and random ones for real."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lietoolkit.errors import InputError, memory_errors
from lietoolkit.geometry.objective import WeightedSum
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.order.baselines import baseline_orders, solo_gain
from lietoolkit.order.constraints import obeys, parse_constraints
from lietoolkit.order.linear_ordering import order_value
from lietoolkit.order_plan import Material, OrderPlan
from lietoolkit.tasks.batches import whole_number
from lietoolkit.tasks.objective import ModelObjective
from lietoolkit.training.truth import run_schedules

LONG = 20


def verify_plan(
    plan: OrderPlan,
    orders: int,
    *,
    steps: Sequence[int] | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> OrderPlan:
    """Train orders for real and say where the plan stands among them.

    Args:
        plan: as ``plan_order`` returned it (not read from a file).
        orders: how many: the plan, its reverse, the baselines' orders in both directions, and
            the rest drawn at random; all orders when there are no more.
        steps: steps per source; default the planned number and 20. Runs of 20 steps and more are
            trained in float32, also those of a float64 model.
        folder: where finished orders are kept, to resume after an interruption.
        progress: show progress bars.

    Returns:
        The plan with ``verification`` and the solo-gain baseline filled in.

    Raises:
        InputError: fewer than 2 orders, or a plan without its material.
    """
    material = plan.material
    if material is None:
        raise InputError("plan: expected one made by plan_order in this process, found a saved one")
    if orders == 0:
        raise InputError("verify: expected at least 2 orders, found 0")
    check_orders(orders, steps)
    chosen = sorted({plan.steps, LONG} if steps is None else set(steps))
    with memory_errors():
        return _verified(plan, material, orders, chosen, folder, progress)


def _verified(
    plan: OrderPlan,
    material: Material,
    orders: int,
    steps: list[int],
    folder: str | Path | None,
    progress: bool,
) -> OrderPlan:
    target = WeightedSum(
        material.targets, {name: plan.targets[name]["weight"] for name in material.targets}
    )
    gains = solo_gain(
        material.sources, target, material.theta, plan.lr, plan.steps,
        material.optimizer, schedule=plan.schedule, warmup=plan.warmup, folder=folder,
        steps_of=plan.steps_of,
    )  # fmt: skip
    plan = replace(
        plan, baselines=plan.baselines | baseline_orders({"solo gain": gains}, plan.constraints)
    )
    chosen = choose_orders(plan, orders)
    runs = {}
    for k in steps:
        used = in_float32(material) if k >= LONG else material
        runs[str(k)] = _run(plan, used, chosen, k, folder, progress)
    return replace(plan, verification={"steps": runs})


def in_float32(material: Material) -> Material:
    """The same in float32 where it is a float64 model: effects of many steps need no more.

    They grow with the square of the steps, and it takes less time. The rounding that remains is
    kept with the results, as ``floor``.
    """
    made = [*material.sources.values(), *material.targets.values()]
    models = [objective for objective in made if isinstance(objective, ModelObjective)]
    if material.theta.dtype != torch.float64 or len(models) < len(made):
        return material
    wide = models[0].space
    if wide.shards is not None:  # whose numbers lie in FSDP2's memory, in its type
        return material
    space = ParameterSpace(wide.model, wide.names, torch.float32)

    def moved(objectives: dict[str, Any]) -> dict[str, Any]:
        return {name: objective.in_space(space) for name, objective in objectives.items()}

    return replace(
        material,
        sources=moved(material.sources),
        targets=moved(material.targets),
        theta=material.theta.float(),
    )


def check_orders(orders: int, steps: Sequence[int] | None = None) -> None:
    """Raise InputError unless so many orders can be compared (0: none are) after such steps."""
    if orders < 0 or orders == 1:
        raise InputError(f"verify: expected at least 2 orders (or 0: none), found {orders}")
    for k in steps or ():
        whole_number("verify_steps", k, 1)


def choose_orders(plan: OrderPlan, count: int) -> dict[tuple[str, ...], str]:
    """Orders to train, each with what it is called; constraints hold for the random ones too."""
    before = parse_constraints(plan.constraints, plan.names)
    chosen: dict[tuple[str, ...], str] = {}

    def add(order: Sequence[str], label: str) -> None:
        key = tuple(order)
        if key in chosen:
            if label != "random":
                chosen[key] += f"; {label}"
        elif len(chosen) < count:
            chosen[key] = label

    add(plan.order, "plan")
    add(plan.order[::-1], "reverse")
    for name, baseline in plan.baselines.items():
        add(baseline["order"], name)
    if count >= math.factorial(len(plan.names)):
        for order in itertools.permutations(plan.names):
            if obeys([plan.names.index(n) for n in order], before):
                add(order, "random")
        return chosen
    draw = random.Random(plan.seed)
    for _ in range(100 * count):
        if len(chosen) >= count:
            break
        drawn = draw.sample(plan.names, len(plan.names))
        if obeys([plan.names.index(n) for n in drawn], before):
            add(drawn, "random")
    return chosen


def _run(
    plan: OrderPlan,
    material: Material,
    chosen: dict[tuple[str, ...], str],
    steps: int,
    folder: str | Path | None,
    progress: bool,
) -> dict[str, Any]:
    losses = run_schedules(
        material.sources, material.targets, material.theta, list(chosen), plan.lr, steps,
        material.optimizer, schedule=plan.schedule, warmup=plan.warmup, folder=folder,
        steps_of={name: max(1, round(own * steps / plan.steps))
                  for name, own in plan.steps_of.items()},
        progress=progress,
    )  # fmt: skip
    weights = np.array([plan.targets[name]["weight"] for name in material.targets])
    measured = losses.numpy() @ weights
    predicted = _predictions(plan, material, list(chosen), steps)
    others = measured[1:]
    worse = float((others > measured[0]).sum() + 0.5 * (others == measured[0]).sum())
    return {
        "orders": [list(order) for order in chosen],
        "labels": list(chosen.values()),
        "measured": measured.tolist(),
        "predicted": (predicted - predicted[0]).tolist(),
        "rank": 1 + int((others < measured[0]).sum()),
        "n": len(chosen),
        "percentile": 100 * worse / len(others),
        "dtype": str(material.theta.dtype).removeprefix("torch."),
        "floor": _floor(material, weights),
        "targets": {name: losses[:, m].tolist() for m, name in enumerate(material.targets)},
    }


def _predictions(
    plan: OrderPlan,
    material: Material,
    orders: Sequence[Sequence[str]],
    steps: int,
) -> np.ndarray:
    """Predicted losses of orders, up to a constant: the way the plan was made, at these steps."""
    index = {name: i for i, name in enumerate(plan.names)}
    places = [[index[name] for name in order] for order in orders]
    if material.searched is not None:
        # What the tries taught, also of orders that were not among them.
        return material.searched.expected(places)
    # Local effects grow with the square of the steps; a stage commutator belongs to its own.
    growth = 1.0 if plan.method == "stage" else (steps / plan.steps) ** 2
    matrix = growth * np.array(plan.matrix)
    return np.array([order_value(matrix, order) for order in places])


def _floor(material: Material, weights: np.ndarray) -> float:
    """Rounding of one loss: the same number computed in one piece and in parts by rows."""
    gaps = []
    for target in material.targets.values():
        parts = sum(w * float(part.loss(material.theta)) for w, part in target.chunks(2))
        gaps.append(abs(parts - float(target.loss(material.theta))))
    return float(np.abs(weights) @ np.array(gaps))
