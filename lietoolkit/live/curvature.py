"""Hessian-vector products by differences: the right step, and what each way costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.live.controls import choice, power
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.plots.common import BLUE, GRAY, GREEN, ORANGE, describe
from lietoolkit.tasks.toys import network_start, networks

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
KINDS = ("central", "one-sided")
STEPS = np.logspace(-9, 0, 28)


def difference(
    objective: Objective, theta: Tensor, v: Tensor, step: float, kind: str = "central"
) -> Tensor:
    r"""Hv from two gradients, ``step`` being the length of the move relative to theta's.

    .. math:: \frac{g(\theta + \epsilon v) - g(\theta - \epsilon v)}{2\epsilon}
        \quad\text{or}\quad \frac{g(\theta + \epsilon v) - g(\theta)}{\epsilon},
        \qquad \epsilon = \text{step}\,\frac{\|\theta\|}{\|v\|}

    Args:
        objective: the loss.
        theta: where, [P], in the dtype to compute with. v: direction, [P].
        step: relative length.
        kind: "central" or "one-sided".

    Returns:
        [P] in float64.
    """
    eps = step * float(theta.double().norm() / v.double().norm())
    ahead = objective.gradient(theta + eps * v).double()
    if kind == "one-sided":
        return (ahead - objective.gradient(theta).double()) / eps
    return (ahead - objective.gradient(theta - eps * v).double()) / (2 * eps)


def difference_errors(
    objective: Objective, theta: Tensor, v: Tensor, kind: str = "central"
) -> dict[str, np.ndarray]:
    """Relative error of `difference` at ``STEPS`` for each of ``DTYPES``; theta, v in float64."""
    exact = objective.gradient_and_hvp(theta, v, "exact")[1]
    return {
        name: np.array([
            float((difference(objective, theta.to(dtype), v.to(dtype), step, kind) - exact).norm()
                  / exact.norm())
            for step in STEPS
        ])
        for name, dtype in DTYPES.items()
    }  # fmt: skip


def explore_hvp_error(
    objective: Objective | None = None, theta: Tensor | None = None
) -> LiveFigure:
    """The error of a difference against its step, in three precisions.

    Left: relative error against the step. Right: every entry of the product, by difference against
    exact.

    Args:
        objective: default: a small network. theta: where, [P] float64.
    """
    objective = objective or networks(1)[0]
    theta = network_start() if theta is None else theta
    v = objective.gradient(theta)
    exact = objective.gradient_and_hvp(theta, v, "exact")[1]
    errors = {kind: difference_errors(objective, theta, v, kind) for kind in KINDS}
    controls = {
        "step": power("step, relative to θ", -9, 0, 1e-4, 1 / 3),
        "dtype": choice("precision", list(DTYPES), "float32"),
        "kind": choice("difference", KINDS),
    }
    figure, (curve, cloud) = new_figure((8.8, 4.0), 2, width_ratios=[1.3, 1])
    lines = {}
    for name, style, color in (("float64", "o-", BLUE), ("float32", "s--", ORANGE),
                               ("bfloat16", "^:", GREEN)):  # fmt: skip
        (lines[name],) = curve.loglog(STEPS, STEPS, style, color=color, markersize=4, label=name)
    (now,) = curve.plot([], [], "D", color="black", fillstyle="none", markersize=13,
                        markeredgewidth=1.5, label="now")  # fmt: skip
    curve.axhline(1, color=GRAY, linewidth=0.8)
    curve.set(xlabel="step, relative to θ", ylabel="relative error of Hv", ylim=(3e-13, 1e2))
    curve.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False,
                 fontsize="small", columnspacing=1)  # fmt: skip
    bound = 1.3 * float(exact.abs().max())
    cloud.plot([-bound, bound], [-bound, bound], "--", color=GRAY, linewidth=1)
    (points,) = cloud.plot([], [], "o", color=BLUE, markersize=5, alpha=0.7)
    note = cloud.text(0.04, 0.97, "", transform=cloud.transAxes, va="top")
    cloud.set(xlim=(-bound, bound), ylim=(-bound, bound), xlabel="entries of Hv, exact",
              ylabel="entries of Hv, by difference")  # fmt: skip
    cloud.locator_params(nbins=5)

    def update(step: float, dtype: str, kind: str) -> str:
        for name, line in lines.items():
            line.set_ydata(errors[kind][name])
        kept = DTYPES[dtype]
        product = difference(objective, theta.to(kept), v.to(kept), step, kind)
        error = float((product - exact).norm() / exact.norm())
        now.set_data([step], [error])
        points.set_data(exact.numpy(), product.clamp(-bound, bound).numpy())
        note.set_text(f"error {error:.1e}")
        return (
            f"{kind} difference in {dtype} with relative step {step:.1e}: relative error of the "
            f"product {error:.1e}. Best of all steps: "
            + ", ".join(f"{name} {errors[kind][name].min():.0e}" for name in DTYPES)
            + "."
        )

    return LiveFigure(figure, update, controls, [*lines.values(), now, points, note])


def time_ratios(
    ways: Mapping[str, Callable[[], object]], reference: str, repeats: int = 15
) -> dict[str, float]:
    """The fastest run of each way, as a multiple of the reference's; ways take turns.

    Args:
        ways: name -> what to time.
        reference: the name whose time is 1.
        repeats: rounds; the first one more is for warming up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(repeats + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if n:
                seconds[name].append(time.perf_counter() - began)
    # The fastest, since other programs can only make a run slower.
    return {name: min(values) / min(seconds[reference]) for name, values in seconds.items()}


def show_costs(ratios: Mapping[str, float]) -> LiveFigure:
    """Bars of what each way costs, in gradients; a still picture."""
    figure, (ax,) = new_figure((7.0, 0.6 + 0.5 * len(ratios)))
    rows = np.arange(len(ratios))
    ax.barh(rows, list(ratios.values()), color=BLUE, height=0.6)
    for row, value in zip(rows, ratios.values(), strict=True):
        ax.text(value, row, f" {value:.1f}", va="center")
    ax.set(yticks=rows, yticklabels=list(ratios), ylim=(len(rows) - 0.5, -0.5),
           xlabel="time, in gradients", xlim=(0, 1.15 * max(ratios.values())))  # fmt: skip
    text = ", ".join(f"{name} {value:.1f}" for name, value in ratios.items())
    describe(ax, f"Time in gradients, measured on this machine: {text}.")
    return LiveFigure(figure, lambda: ax.lietoolkit_alt)
