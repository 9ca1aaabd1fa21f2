"""Stated chances: their laws, and that they hold where they were not fitted."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from lietoolkit.order.calibration import order_chances, pair_chances, typical_effect
from lietoolkit.order.search import Searched, search_orders


def test_larger_effects_are_surer_and_a_longer_reach_is_less_sure():
    sizes = torch.tensor([0.01, 0.1, 1.0, 10.0])
    near, far = (pair_chances(sizes, 1.0, reach) for reach in (0.1, 1.0))
    assert (near.diff() > 0).all()
    assert (far < near).all()
    assert torch.equal(pair_chances(-sizes, 1.0, 0.1), near)
    assert torch.allclose(pair_chances(3 * sizes, 3.0, 0.1), near)


def test_the_typical_effect_is_the_median_of_the_pairs():
    matrix = torch.tensor([[0.0, 1.0, -2.0], [-1.0, 0.0, 5.0], [2.0, -5.0, 0.0]])
    assert typical_effect(matrix) == 2.0


def searched(seed: int = 0, tries: int = 4):
    half = np.random.default_rng(seed).normal(size=(4, 4))
    losses = {
        order: sum(half[i, j] for i, j in itertools.combinations(order, 2))
        for order in itertools.permutations(range(4))
    }
    return losses, search_orders(lambda order: losses[tuple(order)], 4, tries, seed=seed)


def test_chances_of_orders_do_not_depend_on_the_unit_or_origin_of_losses():
    losses, found = searched()
    scaled = search_orders(lambda order: 7 + 1e-3 * losses[tuple(order)], 4, 4)
    others = list(itertools.permutations(range(4)))
    chances = order_chances(*found.lead(found.order, others))
    assert np.allclose(chances, order_chances(*scaled.lead(scaled.order, others)))
    assert ((chances > 0) & (chances < 1 + 1e-12)).all()


def test_a_guess_is_never_certain():
    """Certainty is for orders that were both trained; a normal distribution rounds to it."""
    ahead = order_chances(np.array([2.0, -9.0]), np.array([1e-6, 1e-6]))
    one = torch.ones(1, dtype=torch.float64)
    assert 0 < ahead[1] < 1e-5 and 1 - 1e-5 < ahead[0] < 1
    assert 1 - 1e-5 < float(pair_chances(one, 1.0, reach=1e-6)) < 1
    assert 0 < float(pair_chances(one, 1.0, reach=1e12)) < 1e-5


def test_whole_runs_are_surer_of_what_they_saw_than_rehearsals():
    _, found = searched()
    worst = found.tried[int(np.argmax(found.losses))]
    rehearsal = Searched(found.order, found.tried, found.losses, found.levels, (0.05, 0.25, 1.0))
    whole, rehearsed = (
        order_chances(*one.lead(found.order, [worst]))[0] for one in (found, rehearsal)
    )
    assert whole > 0.95
    assert 0.5 < rehearsed < 0.9


def test_an_order_that_was_seen_to_be_worse_is_said_to_be_worse():
    _, found = searched()
    worst = found.tried[int(np.argmax(found.losses))]
    assert order_chances(*found.lead(worst, [found.order]))[0] < 0.05
