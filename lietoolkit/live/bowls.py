"""Two quadratic bowls: when the order of two gradient steps matters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lietoolkit.geometry.bracket import lie_bracket
from lietoolkit.geometry.objective import Objective
from lietoolkit.live.controls import slider
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.plots.common import BLUE, GRAY, GREEN, ORANGE, SKY
from lietoolkit.tasks.toys import bowl, bowl_hessian

START = (1.4, 0.9)
GOAL = (-0.8, 1.2)
TURN = np.arange(0.0, 181.0, 5.0)


def explore_bowls(
    angle: float = 35.0, stiffness: float = 5.0, apart: float = 0.0, lr: float = 0.15
) -> LiveFigure:
    """One step on bowl A and one on bowl B, in both orders, and what it does to a target.

    Left: level lines of both bowls, both ways, lr² times the bracket. Right: the order effect on
    the target, a round bowl, against the angle between the bowls: measured, and lr² times the
    score.

    Args:
        angle: between the stiff axes, degrees.
        stiffness: curvature along the stiff axis; it is 1 along the other.
        apart: distance between the two minima.
        lr: step size.
    """
    controls = {
        "angle": slider("angle between the bowls", 0, 180, angle, 1, 0),
        "stiffness": slider("stiffness", 1, 8, stiffness, 0.5, 1),
        "apart": slider("distance of the minima", 0, 1.5, apart, 0.1, 1),
        "lr": slider("step size lr", 0.01, 0.24, lr, 0.01),
    }
    figure, (plane, curve) = new_figure((8.6, 4.2), 2, width_ratios=[1.15, 1])
    rings = [
        plane.plot([], [], style, color=color, linewidth=1, label=label if n == 0 else None)[0]
        for style, color, label in (("-", SKY, "bowl A"), ("--", GRAY, "bowl B"))
        for n in range(3)
    ]
    (way_a,) = plane.plot([], [], "-o", color=BLUE, linewidth=2, label="A, then B")
    (way_b,) = plane.plot([], [], "--s", color=ORANGE, linewidth=2, label="B, then A")
    (arrow,) = plane.plot([], [], ":^", color=GREEN, linewidth=3, markevery=[1], markersize=8,
                          label="lr² × bracket")  # fmt: skip
    plane.plot(*START, "P", color="black", markersize=10, markeredgecolor="white", label="start")
    plane.plot(*GOAL, "*", color="black", markersize=12, label="target")
    plane.set(xlim=(-1.9, 2.1), ylim=(-1.3, 1.7), aspect="equal", xlabel="x", ylabel="y")
    plane.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize="small",
                 frameon=False, handlelength=1.8, columnspacing=1)  # fmt: skip
    curve.axhline(0, color=GRAY, linewidth=0.8)
    (measured,) = curve.plot(TURN, TURN, "-", color="black", linewidth=2, label="measured")
    (predicted,) = curve.plot(TURN, TURN, ":", color=GREEN, linewidth=3, label="lr² × score")
    (now,) = curve.plot([], [], "D", color=ORANGE, markersize=10, markeredgecolor="black",
                        label="angle now")  # fmt: skip
    curve.set(xlabel="angle between the bowls, degrees", xlim=(0, 180), ylim=(-1.25, 1.9),
              ylabel="order effect, in units of the largest", xticks=range(0, 181, 45))  # fmt: skip
    curve.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False,
                 fontsize="small", columnspacing=1)  # fmt: skip
    note = curve.text(0.5, 0.98, "", transform=curve.transAxes, va="top", ha="center")
    target = bowl(GOAL, 1.0)
    circle = np.linspace(0, 2 * np.pi, 60)

    def update(angle: float, stiffness: float, apart: float, lr: float) -> str:
        centers = ((-apart / 2, 0.0), (apart / 2, 0.0))
        for n, line in enumerate(rings):
            h = bowl_hessian(stiffness, 0.0 if n < 3 else angle).numpy()
            radius = (0.35, 0.8, 1.4)[n % 3]
            level = np.linalg.solve(np.linalg.cholesky(h).T, [np.cos(circle), np.sin(circle)])
            c = centers[n // 3]
            line.set_data(c[0] + radius * level[0], c[1] + radius * level[1])
        a = _stack(stiffness, np.zeros_like(TURN), centers[0])
        effects = _effects(a, _stack(stiffness, TURN, centers[1]), target, lr)
        scale = float(np.abs(effects[0]).max()) or 1.0
        measured.set_ydata(effects[0] / scale)
        predicted.set_ydata(effects[1] / scale)

        one, other = bowl(centers[0], stiffness), bowl(centers[1], stiffness, angle)
        theta = torch.tensor(START, dtype=torch.float64)
        ways = [_two_steps(*pair, theta, lr) for pair in ((one, other), (other, one))]
        for line, way in zip((way_a, way_b), ways, strict=True):
            line.set_data(*way.T.numpy())
        gap = lr**2 * lie_bracket(one, other, theta)
        arrow.set_data(*torch.stack([ways[1][-1], ways[1][-1] + gap]).T.numpy())
        effect = float(target.loss(ways[0][-1]) - target.loss(ways[1][-1]))
        now.set_data([angle], [effect / scale])
        better = "no difference" if abs(effect) < 1e-12 else "A first" if effect < 0 else "B first"
        note.set_text(
            f"order effect now {effect:+.3f}: {better}\n(largest at any angle: {scale:.3f})"
        )
        return (
            f"Two bowls of stiffness {stiffness:.1f} at {angle:.0f} degrees, minima {apart:.1f} "
            f"apart, step size {lr:.2f}. The two orders end {float(gap.norm()):.4f} apart; the "
            f"order effect on the target is {effect:+.2e} ({better})."
        )

    moving = [*rings, way_a, way_b, arrow, measured, predicted, now, note]
    return LiveFigure(figure, update, controls, moving)


def _two_steps(a: Objective, b: Objective, theta: Tensor, lr: float) -> Tensor:
    middle = theta - lr * a.gradient(theta)
    return torch.stack([theta, middle, middle - lr * b.gradient(middle)])


def _stack(stiffness: float, angles: np.ndarray, center: tuple[float, float]) -> Objective:
    """A bowl for every angle as one loss of their sum: K brackets for the price of one call."""
    h = torch.stack([bowl_hessian(stiffness, float(angle)) for angle in angles])
    c = torch.tensor(center, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        off = x.view(-1, 2) - c
        return 0.5 * torch.einsum("ki,kij,kj", off, h, off)

    return Objective(loss)


def _effects(
    a: Objective, b: Objective, target: Objective, lr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measured and predicted order effect at every angle."""
    start = torch.tensor(START, dtype=torch.float64)
    theta = start.repeat(len(TURN))
    ends = [_two_steps(*pair, theta, lr)[-1].view(-1, 2) for pair in ((a, b), (b, a))]
    losses = [0.5 * (end - torch.tensor(GOAL)).square().sum(1) for end in ends]
    bracket = lie_bracket(a, b, theta).view(-1, 2)
    score = bracket @ target.gradient(start)
    return (losses[0] - losses[1]).numpy(), (lr**2 * score).numpy()
