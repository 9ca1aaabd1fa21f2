"""The plane of two gradients: two orders, two ends, and the gap between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lietoolkit.errors import InputError
from lietoolkit.plots.common import (
    BLUE,
    ORANGE,
    axes_or_new,
    describe,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def geometry_plane(
    grid_x: Any,
    grid_y: Any,
    loss: Any,
    path_ab: Any,
    path_ba: Any,
    names: tuple[str, str],
    ax: Axes | None = None,
) -> Axes:
    """The target's loss in the plane of two gradients, both orders' paths, and the gap.

    The gap between the two ends is too small to see at the scale of the paths; an inset
    magnifies it and says by how much.

    Args:
        grid_x: [X] coordinates in parameter space (orthonormal axes of the plane).
        grid_y: [Y] coordinates.
        loss: [Y, X] target losses.
        path_ab: [S, 2] points of "a first", from the common start to its end.
        path_ba: [S, 2] points of "b first".
        names: (a, b).
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        InputError: the loss grid does not fit the coordinates.
    """
    x, y, z = (np.asarray(v, dtype=float) for v in (grid_x, grid_y, loss))
    if z.shape != (y.size, x.size):
        raise InputError(
            f"loss: expected shape (len(grid_y), len(grid_x)) = ({y.size}, {x.size}), "
            f"found {z.shape}"
        )
    ab, ba = np.asarray(path_ab, dtype=float), np.asarray(path_ba, dtype=float)
    ax = axes_or_new(ax)
    filled = ax.contourf(x, y, z, levels=14, cmap="Greys", vmax=z.max() + np.ptp(z))
    ax.contour(x, y, z, levels=filled.levels, colors="white", linewidths=0.4)
    bar = ax.figure.colorbar(
        filled, ax=ax, location="bottom", fraction=0.05, pad=0.15, label="target's loss"
    )
    ax.locator_params(nbins=4)
    power = math.floor(math.log10(np.ptp(x)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value / 10**power:.3g}")
    # Neighbouring levels can differ in the last digits only: as many as tell three apart.
    levels = np.asarray(filled.levels)
    decimals = max(0, 1 - math.floor(math.log10(np.ptp(levels) or 1.0)))
    shown = levels[[0, len(levels) // 2, -1]]
    bar.set_ticks(shown.tolist(), labels=[f"{level:.{decimals}f}" for level in shown])
    gap = float(np.hypot(*(ab[-1] - ba[-1])))
    # Beside the axes, where it can cover neither path.
    inset = ax.inset_axes((1.1, 0.25, 0.5, 0.5), facecolor="#DDDDDD")
    inset.set_aspect("equal")
    for where, scale in ((ax, 1.0), (inset, 0.8)):
        for path, style, marker, color, label in (
            (ab, "-", "o", BLUE, f"{short_name(names[0])} first"),
            (ba, "--", "s", ORANGE, f"{short_name(names[1])} first"),
        ):
            where.plot(
                path[:, 0], path[:, 1], style, color=color, marker=marker, linewidth=1.8 * scale,
                markersize=6 * scale, markeredgecolor="black", label=label, zorder=3,
            )  # fmt: skip
    middle, reach = (ab[-1] + ba[-1]) / 2, gap * 0.9 if gap else 1e-12
    inset.plot(*zip(ab[-1], ba[-1], strict=True), ":", color="black", linewidth=1.5, zorder=1)
    inset.set_xlim(middle[0] - reach, middle[0] + reach)
    inset.set_ylim(middle[1] - reach, middle[1] + reach)
    inset.set_xticks([])
    inset.set_yticks([])
    times = f"{np.ptp(x) * 0.5 / (2 * reach):,.0f}".replace(",", "\N{THIN SPACE}")
    inset.set_title(f"the gap, × {times}" if gap else "no gap in this plane", fontsize="small")
    ax.indicate_inset_zoom(inset, edgecolor="black", alpha=0.5)
    ax.plot(*ab[0], "P", color="black", markersize=10, markeredgecolor="white", label="start",
            linestyle="none", zorder=4)  # fmt: skip
    ax.set_aspect("equal")
    unit = f"($10^{{{power}}}$)"
    ax.set_xlabel(f"along the step of {short_name(names[0])} {unit}")
    ax.set_ylabel(f"the rest of {short_name(names[1])}'s step {unit}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, fontsize="small",
              frameon=False)  # fmt: skip
    length = float(np.hypot(*(ab[-1] - ab[0])))
    describe(
        ax,
        f"Target's loss around the start, from {z.min():.6g} to {z.max():.6g}. Training "
        f"{names[0]} first and training {names[1]} first end {gap:.2g} apart after a way of "
        f"{length:.2g}.",
    )
    return ax
