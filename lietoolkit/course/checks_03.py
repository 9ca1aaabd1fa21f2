"""Checks of notebook 03: Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import (
    Answer,
    Exercise,
    Slip,
    Wrong,
    compare,
    network,
    random_vectors,
)
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.stepsize import lambda_max

Map = Callable[[Tensor], Tensor]


def _gradient(seed: int) -> Map:
    return Objective(network(seed)).gradient


def central(gradient: Map, theta: Tensor, v: Tensor, eps: float) -> Tensor:
    """The central difference of the gradient along v."""
    return (gradient(theta + eps * v) - gradient(theta - eps * v)) / (2 * eps)


def exact(loss: Map, theta: Tensor, v: Tensor) -> Tensor:
    """The exact Hessian-vector product."""
    return Objective(loss).hvp(theta, v, "exact")


# 3.1


def _difference_cases() -> list[tuple]:
    theta, v, other = random_vectors(31, 13, 13, 13)
    return [(_gradient(1), theta, v, 0.1), (_gradient(2), other, v, 0.03)]


def _error_panel(ax: Any, difference: Answer) -> None:
    loss = network(1)
    theta, v = random_vectors(32, 13, 13)
    truth = exact(loss, theta, v)
    sizes = [10.0**-n for n in range(10)]
    gradient = Objective(loss).gradient
    errors = [float((difference(gradient, theta, v, e) - truth).norm()) for e in sizes]
    ax.loglog(sizes, errors, "o-", markersize=4)
    ax.set(xlabel="ε", ylabel="error of the product")


# 3.2


def _exact_cases() -> list[tuple]:
    theta, v, other = random_vectors(33, 13, 13, 13)
    return [(network(3), theta, v), (network(4), other, v)]


def _plain_gradient(loss: Map, theta: Tensor, v: Tensor) -> Tensor:
    return Objective(loss).gradient(theta)


EXACT_MISTAKES: tuple[Slip, ...] = (
    Slip("This is the gradient: differentiate once more, along v.", _plain_gradient),
    Slip(
        "This is g * v; the product needs the derivative of ⟨g, v⟩.",
        lambda loss, theta, v: _plain_gradient(loss, theta, v) * v,
    ),
    Slip(
        "This is vᵀHv, one number; return the vector Hv.",
        lambda loss, theta, v: v @ exact(loss, theta, v),
    ),
    Slip(
        "This is H g: the direction is v, not the gradient.",
        lambda loss, theta, v: exact(loss, theta, _plain_gradient(loss, theta, v)),
    ),
    Slip(
        "This is the sum of H's rows: v was not used.",
        lambda loss, theta, v: exact(loss, theta, torch.ones_like(v)),
    ),
)


def _check_exact(answer: Answer) -> None:
    try:
        compare(answer, exact, _exact_cases(), EXACT_MISTAKES)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise Wrong(
            "There is no graph to differentiate: theta needs requires_grad, and the first "
            "torch.autograd.grad needs create_graph=True."
        ) from error
    result = answer(*_exact_cases()[0])
    if result.requires_grad:
        raise Wrong("Right values, but the result still carries its graph and memory: detach it.")


# 3.3

CANDIDATES = [10.0 ** (-n / 2) for n in range(14, -1, -1)]


def best_agreement(gradient: Map, theta: Tensor, v: Tensor, candidates: Sequence[float]) -> float:
    """The candidate whose product changes least when ε is doubled."""
    return min(
        candidates,
        key=lambda e: float(
            (central(gradient, theta, v, e) - central(gradient, theta, v, 2 * e)).norm()
        ),
    )


def _float32_cases() -> list[tuple]:
    theta, v, other = (u.float() for u in random_vectors(34, 13, 13, 13))
    return [
        (_gradient(5), theta, v, CANDIDATES),
        (_gradient(6), other, 300 * v, CANDIDATES),
        (_gradient(7), theta, 0.05 * other, CANDIDATES),
    ]


def _check_choice(choose: Answer) -> None:
    truths = [(5, 1.0), (6, 300.0), (7, 0.05)]
    cases = _float32_cases()
    chosen = [choose(*case) for case in cases]
    if any(c is None for c in chosen):
        raise Wrong("The function returned nothing: end it with return.")
    chosen = [float(c) for c in chosen]
    if all(c == min(CANDIDATES) for c in chosen):
        raise Wrong("The smallest ε: there the rounding error of float32, divided by ε, rules.")
    if all(c == max(CANDIDATES) for c in chosen):
        raise Wrong("The largest ε: there the curvature changes along the way (truncation error).")
    doubled = [2 * best_agreement(*case) for case in cases]
    if all(abs(c - d) <= 1e-9 * d for c, d in zip(chosen, doubled, strict=True)):
        raise Wrong("Return the ε that was tried, not its double.")
    places = [float(CANDIDATES.index(best_agreement(*case))) for case in cases]
    if chosen == places:
        raise Wrong("This is the position in the list; return the ε itself.")
    if len(set(chosen)) == 1:
        raise Wrong(
            "The same ε for every v. What counts is the length of the step ε v: a longer v needs "
            "a smaller ε."
        )
    for number, (case, c, (seed, _)) in enumerate(zip(cases, chosen, truths, strict=True), 1):
        gradient, theta, v, candidates = case
        truth = exact(network(seed), theta.double(), v.double())

        errors = {
            e: float((central(gradient, theta, v, e).double() - truth).norm() / truth.norm())
            for e in candidates
        }

        if c not in candidates:
            raise Wrong(f"On example {number}: {c:.3g} is none of the candidates.")
        best = min(errors.values())
        if errors[c] > 10 * best:
            raise Wrong(
                f"On example {number}: ε = {c:.2g} has the error {errors[c]:.1g}; the best "
                f"candidate has {best:.1g}. Compare the products at ε and 2ε."
            )


def _choice_panel(ax: Any, choose: Answer) -> None:
    gradient, theta, v, candidates = _float32_cases()[0]
    truth = exact(network(5), theta.double(), v.double())
    errors = [float((central(gradient, theta, v, e) - truth).norm()) for e in candidates]
    ax.loglog(candidates, errors, ".-", color="gray")
    mine = float(choose(gradient, theta, v, candidates))
    ax.loglog(
        [mine], [float((central(gradient, theta, v, mine) - truth).norm())], "*", color="black",
        markersize=14, label="chosen",
    )  # fmt: skip
    ax.set(xlabel="ε (float32)", ylabel="error of the product")
    ax.legend(fontsize=8)


# 3.4


def stiff(seed: int, size: int = 8) -> tuple[Map, Tensor]:
    """Products with a positive Hessian whose largest eigenvalue stands out, and a start."""
    mix, start = random_vectors(seed, (size, size), size)
    axes = torch.linalg.qr(mix)[0]
    h = axes @ torch.diag(torch.linspace(1, 5, size, dtype=torch.float64) ** 2) @ axes.T
    return lambda v: h @ v, start


def largest_curvature(hvp: Map, start: Tensor, products: int) -> float:
    """The package's largest eigenvalue; Lanczos, exact after n products."""
    h = torch.stack([hvp(axis) for axis in torch.eye(len(start), dtype=torch.float64)])
    bowl = Objective(lambda x: 0.5 * x @ h @ x)
    return lambda_max(bowl, start, products=min(products, len(start)))


