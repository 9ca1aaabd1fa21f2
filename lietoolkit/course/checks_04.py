"""Checks of notebook 04: the order score, and prediction against truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import (
    Answer,
    Exercise,
    Slip,
    Wrong,
    network,
    random_vectors,
)
from lietoolkit.geometry.bracket import lie_bracket
from lietoolkit.geometry.bracket import order_score as package_score
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.effects import predict_order_effect
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.training.stages import run_stage
from lietoolkit.training.truth import measure_order_effect

Pair = tuple[Objective, Objective, Objective, Tensor]


def pair(seed: int) -> Pair:
    """Two sources, a target and a start: small networks in float64."""
    (theta,) = random_vectors(seed, 13)
    a, b, target = (Objective(network(3 * seed + n), "AB target"[n]) for n in range(3))
    return a, b, target, theta


def _pairs() -> list[tuple]:
    return [pair(41), pair(42)]


# 4.1


def predicted_effect(sigma: float, lr: float, steps: int) -> float:
    """k² η² σ, from objectives made to have this score."""
    start = torch.tensor([1.0, 3.0], dtype=torch.float64)
    a, b = Objective(lambda x: x[0] ** 2 * x[1]), Objective(lambda x: x[1] ** 2)
    target = Objective(lambda x: -sigma / 12 * x[0])
    return predict_order_effect(a, b, target, start, lr, steps)


def _slope_panel(ax: Any, predict: Answer) -> None:
    sizes = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    for steps, style in ((1, "o-"), (4, "s--"), (16, "^:")):
        effects = [abs(float(predict(-2.0, lr, steps))) for lr in sizes]
        ax.loglog(sizes, effects, style, markersize=4, label=f"k = {steps}")
    ax.set(xlabel="step size η", ylabel="size of the effect")
    ax.legend(fontsize=8)


# 4.2


def order_score(a: Objective, b: Objective, target: Objective, theta: Tensor) -> float:
    """The package's score, exactly."""
    return package_score(a, b, target, theta, "exact")


def _wrong_hessian(a: Objective, b: Objective, target: Objective, theta: Tensor) -> Tensor:
    g = target.gradient(theta)
    return a.hvp(theta, g) @ a.gradient(theta) - b.hvp(theta, g) @ b.gradient(theta)


