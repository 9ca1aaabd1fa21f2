"""Checks of notebook 08: preference tuning (DPO)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from lietoolkit.course.checks_06 import model_of, padded_rows
from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, random_vectors, same_number
from lietoolkit.tasks import losses

Logps = Callable[[Tensor], tuple[Tensor, Tensor]]


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """The package's loss, on a made-up model that gives one-token answers these chances."""
    logps = torch.cat([chosen, rejected])
    # Of two tokens with logits x and 0, the first has log-probability log sigmoid(x).
    logits = torch.zeros(len(logps), 2, 2, dtype=logps.dtype)
    logits[:, 0, 0] = logps - torch.log(-torch.expm1(logps))
    batch = {
        "input_ids": torch.zeros(len(logps), 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1]]).expand(len(logps), 2),
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    return losses.dpo_loss(model_of(logits), batch, beta)


# 8.1


def margins(c: Tensor, r: Tensor, ref_c: Tensor, ref_r: Tensor, beta: float) -> Tensor:
    """Margins, read back from the package's loss of each pair: loss = log(1 + exp(−margin))."""
    rows = range(len(c))
    each = torch.stack([dpo_loss(c[[i]], r[[i]], ref_c[[i]], ref_r[[i]], beta) for i in rows])
    return -torch.log(torch.expm1(each))


def _logps(seed: int, pairs: int = 5) -> tuple:
    vectors = random_vectors(seed, *[pairs] * 4)
    return tuple(-5 - 2 * v.abs() - v for v in vectors)


def _margin_cases() -> list[tuple]:
    return [(*_logps(81), 0.1), (*_logps(82), 0.5)]


# 8.2


def _dpo_panel(ax: Any, loss: Answer) -> None:
    flat = torch.tensor([-20.0], dtype=torch.float64)
    margin = torch.linspace(-6, 6, 25, dtype=torch.float64)
    values = [float(loss(flat + m, flat, flat, flat, 1.0)) for m in margin]
    ax.plot(margin, values, "o-", markersize=3)
    ax.axhline(math.log(2), color="gray", linewidth=0.8, linestyle=":")
    ax.set(xlabel="margin (dotted: log 2)", ylabel="loss (nats)")


# 8.3


def completion_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """The package's sums, chosen rows above rejected ones."""
    batch = {"input_ids": input_ids, "completion_mask": completion_mask}
    return torch.cat(losses.completion_logps(model_of(logits), batch))