def _power(hvp: Map, start: Tensor, products: int) -> Tensor:
    v = start
    for _ in range(products):
        v = hvp(v / v.norm())
    return v


CURVATURE_MISTAKES = (
    Slip("This is λ²: v @ Hv of unit vectors, or the length of Hv, not its square.",
         lambda hvp, start, n: largest_curvature(hvp, start, n) ** 2),
    Slip("v has not length 1 here: v @ Hv must be divided by v @ v.",
         lambda hvp, start, n: largest_curvature(hvp, start, n) ** 3),
    Slip("This is the vector; return how much longer a product makes it.",
         _power),
    Slip("This is the direction; return the curvature along it.",
         lambda hvp, start, n: _power(hvp, start, n) / _power(hvp, start, n).norm()),
    Slip("One product is not enough: apply it again and again.",
         lambda hvp, start, n: hvp(start).norm() / start.norm()),
    Slip("One product is not enough: apply it again and again.",
         lambda hvp, start, n: start @ hvp(start) / (start @ start)),
)  # fmt: skip


def _check_curvature(answer: Answer) -> None:
    cases = [(*stiff(37), 60), (*stiff(38), 80)]
    for hvp, start, products in cases:
        spent = [0]

        def counted(v: Tensor, hvp: Map = hvp, spent: list[int] = spent) -> Tensor:
            spent[0] += 1
            return hvp(v)

        found = answer(counted, start.clone(), products)
        if found is not None and not bool((torch.as_tensor(found).abs() < 1e12).all()):
            raise Wrong("The vector grows without bound: normalize it after each product.")
        if spent[0] > products + 1:
            raise Wrong(f"{spent[0]} products were spent; {products} are allowed.")
    compare(answer, largest_curvature, cases, CURVATURE_MISTAKES, 1e-4)


