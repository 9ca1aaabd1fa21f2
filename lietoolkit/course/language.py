"""What notebooks 06 to 08 share: a model, its sources and targets, training, and sample text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lietoolkit.course.settings import Settings
from lietoolkit.errors import InputError
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.order.linear_ordering import order_value
from lietoolkit.order.tournament import RANKINGS, Tournament
from lietoolkit.tasks.objective import ModelObjective
from lietoolkit.tasks.precision import StayDouble
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.training.stages import run_stage

# profile -> (model, dtype, rows of a source; of "lm" half as many, its rows are long)
PROFILES = {
    "ci": ("course", "float64", 4),
    "laptop": ("smollm2-135m", "float32", 8),
    "gpu": ("smollm2-135m", "float32", 32),
}
LONGEST = {"lm": 48, "sft": None, "dpo": None}  # tokens of a row


@dataclass(frozen=True)
class Study:
    """A model with sources to order and targets to serve.

    Attributes:
        model, tokenizer: the language model.
        theta: where it starts, [P].
        space: its parameters.
        sources: objectives to train on. targets: the same families, rows never trained on.
        rows: the targets' rows. batches: the targets' batches, by name.
    """

    model: Any
    tokenizer: Any
    theta: Tensor
    space: ParameterSpace
    sources: dict[str, ModelObjective]
    targets: dict[str, ModelObjective]
    rows: dict[str, list[dict[str, str]]]
    batches: dict[str, list[dict[str, Any]]]


def load(
    run: Settings,
    objective: str,
    sources: Sequence[str],
    targets: Sequence[str],
    model: tuple[Any, Any] | None = None,
) -> Study:
    """The profile's model with families of the objective as sources and targets.

    Profile "ci" computes in float64: one step's order effects are too small for float32.

    Args:
        run: of ``course.setup``.
        objective: "lm" (text domains), "sft" (instructions) or "dpo" (preference pairs; the
            reference is the model at the start).
        sources, targets: names of families.
        model: (model, tokenizer) in place of the profile's.

    Raises:
        InputError: an unknown objective or family.
    """
    from lietoolkit.tasks.batches import make_batches
    from lietoolkit.tasks.domains import text_domains
    from lietoolkit.tasks.generated import preference_families, sft_families
    from lietoolkit.tasks.models import load_model

    makers: dict[str, Any] = {
        "lm": text_domains, "sft": sft_families, "dpo": preference_families
    }  # fmt: skip
    if objective not in makers:
        raise InputError(f"objective: expected one of {', '.join(makers)}; found {objective!r}")
    name, dtype, count = PROFILES[run.profile]
    count = count // 2 if objective == "lm" else count
    loaded, tokenizer = model or load_model(name, device=run.device, dtype=dtype)
    space = ParameterSpace(loaded)
    kept: dict[str, Any] = {}

    def build(names: Sequence[str], split: str) -> dict[str, ModelObjective]:
        families = makers[objective](seed=run.seed, rows=count, split=split)
        made = {}
        for family in names:
            if family not in families:
                raise InputError(
                    f"{family!r}: there is no such family; there are {', '.join(families)}"
                )
            batches, _ = make_batches(
                families[family], tokenizer, objective, batch_size=count, name=family,
                max_length=LONGEST[objective], seed=run.seed,
            )  # fmt: skip
            made[family] = ModelObjective(loaded, batches, objective, space=space, name=family)
            if split == "eval":
                kept[family] = (families[family], batches)
        return made

    from_rows, from_eval = build(sources, "train"), build(targets, "eval")
    return Study(
        loaded, tokenizer, space.vector(), space, from_rows, from_eval,
        {family: rows for family, (rows, _) in kept.items()},
        {family: batches for family, (_, batches) in kept.items()},
    )  # fmt: skip


def train(study: Study, order: Sequence[str], lr: float, steps: int = 1) -> Tensor:
    """Where plain SGD ends after ``steps`` steps on each source of the order, [P]."""
    optimizer = optimizer_from("sgd")
    state = optimizer.init(study.theta)
    for name in order:
        state = run_stage(study.sources[name], state, optimizer, [lr] * steps)
    return state.theta


def predicted(matrix: Tensor, names: Sequence[str], orders: Sequence[Sequence[str]]) -> np.ndarray:
    """The predicted loss of each order, up to one constant, from a tournament's matrix."""
    table = matrix.numpy()
    return np.array([order_value(table, [names.index(n) for n in order]) for order in orders])


def rank(order: Sequence[str], orders: Sequence[Sequence[str]], losses: Sequence[float]) -> int:
    """1 for the order with the smallest loss.

    >>> rank(["b", "a"], [("a", "b"), ("b", "a")], [1.0, 0.5])
    1
    """
    own = losses[list(map(tuple, orders)).index(tuple(order))]
    return 1 + sum(float(loss) < float(own) for loss in losses)


def best_of(
    tournament: Tournament, names: Sequence[str], target: str, method: str = "exact"
) -> list[str]:
    """The planned order of some of a tournament's sources for one of its targets.

    Args:
        tournament: with named targets.
        names: two or more of its sources.
        target: one of its targets.
        method: "borda", "exact" or "search".
    """
    at = [tournament.names.index(name) for name in names]
    return [names[i] for i in RANKINGS[method](tournament.targets[target].numpy()[at][:, at])]


def complete(study: Study, theta: Tensor, prompt: str, tokens: int = 8) -> str:
    """The model's most likely continuation of a text, with its parameters at theta."""
    ids = study.tokenizer(prompt, return_tensors="pt").input_ids.to(study.space.device)
    start = ids.shape[1]
    with _at(study, theta):
        for _ in range(tokens):
            following = study.model(input_ids=ids).logits[0, -1].argmax()
            if following == study.tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, following.view(1, 1)], 1)
    return study.tokenizer.decode(ids[0, start:])


def margins(study: Study, target: str, theta: Tensor, beta: float = 0.1) -> Tensor:
    r"""DPO's margin of every row of a target, [rows]; 0 everywhere at the reference.

    :math:`\beta\,[(\log\pi_c - \log\pi_c^{ref}) - (\log\pi_r - \log\pi_r^{ref})]`, in nats,
    each term summed over the completion's tokens. Positive: the chosen answer has gained.
    """
    from lietoolkit.tasks.losses import completion_logps

    batches = [
        {key: value.to(study.space.device) for key, value in batch.items()}
        for batch in study.batches[target]
    ]

    def log_ratios(at: Tensor) -> Tensor:
        with _at(study, at):
            found = [completion_logps(study.model, batch) for batch in batches]
        return torch.cat([chosen - rejected for chosen, rejected in found])

    return beta * (log_ratios(theta) - log_ratios(study.theta))


@contextmanager
def _at(study: Study, theta: Tensor) -> Iterator[None]:
    """The model at theta, in the study's precision, without gradients."""
    precise = StayDouble() if study.space.dtype == torch.float64 else nullcontext()
    with study.space.at(theta), precise, torch.no_grad():
        yield
