"""Two flows in the plane, and a car: brackets to look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from lietoolkit.geometry import fields
from lietoolkit.live.controls import choice, slider, whole
from lietoolkit.live.figure import LiveFigure, new_figure
from lietoolkit.plots.common import BLUE, GRAY, GREEN, ORANGE, PINK

REACH = 2.6


def explore_flows(
    f: str = "wind",
    g: str = "rotation",
    start: tuple[float, float] = (0.6, 0.8),
    t: float = 0.6,
) -> LiveFigure:
    """Both orders of two flows, the gap between their ends, and the bracket.

    Left: the fields as arrows, "f, then g" and "g, then f" from the start, the gap, and
    t² [f, g]. Right: the gap's length against t on log axes. Drag the start, or use its sliders.

    Args:
        f, g: names in ``lietoolkit.geometry.fields.GALLERY``.
        start: (x, y).
        t: how long each field is followed.
    """
    names = list(fields.GALLERY)
    controls = {
        "f": choice("field f", names, f),
        "g": choice("field g", names, g),
        "t": slider("time t", 0.02, 1.0, t, 0.02),
        "x": slider("start x", -1.5, 1.5, start[0], 0.05),
        "y": slider("start y", -1.5, 1.5, start[1], 0.05),
    }
    figure, (plane, curve) = new_figure((8.6, 4.3), 2, width_ratios=[1.25, 1])
    grid = np.linspace(-REACH, REACH, 10)
    gx, gy = np.meshgrid(grid, grid)
    points = torch.tensor(np.stack([gx, gy], -1))
    arrows = {"scale": 30, "pivot": "mid", "headwidth": 4.5}
    quiver_f = plane.quiver(gx, gy, gx, gy, color=GRAY, alpha=0.8, width=0.003, **arrows)
    quiver_g = plane.quiver(gx, gy, gx, gy, color=PINK, alpha=0.5, width=0.008, **arrows)
    (way_f,) = plane.plot([], [], "-", color=BLUE, linewidth=2, label="f, then g")
    (way_g,) = plane.plot([], [], "--", color=ORANGE, linewidth=2, label="g, then f")
    (end_f,) = plane.plot([], [], "o", color=BLUE, markersize=8, markeredgecolor="black")
    (end_g,) = plane.plot([], [], "s", color=ORANGE, markersize=8, markeredgecolor="black")
    (at,) = plane.plot([], [], "P", color="black", markersize=10, markeredgecolor="white")
    (gap_line,) = plane.plot([], [], "-", color="black", linewidth=3, label="the gap")
    (arrow,) = plane.plot([], [], ":", color=GREEN, linewidth=3, label="t² [f, g]")
    (tip,) = plane.plot([], [], "^", color=GREEN, markersize=9, markeredgecolor="black")
    plane.set(
        xlim=(-REACH, REACH),
        ylim=(-REACH, REACH),
        aspect="equal",
        ylabel="y",
        xlabel="x (thin gray arrows: f; thick pink arrows: g)",
    )
    plane.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize="small",
                 frameon=False, handlelength=1.6, columnspacing=1)  # fmt: skip

    times = np.geomspace(0.02, 1.0, 18)
    (measured,) = curve.loglog(times, times, "o-", color="black", markersize=4, label="the gap")
    (law,) = curve.loglog(times, times, ":", color=GREEN, linewidth=2.5, label="t² ‖[f, g]‖")
    (now,) = curve.loglog([t], [1], "D", color=ORANGE, markersize=10, markeredgecolor="black",
                          label="t now")  # fmt: skip
    note = curve.text(0.05, 0.05, "", transform=curve.transAxes, va="bottom")
    curve.set(xlabel="time t", ylabel="length of the gap", xlim=(0.015, 1.3), ylim=(1e-5, 20))
    curve.legend(loc="upper left", frameon=False)
    kept: dict[str, Any] = {}

    def update(f: str, g: str, t: float, x: float, y: float) -> str:
        first, second = fields.GALLERY[f](), fields.GALLERY[g]()
        here = torch.tensor([x, y], dtype=torch.float64)
        if kept.get("pair") != (f, g):
            quiver_f.set_UVC(*first(points).numpy().transpose(2, 0, 1))
            quiver_g.set_UVC(*second(points).numpy().transpose(2, 0, 1))
        if kept.get("at") != (f, g, x, y):
            along = torch.tensor(times)[:, None]
            size = fields.gap(first, second, here, along, 12, "rk4").norm(dim=-1).numpy()
            kept["bracket"] = fields.field_bracket(first, second, here)
            measured.set_ydata(np.where(size > 1e-9, size, np.nan))
            law.set_ydata(times**2 * (float(kept["bracket"].norm()) or np.nan))
        kept.update(pair=(f, g), at=(f, g, x, y))
        ends = []
        for way, end, (one, two) in (
            (way_f, end_f, (first, second)),
            (way_g, end_g, (second, first)),
        ):
            leg = fields.path(one, here, t, 9)
            leg = torch.cat([leg, fields.path(two, leg[-1], t, 9)])
            way.set_data(*leg.T.numpy())
            end.set_data(*leg[-1:].T.numpy())
            ends.append(leg[-1])
        at.set_data([x], [y])
        gap_line.set_data(*torch.stack(ends).T.numpy())
        pointed = ends[1] + t**2 * kept["bracket"]
        arrow.set_data(*torch.stack([ends[1], pointed]).T.numpy())
        tip.set_data(*pointed[:, None].numpy())
        length, bracket = float((ends[0] - ends[1]).norm()), float(kept["bracket"].norm())
        now.set_data([t], [max(length, 1e-12)])
        if bracket < 1e-12:
            note.set_text("these two commute: no gap, at any t")
        else:
            note.set_text(f"t = {t:.2f}\ngap = {length:.3f}\nt² ‖[f, g]‖ = {t**2 * bracket:.3f}")
        return (
            f"{f}, then {g} and {g}, then {f} from ({x:.2f}, {y:.2f}), each for time {t:.2f}: the "
            f"ends lie {length:.3f} apart; t squared times the bracket is {t**2 * bracket:.3f}."
        )

    moving = [quiver_f, quiver_g, way_f, way_g, end_f, end_g, at, gap_line, arrow, tip, measured,
              law, now, note]  # fmt: skip
    return LiveFigure(figure, update, controls, moving, drag=(plane, "x", "y"))


def explore_parking(t: float = 0.5, rounds: int = 4) -> LiveFigure:
    """Parallel parking: drive, steer, drive back, steer back, and again.

    Left: the car's way seen from above. Right: how far sideways it came, against t².

    Args:
        t: how long each of the four moves takes.
        rounds: how many times the four moves are made.
    """
    controls = {
        "t": slider("time t of each move", 0.05, 0.8, t, 0.05),
        "rounds": whole("rounds of four moves", 1, 5, rounds),
    }
    figure, (street, side) = new_figure((8.6, 3.8), 2, width_ratios=[1.25, 1])
    (way,) = street.plot([], [], "-", color=GRAY, linewidth=1.5, label="way of the car")
    cars = {}
    for name, color, style in (("at the start", BLUE, "-"), ("at the end", ORANGE, "--")):
        (cars[name],) = street.plot([], [], style, color=color, linewidth=2.5, label=name)
    street.set(xlim=(-1.2, 2.8), ylim=(-3.2, 0.6), aspect="equal", xlabel="x, along the street",
               ylabel="y, across")  # fmt: skip
    street.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize="small",
                  frameon=False)  # fmt: skip
    times = np.linspace(0.05, 0.8, 16)
    origin = torch.zeros(3, dtype=torch.float64)
    drive, steer = fields.drive(), fields.steer()
    shift = [-float(fields.loop(drive, steer, origin, t)[1]) for t in times]
    side.plot(times, times**2, ":", color=GREEN, linewidth=2.5, label="t² ‖[drive, steer]‖")
    side.plot(times, shift, "o-", color="black", markersize=4, label="one round")
    (now,) = side.plot([], [], "D", color=ORANGE, markersize=10, markeredgecolor="black",
                       label="t now")  # fmt: skip
    side.set(xlabel="time t of each move", ylabel="moved sideways in one round")
    side.legend(loc="upper left", frameon=False)

    def outline(state: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        x, y, angle = state.tolist()
        # A box with a nose, so that the heading is seen.
        along = np.array([-0.35, 0.25, 0.42, 0.25, -0.35, -0.35])
        across = np.array([-0.18, -0.18, 0.0, 0.18, 0.18, -0.18])
        cos, sin = math.cos(angle), math.sin(angle)
        return x + along * cos - across * sin, y + along * sin + across * cos

    def update(t: float, rounds: int) -> str:
        legs = [origin[None]]
        for _ in range(rounds):
            for move in (drive, steer, -drive, -steer):
                legs.append(fields.path(move, legs[-1][-1], t, 5))
        driven = torch.cat(legs)
        way.set_data(driven[:, 0].numpy(), driven[:, 1].numpy())
        cars["at the start"].set_data(*outline(origin))
        cars["at the end"].set_data(*outline(driven[-1]))
        now.set_data([t], [-float(fields.loop(drive, steer, origin, t)[1])])
        moved = -float(driven[-1, 1])
        return (
            f"A car makes {rounds} rounds of drive, steer, drive back, steer back, each move for "
            f"time {t:.2f}. It ends {moved:.3f} to its right; t squared a round would be "
            f"{rounds * t**2:.3f}."
        )

    return LiveFigure(figure, update, controls, [way, *cars.values(), now])
