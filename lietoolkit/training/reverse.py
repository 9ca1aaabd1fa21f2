"""A stage in reverse: cotangents of its end become cotangents of its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.training.optimizers import Optimizer, TrainingState


@dataclass(frozen=True)
class Trajectory:
    """A stage as it was run: the state before each step, its gradient, and the end."""

    states: list[TrainingState]
    gradients: list[Tensor]
    end: TrainingState


def run_trajectory(
    source: Objective, state: TrainingState, optimizer: Optimizer, sizes: Sequence[float]
) -> Trajectory:
    """Run a stage as ``run_stage`` does, and keep every step; memory grows with the steps."""
    states, gradients = [], []
    for s, lr in enumerate(sizes):
        g = source.gradient(state.theta, batch=s % source.batches)
        states.append(state)
        gradients.append(g)
        state = optimizer.step(state, g, lr)
    return Trajectory(states, gradients, state)


def pull_back(
    source: Objective,
    trajectory: Trajectory,
    optimizer: Optimizer,
    sizes: Sequence[float],
    cotangent: Tensor,
    hvp: str = "auto",
) -> TrainingState:
    r"""Transposed derivative of a stage, :math:`w = D\Phi(z)^T (\lambda, 0)`.

    Each step costs one Hessian-vector product, whatever the optimizer: the cotangents are pulled
    through the elementwise update, which leaves a cotangent c of the gradient, and
    :math:`\lambda \leftarrow \lambda + Hc`.

    Args:
        source: what the stage trained on.
        trajectory: of ``run_trajectory``.
        optimizer: the update.
        sizes: the step size of each step.
        cotangent: of the parameters at the stage's end, [P].
        hvp: how products are made.

    Returns:
        Cotangents of the parameters and of each optimizer buffer at the stage's start.

    Source: PAPER section 5.2.

    >>> from lietoolkit.training.optimizers import SGD
    >>> bowl = Objective(lambda x: 2.0 * x.square().sum())
    >>> start = SGD().init(torch.ones(1, dtype=torch.float64))
    >>> run = run_trajectory(bowl, start, SGD(), [0.1, 0.1])
    >>> pull_back(bowl, run, SGD(), [0.1, 0.1], torch.ones(1, dtype=torch.float64)).theta
    tensor([0.3600], dtype=torch.float64)
    """
    buffers = tuple(torch.zeros_like(b) for b in trajectory.end.buffers)
    outer = (cotangent, *buffers)
    for s in reversed(range(len(sizes))):
        state, g = trajectory.states[s], trajectory.gradients[s]
        *inner, c = _through_update(optimizer, state, g, sizes[s], outer)
        hc = source.gradient_and_hvp(state.theta, c, hvp, s % source.batches, check=False)[1]
        outer = (inner[0] + hc, *inner[1:])
    return TrainingState(outer[0], tuple(outer[1:]), trajectory.states[0].step)


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
