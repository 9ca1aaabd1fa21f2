"""Predictions beside measurements: what trained runs say about a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.plots.common import (
    AMBER,
    BLUE,
    GRAY,
    GREEN,
    MINUS,
    ORANGE,
    PINK,
    SKY,
    axes_or_new,
    describe,
    short_name,
    unit_of,
)
from lietoolkit.statistics import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "sP^vDXph"


def predicted_vs_measured(
    predicted: Any,
    measured: Any,
    floor: float | None = None,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Predicted against measured loss differences; points in the shaded quadrants have one sign.

    The title counts all n decisions and gives the Wilson 95% interval of the share with the
    right sign (it takes the decisions as independent). A zero on either side counts as wrong.

    Args:
        predicted: [n] predicted differences, loss units.
        measured: [n] measured differences, loss units.
        floor: measured differences smaller than this are rounding noise: shown as a band.
        labels: n names; the points farthest from zero carry theirs.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        InputError: the lengths differ.
    """
    x, y = np.asarray(predicted, dtype=float).ravel(), np.asarray(measured, dtype=float).ravel()
    if x.shape != y.shape or (labels is not None and len(labels) != x.size):
        found = f"{x.size}, {y.size}" + (f", {len(labels)}" if labels is not None else "")
        raise InputError(
            f"predicted, measured, labels: expected lists of one length, found {found}"
        )
    ax = axes_or_new(ax)
    right = x * y > 0
    x_limits, y_limits = _limits(x), _limits(y)
    for x_end, y_end in zip(x_limits, y_limits, strict=True):
        ax.fill_between([0, x_end], 0, y_end, color=BLUE, alpha=0.09, linewidth=0)
    if floor:
        ax.axhspan(-floor, floor, color=GRAY, alpha=0.25, linewidth=0, label="rounding noise")
    ax.axhline(0, color=GRAY, linewidth=0.8)
    ax.axvline(0, color=GRAY, linewidth=0.8)
    ax.axline((0, 0), slope=1, color=GRAY, linestyle="--", linewidth=1, label="exact")
    for mask, marker, color, label in (
        (right, "o", BLUE, "sign right"),
        (~right, "X", ORANGE, "sign wrong"),
    ):
        if mask.any():
            ax.plot(
                x[mask], y[mask], marker, color=color, label=label, markersize=6, alpha=0.85,
                markeredgecolor="white", markeredgewidth=0.5, linestyle="none",
            )  # fmt: skip
    if labels is not None:
        for i in np.argsort(-np.abs(y))[:3]:
            ax.annotate(labels[i], (x[i], y[i]), xytext=(5, 4), textcoords="offset points",
                        fontsize="small")  # fmt: skip
    ax.set_xlim(*x_limits)
    ax.set_ylim(*y_limits)
    _tidy_ticks(ax, "x", "predicted difference in loss")
    _tidy_ticks(ax, "y", "measured difference in loss")
    k, n = int(right.sum()), x.size
    low, high = wilson_interval(k, n)
    share = f"{k} of {n} signs right"
    interval = f"{k / n:.0%}, 95% interval {low:.0%} to {high:.0%}" if n else "no decisions"
    ax.set_title(f"{share}\n{interval}", fontsize="medium")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    below = int((np.abs(y) < floor).sum()) if floor else 0
    noise = f" {below} measured differences are below the rounding noise." if below else ""
    describe(ax, f"Predicted against measured loss differences: {share} ({interval}).{noise}")
    return ax


def verification_strip(measured: Any, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Measured final losses of all the orders tried, on one axis; lower (left) is better.

    Orders labeled ``random`` are small ticks; ``plan``, ``reverse`` and every other label get a
    marker of their own and an entry in the legend with their rank.

    Args:
        measured: [n] final target losses.
        labels: n labels.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        InputError: the lengths differ, or no order was measured.
    """
    y = np.asarray(measured, dtype=float).ravel()
    if y.size != len(labels) or not y.size:
        raise InputError(
            f"labels: expected one label for each of the {y.size} measured losses (at least "
            f"one), found {len(labels)}"
        )
    ax = axes_or_new(ax)
    rank = 1 + (y[None, :] < y[:, None]).sum(axis=1)
    shift = y - y.min()
    unit, unit_text = unit_of(float(shift.max()))
    shift = shift / unit
    ax.axhline(0, color=GRAY, linewidth=0.8, zorder=0)
    ax.plot(shift, np.zeros_like(y), "|", color=GRAY, markersize=22, markeredgewidth=1.6,
            label="all orders tried", zorder=1)  # fmt: skip
    others = [i for i, label in enumerate(labels) if label != "random"]
    styles = {"plan": ("*", BLUE, 16), "reverse": ("X", ORANGE, 10)}
    plain = iter(_MARKERS * len(labels))
    palette = iter([GREEN, PINK, SKY, AMBER] * len(labels))
    heights: list[tuple[float, int]] = []
    for i in sorted(others, key=lambda i: (*(labels[i] != s for s in styles), shift[i])):
        style = styles.get(labels[i]) or (next(plain), next(palette), 8)
        # Markers that would cover each other climb, each level one marker higher.
        taken = {level for at, level in heights if abs(at - shift[i]) < 0.06 * shift.max()}
        level = next(lv for lv in range(len(y) + 1) if lv not in taken)
        heights.append((shift[i], level))
        ax.plot(shift[i], 0.45 + 0.5 * level, style[0], color=style[1], markersize=style[2],
                markeredgecolor="white", markeredgewidth=0.6, linestyle="none",
                label=f"{short_name(labels[i], 40)} (rank {rank[i]} of {y.size})")  # fmt: skip
    top = max((level for _, level in heights), default=0)
    ax.set_ylim(-0.6, 0.95 + 0.5 * top)
    ax.set_yticks([])
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel(f"loss above the best order tried{unit_text}; left is better")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.3), fontsize="small", frameon=False)
    placed = ", ".join(f"{labels[i]} rank {rank[i]}" for i in others)
    describe(
        ax,
        f"Measured losses of {y.size} orders, from {y.min():.6g} to {y.max():.6g}: {placed}.",
    )
    return ax


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    room = 0.12 * (high - low) or 1.0
    return low - room, high + room


def _tidy_ticks(ax: Axes, which: str, label: str) -> None:
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    unit, unit_text = unit_of(max(abs(low), abs(high)))
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(lambda value, _: f"{value / unit:.3g}".replace("-", MINUS))
    axis.set_label_text(f"{label}{unit_text}")
