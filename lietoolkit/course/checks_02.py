"""Checks of notebook 02: gradient fields of quadratic bowls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, random_vectors
from lietoolkit.geometry.bracket import lie_bracket
from lietoolkit.geometry.objective import Objective
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.training.stages import run_stage

Bowl = tuple[Tensor, Tensor]


def bowl(h: Tensor, c: Tensor) -> Objective:
    """The loss ½ (x − c)ᵀ H (x − c)."""
    return Objective(lambda x: 0.5 * (x - c) @ h @ (x - c), "bowl")


def random_bowl(seed: int, size: int = 3) -> Bowl:
    """A stiffness matrix [n, n], symmetric and positive, and a center [n]."""
    root, c = random_vectors(seed, (size, size), size)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64), c


def turned_bowl(angle: float, stiff: float = 4.0) -> Tensor:
    """A plane bowl, stiff along one axis that is turned by the angle."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    return turn @ torch.diag(torch.tensor([stiff, 1.0], dtype=torch.float64)) @ turn.T


A: Bowl = (turned_bowl(0.0), torch.tensor([1.0, 0.0], dtype=torch.float64))
B: Bowl = (turned_bowl(0.6), torch.tensor([-1.0, 0.0], dtype=torch.float64))


def _arrows(ax: Any, field: Answer, scale: float) -> None:
    side = torch.linspace(-2, 2, 9, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    arrows = torch.stack([field(p) for p in points])
    ax.quiver(points[:, 0], points[:, 1], arrows[:, 0], arrows[:, 1], scale=scale, width=0.006)
    ax.set(xlabel="x", ylabel="y", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4))


# 2.1


def gradient_field(h: Tensor, c: Tensor, x: Tensor) -> Tensor:
    """What gradient descent follows."""
    return -bowl(h, c).gradient(x)


def _field_panel(ax: Any, field: Answer) -> None:
    _arrows(ax, lambda x: field(*B, x), 60)
    ax.plot(*B[1].tolist(), "o", color="black", label="minimum")
    ax.legend(fontsize=8)


# 2.2


def bracket(h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor, x: Tensor) -> Tensor:
    """The bracket of the two gradient fields."""
    return lie_bracket(bowl(h_a, c_a), bowl(h_b, c_b), x)


# 2.3


def end_difference(
    h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor, x: Tensor, lr: float
) -> Tensor:
    """End of a step on A and one on B, minus the end of the other order; steps really taken."""
    a, b, sgd = bowl(h_a, c_a), bowl(h_b, c_b), optimizer_from("sgd")

    def end(first: Objective, second: Objective) -> Tensor:
        middle = run_stage(first, sgd.init(x), sgd, [lr])
        return run_stage(second, middle, sgd, [lr]).theta

    return end(a, b) - end(b, a)


def _difference_panel(ax: Any, difference: Answer) -> None:
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    angles = torch.linspace(0, math.pi, 25).tolist()
    ends = torch.stack([difference(*A, turned_bowl(t), B[1], x, 0.1) for t in angles])
    degrees = [math.degrees(t) for t in angles]
    ax.plot(degrees, ends[:, 0], "o-", markersize=3, label="along x")
    ax.plot(degrees, ends[:, 1], "s--", markersize=3, label="along y")
    ax.axhline(0, color="gray", linewidth=0.8)
    ax.set(xlabel="angle of bowl B (degrees)", ylabel="difference of ends")
    ax.legend(fontsize=8)


# 2.4


def never_matters(h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor) -> bool:
    """Whether the bracket is zero at every point; a field linear in x is, if at enough points."""
    points = random_vectors(24, *[len(c_a)] * (len(c_a) + 1))
    size = float(torch.linalg.matrix_norm(h_a) * torch.linalg.matrix_norm(h_b))
    lengths = [float(bracket(h_a, c_a, h_b, c_b, x).norm()) for x in points]
    return max(lengths) < 1e-9 * max(size, 1.0)


def _commute(h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor) -> bool:
    return bool(torch.allclose(h_a @ h_b, h_b @ h_a))


def _same_center(h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor) -> bool:
    return bool(torch.allclose(c_a, c_b))


def _to_the_last_digit(h_a: Tensor, c_a: Tensor, h_b: Tensor, c_b: Tensor) -> bool:
    apart = h_a @ h_b @ (c_b - c_a)
    return bool(torch.equal(h_a @ h_b, h_b @ h_a) and torch.equal(apart, torch.zeros_like(apart)))


def _bowl_pairs() -> list[tuple]:
    def diagonal(*values: float) -> Tensor:
        return torch.diag(torch.tensor(values, dtype=torch.float64))

    c, d, m = random_vectors(25, 3, 3, (3, 3))
    turn = torch.linalg.qr(m)[0]
    stiff, soft = diagonal(5.0, 1.0, 2.0), diagonal(1.0, 3.0, 1.0)
    left, right = diagonal(2.0, 0.0, 1.0), diagonal(0.0, 3.0, 0.0)
    one, two = random_bowl(26), random_bowl(27)

    def turned(h: Tensor) -> Tensor:
        return turn @ h @ turn.T

    return [
        (stiff, c, soft, d),  # same axes, other center: matters
        (stiff, c, soft, c),  # same axes, same center: never
        (one[0], c, two[0], c),  # other axes, same center: matters
        (*one, *two),
        (left, c, right, d),  # no direction in common: never, whatever the centers
        (turned(left), c, turned(right), d),
        (turned(stiff), c, turned(soft), c),
    ]