def _terms(a: Objective, b: Objective, target: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    g = target.gradient(theta)
    return b.hvp(theta, g) @ a.gradient(theta), a.hvp(theta, g) @ b.gradient(theta)


class _Spied(Objective):
    """Remembers the directions of its Hessian-vector products."""

    def __init__(self, fn: Any):
        super().__init__(fn)
        self.directions: list[Tensor] = []

    def gradient_and_hvp(
        self, theta: Tensor, v: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.directions.append(v)
        return super().gradient_and_hvp(theta, v, *args, **kwargs)


def _check_directions(score: Answer) -> None:
    a, b, target, theta = pair(41)
    a, b = _Spied(a.fn), _Spied(b.fn)
    score(a, b, target, theta)
    g = target.gradient(theta)
    used = a.directions + b.directions
    if any(not torch.allclose(v, g) for v in used):
        raise Wrong(
            "Right number, but the products are with source gradients: N sources would need N² of "
            "them. Hessians are symmetric: ⟨g_E, H_B g_A⟩ = ⟨H_B g_E, g_A⟩."
        )
    if len(used) > 2:
        raise Wrong(f"Right number, from {len(used)} products; one for each source is enough.")


# 4.3


def _from_the_start(
    a: Objective, b: Objective, target: Objective, theta: Tensor, lr: float, steps: int
) -> float:
    return _end(target, theta, lr, steps, b) - _end(target, theta, lr, steps, a)


def _end(target: Objective, theta: Tensor, lr: float, steps: int, *stages: Objective) -> float:
    sgd = optimizer_from("sgd")
    state = sgd.init(theta)
    for source in stages:
        state = run_stage(source, state, sgd, [lr] * steps)
    return float(target.loss(state.theta))


def _measured_cases() -> list[tuple]:
    return [(*pair(43), 0.05, 3), (*pair(44), 0.1, 2)]


def _measured_panel(ax: Any, measure: Answer) -> None:
    a, b, target, theta = pair(41)
    sizes = [3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
    for steps, style in ((1, "o-"), (3, "s--")):
        effects = [abs(measure(a, b, target, theta, lr, steps)) for lr in sizes]
        ax.loglog(sizes, effects, style, markersize=4, label=f"measured, k = {steps}")
        lines = [abs(predict_order_effect(a, b, target, theta, lr, steps)) for lr in sizes]
        ax.loglog(sizes, lines, ":", color="gray")
    ax.set(xlabel="step size η (dotted: k²η²σ)", ylabel="size of the effect")
    ax.legend(fontsize=8)


# 4.4


def trotter_effect(
    a: Objective, b: Objective, target: Objective, theta: Tensor, lr: float
) -> float:
    """The package's prediction with the drift-matched reference."""
    return predict_order_effect(a, b, target, theta, lr, 1, "trotter")


def _score_at(
    a: Objective, b: Objective, target: Objective, theta: Tensor, where: Tensor, lr: float
) -> Tensor:
    return lr**2 * (target.gradient(where) @ lie_bracket(a, b, theta))


def _joint(a: Objective, b: Objective, theta: Tensor) -> Tensor:
    return a.gradient(theta) + b.gradient(theta)


def _trotter_panel(ax: Any, predict: Answer) -> None:
    a, b, target, theta = pair(42)
    sizes = [3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
    truth = [measure_order_effect(a, b, target, theta, lr) for lr in sizes]
    local = [predict_order_effect(a, b, target, theta, lr) for lr in sizes]
    mine = [float(predict(a, b, target, theta, lr)) for lr in sizes]
    for values, style, label in ((local, "s:", "local"), (mine, "o-", "Trotter")):
        errors = [abs(v / t - 1) for v, t in zip(values, truth, strict=True)]
        ax.loglog(sizes, errors, style, markersize=4, label=label)
    ax.set(xlabel="step size η", ylabel="relative error")
    ax.legend(fontsize=8)


EXERCISES = [
    Exercise(
        key="4.1",
        right=predicted_effect,
        cases=lambda: [(-2.0, 0.1, 3), (0.7, 0.02, 5)],
        mistakes=(
            Slip("η² is missing.", lambda sigma, lr, steps: steps**2 * sigma),
            Slip(
                "k² is missing: each stage takes k steps.", lambda sigma, lr, steps: lr**2 * sigma
            ),
            Slip(
                "k where k² belongs: k steps of A meet k steps of B.",
                lambda sigma, lr, steps: steps * lr**2 * sigma,
            ),
            Slip(
                "η where η² belongs: the effect takes one step of each source.",
                lambda sigma, lr, steps: steps**2 * lr * sigma,
            ),
            Slip(
                "The sign is flipped: negative σ means that A first ends lower.",
                lambda sigma, lr, steps: -((steps * lr) ** 2) * sigma,
            ),
            Slip(
                "Half of it: for one pair the effect is the whole k²η²σ.",
                lambda sigma, lr, steps: 0.5 * (steps * lr) ** 2 * sigma,
            ),
        ),
        hints=("A stage of k steps of size η is, to first order, one step of size kη.",),
        panel=_slope_panel,
        picture="effect against step size on log axes, three lines of slope 2 for k = 1, 4, 16",
    ),
    Exercise(
        key="4.2",
        right=order_score,
        cases=_pairs,
        mistakes=(
            Slip(
                "The sign is flipped: σ_AB = ⟨H_B g_E, g_A⟩ - ⟨H_A g_E, g_B⟩.",
                lambda *args: -order_score(*args),
            ),
            Slip(
                "The Hessian of the wrong source: H_B g_E meets g_A, and H_A g_E meets g_B.",
                _wrong_hessian,
            ),
            Slip(
                "The Hessian of the wrong source, and the sign.",
                lambda *args: -_wrong_hessian(*args),
            ),
            Slip(
                "The two terms are added; the score is their difference.",
                lambda *args: sum(_terms(*args)),
            ),
            Slip("Only one of the two terms is there.", lambda *args: _terms(*args)[0]),
            Slip(
                "This is the bracket; take its inner product with the target's gradient.",
                lambda a, b, target, theta: lie_bracket(a, b, theta),
            ),
        ),
        also=_check_directions,
        hints=(
            "source.gradient_and_hvp(theta, v) returns the gradient and Hv together.",
            "Take v = target.gradient(theta) for both sources; H is symmetric.",
        ),
    ),
    Exercise(
        key="4.3",
        right=measure_order_effect,
        cases=_measured_cases,
        mistakes=(
            Slip(
                "The order is swapped: A first, minus B first.",
                lambda *args: -measure_order_effect(*args),
            ),
            Slip(
                "The second stage starts at theta again; it must start where the first ended.",
                _from_the_start,
            ),
            Slip(
                "Only one step per stage: take `steps` of them.",
                lambda a, b, e, x, lr, steps: measure_order_effect(a, b, e, x, lr, 1),
            ),
            Slip(
                "One long step is not `steps` short ones: look at the gradient anew each time.",
                lambda a, b, e, x, lr, steps: measure_order_effect(a, b, e, x, lr * steps, 1),
            ),
            Slip(
                "Read the target's loss at the end, not a source's.",
                lambda a, b, e, x, lr, steps: measure_order_effect(a, b, b, x, lr, steps),
            ),
            Slip(
                "This is the prediction k²η²σ; train both orders for real.",
                lambda *args: predict_order_effect(*args),
            ),
        ),
        hints=(
            "Write one function for one order: two loops of `steps` SGD steps.",
            "theta = theta - lr * source.gradient(theta), then target.loss(theta) at the end.",
        ),
        panel=_measured_panel,
        picture="measured effects against the step size on log axes, on dotted lines of slope 2 "
        "while the step is small",
    ),
    Exercise(
        key="4.4",
        right=trotter_effect,
        cases=lambda: [(*pair(43), 0.1), (*pair(44), 0.3)],
        mistakes=(
            Slip(
                "This is the local score: read the target's gradient at the reference point.",
                lambda a, b, e, x, lr: _score_at(a, b, e, x, x, lr),
            ),
            Slip(
                "The reference lies uphill (sign): θ − η (g_A + g_B).",
                lambda a, b, e, x, lr: _score_at(a, b, e, x, x + lr * _joint(a, b, x), lr),
            ),
            Slip(
                "η is missing in the reference point: θ − η (g_A + g_B).",
                lambda a, b, e, x, lr: _score_at(a, b, e, x, x - _joint(a, b, x), lr),
            ),
            Slip(
                "Only A's step is in the reference point: add B's.",
                lambda a, b, e, x, lr: _score_at(a, b, e, x, x - lr * a.gradient(x), lr),
            ),
            Slip(
                "Half the way: both steps are taken, so add the gradients, do not average them.",
                lambda a, b, e, x, lr: _score_at(a, b, e, x, x - lr / 2 * _joint(a, b, x), lr),
            ),
            Slip(
                "η² is missing.",
                lambda a, b, e, x, lr: trotter_effect(a, b, e, x, lr) / lr**2,
            ),
            Slip(
                "Only the target's gradient moves to the reference; the bracket stays at theta.",
                lambda a, b, e, x, lr: predict_order_effect(a, b, e, x - lr * _joint(a, b, x), lr),
            ),
        ),
        hints=(
            "Both orders end near one point: theta − lr (g_A + g_B).",
            "Read g_E there; gradients and products of A and B stay at theta. Multiply by lr².",
        ),
        panel=_trotter_panel,
        picture="relative error against the step size on log axes, the Trotter line below the "
        "local one",
    ),
]
