"""Choose sources and a target: their matrix in the planned order, and where the plan ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.live.controls import choice, tick
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.live.labels import labels, set_labels
from lietoolkit.live.tournaments import MARKS, RANKINGS, example_matrix
from lietoolkit.order.linear_ordering import order_value
from lietoolkit.plots.common import BLUE, GRAY, ORANGE

LARGEST = 7  # sources; 5,040 orders are ranked in a redraw
_USE = "train "  # controls of sources, kept apart from those of the target and the method


def explore_ordering(
    matrices: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    chosen: Sequence[str] | None = None,
) -> LiveFigure:
    """The pairs of the chosen sources for the chosen target, in the planned order.

    Left: what a pair's order changes in the target's loss, rows trained first. Right: all orders
    of the chosen sources from best to worst, as predicted, and each method's order among them.

    Args:
        matrices: {target: [N, N] antisymmetric effects in nats}, as ``Tournament.targets``;
            N at most 7. Default: an example.
        names: the N sources.
        chosen: the sources ticked at first; default all.

    Raises:
        InputError: a matrix of another shape, or an unknown source in ``chosen``.
    """
    if matrices is None:
        matrices = {"first target": example_matrix(5, 1), "second target": example_matrix(5, 2)}
    tables = {target: np.asarray(m, dtype=float) for target, m in matrices.items()}
    n = len(next(iter(tables.values())))
    names = list(names or "ABCDEFG"[:n])
    for target, table in tables.items():
        if table.shape != (len(names),) * 2 or not 2 <= len(names) <= LARGEST:
            raise InputError(
                f"matrices[{target!r}]: expected shape [N, N] for N = {len(names)} names, "
                f"N from 2 to {LARGEST}; found {table.shape}"
            )
    unknown = sorted(set(chosen or ()) - set(names))
    if unknown:
        raise InputError(f"chosen: expected names out of {', '.join(names)}; found {unknown[0]!r}")
    controls = {
        "target": choice("target", list(tables)),
        "by": choice("planned by", list(RANKINGS), "exact"),
        **{_USE + name: tick(name, name in (chosen or names)) for name in names},
    }
    figure, (table_ax, ranks) = new_figure((9.6, 4.2), 2, width_ratios=[1, 1.2])
    image = table_ax.imshow(np.zeros((n, n)), cmap="PuOr_r", vmin=-1, vmax=1)
    table_ax.set(xticks=[], yticks=[], xlim=(-2.0, n - 0.5), ylim=(n + 0.2, -0.5))
    table_ax.set_ylabel("trained first, from top to bottom")
    table_ax.set_xlabel("trained second")
    for side in table_ax.spines.values():
        side.set_visible(False)
    beside = [table_ax.text(-0.65, i, "", ha="right", va="center") for i in range(n)]
    below = [
        table_ax.text(i, n - 0.35, "", ha="right", va="top", rotation=30, fontsize="small",
                      rotation_mode="anchor")
        for i in range(n)
    ]  # fmt: skip
    cells = labels(table_ax)
    ranks.axhline(0, color=GRAY, linewidth=0.8)
    (curve,) = ranks.plot([], [], "-", color="black", linewidth=1.5, label="all orders")
    marks = {
        name: ranks.plot([], [], mark, color=color, markersize=size, markeredgecolor="black",
                         linestyle="none", label=name)[0]
        for size, (name, (mark, color)) in zip((17, 13, 5), MARKS.items(), strict=True)
    }  # fmt: skip
    (shown,) = ranks.plot([], [], "o", color="black", fillstyle="none", markersize=20,
                          markeredgewidth=1.5, label="shown left")  # fmt: skip
    ranks.set(xlim=(-0.06, 1.06), ylim=(-1.15, 1.15), xticks=[0, 0.5, 1], xlabel="rank",
              ylabel="predicted loss of the order, worst = 1")  # fmt: skip
    ranks.set_xticklabels(["best", "middle", "worst"])
    ranks.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False,
                 fontsize="small", columnspacing=1, handletextpad=0.4,
                 markerscale=0.6)  # fmt: skip
    note = ranks.text(0.03, 0.97, "", transform=ranks.transAxes, va="top", fontsize="small")

    def update(target: str, by: str, **use: bool) -> str:
        kept = [i for i, name in enumerate(names) if use[_USE + name]]
        full = tables[target]
        for artist in (*beside, *below):
            artist.set_text("")
        if len(kept) < 2:
            image.set_data(np.full((n, n), np.nan))
            set_labels(cells, [], [], [])
            for artist in (curve, *marks.values(), shown):
                artist.set_data([], [])
            note.set_text("tick at least two sources")
            return "No order: an order needs at least two sources; tick some more of them."
        part = full[np.ix_(kept, kept)]
        unit = float(np.abs(part).max()) or 1.0
        found = {method: rank(part) for method, rank in RANKINGS.items()}
        order = found[by]
        drawn = np.full((n, n), np.nan)
        for i, a in enumerate(order):
            beside[i].set_text(names[kept[a]])
            below[i].set_text(names[kept[a]])
            below[i].set_y(len(kept) - 0.35)
            for j, b in enumerate(order):
                if i != j:
                    drawn[i, j] = part[a, b] / unit
        filled = np.argwhere(np.isfinite(drawn))
        shares = drawn[tuple(filled.T)]
        set_labels(
            cells,
            [f"{share:+.2f}".replace("-", "\N{MINUS SIGN}") for share in shares],
            [(j, i) for i, j in filled],
            ["white" if abs(share) > 0.62 else "black" for share in shares],
        )
        image.set_data(np.ma.masked_invalid(drawn))
        orders = np.array(list(permutations(range(len(kept)))))
        upper = np.triu_indices(len(kept), 1)
        values = np.sort(0.5 * part[orders[:, upper[0]], orders[:, upper[1]]].sum(1))
        worst = float(np.abs(values).max()) or 1.0
        curve.set_data(np.linspace(0, 1, len(values)), values / worst)

        def place(which: Sequence[int]) -> tuple[list[float], list[float]]:
            value = order_value(part, which)
            rank = int((values < value - 1e-9 * worst).sum())
            return [rank / (len(values) - 1)], [value / worst]

        for method, mark in marks.items():
            mark.set_data(*place(found[method]))
        shown.set_data(*place(order))
        value = order_value(part, order)
        note.set_text(
            f"{by}, {len(values)} orders\nlargest cell: {unit:.1e} nats\n"
            f"plan against its reverse: {2 * value:+.1e} nats"
        )
        rank = 1 + int((values < value - 1e-9 * worst).sum())
        listed = ", ".join(names[kept[i]] for i in order)
        return (
            f"Target {target}, planned by {by}: {listed}. Predicted rank {rank} of {len(values)} "
            f"orders; against its reverse {2 * value:+.1e} nats."
        )

    moving = [image, *beside, *below, cells, curve, *marks.values(), shown, note]
    return LiveFigure(figure, update, controls, moving)


def picked(figure: LiveFigure, most: int = 4) -> tuple[list[str], str]:
    """The sources ticked in an ordering explorer and its target, to train in earnest.

    Raises:
        InputError: fewer than two sources, or more than ``most``: their orders are too many.
    """
    values = figure.values
    names = [key.removeprefix(_USE) for key, on in values.items() if key.startswith(_USE) and on]
    if not 2 <= len(names) <= most:
        raise InputError(
            f"sources: expected 2 to {most} ticked in the figure, found {len(names)}; every order "
            "of them is trained next"
        )
    return names, values["target"]


def show_orders(
    predicted: Any, measured: Any, orders: Sequence[Sequence[str]], plan: Sequence[str]
) -> LiveFigure:
    """Every order as a point, predicted against trained; the plan and its reverse stand out.

    Args:
        predicted: [n] predicted losses, up to one constant.
        measured: [n] losses after training, in nats.
        orders: n orders of the same sources.
        plan: one of them.
    """
    x, y = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    x, y = x - x.mean(), y - y.mean()
    unit = float(max(np.abs(x).max(), np.abs(y).max())) or 1.0
    figure, (axes,) = new_figure((6.4, 4.2))
    axes.axline((0, 0), slope=1, color=GRAY, linestyle="--", linewidth=1, label="exact")
    axes.plot(x / unit, y / unit, "o", color=BLUE, markersize=7, markeredgecolor="black",
              label="one order")  # fmt: skip
    listed = list(map(tuple, orders))
    ends = {"plan": listed.index(tuple(plan)), "its reverse": listed.index(tuple(plan)[::-1])}
    for (label, at), mark in zip(ends.items(), ("*", "s"), strict=True):
        axes.plot(x[at] / unit, y[at] / unit, mark, color=ORANGE, markersize=15 - 5 * (mark == "s"),
                  markeredgecolor="black", linestyle="none", label=label)  # fmt: skip
    axes.set(xlabel=f"predicted loss from the mean of all orders, in {unit:.1e} nats",
             ylabel="measured, same unit", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))  # fmt: skip
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False,
                fontsize="small")  # fmt: skip
    rank = 1 + int((y < y[ends["plan"]]).sum())
    alt = (
        f"{len(y)} orders, predicted against measured loss, largest distance from the mean "
        f"{unit:.1e} nats: the plan {', '.join(plan)} has measured rank {rank}."
    )
    return LiveFigure(figure, lambda: alt)
