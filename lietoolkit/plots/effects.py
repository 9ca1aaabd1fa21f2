"""Pairwise effects, scores, confidence and trade-offs: what a plan predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.plots.common import (
    BLUE,
    GRAY,
    MINUS,
    ORANGE,
    axes_or_new,
    describe,
    loss_text,
    short_name,
    unit_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def order_matrix(
    matrix: Any, names: Sequence[str], order: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """The pairwise effects E_ij = L(i then j) − L(j then i) as a map, in the order given.

    Rows are trained first, columns second; in a good order the cells right of the diagonal are
    negative. The color scale is symmetric about zero. Up to 8 sources the values are written
    into the cells, in units of the power of ten named on the color bar; above that, a dot marks
    the cells where the row's source is better first.

    Args:
        matrix: [N, N] antisymmetric effects in loss units, rows and columns in ``names``.
        names: the N source names.
        order: the same names in the order to draw, first to last; ``names`` when absent.
        ax: where to draw; a new figure when absent.

    Returns:
        The axes.

    Raises:
        InputError: the matrix is not N by N, or ``order`` is not a permutation of ``names``.
    """
    order = list(names if order is None else order)
    values = np.asarray(matrix, dtype=float)
    n = len(names)
    if values.shape != (n, n):
        raise InputError(f"matrix: expected shape ({n}, {n}) for {n} names, found {values.shape}")
    if sorted(order) != sorted(names):
        raise InputError(f"order: expected the names {list(names)} once each, found {order}")
    index = [list(names).index(name) for name in order]
    values = values[np.ix_(index, index)]
    ax = axes_or_new(ax)
    limit = float(np.nanmax(np.abs(values))) if n else 1.0
    limit = limit or 1.0
    unit, unit_text = unit_of(limit)
    shown = np.ma.masked_array(values / unit, mask=np.eye(n, dtype=bool))
    bound = limit / unit
    image = ax.imshow(shown, cmap="PuOr_r", vmin=-bound, vmax=bound)
    for i in range(n):
        for j in range(n):
            if i == j:
                ax.text(j, i, "·", ha="center", va="center", alpha=0.5)
            elif n <= 8:
                ink = "white" if abs(shown[i, j]) > 0.62 * bound else "black"
                text = f"{shown[i, j]:+.{2 if n <= 6 else 1}f}".replace("-", MINUS)
                ax.text(j, i, text, ha="center", va="center", color=ink)
            elif values[i, j] < 0:
                ax.text(j, i, "•", ha="center", va="center", color="black", fontsize=6)
    labels = [short_name(name) for name in order]
    turn = 0 if n <= 6 and max(map(len, labels), default=0) <= 10 else 40
    ax.set_xticks(range(n), labels, rotation=turn, ha="right" if turn else "center")
    ax.set_yticks(range(n), labels)
    ax.set_xlabel("trained second")
    ax.set_ylabel("trained first")
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label(f"change in loss{unit_text}\nnegative: better in this order")
    above = values[np.triu_indices(n, 1)]
    row, column = np.unravel_index(np.argmin(values), values.shape) if n > 1 else (0, 0)
    describe(
        ax,
        f"Pairwise effects of {n} sources in the order {', '.join(order)}: "
        f"{int((above < 0).sum())} of {above.size} pairs agree with this order; the strongest is "
        f"{order[row]} before {order[column]}, {loss_text(float(values[row, column]))}.",
    )
    return ax


def score_bars(
    scores: Mapping[str, float], order: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Row sums of the matrix (Borda scores) as bars, first trained at the top.

    Args:
        scores: {name: row sum in loss units}; negative pulls to the front.
        order: names from first to last; ascending scores when absent.
        ax: where to draw.

    Returns:
        The axes.
    """
    order = list(order) if order is not None else sorted(scores, key=lambda name: scores[name])
    ax = axes_or_new(ax)
    values = [float(scores[name]) for name in order]
    _signed_bars(ax, order, values)
    ax.set_xlabel("score: sum of a source's pairwise effects\n← pulls to the front · to the end →")
    listed = ", ".join(f"{name} {loss_text(v)}" for name, v in zip(order, values, strict=True))
    describe(ax, f"Pull of each source: {listed}. Negative pulls to the front.")
    return ax


