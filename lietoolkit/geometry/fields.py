"""Toy vector fields, their flows and brackets: small enough to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Field:
    r"""A vector field :math:`\dot x = f(x)` on points of shape [..., n].

    Attributes:
        name: what figures call it.
        fn: points [..., n] -> velocities [..., n].
        solution: (points, time) -> points, where the flow has a closed form; else None.
        dim: n, or None for any.

    >>> f = rotation()
    >>> f(torch.tensor([2.0, 1.0])).tolist()
    [-1.0, 2.0]
    """

    name: str
    fn: Map
    solution: Callable[[Tensor, float], Tensor] | None = None
    dim: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The velocity at x."""
        if self.dim is not None and (not x.ndim or x.shape[-1] != self.dim):
            raise InputError(
                f"field {self.name!r}: expected points of shape [..., {self.dim}], "
                f"got {list(x.shape)}"
            )
        return self.fn(x)

    def __neg__(self) -> Field:
        """The field with its arrows turned round: its flow runs backwards."""
        solution = self.solution
        back = None if solution is None else lambda x, t: solution(x, -t)
        return Field(f"minus {self.name}", lambda x: -self.fn(x), back, self.dim)


def linear(matrix: Tensor, name: str = "linear") -> Field:
    r""":math:`f(x) = Mx`, flow :math:`e^{tM} x`; matrix [n, n]."""

    def at(m: Tensor, x: Tensor) -> Tensor:
        return x @ m.to(x.dtype).T

    return Field(
        name,
        lambda x: at(matrix, x),
        lambda x, t: at(torch.linalg.matrix_exp(t * matrix), x),
        matrix.shape[0],
    )


def _plane(rows: list[list[float]], name: str) -> Field:
    return linear(torch.tensor(rows, dtype=torch.float64), name)


def rotation(rate: float = 1.0) -> Field:
    """Turn about the origin, counterclockwise, ``rate`` radians per unit of time."""
    return _plane([[0.0, -rate], [rate, 0.0]], "rotation")


def shear(rate: float = 1.0) -> Field:
    """Slide along x, faster the higher up: velocity (rate·y, 0)."""
    return _plane([[0.0, rate], [0.0, 0.0]], "shear")


def saddle(rate: float = 1.0) -> Field:
    """Stretch along x and shrink along y: velocity (rate·x, −rate·y)."""
    return _plane([[rate, 0.0], [0.0, -rate]], "saddle")


def spread(rate: float = 1.0) -> Field:
    """Away from the origin in every direction: velocity rate·(x, y)."""
    return _plane([[rate, 0.0], [0.0, rate]], "spread")


def constant(velocity: tuple[float, ...] = (1.0, 0.0), name: str = "wind") -> Field:
    """The same velocity everywhere."""
    v = torch.tensor(velocity, dtype=torch.float64)
    return Field(
        name,
        lambda x: v.to(x.dtype).expand_as(x),
        lambda x, t: x + t * v.to(x.dtype),
        len(velocity),
    )


def swirl(rate: float = 1.0) -> Field:
    """Turn about the origin, slower farther out; not linear, so its flow is computed by RK4."""

    def fn(x: Tensor) -> Tensor:
        slow = rate * torch.exp(-x.square().sum(-1, keepdim=True) / 2)
        return slow * torch.stack([-x[..., 1], x[..., 0]], -1)

    return Field("swirl", fn, None, 2)


def drive() -> Field:
    """A car driving straight: at (x, y, heading) the velocity is (cos heading, sin heading, 0)."""

    def fn(x: Tensor) -> Tensor:
        angle = x[..., 2]
        return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)

    return Field("drive", fn, lambda x, t: x + t * fn(x), 3)


def steer() -> Field:
    """A car turning on the spot: points are (x, y, heading), velocity (0, 0, 1)."""
    return constant((0.0, 0.0, 1.0), "steer")