def _pairs() -> list[tuple]:
    (x, y) = random_vectors(22, 3, 3)
    return [(*random_bowl(1), *random_bowl(2), x), (*random_bowl(3), *random_bowl(4), y)]


EXERCISES = [
    Exercise(
        key="2.1",
        right=gradient_field,
        cases=lambda: [(*random_bowl(1), *random_vectors(21, 3))],
        mistakes=(
            Slip(
                "The sign is flipped: descent goes downhill, along minus the gradient.",
                lambda h, c, x: -gradient_field(h, c, x),
            ),
            Slip(
                "The center is missing: the gradient is H (x - c), not H x.", lambda h, c, x: -h @ x
            ),
            Slip("The Hessian is missing: the gradient is H (x - c).", lambda h, c, x: c - x),
            Slip(
                "Twice too long: the ½ in front of the loss cancels the 2.",
                lambda h, c, x: 2 * gradient_field(h, c, x),
            ),
            Slip(
                "This is elementwise: use the matrix product H @ (x - c).",
                lambda h, c, x: -h * (x - c),
            ),
        ),
        hints=(
            "The gradient of ½ (x − c)ᵀ H (x − c) is H (x − c), for symmetric H.",
            "Gradient descent follows minus the gradient.",
        ),
        panel=_field_panel,
        picture="arrows on a grid, all leading down to the minimum of a tilted bowl",
    ),
    Exercise(
        key="2.2",
        right=bracket,
        cases=_pairs,
        mistakes=(
            Slip(
                "The sign is flipped: it is H_B g_A - H_A g_B.",
                lambda h, c, k, d, x: -bracket(h, c, k, d, x),
            ),
            Slip(
                "The Hessian of the wrong source: H_B goes with g_A, and H_A with g_B.",
                lambda h, c, k, d, x: h @ h @ (x - c) - k @ k @ (x - d),
            ),
            Slip(
                "The Hessian of the wrong source, and the sign: it is H_B g_A - H_A g_B.",
                lambda h, c, k, d, x: k @ k @ (x - d) - h @ h @ (x - c),
            ),
            Slip(
                "The two terms are added; the bracket is their difference.",
                lambda h, c, k, d, x: k @ h @ (x - c) + h @ k @ (x - d),
            ),
            Slip(
                "The centers are missing: g = H (x - c).",
                lambda h, c, k, d, x: k @ h @ x - h @ k @ x,
            ),
        ),
        hints=(
            "The gradients are g_A = H_A (x − c_A) and g_B = H_B (x − c_B).",
            "[f_A, f_B] = Df_B f_A − Df_A f_B with f = −g and Df = −H: the two minus signs cancel.",
        ),
        panel=lambda ax, f: _arrows(ax, lambda x: f(*A, *B, x), 300),
        picture="arrows of the bracket of two bowls on a grid, to the left and bending down",
    ),
    Exercise(
        key="2.3",
        right=end_difference,
        cases=lambda: [(*case, lr) for case, lr in zip(_pairs(), (0.05, 0.2), strict=True)],
        mistakes=(
            Slip(
                "lr² is missing: this is the bracket itself.",
                lambda h, c, k, d, x, lr: bracket(h, c, k, d, x),
            ),
            Slip(
                "lr where lr² belongs: two steps, so two factors.",
                lambda h, c, k, d, x, lr: lr * bracket(h, c, k, d, x),
            ),
            Slip(
                "The order is swapped: A first, minus B first.",
                lambda h, c, k, d, x, lr: -(lr**2) * bracket(h, c, k, d, x),
            ),
            Slip(
                "These first-order terms cancel: both orders take both steps.",
                lambda h, c, k, d, x, lr: lr * (gradient_field(h, c, x) - gradient_field(k, d, x)),
            ),
            Slip(
                "Half of it: the ends lie lr² times the whole bracket apart.",
                lambda h, c, k, d, x, lr: 0.5 * lr**2 * bracket(h, c, k, d, x),
            ),
        ),
        hints=(
            "Write out both orders; everything of first order in lr is in both.",
            "For quadratics nothing is left beyond second order: lr² (H_B g_A − H_A g_B), exactly.",
        ),
        panel=_difference_panel,
        picture="the two components of the difference against the angle of bowl B, smooth waves",
    ),
    Exercise(
        key="2.4",
        right=never_matters,
        cases=_bowl_pairs,
        mistakes=(
            Slip(
                "Commuting Hessians are not enough: with other centers the order still matters.",
                _commute,
            ),
            Slip("Equal centers are not enough: the Hessians must commute too.", _same_center),
            Slip(
                "The answer is turned round: True means that order never matters.",
                lambda *bowls: not never_matters(*bowls),
            ),
            Slip(
                "Too strict: bowls that share no direction never interfere, wherever they lie.",
                lambda *bowls: _commute(*bowls) and _same_center(*bowls),
            ),
            Slip(
                "Rounding: compare with a tolerance (torch.allclose), not digit by digit.",
                _to_the_last_digit,
            ),
        ),
        hints=(
            "Write the bracket as M x + r. It is zero at every x only if M and r both are.",
            "M = H_B H_A − H_A H_B and r = H_A H_B c_B − H_B H_A c_A.",
            "With M = 0 the rest is H_A H_B (c_B − c_A). Compare both with zero by torch.allclose.",
        ),
    ),
]
