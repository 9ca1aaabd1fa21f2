"""Replayed orders: exact where gradients do not change, right to a higher order where they do."""

import itertools

import pytest
import torch
from helpers import network, quadratic, start

import lietoolkit as lt
from lietoolkit.geometry.cost import metered

NAMES = ("a", "b", "c")
ORDERS = list(itertools.permutations(NAMES))
RUNS = [
    ("adamw", "constant", 0),
    ("momentum", "constant", 0),
    ("sgd", "linear", 3),
    ("adamw", "cosine", 4),
]


def slopes() -> tuple[dict[str, lt.Objective], lt.Objective, torch.Tensor]:
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sources = {name: lt.Objective(lambda x, i=i: g[i] @ x) for i, name in enumerate(NAMES)}
    target = lt.Objective(lambda x: (x - 1).square().sum())
    return sources, target, torch.zeros(4, dtype=torch.float64)


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), RUNS)
@pytest.mark.parametrize("every", [1, 3, 4])
def test_exact_where_gradients_do_not_change(optimizer, schedule, warmup, every):
    sources, target, theta = slopes()
    run = {"schedule": schedule, "warmup": warmup}
    true = lt.run_schedules(sources, target, theta, ORDERS, 0.1, 4, optimizer, **run)
    replayed = lt.replay_orders(sources, target, theta, ORDERS, 0.1, 4, optimizer, every, **run)
    assert true.std() > 1e-4
    torch.testing.assert_close(replayed, true, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "steps", "curvature", "left"),
    [("momentum", 3, 0, 2), ("sgd", 1, 1, 3), ("sgd", 3, 1, 3)],
)
def test_what_is_missing_is_of_a_higher_order(optimizer, steps, curvature, left):
    sources = {name: quadratic(5, seed)[0] for seed, name in enumerate(NAMES)}
    target, theta = quadratic(5, 9)[0], start(5)
    missing = []
    for lr in (2e-4, 1e-4):
        settings = (sources, target, theta, ORDERS, lr, steps, optimizer)
        true = lt.run_schedules(*settings)
        replayed = lt.replay_orders(*settings, every=1, curvature=curvature)
        differences = (true - true[0])[1:]
        missing.append(float(((replayed - replayed[0])[1:] - differences).abs().max()))
        assert 0 < missing[-1] < 0.05 * differences.abs().max()
    assert missing[0] / missing[1] == pytest.approx(2**left, rel=0.1)


def test_one_small_step_of_two_sources_shows_the_order_score():
    a, b, target, theta = network(0), network(1), network(9), start(13)
    settings = (target, theta, [("a", "b"), ("b", "a")], 1e-4, 1, "sgd")
    first, second = lt.replay_orders({"a": a, "b": b}, *settings)
    score = lt.order_score(a, b, target, theta)
    assert float(first - second) / 1e-8 == pytest.approx(score, rel=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_what_the_others_change_in_the_gradients_tells_most_of_the_rest(optimizer):
    sources = {name: network(seed) for seed, name in enumerate(NAMES)}
    lr = {"sgd": 0.02, "momentum": 0.002, "adamw": 2e-3}[optimizer]
    settings = (sources, network(9), start(13), ORDERS, lr, 8, optimizer)
    true = lt.run_schedules(*settings)
    wrong = [
        (true - lt.replay_orders(*settings, every=1, curvature=curvature)).std()
        for curvature in (0, 1)
    ]
    assert wrong[1] < 0.5 * wrong[0]


def test_without_curvature_plain_gradient_descent_shows_only_where_all_in_turn_end():
    sources = {name: network(seed) for seed, name in enumerate(NAMES)}
    here = start(13)
    settings = (network(9), here, ORDERS, 0.05, 4, "sgd")
    losses = lt.replay_orders(sources, *settings, every=2, curvature=0)
    for name in ("a", "b", "c", "c", "b", "a"):
        here = here - 2 * 0.05 * sources[name].gradient(here)
    torch.testing.assert_close(losses, network(9).loss(here).expand(6), rtol=0, atol=1e-12)


def test_several_targets_and_the_price():
    sources = {name: network(seed) for seed, name in enumerate(NAMES)}
    targets = {"x": network(8), "y": network(9)}
    settings = (start(13), ORDERS, 0.01, 5)
    with metered() as cost:
        both = lt.replay_orders(sources, targets, *settings, every=2)
    assert both.shape == (6, 2)
    assert cost.gradients == 2 * 3 * 3 + 3 * 4
    assert cost.losses == pytest.approx(2 * 6 / 3)  # in gradients
    torch.testing.assert_close(
        both[:, 1], lt.replay_orders(sources, targets["y"], *settings, every=2)
    )


def test_what_is_wrong_is_named():
    sources, target, theta = slopes()
    for orders, wrong, words in [
        ([("a", "b")], {}, "each of a, b, c once.*found a, b"),
        ([("a", "b", "b")], {}, "once in every order"),
        (ORDERS, {"every": 0}, "every: expected .* at least 1"),
        (ORDERS, {"curvature": -1}, "curvature: expected .* at least 0"),
    ]:
        with pytest.raises(lt.InputError, match=words):
            lt.replay_orders(sources, target, theta, orders, 0.1, 4, **wrong)


def test_sources_that_move_nothing_change_nothing():
    _, target, theta = slopes()
    still = {name: lt.Objective(lambda x: 0 * x.sum()) for name in NAMES}
    losses = lt.replay_orders(still, target, theta, ORDERS, 0.1, 4, "sgd")
    assert losses.unique().tolist() == [float(target.loss(theta))]
