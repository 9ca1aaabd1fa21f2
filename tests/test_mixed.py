"""Stages of different lengths and losses in one schedule."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import network, quadratic, start

import lietoolkit as lt
from lietoolkit.order.schedule_bracket import order_against_reverse
from lietoolkit.training.optimizers import AdamW
from lietoolkit.training.schedules import step_sizes
from lietoolkit.training.stages import run_stage

NAMES = ("a", "b", "c")
STEPS_OF = {"b": 5, "c": 1}


def sources() -> dict[str, lt.Objective]:
    return {name: quadratic(4, seed)[0] for seed, name in enumerate(NAMES)}


def test_every_stage_has_its_own_steps_and_the_schedule_runs_over_all():
    made, target, theta = sources(), quadratic(4, 9)[0], start(4)
    order = ["c", "a", "b"]
    sizes = step_sizes(0.01, 1 + 2 + 5, "linear", 2)
    state = AdamW().init(theta)
    for name, own in (("c", sizes[:1]), ("a", sizes[1:3]), ("b", sizes[3:])):
        state = run_stage(made[name], state, AdamW(), own)
    (found,) = lt.run_schedules(
        made, target, theta, [order], 0.01, 2, "adamw", schedule="linear", warmup=2,
        steps_of=STEPS_OF,
    )  # fmt: skip
    assert float(found) == float(target.loss(state.theta))


def test_the_score_is_multiplied_by_the_steps_of_both():
    made, target, theta = sources(), network(9), start(13)
    made = {name: network(seed) for seed, name in enumerate(NAMES)}
    t = lt.tournament(made, target, theta, 1e-3, 2, steps_of=STEPS_OF)
    one = lt.tournament(made, target, theta, 1e-3, 1)
    k = torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(t.matrix, one.matrix * k.outer(k))
    torch.testing.assert_close(t.sigma, one.sigma)


@pytest.mark.parametrize("method", ["local", "trotter"])
def test_short_steps_of_unequal_stages_do_what_was_predicted(method):
    made, target, theta = sources(), quadratic(4, 9)[0], start(4)
    missing = []
    for lr in (1e-3, 5e-4):
        t = lt.tournament(made, target, theta, lr, 2, method, steps_of=STEPS_OF)
        pairs = list(itertools.permutations(range(3), 2))
        orders = [[NAMES[i], NAMES[j]] for i, j in pairs]
        losses = lt.run_schedules(made, target, theta, orders, lr, 2, steps_of=STEPS_OF)
        found = dict(zip(pairs, losses.tolist(), strict=True))
        effects = [[found.get((i, j), 0) - found.get((j, i), 0) for j in range(3)]
                   for i in range(3)]  # fmt: skip
        missing.append(float((t.matrix - torch.tensor(effects).double()).norm() / t.matrix.norm()))
    assert missing[1] < 0.03
    assert missing[0] / missing[1] == pytest.approx(2, rel=0.15)


def test_forgetting_of_a_whole_order_counts_every_stages_steps():
    made, theta, lr, order = sources(), start(4), 2e-4, ["c", "a", "b"]
    predicted = order_against_reverse(made, order, theta, lr, 2, steps_of=STEPS_OF)
    ends = lt.run_schedules(made, made, theta, [order, order[::-1]], lr, 2, steps_of=STEPS_OF)
    measured = ends[0] - ends[1]
    missing = torch.tensor([predicted[name] for name in made]).double() - measured
    assert missing.abs().max() < 0.05 * measured.abs().max()


def test_rehearsals_take_the_same_share_of_every_stage():
    made, target, theta = sources(), quadratic(4, 9)[0], start(4)
    with lt.geometry.cost.metered() as cost:
        lt.run_schedules(
            made, target, theta, [NAMES], 1e-3, 4, "adamw", sweeps=1, steps_of={"b": 8}
        )
    assert cost.gradients == 1 + 2 + 1


def test_it_resumes_only_what_is_the_same(tmp_path):
    made, target, theta = sources(), quadratic(4, 9)[0], start(4)
    run = {"lr": 0.01, "steps": 2, "folder": tmp_path}
    equal = lt.run_schedules(made, target, theta, [NAMES], **run)
    unequal = lt.run_schedules(made, target, theta, [NAMES], **run, steps_of=STEPS_OF)
    assert float(equal) != float(unequal)
    again = lt.run_schedules(made, target, theta, [NAMES], **run, steps_of=STEPS_OF)
    assert torch.equal(again, unequal)
    assert len(list(tmp_path.glob("orders-*"))) == 2


def test_what_is_wrong_is_named():
    made, target, theta = sources(), quadratic(4, 9)[0], start(4)
    with pytest.raises(lt.InputError, match=r"steps_of: unknown source 'd'.*a, b, c"):
        lt.run_schedules(made, target, theta, [NAMES], 0.1, steps_of={"d": 1})
    with pytest.raises(lt.InputError, match="steps: expected a whole number"):
        lt.tournament(made, target, theta, 0.1, steps_of={"a": 0})
    with pytest.raises(lt.InputError, match="method='stage'"):
        lt.tournament(made, target, theta, 0.1, 2, "stage", steps_of=STEPS_OF)


@pytest.mark.parametrize("planner", ["tournament", "search"])
def test_instructions_and_preferences_in_one_plan(planner):
    tiny = pytest.importorskip("tiny")
    answers = ["the cat", "Paris", "good", "again"]
    asked = [{"prompt": f"say {word}:", "completion": f" {word}"} for word in answers]
    judged = [
        {"prompt": f"say {a}:", "chosen": f" {a}", "rejected": f" {b}"}
        for a, b in itertools.pairwise(answers)
    ]
    told = [{"text": f"the {word} sat on the mat"} for word in answers]
    plan = lt.plan_order(
        tiny.model(seed=2).double(), {"chat": asked, "pairs": judged, "text": told}, asked[::-1],
        "sft", 0.02, 4, "sgd", planner, budget=2, tokenizer=tiny.tokenizer(),
        objective_of={"pairs": "dpo", "text": "lm"}, steps_of={"pairs": 1}, geometry=False,
    )  # fmt: skip
    assert plan.objective_of == {"pairs": "dpo", "text": "lm"}
    assert plan.steps_of == {"pairs": 1}
    made = plan.material
    one = {name: (source.loss(made.theta), source.gradient(made.theta))
           for name, source in made.sources.items()}  # fmt: skip
    assert float(one["pairs"][0]) == pytest.approx(0.6931, abs=1e-4)
    checked = lt.verify_plan(plan, 6, steps=[4, 8]).verification["steps"]
    direct = lt.run_schedules(
        made.sources, made.targets, made.theta, checked["8"]["orders"], 0.02, 8,
        steps_of={"pairs": 2},
    )  # fmt: skip
    assert checked["8"]["measured"] == direct[:, 0].tolist()


def test_kinds_that_cannot_be_mixed_are_named():
    tiny = pytest.importorskip("tiny")
    data = {"a": [{"prompt": "say", "completion": " good"}]}
    for options, words in [
        ({"objective_of": {"c": "dpo"}}, "objective_of: 'c' is no source or target"),
        ({"objective_of": {"a": "rl"}}, r"objective_of\['a'\]: expected one of lm, sft, dpo"),
        ({"steps_of": {"a": 3}, "planner": "from-end"}, "steps_of: .*planner='search'"),
    ]:
        with pytest.raises(lt.InputError, match=words):
            lt.plan_order(
                tiny.model(), data | {"b": data["a"]}, data["a"], tokenizer=tiny.tokenizer(),
                **options,
            )  # fmt: skip
