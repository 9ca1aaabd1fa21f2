"""Training in reverse: cotangents of the end of a run become cotangents of its start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import NotFinite, Objective
from lietoolkit.geometry.space import VectorSpace
from lietoolkit.geometry.storage import fits_in_full
from lietoolkit.training.optimizers import Optimizer, TrainingState


class Step(NamedTuple):
    """One gradient and the updates made with it.

    Attributes:
        source: whose gradient. batch: of which batch.
        sizes: the step size of each update; more than one when the gradient is held.
    """

    source: Objective
    batch: int
    sizes: tuple[float, ...]


class Reversed(NamedTuple):
    """One step seen in reverse.

    Attributes:
        number: of the step. before, after: the states around it. gradient: it was made with.
        cotangent: of the state before.
        curvature: Hc, what curvature added to that of the parameters.
    """

    number: int
    before: TrainingState
    after: TrainingState
    gradient: Tensor
    cotangent: TrainingState
    curvature: Tensor


@dataclass(frozen=True)
class Trajectory:
    """A run with some of its states, enough to walk it in reverse.

    Attributes:
        steps: what was done. optimizer: the update.
        states: by step, the state before it; those that were kept.
        gradients: by step; kept only where every state is.
        end: the state after the last step.
    """

    steps: list[Step]
    optimizer: Optimizer
    states: dict[int, TrainingState]
    gradients: dict[int, Tensor]
    end: TrainingState


def stage_steps(source: Objective, sizes: Sequence[float]) -> list[Step]:
    """The steps of one stage, as ``run_stage`` makes them."""
    return [Step(source, s % source.batches, (lr,)) for s, lr in enumerate(sizes)]


def step_gradient(step: Step, state: TrainingState) -> Tensor:
    """The gradient of a step; a divergence names the source."""
    try:
        return step.source.gradient(state.theta, batch=step.batch)
    except NotFinite as error:
        raise InputError(
            f"training on {step.source.name!r} diverged (step size {max(step.sizes):.3g}): "
            f"{error}. Lower lr."
        ) from error


def update(
    optimizer: Optimizer, state: TrainingState, g: Tensor, sizes: Sequence[float]
) -> TrainingState:
    """The state after one update of each size, all with the same gradient."""
    for lr in sizes:
        state = optimizer.step(state, g, lr)
    return state


def run_trajectory(
    steps: Sequence[Step],
    state: TrainingState,
    optimizer: Optimizer,
    every: int | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Trajectory:
    r"""Run the steps and keep what a walk in reverse needs.

    Args:
        steps: of one source or of several in turn.
        state: where to start; not changed.
        optimizer: the update.
        every: keep every so manieth state; 1 keeps all, with their gradients. Default: all where
            they fit, else :math:`\lceil\sqrt{n}\rceil`; between kept states the run is repeated.
        watch: is shown the number and the gradient of each step.
    """
    if every is None:
        each = 2 + len(state.buffers)
        full = fits_in_full(state.theta, each * len(steps))
        every = 1 if full else math.isqrt(max(len(steps) - 1, 0)) + 1
    states: dict[int, TrainingState] = {}
    gradients: dict[int, Tensor] = {}
    for s, step in enumerate(steps):
        g = step_gradient(step, state)
        if s % every == 0:
            states[s] = state
        if every == 1:
            gradients[s] = g
        if watch is not None:
            watch(s, g)
        state = update(optimizer, state, g, step.sizes)
    return Trajectory(list(steps), optimizer, states, gradients, state)


def reverse_steps(
    trajectory: Trajectory, cotangent: TrainingState, hvp: str = "auto"
) -> Iterator[Reversed]:
    r"""Walk a run from its end to its start and carry a cotangent along.

    Each step costs one Hessian-vector product, whatever the optimizer (and one gradient more where
    the state was not kept): the cotangents are pulled through the elementwise update, which leaves
    a cotangent c of the gradient, and :math:`\lambda \leftarrow \lambda + Hc`.

    Args:
        trajectory: of ``run_trajectory``.
        cotangent: of parameters and buffers at the end; see ``at_end``.
        hvp: how products are made.

    Source: reverse-mode differentiation of the unrolled run.
    """
    after, last = trajectory.end, len(trajectory.steps)
    for first in sorted(trajectory.states, reverse=True):
        block = _block(trajectory, first, last)
        for index in reversed(range(first, last)):
            step, (before, g) = trajectory.steps[index], block.pop()
            cotangent, c = pull_update(trajectory.optimizer, before, g, step.sizes, cotangent)
            _, hc = step.source.gradient_and_hvp(before.theta, c, hvp, step.batch, check=False)
            cotangent = TrainingState(cotangent.theta + hc, cotangent.buffers, before.step)
            yield Reversed(index, before, after, g, cotangent, hc)
            after = before
        last = first


def pull_back(trajectory: Trajectory, cotangent: TrainingState, hvp: str = "auto") -> TrainingState:
    r"""Transposed derivative of a run, :math:`w = D\Phi(z)^T \lambda`.

    Args as in ``reverse_steps``.

    Returns:
        Cotangents of the parameters and of each optimizer buffer at the start. Runs chain: it can
        be handed to ``pull_back`` of the run before.

    >>> from lietoolkit.training.optimizers import SGD
    >>> bowl = Objective(lambda x: 2.0 * x.square().sum())
    >>> start = SGD().init(torch.ones(1, dtype=torch.float64))
    >>> run = run_trajectory(stage_steps(bowl, [0.1, 0.1]), start, SGD())
    >>> pull_back(run, at_end(run, torch.ones(1, dtype=torch.float64))).theta
    tensor([0.3600], dtype=torch.float64)
    """
    for step in reverse_steps(trajectory, cotangent, hvp):
        cotangent = step.cotangent
    return cotangent


def pull_update(
    optimizer: Optimizer,
    state: TrainingState,
    g: Tensor,
    sizes: Sequence[float],
    cotangent: TrainingState,
) -> tuple[TrainingState, Tensor]:
    """Pull a cotangent through the updates of one step, as if its gradient were a constant.

    Returns:
        The cotangent of the state before them, and that of the gradient.
    """
    states = [state]
    for lr in sizes[:-1]:
        states.append(optimizer.step(states[-1], g, lr))
    outer = [cotangent.theta, *cotangent.buffers]
    total = torch.zeros_like(g)
    for before, lr in zip(reversed(states), reversed(sizes), strict=True):
        *outer, c = _through_update(optimizer, before, g, lr, outer)
        total += c
    return TrainingState(outer[0], tuple(outer[1:]), state.step), total


def at_end(trajectory: Trajectory, cotangent: Tensor) -> TrainingState:
    """A cotangent of the parameters at a run's end, as one of the whole state."""
    end = trajectory.end
    return TrainingState(cotangent, tuple(torch.zeros_like(b) for b in end.buffers), end.step)


