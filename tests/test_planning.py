"""plan_order and verify_plan on a tiny Llama: order, matrix, and everything said about them."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import tiny
import torch
from helpers import quadratic, start

import lietoolkit as lt
from lietoolkit.errors import InputError
from lietoolkit.geometry.cost import metered
from lietoolkit.order.effort import Effort, batches_beside, choose_effort
from lietoolkit.order.plane import gradient_plane
from lietoolkit.order.recommend import neighbors, recommend
from lietoolkit.report.limits import limits
from lietoolkit.statistics import wilson_interval
from lietoolkit.tasks.generated import sft_families
from lietoolkit.tasks.parts import in_parts
from lietoolkit.tasks.toys import network_start, networks
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.verify import LONG

pytest.importorskip("transformers")


def rows(*words: str, seed: int = 0) -> list[dict[str, str]]:
    """Eight instructions whose answers differ in length."""
    draw = random.Random(seed)
    return [
        {"prompt": f"say {draw.choice(words)}:", "completion": " the cat" * n + f" {words[n % 2]}"}
        for n in range(8)
    ]


SOURCES = {
    "Paris": rows("Paris", "France", seed=1),
    "good": rows("good", "again", seed=2),
    "mat": rows("mat", "cat", "2", seed=3),
}
TARGET = rows("capital", "Paris", "good", seed=4)
OTHER = rows("sat", "on", "mat", seed=5)
LR = 0.02


def plan_of(model=None, sources=None, target=TARGET, **options) -> lt.OrderPlan:
    settings = {
        "lr": LR, "steps": 1, "optimizer": "sgd", "planner": "tournament", "geometry": False,
        "resamples": 50,
    }  # fmt: skip
    return lt.plan_order(
        model or tiny.model(seed=2).double(), sources or SOURCES, target,
        tokenizer=tiny.tokenizer(), **(settings | options),
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> lt.OrderPlan:
    return plan_of()


@pytest.fixture(scope="module")
def verified(plan) -> lt.OrderPlan:
    return lt.verify_plan(plan, 6, steps=[1, 3])


# --- the order and its matrix --------------------------------------------------------------------


def test_matrix_is_the_effect_of_the_order_to_leading_order(plan) -> None:
    """Halving the step size halves the relative gap to truth: the error is one order higher."""
    m = plan.material
    gaps = []
    for lr in (1e-5, 5e-6):
        pair_gaps = []
        for a, b in itertools.combinations(plan.names, 2):
            i, j = plan.names.index(a), plan.names.index(b)
            predicted = plan.matrix[i][j] * (lr / LR) ** 2
            measured = lt.measure_order_effect(
                m.sources[a], m.sources[b], m.targets["target"], m.theta, lr
            )
            assert predicted * measured > 0
            pair_gaps.append(abs(predicted / measured - 1))
        gaps.append(pair_gaps)
    for coarse, fine in zip(*gaps, strict=True):
        assert fine < 0.02
        assert fine == pytest.approx(coarse / 2, rel=0.2)


def test_float64_is_float64_all_through() -> None:
    """The smallest steps are felt: models cast parts of themselves to float32 by habit."""
    space = lt.ParameterSpace(tiny.model(seed=2).double())
    batch = {"input_ids": torch.arange(20, 60).view(4, 10)}
    objective = lt.ModelObjective(space.model, [batch], "lm", space=space)
    theta, step = space.vector(), 1e-9
    g = objective.gradient(theta)
    slope = (objective.loss(theta + step * g) - objective.loss(theta - step * g)) / (2 * step)
    assert float(slope) == pytest.approx(float(space.dot(g, g)), rel=1e-5)


def test_order_is_that_of_the_row_sums(plan) -> None:
    assert sorted(plan.order) == sorted(plan.names) == sorted(SOURCES)
    assert list(plan.names) == list(SOURCES)
    sums = {name: sum(row) for name, row in zip(plan.names, plan.matrix, strict=True)}
    assert plan.scores == pytest.approx(sums)
    assert plan.order == sorted(plan.names, key=sums.__getitem__)
    for i, j in itertools.product(range(3), repeat=2):
        assert plan.matrix[i][j] == -plan.matrix[j][i]


def test_gain_against_the_reverse_is_what_training_gives(plan) -> None:
    m, lr = plan.material, 1e-4
    orders = [plan.order, plan.order[::-1]]
    forward, backward = lt.run_schedules(m.sources, m.targets["target"], m.theta, orders, lr)
    predicted = plan.targets["target"]["plan_vs_reverse"] * (lr / LR) ** 2
    assert predicted == pytest.approx(float(forward - backward), rel=0.1)
    loss = m.targets["target"].loss(m.theta)
    assert plan.targets["target"]["loss"] == pytest.approx(float(loss))


def test_forgetting_is_what_training_gives(plan) -> None:
    m, lr = plan.material, 1e-4
    orders = [plan.order, plan.order[::-1]]
    assert set(plan.forgetting) == set(SOURCES)
    for name, predicted in plan.forgetting.items():
        forward, backward = lt.run_schedules(m.sources, m.sources[name], m.theta, orders, lr)
        scaled = predicted * (lr / LR) ** 2
        assert scaled == pytest.approx(float(forward - backward), rel=0.15, abs=1e-9)


def test_float32_predicts_the_same(plan) -> None:
    for method in ("auto", "exact"):
        single = plan_of(tiny.model(seed=2), hvp=method)
        assert single.dtype == "float32"
        largest = max(abs(x) for row in plan.matrix for x in row)
        gap = torch.tensor(single.matrix) - torch.tensor(plan.matrix)
        assert float(gap.abs().max()) < 1e-3 * largest, method
        assert single.order == plan.order


def test_micro_batches_change_nothing(plan) -> None:
    """Answers differ in length, so equal weights of the parts would show."""
    parts = plan_of(microbatch=3)
    assert torch.tensor(parts.matrix) == pytest.approx(torch.tensor(plan.matrix), rel=1e-9)
    assert parts.targets["target"]["loss"] == pytest.approx(plan.targets["target"]["loss"])


def test_several_targets_are_weighted_and_shown(plan) -> None:
    both = plan_of(target={"a": TARGET, "b": OTHER}, weights={"b": 0.5})
    alone = plan_of(target=OTHER)
    a, b = (torch.tensor(both.targets[name]["matrix"]) for name in "ab")
    assert [both.targets[name]["weight"] for name in "ab"] == [1.0, 0.5]
    assert torch.allclose(a, torch.tensor(plan.matrix), rtol=1e-5)
    assert torch.allclose(b, torch.tensor(alone.matrix), rtol=1e-5)
    assert torch.allclose(torch.tensor(both.matrix), a + 0.5 * b, rtol=1e-5)
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("planner", ["auto", "tournament"])
def test_constraints_are_obeyed_exactly(plan, planner: str) -> None:
    last, first = plan.order[-1], plan.order[0]
    turned = plan_of(constraints=[f"{last} before {first}"], planner=planner)
    assert turned.order.index(last) < turned.order.index(first)
    assert plan_of(constraints=[f"{first} last"], planner=planner).order[-1] == first
    assert turned.matrix == plan.matrix


# --- confidence ----------------------------------------------------------------------------------


def test_confidence_is_given_for_each_adjacent_pair(plan) -> None:
    assert [(r["first"], r["second"]) for r in plan.confidence] == [*itertools.pairwise(plan.order)]
    for row in plan.confidence:
        i, j = plan.names.index(row["first"]), plan.names.index(row["second"])
        assert row["effect"] == plan.matrix[i][j]
        assert 0 <= row["survival"] <= 1
        assert row["resamples"] == 50


def test_confidence_is_high_for_equal_rows_and_absent_without_chunks() -> None:
    same = {name: [data[3]] * 8 for name, data in SOURCES.items()}
    assert [r["survival"] for r in plan_of(sources=same).confidence] == [1.0, 1.0]
    assert [r["survival"] for r in plan_of(chunks=1).confidence] == [None, None]


# --- what it costs, what it leaves ---------------------------------------------------------------


def test_the_model_is_left_exactly_as_it_was() -> None:
    model = tiny.model()
    model.get_input_embeddings().weight.grad = torch.ones_like(model.get_input_embeddings().weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = plan_of(model, geometry=True)
    lt.verify_plan(made, 3, steps=[2])
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert list(grads) == ["model.embed_tokens.weight"]
    assert bool((grads["model.embed_tokens.weight"] == 1).all())


def test_cost_is_what_was_evaluated() -> None:
    with metered() as cost:
        made = plan_of(steps=5)
    assert made.cost["total"] == pytest.approx(cost.total)
    assert made.cost["training_runs"] == pytest.approx(cost.total / (3 * 5))
    assert made.cost["hvps"] > 0


def test_the_geometry_starts_at_the_model_and_does_not_close() -> None:
    geometry = plan_of(geometry=True).geometry
    assert set(geometry["pair"]) <= set(SOURCES)
    assert geometry["path_ab"][0] == geometry["path_ba"][0] == [0.0, 0.0]
    assert geometry["path_ab"][-1] != geometry["path_ba"][-1]
    assert len(geometry["loss"]) == len(geometry["grid_y"])
    assert geometry["bracket_norm"] > 0


def test_the_order_shows_where_the_bracket_is_a_tenth_of_the_way() -> None:
    (a, h_a, c_a), (b, h_b, c_b) = quadratic(4, 0), quadratic(4, 1)
    theta = start(4)
    g_a, g_b = h_a @ theta + c_a, h_b @ theta + c_b
    kappa = float((h_b @ g_a - h_a @ g_b).norm() / (g_a + g_b).norm())
    plane = gradient_plane(("a", "b"), a, b, a, theta, 1e-6, points=2)
    assert plane.kappa == pytest.approx(kappa, rel=1e-4)
    assert plane.to_dict()["onset"] == pytest.approx(0.1 / kappa, rel=1e-4)
    alike = gradient_plane(("a", "a"), a, a, a, theta, 1e-6, points=2)
    assert alike.kappa == 0 and alike.to_dict()["onset"] is None


def test_the_map_is_a_square_around_both_paths() -> None:
    a, *_ = quadratic(4, 0)
    weak = lt.Objective(lambda x: 1e-3 * x.pow(4).sum())
    plane = gradient_plane(("a", "weak"), a, weak, a, start(4), 1e-2, points=3)
    width, height = (grid[-1] - grid[0] for grid in (plane.grid_x, plane.grid_y))
    assert width == pytest.approx(height)
    for x, y in plane.path_ab + plane.path_ba:
        assert plane.grid_x[0] < x < plane.grid_x[-1] and plane.grid_y[0] < y < plane.grid_y[-1]


def test_step_size_rule_when_none_is_given() -> None:
    made = plan_of(lr=None)
    assert made.lr_rule["eta_lambda_max"] == pytest.approx(0.1)
    assert made.lr == pytest.approx(0.1 / max(made.lr_rule["lambda_max"].values()))
    assert "signs" in plan_of(lr=1e3 * made.lr, chunks=1, forgetting=False).notes[-1]


def test_saved_and_shown(plan, tmp_path) -> None:
    path = plan.save(tmp_path / "new")
    assert json.loads(path.read_text()) == json.loads(json.dumps(plan.to_dict()))
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]
    frame = plan.to_frame()
    assert list(frame["source"]) == plan.order
    assert list(frame["score"]) == sorted(plan.scores.values())
    import matplotlib.pyplot as plt

    assert plan.plot() is not None
    plt.close("all")


def test_preferences_and_text() -> None:
    pairs = {
        name: [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": " it is"}
               for r in data]
        for name, data in SOURCES.items()
    }  # fmt: skip
    dpo = plan_of(sources=pairs, target=pairs["good"], objective="dpo")
    assert dpo.objective == "dpo"
    assert dpo.targets["target"]["loss"] == pytest.approx(0.6931, abs=1e-4)  # policy = reference
    texts = {name: [{"text": r["prompt"] + r["completion"]} for r in data]
             for name, data in SOURCES.items()}  # fmt: skip
    assert plan_of(sources=texts, target=texts["mat"], objective="lm").objective == "lm"


# --- the proof -----------------------------------------------------------------------------------


def test_verification_trains_the_orders_it_names(plan, verified) -> None:
    m = plan.material
    assert set(verified.verification["steps"]) == {"1", "3"}
    for steps, run in verified.verification["steps"].items():
        assert run["orders"][0] == plan.order
        assert run["orders"][1] == plan.order[::-1]
        assert run["labels"][:2] == ["plan", "reverse"]
        assert sorted(map(tuple, run["orders"])) == sorted(itertools.permutations(SOURCES))
        losses = lt.run_schedules(
            m.sources, m.targets["target"], m.theta, run["orders"], LR, int(steps)
        )
        assert run["measured"] == losses.tolist()
        assert run["rank"] == 1 + sum(x < losses[0] for x in losses[1:].tolist())
        assert run["n"] == 6
        assert run["predicted"][0] == 0
        assert run["floor"] < 1e-12


def test_long_runs_are_trained_in_float32_and_tell_the_orders_apart() -> None:
    # Where steps are stable: beyond, rounding grows from step to step.
    lr = LR / 10
    plan = plan_of(lr=lr)
    assert plan.lr_rule["eta_lambda_max"] < 0.3
    m = plan.material
    run = lt.verify_plan(plan, 6, steps=[LONG]).verification["steps"][str(LONG)]
    exact = lt.run_schedules(m.sources, m.targets["target"], m.theta, run["orders"], lr, LONG)
    assert m.theta.dtype == torch.float64
    assert run["dtype"] == "float32"
    gap = float((exact - torch.tensor(run["measured"])).abs().max())
    assert 0 < gap < 1e-4 * float(exact.max() - exact.min())
    assert run["floor"] < 1e-4 * float(exact.max() - exact.min())


def test_prediction_of_whole_orders_agrees_with_training_at_one_small_step() -> None:
    made = plan_of(lr=1e-4)
    run = lt.verify_plan(made, 6, steps=[1]).verification["steps"]["1"]
    measured = torch.tensor(run["measured"]) - run["measured"][0]
    predicted = torch.tensor(run["predicted"])
    assert float((measured - predicted).abs().max()) < 0.1 * float(measured.abs().max())


def test_solo_gain_is_added_in_both_directions(plan, verified) -> None:
    assert not any("solo gain" in name for name in plan.baselines)
    for direction in ("small", "large"):
        assert f"solo gain, {direction} first" in verified.baselines
    small = verified.baselines["solo gain, small first"]
    m = plan.material
    target = m.targets["target"]
    alone = lt.run_schedules(m.sources, target, m.theta, [[n] for n in plan.names], LR)
    gains = dict(zip(plan.names, (float(target.loss(m.theta)) - alone).tolist(), strict=True))
    assert small["scores"] == pytest.approx(gains)
    assert small["order"] == sorted(gains, key=gains.__getitem__)


def test_verified_orders_obey_constraints() -> None:
    made = plan_of(constraints=["Paris before good"])
    run = lt.verify_plan(made, 6, steps=[1]).verification["steps"]["1"]
    obeying = [
        label
        for order, label in zip(run["orders"], run["labels"], strict=True)
        if order.index("Paris") < order.index("good")
    ]
    assert len(obeying) == 3  # of six
    assert [label for label in run["labels"] if label not in obeying] == ["reverse"]


def test_verification_resumes_with_the_same_numbers(plan, verified, tmp_path) -> None:
    first = lt.verify_plan(plan, 4, steps=[1, 3], folder=tmp_path)
    files = sorted(tmp_path.glob("orders-*.jsonl"))
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    again = lt.verify_plan(plan, 4, steps=[1, 3], folder=tmp_path)
    assert again.verification == first.verification
    with metered() as cost:
        lt.verify_plan(plan, 4, steps=[1, 3], folder=tmp_path)
    assert cost.gradients == 0


def test_another_reference_is_another_run(tmp_path) -> None:
    """Kept results of one DPO reference must not be taken for those of another."""
    pairs = {
        name: [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": " it is"}
               for r in data]
        for name, data in SOURCES.items()
    }  # fmt: skip
    found = []
    for seed in (7, 8):
        made = plan_of(
            sources=pairs, target=pairs["good"], objective="dpo",
            reference=tiny.model(seed=seed).double(),
        )  # fmt: skip
        run = lt.verify_plan(made, 2, steps=[1], folder=tmp_path).verification["steps"]["1"]
        found.append(run["measured"])
    assert found[0] != found[1]


def test_a_saved_plan_cannot_be_verified(plan) -> None:
    from dataclasses import replace

    with pytest.raises(lt.InputError, match="made by plan_order in this process"):
        lt.verify_plan(replace(plan, material=None), 4)
    with pytest.raises(lt.InputError, match="at least 2 orders, found 0"):
        lt.verify_plan(plan, 0)


def test_signs_beat_chance_over_many_random_models() -> None:
    """Predicted against trained signs at the rule's step size: far more right than wrong."""
    right = total = 0
    for seed in range(6):
        made = plan_of(tiny.model(seed=seed).double(), lr=None, chunks=1, forgetting=False)
        m = made.material
        for a, b in itertools.combinations(made.names, 2):
            i, j = made.names.index(a), made.names.index(b)
            effect = lt.measure_order_effect(
                m.sources[a], m.sources[b], m.targets["target"], m.theta, made.lr
            )
            right += (effect < 0) == (made.matrix[i][j] < 0)
            total += 1
    low, _ = wilson_interval(right, total)
    assert low > 0.5, (right, total)


