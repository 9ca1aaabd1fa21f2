"""What notebooks 06 to 08 call: studies of language models, and the ordering explorer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("anywidget")
import tiny

from lietoolkit import InputError, live, run_schedules, tournament
from lietoolkit.course import language
from lietoolkit.course.settings import Settings

RUN = Settings("ci", 0, "cpu")
NAMES = ["copy", "sort", "plural"]


@pytest.fixture(scope="module")
def sft() -> language.Study:
    model = tiny.model().double()
    return language.load(RUN, "sft", NAMES, ["copy", "antonym"], model=(model, tiny.tokenizer()))


def test_targets_are_rows_never_trained_on(sft) -> None:
    from lietoolkit.tasks.generated import sft_families

    trained = {row["prompt"] for row in sft_families(0, 8)["copy"]}
    assert not trained & {row["prompt"] for row in sft.rows["copy"]}
    assert sft.sources["copy"].fingerprint() != sft.targets["copy"].fingerprint()


def test_train_ends_where_run_schedules_ends(sft) -> None:
    order = ["sort", "copy"]
    theta = language.train(sft, order, 0.01, steps=2)
    loss = run_schedules(sft.sources, sft.targets, sft.theta, [order], 0.01, 2)
    expected = [float(target.loss(theta)) for target in sft.targets.values()]
    assert loss[0].tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("optimizer", "lr", "steps"), [("sgd", 0.01, 1), ("adamw", 1e-3, 4)])
def test_stages_in_float32_have_the_effects_of_float64(sft, optimizer, lr, steps) -> None:
    """Where effects are larger than what a loss loses to rounding."""
    narrow = language.load(
        RUN, "sft", NAMES, ["copy", "antonym"], model=(tiny.model(), tiny.tokenizer())
    )
    wide, short = (
        torch.stack([*tournament(s.sources, s.targets, s.theta, lr, steps, "stage", optimizer)
                     .targets.values()])
        for s in (sft, narrow)
    )  # fmt: skip
    assert (wide - short).norm() <= 1e-2 * wide.norm()


def test_planned_order_ranks_first_among_predictions(sft) -> None:
    t = tournament(sft.sources, sft.targets, sft.theta, 0.01)
    orders = [("copy", "sort"), ("sort", "copy")]
    plan = language.best_of(t, ["sort", "copy"], "antonym")
    guess = language.predicted(t.targets["antonym"], t.names, orders)
    assert language.rank(plan, orders, guess) == 1
    assert language.rank(plan[::-1], orders, guess) == 2
    effect = float(t.targets["antonym"][t.names.index("copy"), t.names.index("sort")])
    assert guess[0] - guess[1] == pytest.approx(effect)


def test_complete_is_greedy_and_leaves_the_model_alone(sft) -> None:
    before = sft.space.vector()
    text = language.complete(sft, sft.theta, "Q: what", tokens=1)
    ids = sft.tokenizer("Q: what", return_tensors="pt").input_ids
    best = int(sft.model(input_ids=ids).logits[0, -1].argmax())
    end = sft.tokenizer.eos_token_id
    assert text == ("" if best == end else sft.tokenizer.decode([best]))
    moved = torch.zeros_like(sft.theta)
    language.complete(sft, moved, "Q: what", tokens=2)
    assert torch.equal(sft.space.vector(), before)


def test_margins_give_the_loss_and_vanish_at_the_reference() -> None:
    model = tiny.model().double()
    names = ["right_sum", "right_case"]
    study = language.load(RUN, "dpo", names, names[:1], model=(model, tiny.tokenizer()))
    target = study.targets["right_sum"]
    assert language.margins(study, "right_sum", study.theta).abs().max() < 1e-12
    assert float(target.loss(study.theta)) == pytest.approx(math.log(2))
    theta = language.train(study, names, 0.1)
    margin = language.margins(study, "right_sum", theta)
    assert margin.abs().max() > 1e-6
    loss = -torch.nn.functional.logsigmoid(margin).mean()
    assert float(target.loss(theta)) == pytest.approx(float(loss), abs=1e-10)


def test_unknown_names_are_refused() -> None:
    model = (tiny.model(), tiny.tokenizer())
    with pytest.raises(InputError, match="there are copy"):
        language.load(RUN, "sft", ["copi", "sort"], ["sort"], model=model)
    with pytest.raises(InputError, match="lm, sft, dpo"):
        language.load(RUN, "rl", ["copy"], ["copy"], model=model)


def test_explorer_shows_the_plan_and_hands_over_what_is_ticked() -> None:
    matrix = np.array([[0, 1, 2], [-1, 0, 3], [-2, -3, 0]], dtype=float)
    figure = live.explore_ordering({"up": matrix, "down": -matrix}, list("abc"))
    assert "c, b, a. Predicted rank 1 of 6" in figure.alt
    assert "-6.0e+00 nats" in figure.alt
    figure.set(target="down")
    assert "a, b, c. Predicted rank 1 of 6" in figure.alt
    figure.set(**{"train b": False})
    assert "a, c. Predicted rank 1 of 2" in figure.alt
    assert live.picked(figure) == (["a", "c"], "down")
    figure.set(**{"train a": False})
    assert "at least two" in figure.alt
    with pytest.raises(InputError, match="2 to 4 ticked in the figure, found 1"):
        live.picked(figure)
    assert not figure.errors


def test_explorer_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="N = 2 names"):
        live.explore_ordering({"up": np.zeros((3, 3))}, ["a", "b"])
    with pytest.raises(InputError, match="found 'z'"):
        live.explore_ordering({"up": np.zeros((2, 2))}, ["a", "b"], ["z"])


def test_shown_orders_say_where_the_plan_came() -> None:
    orders = [("a", "b"), ("b", "a")]
    shown = live.show_orders([-1.0, 1.0], [2.0, 5.0], orders, ["a", "b"])
    assert shown.alt.endswith("the plan a, b has measured rank 1.")
    assert "1.5e+00 nats" in shown.alt
    worse = live.show_orders([-1.0, 1.0], [5.0, 2.0], orders, ["a", "b"])
    assert worse.alt.endswith("rank 2.")
