"""Toy losses in float64: bowls in the plane and small networks, as ``Objective``s."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective

Rows = tuple[Tensor, Tensor]


def bowl(
    center: tuple[float, float] = (0.0, 0.0),
    stiffness: float = 4.0,
    angle: float = 0.0,
    name: str = "bowl",
) -> Objective:
    r"""A quadratic bowl in the plane: curvature ``stiffness`` along one axis and 1 along the other.

    .. math:: L(x) = \frac{1}{2} (x - c)^\top H (x - c),\quad
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
    return [
        _network(rows, width, name) for name, (rows, _) in _data_sets(count, seed, samples).items()
    ]


def regressions(count: int, seed: int = 0, width: int = 24, samples: int = 48) -> list[Regression]:
    """The losses of `networks` with derivatives in closed form: several times faster on a CPU.

    Args as in `networks`; float64 only.

    >>> theta = network_start()
    >>> fast, slow = regressions(1)[0], networks(1)[0]
    >>> bool(torch.allclose(fast.hvp(theta, theta), slow.hvp(theta, theta)))
    True
    """
    return [
        Regression(rows, width, name, more)
        for name, (rows, more) in _data_sets(count, seed, samples).items()
    ]


class Regression(Objective):
    r"""Mean squared error of a small tanh network, for long runs of very many steps.

    .. math:: L(W, b, a, s) = \frac{1}{2n} \sum_r (a^\top \tanh(W^\top x_r + b) + s - y_r)^2

    Args:
        rows: inputs [n, 3] and answers [n].
        width: hidden units.
        name: what errors and figures call it.
        more: draws n other rows of the same kind with a generator.
    """

    def __init__(self, rows: Rows, width: int, name: str, more: Callable[..., Rows]):
        self.x, self.y = rows
        self.width, self.more = width, more
        super().__init__(lambda theta: _squares(theta, self.x, self.y, width), name)

    def again(self, seed: int) -> Regression:
        """The same source with other rows, as many: what another sample of it would have been."""
        random = torch.Generator().manual_seed(seed)
        return Regression(self.more(random), self.width, self.name, self.more)

    def chunks(self, n: int) -> list[tuple[float, Objective]]:
        """At most n parts of the rows, with their shares."""
        parts = zip(self.x.chunk(n), self.y.chunk(n), strict=True)
        return [
            (len(y) / len(self.y), Regression((x, y), self.width, self.name, self.more))
            for x, y in parts
        ]

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n = self.width
        w, b, a, shift = theta.split([3 * n, n, n, 1])
        return w.view(3, n), b, a, shift

    def _loss_and_gradient(self, theta: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        w, b, a, shift = self._split(theta.detach())
        h = torch.tanh(torch.addmm(b, self.x, w))
        off = torch.addmv(shift, h, a) - self.y
        r = off / len(off)
        d = torch.outer(r, a) * (1 - h * h)
        g = torch.cat([(self.x.T @ d).flatten(), d.sum(0), r @ h, r.sum(0, True)])
        return 0.5 * (r @ off), g

    def _exact(self, theta: Tensor, v: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        """Each line of the gradient, followed by its derivative along v (dotted: ``_``)."""
        w, b, a, shift = self._split(theta.detach())
        w_, b_, a_, shift_ = self._split(v)
        h = torch.tanh(torch.addmm(b, self.x, w))
        u = 1 - h * h
        h_ = u * torch.addmm(b_, self.x, w_)
        n = len(self.y)
        r = (torch.addmv(shift, h, a) - self.y) / n
        r_ = (torch.addmv(shift_, h, a_) + h_ @ a) / n
        ra = torch.outer(r, a)
        d = ra * u
        d_ = (torch.outer(r_, a) + torch.outer(r, a_)) * u - 2 * ra * h * h_
        g = torch.cat([(self.x.T @ d).flatten(), d.sum(0), r @ h, r.sum(0, True)])
        hv = torch.cat([(self.x.T @ d_).flatten(), d_.sum(0), r_ @ h + r @ h_, r_.sum(0, True)])
        return g, hv


def _data_sets(
    count: int, seed: int, samples: int
) -> dict[str, tuple[Rows, Callable[[torch.Generator], Rows]]]:
    """Rows of each data set, each around another place, and a function that draws more of it."""
    if count < 1:
        raise InputError(f"networks: expected at least one, found {count}")
    random = torch.Generator().manual_seed(seed)

    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found: dict[str, tuple[Rows, Callable[[torch.Generator], Rows]]] = {}
    for i in range(count):
        x, place = normal(random, samples, 3), 0.7 * normal(random, 3)
        direction = normal(random, 3)
        rows = _answered(x + place, direction, normal(random, samples))

        def more(generator: torch.Generator, place: Tensor = place, along: Tensor = direction,
                 ) -> Rows:  # fmt: skip
            x = normal(generator, samples, 3) + place
            return _answered(x, along, normal(generator, samples))

        found[f"s{i + 1}"] = rows, more
    return found


def _answered(x: Tensor, direction: Tensor, noise: Tensor) -> Rows:
    return x, torch.sin(x @ direction) + 0.2 * noise


def _network(rows: Rows, width: int, name: str) -> Objective:
    return Objective(lambda theta: _squares(theta, *rows, width), name)


def _squares(theta: Tensor, x: Tensor, y: Tensor, width: int) -> Tensor:
    w, b, a, shift = theta.split([3 * width, width, width, 1])
    out = torch.tanh(x.to(theta.dtype) @ w.view(3, width) + b) @ a + shift
    return 0.5 * (out - y.to(theta.dtype)).square().mean()


def network_start(seed: int = 0, width: int = 24) -> Tensor:
    """Random parameters for `networks`, [5·width + 1] float64."""
    random = torch.Generator().manual_seed(1000 + seed)
    theta = torch.randn(5 * width + 1, generator=random, dtype=torch.float64)
    theta[3 * width : 4 * width] *= 0.5
    theta[4 * width :] /= math.sqrt(width)
    return theta
