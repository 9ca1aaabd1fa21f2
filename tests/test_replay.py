"""Optimizer replay: exact where nothing but the optimizer matters, first order elsewhere."""

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


def test_what_is_missing_is_of_second_order():
    sources = {name: quadratic(5, seed)[0] for seed, name in enumerate(NAMES)}
    target, theta = quadratic(5, 9)[0], start(5)
    missing = []
    for lr in (2e-4, 1e-4):
        settings = (sources, target, theta, ORDERS, lr, 3, "momentum")
        true, replayed = lt.run_schedules(*settings), lt.replay_orders(*settings, every=1)
        differences = (true - true[0])[1:]
        assert (replayed - replayed[0] - differences[0]).abs().max() > 0
        missing.append(((replayed - replayed[0])[1:] - differences).abs().max() / lr)
        assert missing[-1] < 0.05 * differences.abs().max() / lr
    assert missing[0] / missing[1] == pytest.approx(2, rel=0.1)


def test_plain_gradient_descent_shows_it_only_where_all_sources_in_turn_end():
    sources = {name: network(seed) for seed, name in enumerate(NAMES)}
    here = start(13)
    losses = lt.replay_orders(sources, network(9), here, ORDERS, 0.05, 4, "sgd", every=2)
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
    assert cost.gradients == 2 * 3 * 3
    assert cost.losses == pytest.approx(2 * 6 / 3)  # in gradients
    torch.testing.assert_close(
        both[:, 1], lt.replay_orders(sources, targets["y"], *settings, every=2)
    )


def test_what_is_wrong_is_named():
    sources, target, theta = slopes()
    for orders, every, words in [
        ([("a", "b")], 5, "each of a, b, c once.*found a, b"),
        ([("a", "b", "b")], 5, "once in every order"),
        (ORDERS, 0, "every: expected"),
    ]:
        with pytest.raises(lt.InputError, match=words):
            lt.replay_orders(sources, target, theta, orders, 0.1, 4, every=every)