@pytest.mark.parametrize(
    ("sources", "steps", "optimizer", "budget", "expected"),
    [
        (5, 1, "sgd", 3.0, ("tournament", ["1"], 0)),
        (4, 20, "adamw", 4.0, ("search", ["1", "5", "20"], 4)),
        (10, 20, "sgd", 1.0, ("search", ["1", "5", "20"], 1)),
        (4, 3, "adamw", 1.0, ("search", ["1", "3"], 1)),
        (4, 1, "adamw", 2.0, ("search", ["1"], 2)),
        (4, 20, "adamw", 0.1, ("search", ["1", "5", "20"], 0.1)),
        (4, 20, "adamw", 0.05, ("tournament", ["1"], 0)),
    ],
)
def test_effort_fits_the_budget(sources, steps, optimizer, budget, expected):
    found = choose_effort(sources, steps, optimizer, budget)
    assert (found.planner, labels(found), found.budget) == expected
    assert found.why


def labels(effort: Effort) -> list[str]:
    return [rehearsal.label for rehearsal in effort.levels]


def test_a_rehearsal_of_plain_gradient_descent_reads_every_batch():
    assert choose_effort(4, 20, "sgd", 0.3, batches=5).planner == "tournament"
    assert labels(choose_effort(4, 20, "sgd", 1.0, batches=10)) == ["10", "20"]
    assert labels(choose_effort(4, 20, "adamw", 0.3, batches=5)) == ["1", "5", "20"]


