"""Toy losses in float64: bowls in the plane and small networks, as ``Objective``s."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective


def bowl(
    center: tuple[float, float] = (0.0, 0.0),
    stiffness: float = 4.0,
    angle: float = 0.0,
    name: str = "bowl",
) -> Objective:
    r"""A quadratic bowl in the plane: curvature ``stiffness`` along one axis and 1 along the other.

    .. math:: L(x) = \tfrac12 (x - c)^\top H (x - c),\quad
        H = R(\phi)\,\mathrm{diag}(\text{stiffness}, 1)\,R(\phi)^\top

    Args:
        center: where the minimum is.
        stiffness: the curvature of the stiff axis.
        angle: of the stiff axis to the x axis, in degrees.
        name: what errors and figures call it.

    >>> bowl((1.0, 0.0)).gradient(torch.zeros(2, dtype=torch.float64)).tolist()
    [-4.0, 0.0]
    """
    c = torch.tensor(center, dtype=torch.float64)
    h = bowl_hessian(stiffness, angle)
    return Objective(lambda x: 0.5 * (x - c) @ h @ (x - c), name)


def bowl_hessian(stiffness: float, angle: float) -> Tensor:
    """The Hessian of `bowl`, [2, 2]."""
    phi = math.radians(angle)
    axis = torch.tensor([math.cos(phi), math.sin(phi)], dtype=torch.float64)
    return torch.eye(2, dtype=torch.float64) + (stiffness - 1) * torch.outer(axis, axis)


def networks(count: int, seed: int = 0, width: int = 24, samples: int = 48) -> list[Objective]:
    """Regression losses of one small network on ``count`` data sets: smooth and not quadratic.

    The network has 3 inputs, ``width`` tanh units and one output: P = 5·width + 1 parameters,
    shared by all losses. They compute in theta's dtype. Each data set is drawn around another place
    and asks for another function. Start at `network_start`.

    Args:
        count: how many losses.
        seed: of the data.
        width: hidden units.
        samples: rows of each data set.
    """
    if count < 1:
        raise InputError(f"networks: expected at least one, found {count}")
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return [
        _network(draw(samples, 3) + 0.7 * draw(3), draw(3), 0.2 * draw(samples), width, f"s{i + 1}")
        for i in range(count)
    ]


def _network(x: Tensor, direction: Tensor, noise: Tensor, width: int, name: str) -> Objective:
    y = torch.sin(x @ direction) + noise

    def loss(theta: Tensor) -> Tensor:
        w, b, a, shift = theta.split([3 * width, width, width, 1])
        out = torch.tanh(x.to(theta.dtype) @ w.view(3, width) + b) @ a + shift
        return 0.5 * (out - y.to(theta.dtype)).square().mean()

    return Objective(loss, name)


def network_start(seed: int = 0, width: int = 24) -> Tensor:
    """Random parameters for `networks`, [5·width + 1] float64."""
    random = torch.Generator().manual_seed(1000 + seed)
    theta = torch.randn(5 * width + 1, generator=random, dtype=torch.float64)
    theta[3 * width : 4 * width] *= 0.5
    theta[4 * width :] /= math.sqrt(width)
    return theta