def gradient_field(objective: Objective) -> Field:
    r"""What gradient descent follows: :math:`f = -\nabla L`, for one point of shape [n]."""

    def fn(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not x.requires_grad:
            return -objective.gradient(x)
        return -torch.autograd.grad(objective.fn(x), x, create_graph=True)[0]

    return Field(f"descent on {objective.name}", fn)


GALLERY: dict[str, Callable[[], Field]] = {
    "rotation": rotation,
    "shear": shear,
    "saddle": saddle,
    "spread": spread,
    "wind": constant,
    "swirl": swirl,
}


def flow(
    field: Field, x: Tensor, t: float | Tensor, steps: int = 32, method: str = "auto"
) -> Tensor:
    r"""Where the point x is after following the field for time t; t may be negative.

    Args:
        field: what to follow.
        x: points, [..., n].
        t: time; for "rk4" also a tensor that broadcasts against x.
        steps: of the classical Runge-Kutta method (error :math:`O((t/steps)^4)`).
        method: "exact" (closed form), "rk4", or "auto": exact where the field has a closed form.

    Returns:
        Points, [..., n].

    Raises:
        InputError: unknown method, steps < 1, or no closed form to be exact with.

    >>> quarter = flow(rotation(), torch.tensor([1.0, 0.0]).double(), torch.pi / 2)
    >>> [round(abs(v), 6) for v in quarter.tolist()]
    [0.0, 1.0]
    """
    if method not in ("auto", "exact", "rk4"):
        raise InputError(f"method: expected auto, exact or rk4; found {method!r}")
    if steps < 1:
        raise InputError(f"steps: expected at least 1, found {steps}")
    if method == "exact" and field.solution is None:
        raise InputError(f"method 'exact': {field.name!r} has no closed form; use 'rk4'")
    if field.solution is not None and method != "rk4":
        return field.solution(x, float(t))
    h = t / steps
    for _ in range(steps):
        k1 = field(x)
        k2 = field(x + h / 2 * k1)
        k3 = field(x + h / 2 * k2)
        k4 = field(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def path(field: Field, x: Tensor, t: float, points: int = 33) -> Tensor:
    """The way from x along the field for time t, [points, n]; the first point is x."""
    at, way = x, [x]
    for _ in range(points - 1):
        at = flow(field, at, t / (points - 1), steps=2)
        way.append(at)
    return torch.stack(way)


def jacobian(field: Field, x: Tensor) -> Tensor:
    """The matrix of derivatives Df at one point x [n], [n, n], by automatic differentiation."""
    return torch.autograd.functional.jacobian(field, x)


def field_bracket(f: Field, g: Field, x: Tensor) -> Tensor:
    r"""Lie bracket of two vector fields at one point.

    .. math:: [f, g](x) = Dg(x)\,f(x) - Df(x)\,g(x)

    Following f for a short time t and then g ends :math:`t^2 [f, g] + O(t^3)` away from where g and
    then f ends. Of two gradient fields it is ``lt.lie_bracket``.

    Args:
        f: followed first.
        g: followed second.
        x: one point, [n], float64.

    Returns:
        [n].

    Source: Sweeney 2026, definition of the bracket.

    >>> field_bracket(shear(), saddle(), torch.tensor([1.0, 1.0]).double()).tolist()
    [2.0, 0.0]
    """
    if x.ndim != 1:
        raise InputError(f"x: expected one point of shape [n], got {list(x.shape)}")
    return jacobian(g, x) @ f(x) - jacobian(f, x) @ g(x)


def gap(
    f: Field,
    g: Field,
    x: Tensor,
    t: float | Tensor,
    steps: int = 32,
    method: str = "auto",
) -> Tensor:
    r"""End of "f, then g" minus end of "g, then f", each for time t: :math:`t^2[f,g] + O(t^3)`.

    >>> round(float(gap(constant((1.0, 0.0)), constant((0.0, 1.0)), torch.zeros(2), 0.3).norm()), 9)
    0.0
    """
    f_first = flow(g, flow(f, x, t, steps, method), t, steps, method)
    g_first = flow(f, flow(g, x, t, steps, method), t, steps, method)
    return f_first - g_first


def loop(f: Field, g: Field, x: Tensor, t: float, steps: int = 32) -> Tensor:
    r"""Follow f, g, then f and g backwards, each for time t: :math:`x + t^2[f,g] + O(t^3)`.

    With drive and steer this is parallel parking.
    """
    for field in (f, g, -f, -g):
        x = flow(field, x, t, steps)
    return x
