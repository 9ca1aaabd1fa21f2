"""All orders trained, planners among them, what luck gives, and the figure that shows it."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from helpers import network, start

import lietoolkit as lt
from lietoolkit import live
from lietoolkit.live.schedules import ENDS, _grow
from lietoolkit.order.studies import (
    PLANNERS,
    Planned,
    ScheduleStudy,
    best_of_random,
    study_schedules,
)


@cache
def study(seed: int = 0, optimizer: str = "sgd") -> ScheduleStudy:
    sources = {name: network(seed + i) for i, name in enumerate("abc")}
    return study_schedules(sources, network(9), start(13), 0.02, 2, optimizer)


def made_up(value) -> ScheduleStudy:
    """A study whose losses are a function of the order."""
    orders = list(itertools.permutations("abcd"))
    losses = np.array([float(value(order)) for order in orders])
    plans = {name: Planned(list("abcd"), 1.0) for name in PLANNERS}
    return ScheduleStudy(list("abcd"), 1, orders, losses, plans)


@pytest.mark.parametrize("runs", [1, 2, 5, 7])
def test_luck_is_the_mean_over_all_ways_to_draw(runs: int) -> None:
    losses = np.random.default_rng(0).normal(size=7)
    draws = [min(draw) for draw in itertools.combinations(losses, runs)]
    assert best_of_random(losses, runs) == pytest.approx(np.mean(draws), abs=1e-12)


@pytest.mark.parametrize("runs", [0, 4])
def test_luck_needs_a_draw_that_is_there(runs: int) -> None:
    with pytest.raises(lt.InputError, match="expected 1 to 3"):
        best_of_random([1.0, 2.0, 3.0], runs)


def test_a_study_trains_every_order_and_counts_what_plans_cost() -> None:
    found = study()
    sources = {name: network(i) for i, name in enumerate("abc")}
    run = (sources, network(9), start(13))
    losses = lt.run_schedules(*run, found.orders, 0.02, 2)
    assert len(found.orders) == 6 and found.losses.tolist() == losses.tolist()
    plan = lt.plan_from_end(*run, 0.02, 2, effort="exact")
    kept = found.plans["from the end"]
    assert kept.order == plan.order and list(kept.rounds) == plan.rounds
    # Three runs in the first choice, two in the second; each reads a loss, a third of a gradient.
    assert kept.cost == pytest.approx((5 * 6 + 5 / 3) / 6)
    assert found.plans["tournament"].order == lt.tournament(*run, 0.02, 2).order
    solo = [float(lt.run_schedules(*run, [[name]], 0.02, 2)) for name in "abc"]
    alone = [name for _, name in sorted(zip(solo, "abc", strict=True))]
    assert found.plans["solo, best first"].order == alone
    assert found.plans["solo, best last"].order == alone[::-1]
    assert set(found.plans) == set(PLANNERS)


def test_shares_ranks_and_percentiles() -> None:
    found = made_up(lambda order: order.index("a") + 10 * (order[-1] == "b"))
    assert found.gap_share(found.losses.min()) == 1
    assert found.gap_share(float(np.median(found.losses))) == 0
    assert found.random(24) == pytest.approx(1)
    assert found.random(1) == pytest.approx(found.gap_share(found.losses.mean()))
    assert found.rank("abcd") == 1 and found.rank("cdab") == 24 - 2 + 1
    # Four orders share the lowest loss; ties count half.
    assert found.percentile("tournament") == pytest.approx(100 * (20 + 1.5) / 23)


def test_a_place_that_decides_all_explains_all() -> None:
    found = made_up(lambda order: ord(order[-1]))
    assert found.explained(3) == pytest.approx(1)
    assert found.explained(0) == pytest.approx(1 / 9)  # who is first is not last


@pytest.mark.parametrize("backwards", [True, False])
def test_branches_are_means_with_the_best_on_top(backwards: bool) -> None:
    found = study(3, "adamw")
    tree = _grow(found, backwards)
    assert sorted(tree.leaves) == sorted(found.orders)
    assert (np.diff(tree.values[:, 0]) >= 0).all()
    for row, way in enumerate(tree.leaves):
        order = way[::-1] if backwards else way
        assert tree.values[row, -1] == pytest.approx(found.loss(order))
        alike = [o for o in found.orders if (o[-1] == order[-1] if backwards else o[0] == order[0])]
        assert tree.values[row, 0] == pytest.approx(np.mean([found.loss(o) for o in alike]))


def test_the_figure_follows_the_planner() -> None:
    figure = live.explore_schedules({"x": [study(), study(3)], "y": [study(6), study(0, "adamw")]})
    figure.set(cell="x", draw=2, planner="from the end", round=1, grown=ENDS[1])
    plan = study(3).plans["from the end"]
    assert f"Planner from the end: {' '.join(plan.order)}, rank" in figure.alt
    assert "Last 1 decided, 2 orders open" in figure.alt
    low, span = study(3).losses.min(), np.ptp(study(3).losses)
    listed = ", ".join(f"{name} {(plan.rounds[0][name] - low) / span:.2f}" for name in "abc")
    assert f"Scores, best order 0, worst 1: {listed}." in figure.alt
    figure.set(round=2)
    assert "Last 2 decided, 1 orders open" in figure.alt
    figure.set(planner="tournament", budget=6)
    assert "It has no rounds." in figure.alt and "best of 6 random orders 1.00" in figure.alt
    assert not figure.errors


def test_studies_that_do_not_fit_are_refused() -> None:
    with pytest.raises(lt.InputError, match="equally many draws"):
        live.explore_schedules({"x": [study()], "y": [study(), study(3)]})
    with pytest.raises(lt.InputError, match="all of the same names"):
        live.explore_schedules({"x": [study()], "y": [made_up(lambda order: order.index("a"))]})
    with pytest.raises(lt.InputError, match="expected one of x; found 'z'"):
        live.explore_schedules({"x": [study()]}, "z")
    many = {str(i): network(i) for i in range(6)}
    with pytest.raises(lt.InputError, match="2 to 5"):
        study_schedules(many, network(9), start(13), 0.02, 2)
