"""How far predictions hold: the transported bracket, fast toy losses, horizon and confidence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import quadratic, start

import lietoolkit as lt
from lietoolkit.order.transport import transported_effect
from lietoolkit.tasks import toys


def test_closed_form_derivatives_equal_autograd() -> None:
    theta, v = toys.network_start(1), toys.network_start(2)
    for fast, slow in zip(toys.regressions(2, 1), toys.networks(2, 1), strict=True):
        assert float(fast.loss(theta)) == float(slow.loss(theta))
        g, hv = slow.gradient_and_hvp(theta, v)
        assert torch.allclose(fast.gradient(theta), g, rtol=1e-10, atol=1e-14)
        for found, expected in zip(fast.gradient_and_hvp(theta, v), (g, hv), strict=True):
            assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)
        value, g_too = fast.loss_and_gradient(theta)
        assert float(value) == pytest.approx(float(slow.loss(theta)), rel=1e-12)
        assert torch.equal(g_too, fast.gradient(theta))


def test_chunks_add_up_and_other_rows_are_of_the_same_source() -> None:
    (net,), theta = toys.regressions(1, samples=50), toys.network_start()
    parts = net.chunks(8)
    assert sum(share for share, _ in parts) == pytest.approx(1)
    mean = sum(share * part.gradient(theta) for share, part in parts)
    assert torch.allclose(mean, net.gradient(theta), rtol=1e-10)
    other = net.again(3)
    assert other.x.shape == net.x.shape and not torch.equal(other.x, net.x)
    assert torch.equal(other.x, net.again(3).x)
    many, few = toys.regressions(1, samples=4000)[0].again(5), toys.regressions(1, samples=4000)[0]
    # Another sample of one source has nearly its loss; another source has not.
    assert float(many.loss(theta)) == pytest.approx(float(few.loss(theta)), rel=0.1)
    assert torch.allclose(many.x.mean(0), few.x.mean(0), atol=0.1)


def _pair():
    a, b, target = toys.regressions(3, 4)
    return a, b, target, toys.network_start(4)


def test_one_piece_is_the_trotter_score() -> None:
    a, b, target, theta = _pair()
    trotter = lt.predict_order_effect(a, b, target, theta, 0.02, 3, "trotter")
    assert transported_effect(a, b, target, theta, 0.02, 3, 1) == pytest.approx(trotter, rel=1e-10)


def test_it_is_the_local_score_for_a_short_time_and_antisymmetric() -> None:
    a, b, target, theta = _pair()
    sigma = lt.order_score(a, b, target, theta)
    gaps = [
        abs(transported_effect(a, b, target, theta, lr) / lr**2 / sigma - 1) for lr in (1e-3, 1e-4)
    ]
    assert gaps[1] < 2e-2
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)
    forth = transported_effect(a, b, target, theta, 0.1)
    back = transported_effect(b, a, target, theta, 0.1)
    assert forth == pytest.approx(-back, rel=1e-12)


def test_linear_flows_leave_an_error_of_fourth_order() -> None:
    """Quadratic sources, linear target: both flows are known, and so is what must remain."""
    size = 4
    (a, h_a, c_a), (b, h_b, c_b) = quadratic(size, 1), quadratic(size, 2)
    theta, direction = start(size, 3), start(size, 4)
    target = lt.Objective(lambda x: direction @ x)

    def flow(h, c, x, t):
        rest = -torch.linalg.solve(h, c)
        return rest + torch.linalg.matrix_exp(-t * h) @ (x - rest)

    errors = []
    for t in (0.4, 0.2):
        t = t / float(torch.linalg.eigvalsh(h_a + h_b).abs().max())
        ab = flow(h_b, c_b, flow(h_a, c_a, theta, t), t)
        ba = flow(h_a, c_a, flow(h_b, c_b, theta, t), t)
        truth = float(direction @ (ab - ba))
        found = [transported_effect(a, b, target, theta, t, 1, m) for m in (100, 200)]
        errors.append(abs(2 * found[1] - found[0] - truth))  # Euler's error taken out
        local = lt.predict_order_effect(a, b, target, theta, t)
        assert errors[-1] < 0.1 * abs(local - truth)
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize(("setting", "message"), [({"pieces": 0}, "pieces"), ({"lr": 0.0}, "lr")])
def test_bad_settings_are_refused(setting, message: str) -> None:
    with pytest.raises(lt.InputError, match=message):
        transported_effect(*_pair(), **{"lr": 0.1, **setting})


def test_pieces_of_the_exercises_give_the_package_s_stage_commutator() -> None:
    """Where the target's slope is the same everywhere."""
    from lietoolkit.course.sgd_stages import commutator, pieces

    *nets, curved = toys.regressions(4, 3)
    theta = toys.network_start(3)
    fixed = curved.gradient(theta)
    target = lt.Objective(lambda x: fixed @ x)
    t = lt.tournament({n.name: n for n in nets}, target, theta, 0.3, 4, "stage")
    found = commutator(*pieces(nets, target, theta, 0.3, 4))
    assert torch.allclose(found, t.matrix, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_stage_commutator_holds_after_twenty_steps(optimizer: str) -> None:
    """Where the local score is a coin toss: little is left there of where a stage began."""
    right = []
    for draw in range(3):
        *nets, target = toys.regressions(6, draw)
        sources, theta = {n.name: n for n in nets}, toys.network_start(draw)
        lr = 0.35 / max(lt.step_size(sources, theta).lambda_max.values())
        lr /= 10 if optimizer == "momentum" else 1
        run = (target, theta, lr, 20)
        predicted = lt.tournament(sources, *run, "stage", optimizer).matrix
        for (i, a), (j, b) in itertools.combinations(enumerate(nets), 2):
            measured = lt.measure_order_effect(a, b, *run, optimizer)
            right.append(np.sign(predicted[i, j].item()) == np.sign(measured))
    assert len(right) == 30
    assert sum(right) >= 28, sum(right)


def test_horizon_effects_are_those_of_the_package() -> None:
    pytest.importorskip("anywidget")
    from lietoolkit import live

    effects = live.horizon_effects(
        1, 2, steps=(1, 3), sizes=(0.5,), optimizers=("sgd", "adamw"), sources=3
    )
    *nets, _, second = toys.regressions(5, 200)
    theta = toys.network_start(200)
    assert effects.decisions == 6
    curvature = max(lt.step_size({n.name: n for n in nets}, theta).lambda_max.values())
    for rule, lr in (("sgd", 0.5 * 0.35 / curvature), ("adamw", 0.5 * 3e-3)):
        pair = (nets[0], nets[2], second, theta, lr, 3)  # the second pair, the second target
        assert effects.measured[rule][1, 0, 4] == pytest.approx(
            lt.measure_order_effect(*pair, rule), rel=1e-9
        )
        sources = {net.name: net for net in nets}
        stage = lt.tournament(sources, second, theta, lr, 3, "stage", rule).matrix
        assert effects.predicted[rule]["stage"][1, 0, 4] == pytest.approx(float(stage[0, 2]))
        local = lt.predict_order_effect(*pair)
        assert effects.predicted[rule]["local"][1, 0, 4] == pytest.approx(local)
        gains = [float(second.loss(theta)) - x for x in lt.run_schedules(
            sources, second, theta, [["s1"], ["s3"]], lr, 3, rule).tolist()]  # fmt: skip
        last = effects.predicted[rule]["best solo last"][1, 0, 4]
        assert last == pytest.approx(gains[0] - gains[1])  # negative: s3 helps more, so s1 first
    assert effects.signs_right("adamw", "transported").tolist() == [[-1], [-1]]
    right = effects.signs_right("sgd", "stage")
    assert right.shape == (2, 1) and (right >= 5).all()


def test_confidence_is_compared_with_three_truths() -> None:
    pytest.importorskip("anywidget")
    from lietoolkit import live

    study = live.confidence_study(2, long=5)
    assert list(study.right) == ["same rows", "other rows", "5 steps"]
    assert study.survival.shape == (20,) and (study.survival <= 1).all()
    assert study.right["same rows"].mean() > 0.8
    groups = [study.group(0, 0.9), study.group(0.9, 2)]
    assert np.array_equal(groups[0], ~groups[1])
    figure = live.show_confidence(study)
    assert "other rows" in figure.alt and "%" in figure.alt