def _curvature_panel(ax: Any, curvature: Answer) -> None:
    hvp, start = stiff(37)
    counts = [1, 2, 4, 8, 16, 32]
    values = [float(torch.as_tensor(curvature(hvp, start, n))) for n in counts]
    ax.plot(counts, values, "o", color="black")
    ax.axhline(largest_curvature(hvp, start, 8), color="gray", linewidth=0.8, linestyle=":")
    ax.set(xlabel="products (dotted: the largest eigenvalue)", ylabel="estimate", xscale="log")


EXERCISES = [
    Exercise(
        key="3.1",
        right=central,
        cases=_difference_cases,
        mistakes=(
            Slip(
                "This is one-sided, with an error of order ε: step forward and backward.",
                lambda g, x, v, e: (g(x + e * v) - g(x)) / e,
            ),
            Slip(
                "Twice too long: the two points lie 2ε apart.",
                lambda g, x, v, e: 2 * central(g, x, v, e),
            ),
            Slip("The division by 2ε is missing.", lambda g, x, v, e: 2 * e * central(g, x, v, e)),
            Slip(
                "The sign is flipped: forward minus backward.",
                lambda g, x, v, e: -central(g, x, v, e),
            ),
            Slip(
                "The step is ε along every axis; it must be ε v.",
                lambda g, x, v, e: central(g, x, torch.ones_like(v), e),
            ),
        ),
        hints=(
            "Hv is how fast the gradient changes when the point moves along v.",
            "Evaluate the gradient at theta + ε v and at theta − ε v; they lie 2ε apart.",
        ),
        panel=_error_panel,
        picture="the error against ε on log axes: slope 2 down to ε near 1e-5, then rising",
    ),
    Exercise(
        key="3.2",
        right=exact,
        cases=_exact_cases,
        mistakes=EXACT_MISTAKES,
        check=_check_exact,
        hints=(
            "theta = theta.detach().requires_grad_(), then the gradient with create_graph=True.",
            "Hv is the gradient of ⟨g, v⟩: torch.autograd.grad(g @ v, theta).",
        ),
    ),
    Exercise(
        key="3.3",
        right=best_agreement,
        cases=_float32_cases,
        check=_check_choice,
        hints=(
            "You do not know the truth, but a good ε gives nearly the same product as 2ε.",
            "Return the candidate with the smallest ‖Hv(ε) − Hv(2ε)‖: min(candidates, key=...).",
        ),
        panel=_choice_panel,
        picture="the error against ε in float32, a valley, with a star near its lowest point",
    ),
    Exercise(
        key="3.4",
        right=lambda hvp, start, products: _power(hvp, start, products).norm(),
        cases=lambda: [],
        check=_check_curvature,
        hints=(
            "Each product stretches the part along the stiffest direction most.",
            "Repeat v = hvp(v) / ‖hvp(v)‖; after many products v points along that direction.",
            "Then the curvature is ‖Hv‖ for a v of length 1.",
        ),
        panel=_curvature_panel,
        picture="estimates that reach the largest eigenvalue as products are spent",
    ),
]
