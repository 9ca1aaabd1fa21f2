"""Checks of notebook 01: flows and brackets of toy fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, random_vectors
from lietoolkit.geometry import fields
from lietoolkit.geometry.fields import Field, drive, field_bracket, flow, steer

# 1.1 Euler's method.


def euler(field: Field, x: Tensor, t: float, steps: int) -> Tensor:
    """Follow a field for time t in small straight steps."""
    for _ in range(steps):
        x = x + t / steps * field(x)
    return x


def _long_steps(field: Field, x: Tensor, t: float, steps: int) -> Tensor:
    return euler(field, x, t * steps, steps)


def _upstream(field: Field, x: Tensor, t: float, steps: int) -> Tensor:
    return euler(field, x, -t, steps)


def _straight(field: Field, x: Tensor, t: float, steps: int) -> Tensor:
    return x + t * field(x)


def _one_short(field: Field, x: Tensor, t: float, steps: int) -> Tensor:
    return euler(field, x, t * (steps - 1) / steps, steps - 1)


def _follow_cases() -> list[tuple]:
    (x, y) = random_vectors(11, 2, 2)
    return [(fields.swirl(), x, 1.0, 20), (fields.saddle(), y, 0.7, 9), (fields.shear(), y, -1, 4)]


def _follow_panel(ax: Any, follow: Answer) -> None:
    field, x = fields.rotation(), torch.tensor([1.0, 0.0], dtype=torch.float64)
    styles = ((4, "o--"), (16, "s-"), (64, "-"))
    for steps, style in styles:
        ends = [follow(field, x, 2.0 * n / steps, n) for n in range(1, steps + 1)]
        way = torch.stack([x, *ends])
        mark = {"markevery": max(1, steps // 8), "markersize": 4}
        ax.plot(way[:, 0], way[:, 1], style, label=f"{steps} steps", **mark)
    ax.set(xlabel="x", ylabel="y")
    ax.set_aspect("equal")
    ax.legend(fontsize=8)


# 1.2 The parallelogram.


def _straight_gap(f: Field, g: Field, x: Tensor, t: float) -> Tensor:
    return (flow(f, x, t) + flow(g, x, t) - x) - (flow(g, x, t) + flow(f, x, t) - x)


def _gap_cases() -> list[tuple]:
    x, y, z = random_vectors(12, 2, 2, 3)
    return [
        (fields.rotation(), fields.shear(), x, 0.3),
        (fields.saddle(), fields.swirl(), y, 0.5),
        (drive(), steer(), z, 0.2),
    ]


def _gap_panel(ax: Any, gap: Answer) -> None:
    x = torch.tensor([1.0, 0.5], dtype=torch.float64)
    times = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    pairs = ((fields.rotation(), fields.shear(), "o-"), (fields.swirl(), fields.saddle(), "s--"))
    for f, g, style in pairs:
        sizes = [float(gap(f, g, x, t).norm()) for t in times]
        ax.loglog(times, sizes, style, label=f"{f.name}, {g.name}", markersize=4)
    ax.loglog(times, [3 * t * t for t in times], ":", color="gray", label="slope 2")
    ax.set(xlabel="time t", ylabel="length of the gap")
    ax.legend(fontsize=8)


# 1.3 The bracket.


def _jacobian(f: Field, x: Tensor) -> Tensor:
    return fields.jacobian(f, x)


def _bracket_cases() -> list[tuple]:
    x, y, z = random_vectors(13, 2, 2, 3)
    return [
        (fields.rotation(), fields.shear(), x),
        (fields.saddle(), fields.swirl(), y),
        (drive(), steer(), z),
    ]


def _bracket_panel(ax: Any, bracket: Answer) -> None:
    side = torch.linspace(-1.5, 1.5, 8, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    arrows = torch.stack([bracket(fields.swirl(), fields.saddle(), p) for p in points])
    ax.quiver(points[:, 0], points[:, 1], arrows[:, 0], arrows[:, 1], scale=20, width=0.006)
    ax.set(xlabel="x", ylabel="y", xlim=(-1.8, 1.8), ylim=(-1.8, 1.8))


# 1.4 Parallel parking.

TURN, ROAD, SIDE = 0.35, 1.0, 1.0


def park_slowly() -> list[tuple[str, float]]:
    """Three brackets of steer and drive: each a third of the way to the curb."""
    angle = math.atan(SIDE / 3 / ROAD)
    out = ROAD / math.cos(angle)
    wiggle = [("steer", angle), ("drive", out), ("steer", -angle), ("drive", -ROAD)]
    return wiggle * 3


def follow_moves(moves: Sequence[tuple[str, float]]) -> list[Tensor]:
    """The car's states (x, y, heading), from the origin, after each move."""
    at, states = torch.zeros(3, dtype=torch.float64), []
    states.append(at)
    for move in moves:
        try:
            name, amount = move
            field = {"drive": drive(), "steer": steer()}[name]
            at = flow(field, at, float(amount))
        except (KeyError, TypeError, ValueError):
            raise Wrong(
                f'Expected moves such as ("drive", 0.5) or ("steer", -0.1), found {move!r}.'
            ) from None
        states.append(at)
    return states