@pytest.mark.parametrize(("budget", "expected"), [(0.1, 1), (4.0, 1), (10.0, 5), (100.0, 5)])
def test_a_tournament_beside_a_search_costs_a_share_of_it(budget, expected):
    """Five steps of four sources; the target's five batches are a quarter of a run."""
    assert batches_beside(4, [5], run=20, batches=5, budget=budget) == expected
    assert batches_beside(4, [5], run=80, batches=5, budget=budget) >= 4
    assert batches_beside(4, [5, 5], run=80, batches=5, budget=0.1) == 2


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"optimizer": "adamw", "planner": "search"}, 1),
        ({"optimizer": "momentum", "planner": "auto"}, 1),
        ({"optimizer": "adamw", "planner": "tournament"}, 3),
        ({"optimizer": "sgd", "planner": "search"}, 3),
    ],
)
def test_before_a_search_with_memory_few_batches_are_compared(options, read):
    sources = {name: rows("cat", "dog", seed=n) + rows("on", "mat", seed=n) for n, name in
               enumerate("ab")}  # fmt: skip
    run = {"steps": 2, "budget": 1.0, "batch_size": 2, "batches": 3, "chunks": 1} | options
    plan = plan_of(sources=sources, **run)
    m = plan.material
    assert {source.batches for source in m.sources.values()} == {3}
    short = {name: source.shortened(read) for name, source in m.sources.items()}
    t = lt.tournament(short, m.targets, m.theta, plan.lr, 2)
    assert plan.matrix == t.matrix.tolist()
    told = [note for note in plan.notes if f"{read} of 3 batches" in note]
    assert len(told) == (read < 3)
    adaptive = plan.optimizer == "adamw"
    assert (plan.lr_rule["eta_lambda_max"] is None) == adaptive == (not plan.lr_rule["lambda_max"])
    assert any(limit.title == "Step size" for limit in limits(plan.to_dict())) != adaptive


