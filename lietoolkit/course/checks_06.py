"""Checks of notebook 06: next-token loss and the order of domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, random_vectors
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.baselines import baseline_orders
from lietoolkit.order.tournament import Tournament, tournament
from lietoolkit.tasks.losses import IGNORE, loss_function, row_labels, token_mean
from lietoolkit.training.truth import run_schedules

END = 0  # the id of the end-of-text token, which is also the padding


def model_of(logits: Tensor) -> Callable[..., Any]:
    """What the package takes for a language model, with these logits [B, T, V]."""
    return lambda **_: SimpleNamespace(logits=logits)


def padded_rows(seed: int = 6, lengths: tuple[int, ...] = (7, 4, 6)) -> tuple[Tensor, Tensor]:
    """Token ids that end in the end-of-text token, and their attention mask, each [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, 30, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids[mask == 0] = END
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = END
    return ids, mask


def token_grid(ax: Any, ids: Tensor, counted: Tensor, attended: Tensor) -> None:
    """Tokens as a grid: counted ones dark, others light, padding as a dot."""
    ax.imshow(counted.double().numpy(), cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for row, column in torch.cartesian_prod(*map(torch.arange, ids.shape)).tolist():
        on = bool(counted[row, column])
        text = str(int(ids[row, column])) if on or attended[row, column] else "·"
        ax.text(column, row, text, ha="center", va="center", fontsize=9,
                fontweight="bold" if on else "normal")  # fmt: skip
    ax.set(xlabel="position (dark, bold: counts)", ylabel="row")
    ax.set_xticks(range(ids.shape[1]))
    ax.set_yticks(range(ids.shape[0]))


# 6.1


def make_labels(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Labels of the package."""
    return row_labels({"input_ids": input_ids, "attention_mask": attention_mask})


def _labels_panel(ax: Any, label: Answer) -> None:
    ids, mask = padded_rows()
    token_grid(ax, ids, label(ids.clone(), mask) != IGNORE, mask)


# 6.2


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The package's loss."""
    return token_mean(model_of(logits), {"input_ids": labels, "labels": labels})


def _shift_by_hand(logits: Tensor, labels: Tensor, rows: bool = False) -> Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none"
    ).view(labels.shape)
    counted = labels != IGNORE
    if rows:
        return (losses.sum(1) / counted.sum(1)).mean()
    return losses.sum() / counted.sum()


def _loss_cases() -> list[tuple]:
    cases = []
    for seed, lengths in ((61, (7, 4, 6)), (62, (5, 9))):
        ids, mask = padded_rows(seed, lengths)
        (logits,) = random_vectors(seed, (*ids.shape, 30))
        cases.append((logits, make_labels(ids, mask)))
    return cases


def _all_places(logits: Tensor, labels: Tensor) -> Tensor:
    counted = (labels[:, 1:] != IGNORE).sum()
    return loss(logits, labels) * counted / labels[:, 1:].numel()


# 6.4


def batch_loss(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """The package's loss of the whole batch."""
    return loss(torch.cat(logits), torch.cat(labels))


def _counted(labels: Tensor) -> float:
    return loss_function("lm").weight({"input_ids": labels, "labels": labels})


def _weighted(weight: Callable[[Tensor], float]) -> Answer:
    def combine(logits: list[Tensor], labels: list[Tensor]) -> float:
        weights = [weight(part) for part in labels]
        values = [float(loss(x, y)) for x, y in zip(logits, labels, strict=True)]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    return combine


def _part_cases() -> list[tuple]:
    cases = []
    for seed, lengths, cuts in ((67, (9, 3, 4, 8, 2), (2, 3)), (68, (6, 2, 9), (1, 2))):
        ids, mask = padded_rows(seed, lengths)
        (logits,) = random_vectors(seed, (*ids.shape, 30))
        labels = make_labels(ids, mask)
        cases.append((list(logits.split(cuts)), list(labels.split(cuts))))
    return cases


# 6.3

TOKENS, WIDTH, LR = 12, 4, 0.5


def bigram_domain(seed: int) -> Objective:
    """Next-token loss of a tiny language model on one domain of made-up text."""
    (chances,) = random_vectors(seed, (TOKENS, TOKENS))
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, TOKENS, (48,), generator=generator)
    following = torch.multinomial((2 * chances).softmax(1)[first], 1, generator=generator)

    def fn(theta: Tensor) -> Tensor:
        into, out = theta.view(2, TOKENS, WIDTH)
        return torch.nn.functional.cross_entropy(into[first] @ out.T, following[:, 0])

    return Objective(fn, f"domain {seed}")


def domains(seed: int) -> tuple[dict[str, Objective], Objective, Tensor, float]:
    """Four domains, a target and a start."""
    names = ("code", "news", "chat", "law")
    sources = {name: bigram_domain(10 * seed + n) for n, name in enumerate(names)}
    (theta,) = random_vectors(seed, 2 * TOKENS * WIDTH)
    return sources, bigram_domain(10 * seed + 9), theta, LR


def _tournament(
    sources: Mapping[str, Objective], target: Objective, theta: Tensor, lr: float
) -> Tournament:
    return tournament(sources, target, theta, lr, hvp="exact")


def domain_order(
    sources: Mapping[str, Objective], target: Objective, theta: Tensor, lr: float
) -> list[str]:
    """The tournament's order."""
    return _tournament(sources, target, theta, lr).order


def _baseline(name: str) -> Answer:
    def order(*case: Any) -> list[str]:
        return baseline_orders(_tournament(*case).gradients)[name]["order"]

    return order


def _check_cost(order: Answer) -> None:
    case = domains(63)
    with metered() as mine:
        order(*case)
    n = len(case[0])
    if mine.total > 4 * n + 2:
        raise Wrong(
            f"Right order, for {mine.total:.0f} gradients. N gradients and N products with the "
            f"target's gradient are enough: {3 * n + 1} here."
        )


def _domains_panel(ax: Any, order: Answer) -> None:
    import itertools

    sources, target, theta, lr = domains(63)
    mine = list(order(sources, target, theta, lr))
    orders = [list(o) for o in itertools.permutations(sources)]
    losses = run_schedules(sources, target, theta, orders, lr).tolist()
    ax.plot(range(1, 25), sorted(losses), ".", color="gray", label="all 24 orders, trained")
    final = losses[orders.index(mine)]
    ax.plot([1 + sorted(losses).index(final)], [final], "*", color="black", markersize=14,
            label="chosen")  # fmt: skip
    ax.set(xlabel="rank", ylabel="target loss (nats)")
    ax.ticklabel_format(useOffset=False)
    ax.legend(fontsize=8)


EXERCISES = [
    Exercise(
        key="6.1",
        right=make_labels,
        cases=lambda: [padded_rows(), padded_rows(66, (3, 8, 5, 8))],
        mistakes=(
            Slip(
                "The end-of-text token was masked: it has the padding's id. Use attention_mask.",
                lambda ids, mask: ids.masked_fill(ids == END, IGNORE),
            ),
            Slip(
                "The mask is inverted: -100 belongs where attention_mask is 0.",
                lambda ids, mask: ids.masked_fill(mask == 1, IGNORE),
            ),
            Slip(
                "Padding is not masked: its label 0 is a real token; the loss skips -100 only.",
                lambda ids, mask: ids,
            ),
            Slip(
                "The labels were shifted here; the loss does that.",
                lambda ids, mask: torch.cat(
                    [make_labels(ids, mask)[:, 1:], torch.full((len(ids), 1), IGNORE)], 1
                ),
            ),
        ),
        hints=(
            "Labels are the input ids, with -100 where no loss is wanted.",
            "input_ids.masked_fill(where, -100) leaves the original alone.",
        ),
        panel=_labels_panel,
        picture="a grid of tokens; all real tokens count, also the end-of-text token, padding not",
    ),
    Exercise(
        key="6.2",
        right=loss,
        cases=_loss_cases,
        mistakes=(
            Slip(
                "The labels are not shifted: the logits at t predict the token at t + 1.",
                _shift_by_hand,
            ),
            Slip(
                "Shifted the wrong way: logits[:, :-1] meet labels[:, 1:].",
                lambda logits, labels: _shift_by_hand(logits[:, 1:], labels[:, :-1]),
            ),
            Slip(
                "This is the sum over tokens; take the mean.",
                lambda logits, labels: loss(logits, labels) * (labels[:, 1:] != IGNORE).sum(),
            ),
            Slip(
                "The mean runs over padding too: divide by the number of labels that count.",
                _all_places,
            ),
            Slip(
                "This is the mean of row means; every token counts the same, so divide once.",
                lambda logits, labels: _shift_by_hand(logits[:, :-1], labels[:, 1:], rows=True),
            ),
        ),
        hints=(
            "Drop the last logits and the first label, so that both have T − 1 places.",
            "torch.nn.functional.cross_entropy skips the label -100 and averages the rest.",
        ),
    ),
    Exercise(
        key="6.3",
        right=domain_order,
        cases=lambda: [domains(seed) for seed in (63, 64, 65)],
        mistakes=(
            Slip(
                "The order is backwards: ascending row sums, the smallest trained first (sign).",
                lambda *case: domain_order(*case)[::-1],
            ),
            Slip(
                "These are numbers; return the domains' names.",
                lambda *case: [list(case[0]).index(name) for name in domain_order(*case)],
            ),
            Slip(
                "This sorts by gradient norm, a baseline; the score needs curvature.",
                _baseline("gradient norm, small first"),
            ),
            Slip(
                "This sorts by gradient norm, a baseline; the score needs curvature.",
                _baseline("gradient norm, large first"),
            ),
            Slip(
                "This sorts by each domain's own loss, not by what helps the target.",
                lambda sources, target, theta, lr: sorted(
                    sources, key=lambda name: float(sources[name].loss(theta))
                ),
            ),
        ),
        also=_check_cost,
        hints=(
            "One gradient and one product with the target's gradient for each domain.",
            "Stack them, build the matrix as in 5.1, sort the row sums as in 5.2, return names.",
        ),
        panel=_domains_panel,
        picture="target losses of all 24 orders trained for real, sorted, with a star at or near "
        "the lowest",
    ),
    Exercise(
        key="6.4",
        right=batch_loss,
        cases=_part_cases,
        mistakes=(
            Slip(
                "This is the mean of the parts' means: a part with more labels must weigh more.",
                _weighted(lambda labels: 1.0),
            ),
            Slip(
                "The parts are weighted by rows, or by all places with padding; count labels.",
                _weighted(lambda labels: float(len(labels))),
            ),
            Slip(
                "The labels were counted before the shift: each row's first one takes no loss.",
                _weighted(lambda labels: float((labels != IGNORE).sum())),
            ),
            Slip(
                "This is the sum over labels: divide by their number.",
                lambda logits, labels: batch_loss(logits, labels) * _counted(torch.cat(labels)),
            ),
        ),
        hints=(
            "Multiply each part's mean with the number of labels it was taken over.",
            "After the shift these are (labels[:, 1:] != -100).sum(). Divide by their total.",
        ),
    ),
]
