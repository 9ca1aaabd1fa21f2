"""Planning from the end, and the reverse of whole runs, against definitions and autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import network, quadratic, start

import lietoolkit as lt
from lietoolkit.order.from_end import FromEnd
from lietoolkit.training.optimizers import TrainingState
from lietoolkit.training.reverse import (
    Step,
    pull_back,
    run_trajectory,
    stage_steps,
)
from lietoolkit.training.schedules import step_sizes

OPTIMIZERS = {"sgd": lt.SGD(), "momentum": lt.Momentum(), "adamw": lt.AdamW()}
# A stage learns little at these, so that expansions in the step size hold.
SMALL = {"sgd": 3e-3, "momentum": 1e-3, "adamw": 1e-3}


def networks(names: str = "abc", seed: int = 0) -> dict[str, lt.Objective]:
    return {name: network(seed + i) for i, name in enumerate(names)}


def tell(plan: FromEnd) -> list[tuple[str, float]]:
    return [(name, score) for scores in plan.rounds for name, score in sorted(scores.items())]


def gap(one: FromEnd, other: FromEnd) -> float:
    """The largest difference of scores of the same choices."""
    pairs = list(zip(tell(one), tell(other), strict=True))
    assert all(a[0] == b[0] for a, b in pairs)
    return max(abs(a[1] - b[1]) for a, b in pairs)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_exact_is_its_definition(name: str, schedule: str) -> None:
    rule, sources, target, theta = OPTIMIZERS[name], networks(), network(9), start(13)
    sizes = step_sizes(0.02, 9, schedule, 2)
    plan = lt.plan_from_end(
        sources, target, theta, 0.02, 3, name, effort="exact", schedule=schedule, warmup=2
    )

    def loss_of(turns: str) -> float:
        state = rule.init(theta)
        for letter, lr in zip(turns, sizes, strict=True):
            state = rule.step(state, sources[letter].gradient(state.theta), lr)
        return float(target.loss(state.theta))

    runs = {"c": "abbaab" + "ccc", "b": "accaac" + "bbb", "a": "bccbbc" + "aaa"}
    first = {last: loss_of(turns) for last, turns in runs.items()}
    assert plan.rounds[0] == pytest.approx(first, abs=1e-13)
    last = min(first, key=first.__getitem__)
    x, y = (letter for letter in "abc" if letter != last)
    second = {y: loss_of(3 * x + 3 * y + 3 * last), x: loss_of(3 * y + 3 * x + 3 * last)}
    assert plan.rounds[1] == pytest.approx(second, abs=1e-13)
    middle = min(second, key=second.__getitem__)
    assert plan.order == [x if middle == y else y, middle, last]
    assert len(plan.rounds) == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("target", ["network", "straight"])
def test_linear_differs_from_exact_in_the_order_after(name: str, target: str) -> None:
    if target == "network":
        sources, aim, theta = networks(), network(9), start(13)
    else:
        direction, theta = start(5, 9), start(5)
        sources = {n: quadratic(5, i)[0] for i, n in enumerate("abc")}
        aim = lt.Objective(lambda x: direction @ x)
    for steps in (1, 3):
        gaps = []
        for lr in (SMALL[name], SMALL[name] / 10):
            run = (sources, aim, theta, lr, steps, name)
            pairs = []
            # The first choice of three; and one of two before a last one that is given.
            for settings in ({"one_shot": True}, {"constraints": ["c last"]}):
                linear = lt.plan_from_end(*run, **settings)
                exact = lt.plan_from_end(*run, **settings, effort="exact")
                pairs.append(gap(linear, exact))
                assert linear.order == exact.order
            gaps.append(pairs)
        # Order effects begin at second order for plain SGD, at first order with a state.
        slope = 3 if name == "sgd" else 2
        for large, small in zip(*gaps, strict=True):
            assert small <= 1e-13 or large / small >= 0.5 * 10**slope
            assert large > 0


def test_small_steps_give_the_row_sums_of_the_tournament() -> None:
    sources, target, theta = networks("abcd"), network(9), start(13)
    gaps = []
    for lr in (1e-2, 1e-3):
        plan = lt.plan_from_end(sources, target, theta, lr, 2, one_shot=True)
        sums = lt.tournament(sources, target, theta, lr, 2).scores
        found = plan.rounds[0]
        gaps.append(
            max(
                abs((found[i] - found[j]) + 0.5 * (sums[i] - sums[j]))
                for i, j in itertools.combinations(sources, 2)
            )
        )
    assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.35)
    assert plan.order == lt.tournament(sources, target, theta, 1e-3, 2).order


@pytest.mark.parametrize("effort", ["exact", "linear"])
def test_commuting_sources_score_alike(effort: str) -> None:
    def own(i: int) -> lt.Objective:
        return lt.Objective(lambda x: torch.cosh(x[2 * i] - x[2 * i + 1]) + x[2 * i].square())

    sources = {str(i): own(i) for i in range(3)}
    aim = lt.Objective(lambda x: torch.sin(x).sum() + x.prod())
    plan = lt.plan_from_end(sources, aim, start(6), 0.05, 4, effort=effort)
    for scores in plan.rounds:
        assert max(scores.values()) - min(scores.values()) <= 1e-13
        assert len(scores) > 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_chained_reverse_equals_autograd_through_the_unrolled_run(name: str) -> None:
    rule, theta = OPTIMIZERS[name], start(13)
    a, b, c = (network(i) for i in range(3))
    warm = run_trajectory(stage_steps(c, [0.02] * 3), rule.init(theta), rule).end
    # Two in turn, one of them with gradients that are held; then a stage of a third.
    joint = [Step(a, 0, (0.03,)), Step(b, 0, (0.01, 0.02)), Step(b, 0, (0.02, 0.0, 0.01))]
    joint += [Step(a, 0, (0.02,))]
    first = run_trajectory(joint, warm, rule)
    second = run_trajectory(stage_steps(c, [0.02, 0.01, 0.03]), first.end, rule)
    outer = TrainingState(
        start(13, 7), tuple(start(13, 8 + i) for i in range(len(warm.buffers))), 0
    )
    found = pull_back(first, pull_back(second, outer))

    leaves = [t.clone().requires_grad_() for t in (warm.theta, *warm.buffers)]
    state = TrainingState(leaves[0], tuple(leaves[1:]), warm.step)
    for step in (*joint, *second.steps):
        (g,) = torch.autograd.grad(step.source.fn(state.theta), state.theta, create_graph=True)
        for lr in step.sizes:
            state = rule.step(state, g, lr)
    assert torch.allclose(state.theta, second.end.theta, atol=1e-14)
    ends, cotangents = [state.theta, *state.buffers], [outer.theta, *outer.buffers]
    expected = torch.autograd.grad(ends, leaves, cotangents)
    for ours, theirs in zip((found.theta, *found.buffers), expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * max(1.0, float(theirs.abs().max()))


def test_checkpoints_change_nothing(monkeypatch) -> None:
    rule, theta = lt.AdamW(), start(13)
    steps = [Step(network(s % 3), 0, (0.01,)) for s in range(11)]
    outer = TrainingState(start(13, 7), (start(13, 8), start(13, 9)), 0)
    full = pull_back(run_trajectory(steps, rule.init(theta), rule), outer)
    for every in (2, 4, 11):
        run = run_trajectory(steps, rule.init(theta), rule, every)
        assert len(run.states) == -(-11 // every)
        assert not run.gradients
        found = pull_back(run, outer)
        for x, y in zip((full.theta, *full.buffers), (found.theta, *found.buffers), strict=True):
            assert torch.equal(x, y)
    sources, aim = networks(), network(9)
    plan = lt.plan_from_end(sources, aim, theta, 0.05, 5, "momentum")
    monkeypatch.setattr("lietoolkit.geometry.storage.FULL_PRECISION_BYTES", 0)
    assert len(run_trajectory(steps, rule.init(theta), rule).states) == 3
    frugal = lt.plan_from_end(sources, aim, theta, 0.05, 5, "momentum")
    assert frugal.rounds == plan.rounds
    assert frugal.cost.gradients > plan.cost.gradients


@pytest.mark.parametrize("effort", ["exact", "linear"])
def test_constraints_are_obeyed(effort: str) -> None:
    sources, run = networks("abcd"), (network(9), start(13), 0.1, 2)
    free = lt.plan_from_end(sources, *run, effort=effort)
    w, x, y, z = free.order
    for wishes in ([f"{z} before {w}"], [f"{z} first"], [f"{w} last", f"{y} before {x}"]):
        for one_shot in (False, True):
            plan = lt.plan_from_end(
                sources, *run, effort=effort, one_shot=one_shot, constraints=wishes
            )
            place = plan.order.index
            assert sorted(plan.order) == list("abcd")
            if wishes[0].endswith(w):
                assert place(z) < place(w)
            elif wishes[0].endswith("first"):
                assert place(z) == 0
            else:
                assert place(w) == 3
                assert place(y) < place(x)
    # One candidate is no choice and costs nothing.
    fixed = lt.plan_from_end(sources, *run, effort=effort, constraints=["a first", "c after b"])
    assert [len(scores) for scores in fixed.rounds] in ([2, 2], [2])
    forced = lt.plan_from_end(
        sources, *run, effort=effort, constraints=["b before a", "a before d", "d before c"]
    )
    assert (forced.order, forced.rounds, forced.cost.total) == (list("badc"), [], 0)
    with pytest.raises(lt.InputError, match="contradict each other"):
        lt.plan_from_end(sources, *run, effort=effort, constraints=["a before b", "b before a"])


@pytest.mark.parametrize("effort", ["exact", "linear"])
def test_the_order_in_which_sources_are_given_matters_in_third_order_only(effort: str) -> None:
    sources, run = networks(), (network(9), start(13))
    turned = dict(reversed(sources.items()))
    gaps = []
    for lr in (3e-3, 3e-4):
        plans = [lt.plan_from_end(s, *run, lr, 4, effort=effort) for s in (sources, turned)]
        assert plans[0].order == plans[1].order
        gaps.append(gap(*plans))
    assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.35)
    # Between two sources nothing is interleaved in an exact plan.
    pair = {n: sources[n] for n in "ab"}
    turned = {n: sources[n] for n in "ba"}
    plans = [lt.plan_from_end(s, *run, 0.1, 3, "adamw", effort="exact") for s in (pair, turned)]
    assert plans[0].rounds == plans[1].rounds


def test_fewer_sweeps_spend_less_and_keep_the_step_sizes() -> None:
    slopes = start(13, 3), start(13, 4), start(13, 5)
    sources = {str(i): lt.Objective(lambda x, u=u: u @ x) for i, u in enumerate(slopes)}
    run = (network(9), start(13), 0.05, 6)
    # Constant gradients: however many stand for a stage, plain SGD ends at the same place.
    for effort in ("exact", "linear"):
        plans = [
            lt.plan_from_end(sources, *run, sweeps=m, effort=effort, schedule="linear", warmup=3)
            for m in (1, 4, 6)
        ]
        assert gap(plans[0], plans[2]) <= 1e-13
        assert gap(plans[1], plans[2]) <= 1e-13
    for m in (2, 6):
        plan = lt.plan_from_end(
            networks("abcd"), *run, sweeps=m, one_shot=True, hvp="finite-difference"
        )
        # A joint run, its reverse for two, and the last stages; and the target's gradient.
        assert plan.cost.gradients + plan.cost.hvps == 4 * 4 * m + 1
        exact = lt.plan_from_end(networks("abcd"), *run, sweeps=m, effort="exact")
        assert exact.cost.gradients == (4 * 4 + 3 * 4 + 2 * 4) * m
        assert (plan.sweeps, plan.effort, exact.effort) == (m, "linear", "exact")


def test_held_gradients_are_read_batch_by_batch() -> None:
    class Two(lt.Objective):
        batches = 2

        def __init__(self) -> None:
            super().__init__(lambda x: x.sum())
            self.seen: list[int | None] = []

        def _gradient(self, theta, batch):
            self.seen.append(batch)
            return torch.zeros_like(theta)

    a, b = Two(), Two()
    lt.plan_from_end({"a": a, "b": b}, network(9), start(13), 0.1, 6, sweeps=3, effort="exact")
    assert a.seen == b.seen == [0, 1, 0] * 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_plans_are_near_the_best_order_where_stages_learn(name: str) -> None:
    lr = {"sgd": 0.1, "momentum": 0.01, "adamw": 1e-2}[name]
    ranks: dict[str, list[float]] = {"exact": [], "linear": []}
    for seed in range(0, 24, 6):
        sources, run = networks("abcd", seed), (network(seed + 5), start(13, seed), lr, 6, name)
        orders = list(itertools.permutations(sources))
        losses = dict(
            zip(orders, lt.run_schedules(sources, *run[:2], orders, *run[2:]).tolist(), strict=True)
        )
        for effort, found in ranks.items():
            order = tuple(lt.plan_from_end(sources, *run, effort=effort).order)
            found.append(sum(x < losses[order] for x in losses.values()) / 23)
    for found in ranks.values():
        assert len(found) == 4
        assert sum(found) / 4 <= 0.15


def test_bad_calls_are_explained() -> None:
    sources, run = networks(), (network(9), start(13), 0.1, 2)
    for change, message in (
        ({"effort": "some"}, "effort: expected one of exact, linear; found 'some'"),
        ({"sweeps": 3}, "sweeps: expected a whole number from 1 to steps = 2, found 3"),
        ({"sweeps": 0}, "sweeps: expected a whole number from 1 to steps = 2, found 0"),
        ({"sweeps": 1.0}, "sweeps: expected a whole number"),
        ({"optimizer": "lion"}, "optimizer: expected one of sgd, momentum, adamw"),
        ({"schedule": "step"}, "schedule: expected one of constant"),
        ({"constraints": ["a before z"]}, "constraint 'a before z'"),
    ):
        with pytest.raises(lt.InputError, match=message):
            lt.plan_from_end(sources, *run, **change)
    with pytest.raises(lt.InputError, match=r"target: expected lt.Objective .* found dict"):
        lt.plan_from_end(sources, {"x": network(9)}, *run[1:])
    with pytest.raises(lt.InputError, match="an order needs at least two, found 1"):
        lt.plan_from_end({"a": network(0)}, *run)
    wall = {"a": quadratic(13, 0)[0], "wall": lt.Objective(lambda x: (x**4).sum(), "wall")}
    for effort in ("exact", "linear"):
        with pytest.raises(lt.InputError, match="training on 'wall' diverged"):
            lt.plan_from_end(wall, network(9), start(13), 1.0, 20, effort=effort)