@pytest.mark.parametrize("alike_in_all", [False, True])
def test_before_it_keeps_an_order_it_reads_every_batch(alike_in_all, monkeypatch):
    sources = {name: rows("cat", "dog", seed=n) for n, name in enumerate("ab")}
    seen = []

    def alike(t, seed):
        seen.append(t.matrix.tolist())
        return Effort("given", why="alike") if len(seen) == 1 or alike_in_all else None

    monkeypatch.setattr("lietoolkit.planning.abstain", alike)
    run = {"optimizer": "adamw", "planner": "auto", "steps": 2, "budget": 1.0, "batch_size": 2}
    plan = plan_of(sources=sources, **run, batches=3)
    m = plan.material
    parts = [{name: s.shortened(n) for name, s in m.sources.items()} for n in (1, 3)]
    own = [lt.tournament(part, m.targets, m.theta, plan.lr, 2, chunks=4) for part in parts]
    assert seen == [t.matrix.tolist() for t in own]
    assert plan.matrix == seen[1]
    assert plan.planner == ("given" if alike_in_all else "search")
    assert not any("batches" in note for note in plan.notes)


@pytest.mark.parametrize(("rows", "thin"), [(8, 8), (4, 4), (32, 8), (12, 6), (2, 2)])
def test_adaptive_steps_are_rehearsed_with_fewer_rows(rows, thin):
    found = choose_effort(4, 20, "adamw", 1.0, batches=5, rows=rows)
    assert f"20/{thin}" in labels(found)
    costs = [rehearsal.cost(20) for rehearsal in found.levels]
    assert costs == sorted(costs) and costs[-1] == 1
    assert labels(choose_effort(4, 20, "sgd", 3.0, batches=5, rows=rows)) == ["5", "20"]
    assert labels(choose_effort(4, 20, "adamw", 3.0, batches=5, rows=rows)) == ["20"]


