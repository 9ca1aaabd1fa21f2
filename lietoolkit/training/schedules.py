"""Step sizes over a whole run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lietoolkit.errors import InputError

SCHEDULES = ("constant", "linear", "cosine")


def check_run(
    lr: float,
    steps: int,
    schedule: str = "constant",
    warmup: int = 0,
    sweeps: int | None = None,
) -> None:
    """Raise InputError unless these settings describe a run."""
    if not (isinstance(lr, int | float) and math.isfinite(lr) and lr > 0):
        raise InputError(f"lr: expected a positive finite number, found {lr!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps: expected a whole number of at least 1, found {steps!r}")
    if schedule not in SCHEDULES:
        raise InputError(f"schedule: expected one of {', '.join(SCHEDULES)}; found {schedule!r}")
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
        raise InputError(f"warmup: expected a whole number of steps, found {warmup!r}")
    if sweeps is not None and not (type(sweeps) is int and 1 <= sweeps <= steps):
        raise InputError(
            f"sweeps: expected a whole number from 1 to steps = {steps}, found {sweeps!r}"
        )


def steps_by_source(
    names: Iterable[str], steps: int, steps_of: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The steps of each source's stage: ``steps``, but for those that ``steps_of`` names.

    Raises:
        InputError: an unknown source, or a number of steps that is none.

    >>> steps_by_source(["chat", "pairs"], 20, {"pairs": 5})
    {'chat': 20, 'pairs': 5}
    """
    found = dict.fromkeys(names, steps)
    for name, own in (steps_of or {}).items():
        if name not in found:
            raise InputError(
                f"steps_of: unknown source {name!r}; the sources are {', '.join(found)}"
            )
        check_run(1.0, own)
        found[name] = own
    return found


def step_sizes(lr: float, total: int, schedule: str = "constant", warmup: int = 0) -> list[float]:
    """The step size of each of ``total`` steps, as transformers' schedulers give them.

    Args:
        lr: the highest step size.
        total: steps of the whole run, all stages together.
        schedule: "constant", "linear" (down to 0) or "cosine" (half a wave, down to 0).
        warmup: steps of linear increase from 0 at the start.

    >>> step_sizes(1.0, 4, "linear")
    [1.0, 0.75, 0.5, 0.25]
    """
    check_run(lr, max(total, 1), schedule, warmup)
    sizes = []
    for s in range(total):
        if s < warmup:
            factor = s / warmup
        elif schedule == "constant":
            factor = 1.0
        else:
            done = (s - warmup) / max(1, total - warmup)
            factor = 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        sizes.append(lr * factor)
    return sizes
