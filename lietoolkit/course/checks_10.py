"""Checks of notebook 10: whole schedules, planning from the end, and luck."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, random_vectors
from lietoolkit.course.counted_runs import Runs, mixture, stages
from lietoolkit.order.studies import best_of_random
from lietoolkit.training.optimizers import AdamW

# 10.1


def expected_best(losses: Tensor, runs: int) -> float:
    """The expected lowest loss of some different orders."""
    return best_of_random(losses.numpy(), runs)


def _with_replacement(losses: Tensor, runs: int) -> float:
    ordered, n = losses.sort().values, len(losses)
    above = (torch.arange(n, -1, -1, dtype=torch.float64) / n) ** runs
    return float((ordered * (above[:-1] - above[1:])).sum())


def _unsorted(losses: Tensor, runs: int) -> float:
    n = len(losses)
    ways = [math.comb(n - 1 - i, runs - 1) for i in range(n)]
    return sum(w * float(x) for w, x in zip(ways, losses, strict=True)) / math.comb(n, runs)


def _losses(seed: int, size: int) -> Tensor:
    (x,) = random_vectors(seed, size)
    return 1 + 0.1 * x


def _luck_panel(ax: Any, best: Answer) -> None:
    losses = _losses(100, 24)
    ax.plot(torch.ones(24), losses, "_", color="gray", label="all 24 orders")
    runs = range(1, 25)
    ax.plot(runs, [float(best(losses.clone(), b)) for b in runs], "-o", color="#0072B2",
            markersize=4, label="best of B")  # fmt: skip
    ax.set(xlabel="orders tried, B", ylabel="final loss")
    ax.legend(fontsize=8)


# 10.2


def last_source(names: Sequence[str], steps: int, run: Runs) -> tuple[dict[str, float], str]:
    """The first round of planning from the end."""
    plan = run.plan(steps)
    return plan.rounds[0], plan.order[-1]


def _scored(turns: Callable[[list[str], str, int], list[str]], pick: Any = min) -> Answer:
    """The answer that trains in these turns: (others, candidate, steps) -> turns."""

    def answer(names: Sequence[str], steps: int, run: Runs) -> tuple[dict[str, float], str]:
        scores = {i: run(turns([x for x in names if x != i], i, steps)) for i in names}
        return scores, pick(scores, key=scores.__getitem__)

    return answer


def _last_panel(ax: Any, choose: Answer) -> None:
    run = Runs(110, "ABCD")
    scores, last = choose(list("ABCD"), 4, run)
    heights = [float(scores[x]) for x in "ABCD"]
    ax.bar(range(4), heights, color="#56B4E9", edgecolor="black")
    ax.plot(["ABCD".index(last)], [float(scores[last])], "*", color="black", markersize=15)
    ax.set_xticks(range(4), list("ABCD"))
    ax.set(xlabel="candidate for the end", ylabel="final loss",
           ylim=(0.9 * min(heights), 1.05 * max(heights)))  # fmt: skip


# 10.3


def replayed(gradients: dict[str, Tensor], order: Sequence[str], lr: float) -> Tensor:
    """AdamW's displacement, without weight decay, on recorded gradients."""
    rule, zero = AdamW(weight_decay=0.0), torch.zeros_like(gradients[order[0]][0])
    state = rule.init(zero)
    for name in order:
        for g in gradients[name]:
            state = rule.step(state, g, lr)
    return state.theta


def _adam(
    gradients: dict[str, Tensor],
    order: Sequence[str],
    lr: float,
    *,
    corrected: bool = True,
    restart: bool = False,
    rooted: bool = True,
) -> Tensor:
    """Adam by hand, with mistakes to choose from."""
    moved = torch.zeros_like(gradients[order[0]][0])
    m, v, n = moved, moved, 0
    for name in order:
        n = 0 if restart else n
        for g in gradients[name]:
            n += 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            a, b = (1 - 0.9**n, 1 - 0.999**n) if corrected else (1.0, 1.0)
            scale = (v / b).sqrt() if rooted else v / b
            moved = moved - lr * m / a / (scale + 1e-8)
    return moved


def _recorded(seed: int, names: str, steps: int, size: int) -> dict[str, Tensor]:
    found = random_vectors(seed, *[(steps, size)] * len(names))
    return {x: (i + 1) * g for i, (x, g) in enumerate(zip(names, found, strict=True))}


