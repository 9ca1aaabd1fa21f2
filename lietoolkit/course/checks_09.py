"""Checks of notebook 09: the k² law, stages in reverse, and the stage commutator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, network, random_vectors
from lietoolkit.course.sgd_stages import (
    commutator,
    mean_of_others,
    pieces,
    reverse_stage,
    second_half,
    sgd_end,
    sgd_path,
)
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.tournament import tournament
from lietoolkit.training.optimizers import Momentum, TrainingState
from lietoolkit.training.reverse import pull_back, run_trajectory, stage_steps
from lietoolkit.training.truth import measure_order_effect


def objectives(seed: int) -> tuple[Objective, Objective, Tensor]:
    """A source, a target and a start: small networks in float64."""
    (theta,) = random_vectors(seed, 13)
    return Objective(network(3 * seed)), Objective(network(3 * seed + 2)), theta


def three_sources(seed: int) -> tuple[list[Objective], Objective, Tensor]:
    """Three sources, a target and a start."""
    (theta,) = random_vectors(seed, 13)
    *sources, target = (Objective(network(5 * seed + n)) for n in range(4))
    return sources, target, theta


# 9.1


def slopes(steps: Tensor, effects: Tensor) -> Tensor:
    """Slopes between neighbors on log axes."""
    return effects.log().diff() / steps.log().diff()


def _growth_cases() -> list[tuple]:
    steps = torch.tensor([1.0, 2, 5, 10, 20, 50], dtype=torch.float64)
    return [(steps, 3e-4 * steps**2 / (1 + steps / 8) ** 2), (steps[:4], 0.02 * steps[:4] ** 1.7)]


def _slope_panel(ax: Any, answer: Answer) -> None:
    steps, effects = _growth_cases()[0]
    between = (steps[1:] * steps[:-1]).sqrt()
    ax.semilogx(between, answer(steps, effects), "o-", markersize=5)
    ax.axhline(2, color="gray", linewidth=0.8, linestyle=":")
    ax.set_xticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set(xlabel="steps k (dotted: k² law)", ylabel="slope")


# 9.2


def _stage_cases() -> list[tuple]:
    cases = []
    for seed, lr, steps in ((91, 0.3, 4), (92, 0.2, 6)):
        source, target, theta = objectives(seed)
        cases.append((source, sgd_path(source, theta, lr, steps), target.gradient(theta), lr))
    return cases


def _sweep(source: Objective, path: list[Tensor], v: Tensor, factor: float) -> Tensor:
    for theta in path:
        v = v + factor * source.hvp(theta, v)
    return v


def _not_carried(source: Objective, path: list[Tensor], v: Tensor, lr: float) -> Tensor:
    return v - lr * torch.stack([source.hvp(theta, v) for theta in path]).sum(0)


# 9.3


def reverse_momentum(
    source: Objective, theta: Tensor, lam: Tensor, mu: Tensor, lr: float, beta: float
) -> tuple[Tensor, Tensor]:
    """The package's reverse of one momentum step."""
    rule: Any = Momentum(beta)
    run = run_trajectory(stage_steps(source, [lr]), rule.init(theta), rule)
    before = pull_back(run, TrainingState(lam, (mu,), 1), "exact")
    return before.theta, before.buffers[0]


def _momentum_cases() -> list[tuple]:
    cases = []
    for seed, lr, beta in ((93, 0.3, 0.9), (94, 0.1, 0.7)):
        source, _, theta = objectives(seed)
        cases.append((source, theta, *random_vectors(seed + 5, 13, 13), lr, beta))
    return cases


MOMENTUM_MESSAGES = (
    "The sign is flipped: p = μ - lr λ, since the step subtracts lr m.",
    "lr is missing in p = μ - lr λ.",
    "β is missing: m enters the new m as β m.",
    "μ comes back as β p: the new m also moves θ.",
    "This is the step of plain SGD: the product is with p = μ - lr λ.",
    "The sign of the product is flipped: the new m has + g, so add H p.",
    "λ itself is missing: θ also passes through unchanged.",
    "β too often: g enters the new m with factor 1.",
)


def _momentum_slip(number: int) -> Answer:
    def slip(
        source: Objective, theta: Tensor, lam: Tensor, mu: Tensor, lr: float, beta: float
    ) -> tuple[Tensor, Tensor]:
        p = mu - lr * lam
        plus, whole = mu + lr * lam, mu - lam
        return [
            (lam + source.hvp(theta, plus), beta * plus),
            (lam + source.hvp(theta, whole), beta * whole),
            (lam + source.hvp(theta, p), p),
            (lam + source.hvp(theta, p), beta * mu),
            (lam - lr * source.hvp(theta, lam), beta * p),
            (lam - source.hvp(theta, p), beta * p),
            (source.hvp(theta, p), beta * p),
            (lam + source.hvp(theta, beta * p), beta * p),
        ][number]

    return slip


