"""Small objectives with closed forms, shared by the tests."""

from __future__ import annotations

import torch
from torch import Tensor

import lietoolkit as lt


def quadratic(size: int, seed: int) -> tuple[lt.Objective, Tensor, Tensor]:
    """A random quadratic 1/2 x'Hx + c'x in float64, with its H and c."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    h = root @ root.T / size
    c = torch.randn(size, generator=generator, dtype=torch.float64)
    return lt.Objective(lambda x: 0.5 * x @ h @ x + c @ x, f"quadratic {seed}"), h, c


def network(seed: int, samples: int = 12, width: int = 4) -> lt.Objective:
    """A smooth non-quadratic loss of 3 * width + 1 parameters in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(samples, generator=generator, dtype=torch.float64)

    def loss(theta: Tensor) -> Tensor:
        w = theta[: 2 * width].view(2, width)
        out = torch.tanh(x @ w) @ theta[2 * width : 3 * width] + theta[3 * width]
        return 0.5 * (out - y).square().mean()

    return lt.Objective(loss, f"network {seed}")


def start(size: int, seed: int = 0) -> Tensor:
    """A random float64 vector."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)