def _replay_panel(ax: Any, replay: Answer) -> None:
    recorded = _recorded(120, "ABC", 6, 2)
    for order, mark in zip(itertools.permutations("ABC"), "os^vDP", strict=True):
        x, y = replay({k: g.clone() for k, g in recorded.items()}, list(order), 0.1).tolist()
        ax.plot([x], [y], mark, markersize=8, markeredgecolor="black", label="".join(order))
    ax.set(xlabel="first coordinate", ylabel="second")
    ax.legend(fontsize=7, ncols=2)


# 10.4


def planned(names: Sequence[str], steps: int, run: Runs) -> list[str]:
    """The package's order."""
    return run.plan(steps).order


def _planner(
    turns: Callable[[list[str], str, list[str], int], list[str]], pick: Any = min
) -> Answer:
    """Rounds from the end; turns: (others, candidate, chosen, steps) -> one name a step."""

    def answer(names: Sequence[str], steps: int, run: Runs) -> list[str]:
        left = list(names)
        chosen: list[str] = []
        while left:
            scores = {i: run(turns([x for x in left if x != i], i, chosen, steps)) for i in left}
            last = pick(scores, key=scores.__getitem__)
            left.remove(last)
            chosen = [last, *chosen]
        return chosen

    return answer


def _from_start(names: Sequence[str], steps: int, run: Runs) -> list[str]:
    left = list(names)
    chosen: list[str] = []
    while left:
        chosen.append(min(left, key=lambda i: run(stages([*chosen, i], steps))))
        left.remove(chosen[-1])
    return chosen


def _one_shot(names: Sequence[str], steps: int, run: Runs) -> list[str]:
    scores, _ = last_source(names, steps, run)
    return sorted(names, key=scores.__getitem__, reverse=True)


def _best_of_all(names: Sequence[str], steps: int, run: Runs) -> list[str]:
    return list(min(itertools.permutations(names), key=lambda o: run(stages(o, steps))))


PLAN_SEEDS = (500, 1100, 1300)


def _check_runs(plan: Answer) -> None:
    run = Runs(PLAN_SEEDS[0], "ABCD")
    # Candidates of all choices but the last: N + (N - 1) + ... + 2.
    run.limit = sum(range(2, 5))
    plan(list("ABCD"), 4, run)


