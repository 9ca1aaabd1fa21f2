"""All orders of a few sources as a tree: planning from the end, and what a plan costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.live.controls import choice, whole
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.live.labels import labels, set_labels
from lietoolkit.order.studies import PLANNERS, Planned, ScheduleStudy, study_schedules
from lietoolkit.plots.common import AMBER, BLUE, GRAY, GREEN, ORANGE, PINK, SKY
from lietoolkit.tasks.toys import network_start, networks

STYLES = dict(
    zip(
        PLANNERS,
        [
            ("s", BLUE),
            (">", GREEN),
            ("<", GRAY),
            ("o", ORANGE),
            ("D", AMBER),
            ("v", PINK),
            ("P", SKY),
        ],
        strict=True,
    )
)
ENDS = ("the end", "the start")
PLACES = ("first", "2nd", "3rd", "4th", "5th")
MOST = 32  # orders tried at random


@dataclass(frozen=True)
class _Tree:
    """All orders as branches: [N!, N] mean losses of branches, and the orders from top to bottom.

    Column d holds the branches after d + 1 choices; the branch with the lowest mean is on top.
    """

    values: np.ndarray
    leaves: list[tuple[str, ...]]


def _grow(study: ScheduleStudy, backwards: bool) -> _Tree:
    ways = [order[::-1] if backwards else order for order in study.orders]
    sums: dict[tuple[str, ...], list[float]] = {}
    for way, loss in zip(ways, study.losses.tolist(), strict=True):
        for depth in range(1, len(way) + 1):
            sums.setdefault(way[:depth], []).append(loss)
    means = {branch: float(np.mean(found)) for branch, found in sums.items()}

    def place(way: tuple[str, ...]) -> list[Any]:
        return [(means[way[:depth]], way[:depth]) for depth in range(1, len(way) + 1)]

    leaves = sorted(ways, key=place)
    values = [[mean for mean, _ in place(way)] for way in leaves]
    return _Tree(np.array(values), leaves)


@cache
def _example() -> dict[str, list[ScheduleStudy]]:
    *nets, target = networks(5)
    sources = dict(zip("ABCD", nets, strict=True))
    theta = network_start()
    return {
        "SGD, 4 steps": [study_schedules(sources, target, theta, 0.03, 4)],
        "AdamW, 4 steps": [study_schedules(sources, target, theta, 3e-3, 4, "adamw")],
    }


def explore_schedules(
    studies: Mapping[str, Sequence[ScheduleStudy]] | None = None, cell: str | None = None
) -> LiveFigure:
    """All orders as a tree, planning from the end round by round, and what a plan costs.

    Left: every order is a row; each column is one more choice, colored by the mean final loss of
    the orders that share the choices so far, the lowest on top. The tree grows from the end (who
    comes last?) or from the start. Dots on its right are the orders still open to the planner.
    Middle: the scores of the planner's round, on the range of what the orders really reach. Right:
    share of the gap from the median to the best order, against training runs spent, median over
    the draws.

    Args:
        studies: {cell: draws}, all of the same names and as many draws in each cell; default: two
            small ones.
        cell: shown first; default: the last one.

    Raises:
        InputError: no draw, draws of other names, or an unknown cell.
    """
    cells = {name: list(draws) for name, draws in (studies or _example()).items()}
    counts = {len(draws) for draws in cells.values()}
    listed = {tuple(study.names) for draws in cells.values() for study in draws}
    if len(counts) != 1 or len(listed) != 1:
        raise InputError("studies: expected equally many draws in each cell, all of the same names")
    if cell is not None and cell not in cells:
        raise InputError(f"cell: expected one of {', '.join(cells)}; found {cell!r}")
    n, draws = len(listed.pop()), counts.pop()
    controls = {
        "cell": choice("trained with", list(cells), cell or list(cells)[-1]),
        "planner": choice("planner", PLANNERS, "from the end, k/4"),
        "round": whole("rounds planned", 1, n - 1, 1),
        "budget": whole("orders tried at random", 1, min(MOST, math.factorial(n)), 4),
        "grown": choice("tree grows from", ENDS),
    }
    if draws > 1:
        controls["draw"] = whole("draw", 1, draws, 1)
    figure, axes = new_figure((10.6, 4.7), 3, width_ratios=[1.5, 0.8, 1.15])
    panels = [panel(ax, cells) for panel, ax in zip((_orders, _scores, _costs), axes, strict=True)]

    def update(cell: str, planner: str, round: int, budget: int, grown: str, draw: int = 1) -> str:
        now = _Shown(cell, draw - 1, cells[cell][draw - 1], planner, round, budget, grown)
        said = [move(now) for _, move in panels]
        return f"{cell}, draw {draw} of {draws}. " + " ".join(said)

    return LiveFigure(
        figure, update, controls, [artist for moving, _ in panels for artist in moving]
    )


@dataclass(frozen=True)
class _Shown:
    """What the controls say."""

    cell: str
    draw: int
    study: ScheduleStudy
    planner: str
    round: int
    budget: int
    grown: str

    @property
    def plan(self) -> Planned:
        return self.study.plans[self.planner]

    @property
    def tail(self) -> list[str]:
        """The end of the order that is decided after these rounds; without rounds, all of it."""
        known = self.round if self.plan.rounds else len(self.study.names)
        return self.plan.order[len(self.study.names) - known :]

    def scaled(self, loss: Any) -> Any:
        """0 for the best of all orders, 1 for the worst."""
        losses = self.study.losses
        return (loss - losses.min()) / (np.ptp(losses) or 1.0)


_Panel = tuple[list[Any], Callable[[_Shown], str]]
_Cells = Mapping[str, Sequence[ScheduleStudy]]


def _orders(ax: Any, cells: _Cells) -> _Panel:
    """The tree, with the best order's branch and the planner's."""
    from matplotlib import colormaps

    trees = {
        (name, draw, end): _grow(study, end == ENDS[0])
        for name, studies in cells.items() for draw, study in enumerate(studies) for end in ENDS
    }  # fmt: skip
    rows, n = next(iter(trees.values())).values.shape
    sizes = [math.factorial(n - 1 - depth) for depth in range(n)]
    # In a few levels: a picture that is kept has a small palette, and the markers need some of it.
    levels = colormaps["viridis"].resampled(24)
    image = ax.imshow(
        np.zeros((rows, n)), cmap=levels, vmin=0, vmax=1, aspect="auto",
        interpolation="nearest", extent=(0, n, rows, 0),
    )  # fmt: skip
    for depth, width in zip(range(n - 1), (1.6, 0.8, 0.3, 0.3), strict=False):
        lines = range(sizes[depth], rows, sizes[depth])
        ax.hlines(list(lines), depth, depth + 1, color="white", linewidth=width)
        ax.axvline(depth + 1, color="white", linewidth=1.6)
    ax.set(xlim=(-0.05, n + 0.55), ylim=(rows + 1, -rows / 12), xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_visible(False)
    bar = ax.figure.colorbar(
        image, cax=ax.inset_axes((0.15, -0.06, 0.6, 0.03)), orientation="horizontal",
        ticks=[0, 1], label="mean final loss of the branch",
    )  # fmt: skip
    bar.ax.set_xticklabels(["best", "worst"])
    heads, letters = labels(ax), labels(ax)
    (edge,) = ax.plot([], [], "-", color="white", linewidth=4)
    (best,) = ax.plot([], [], "-", color="black", linewidth=2)
    (star,) = ax.plot([], [], "*", color=ORANGE, markeredgecolor="black", markersize=15)
    (still,) = ax.plot([], [], ".", color="black", markersize=3)
    (route,) = ax.plot([], [], "o", color="white", markeredgecolor="black", markersize=8)
    places = ["first", *PLACES[1 : n - 1], "last"]

    def move(now: _Shown) -> str:
        tree, backwards = trees[now.cell, now.draw, now.grown], now.grown == ENDS[0]
        turn = -1 if backwards else 1
        colors = now.scaled(tree.values)
        image.set_data(colors)
        set_labels(heads, places[::turn], [(d + 0.5, -rows / 24) for d in range(n)],
                   ["black"] * n)  # fmt: skip
        # Further columns are too narrow for letters.
        blocks = [(d, top) for d in range(min(2, n - 1)) for top in range(0, rows, sizes[d])]
        set_labels(
            letters,
            [tree.leaves[top][d] for d, top in blocks],
            [(d + 0.3, top + sizes[d] / 2) for d, top in blocks],
            ["black" if colors[top, d] > 0.55 else "white" for d, top in blocks],
        )

        def way(order: Sequence[str], length: int) -> tuple[list[float], list[float]]:
            at = tree.leaves.index(tuple(order)[::turn])
            ys = [at // sizes[d] * sizes[d] + sizes[d] / 2 for d in range(length)]
            return [d + 0.7 for d in range(length)], ys

        top = now.study.orders[int(np.argmin(now.study.losses))]
        _, ys = way(top, n)
        boxes = [
            (d + x, y + side * sizes[d])
            for d, y in enumerate(ys)
            for x, side in ((0.02, -0.5), (0.98, -0.5), (0.98, 0.5), (0.02, 0.5), (0.02, -0.5),
                            (math.nan, 0.0))
        ]  # fmt: skip
        for line in (edge, best):
            line.set_data(*zip(*boxes, strict=True))
        star.set_data([n + 0.35], [ys[-1]])
        tail, order = now.tail, now.plan.order
        opened = [r for r, o in enumerate(tree.leaves) if list(o[::turn])[n - len(tail) :] == tail]
        still.set_data(np.full(len(opened), n + 0.08), np.array(opened) + 0.5)
        route.set_data(*way(order, n if len(opened) == 1 else len(tail) if backwards else 0))
        return (
            f"Best of {rows} orders: {' '.join(top)}. Planner {now.planner}: {' '.join(order)}, "
            f"rank {now.study.rank(order)}. Last {len(tail)} decided, {len(opened)} orders open. "
            f"Tree from {now.grown}."
        )

    return [image, heads, letters, edge, best, star, still, route], move


def _scores(ax: Any, cells: _Cells) -> _Panel:
    """One round: each candidate's score, and what the orders that end so really reach."""
    names = next(iter(cells.values()))[0].names
    n = len(names)
    bars = [ax.plot([], [], "-", color=GRAY, linewidth=5, solid_capstyle="butt")[0] for _ in names]
    (means,) = ax.plot([], [], "_", color="black", markersize=13, markeredgewidth=2)
    (scores,) = ax.plot([], [], "D", color=AMBER, markeredgecolor="black", markersize=8)
    (taken,) = ax.plot([], [], "o", color="black", fillstyle="none", markersize=17,
                       markeredgewidth=1.5)  # fmt: skip
    ax.set(xlim=(-0.6, n - 0.4), ylim=(-0.28, 1.28), yticks=[0, 1], xticks=range(n),
           ylabel="final loss", xlabel="diamond: score; bar: real orders")  # fmt: skip
    ax.set_xticklabels(names)
    ax.set_yticklabels(["best", "worst"], rotation=90, va="center")
    asked = ax.text(0.5, 1.03, "who?", transform=ax.transAxes, ha="center")

    def move(now: _Shown) -> str:
        rounds, after = now.plan.rounds, now.tail[1:]
        rivals = [name for name in names if rounds and name not in after]
        middle, told = np.full(n, np.nan), np.full(n, np.nan)
        for i, name in enumerate(names):
            bars[i].set_visible(name in rivals)
            if name in rivals:
                ends = [
                    list(order[n - len(now.tail) :]) == [name, *after] for order in now.study.orders
                ]
                reach = now.scaled(now.study.losses[ends])
                bars[i].set_data([i, i], [reach.min() - 0.005, reach.max() + 0.005])
                middle[i] = reach.mean()
                told[i] = now.scaled(rounds[min(now.round, len(rounds)) - 1][name])
        means.set_data(np.arange(n), middle)
        scores.set_data(np.arange(n), np.clip(told, -0.2, 1.2))
        chosen = names.index(now.tail[0])
        taken.set_data([chosen], [np.clip(told[chosen], -0.2, 1.2)])
        place = PLACES[n - len(after) - 1] if after else "last"
        asked.set_text(f"who comes {place}?" if rivals else "no rounds: all at once")
        listed = ", ".join(f"{names[i]} {told[i]:.2f}" for i in range(n) if names[i] in rivals)
        return f"Scores, best order 0, worst 1: {listed}." if rivals else "It has no rounds."

    return [*bars, means, scores, taken, asked], move


