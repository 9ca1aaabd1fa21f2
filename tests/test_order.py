"""Scores, tournaments, linear ordering, constraints and step size against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import network, quadratic, start
from hypothesis import given, settings
from hypothesis import strategies as st

import lietoolkit as lt
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.storage import Keeper, Stored, stored_gram
from lietoolkit.order.baselines import baseline_orders, solo_gain
from lietoolkit.order.confidence import Part, Resampler
from lietoolkit.order.constraints import obeys, parse_constraints
from lietoolkit.order.linear_ordering import borda_order, exact_order, order_value, search_order
from lietoolkit.order.schedule_bracket import order_against_reverse

SEEDS = st.integers(0, 10_000)


def closed_form(seed: int, size: int = 5, n: int = 4):
    """Quadratic sources and target, with sigma from their matrices."""
    parts = [quadratic(size, seed + i) for i in range(n + 1)]
    theta = start(size, seed)
    (target, h_e, c_e), sources = parts[-1], parts[:-1]
    g = [h @ theta + c for _, h, c in sources]
    return {
        "sources": {f"s{i}": o for i, (o, _, _) in enumerate(sources)},
        "target": target,
        "theta": theta,
        "g": g,
        "h": [h for _, h, _ in sources],
        "g_e": h_e @ theta + c_e,
        "target_field": lambda x: h_e @ x + c_e,
    }


def sigma_matrix(case: dict, g_e: torch.Tensor) -> torch.Tensor:
    n = len(case["g"])
    sigma = torch.zeros(n, n, dtype=torch.float64)
    for i, j in itertools.product(range(n), repeat=2):
        bracket = case["h"][j] @ case["g"][i] - case["h"][i] @ case["g"][j]
        sigma[i, j] = g_e @ bracket
    return sigma


@given(SEEDS, st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_local_matrix_scores_and_order(seed: int, steps: int) -> None:
    case = closed_form(seed)
    t = lt.tournament(case["sources"], case["target"], case["theta"], lr=0.05, steps=steps)
    expected = (0.05 * steps) ** 2 * sigma_matrix(case, case["g_e"])
    assert torch.allclose(t.matrix, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
    assert torch.equal(t.matrix, -t.matrix.T)
    sums = expected.sum(1)
    assert t.order == [f"s{i}" for i in sums.argsort().tolist()]
    assert list(t.scores.values()) == pytest.approx(sums.tolist(), rel=1e-6, abs=1e-12)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_trotter_reads_the_target_at_the_drifted_point(seed: int) -> None:
    case = closed_form(seed, n=2)
    t = lt.tournament(case["sources"], case["target"], case["theta"], 0.05, 2, "trotter")
    drifted = case["target_field"](case["theta"] - 2 * 0.05 * (case["g"][0] + case["g"][1]))
    expected = (2 * 0.05) ** 2 * sigma_matrix(case, drifted)
    assert torch.allclose(t.matrix, expected, rtol=1e-6, atol=1e-12)


def test_prediction_has_the_sign_and_size_of_the_truth() -> None:
    theta = start(13)
    for seed in range(10):
        a, b, e = (network(seed + i) for i in range(3))
        gaps = []
        for lr in (1e-2, 1e-3):
            measured = lt.measure_order_effect(a, b, e, theta, lr)
            predicted = lt.predict_order_effect(a, b, e, theta, lr)
            gaps.append(abs(measured - predicted))
        assert np.sign(measured) == np.sign(predicted)
        assert measured == pytest.approx(predicted, rel=0.2)
        # The remainder is of third order in the step size.
        assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.35)


def test_repeated_steps_scale_as_k_squared() -> None:
    a, b, e = (network(i) for i in range(3))
    theta, lr = start(13), 1e-5
    once = lt.measure_order_effect(a, b, e, theta, lr)
    thrice = lt.measure_order_effect(a, b, e, theta, lr, steps=3)
    assert thrice / once == pytest.approx(9, rel=1e-2)
    predicted = lt.predict_order_effect(a, b, e, theta, lr, steps=3)
    assert thrice == pytest.approx(predicted, rel=1e-2)


def test_stage_reduces_to_the_local_score() -> None:
    sources = {n: network(i) for i, n in enumerate("abc")}
    target, theta = network(5), start(13)
    gaps = []
    for lr in (1e-2, 1e-3):
        stage = lt.tournament(sources, target, theta, lr, 1, "stage").matrix
        local = lt.tournament(sources, target, theta, lr, 1, "local").matrix
        gaps.append(float((stage - local).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.35)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_stage_is_exact_for_quadratics_and_a_linear_target(optimizer: str) -> None:
    sources = {"a": quadratic(5, 1)[0], "b": quadratic(5, 2)[0]}
    direction = start(5, 9)
    target, theta = lt.Objective(lambda x: direction @ x), start(5)
    run = (target, theta, 0.1, 4)
    predicted = lt.tournament(
        sources, *run, "stage", optimizer, schedule="linear", warmup=2
    ).matrix[0, 1]
    measured = lt.measure_order_effect(
        *sources.values(), *run, optimizer, schedule="linear", warmup=2
    )
    assert float(predicted) == pytest.approx(measured, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_stage_is_exact_among_several_too(optimizer: str) -> None:
    """There a second stage is followed from elsewhere, and carried to where it begins."""
    sources = {n: quadratic(5, seed)[0] for seed, n in enumerate("abc", 1)}
    direction = start(5, 9)
    target, theta = lt.Objective(lambda x: direction @ x), start(5)
    predicted = lt.tournament(sources, target, theta, 0.1, 4, "stage", optimizer).matrix
    for (i, a), (j, b) in itertools.combinations(enumerate(sources.values()), 2):
        measured = lt.measure_order_effect(a, b, target, theta, 0.1, 4, optimizer)
        assert float(predicted[i, j]) == pytest.approx(measured, rel=1e-9)


def test_stage_is_zero_for_equal_sources_and_right_at_long_horizons() -> None:
    target, theta = network(5), start(13)
    same = lt.tournament({"a": network(0), "b": network(0)}, target, theta, 0.1, 5, "stage")
    assert same.matrix.abs().max() == 0
    right = []
    for seed, optimizer in itertools.product(range(0, 24, 3), ("sgd", "momentum", "adamw")):
        lr = {"sgd": 0.1, "momentum": 0.01, "adamw": 3e-3}[optimizer]
        a, b, e = (network(seed + i) for i in range(3))
        predicted = lt.predict_order_effect(a, b, e, theta, lr, 10, "stage", optimizer)
        measured = lt.measure_order_effect(a, b, e, theta, lr, 10, optimizer)
        right.append(np.sign(predicted) == np.sign(measured))
    assert len(right) == 24
    assert sum(right) >= 22


def test_order_of_sources_and_of_targets_does_not_matter() -> None:
    case = closed_form(3)
    t = lt.tournament(case["sources"], case["target"], case["theta"], lr=0.05)
    turned = dict(reversed(case["sources"].items()))
    u = lt.tournament(turned, case["target"], case["theta"], lr=0.05)
    assert t.order == u.order
    assert torch.allclose(t.matrix, u.matrix.flip(0, 1), atol=1e-15)


def test_several_weighted_targets() -> None:
    case = closed_form(5)
    targets = {"x": case["target"], "y": network_like(case)}
    weights = {"x": 0.5, "y": -2.0}
    t = lt.tournament(case["sources"], targets, case["theta"], lr=0.05, weights=weights)
    mixed = lt.Objective(lambda p: 0.5 * targets["x"].fn(p) - 2.0 * targets["y"].fn(p))
    u = lt.tournament(case["sources"], mixed, case["theta"], lr=0.05)
    assert torch.allclose(t.matrix, u.matrix, atol=1e-14)
    assert set(t.targets) == {"x", "y"}
    with pytest.raises(lt.InputError, match="weights: expected names out of x, y"):
        lt.tournament(case["sources"], targets, case["theta"], 0.05, weights={"z": 1.0})


def network_like(case: dict) -> lt.Objective:
    return lt.Objective(lambda x: torch.sin(x).sum())


def test_cost_is_two_gradients_a_source() -> None:
    class Counted(lt.Objective):
        def _choose_method(self, theta, v):
            return "finite-difference"

    sources = {f"s{i}": Counted(network(i).fn) for i in range(8)}
    t = lt.tournament(sources, network(9), start(13), lr=0.1)
    assert t.cost.total <= 17.5


def test_half_precision_storage_keeps_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(4, 50_000, generator=generator) * torch.tensor([[1e-6], [1.0], [1e4], [3.0]])
    full = stored_gram([Stored.of(x, True) for x in u], [Stored.of(x, True) for x in u])
    half = stored_gram([Stored.of(x, False) for x in u], [Stored.of(x, False) for x in u])
    lengths = full.diag().sqrt()
    assert ((half - full).abs() <= 1e-3 * lengths[:, None] * lengths[None, :]).all()


def test_many_vectors_are_kept_as_sketches_of_one_vectors_length(monkeypatch) -> None:
    monkeypatch.setattr("lietoolkit.geometry.storage.FULL_PRECISION_BYTES", 0.0)
    monkeypatch.setattr("lietoolkit.geometry.storage.SHORTEST", 1)
    u = torch.randn(80, 40_000, generator=torch.Generator().manual_seed(0)) + 0.1
    assert Keeper.of(u[0], 64).sketch is None
    keep = Keeper.of(u[0], len(u))
    kept = [keep(x) for x in u]
    assert sum(x.data.numel() for x in kept) == u[0].numel()
    exact, sketched = u.double() @ u.double().T, stored_gram(kept, kept)
    lengths = exact.diag().sqrt()
    assert torch.stack([x.norm() for x in kept]).allclose(lengths, rtol=1e-6)
    errors = (sketched - exact) / (lengths[:, None] * lengths) * 500**0.5
    errors = errors[~torch.eye(80, dtype=torch.bool)]
    assert errors.abs().max() < 5 and 0.8 < errors.std() < 1.2 and errors.mean().abs() < 0.2


@pytest.mark.parametrize("method", ["local", "stage"])
def test_sketches_change_no_plan_where_they_are_as_long_as_the_vectors(monkeypatch, method) -> None:
    """Then they hold all there is, so every path through them must give the same numbers."""
    sources = {f"s{i}": network(i) for i in range(4)}
    settings = {"theta": start(13), "lr": 0.1, "steps": 2}

    def planned() -> tuple[lt.Tournament, dict[str, float], float]:
        targets = {"a": network(8), "b": network(9)}
        t = lt.tournament(sources, targets, method=method, weights={"b": 0.5}, **settings)
        with metered() as cost:
            forgetting = order_against_reverse(sources, ["s2", "s0", "s3", "s1"], **settings)
        return t, forgetting, cost.gradients

    plain, forgotten, gradients = planned()
    monkeypatch.setattr("lietoolkit.geometry.storage.FULL_PRECISION_BYTES", 0.0)
    monkeypatch.setattr("lietoolkit.geometry.storage.MANY", 1)
    sketched, again, more = planned()
    assert torch.allclose(sketched.matrix, plain.matrix, rtol=1e-5, atol=1e-9)
    for figure, values in plain.gradients.items():
        assert sketched.gradients[figure] == pytest.approx(values, rel=1e-5)
    assert again == pytest.approx(forgotten, rel=1e-4)
    assert more == gradients + len(sources)  # each is computed once more


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_linear_ordering_finds_the_best_order(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    upper = np.triu(random.normal(size=(n, n)), 1)
    matrix = upper - upper.T
    every = list(itertools.permutations(range(n)))
    best = min(order_value(matrix, o) for o in every)
    assert order_value(matrix, exact_order(matrix)) == pytest.approx(best, abs=1e-12)
    found = order_value(matrix, search_order(matrix))
    assert best - 1e-12 <= found <= order_value(matrix, borda_order(matrix)) + 1e-12
    i, j = random.permutation(n)[:2]
    before = {(int(i), int(j))}
    allowed = [o for o in every if obeys(o, before)]
    best = min(order_value(matrix, o) for o in allowed)
    assert order_value(matrix, exact_order(matrix, before)) == pytest.approx(best, abs=1e-12)
    for rank in (borda_order, search_order, exact_order):
        assert obeys(rank(matrix, before), before)
        assert sorted(rank(matrix, before)) == list(range(n))


def test_order_value_is_the_schedule_formula() -> None:
    matrix = np.array([[0.0, 1.0, -3.0], [-1.0, 0.0, 5.0], [3.0, -5.0, 0.0]])
    assert order_value(matrix, [0, 1, 2]) == 0.5 * (1 - 3 + 5)
    assert order_value(matrix, [2, 1, 0]) == -order_value(matrix, [0, 1, 2])


def test_exact_has_a_limit_and_search_has_none() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(30, 30))
    matrix -= matrix.T
    with pytest.raises(lt.InputError, match="at most 14 sources, found 30; use 'search'"):
        exact_order(matrix)
    assert sorted(search_order(matrix)) == list(range(30))


def test_constraints() -> None:
    names = ["math", "code", "safety", "base"]
    before = parse_constraints(["math before code", "safety last", "base first"], names)
    assert (0, 1) in before
    assert {(i, 2) for i in (0, 1, 3)} <= before
    assert {(3, i) for i in (0, 1, 2)} <= before
    for rank in (borda_order, exact_order, search_order):
        matrix = np.zeros((4, 4))
        matrix[0, 1], matrix[1, 0] = 9.0, -9.0
        assert [names[i] for i in rank(matrix, before)] == ["base", "math", "code", "safety"]
    odd = parse_constraints(["a before b before c"], ["a before b", "c"])
    assert odd == {(0, 1)}
    for texts, message in (
        (["math before code", "code before math"], "contradict each other"),
        (["math last", "code last"], "contradict each other"),
        (["math before physics"], "expected 'a before b'"),
        (["math before math"], "two different names"),
        (["nonsense"], "constraint 'nonsense'"),
    ):
        with pytest.raises(lt.InputError, match=message):
            parse_constraints(texts, names)


def test_tournament_obeys_constraints() -> None:
    case = closed_form(1)
    free = lt.tournament(case["sources"], case["target"], case["theta"], lr=0.05)
    wish = f"{free.order[-1]} before {free.order[0]}"
    bound = lt.tournament(
        case["sources"], case["target"], case["theta"], lr=0.05, constraints=[wish]
    )
    for method in ("borda", "exact", "search"):
        order = bound.best_order(method)
        assert order.index(free.order[-1]) < order.index(free.order[0])


def test_plan_against_reverse_for_every_source() -> None:
    case = closed_form(7)
    order = ["s2", "s0", "s3", "s1"]
    effects = order_against_reverse(case["sources"], order, case["theta"], lr=0.05, steps=2)
    for name, g in zip(case["sources"], case["g"], strict=True):
        sigma = 0.1**2 * sigma_matrix(case, g)
        places = [int(n[1]) for n in order]
        expected = float(sigma[places][:, places].triu(1).sum())
        assert effects[name] == pytest.approx(expected, rel=1e-9)


def test_baselines_run_in_both_directions() -> None:
    orders = baseline_orders({"norm": {"a": 2.0, "b": 1.0, "c": 3.0}})
    assert orders["norm, small first"]["order"] == ["b", "a", "c"]
    assert orders["norm, large first"]["order"] == ["c", "a", "b"]
    bound = baseline_orders({"norm": {"a": 2.0, "b": 1.0, "c": 3.0}}, ["c first"])
    assert bound["norm, small first"]["order"] == ["c", "b", "a"]


def test_solo_gain_is_what_one_stage_alone_does() -> None:
    sources = {"a": network(0), "b": network(1)}
    target, theta = network(2), start(13)
    gains = solo_gain(sources, target, theta, 0.1, 2)
    for name, source in sources.items():
        x = theta
        for _ in range(2):
            x = x - 0.1 * source.gradient(x)
        assert gains[name] == pytest.approx(float(target.loss(theta) - target.loss(x)), abs=1e-14)


def test_step_size_rule() -> None:
    sources = {f"s{i}": quadratic(5, i)[0] for i in range(3)}
    tops = [float(torch.linalg.eigvalsh(quadratic(5, i)[1])[-1]) for i in range(3)]
    for source, top in zip(sources.values(), tops, strict=True):
        assert lt.lambda_max(source, start(5), products=5) == pytest.approx(top, rel=1e-8)
        assert 0.6 * top <= lt.lambda_max(source, start(5), products=2) <= top
    rule = lt.step_size(sources, start(5))
    assert rule.eta_lambda_max == pytest.approx(0.1)
    assert rule.note == ""
    largest = max(rule.lambda_max.values())
    assert "outside the local regime" in lt.step_size(sources, start(5), lr=0.5 / largest).note
    assert "signs mean nothing" in lt.step_size(sources, start(5), lr=3 / largest).note


def test_step_size_of_a_loss_that_cannot_be_differentiated_twice() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square().sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    sources = {name: lt.Objective(Square.apply, name) for name in "ab"}
    rule = lt.step_size(sources, start(5), hvp="finite-difference")
    assert rule.lambda_max == pytest.approx({"a": 2.0, "b": 2.0}, rel=1e-6)
    # What differentiating twice would have found.
    assert "no curvature" in lt.step_size(sources, start(5), hvp="exact").note


def test_bad_calls_are_explained() -> None:
    case = closed_form(0)
    run = (case["target"], case["theta"], 0.1)
    with pytest.raises(lt.InputError, match="an order needs at least two, found 1"):
        lt.tournament({"a": case["target"]}, *run)
    with pytest.raises(lt.InputError, match=r"sources\['b'\]: expected lt.Objective"):
        lt.tournament({"a": case["target"], "b": 3}, *run)
    with pytest.raises(lt.InputError, match="method: expected one of local, trotter, stage"):
        lt.tournament(case["sources"], *run, method="oracle")
    with pytest.raises(lt.InputError, match="method: expected one of borda, exact, search"):
        lt.tournament(case["sources"], *run).best_order("best")
    bad = dict(case["sources"], bad=lt.Objective(lambda x: x.sum() * float("nan")))
    with pytest.raises(lt.InputError, match="source 'bad': expected a finite loss and gradient"):
        lt.tournament(bad, *run)


def parts_of(shift: float, seed: int) -> Resampler:
    """Three sources of four chunks, whose products lie ``shift`` apart beside noise of size one."""
    draw = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        return torch.randn(32, generator=draw)

    middles = [shift * noise() for _ in range(3)]
    return Resampler(
        [[Part(0.25, noise(), middle + noise()) for _ in range(4)] for middle in middles]
    )


def test_sources_that_differ_are_told_apart_and_parts_of_one_are_not():
    """Under exchangeability the test's p is uniform: at most one in 20 falls below 0.05."""
    alike = [parts_of(0.0, seed).chance(200) for seed in range(100)]
    assert sum(p <= 0.05 for p in alike) <= 12  # 5 expected; more than 12 in 1 of 400 cases
    assert 0.35 < sum(alike) / 100 < 0.65
    assert all(parts_of(1.0, seed).chance(200) < 0.05 for seed in range(10))