# 9.4


def _pieces_cases() -> list[tuple]:
    return [tuple(pieces(*three_sources(seed), lr=0.3, steps=5)) for seed in (95, 96)]


COMMUTATOR_MESSAGES = (
    "The sign is flipped (transposed): row first, so the column's stage ends it.",
    "The sign of the first term is flipped: ⟨λ, e_j - e_i⟩.",
    "w_i and w_j are changed round (or the sign of the second part): in M[i, j] "
    "source j is trained second, so w_j meets the solo end of i.",
    "The cotangent is not pulled back: the offsets meet w, not λ.",
    "The mean of the others' solo ends is not subtracted.",
    "The source itself is in the mean: its second stage began at that of the others' solo ends.",
    "Only the second ends; what the first stage adds is missing.",
    "The second ends are missing: ⟨λ, e_j - e_i⟩.",
)


def _commutator_slip(number: int) -> Answer:
    def slip(solo: Tensor, second: Tensor, w: Tensor, lam: Tensor) -> Tensor:
        others, ends = mean_of_others(solo), (second @ lam).expand(len(solo), -1)
        first = solo @ w.T - (others * w).sum(1)
        m = [
            -ends - first,
            -ends + first,
            ends + first.T,
            ends + (solo @ lam)[:, None] - others @ lam,
            ends + solo @ w.T,
            ends + (solo - solo.mean(0)) @ w.T,
            ends,
            first,
        ][number]
        return m - m.T

    return slip


# 9.5


def stage_effects(
    sources: list[Objective], target: Objective, theta: Tensor, lr: float, steps: int
) -> Tensor:
    """The stage commutator of all pairs for plain SGD, with one slope for all, [N, N]."""
    return commutator(*pieces(sources, target, theta, lr, steps))


def _local(
    sources: list[Objective], target: Objective, theta: Tensor, lr: float, steps: int
) -> Tensor:
    named = {f"s{n}": source for n, source in enumerate(sources)}
    return tournament(named, target, theta, lr, steps).matrix


def _list_cases() -> list[tuple]:
    return [(*three_sources(97), 0.3, 5), (*three_sources(98), 0.2, 8)]


def _through(fn: Answer) -> Answer:
    """A slip of 9.4, made with the pieces of these sources."""
    return lambda *case: fn(*pieces(*case))