def _check_park(park: Answer) -> None:
    moves = park()
    if moves is None:
        raise Wrong("The function returned nothing: end it with return.")
    states = torch.stack(follow_moves(moves))
    x, y, heading = states[-1].tolist()
    near = 0.01
    if float(states[:, 2].abs().max()) > TURN + 1e-9:
        raise Wrong(
            f"The car turns by {float(states[:, 2].abs().max()):.2f} rad; the street allows "
            f"{TURN} rad. Turn less and wiggle more often."
        )
    if float(states[:, 0].min()) < -near or float(states[:, 0].max()) > ROAD + near:
        raise Wrong(
            f"The car leaves the gap: x must stay between 0 and {ROAD:g}, and reached "
            f"{float(states[:, 0].min()):.2f} to {float(states[:, 0].max()):.2f}."
        )
    if abs(heading) > near:
        raise Wrong(f"The car ends with heading {heading:.2f}: undo each turn of the wheel.")
    if abs(y + SIDE) < near:
        raise Wrong(
            "The car ends on the other side of the road: the sign is flipped. Swap the order: "
            "[drive, steer] = -[steer, drive]."
        )
    if abs(y) < near and abs(x) < near:
        raise Wrong(
            "Every move was undone in reverse order, so nothing is left. Undo in the same order: "
            "f, g, -f, -g."
        )
    if abs(x) > near:
        raise Wrong(f"The car ends at x = {x:.2f}, not 0: drive straight back what you drove out.")
    if abs(y - SIDE) > near:
        raise Wrong(f"The car ends at y = {y:.2f}, expected {SIDE:g}: choose angle and repeats.")


def _park_panel(ax: Any, park: Callable[[], list[tuple[str, float]]]) -> None:
    states = torch.stack(follow_moves(park()))
    ax.plot(states[:, 0], states[:, 1], "o-", markersize=4)
    ax.plot([0], [0], "s", color="gray", label="start")
    ax.plot([0], [SIDE], "*", color="black", markersize=12, label="parking spot")
    ax.set(xlabel="x, along the street", ylabel="y, to the curb", xlim=(-0.3, 1.3))
    ax.set_ylim(-0.5, 1.2)
    ax.legend(fontsize=8, loc="lower right")


EXERCISES = [
    Exercise(
        key="1.1",
        right=euler,
        cases=_follow_cases,
        mistakes=(
            Slip(
                "Each step is as long as the whole time: the step is t / steps, not t.", _long_steps
            ),
            Slip("The sign is flipped: this runs against the arrows.", _upstream),
            Slip("One straight line: evaluate the field again at each new point.", _straight),
            Slip("One step is missing: the loop runs steps - 1 times.", _one_short),
        ),
        hints=(
            "Cut the time into equal pieces of length t / steps.",
            "In each piece pretend the arrow does not change: x + (t / steps) * field(x).",
        ),
        panel=_follow_panel,
        picture="a circle followed in 4, 16 and 64 straight steps; more steps hug the circle",
    ),
    Exercise(
        key="1.2",
        right=fields.gap,
        cases=_gap_cases,
        mistakes=(
            Slip(
                'The order is swapped: this is "g, then f" minus "f, then g" (sign).',
                lambda f, g, x, t: -fields.gap(f, g, x, t),
            ),
            Slip(
                "The gap is zero: the second leg must start where the first one ended, not at x.",
                _straight_gap,
            ),
            Slip(
                "This is the length of the gap; return the difference itself, with its direction.",
                lambda f, g, x, t: fields.gap(f, g, x, t).norm(),
            ),
            Slip(
                "The gap itself was asked for: do not divide by t².",
                lambda f, g, x, t: fields.gap(f, g, x, t) / t**2,
            ),
            Slip(
                'That is one corner only: subtract the end of "g, then f".',
                lambda f, g, x, t: flow(g, flow(f, x, t), t),
            ),
        ),
        hints=(
            "flow(f, x, t) is where x is carried in time t. Feed it into the next flow.",
            "f first: flow(g, flow(f, x, t), t). The inner call happens first.",
        ),
        panel=_gap_panel,
        picture="the gap's length against time on log axes, two lines of slope 2",
    ),
    Exercise(
        key="1.3",
        right=field_bracket,
        cases=_bracket_cases,
        mistakes=(
            Slip(
                "The sign is flipped: the order is swapped. [f, g] = Dg f - Df g.",
                lambda f, g, x: -field_bracket(f, g, x),
            ),
            Slip(
                "Each Jacobian meets its own field; it must be Dg times f, and Df times g.",
                lambda f, g, x: _jacobian(f, x) @ f(x) - _jacobian(g, x) @ g(x),
            ),
            Slip(
                "The two terms are added; the bracket is their difference.",
                lambda f, g, x: _jacobian(g, x) @ f(x) + _jacobian(f, x) @ g(x),
            ),
            Slip(
                "A Jacobian is transposed: J[i, j] derives component i along j, so use J @ v.",
                lambda f, g, x: _jacobian(g, x).T @ f(x) - _jacobian(f, x).T @ g(x),
            ),
            Slip(
                "Only one of the two terms is there: subtract Df g.",
                lambda f, g, x: _jacobian(g, x) @ f(x),
            ),
        ),
        hints=(
            "torch.autograd.functional.jacobian(g, x) is Dg, of shape [n, n].",
            "Walk along f and watch g change: Dg @ f(x). Subtract the other way round.",
        ),
        panel=_bracket_panel,
        picture="arrows of the bracket of swirl and saddle on a grid, long near the origin",
    ),
    Exercise(
        key="1.4",
        right=park_slowly,
        cases=lambda: [()],
        check=_check_park,
        hints=(
            "Steer, drive, steer back, drive back: the bracket of steer and drive points sideways.",
            "One wiggle with angle a and x from 0 to 1 and back moves the car by tan(a).",
            "tan(0.35) = 0.365, so three wiggles do it: a = atan(1/3).",
        ),
        panel=_park_panel,
        picture="the car's zigzag way from the origin to the parking spot at (0, 1)",
    ),
]
