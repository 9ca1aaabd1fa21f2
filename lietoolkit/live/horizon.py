"""How far predictions hold: the signs of order effects as steps grow in number and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.live.controls import choice
from lietoolkit.live.controls import steps as stops
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.order.stepsize import step_size
from lietoolkit.order.tournament import tournament
from lietoolkit.order.transport import transported_effect
from lietoolkit.plots.common import AMBER, BLUE, GRAY, GREEN, ORANGE, PINK
from lietoolkit.statistics import wilson_interval
from lietoolkit.tasks.toys import network_start, regressions
from lietoolkit.training.truth import run_schedules

# A method's line, marker and color. The first three describe plain SGD, whatever is trained with.
METHODS = {
    "local": ("o-", BLUE),
    "trotter": ("s--", PINK),
    "transported": ("^-.", GREEN),
    "stage": ("D-", ORANGE),
    "best solo last": ("X:", AMBER),
}
# One usual step of each optimizer: lr times curvature, but for AdamW, whose steps have a length of
# their own, lr itself.
USUAL = {"sgd": 0.35, "momentum": 0.035, "adamw": 3e-3}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HorizonEffects:
    """Order effects of M decisions, in loss units; a decision is a pair of sources and a target.

    Attributes:
        steps: K numbers of steps a stage. sizes: L step sizes, 1 is the optimizer's usual one.
        measured: for each optimizer [K, L, M], trained for real.
        predicted: for each optimizer and method the same; NaN where a method does not apply.
    """

    steps: tuple[int, ...]
    sizes: tuple[float, ...]
    measured: dict[str, Array]
    predicted: dict[str, dict[str, Array]]

    @property
    def decisions(self) -> int:
        """M."""
        return next(iter(self.measured.values())).shape[-1]

    def signs_right(self, optimizer: str, method: str) -> NDArray[np.int64]:
        """How many of the M signs the method gets right, [K, L]; -1 where it does not apply."""
        predicted = self.predicted[optimizer][method]
        right = (self.measured[optimizer] * predicted > 0).sum(-1)
        return np.where(np.isnan(predicted).any(-1), -1, right)


def horizon_effects(
    draws: int = 2,
    seed: int = 0,
    steps: Sequence[int] = (1, 2, 5, 10, 20, 50),
    sizes: Sequence[float] = (0.25, 1, 2),
    optimizers: Sequence[str] = ("sgd", "momentum", "adamw"),
    sources: int = 5,
    targets: int = 2,
) -> HorizonEffects:
    """Predict and measure every pair of small networks' losses on a grid.

    Args:
        draws: of sources, targets and start.
        seed: of the first draw.
        steps: steps a stage.
        sizes: step sizes in units of the optimizer's usual one: lr times the largest curvature
            0.35 for SGD and 0.035 for momentum, lr 3e-3 for AdamW.
        optimizers: "sgd", "momentum", "adamw".
        sources: in a draw.
        targets: in a draw.
    """
    shape = (len(steps), len(sizes), draws * targets * sources * (sources - 1) // 2)
    measured = {rule: np.empty(shape) for rule in optimizers}
    predicted = {rule: {m: np.full(shape, np.nan) for m in METHODS} for rule in optimizers}
    for draw in range(draws):
        nets = regressions(sources + targets, 100 * seed + draw)
        theta = network_start(100 * seed + draw)
        trained = {net.name: net for net in nets[:sources]}
        read = {net.name: net for net in nets[sources:]}
        curvature = max(step_size(trained, theta).lambda_max.values())
        width = shape[2] // draws
        at = slice(draw * width, (draw + 1) * width)
        for rule in optimizers:
            usual = USUAL[rule] / (1 if rule == "adamw" else curvature)
            for i, k in enumerate(steps):
                for j, size in enumerate(sizes):
                    truth, guesses = _effects(trained, read, theta, size * usual, k, rule)
                    measured[rule][i, j, at] = truth
                    for method, guess in guesses.items():
                        predicted[rule][method][i, j, at] = guess
    return HorizonEffects(tuple(steps), tuple(sizes), measured, predicted)


def _effects(
    sources: Mapping[str, Objective],
    targets: Mapping[str, Objective],
    theta: Tensor,
    lr: float,
    steps: int,
    optimizer: str,
) -> tuple[Array, dict[str, Array]]:
    """Measured effects of all pairs and targets, [M], and those of each method."""
    truth, solo = _trained(sources, targets, theta, lr, steps, optimizer)
    upper = np.triu_indices(len(sources), 1)
    guesses = {"best solo last": solo}
    for method in ("local", "trotter", "stage"):
        t = tournament(sources, targets, theta, lr, steps, method, optimizer)
        guesses[method] = np.concatenate([m.numpy()[upper] for m in t.targets.values()])
    if optimizer == "sgd":
        guesses["transported"] = np.array(
            [
                transported_effect(sources[a], sources[b], target, theta, lr, steps)
                for target in targets.values()
                for a, b in combinations(sources, 2)
            ]
        )
    return truth, guesses


def _trained(
    sources: Mapping[str, Objective],
    targets: Mapping[str, Objective],
    theta: Tensor,
    lr: float,
    steps: int,
    optimizer: str = "sgd",
) -> tuple[Array, Array]:
    """Measured effects of all pairs and targets, [M], and what "best solo last" makes of them."""
    both = [order for a, b in combinations(sources, 2) for order in ((a, b), (b, a))]
    orders = [*((name,) for name in sources), *both]
    losses = run_schedules(sources, targets, theta, orders, lr, steps, optimizer).numpy()
    alone, ends = losses[: len(sources)], losses[len(sources) :]
    first, second = np.triu_indices(len(sources), 1)
    # Whatever helps most alone comes last: i goes first if its loss alone is the higher one.
    return (ends[0::2] - ends[1::2]).T.flatten(), (alone[second] - alone[first]).T.flatten()


@cache
def _example() -> HorizonEffects:
    return horizon_effects(1, steps=(1, 5, 20), sizes=(0.25, 1), sources=4)


def explore_horizon(effects: HorizonEffects | None = None) -> LiveFigure:
    """Signs right as runs grow longer and steps larger, for each way to predict.

    Left: every decision, predicted against measured. Middle: the share of signs right against k.
    Right: the same at the k shown, with 95% intervals.

    Args:
        effects: of `horizon_effects`; default: one small draw.
    """
    effects = effects or _example()
    count, names = effects.decisions, list(METHODS)
    labels = [f"{size:g}" for size in effects.sizes]
    middle = len(effects.steps) // 2
    controls = {
        "k": stops("steps k", effects.steps, effects.steps[middle]),
        "size": stops("step size, usual = 1", labels, labels[-2]),
        "optimizer": choice("trained with", list(effects.measured)),
        "method": choice("left: prediction", names),
    }
    figure, (cloud, lines, now) = new_figure((10.4, 3.8), 3, width_ratios=[1.05, 1.1, 1])
    edge = 2.2
    cloud.fill_between([0, edge], 0, edge, color=BLUE, alpha=0.09, linewidth=0)
    cloud.fill_between([-edge, 0], -edge, 0, color=BLUE, alpha=0.09, linewidth=0)
    cloud.plot([-edge, edge], [-edge, edge], "--", color=GRAY, linewidth=1, label="exact")
    style = {"linestyle": "none", "markersize": 6, "markeredgecolor": "black", "clip_on": False}
    (right,) = cloud.plot([], [], "o", color=BLUE, label="sign right", **style)
    (wrong,) = cloud.plot([], [], "X", color=ORANGE, label="sign wrong", **style)
    cloud.set(xlim=(-edge, edge), ylim=(-edge, edge), xlabel="predicted, same unit",
              ylabel="measured effect, typical size = 1")  # fmt: skip
    note = cloud.text(-edge + 0.15, edge - 0.1, "", va="top", fontsize="small")
    legend = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False,
              "fontsize": "small", "columnspacing": 1, "handlelength": 2.4}  # fmt: skip
    cloud.legend(ncols=3, **{**legend, "handlelength": 1.4})
    marked = dict(markersize=6, markeredgecolor="black", markeredgewidth=0.6)
    drawn = {
        name: lines.plot(effects.steps, np.zeros(len(effects.steps)), look, color=color,
                         label=name, **marked)[0]
        for name, (look, color) in METHODS.items()
    }  # fmt: skip
    lines.axhline(50, color=GRAY, linestyle=":", linewidth=1)
    here = lines.axvline(effects.steps[0], color="black", linewidth=6, alpha=0.15)
    lines.set(xscale="log", ylim=(-3, 103), xlabel="steps k", ylabel="signs right, %")
    lines.set_xticks(effects.steps, [str(k) for k in effects.steps])
    lines.minorticks_off()
    lines.legend(ncols=3, **legend)
    bars = now.hlines(range(len(names)), 0, 1, colors="black", linewidth=1.4)
    dots = [
        now.plot([0], [row], look[0], color=color, **marked | {"markersize": 8})[0]
        for row, (look, color) in enumerate(METHODS.values())
    ]
    now.axvline(50, color=GRAY, linestyle=":", linewidth=1)
    now.text(50, -0.62, "coin toss", ha="center", va="bottom", fontsize="small", color="#595959")
    now.set(xlim=(-3, 103), ylim=(len(names) - 0.4, -0.65), xlabel="at this k, %, 95% intervals")
    now.set_yticks(range(len(names)), names)

    row_of = names.index("transported")
    only = now.text(50, row_of, "  for plain SGD only", va="center", fontsize="small")

    def update(k: int, size: str, optimizer: str, method: str) -> str:
        only.set_visible(bool(effects.signs_right(optimizer, "transported")[0, 0] < 0))
        i, j = effects.steps.index(k), labels.index(size)
        y, x = effects.measured[optimizer][i, j], effects.predicted[optimizer][method][i, j]
        unit = float(np.quantile(np.abs(y), 0.8)) or 1.0
        hit, miss = x * y > 0, x * y <= 0
        # Points beyond the frame sit on its edge.
        x, y = np.clip(x / unit, -edge, edge), np.clip(y / unit, -edge, edge)
        right.set_data(x[hit], y[hit])
        wrong.set_data(x[miss], y[miss])
        here.set_xdata([k, k])
        length = float(size) * USUAL[optimizer]
        unit_of_lr = "lr" if optimizer == "adamw" else "lr × curvature"
        note.set_text(f"{unit_of_lr} = {length:.2g}\nunit {unit:.1g}")
        said, segments = [], []
        for row, name in enumerate(names):
            found = effects.signs_right(optimizer, name)[:, j]
            share = np.where(found < 0, np.nan, 100 * found / count)
            drawn[name].set_ydata(share)
            dots[row].set_data([share[i]], [row])
            known = found[i] >= 0
            low, high = wilson_interval(int(found[i]), count) if known else (np.nan, np.nan)
            segments.append([(100 * low, row), (100 * high, row)])
            said.append(f"{name} {found[i]}" if known else f"{name} does not apply")
        bars.set_segments(segments)
        return (
            f"{count} decisions, {optimizer}, {k} step{'s' * (k != 1)} a stage, {unit_of_lr} "
            f"{length:.2g}. Signs right: {', '.join(said)}. Shown on the left: {method}."
        )

    moving = [only, right, wrong, note, here, *drawn.values(), bars, *dots]
    return LiveFigure(figure, update, controls, moving)


@dataclass(frozen=True)
class Confidence:
    """How often a predicted sign survives resampling, and whether it was right, M decisions.

    Attributes:
        survival: share of resamples that keep the sign, [M].
        right: for each kind of truth, whether the sign was right, [M].
    """

    survival: Array
    right: dict[str, NDArray[np.bool_]]

    def group(self, low: float, high: float) -> NDArray[np.bool_]:
        """Which decisions have a survival from ``low`` up to, but not with, ``high``."""
        return (self.survival >= low) & (self.survival < high)


def confidence_study(draws: int = 20, seed: int = 0, long: int = 50, chunks: int = 8) -> Confidence:
    """Compare survival with three truths: the same rows, other rows, and a long run.

    Args:
        draws: each has five sources, one target, ten decisions.
        seed: of the first draw.
        long: steps a stage of the long run; the others take one.
        chunks: parts each source is resampled from.
    """
    names = ("same rows", "other rows", f"{long} steps")
    survival: list[Array] = []
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in names}
    upper = np.triu_indices(5, 1)
    for draw in range(100 * seed, 100 * seed + draws):
        *nets, target = regressions(6, draw)
        theta, sources = network_start(draw), {net.name: net for net in nets}
        others = {net.name: net.again(1000 * draw + n) for n, net in enumerate(nets)}
        lr = step_size(sources, theta).lr
        t = tournament(sources, target, theta, lr, chunks=chunks)
        assert t.resampler is not None
        survival.append(t.resampler.survival(t.matrix / lr**2).numpy()[upper])
        said = t.matrix.numpy()[upper]
        for name, trained, k in zip(names, (sources, others, sources), (1, 1, long), strict=True):
            truth, _ = _trained(trained, {"target": target}, theta, lr, k)
            right[name].append(truth * said > 0)
    return Confidence(
        np.concatenate(survival), {name: np.concatenate(found) for name, found in right.items()}
    )


def show_confidence(study: Confidence, edges: Sequence[float] = (0.5, 0.8, 0.95)) -> LiveFigure:
    """Accuracy of signs by how often they survive resampling, for each kind of truth.

    Args:
        study: of `confidence_study`.
        edges: of the groups; the last one reaches to 1. What survives more rarely is left out.
    """
    bounds = [*edges, 1 + 1e-9]
    groups = [study.group(low, high) for low, high in pairwise(bounds)]
    figure, (axes,) = new_figure((6.8, 3.6))
    axes.axhline(50, color=GRAY, linestyle=":", linewidth=1, label="coin toss")
    said = []
    looks = (("o", BLUE), ("s", GREEN), ("X", ORANGE))
    for shift, ((name, right), (mark, color)) in zip(
        (-0.18, 0, 0.18), zip(study.right.items(), looks, strict=True), strict=True
    ):
        hits = [int(right[group].sum()) for group in groups]
        spans = [wilson_interval(n, int(g.sum())) for n, g in zip(hits, groups, strict=True)]
        places = np.arange(len(groups)) + shift
        shares = [100 * n / max(int(g.sum()), 1) for n, g in zip(hits, groups, strict=True)]
        axes.vlines(places, *100 * np.array(spans).T, color="black", linewidth=1.4)
        axes.plot(places, shares, mark, color=color, markersize=9, markeredgecolor="black",
                  label=name)  # fmt: skip
        said.append(f"{name}: " + ", ".join(f"{share:.0f}%" for share in shares))
    ticks = [
        f"{100 * low:.0f} to {min(100 * high, 100):.0f}%\n{int(group.sum())} signs"
        for low, high, group in zip(bounds, bounds[1:], groups, strict=False)
    ]
    axes.set_xticks(range(len(groups)), ticks)
    axes.set(xlabel="share of resamples a sign survives", ylabel="signs right, %", ylim=(30, 103))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False,
                fontsize="small")  # fmt: skip
    alt = f"Signs right by survival, from rare to frequent, for each truth. {'; '.join(said)}."
    return LiveFigure(figure, lambda: alt)
