"""Checks of notebook 07: instruction tuning, and what running every order costs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_06 import padded_rows, token_grid
from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, network, random_vectors
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.objective import Objective
from lietoolkit.tasks.losses import IGNORE, row_labels
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.training.stages import run_stage
from lietoolkit.training.truth import run_schedules

Orders = Sequence[Sequence[str]]

# 7.1


def completion_labels(input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> Tensor:
    """Labels of the package, given where completions start."""
    return _from(input_ids, attention_mask, prompt_lengths, 0)


def _from(ids: Tensor, mask: Tensor, prompts: Tensor, late: int) -> Tensor:
    completion = (torch.arange(ids.shape[1]) >= prompts[:, None] + late).long()
    return row_labels({"input_ids": ids, "attention_mask": mask, "completion_mask": completion})


def _prompt_only(ids: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    return ids.masked_fill(torch.arange(ids.shape[1]) >= prompts[:, None], IGNORE)


def _with_padding(ids: Tensor, mask: Tensor, prompts: Tensor) -> Tensor:
    return _from(ids, torch.ones_like(mask), prompts, 0)


def _mask_cases() -> list[tuple]:
    prompts = ((3, 2, 4), (1, 5, 2, 6))
    rows = (padded_rows(71), padded_rows(72, (5, 8, 4, 9)))
    return [(*r, torch.tensor(p)) for r, p in zip(rows, prompts, strict=True)]


def _mask_panel(ax: Any, label: Answer) -> None:
    ids, mask, prompts = _mask_cases()[0]
    token_grid(ax, ids, label(ids.clone(), mask, prompts) != IGNORE, mask)


# 7.2


def count_stages(orders: Orders) -> int:
    """Stages that the package's runner trains: counted gradients of a toy run, one a stage."""
    names = {name for order in orders for name in order}
    toy = Objective(lambda x: x.square().sum())
    with metered() as cost:
        run_schedules(dict.fromkeys(names, toy), toy, torch.ones(1).double(), orders, 0.1)
    return int(cost.gradients)


def _prefixes(orders: Orders) -> list[tuple[str, ...]]:
    return [tuple(order[:n]) for order in orders for n in range(1, len(order) + 1)]


def _orders() -> list[tuple]:
    return [
        (["AB", "AC", "BA", "BC"],),
        (["".join(order) for order in itertools.permutations("ABC")],),
        (["ABCD", "ABDC", "ACBD", "DCBA", "ABCD"],),
        (["".join(order) for order in itertools.permutations("ABCDE")],),
    ]


# 7.3


def run_orders(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    orders: Orders,
    lr: float,
    steps: int,
) -> Tensor:
    """Losses of the package's runner."""
    return run_schedules(sources, target, theta, orders, lr, steps)


def _one_after_the_other(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    orders: Orders,
    lr: float,
    steps: int,
) -> list[float]:
    sgd, losses = optimizer_from("sgd"), []
    state = sgd.init(theta)
    for order in orders:
        for name in order:
            state = run_stage(sources[name], state, sgd, [lr] * steps)
        losses.append(float(target.loss(state.theta)))
    return losses


def _by_set(*case: Any) -> list[float]:
    """The first order's loss for every order of the same sources."""
    orders, losses = case[3], run_orders(*case).tolist()
    first = {
        frozenset(order): loss for order, loss in reversed(list(zip(orders, losses, strict=True)))
    }
    return [first[frozenset(order)] for order in orders]


def _reversed(*case: Any) -> Tensor:
    sources, target, theta, orders, lr, steps = case
    return run_orders(sources, target, theta, [order[::-1] for order in orders], lr, steps)


def _one_step(*case: Any) -> Tensor:
    sources, target, theta, orders, lr, _ = case
    return run_orders(sources, target, theta, orders, lr, 1)


def runs(orders: Orders, seed: int = 73) -> tuple:
    """Sources A to D, a target, a start, the orders, a step size and steps per stage."""
    (theta,) = random_vectors(seed, 13)
    sources = {name: Objective(network(seed + n)) for n, name in enumerate("ABCD")}
    return sources, Objective(network(seed + 9)), theta, list(orders), 0.1, 3


