"""Search among orders: the surrogate's laws, and that it needs fewer tries than luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import obeys
from lietoolkit.order.linear_ordering import exact_order, order_value
from lietoolkit.order.search import search_levels, search_orders
from lietoolkit.order.studies import best_of_random
from lietoolkit.order.surrogate import KERNELS, Surrogate


def all_orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("alike", KERNELS)
def test_a_kernel_is_one_on_itself_zero_on_average_and_positive(n, alike):
    orders = all_orders(n)
    kernel = alike(orders, orders)
    assert np.allclose(np.diag(kernel), 1)
    assert np.allclose(kernel.mean(1), 0, atol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-9


@pytest.mark.parametrize("alike", KERNELS)
@given(st.permutations(range(5)), st.permutations(range(5)), st.permutations(range(5)))
def test_a_kernel_does_not_know_the_sources_names(alike, one, other, renamed):
    a, b = np.array([one]), np.array([other])
    again = alike(np.array(renamed)[a], np.array(renamed)[b])
    assert np.allclose(alike(a, b), again)


def pair_losses(n: int, seed: int) -> tuple[np.ndarray, dict[tuple[int, ...], float]]:
    half = np.random.default_rng(seed).normal(size=(n, n))
    matrix = half - half.T
    return matrix, {tuple(o): order_value(matrix, o) for o in all_orders(n)}


def test_it_needs_fewer_tries_than_luck():
    lead = []
    for seed in range(12):
        _, losses = pair_losses(5, seed)
        found = search_orders(lambda order, at=losses: at[tuple(order)], 5, tries=12, seed=seed)
        every = sorted(losses.values())
        luck = best_of_random(every, 12)
        lead.append((luck - min(found.losses)) / (luck - every[0]))
    assert np.mean(lead) > 0.7


def test_it_goes_on_among_many_sources():
    matrix, _ = pair_losses(8, 0)
    found = search_orders(lambda order: order_value(matrix, order), 8, tries=60)
    assert min(found.losses) < 0.9 * order_value(matrix, exact_order(matrix))


def test_it_tries_nothing_twice_and_ends_when_all_are_tried():
    _, losses = pair_losses(3, 1)
    found = search_orders(lambda order: losses[tuple(order)], 3, tries=50)
    assert len(set(map(tuple, found.tried))) == len(found.tried) == 6
    assert losses[tuple(found.order)] == min(losses.values())


def test_it_begins_where_it_is_told_and_obeys():
    before = {(0, 1)}
    _, losses = pair_losses(4, 2)
    first = [[1, 0, 2, 3], [3, 2, 0, 1]]
    found = search_orders(lambda order: losses[tuple(order)], 4, 6, first, before)
    assert found.tried[0] == [3, 2, 0, 1]
    assert len(found.tried) == 6
    assert all(obeys(order, before) for order in found.tried)


def test_equal_losses_are_no_trouble():
    assert len(search_orders(lambda order: 1.0, 4, tries=5).tried) == 5


COSTS = (0.05, 0.25, 1.0)


def levels_of(losses: dict, trusts: tuple[float, float], seed: int) -> list[dict]:
    """The same losses at each level: their correlation with the truth is known, the last is it."""
    random = np.random.default_rng(seed)
    spread = np.std(list(losses.values()))
    rough = [
        {
            order: trust * loss + np.sqrt(1 - trust**2) * spread * random.normal()
            for order, loss in losses.items()
        }
        for trust in trusts
    ]
    return [*rough, losses]


def gap_share(losses: dict, order: list[int]) -> float:
    every = np.array(list(losses.values()))
    return float((np.median(every) - losses[tuple(order)]) / (np.median(every) - every.min()))


def test_good_rehearsals_are_worth_more_than_whole_runs_at_the_same_cost():
    cheap, whole, spent = [], [], []
    for seed in range(12):
        _, losses = pair_losses(5, seed)
        tables = levels_of(losses, (0.95, 0.99), seed)
        found = search_levels(lambda o, at, t=tables: t[at][tuple(o)], 5, 2.0, COSTS)
        cheap.append(gap_share(losses, found.order))
        spent.append(found.spent)
        only = search_orders(lambda o, at=losses: at[tuple(o)], 5, 2)
        whole.append(gap_share(losses, only.order))
    assert max(spent) <= 2.0 + 1e-9
    assert np.mean(cheap) > np.mean(whole) + 0.3


def test_worthless_rehearsals_are_found_out():
    """Uncorrelated ones cost a little, but whole runs decide."""
    found = []
    for seed in range(12):
        _, losses = pair_losses(4, seed)
        tables = levels_of(losses, (0.0, 0.0), seed)
        search = search_levels(lambda o, at, t=tables: t[at][tuple(o)], 4, 10.0, COSTS)
        assert search.levels.count(2) >= 4
        found.append(gap_share(losses, search.order))
    assert np.mean(found) > 0.75


@pytest.mark.parametrize("trust", [0.0, 0.99])
def test_trust_is_learned_from_orders_tried_twice(trust):
    weights = []
    for seed in range(8):
        _, losses = pair_losses(4, seed)
        tables = levels_of(losses, (trust, trust), seed)
        orders = list(losses)[::2]
        tried, levels = [list(o) for o in (*orders, *orders)], [1] * len(orders) + [2] * len(orders)
        values = [tables[at][tuple(o)] for o, at in zip(tried, levels, strict=True)]
        seen = Surrogate(tried, levels, values, 3)
        weights.append(sum(s.weight * s.trust[1, 2] for s in seen.supposed))
    assert (np.mean(weights) > 0.9) if trust else (np.mean(weights) < 0.4)


@given(st.integers(0, 5), st.floats(0.1, 10), st.floats(-5, 5))
def test_a_surrogate_follows_the_unit_and_origin_of_losses(seed, unit, origin):
    _, losses = pair_losses(4, seed)
    orders = np.array(list(losses))
    known, levels = [list(o) for o in orders[::5]], [0, 1, 0, 1, 0]
    y = [losses[tuple(o)] for o in known]
    one = Surrogate(known, levels, y, 2)
    other = Surrogate(known, levels, [origin + unit * v for v in y], 2)
    assert np.allclose(other.losses(orders), origin + unit * one.losses(orders))
    gains = [s.knowledge_gradient(orders) for s in (one, other)]
    assert np.allclose(*gains) and (gains[0] > -1e-9).all()


def test_nothing_is_tried_twice_at_one_level():
    _, losses = pair_losses(3, 1)
    tables = levels_of(losses, (0.5, 0.5), 1)
    found = search_levels(lambda o, at: tables[at][tuple(o)], 3, 50.0, COSTS)
    tries = list(zip(map(tuple, found.tried), found.levels, strict=True))
    assert len(set(tries)) == len(tries) == 18
    assert losses[tuple(found.order)] == min(losses.values())


def test_rounding_errors_decide_nothing(monkeypatch):
    """Machines differ in the last digits of a gain: its sign, where nothing is left to gain."""
    places, noise = np.random.default_rng(3).normal(size=(4, 4)), np.random.default_rng(4)
    costs = (0.25, 1.0)

    def loss(order: list[int], level: int) -> float:
        return float(sum(places[p, s] for p, s in enumerate(order))) + 0.2 * (level == 0)

    first = search_levels(loss, 4, 20.0, costs)
    gradient = Surrogate.knowledge_gradient
    monkeypatch.setattr(
        Surrogate,
        "knowledge_gradient",
        lambda self, orders: (g := gradient(self, orders)) + 1e-15 * noise.normal(size=g.shape),
    )
    again = search_levels(loss, 4, 20.0, costs)
    assert (again.tried, again.levels) == (first.tried, first.levels)


@pytest.mark.parametrize(
    ("budget", "costs", "message"),
    [(0.1, (0.2, 1.0), "at least one try"), (1.0, (1.0, 0.2), "rising"), (1.0, (), "rising")],
)
def test_bad_costs_are_refused(budget, costs, message):
    with pytest.raises(InputError, match=message):
        search_levels(lambda o, at: 0.0, 3, budget, costs)


def test_what_a_try_shares_with_the_one_before_is_not_paid_for_again():
    _, losses = pair_losses(5, 2)
    paid = []
    found = search_levels(
        lambda order, _: losses[tuple(order)], 5, 4.0, (1.0,), lengths=[1, 1, 1, 1, 4],
        pay=paid.append,
    )  # fmt: skip
    by_hand = [1.0]
    for last, order in itertools.pairwise(found.tried):
        common = next(n for n, (a, b) in enumerate(zip(last, order, strict=True)) if a != b)
        own = order[common if common in (2, 3) else 0 :]
        by_hand.append(sum(4 if source == 4 else 1 for source in own) / 8)
    assert paid == pytest.approx(by_hand) and sum(paid) == pytest.approx(found.spent)
    assert found.spent <= 4.0 and len(found.tried) > 4


@pytest.mark.parametrize(("sources", "tries"), [(1, 3), (3, 0)])
def test_refused(sources, tries):
    with pytest.raises(InputError, match="expected at least 2 and 1"):
        search_orders(lambda order: 0.0, sources, tries)
