"""The plane of two gradients: the target's loss on it, and both paths across it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import NotFinite, Objective, in_step

ONSET = 0.1  # share of the way


@dataclass(frozen=True)
class Plane:
    """Two-step paths seen in the plane of g_a and g_b; coordinates in parameter distance.

    Attributes:
        pair: the two names.
        grid_x, grid_y: coordinates of the grid, along g_a, and along the rest of g_b.
        loss: the target's loss, rows by grid_y.
        path_ab, path_ba: start, after one step, after two; projected on the plane.
        bracket_norm: length of the gap between both ends, per squared step size.
        kappa: that over the length of both gradients' sum: by what share of the way the ends lie
            apart, per step size.
        units: of the axes, in words.
    """

    pair: list[str]
    grid_x: list[float]
    grid_y: list[float]
    loss: list[list[float]]
    path_ab: list[list[float]]
    path_ba: list[list[float]]
    bracket_norm: float
    kappa: float = 0.0
    units: str = "distance moved in parameter space"

    @property
    def onset(self) -> float:
        r"""The step size, or lr times steps, at which the order begins to show,
        :math:`\eta^\dagger = 0.1 / \kappa`: the ends lie apart by a tenth of the way.

        Source: Sweeney, arXiv:2607.16821.
        """
        return ONSET / self.kappa if self.kappa > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """As plain data; no onset where the gradients commute."""
        onset = self.onset
        return asdict(self) | {"onset": onset if math.isfinite(onset) else None}


@ranks.together()
@in_step
def gradient_plane(
    pair: tuple[str, str],
    a: Objective,
    b: Objective,
    target: Objective,
    theta: Tensor,
    lr: float,
    points: int = 7,
    progress: bool = False,
) -> Plane:
    r"""Evaluate the target's loss on the plane through theta spanned by both gradients.

    Args:
        pair: the names of a and b.
        a: first source. b: second source.
        target: the loss on the grid.
        theta: start, [P].
        lr: step size of the two plain SGD steps.
        points: grid points per side; points squared losses are evaluated.
        progress: show a progress bar.
    """
    try:
        return _plane(pair, a, b, target, theta, lr, points, progress)
    except NotFinite as error:
        raise InputError(
            f"lr: training {pair[0]!r} and {pair[1]!r} one step each diverged at step 2 "
            f"(step size {lr:.3g}): {error}. Lower lr."
        ) from error


def _plane(
    pair: tuple[str, str],
    a: Objective,
    b: Objective,
    target: Objective,
    theta: Tensor,
    lr: float,
    points: int,
    progress: bool,
) -> Plane:
    space = a.space
    g_a, g_b = a.gradient(theta), b.gradient(theta)
    x = g_a / space.norm(g_a).clamp(min=1e-30).to(g_a.dtype)
    rest = g_b - space.dot(g_b, x).to(x.dtype) * x
    y = rest / space.norm(rest).clamp(min=1e-30).to(rest.dtype)
    del rest
    # Few vectors at a time: both orders' displacements in units of -lr, then only their lengths.
    sum_ab = g_a + b.gradient(theta - lr * g_a)
    sum_ba = g_b + a.gradient(theta - lr * g_b)

    def place(gradients: Tensor) -> list[float]:
        return (-lr * space.gram([gradients], [x, y])[0]).tolist()

    path_ab = [[0.0, 0.0], place(g_a), place(sum_ab)]
    path_ba = [[0.0, 0.0], place(g_b), place(sum_ba)]
    way = float(space.norm(sum_ab))
    gap = float(space.norm(sum_ab.sub_(sum_ba))) / lr
    del g_a, g_b, sum_ab, sum_ba
    corners = torch.tensor(path_ab + path_ba, dtype=torch.float64)
    low, high = corners.min(0).values, corners.max(0).values
    # A square, however unequal the two steps are: a narrow map has no room for its labels.
    middle, reach = (low + high) / 2, 0.75 * float((high - low).max())
    grid_x, grid_y = (
        torch.linspace(center - reach, center + reach, points, dtype=torch.float64).tolist()
        for center in middle.tolist()
    )
    largest = max(map(abs, grid_x + grid_y))
    if not largest <= torch.finfo(theta.dtype).max:
        raise NotFinite(f"the steps are {largest:.3g} long, more than {theta.dtype} can hold")
    bar = tqdm(total=len(ranks.mine(grid_y)), desc="loss surface", disable=not progress)

    def losses(v: float) -> list[float]:
        row = torch.add(theta, y, alpha=v)
        found = [float(target.loss(torch.add(row, x, alpha=u))) for u in grid_x]
        bar.update()
        return found

    with bar:
        loss = ranks.each(grid_y, losses)
    return Plane(list(pair), grid_x, grid_y, loss, path_ab, path_ba, gap, gap / max(way, 1e-30))
