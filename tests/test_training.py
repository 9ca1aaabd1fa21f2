"""Optimizers against torch.optim, stages, shared prefixes, resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
import torch
from helpers import network, quadratic, start

import lietoolkit as lt
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.space import BLOCK
from lietoolkit.training.optimizers import Clipped, Resumed, TrainingState
from lietoolkit.training.reverse import at_end, pull_back, run_trajectory, stage_steps
from lietoolkit.training.schedules import step_sizes
from lietoolkit.training.stages import run_stage
from lietoolkit.training.trail import Trail, shared_stages

TORCH = {
    "sgd": (lt.SGD(), lambda p, lr: torch.optim.SGD(p, lr)),
    "momentum": (lt.Momentum(), lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)),
    "adamw": (lt.AdamW(), lambda p, lr: torch.optim.AdamW(p, lr)),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_optimizers_equal_torch(name: str, dtype: torch.dtype) -> None:
    ours, make = TORCH[name]
    source = network(3)
    theta = start(13).to(dtype)
    parameter = torch.nn.Parameter(theta.clone())
    theirs = make([parameter], 0.05)
    state = ours.init(theta)
    for _ in range(50):
        g = source.gradient(state.theta.double()).to(dtype)
        state = ours.step(state, g, 0.05)
        parameter.grad = source.gradient(parameter.detach().double()).to(dtype)
        theirs.step()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(state.theta, parameter.detach(), atol=tolerance, rtol=tolerance)
    assert state.step == 50


@pytest.mark.parametrize("inner", [lt.SGD(), lt.Momentum(), lt.AdamW()], ids=lambda o: o.name)
@pytest.mark.parametrize("around", ["nothing", "clipped", "resumed"])
def test_updates_in_place_are_the_same_updates(inner: object, around: str) -> None:
    """Bit by bit, over several blocks; a stage leaves the state it was given as it was."""
    size = 2 * BLOCK + 3
    generator = torch.Generator().manual_seed(0)
    theta, *given = (torch.randn(size, generator=generator) for _ in range(4))
    state = inner.init(theta)
    late = inner.step(state, given[0], 0.1)
    optimizer = {
        "nothing": inner,
        "clipped": Clipped(inner, 0.5),
        "resumed": Resumed(inner, late, rest=(0.5, 1.0, 0.25)),
    }[around]
    start = optimizer.init(theta)
    before = [t.clone() for t in (theta, *start.buffers)]
    pure = start
    for g in given:
        pure = optimizer.step(pure, g, 0.1)
    held = start
    for lr in (0.1, 0.2, 0.3):
        held = optimizer.step(held, given[0], lr)
    left = iter([*given, given[0]])
    source = lt.Objective(lambda x: x.sum())
    source.gradient = lambda theta, batch: next(left)
    for wanted, sizes, gradients in ((pure, [0.1] * 3, None), (held, [0.1, 0.2, 0.3], 1)):
        staged = run_stage(source, start, optimizer, sizes, gradients)
        assert staged.step == wanted.step
        for one, other in zip(
            (staged.theta, *staged.buffers), (wanted.theta, *wanted.buffers), strict=True
        ):
            assert torch.equal(one, other)
    for now, then in zip((theta, *start.buffers), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_equal_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    name = "constant_with_warmup" if schedule == "constant" else schedule
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.3)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=3, num_training_steps=12)
    expected = []
    for _ in range(12):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert step_sizes(0.3, 12, schedule, warmup=3) == pytest.approx(expected)


@pytest.mark.parametrize("name", TORCH)
def test_reverse_sweep_equals_autograd_through_the_unrolled_run(name: str) -> None:
    optimizer, source, theta = TORCH[name][0], network(3), start(13)
    sizes = step_sizes(0.05, 6, "cosine", warmup=1)[1:]
    warm = run_stage(network(4), optimizer.init(theta), optimizer, [0.05] * 3)
    cotangent = start(13, 7)
    trajectory = run_trajectory(stage_steps(source, sizes), warm, optimizer)
    found = pull_back(trajectory, at_end(trajectory, cotangent))
    leaves = [t.clone().requires_grad_() for t in (warm.theta, *warm.buffers)]
    state = TrainingState(leaves[0], tuple(leaves[1:]), warm.step)
    for lr in sizes:
        (g,) = torch.autograd.grad(source.fn(state.theta), state.theta, create_graph=True)
        state = optimizer.step(state, g, lr)
    expected = torch.autograd.grad(state.theta, leaves, cotangent)
    for ours, theirs in zip((found.theta, *found.buffers), expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * max(1.0, float(theirs.abs().max()))


def by_hand(sources, target, theta, order, lr, steps, optimizer, sizes) -> float:
    state = optimizer.init(theta)
    for position, name in enumerate(order):
        for s in range(steps):
            g = sources[name].gradient(state.theta)
            state = optimizer.step(state, g, sizes[position * steps + s])
    return float(target.loss(state.theta))


@pytest.mark.parametrize("name", TORCH)
def test_schedules_share_prefixes_and_equal_separate_runs(name: str) -> None:
    optimizer = TORCH[name][0]
    sources = {n: network(i) for i, n in enumerate("abc")}
    target, theta = network(9), start(13)
    orders = [list(o) for o in ("abc", "acb", "bac", "bca", "cab", "cba", "b", "ab")]
    with metered() as cost:
        losses = lt.run_schedules(
            sources, target, theta, orders, 0.1, 2, optimizer, schedule="linear", warmup=1
        )
    assert cost.gradients == 15 * 2
    sizes = step_sizes(0.1, 6, "linear", 1)
    expected = [by_hand(sources, target, theta, o, 0.1, 2, optimizer, sizes) for o in orders]
    assert losses.tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("reset", [False, True])
def test_a_trail_saves_the_stages_that_are_shared_and_changes_no_number(name: str, reset: bool):
    sources = {n: network(i) for i, n in enumerate("abcd")}
    target, theta, trail = network(9), start(13), Trail()
    settings = {"lr": 0.1, "steps": 2, "optimizer": TORCH[name][0], "schedule": "linear"}
    orders = ["abcd", "abdc", "adbc", "adcb", "dcba", "dacb", "dabc", "dabc"]
    before = ""
    for order in orders:
        alone = lt.run_schedules(sources, target, theta, [order], reset=reset, **settings)
        with metered() as cost:
            after = lt.run_schedules(
                sources, target, theta, [order], reset=reset, trail=trail, **settings
            )
        assert after.equal(alone)
        # Asked for again, an order goes on from where two places are left.
        shared = 2 if order == before else shared_stages(before, order) if before else 0
        assert cost.gradients == 2 * (4 - shared)
        before = order
    # Other settings are another run.
    settings["lr"] = 0.05
    alone = lt.run_schedules(sources, target, theta, ["dacb"], reset=reset, **settings)
    after = lt.run_schedules(sources, target, theta, ["dacb"], reset=reset, trail=trail, **settings)
    assert after.equal(alone)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_resumed_is_the_rest_of_the_whole_run(name: str, schedule: str) -> None:
    rule, theta = TORCH[name][0], start(13)
    sources, target = {"a": network(3), "b": network(4)}, network(5)
    (whole,) = lt.run_schedules(
        sources, target, theta, [("a", "b")], 0.05, 3, rule, schedule=schedule, warmup=4
    )
    sizes = step_sizes(0.05, 6, schedule, warmup=4)
    half, rest = run_stage(sources["a"], rule.init(theta), rule, sizes[:3]), sizes[3:]
    resumed = Resumed(rule, half, tuple(lr / max(rest) for lr in rest))
    run = (target, half.theta, [("b",)], max(rest), 3)
    (found,) = lt.run_schedules(sources, *run, resumed)
    assert float(found) == pytest.approx(float(whole), abs=1e-14)
    (fresh,) = lt.run_schedules(sources, *run, Resumed(rule, half), schedule=schedule)
    assert abs(float(fresh - whole)) > 1e-7, "a schedule begun again is another run"


def test_order_effect_is_first_minus_second() -> None:
    a, b, e = network(0), network(1), network(2)
    theta = start(13)
    losses = lt.run_schedules({"a": a, "b": b}, e, theta, [["a", "b"], ["b", "a"]], lr=0.1, steps=3)
    effect = lt.measure_order_effect(a, b, e, theta, lr=0.1, steps=3)
    assert effect == float(losses[0] - losses[1])
    assert effect == -lt.measure_order_effect(b, a, e, theta, lr=0.1, steps=3)


def test_state_is_carried_or_reset() -> None:
    a, b, e = network(0), network(1), network(2)
    theta = start(13)
    run = ({"a": a, "b": b}, e, theta, [["a", "b"]], 0.1, 2, "adamw")
    carried, fresh = lt.run_schedules(*run), lt.run_schedules(*run, reset=True)
    assert not torch.equal(carried, fresh)
    alone = lt.run_schedules(
        {"a": a}, lt.Objective(lambda x: x[0]), theta, [["a"]], 0.1, 2, "adamw"
    )
    assert alone.shape == (1,)


def test_stage_step_s_reads_batch_s() -> None:
    class Two(lt.Objective):
        batches = 2

        def __init__(self) -> None:
            super().__init__(lambda x: x.sum())
            self.seen: list[int | None] = []

        def _gradient(self, theta, batch):
            self.seen.append(batch)
            return torch.zeros_like(theta)

    source = Two()
    lt.run_schedules({"s": source}, network(0), start(13), [["s"]], 0.1, 5)
    assert source.seen == [0, 1, 0, 1, 0]


def test_several_targets_in_one_run() -> None:
    sources = {n: network(i) for i, n in enumerate("ab")}
    targets = {"x": network(5), "y": network(6)}
    theta = start(13)
    both = lt.run_schedules(sources, targets, theta, [["a", "b"], ["b", "a"]], 0.1)
    assert both.shape == (2, 2)
    for m, target in enumerate(targets.values()):
        one = lt.run_schedules(sources, target, theta, [["a", "b"], ["b", "a"]], 0.1)
        assert torch.equal(both[:, m], one)


def test_resumes_after_a_cut_off_line_with_the_same_numbers(tmp_path) -> None:
    sources = {n: network(i) for i, n in enumerate("abc")}
    orders = [list(o) for o in ("abc", "acb", "bac", "bca", "cab", "cba")]
    run = (sources, network(9), start(13), orders, 0.1, 2)
    expected = lt.run_schedules(*run)
    whole = lt.run_schedules(*run, folder=tmp_path)
    (file,) = tmp_path.glob("orders-*.jsonl")
    content = file.read_bytes()
    assert torch.equal(whole, expected)
    for cut in (0, 1, len(content) // 3, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        assert torch.equal(lt.run_schedules(*run, folder=tmp_path), expected)
        rows = [json.loads(line) for line in file.read_text().splitlines() if _whole(line)]
        assert Counter(tuple(r["order"]) for r in rows) == Counter(tuple(o) for o in orders)
    with metered() as cost:
        lt.run_schedules(*run, folder=tmp_path)
    assert cost.total == 0
    lt.run_schedules(*run[:4], 0.2, 2, folder=tmp_path)
    assert len(list(tmp_path.glob("orders-*.jsonl"))) == 2


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_divergence_names_source_and_step() -> None:
    wall = lt.Objective(lambda x: (x**4).sum(), "wall")
    theta = torch.ones(2, dtype=torch.float64)
    with pytest.raises(lt.InputError, match=r"training on 'wall' diverged at step \d+ of 50"):
        lt.run_schedules({"wall": wall}, wall, theta, [["wall"]], 10.0, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr: expected a positive finite number, found 0.0"),
        ({"lr": float("nan")}, "lr: expected a positive finite number, found nan"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, found 0"),
        ({"optimizer": "lion"}, "optimizer: expected one of sgd, momentum, adamw; found 'lion'"),
        ({"schedule": "step"}, "schedule: expected one of constant, linear, cosine; found 'step'"),
        ({"warmup": -1}, "warmup: expected a whole number"),
        ({"orders": [["a", "z"]]}, "orders: unknown source 'z'; the sources are a"),
    ],
)
def test_bad_settings_are_explained(change: dict, message: str) -> None:
    settings = {"orders": [["a"]], "lr": 0.1, "steps": 1} | change
    with pytest.raises(lt.InputError, match=message):
        lt.run_schedules({"a": quadratic(3, 0)[0]}, quadratic(3, 1)[0], start(3), **settings)


def test_import_is_light() -> None:
    code = (
        "import torch, sys; before = set(sys.modules); import lietoolkit; "
        "heavy = {'transformers', 'datasets', 'matplotlib', 'pandas', 'scipy', 'typer'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