def target_tradeoff(
    targets: Mapping[str, float], forgetting: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Plan against reverse for every target and for every source taken as a target.

    Args:
        targets: {target: L(plan) − L(reverse)}; negative: the plan is better for it.
        forgetting: {source: the same for the source's own loss}; positive: the plan makes the
            model forget more of this source than the reverse would.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax = axes_or_new(ax)
    names = [f"target: {name}" for name in targets] + [f"source: {name}" for name in forgetting]
    values = [float(v) for v in (*targets.values(), *forgetting.values())]
    _signed_bars(ax, names, values)
    if targets and forgetting:
        ax.axhline(len(targets) - 0.5, color=GRAY, linestyle=":", linewidth=1)
    ax.set_xlabel(
        "loss after the plan minus loss after its reverse\n← plan better · reverse better →"
    )
    listed = ", ".join(f"{n} {loss_text(v)}" for n, v in zip(names, values, strict=True))
    describe(ax, f"Loss after the plan minus loss after its reverse: {listed}.")
    return ax


def confidence_bars(
    pairs: Sequence[tuple[str, str]], survival: Sequence[float], ax: Axes | None = None
) -> Axes:
    """How often each neighboring pair of the order keeps its sign when batches are resampled.

    Args:
        pairs: (first, second) names, in the order of the plan.
        survival: shares in [0, 1]; one half is a coin toss. NaN where nothing was resampled.
        ax: where to draw.

    Returns:
        The axes.
    """
    ax = axes_or_new(ax)
    rows = np.arange(len(pairs))
    share = np.asarray(survival, dtype=float)
    sure = share >= 0.9
    ax.axvline(0.5, color=GRAY, linestyle="--", linewidth=1)
    ax.hlines(rows, 0.5, share, color=GRAY, linewidth=2)
    for mask, marker, color, label in (
        (sure, "o", BLUE, "at least 90%"),
        (~sure, "D", ORANGE, "below 90%"),
    ):
        if mask.any():
            ax.plot(share[mask], rows[mask], marker, color=color, markersize=8, label=label,
                    linestyle="none")  # fmt: skip
    ax.set_yticks(rows, [f"{short_name(a)} before {short_name(b)}" for a, b in pairs])
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(min(0.45, float(np.nanmin(share, initial=0.5)) - 0.05), 1.02)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("resamplings in which the pair keeps its order (dashed: coin toss)")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", frameon=False)
    listed = ", ".join(
        f"{a} before {b} {s:.0%}" if math.isfinite(s) else f"{a} before {b} not known"
        for (a, b), s in zip(pairs, share, strict=True)
    )
    describe(ax, f"Share of resamplings in which neighbors keep their order: {listed}.")
    return ax


def _signed_bars(ax: Axes, names: Sequence[str], values: Sequence[float]) -> None:
    rows = np.arange(len(names))
    array = np.asarray(values, dtype=float)
    for mask, color, hatch in ((array <= 0, BLUE, ""), (array > 0, ORANGE, "///")):
        ax.barh(rows[mask], array[mask], color=color, hatch=hatch, edgecolor="white", height=0.65)
    ax.axvline(0, color=GRAY, linewidth=0.8)
    ax.set_yticks(rows, [short_name(name, 26) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    for row, value in zip(rows, array, strict=True):
        ax.annotate(
            loss_text(float(value)), (value, row), xytext=(4 if value > 0 else -4, 0),
            textcoords="offset points", va="center", ha="left" if value > 0 else "right",
            fontsize="small",
        )  # fmt: skip
    low, high = min(0.0, array.min(initial=0.0)), max(0.0, array.max(initial=0.0))
    room = 0.4 * (high - low) or 1.0  # for the numbers beside the bars
    ax.set_xlim(low - (room if low else 0.05 * room), high + (room if high else 0.05 * room))
    ax.set_xticks([0])
