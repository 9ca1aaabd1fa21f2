"""From a matrix of pairs to one order: sorting it, and cycles that no order can please."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.live.controls import choice, slider
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.order.linear_ordering import (
    borda_order,
    exact_order,
    order_value,
    search_order,
)
from lietoolkit.plots.common import BLUE, GRAY, GREEN, ORANGE, PINK

RANKINGS = {"Borda": borda_order, "exact": exact_order, "search": search_order}
MARKS = {"Borda": ("s", BLUE), "exact": ("*", ORANGE), "search": ("D", GREEN)}


def example_matrix(n: int = 6, seed: int = 0) -> np.ndarray:
    """An antisymmetric matrix with a clear order and some noise, [n, n]."""
    random = np.random.default_rng(seed)
    strength = np.linspace(1, -1, n)[random.permutation(n)]
    noise = random.normal(size=(n, n))
    return strength[:, None] - strength[None, :] + 0.4 * (noise - noise.T)


def explore_matrix(matrix: Any = None, names: Sequence[str] | None = None) -> LiveFigure:
    """The matrix of pairs re-sorted by each method, and where its order lies among all N!.

    Left: rows trained first, columns second; a dot where the row's source is better first. A good
    order has its dots above the diagonal; the title counts them. Right: the predicted value of all
    orders, and each method's. "cycles" mixes in effects that no order can satisfy.

    Args:
        matrix: [N, N] antisymmetric, N at most 7; default: an example.
        names: of the sources.
    """
    base = example_matrix() if matrix is None else np.asarray(matrix, dtype=float)
    n = len(base)
    if base.shape != (n, n) or not 2 <= n <= 7:
        raise InputError(f"matrix: expected shape [N, N] with N from 2 to 7, got {base.shape}")
    names = list(names or "ABCDEFG"[:n])
    base = base / np.abs(base).max()
    # Round and round: i before its next three, whoever they are.
    steps = (np.arange(n)[None, :] - np.arange(n)[:, None]) % n
    cyclic = np.select([steps == 0, steps < n / 2, steps > n / 2], [0.0, -1.0, 1.0])
    controls = {
        "by": choice("sorted by", ["as given", *RANKINGS]),
        "cycles": slider("cycles mixed in", 0.0, 1.0, 0.0, 0.05),
    }
    figure, (table, spread) = new_figure((9.2, 3.9), 2, width_ratios=[1, 1.3])
    image = table.imshow(base, cmap="PuOr_r", vmin=-1, vmax=1)
    (dots,) = table.plot([], [], "o", color="black", markeredgecolor="white", markersize=6)
    table.plot([-0.5, n - 0.5], [-0.5, n - 0.5], ":", color=GRAY, linewidth=1)
    table.set(xticks=[], yticks=[], xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    table.set_ylabel("trained first", labelpad=26)
    table.set_xlabel("trained second", labelpad=20)
    pleased = table.set_title("", fontsize="medium")
    place = {"ha": "center", "va": "center"}
    beside = [table.text(-0.9, i, "", **place) for i in range(n)]
    below = [table.text(i, n - 0.1, "", **place) for i in range(n)]
    figure.colorbar(image, ax=table, shrink=0.7, ticks=[-1, 0, 1],
                    label="predicted effect, row first")  # fmt: skip
    orders = np.array(list(permutations(range(n))))
    upper = np.triu_indices(n, 1)
    bins = np.linspace(-1, 1, 42)
    (hills,) = spread.plot([], [], "-", color=GRAY, drawstyle="steps-mid", linewidth=1.5,
                           label=f"all {len(orders)} orders")  # fmt: skip
    marks = {
        name: spread.plot([], [], mark, color=color, markersize=11, markeredgecolor="black",
                          linestyle="none", label=name)[0]
        for name, (mark, color) in MARKS.items()
    }  # fmt: skip
    (chosen,) = spread.plot([], [], "o", color="black", fillstyle="none", markersize=20,
                            markeredgewidth=1.5, label="shown left")  # fmt: skip
    spread.set(xlim=(-1.1, 1.1), ylim=(-0.22, 1.05), yticks=[],
               xlabel="predicted loss of an order, worst = 1; left is better")  # fmt: skip
    spread.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False,
                  fontsize="small", columnspacing=1, handletextpad=0.4,
                  markerscale=0.6)  # fmt: skip

    def update(by: str, cycles: float) -> str:
        mixed = (1 - cycles) * base + cycles * cyclic
        found = {name: rank(mixed) for name, rank in RANKINGS.items()}
        shown = found.get(by, list(range(n)))
        permuted = mixed[np.ix_(shown, shown)]
        image.set_data(permuted)
        rows, columns = np.nonzero(permuted < -1e-12)
        dots.set_data(columns, rows)
        for at, i in enumerate(shown):
            beside[at].set_text(names[i])
            below[at].set_text(names[i])
        values = 0.5 * mixed[orders[:, upper[0]], orders[:, upper[1]]].sum(1)
        worst = np.abs(values).max() or 1.0
        counts, _ = np.histogram(values / worst, bins)
        hills.set_data((bins[1:] + bins[:-1]) / 2, counts / max(counts.max(), 1))
        for height, (name, order) in zip((-0.06, -0.11, -0.16), found.items(), strict=True):
            marks[name].set_data([order_value(mixed, order) / worst], [height])
        value = order_value(mixed, shown)
        chosen.set_data([value / worst], [-0.11])
        rank = 1 + int((values < value - 1e-12).sum())
        above = int((permuted[upper] < -1e-12).sum())
        pleased.set_text(f"{above} of {len(upper[0])} pairs pleased")
        return (
            f"Sorted by {by}: {', '.join(names[i] for i in shown)}. {above} of {len(upper[0])} "
            f"pairs are in their better order; rank {rank} of {len(orders)} orders."
        )

    moving = [image, dots, pleased, *beside, *below, hills, *marks.values(), chosen]
    return LiveFigure(figure, update, controls, moving)


def explore_cycle(ab: float = -0.6, bc: float = -0.4, ca: float = 0.5) -> LiveFigure:
    """Rock, paper, scissors with three sources: build a cycle and see what each order is worth.

    Args:
        ab, bc, ca: order effect of each pair; negative: the first one is better first.
    """
    controls = {
        "ab": slider("A before B", -1, 1, ab, 0.1, 1),
        "bc": slider("B before C", -1, 1, bc, 0.1, 1),
        "ca": slider("C before A", -1, 1, ca, 0.1, 1),
    }
    figure, (ring, worth) = new_figure((8.6, 3.6), 2, width_ratios=[1, 1.35])
    at = {"A": (0.0, 1.0), "B": (0.87, -0.5), "C": (-0.87, -0.5)}
    lines, heads = [], []
    for _ in range(3):
        lines += ring.plot([], [], "-", color=BLUE, solid_capstyle="butt")
        heads += ring.plot([], [], "o", color=BLUE, markersize=9, markeredgecolor="black")
    for name, (x, y) in at.items():
        ring.plot(x, y, "o", color="white", markeredgecolor="black", markersize=26)
        ring.text(x, y, name, ha="center", va="center", fontsize="large")
    verdict = ring.text(0, -1.15, "", ha="center", va="center")
    ring.set(xlim=(-1.3, 1.3), ylim=(-1.35, 1.4), aspect="equal", xticks=[], yticks=[],
             title="ball end: better second")  # fmt: skip
    for side in ring.spines.values():
        side.set_visible(False)
    orders = ["".join(order) for order in permutations("ABC")]
    worth.axvline(0, color=GRAY, linewidth=0.8)
    rows = np.arange(6)
    bars = [worth.plot([], [], "-", color=GRAY, linewidth=7, solid_capstyle="butt")[0]
            for _ in rows]  # fmt: skip
    (best,) = worth.plot([], [], "*", color=ORANGE, markersize=15, markeredgecolor="black",
                         linestyle="none", label="best")  # fmt: skip
    (borda,) = worth.plot([], [], "s", color=PINK, markersize=8, markeredgecolor="black",
                          linestyle="none", label="Borda")  # fmt: skip
    worth.set(yticks=rows, yticklabels=[" → ".join(o) for o in orders], ylim=(5.6, -0.6),
              xlim=(-1.7, 1.7), xlabel="predicted loss of the order; left is better")  # fmt: skip
    worth.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)

    def update(ab: float, bc: float, ca: float) -> str:
        matrix = np.array([[0, ab, -ca], [-ab, 0, bc], [ca, -bc, 0]])
        for n, (first, second, effect) in enumerate((("A", "B", ab), ("B", "C", bc),
                                                     ("C", "A", ca))):  # fmt: skip
            start, end = (first, second) if effect <= 0 else (second, first)
            p, q = np.array(at[start]), np.array(at[end])
            lines[n].set_data(*np.stack([p + 0.27 * (q - p), p + 0.68 * (q - p)]).T)
            lines[n].set_linewidth(0.01 + 8 * abs(effect))
            heads[n].set_data(*(p + 0.7 * (q - p))[:, None])
            heads[n].set_visible(effect != 0)
        values = np.array([order_value(matrix, ["ABC".index(x) for x in o]) for o in orders])
        for bar, row, value in zip(bars, rows, values, strict=True):
            bar.set_data([0, value], [row, row])
        winners = np.flatnonzero(values < values.min() + 1e-9)
        best.set_data(values[winners], winners)
        borda_row = orders.index("".join("ABC"[i] for i in borda_order(matrix)))
        borda.set_data([values[borda_row]], [borda_row])
        signs = np.sign([ab, bc, ca])
        cycle = abs(signs.sum()) == 3
        verdict.set_text("a cycle: no order pleases all three" if cycle else "no cycle")
        return (
            f"Effects A before B {ab:+.1f}, B before C {bc:+.1f}, C before A {ca:+.1f}: "
            f"{'a cycle' if cycle else 'no cycle'}. Best: "
            f"{', '.join(orders[i] for i in winners)}; Borda: {orders[borda_row]}."
        )

    return LiveFigure(figure, update, controls, [*lines, *heads, verdict, *bars, best, borda])
