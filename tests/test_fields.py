"""Toy fields: closed forms against Runge-Kutta, brackets against closed forms and flows."""

from __future__ import annotations

import pytest
import torch
from helpers import network, start

import lietoolkit as lt
from lietoolkit.geometry import fields
from lietoolkit.geometry.fields import field_bracket, flow, gap, loop

X = torch.tensor([0.7, -0.4], dtype=torch.float64)
CAR = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64)
PLANE = [make() for make in fields.GALLERY.values()]


@pytest.mark.parametrize("field", [f for f in PLANE if f.solution], ids=lambda f: f.name)
def test_exact_flow_equals_rk4(field: fields.Field) -> None:
    exact, stepped = (flow(field, X, 1.3, 200, method) for method in ("exact", "rk4"))
    assert torch.allclose(exact, stepped, atol=1e-8)
    assert torch.allclose(flow(-field, exact, 1.3), X, atol=1e-12)


def test_car_drives_where_it_points() -> None:
    exact, stepped = (flow(fields.drive(), CAR, 0.9, 50, m) for m in ("exact", "rk4"))
    assert torch.allclose(exact, stepped, atol=1e-10)
    assert flow(fields.steer(), CAR, 0.5)[2] == pytest.approx(1.1)


def test_rk4_error_falls_as_the_fourth_power() -> None:
    field = fields.swirl()
    truth = flow(field, X, 3.0, 2048)
    errors = [float((flow(field, X, 3.0, n) - truth).norm()) for n in (8, 16)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.35)


@pytest.mark.parametrize("f", PLANE, ids=lambda f: f.name)
@pytest.mark.parametrize("g", PLANE, ids=lambda f: f.name)
def test_gap_is_t_squared_times_the_bracket(f: fields.Field, g: fields.Field) -> None:
    bracket = field_bracket(f, g, X)
    assert torch.allclose(bracket, -field_bracket(g, f, X), atol=1e-14)
    rest = [(gap(f, g, X, t) - t**2 * bracket).norm() for t in (0.04, 0.02)]
    # O(t^3): halving t leaves an eighth, or nothing at all.
    assert rest[0] <= 3 * 0.04**3
    assert rest[1] <= rest[0] / 6 or rest[0] < 1e-11


def test_linear_bracket_is_the_commutator_of_the_matrices() -> None:
    a, b = start(4, 1).view(2, 2), start(4, 2).view(2, 2)
    bracket = field_bracket(fields.linear(a), fields.linear(b), X)
    assert torch.allclose(bracket, (b @ a - a @ b) @ X)


def test_parking_moves_the_car_sideways() -> None:
    drive, steer = fields.drive(), fields.steer()
    heading = CAR[2]
    sideways = torch.stack([heading.sin(), -heading.cos(), torch.zeros(()).double()])
    assert torch.allclose(field_bracket(drive, steer, CAR), sideways)
    rest = [(loop(drive, steer, CAR, t) - CAR - t**2 * sideways).norm() for t in (0.02, 0.01)]
    assert rest[0] / rest[1] == pytest.approx(8, rel=0.1)


def test_bracket_of_gradient_fields_is_lie_bracket() -> None:
    a, b, theta = network(0), network(1), start(13)
    bracket = field_bracket(fields.gradient_field(a), fields.gradient_field(b), theta)
    assert torch.allclose(bracket, lt.lie_bracket(a, b, theta), atol=1e-11)


def test_path_ends_where_the_flow_does() -> None:
    way = fields.path(fields.swirl(), X, 1.0)
    assert torch.equal(way[0], X)
    assert torch.allclose(way[-1], flow(fields.swirl(), X, 1.0, 200), atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fields.rotation()(CAR), r"expected points of shape \[\.\.\., 2\], got \[3\]"),
        (lambda: flow(fields.swirl(), X, 1.0, method="exact"), "no closed form"),
        (lambda: flow(fields.swirl(), X, 1.0, method="euler"), "expected auto, exact or rk4"),
        (lambda: flow(fields.swirl(), X, 1.0, steps=0), "at least 1"),
        (lambda: field_bracket(*PLANE[:2], X.expand(3, 2)), "one point"),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    with pytest.raises(lt.InputError, match=message):
        call()
