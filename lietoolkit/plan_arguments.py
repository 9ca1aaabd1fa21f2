"""What ``plan_order`` is given, checked before any model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import HVP_METHODS
from lietoolkit.order.effort import PLANNERS
from lietoolkit.order.tournament import METHODS
from lietoolkit.training.schedules import check_run

OBJECTIVES = ("lm", "sft", "dpo")
# What a trainer knows, and what stands there when it was not given.
_DEFAULTS = {
    "model": None, "objective": "sft", "lr": None, "steps": 20, "optimizer": "adamw",
    "tokenizer": None, "schedule": "constant", "warmup": 0, "batch_size": 8, "max_length": None,
    "microbatch": None, "reference": None, "device": "auto", "dtype": "auto", "objective_of": None,
    "steps_of": None, "shard": False,
}  # fmt: skip


def leave_to_the_trainer(**given: Any) -> None:
    """Refuse beside a trainer what the trainer says itself."""
    for name, value in given.items():
        if value is not _DEFAULTS[name] and value != _DEFAULTS[name]:
            raise InputError(
                f"{name}: expected to come from the trainer, found {type(value).__name__} beside "
                "it; set it in the trainer or its arguments"
            )


def two_or_more(sources: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The sources, if there are two to order."""
    if not isinstance(sources, Mapping) or len(sources) < 2:
        found = len(sources) if isinstance(sources, Sized) else type(sources).__name__
        raise InputError(
            f"sources: expected at least two, as {{name: data}} (--source NAME=FILE twice), found "
            f"{found}; add another, an order needs two"
        )
    return sources


def check_settings(
    objective: str,
    lr: float | None,
    steps: int,
    planner: str,
    method: str,
    hvp: str,
    schedule: str,
    warmup: int,
) -> None:
    """Refuse what no model needs to be loaded for."""
    for argument, value, allowed in (
        ("objective", objective, OBJECTIVES),
        ("planner", planner, PLANNERS),
        ("method", method, METHODS),
        ("hvp", hvp, HVP_METHODS),
    ):
        if value not in allowed:
            raise InputError(f"{argument}: expected one of {', '.join(allowed)}; found {value!r}")
    check_run(1.0 if lr is None else lr, steps, schedule, warmup)


def losses_of(
    data: Mapping[str, Any], objective: str, objective_of: Mapping[str, str] | None
) -> dict[str, str]:
    """The loss of each source and target."""
    found = dict.fromkeys(data, objective)
    for name, own in (objective_of or {}).items():
        if name not in found:
            raise InputError(
                f"objective_of: {name!r} is no source or target; there are {', '.join(found)}"
            )
        if own not in OBJECTIVES:
            raise InputError(
                f"objective_of[{name!r}]: expected one of {', '.join(OBJECTIVES)}; found {own!r}"
            )
        found[name] = own
    return found


def weights_of(weights: Mapping[str, float] | None, targets: Mapping[str, Any]) -> dict[str, float]:
    """The weight of each target, 1 where none is given."""
    unknown = set(weights or {}) - set(targets)
    if unknown or not targets:
        raise InputError(
            f"weights: {sorted(unknown)[0]!r} is not a target; targets: {', '.join(targets)}"
            if unknown
            else "target: expected at least one, found none"
        )
    found = {name: float((weights or {}).get(name, 1.0)) for name in targets}
    for name, weight in found.items():
        if not math.isfinite(weight):
            raise InputError(f"weight of target {name!r}: expected a finite number, found {weight}")
    return found