def _from(begin: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """Second stages begun elsewhere: at ``begin(solo, theta)``, [N, P]."""

    def answer(
        sources: list[Objective], target: Objective, theta: Tensor, lr: float, steps: int
    ) -> Tensor:
        solo = torch.stack([sgd_end(x, theta, lr, steps) for x in sources])
        starts = begin(solo, theta)
        made = second_half(sources, target, solo, starts, lr, steps)
        m = made.second @ made.lam + solo @ made.w.T - (starts * made.w).sum(1)
        return m - m.T

    return answer


def _target_at_the_start(
    sources: list[Objective], target: Objective, theta: Tensor, lr: float, steps: int
) -> Tensor:
    fixed = target.gradient(theta)
    linear = Objective(lambda x: fixed @ x)
    return commutator(*pieces(sources, linear, theta, lr, steps))


def _truth(
    sources: list[Objective], target: Objective, theta: Tensor, lr: float, steps: int
) -> Tensor:
    effects = [
        [0.0 if a is b else measure_order_effect(a, b, target, theta, lr, steps) for b in sources]
        for a in sources
    ]
    return torch.tensor(effects, dtype=torch.float64)


def _check_cost(answer: Answer) -> None:
    case = _list_cases()[0]
    steps, n = case[-1], len(case[0])
    with metered() as spent:
        answer(*case)
    # Exactly, a product alone books two.
    if spent.hvps > 2 * n * steps:
        raise Wrong(
            f"Right numbers, from {spent.hvps / 2:.0f} products; one for each step of the {n} "
            f"second stages is enough, {n * steps} in all."
        )


EXERCISES = [
    Exercise(
        key="9.1",
        right=slopes,
        cases=_growth_cases,
        mistakes=(
            Slip(
                "The axes are swapped: the effect's logarithm over that of k.",
                lambda k, e: k.log().diff() / e.log().diff(),
            ),
            Slip("The logarithms are missing.", lambda k, e: e.diff() / k.diff()),
            Slip("Take the logarithm of k too.", lambda k, e: e.log().diff() / k.diff()),
            Slip("Take the logarithm of the effects too.", lambda k, e: e.diff() / k.log().diff()),
            Slip(
                "This is the rise alone: divide by the distance of the two k, as logarithms.",
                lambda k, e: e.log().diff(),
            ),
            Slip(
                "All slopes start at the first point; take neighbors.",
                lambda k, e: (e / e[0]).log()[1:] / (k / k[0]).log()[1:],
            ),
        ),
        hints=(
            "On log axes a power k^p is a line of slope p.",
            "torch.log of both, differences of neighbors, and one division.",
        ),
        panel=_slope_panel,
        picture="the slope against k, below 2 from the start and falling",
    ),
    Exercise(
        key="9.2",
        right=reverse_stage,
        cases=_stage_cases,
        mistakes=(
            Slip(
                "The sign is flipped: a step subtracts lr times the gradient, so subtract lr H λ.",
                lambda s, path, v, lr: _sweep(s, path[::-1], v, lr),
            ),
            Slip(
                "lr is missing: the derivative of a step is I - lr H.",
                lambda s, path, v, lr: _sweep(s, path[::-1], v, -1.0),
            ),
            Slip(
                "The order of the sweep is wrong: start with the last step and go back.",
                lambda s, path, v, lr: _sweep(s, path, v, -lr),
            ),
            Slip(
                "All products are with the Hessian at the start; use that of each step.",
                lambda s, path, v, lr: _sweep(s, [path[0]] * len(path), v, -lr),
            ),
            Slip(
                "The cotangent is not carried on: each step starts from the result of the one "
                "before.",
                _not_carried,
            ),
            Slip(
                "One step only; go through the whole path.",
                lambda s, path, v, lr: _sweep(s, path[-1:], v, -lr),
            ),
            Slip("The cotangent was not pulled back at all.", lambda s, path, v, lr: v),
        ),
        hints=(
            "The derivative of θ - lr g(θ) is I - lr H, and it is symmetric.",
            "The last step comes first: for theta in reversed(path).",
        ),
    ),
    Exercise(
        key="9.3",
        right=reverse_momentum,
        cases=_momentum_cases,
        mistakes=tuple(Slip(text, _momentum_slip(n)) for n, text in enumerate(MOMENTUM_MESSAGES)),
        hints=(
            "Who uses the new m? It is the m that is handed on (μ), and it moves θ (-lr λ).",
            "p = μ - lr λ is the cotangent of the new m. From there to g, and to the old m.",
            "λ + H p, and β p.",
        ),
    ),
    Exercise(
        key="9.4",
        right=commutator,
        cases=_pieces_cases,
        mistakes=tuple(
            Slip(text, _commutator_slip(n)) for n, text in enumerate(COMMUTATOR_MESSAGES)
        ),
        hints=(
            "i then j: the second stage is that of j, begun at solo[i] in place of the mean of all "
            "but j.",
            "So it ends near second[j] + (its derivative)(solo[i] - mean); w[j] is that "
            "derivative's transpose on λ.",
            "m[i, j] = ⟨λ, second[j]⟩ + ⟨w[j], solo[i] - mean⟩, the mean without solo[j]; then "
            "m - m.T.",
        ),
    ),
    Exercise(
        key="9.5",
        right=stage_effects,
        cases=_list_cases,
        mistakes=(
            Slip("This is the truth: it trains both orders. The prediction was asked for.", _truth),
            Slip(
                "This is the local score times (k lr)².",
                _local,
            ),
            Slip(
                "The second stages begin at the start; begin them at the mean of the others' solo "
                "ends.",
                _from(lambda solo, theta: theta.expand_as(solo)),
            ),
            Slip(
                "The source itself is in the mean that its second stage begins at; take the "
                "others' solo ends.",
                _from(lambda solo, theta: solo.mean(0).expand_as(solo)),
            ),
            Slip(
                "The target's gradient is read at the start; read it at the mean of the second "
                "ends.",
                _target_at_the_start,
            ),
            Slip("The sign is flipped (order swapped).", _through(_commutator_slip(0))),
            Slip("The cotangent is not pulled back.", _through(_commutator_slip(3))),
        ),
        also=_check_cost,
        hints=(
            "Two stages a source: from the start, then from the mean of the others' ends.",
            "Keep the path of the second stages for the reverse sweep of 9.2.",
            "λ at the mean of the second ends; pull it back over each; then 9.4.",
        ),
        tolerance=1e-5,
    ),
]
