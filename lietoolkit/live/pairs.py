"""Every pair as a point: predicted against measured order effects, as the step size grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.live.controls import choice, steps
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.order.stepsize import step_size
from lietoolkit.order.tournament import tournament
from lietoolkit.plots.common import BLUE, GRAY, GREEN, ORANGE
from lietoolkit.tasks.toys import network_start, networks
from lietoolkit.training.truth import run_schedules

METHODS = ("local", "trotter")


@dataclass(frozen=True)
class PairEffects:
    """Order effects of all pairs on a grid of step sizes and steps, in loss units.

    Attributes:
        pairs: the M pairs.
        lrs: L step sizes. stiffness: the largest curvature, so that lr · stiffness has no unit.
        steps: K numbers of steps.
        measured: [K, L, M], trained for real. predicted: the same for each method.
    """

    pairs: list[tuple[str, str]]
    lrs: np.ndarray
    stiffness: float
    steps: tuple[int, ...]
    measured: np.ndarray
    predicted: dict[str, np.ndarray]

    def signs_right(self, method: str) -> np.ndarray:
        """How many of the M signs the method gets right, [K, L]."""
        return (self.measured * self.predicted[method] > 0).sum(-1)


def pair_effects(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    relative: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    steps: Sequence[int] = (1, 2, 5, 10, 20),
) -> PairEffects:
    """Measure and predict every pair at every step size and number of steps.

    Args:
        sources: objectives by name.
        target: whose loss is read.
        theta: start, [P].
        relative: step sizes in units of 1 / (largest curvature of the sources).
        steps: steps per stage.
    """
    pairs = list(combinations(sources, 2))
    both = [order for a, b in pairs for order in ((a, b), (b, a))]
    stiffness = max(step_size(sources, theta).lambda_max.values())
    lrs = np.asarray(relative) / stiffness
    shape = (len(steps), len(lrs), len(pairs))
    measured, predicted = np.empty(shape), {m: np.empty(shape) for m in METHODS}
    upper = np.triu_indices(len(sources), 1)
    local = tournament(sources, target, theta, lr=1.0).matrix
    for i, k in enumerate(steps):
        for j, lr in enumerate(lrs.tolist()):
            losses = run_schedules(sources, target, theta, both, lr, k).numpy()
            measured[i, j] = losses[0::2] - losses[1::2]
            trotter = tournament(sources, target, theta, lr, k, "trotter").matrix
            predicted["local"][i, j] = (k * lr) ** 2 * local[upper]
            predicted["trotter"][i, j] = trotter[upper]
    return PairEffects(pairs, lrs, stiffness, tuple(steps), measured, predicted)


@cache
def _example() -> PairEffects:
    *nets, target = networks(7)
    return pair_effects({net.name: net for net in nets}, target, network_start())


def explore_pairs(effects: PairEffects | None = None) -> LiveFigure:
    """Predicted against measured, and the breakdown as steps grow longer or more.

    Left: every pair, both numbers divided by (k · lr)². Middle: the mean size of the effect
    against lr. Right: how many signs each method gets right.

    Args:
        effects: of `pair_effects`; default: six small networks.
    """
    effects = effects or _example()
    relative = effects.lrs * effects.stiffness
    labels = [f"{value:.3g}" for value in relative]
    controls = {
        "lr": steps("lr × curvature", labels, labels[2]),
        "k": steps("steps k", effects.steps, 1),
        "method": choice("prediction", METHODS),
    }
    figure, (cloud, size, signs) = new_figure((10.4, 3.7), 3, width_ratios=[1.15, 1, 1])
    per = (np.array(effects.steps)[:, None, None] * effects.lrs[None, :, None]) ** 2
    measured = effects.measured / per
    predicted = {m: effects.predicted[m] / per for m in METHODS}
    unit = np.abs(predicted["local"][0, 0]).max()
    bound = 1.5
    cloud.fill_between([0, bound], 0, bound, color=BLUE, alpha=0.09, linewidth=0)
    cloud.fill_between([-bound, 0], -bound, 0, color=BLUE, alpha=0.09, linewidth=0)
    cloud.plot([-bound, bound], [-bound, bound], "--", color=GRAY, linewidth=1, label="exact")
    style = {"linestyle": "none", "markersize": 7, "markeredgecolor": "black"}
    (right,) = cloud.plot([], [], "o", color=BLUE, label="sign right", **style)
    (wrong,) = cloud.plot([], [], "X", color=ORANGE, label="sign wrong", **style)
    cloud.set(xlim=(-bound, bound), ylim=(-bound, bound), xlabel="predicted / (k lr)², largest = 1",
              ylabel="measured / (k lr)², same unit")  # fmt: skip
    legend = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False,
              "fontsize": "small", "columnspacing": 1, "handlelength": 1.6}  # fmt: skip
    cloud.legend(ncols=3, **legend)
    mean = np.abs(effects.measured).mean(-1)
    (seen,) = size.loglog(relative, mean[0], "o-", color="black", markersize=5, label="measured")
    (line,) = size.loglog(relative, mean[0], ":", color=GREEN, linewidth=2.5, label="predicted")
    (now,) = size.loglog([], [], "D", color=ORANGE, markersize=9, markeredgecolor="black")
    top = np.abs(effects.predicted["local"]).mean(-1).max()
    size.set(xlabel="lr × curvature", ylabel="mean size of the order effect",
             ylim=(mean.min() / 3, 3 * top))  # fmt: skip
    size.legend(ncols=2, **legend)
    count = len(effects.pairs)
    drawn = {
        m: signs.semilogx(relative, relative, style, color=color, markersize=6, label=m)[0]
        for m, style, color in (("local", "o-", BLUE), ("trotter", "s--", ORANGE))
    }
    signs.axhline(count / 2, color=GRAY, linestyle=":", linewidth=1, label="coin toss")
    (here,) = signs.plot([], [], "D", color="black", fillstyle="none", markersize=13)
    signs.set(xlabel="lr × curvature", ylabel=f"signs right, of {count}", ylim=(0, count + 1))
    signs.legend(ncols=3, **legend)

    def update(lr: str, k: int, method: str) -> str:
        i, j = effects.steps.index(k), labels.index(lr)
        x, y = predicted[method][i, j] / unit, measured[i, j] / unit
        hit = x * y > 0
        # Points beyond the frame sit on its edge.
        x, y = np.clip(x, -bound, bound), np.clip(y, -bound, bound)
        right.set_data(x[hit], y[hit])
        wrong.set_data(x[~hit], y[~hit])
        seen.set_ydata(mean[i])
        line.set_ydata(np.abs(effects.predicted[method][i]).mean(-1))
        now.set_data([relative[j]], [mean[i, j]])
        for m, artist in drawn.items():
            artist.set_ydata(effects.signs_right(m)[i])
        here.set_data([relative[j]], [hit.sum()])
        return (
            f"{count} pairs at lr times curvature {lr}, {k} step{'s' * (k != 1)} a stage, {method} "
            f"prediction: {hit.sum()} signs right; mean order effect {mean[i, j]:.1e}."
        )

    moving = [right, wrong, seen, line, now, *drawn.values(), here]
    return LiveFigure(figure, update, controls, moving)