def test_a_search_never_spends_more_than_its_budget():
    sources = dict(zip("abcd", networks(4, 3), strict=True))
    target, theta = networks(5, 3)[-1], network_start(3)
    t = lt.tournament(sources, target, theta, lr=3e-3, steps=8, optimizer="adamw")
    for budget in (0.25, 1.0, 2.5):
        effort = choose_effort(4, 8, "adamw", budget)
        with metered() as cost:
            chosen = recommend(
                effort, t, sources, {"e": target}, {"e": 1.0}, theta, optimizer_from("adamw"),
                forgetting=False,
            )  # fmt: skip
        # The reverse of what was found may come on top.
        assert chosen.searched.spent <= budget + 1 + 1e-9
        # Each try also reads one loss, a third of a gradient.
        read = len(chosen.searched.tried) / 3
        assert cost.total == pytest.approx(chosen.searched.spent * 4 * 8 + read)
        assert sum(chosen.tries.values()) == len(chosen.searched.tried)


def test_a_rehearsal_with_fewer_rows_costs_what_was_said():
    made = plan_of(batch_size=4, chunks=1).material
    t = lt.tournament(made.sources, made.targets, made.theta, 1e-3, 4, optimizer="adamw")
    effort = choose_effort(3, 4, "adamw", 0.6, rows=4)
    assert labels(effort) == ["4/4", "4"]
    with metered() as cost:
        chosen = recommend(
            effort, t, made.sources, made.targets, {"target": 1.0}, made.theta,
            optimizer_from("adamw"), forgetting=False,
        )  # fmt: skip
    assert chosen.tries.keys() == {"4/4"} and chosen.searched.spent <= 0.6 + 0.25
    read = len(chosen.searched.tried) / 3
    assert cost.total == pytest.approx(chosen.searched.spent * 3 * 4 + read)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), "much"])