def _check_sharing(run: Answer) -> None:
    orders = ["".join(order) for order in itertools.permutations("ABC")] + ["ABCD", "AB"]
    case = runs(orders)
    with metered() as cost:
        run(*case)
    steps = case[-1]
    trained, needed = round(cost.gradients / steps), count_stages(orders)
    if trained > needed:
        raise Wrong(
            f"Right losses, but {trained} stages were trained; orders that begin alike can share "
            f"them, and {needed} are enough. Keep the parameters after each beginning."
        )


def _runs_panel(ax: Any, run: Answer) -> None:
    orders = ["".join(order) for order in itertools.permutations("ABC")]
    losses = [float(x) for x in run(*runs(orders))]
    ax.plot(losses, range(6), "o", color="black")
    ax.set_yticks(range(6), [" → ".join(order) for order in orders])
    ax.set(xlabel="target loss at the end", ylim=(-0.5, 5.5))
    ax.grid(axis="y", linewidth=0.4)


EXERCISES = [
    Exercise(
        key="7.1",
        right=completion_labels,
        cases=_mask_cases,
        mistakes=(
            Slip(
                "The mask is off by one: the completion's first token is left out. The loss shifts "
                "the labels itself.",
                lambda ids, mask, prompts: _from(ids, mask, prompts, 1),
            ),
            Slip(
                "The mask is off by one: the prompt's last token counts too.",
                lambda ids, mask, prompts: _from(ids, mask, prompts, -1),
            ),
            Slip("The mask is inverted: the loss is on the prompt.", _prompt_only),
            Slip("Padding is not masked: use attention_mask too.", _with_padding),
            Slip(
                "The prompt is not masked: this is the language-model loss.",
                lambda ids, mask, prompts: _from(ids, mask, 0 * prompts, 0),
            ),
        ),
        hints=(
            "torch.arange(T) < prompt_lengths[:, None] is True on the prompt.",
            "Mask that, and where attention_mask is 0. Position prompt_length itself counts.",
        ),
        panel=_mask_panel,
        picture="a grid of tokens; prompts on the left and padding on the right do not count",
    ),
    Exercise(
        key="7.2",
        right=count_stages,
        cases=_orders,
        mistakes=(
            Slip(
                "Nothing is shared: orders that begin alike can use the same stages.",
                lambda orders: sum(len(order) for order in orders),
            ),
            Slip(
                "Beginnings with the same sources in another order are different: AB is not BA.",
                lambda orders: len({frozenset(p) for p in _prefixes(orders)}),
            ),
            Slip(
                "Common endings cannot be shared, only common beginnings.",
                lambda orders: len(set(_prefixes([order[::-1] for order in orders]))),
            ),
            Slip(
                "Only repeated orders are shared here; ABC and ABD share their first two stages.",
                lambda orders: sum(len(order) for order in set(orders)),
            ),
            Slip(
                "Only the first stages are shared; longer beginnings can be too.",
                lambda orders: len({o[0] for o in orders}) + sum(len(o) - 1 for o in set(orders)),
            ),
        ),
        hints=(
            "A stage is needed for each different beginning: A, AB, ABC, …",
            "Put all beginnings (tuples) in a set and count them.",
        ),
    ),
    Exercise(
        key="7.3",
        right=run_orders,
        cases=lambda: [runs(("ABC", "ACB", "CBA", "BAC", "AB")), runs(("DC", "CD"), 74)],
        mistakes=(
            Slip(
                "Each order must start at theta, not where the last one ended.",
                _one_after_the_other,
            ),
            Slip(
                "Orders of the same sources got the same loss: remember beginnings in order, not "
                "as sets.",
                _by_set,
            ),
            Slip("The orders run backwards: the first name is trained first.", _reversed),
            Slip("Only one step per stage: take `steps` of them.", _one_step),
        ),
        also=_check_sharing,
        hints=(
            "First write it without sharing and pass the comparison.",
            "Keep a dictionary from beginnings to parameters: done[()] = theta, done['A'] = …",
            "For each n up to the order's length: if order[:n] is not in done, train from "
            "done[order[:n-1]].",
        ),
        panel=_runs_panel,
        picture="the target's final loss for each of the six orders of A, B and C",
    ),
]
