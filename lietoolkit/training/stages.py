"""A stage: some steps of one optimizer on one source."""

from __future__ import annotations

from collections.abc import Sequence

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import NotFinite, Objective
from lietoolkit.training.optimizers import Optimizer, TrainingState


def run_stage(
    source: Objective, state: TrainingState, optimizer: Optimizer, sizes: Sequence[float]
) -> TrainingState:
    """Train on one source for ``len(sizes)`` steps; step s reads ``batches[s % len(batches)]``.

    Args:
        source: what to minimise.
        state: where to start; not changed.
        optimizer: the update.
        sizes: the step size of each step.

    Raises:
        InputError: the loss or gradient stops being finite; says at which step.
    """
    for s, lr in enumerate(sizes):
        try:
            g = source.gradient(state.theta, batch=s % source.batches)
        except NotFinite as error:
            raise InputError(
                f"training on {source.name!r} diverged at step {s + 1} of {len(sizes)} "
                f"(step size {lr:.3g}): {error}. Lower lr."
            ) from error
        state = optimizer.step(state, g, lr)
    return state