def _costs(ax: Any, cells: _Cells) -> _Panel:
    """Share of the gap against training runs, median over the draws: planners and random orders."""
    tries = np.arange(1, min(MOST, len(next(iter(cells.values()))[0].orders)) + 1)
    draws = len(next(iter(cells.values())))
    floor = -1.05
    chance = {
        name: [float(np.median([study.random(int(b)) for study in studies])) for b in tries]
        for name, studies in cells.items()
    }
    marks = {
        (name, planner): (
            float(np.mean([study.plans[planner].cost for study in studies])),
            float(np.median([study.share(planner) for study in studies])),
        )
        for name, studies in cells.items() for planner in PLANNERS
    }  # fmt: skip
    ax.axhline(0, color=GRAY, linewidth=0.8)
    (random,) = ax.plot([], [], "-", color="black", linewidth=1.5, label="random, best of B")
    (tried,) = ax.plot([], [], "X", color="black", markersize=9)
    points = {
        planner: ax.plot([], [], mark, color=color, markeredgecolor="black", markersize=9,
                         linestyle="none", label=planner)[0]
        for planner, (mark, color) in STYLES.items()
    }  # fmt: skip
    (ring,) = ax.plot([], [], "o", color="black", fillstyle="none", markersize=18,
                      markeredgewidth=1.5)  # fmt: skip
    ax.set(xscale="log", xlim=(0.1, 40), ylim=(-1.1, 1.15), yticks=[-1, 0, 1],
           xlabel="training runs spent")  # fmt: skip
    ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    ax.set_yticklabels(["", "median", "best"], rotation=90, va="center")
    ax.legend(loc="lower right", fontsize="x-small", frameon=False, handletextpad=0.3,
              labelspacing=0.6, borderpad=0.1, markerscale=0.8)  # fmt: skip
    note = ax.text(0.5, 1.03, "plan", transform=ax.transAxes, ha="center", fontsize="small")

    def move(now: _Shown) -> str:
        curve = chance[now.cell]
        random.set_data(tries, np.maximum(curve, floor))
        tried.set_data([now.budget], [max(curve[now.budget - 1], floor)])
        for planner, point in points.items():
            cost, share = marks[now.cell, planner]
            point.set_data([cost], [max(share, floor)])
        cost, share = marks[now.cell, now.planner]
        ring.set_data([cost], [max(share, floor)])
        luck = curve[now.budget - 1]
        note.set_text(f"plan {share:.2f} for {cost:.1f} runs; random {luck:.2f} for {now.budget}")
        return (
            f"Share of the gap from median to best, median of {draws}: {share:.2f} for {cost:.1f} "
            f"training runs; best of {now.budget} random orders {luck:.2f}."
        )

    return [random, tried, *points.values(), ring, note], move
