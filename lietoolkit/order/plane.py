"""The plane of two gradients: the target's loss on it, and both paths across it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import NotFinite, Objective


@dataclass(frozen=True)
class Plane:
    """Two-step paths seen in the plane of g_a and g_b; coordinates in parameter distance.

    Attributes:
        pair: the two names.
        grid_x, grid_y: coordinates of the grid, along g_a, and along the rest of g_b.
        loss: the target's loss, rows by grid_y.
        path_ab, path_ba: start, after one step, after two; projected on the plane.
        bracket_norm: length of the gap between both ends, per squared step size.
        units: of the axes, in words.
    """

    pair: list[str]
    grid_x: list[float]
    grid_y: list[float]
    loss: list[list[float]]
    path_ab: list[list[float]]
    path_ba: list[list[float]]
    bracket_norm: float
    units: str = "distance moved in parameter space"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


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
    after_a, after_b = theta - lr * g_a, theta - lr * g_b
    end_ab, end_ba = after_a - lr * b.gradient(after_a), after_b - lr * a.gradient(after_b)

    def place(point: Tensor) -> list[float]:
        return space.gram([point - theta], [x, y])[0].tolist()

    path_ab = [[0.0, 0.0], place(after_a), place(end_ab)]
    path_ba = [[0.0, 0.0], place(after_b), place(end_ba)]
    corners = torch.tensor(path_ab + path_ba, dtype=torch.float64)
    low, high = corners.min(0).values, corners.max(0).values
    margin = 0.25 * (high - low).max()
    grid_x = torch.linspace(float(low[0] - margin), float(high[0] + margin), points).tolist()
    grid_y = torch.linspace(float(low[1] - margin), float(high[1] + margin), points).tolist()
    loss = []
    for v in tqdm(grid_y, desc="loss surface", disable=not progress):
        loss.append([float(target.loss(theta + u * x + v * y)) for u in grid_x])
    gap = float(space.norm(end_ab - end_ba)) / lr**2
    return Plane(list(pair), grid_x, grid_y, loss, path_ab, path_ba, gap)