def test_bad_budget_is_refused(budget):
    with pytest.raises(InputError, match="budget"):
        choose_effort(4, 20, "adamw", budget)


@pytest.mark.parametrize("planner", ["search", "from-end"])
def test_rehearsed_plan_says_what_it_gains(planner):
    """A few gradients a stage find an order that really beats its reverse."""
    sources = dict(zip("abcd", networks(4, 3), strict=True))
    target, theta = networks(5, 3)[-1], network_start(3)
    t = lt.tournament(sources, target, theta, lr=3e-3, steps=10, optimizer="adamw")
    effort = choose_effort(4, 10, "adamw", 3.0, planner)
    chosen = recommend(
        effort, t, sources, {"target": target}, {"target": 1.0}, theta, optimizer_from("adamw")
    )
    orders = [list(o) for o in itertools.permutations("abcd")]
    losses = lt.run_schedules(sources, target, theta, orders, 3e-3, 10, "adamw")
    plan = float(losses[orders.index(chosen.order)])
    reverse = float(losses[orders.index(chosen.order[::-1])])
    assert plan < float(losses.median())
    assert chosen.plan_vs_reverse["target"] < 0 and plan < reverse
    assert set(chosen.forgetting) == set("abcd")
    rows = neighbors(t, chosen)
    assert [row["first"] for row in rows] == chosen.order[:-1]
    assert all(row["survival"] is None for row in rows)


@pytest.mark.parametrize(("curvature", "smaller"), [(1.0, False), (1e3, True)])
def test_a_rehearsal_at_a_smaller_step_says_so(curvature, smaller):
    sources = dict(zip("abc", networks(3, 3), strict=True))
    target, theta = networks(4, 3)[-1], network_start(3)
    t = lt.tournament(sources, target, theta, lr=1e-2, steps=10)
    effort = choose_effort(3, 10, "sgd", 1.0)
    chosen = recommend(
        effort, t, sources, {"e": target}, {"e": 1.0}, theta, optimizer_from("sgd"),
        lambda_max=curvature, forgetting=False,
    )  # fmt: skip
    assert ("real changes are larger" in chosen.effort.why) == smaller


def test_the_best_rehearsed_order_is_taken_within_constraints():
    """From the end the rounds may mislead; the best of the orders rehearsed whole is taken."""
    sources = dict(zip("abcd", networks(4, 5), strict=True))
    target, theta = networks(5, 5)[-1], network_start(5)
    effort = choose_effort(4, 5, "adamw", 100.0, "from-end")
    assert labels(effort) == ["5"]  # every step is rehearsed: predictions are the truth
    settings = (theta, 3e-3, 5, "adamw")
    for constraints in ((), ("d first",)):
        t = lt.tournament(
            sources, target, theta, lr=3e-3, steps=5, optimizer="adamw", constraints=constraints
        )
        chosen = recommend(
            effort, t, sources, {"e": target}, {"e": 1.0}, theta, optimizer_from("adamw")
        )
        order = chosen.order
        real = lt.run_schedules(
            sources, target, theta, [order, order[::-1], t.best_order("exact")], *settings[1:]
        )
        assert chosen.plan_vs_reverse["e"] == pytest.approx(float(real[0] - real[1]), rel=1e-9)
        assert real[0] <= real[2]
        if constraints:
            assert order[0] == "d"
        else:
            assert real[0] < real[1]


