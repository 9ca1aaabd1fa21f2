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
from lietoolkit.order.search import order_kernel, search_orders
from lietoolkit.order.studies import best_of_random


def all_orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_kernel_is_one_on_itself_zero_on_average_and_positive(n):
    orders = all_orders(n)
    kernel = order_kernel(orders, orders)
    assert np.allclose(np.diag(kernel), 1)
    assert np.allclose(kernel.mean(1), 0, atol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-9


@given(st.permutations(range(5)), st.permutations(range(5)), st.permutations(range(5)))
def test_the_kernel_does_not_know_the_sources_names(one, other, renamed):
    a, b = np.array([one]), np.array([other])
    again = order_kernel(np.array(renamed)[a], np.array(renamed)[b])
    assert np.allclose(order_kernel(a, b), again)


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


@pytest.mark.parametrize(("sources", "tries"), [(1, 3), (3, 0)])
def test_refused(sources, tries):
    with pytest.raises(InputError, match="expected at least 2 and 1"):
        search_orders(lambda order: 0.0, sources, tries)