def _token_logps(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def _logps_cases() -> list[tuple]:
    cases = []
    for seed, lengths, prompts in ((83, (7, 4, 6, 7), (3, 2, 4, 3)), (84, (5, 9), (1, 4))):
        ids, attended = padded_rows(seed, lengths)
        completion = (torch.arange(ids.shape[1]) >= torch.tensor(prompts)[:, None]) * attended
        cases.append((random_vectors(seed, (*ids.shape, 30))[0], ids, completion))
    return cases


# 8.4


def preferences(seed: int, pairs: int = 4, size: int = 6) -> tuple[Logps, Tensor]:
    """A small model's log-probabilities of chosen and rejected answers, and a start."""
    one, two, theta = random_vectors(seed, (pairs, size), (pairs, size), size)

    def logps(x: Tensor) -> tuple[Tensor, Tensor]:
        return -3 * softplus(one @ x), -3 * softplus(two @ x)

    return logps, theta


def dpo_objective(logps: Logps, theta0: Tensor, beta: float) -> Callable[[Tensor], Tensor]:
    """The loss with the reference taken once, at theta0, without gradient."""
    with torch.no_grad():
        reference = logps(theta0)

    return lambda theta: dpo_loss(*logps(theta), *reference, beta)


def _value_and_gradient(fn: Callable[[Tensor], Tensor], at: Tensor) -> tuple[float, Tensor]:
    x = at.detach().clone().requires_grad_()
    value = fn(x)
    if not value.requires_grad:
        raise Wrong("The loss has no gradient: only the reference is computed without one.")
    (g,) = torch.autograd.grad(value, x, allow_unused=True)
    return float(value.detach()), torch.zeros_like(x) if g is None else g


def _check_reference(make: Answer) -> None:
    beta = 0.3
    logps, theta0 = preferences(85)
    (step,) = random_vectors(86, len(theta0))
    right, found = dpo_objective(logps, theta0, beta), make(logps, theta0.clone(), beta)
    if found is None:
        raise Wrong("The function returned nothing: end it with return.")
    if not callable(found):
        raise Wrong(f"Expected a function of theta, got {type(found).__name__}.")
    start, g_start = _value_and_gradient(found, theta0)
    away, g_away = _value_and_gradient(found, theta0 + step)
    if not same_number(start, math.log(2)):
        raise Wrong(
            f"At theta0 the loss is {start:.4f}, expected log 2 = 0.6931: there model and "
            "reference agree, so every margin is 0. Is the reference in the loss?"
        )
    if same_number(away, math.log(2)):
        if float(g_start.norm()) < 1e-12:
            raise Wrong(
                "The loss is log 2 everywhere, without gradient: the reference moves with theta. "
                "Compute it once, at theta0."
            )
        raise Wrong(
            "The loss is log 2 everywhere: the reference is computed anew at each theta. Compute "
            "it once, at theta0, before the inner function."
        )
    expected = _value_and_gradient(right, theta0 + step)
    if same_number(
        away, _value_and_gradient(dpo_objective(logps, theta0, -beta), theta0 + step)[0]
    ):
        raise Wrong("The sign is flipped: the chosen answer must gain over the rejected one.")
    if not same_number(away, expected[0]):
        raise Wrong(f"Away from theta0 the loss is {away:.4f}, expected {expected[0]:.4f}.")
    if not torch.allclose(g_away, expected[1]):
        raise Wrong("The loss is right, its gradient is not: did something detach the model?")
    start_vector = theta0.clone()
    found = make(logps, start_vector, beta)
    start_vector += step  # what an optimizer does to parameters
    if not same_number(_value_and_gradient(found, theta0)[0], math.log(2)):
        raise Wrong(
            "The reference is read late: it moved when theta0 was changed in place, as an "
            "optimizer does. Compute it before the inner function."
        )
    leaf = theta0.clone().requires_grad_()
    made = make(logps, leaf, beta)
    made((theta0 + step).requires_grad_()).backward()
    if leaf.grad is not None:
        raise Wrong("The reference carries a gradient: compute it under torch.no_grad().")


def _reference_panel(ax: Any, make: Answer) -> None:
    logps, theta0 = preferences(85)
    loss = make(logps, theta0, 0.3)
    along = _value_and_gradient(dpo_objective(logps, theta0, 0.3), theta0)[1]
    ways = torch.linspace(0, 3, 13, dtype=torch.float64)
    ax.plot(ways, [float(loss(theta0 - w * along)) for w in ways], "o-", markersize=4)
    ax.axhline(math.log(2), color="gray", linewidth=0.8, linestyle=":")
    ax.set(xlabel="way downhill from theta0 (dotted: log 2)", ylabel="loss (nats)")


def _slips_of_margins(*case: Any) -> list[Tensor]:
    c, r, ref_c, ref_r, beta = case
    return [
        beta * ((r - ref_r) - (c - ref_c)),
        beta * (c - r),
        (c - ref_c) - (r - ref_r),
        beta * ((c + ref_c) - (r + ref_r)),
        beta * (c - ref_c),
    ]


def _margin_slip(number: int, through: Callable[[Tensor], Tensor] = lambda m: m) -> Answer:
    return lambda *case: through(_slips_of_margins(*case)[number])


def _loss_of(margin: Tensor) -> Tensor:
    return -logsigmoid(margin).mean()


MARGIN_MESSAGES = (
    "The sign is flipped: chosen minus rejected.",
    "The reference is missing: subtract its log-probabilities.",
    "β is missing.",
    "The reference is added; subtract it.",
    "The rejected answer is missing.",
)


EXERCISES = [
    Exercise(
        key="8.1",
        right=margins,
        cases=_margin_cases,
        mistakes=(
            *(Slip(text, _margin_slip(n)) for n, text in enumerate(MARGIN_MESSAGES)),
            Slip(
                "This is the mean; return one margin for each pair.",
                lambda *case: margins(*case).mean(),
            ),
        ),
        hints=(
            "How much more likely has each answer become, compared with the reference?",
            "β times (gain of the chosen answer − gain of the rejected one).",
        ),
    ),
    Exercise(
        key="8.2",
        right=dpo_loss,
        cases=_margin_cases,
        mistakes=(
            *(Slip(text, _margin_slip(n, _loss_of)) for n, text in enumerate(MARGIN_MESSAGES)),
            Slip(
                "The logarithm is missing: -log sigmoid(margin), by logsigmoid.",
                lambda *case: -margins(*case).sigmoid().mean(),
            ),
            Slip(
                "The minus sign is missing: the loss is -logsigmoid(margin).",
                lambda *case: -dpo_loss(*case),
            ),
            Slip(
                "This is the sum over pairs; take the mean.",
                lambda *case: dpo_loss(*case) * len(case[0]),
            ),
            Slip(
                "The mean comes last: first -logsigmoid of each pair's margin.",
                lambda *case: _loss_of(margins(*case).mean()),
            ),
        ),
        hints=(
            "Start from the margins of 8.1.",
            "torch.nn.functional.logsigmoid is safe where sigmoid underflows.",
        ),
        panel=_dpo_panel,
        picture="the loss against the margin, falling, log 2 at margin 0",
    ),
    Exercise(
        key="8.3",
        right=completion_logps,
        cases=_logps_cases,
        mistakes=(
            Slip(
                "This is the mean over tokens; DPO takes the sum.",
                lambda x, ids, mask: completion_logps(x, ids, mask) / mask[:, 1:].sum(1),
            ),
            Slip(
                "The tokens are not shifted: the logits at t predict the token at t + 1.",
                lambda x, ids, mask: (_token_logps(x, ids) * mask).sum(1),
            ),
            Slip(
                "The mask is off by one: shift it together with the tokens.",
                lambda x, ids, mask: (_token_logps(x[:, :-1], ids[:, 1:]) * mask[:, :-1]).sum(1),
            ),
            Slip(
                "The mask is missing: prompt and padding are in the sum.",
                lambda x, ids, mask: completion_logps(x, ids, torch.ones_like(mask)),
            ),
            Slip(
                "These are raw logits: take log_softmax first.",
                lambda x, ids, mask: (
                    x[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
                ).sum(1),
            ),
            Slip(
                "The sign is flipped: log-probabilities are negative, losses positive.",
                lambda *case: -completion_logps(*case),
            ),
        ),
        hints=(
            "log_softmax over the vocabulary, shifted; gather picks each token's entry.",
            "Multiply with the mask shifted like the tokens, and sum each row.",
        ),
    ),
    Exercise(
        key="8.4",
        right=dpo_objective,
        cases=lambda: [],
        check=_check_reference,
        hints=(
            "At theta0 model and reference agree: the loss is log 2, but its gradient is not 0.",
            "Compute the reference's two vectors first, under torch.no_grad(); then define the "
            "inner function.",
        ),
        panel=_reference_panel,
        picture="the loss along the way downhill, starting at log 2 and falling",
    ),
]