@pytest.mark.parametrize("planner", ["search", "from-end"])
def test_a_rehearsed_neighbor_is_what_turning_it_round_would_cost(planner):
    """With every order tried, the effects beside the order are measured ones."""
    sources = dict(zip("abc", networks(3, 3), strict=True))
    target, theta = networks(4, 3)[-1], network_start(3)
    t = lt.tournament(sources, target, theta, lr=3e-3, steps=4, optimizer="adamw")
    effort = choose_effort(3, 4, "adamw", 6.0, planner)
    chosen = recommend(
        effort, t, sources, {"e": target}, {"e": 1.0}, theta, optimizer_from("adamw"),
        forgetting=False,
    )  # fmt: skip
    rows = neighbors(t, chosen)
    assert all(row["effect"] < 0 for row in rows)
    if planner == "search":
        losses = lt.run_schedules(
            sources, target, theta, [chosen.order, [chosen.order[i] for i in (1, 0, 2)]],
            3e-3, 4, "adamw",
        )  # fmt: skip
        assert rows[0]["effect"] == pytest.approx(float(losses[0] - losses[1]), rel=0.15)


def test_parts_of_one_source_keep_their_order():
    """Random parts of one family are left as given; families are not."""
    rows = sft_families(seed=0, rows=48, split="train")
    parts = {f"part {i}": rows["copy"][12 * i : 12 * i + 12] for i in (2, 0, 3, 1)}
    families = {name: rows[name][:12] for name in ("plural", "addition", "copy", "sort")}
    run = {"steps": 20, "lr": 1e-4, "budget": 0.5, "batch_size": 12, "max_length": 48}
    run |= {"forgetting": False, "geometry": False, "dtype": "float32"}
    target = sft_families(seed=0, rows=6, split="eval")["past_tense"]
    kept = lt.plan_order("course", parts, target, constraints=["part 1 first"], **run)
    assert kept.planner == "given" and "no evidence" in kept.effort["why"]
    assert kept.order == ["part 1", "part 2", "part 0", "part 3"]
    planned = lt.plan_order("course", families, target, **run)
    assert planned.planner == "search", planned.effort["why"]