def state_minus(a: TrainingState, b: TrainingState, share: float = 1.0) -> TrainingState:
    """The first less a share of the second, in parameters and buffers."""
    buffers = tuple(torch.sub(x, y, alpha=share) for x, y in zip(a.buffers, b.buffers, strict=True))
    return TrainingState(torch.sub(a.theta, b.theta, alpha=share), buffers, a.step)


def state_dot(space: VectorSpace, a: TrainingState, b: TrainingState) -> Tensor:
    """Inner product over parameters and buffers, a float64 scalar tensor."""
    parts = zip((a.theta, *a.buffers), (b.theta, *b.buffers), strict=True)
    return torch.stack([space.dot(x, y) for x, y in parts]).sum()


def _block(trajectory: Trajectory, first: int, last: int) -> list[tuple[TrainingState, Tensor]]:
    """States and gradients from a kept state to the next one, made again where not kept."""
    state, block = trajectory.states[first], []
    for index in range(first, last):
        step = trajectory.steps[index]
        g = trajectory.gradients.get(index)
        g = step_gradient(step, state) if g is None else g
        block.append((state, g))
        if index + 1 < last:
            state = update(trajectory.optimizer, state, g, step.sizes)
    return block


def _through_update(
    optimizer: Optimizer,
    state: TrainingState,
    g: Tensor,
    lr: float,
    cotangents: Sequence[Tensor],
) -> list[Tensor]:
    """Cotangents of theta, buffers and gradient before one elementwise update."""
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (state.theta, *state.buffers, g)]
        before = TrainingState(leaves[0], tuple(leaves[1:-1]), state.step)
        after = optimizer.step(before, leaves[-1], lr)
        outputs = [after.theta, *after.buffers]
        found = torch.autograd.grad(outputs, leaves, list(cotangents), allow_unused=True)
    # Where a coordinate has never had a gradient, the second moment is 0 and its square root has
    # no derivative; nothing flows there.
    return [
        torch.zeros_like(leaf) if c is None else torch.nan_to_num(c, 0.0, 0.0, 0.0)
        for c, leaf in zip(found, leaves, strict=True)
    ]
