"""A stage: some steps of one optimizer on one source."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import NotFinite, Objective
from lietoolkit.training.optimizers import Optimizer, TrainingState, advance


def run_stage(
    source: Objective,
    state: TrainingState,
    optimizer: Optimizer,
    sizes: Sequence[float],
    gradients: int | None = None,
) -> TrainingState:
    """Train on one source for ``len(sizes)`` steps; step s reads ``batches[s % len(batches)]``.

    Args:
        source: what to minimise.
        state: where to start; not changed.
        optimizer: the update.
        sizes: the step size of each step.
        gradients: how many to take, default one a step; with fewer, each is held for its share of
            the updates (a rehearsal).

    Raises:
        InputError: the loss or gradient stops being finite; says at which step.
    """
    held = shares(len(sizes), gradients or len(sizes))
    # A copy of its own, to write over: for a large model new vectors at every step are slow.
    state = TrainingState(state.theta.clone(), tuple(b.clone() for b in state.buffers), state.step)
    for s, share in enumerate(held):
        try:
            g = source.gradient(state.theta, batch=s % source.batches)
        except NotFinite as error:
            raise InputError(
                f"training on {source.name!r} diverged at step {share[0] + 1} of {len(sizes)} "
                f"(step size {sizes[share[0]]:.3g}): {error}. Lower lr."
            ) from error
        state = advance(optimizer, state, g, [sizes[step] for step in share])
    return state


def shares(steps: int, gradients: int) -> list[range]:
    """The steps of a stage, shared out among its gradients as evenly as can be.

    >>> shares(5, 2)
    [range(0, 2), range(2, 5)]
    """
    ends = [s * steps // gradients for s in range(gradients + 1)]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def interleaved(sources: int, steps: int, sweeps: int) -> Iterator[tuple[int, int, list[int]]]:
    """A run of several sources at once, one step each in turn; every other sweep in reverse.

    Yields the source, the sweep, and the places of the run that the updates stand at: with fewer
    sweeps than steps, a gradient is held for its share of all rounds.

    >>> list(interleaved(2, steps=2, sweeps=2))
    [(0, 0, [0]), (1, 0, [1]), (1, 1, [2]), (0, 1, [3])]
    """
    for sweep, share in enumerate(shares(steps, sweeps)):
        turns = range(sources) if sweep % 2 == 0 else reversed(range(sources))
        for turn in turns:
            back = sources - 1 - turn
            yield turn, sweep, [s * sources + (turn if s % 2 == 0 else back) for s in share]
