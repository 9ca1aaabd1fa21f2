"""Stages of plain SGD and the pieces of their commutator, as the exercises of notebook 09 ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.training.optimizers import TrainingState, optimizer_from
from lietoolkit.training.reverse import at_end, pull_back, run_trajectory, stage_steps
from lietoolkit.training.stages import run_stage


def reverse_stage(source: Objective, path: list[Tensor], cotangent: Tensor, lr: float) -> Tensor:
    """The package's reverse sweep over one stage of plain SGD."""
    steps = stage_steps(source, [lr] * len(path))
    rule = optimizer_from("sgd")
    run = run_trajectory(steps, rule.init(path[0]), rule)
    return pull_back(run, at_end(run, cotangent), "exact").theta


def sgd_path(source: Objective, theta: Tensor, lr: float, steps: int) -> list[Tensor]:
    """The parameters before each step."""
    path = [theta]
    for _ in range(steps - 1):
        path.append(path[-1] - lr * source.gradient(path[-1]))
    return path


class Pieces(NamedTuple):
    """What the stage commutator is made of; rows are the N sources.

    Attributes:
        solo: ends of one stage from the start, [N, P]. second: ends of one stage from the mean of
            the others' solo ends, [N, P]. w: the cotangent carried back over these second stages,
            [N, P].
        lam: the target's gradient at the mean of the second ends, [P].
    """

    solo: Tensor
    second: Tensor
    w: Tensor
    lam: Tensor


def pieces(
    sources: Sequence[Objective], target: Objective, theta: Tensor, lr: float, steps: int
) -> Pieces:
    """The pieces of real sources, for plain SGD."""
    solo = torch.stack([sgd_end(x, theta, lr, steps) for x in sources])
    return second_half(sources, target, solo, mean_of_others(solo), lr, steps)


def sgd_end(source: Objective, start: Tensor, lr: float, steps: int) -> Tensor:
    """Where a stage ends, [P]."""
    return run_stage(source, TrainingState(start), optimizer_from("sgd"), [lr] * steps).theta


def mean_of_others(solo: Tensor) -> Tensor:
    """The mean of all other rows, [N, P]."""
    return (solo.sum(0) - solo) / (len(solo) - 1)


def second_half(
    sources: Sequence[Objective],
    target: Objective,
    solo: Tensor,
    starts: Tensor,
    lr: float,
    steps: int,
) -> Pieces:
    """The second stages from these starts, [N, P], and what is carried back over them."""
    both = list(zip(sources, starts, strict=True))
    second = torch.stack([sgd_end(x, start, lr, steps) for x, start in both])
    lam = target.gradient(second.mean(0))
    w = [reverse_stage(x, sgd_path(x, start, lr, steps), lam, lr) for x, start in both]
    return Pieces(solo, second, torch.stack(w), lam)


def commutator(solo: Tensor, second: Tensor, w: Tensor, lam: Tensor) -> Tensor:
    """The stage commutator of all pairs, [N, N]."""
    m = second @ lam + solo @ w.T - (mean_of_others(solo) * w).sum(1)
    return m - m.T