def test_a_search_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Killed after two orders, it trains the others only, and finds the same plan."""
    run = {"steps": 3, "optimizer": "adamw", "planner": "search", "budget": 4.0, "chunks": 1}
    whole = plan_of(**run)
    tried = lt.run_schedules
    calls = []

    def stops(*args, **settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(args[3])
        return tried(*args, **settings)

    monkeypatch.setattr("lietoolkit.order.recommend.run_schedules", stops)
    with pytest.raises(KeyboardInterrupt):
        plan_of(**run, folder=tmp_path)
    monkeypatch.undo()
    resumed = plan_of(**run, folder=tmp_path)
    assert resumed.order == whole.order and resumed.confidence == whole.confidence
    again = plan_of(**run, folder=tmp_path)
    # Two orders of three steps a source, and the losses read at their ends, a third of a gradient.
    saved = 2 * (3 * len(SOURCES) + (1 + len(SOURCES)) / 3)
    assert resumed.cost["total"] == pytest.approx(whole.cost["total"] - saved)
    assert again.cost["total"] < resumed.cost["total"]


def test_of_orders_trained_whole_the_better_one_is_known():
    plan = plan_of(steps=3, optimizer="adamw", planner="search", budget=4.0, chunks=1)
    found, order = plan.material.searched, [plan.names.index(name) for name in plan.order]
    stated = [(plan.better_than_reverse, order[::-1])]
    for place, row in enumerate(plan.confidence):
        turned = [*order[:place], order[place + 1], order[place], *order[place + 2 :]]
        stated.append((row["chance"], turned))
    tries = {tuple(o): loss for o, at, loss in zip(found.tried, found.levels, found.losses,
                                                   strict=True)
             if found.costs[at] == 1}  # fmt: skip
    known = [(chance, tries[tuple(o)]) for chance, o in stated if tuple(o) in tries]
    assert known
    for chance, loss in known:
        assert chance == float(found.trained(order) < loss)
    assert all(0 < chance < 1 for chance, o in stated if tuple(o) not in tries)


def test_a_searched_plan_is_held_against_what_its_tries_predict():
    """Predictions come from the tries; only what is measured is trained."""
    plan = plan_of(steps=3, optimizer="adamw", planner="search", budget=4.0, chunks=1)
    with metered() as cost:
        run = lt.verify_plan(plan, 6, steps=[3]).verification["steps"]["3"]
    orders = [[plan.names.index(name) for name in order] for order in run["orders"]]
    expected = plan.material.searched.expected(orders)
    assert run["predicted"] == pytest.approx(expected - expected[0])
    # All orders of three sources share prefixes: 3 + 6 + 6 stages of three steps; the rest is
    # reading losses and each source alone.
    assert cost.gradients < 3 * (3 + 6 + 6) + 3 * 3 + 20
    # Where an order was tried, the prediction is its loss, but for the surrogate's noise.
    searched = plan.material.searched
    whole = [o for o, at in zip(searched.tried, searched.levels, strict=True) if at == 0]
    seen = [order in whole for order in orders]
    assert sum(seen) >= 2
    gap = expected[seen] - np.array(run["measured"])[seen]
    assert np.abs(gap).max() < 0.1 * np.ptp(run["measured"])


def test_a_searched_plan_tells_what_it_expects_of_every_order(plan):
    """With every order trained, for each target what training them gives."""
    targets = {"own": TARGET, "other": OTHER}
    made = plan_of(
        target=targets, weights={"own": 1.0, "other": 0.5}, steps=3, optimizer="adamw",
        planner="search", budget=20.0, chunks=1,
    )  # fmt: skip
    orders = [list(map(int, digits)) for digits in made.expected["own"]]
    assert sorted(orders) == sorted(map(list, itertools.permutations(range(3))))
    material = made.material
    real = lt.run_schedules(
        material.sources, material.targets, material.theta,
        [[made.names[i] for i in order] for order in orders], made.lr, 3, "adamw",
    )  # fmt: skip
    at = orders.index([made.names.index(name) for name in made.order])
    for m, name in enumerate(targets):
        told = np.array(list(made.expected[name].values()))
        assert told[at] == 0
        gap = told - (real[:, m] - real[at, m]).numpy()
        assert np.abs(gap).max() < 0.15 * np.ptp(real[:, m].numpy())
    # A tournament knows pairs only.
    assert plan.expected == {}


@pytest.mark.parametrize("lr, said", [(1e-3, False), (30.0, True)])
def test_a_search_says_when_training_makes_the_target_worse(lr, said):
    plan = plan_of(lr=lr, steps=3, optimizer="adamw", planner="search", budget=4.0, chunks=1)
    searched, before = plan.material.searched, plan.targets["target"]["loss"]
    assert searched.costs == (1.0,) and (min(searched.losses) > before) == said
    assert any("raises the target's loss" in note for note in plan.notes) == said


def test_a_source_in_two_parts():
    """Halves of the rows and of the steps; the search may train others between them."""
    plan = plan_of(
        steps=3, optimizer="adamw", planner="search", budget=2.0, split=["good"],
        steps_of={"good": 5, "mat": 2}, constraints=["good/1 before Paris"],
    )  # fmt: skip
    assert plan.names == ["Paris", "good/1", "good/2", "mat"]
    assert sorted(plan.order) == sorted(plan.names)
    assert plan.order.index("good/1") < plan.order.index("Paris")
    # The longest stage is what "steps" says; the others are named.
    assert (plan.steps, plan.steps_of) == (3, {"good/2": 2, "mat": 2})
    assert [plan.sources[name]["rows"] for name in plan.names] == [8, 4, 4, 8]
    by_hand = plan_of(sources={**SOURCES, "good/1": SOURCES["good"][:4]}).material.sources
    part = plan.material.sources["good/1"]
    assert part.fingerprint() == by_hand["good/1"].fingerprint()


def test_parts_of_a_source_of_another_kind():
    found, losses = in_parts({"a": TARGET, "b": OTHER}, ["b"], "sft", {"b": "lm"})
    assert list(found) == ["a", "b/1", "b/2"] and found["b/1"] + found["b/2"] == OTHER
    assert losses == {"b/1": "lm", "b/2": "lm"}
    for sources, message in (
        ({"a": TARGET[:1], "b": OTHER}, "at least two rows in 'a', found 1"),
        ({"a/1": TARGET, "a": OTHER}, "'a/1' is the name of another source"),
        ({"a": lt.Objective(torch.sum), "b": OTHER}, "expected rows of 'a', found an objective"),
    ):
        with pytest.raises(lt.InputError, match=message):
            in_parts(sources, ["a"])