EXERCISES = [
    Exercise(
        key="10.1",
        right=expected_best,
        cases=lambda: [(_losses(101, 6), 2), (_losses(102, 24), 5), (_losses(103, 24), 1)],
        mistakes=(
            Slip(
                "This is the lowest loss of all; only `runs` of the orders are tried, so take the "
                "mean over all ways to draw them.",
                lambda x, b: x.min(),
            ),
            Slip("This is the mean of all: the best of one order.", lambda x, b: x.mean()),
            Slip(
                "This is the expected worst, not the best: the others drawn must lie above.",
                lambda x, b: -expected_best(-x, b),
            ),
            Slip(
                "Here an order can be drawn twice; draw `runs` different ones.", _with_replacement
            ),
            Slip(
                "These are the first orders of the list; take the mean over all ways to draw.",
                lambda x, b: x[:b].min(),
            ),
            Slip(
                "This is an unsorted list: sort the losses first, so that those after i are above.",
                _unsorted,
            ),
        ),
        hints=(
            "Sort the losses. The i-th (from 0) is the best of the draw if it is drawn and none "
            "of the i below it is.",
            "There are math.comb(n - 1 - i, runs - 1) such draws, of math.comb(n, runs).",
        ),
        panel=_luck_panel,
        picture="24 losses as ticks, and a curve that falls from their mean to their lowest as B "
        "grows",
    ),
    Exercise(
        key="10.2",
        right=last_source,
        cases=lambda: [(list("ABCD"), 4, Runs(110, "ABCD")), (list("ABC"), 3, Runs(140, "ABC"))],
        mistakes=(
            Slip(
                "The candidate goes first here; put it last, after the others.",
                _scored(lambda o, i, k: [i] * k + mixture(o, k)),
            ),
            Slip(
                "The candidate is also left in the mixture: interleave only the others.",
                _scored(lambda o, i, k: mixture(sorted([*o, i]), k) + [i] * k),
            ),
            Slip(
                "The others run one after the other; interleave them, one step each in turn.",
                _scored(lambda o, i, k: stages(o, k) + [i] * k),
            ),
            Slip(
                "Every sweep runs forwards: turn every other one round, or whoever steps last in "
                "a sweep is favored.",
                _scored(lambda o, i, k: o * k + [i] * k),
            ),
            Slip(
                "The candidate gets one step; its stage has k.",
                _scored(lambda o, i, k: [*mixture(o, k), i]),
            ),
            Slip(
                "The candidate is never trained: its stage comes after the mixture.",
                _scored(lambda o, i, k: mixture(o, k)),
            ),
            Slip(
                "The scores are right; the worst candidate was chosen. The lowest loss is wanted.",
                _scored(lambda o, i, k: mixture(o, k) + [i] * k, max),
            ),
        ),
        hints=(
            "For each candidate, the turns are the others' sweeps, then the candidate k times.",
            "Sweep s is others, or others[::-1] where s is odd.",
            "min(scores, key=scores.get) is the name with the lowest loss.",
        ),
        panel=_last_panel,
        picture="bars of four candidates' final losses, with a star on the lowest",
    ),
    Exercise(
        key="10.3",
        right=replayed,
        cases=lambda: [
            (_recorded(121, "ABC", 4, 5), list("BCA"), 0.1),
            (_recorded(122, "AB", 3, 4), list("BA"), 0.01),
        ],
        mistakes=(
            Slip(
                "The state is reset at each stage: carry m, v and the step count through the run.",
                lambda g, o, lr: sum(replayed(g, [name], lr) for name in o),
            ),
            Slip(
                "The step count starts again at each stage; m and v are carried, so carry it too.",
                lambda g, o, lr: _adam(g, o, lr, restart=True),
            ),
            Slip(
                "The correction of m and v for their start at zero is missing.",
                lambda g, o, lr: _adam(g, o, lr, corrected=False),
            ),
            Slip(
                "The sign is flipped: the optimizer goes against the gradient.",
                lambda g, o, lr: -replayed(g, o, lr),
            ),
            Slip(
                "The order runs backwards: the first name is trained first.",
                lambda g, o, lr: replayed(g, o[::-1], lr),
            ),
            Slip(
                "This is plain SGD: a sum, which no order changes.",
                lambda g, o, lr: -lr * sum(g[name].sum(0) for name in o),
            ),
            Slip(
                "The root of v is missing: divide by it, plus eps.",
                lambda g, o, lr: _adam(g, o, lr, rooted=False),
            ),
        ),
        hints=(
            "Start at m = v = 0; nothing restarts between stages. First m and v move, then θ.",
            "At step n, the displacement changes by −lr · m / (1 − 0.9ⁿ) / "
            "(√(v / (1 − 0.999ⁿ)) + 1e-8).",
        ),
        panel=_replay_panel,
        picture="six points in the plane, one for each order of three sources, all different",
    ),
    Exercise(
        key="10.4",
        right=planned,
        cases=lambda: [(list("ABCD"), 4, Runs(seed, "ABCD")) for seed in PLAN_SEEDS],
        mistakes=(
            Slip(
                "The order is backwards: what was chosen first is trained last.",
                lambda n, k, run: planned(n, k, run)[::-1],
            ),
            Slip(
                "This sorts by the first round's scores; score again after each choice.", _one_shot
            ),
            Slip(
                "After the candidate, run the stages already chosen too, before the loss is read.",
                _planner(lambda o, i, c, k: mixture(o, k) + [i] * k),
            ),
            Slip(
                "The worst candidate was chosen each time: the lowest loss is wanted.",
                _planner(lambda o, i, c, k: mixture(o, k) + stages([i, *c], k), max),
            ),
            Slip("This plans from the start, greedily; choose the last source first.", _from_start),
            Slip(
                "The stages already chosen run the wrong way round.",
                _planner(lambda o, i, c, k: mixture(o, k) + stages([i, *c[::-1]], k)),
            ),
            Slip("All orders were trained; that is what planning should save.", _best_of_all),
        ),
        also=_check_runs,
        hints=(
            "A list of what remains, a list of what is chosen; each choice goes to its front.",
            "turns = sweeps of the others + candidate × k + each chosen stage × k.",
            "Where one source remains there is nothing to run.",
        ),
    ),
]
