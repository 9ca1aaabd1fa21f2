"""Losses of causal language models: next token, instruction tuning, preferences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

IGNORE = -100
LOSS_NAMES = ("lm", "sft", "dpo")
_COLUMNS = "label_columns"
_NOT_FOR_MODEL = {
    "labels", "completion_mask", "ref_chosen_logps", "ref_rejected_logps", _COLUMNS,
}  # fmt: skip

Batch = Mapping[str, Any]


def row_labels(batch: Batch) -> Tensor:
    """Labels of a batch, shape [rows, T], with -100 where no loss is taken.

    Taken from ``labels``; without them, the input ids of the completion (``completion_mask``) or
    of everything that is not padding (``attention_mask``).
    """
    if batch.get("labels") is not None:
        return batch["labels"]
    labels = batch["input_ids"]
    for key in ("attention_mask", "completion_mask"):
        if batch.get(key) is not None:
            labels = labels.masked_fill(batch[key] == 0, IGNORE)
    return labels


def _accepts_columns(model: Any) -> bool:
    """Whether the model can compute its logits at chosen columns only."""
    if getattr(model, "peft_config", None):
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            return False  # virtual tokens in front would shift the columns
        model = model.get_base_model()
    forward = getattr(model, "forward", model)
    return "logits_to_keep" in inspect.signature(forward).parameters


def token_losses(model: Any, batch: Batch, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-probability of each label, in nats, and the mask of the labels that count.

    Logits at position t predict the label at t + 1. Columns without any label are left out, so
    that long prompts cost no logits: both results have shape [rows, C] with C <= T - 1, and the
    losses are 0 where the mask is False. At least float32; float64 for a float64 model.
    """
    targets = labels[:, 1:]
    columns = batch.get(_COLUMNS)
    columns = _label_columns(labels) if columns is None else columns
    targets = targets[:, columns]
    inputs = {key: value for key, value in batch.items() if key not in _NOT_FOR_MODEL}
    if _accepts_columns(model):
        logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -labels.shape[1] :][:, columns]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.view(targets.shape), targets != IGNORE


def _label_columns(labels: Tensor) -> Tensor:
    """Columns whose logits predict a label of any row."""
    return (labels[:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)


def _completion_labels(batch: Batch) -> Tensor:
    return batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)


def _ready(batch: Batch, labels: Tensor) -> dict[str, Any]:
    """A batch with all that an evaluation would read back from the device to know."""
    made = {**batch, _COLUMNS: _label_columns(labels)}
    mask = batch.get("attention_mask")
    if mask is not None and mask.ndim == 2 and bool((mask[:, 1:] <= mask[:, :-1]).all()):
        # A causal model does not look at padding on the right; a mask would be looked through for
        # padding at every evaluation, and costs the faster attention kernels.
        del made["attention_mask"]
    return made


def _ready_rows(batch: Batch) -> dict[str, Any]:
    labels = row_labels(batch)
    return _ready({**batch, "labels": labels}, labels)


def _ready_pairs(batch: Batch) -> dict[str, Any]:
    return _ready(batch, _completion_labels(batch)) if "completion_mask" in batch else dict(batch)


def token_mean(model: Any, batch: Batch) -> Tensor:
    """Mean cross entropy over the label tokens of the batch, in nats: the "lm" and "sft" loss."""
    losses, mask = token_losses(model, batch, row_labels(batch))
    return losses.sum() / mask.sum().clamp(min=1)


def _label_tokens(batch: Batch) -> float:
    return float((row_labels(batch)[:, 1:] != IGNORE).sum())


def completion_logps(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities, in nats, of the chosen and the rejected completions, each [B].

    The first half of the rows holds the chosen completions, the second half the rejected ones.
    """
    rows = batch["input_ids"].shape[0]
    if "completion_mask" not in batch or rows % 2:
        found = "no completion_mask" if "completion_mask" not in batch else f"{rows} rows"
        raise InputError(
            "a DPO batch: expected input_ids with the chosen rows first and as many rejected rows "
            f"after them, and a completion_mask; found {found}. Make it with make_batches(..., "
            "'dpo') or TRL's DataCollatorForPreference."
        )
    losses, _ = token_losses(model, batch, _completion_labels(batch))
    chosen, rejected = (-losses.sum(dim=1)).chunk(2)
    return chosen, rejected


def dpo_loss(model: Any, batch: Batch, beta: float = 0.1) -> Tensor:
    """Sigmoid DPO loss: mean(-logsigmoid(beta ((pi_c - ref_c) - (pi_r - ref_r)))), in nats."""
    if "ref_chosen_logps" not in batch or "ref_rejected_logps" not in batch:
        raise InputError(
            "a DPO batch: expected ref_chosen_logps and ref_rejected_logps, found neither or one. "
            "Call add_reference_logps(reference_model, batches) first."
        )
    chosen, rejected = completion_logps(model, batch)
    margin = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
    return -F.logsigmoid(beta * margin).mean()


def _rows(batch: Batch) -> int:
    return next(len(v) for v in batch.values() if isinstance(v, Tensor) and v.ndim)


def _cut(batch: Batch, n: int) -> list[dict[str, Any]]:
    """Cut a batch into at most n parts by rows; pairs (chosen, rejected) stay together."""
    rows = _rows(batch)
    pairs = rows // 2 if "completion_mask" in batch and "labels" not in batch else 0
    units = pairs or rows

    def part(value: Any, start: int, stop: int) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        if len(value) == units:
            return value[start:stop]
        if len(value) == 2 * pairs:
            return torch.cat([value[start:stop], value[units + start : units + stop]])
        return value

    if n <= 1 or units <= 1:
        return [dict(batch)]
    size = -(-units // n)
    return [
        {key: part(value, i, min(i + size, units)) for key, value in batch.items()}
        for i in range(0, units, size)
    ]


@dataclass(frozen=True)
class Loss:
    """A loss with what exact micro-batch accumulation needs.

    ``loss(model, batch)`` is a scalar tensor, ``weight(batch)`` a float, ``split(batch, n)`` a list
    of at most n batches, with

        loss(model, batch) = sum_i weight(part_i) loss(model, part_i) / sum_i weight(part_i).

    The weight is the number of label tokens after the shift for "lm" and "sft", the number of pairs
    for "dpo", the number of rows for a callable. ``ready(batch)`` is what ``loss`` may be given in
    its place, evaluation after evaluation: the same loss, with nothing left to look up.
    """

    name: str
    loss: Callable[[Any, Batch], Tensor] = field(repr=False)
    weight: Callable[[Batch], float] = field(repr=False)
    split: Callable[[Batch, int], list[dict[str, Any]]] = field(default=_cut, repr=False)
    ready: Callable[[Batch], dict[str, Any]] = field(default=dict, repr=False)


def loss_function(loss: str | Callable[[Any, Batch], Tensor] | Loss, *, beta: float = 0.1) -> Loss:
    """The loss of that name, or a callable (model, batch) -> scalar wrapped as one.

    - "lm", "sft": mean cross entropy over the batch's label tokens, shifted by one, in nats. The
      two differ in their labels only (``make_batches``): all tokens, or the completion's.
    - "dpo": sigmoid DPO, mean(-logsigmoid(beta ((pi_c - ref_c) - (pi_r - ref_r)))) in nats, each
      term a sum of log-probabilities over completion tokens. Needs ``add_reference_logps``.

    Equal to what TRL's SFTTrainer and DPOTrainer compute on the same batch (Sweeney 2026 uses both,
    DPO with beta = 0.1). Every loss can be differentiated twice where the model can.

    Raises:
        InputError: unknown name, or beta not positive.

    >>> loss_function("sft").weight({"input_ids": torch.tensor([[5, 6, 7]]),
    ...                              "labels": torch.tensor([[-100, 6, 7]])})
    2.0
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        return Loss(name, loss, lambda batch: float(_rows(batch)))
    if loss in ("lm", "sft"):
        return Loss(loss, token_mean, _label_tokens, ready=_ready_rows)
    if loss == "dpo":
        if not 0 < beta < float("inf"):
            raise InputError(f"beta: expected a positive number, found {beta!r}.")
        return Loss(
            loss,
            lambda model, batch: dpo_loss(model, batch, beta),
            lambda batch: _rows(batch) / 2,
            ready=_ready_pairs,
        )
    raise InputError(
        f"loss: expected one of {', '.join(map(repr, LOSS_NAMES))} or a function "
        f"(model, batch) -> scalar, found {loss!r}."
    )


def add_reference_logps(model: Any, batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """Copies of DPO batches that carry the reference's log-probabilities, each of shape [B], nats.

    Adds ``ref_chosen_logps`` and ``ref_rejected_logps``, computed once, without gradient and with
    dropout off, so that the reference never sees perturbed parameters. Batches that already carry
    both (TRL's precompute_ref_log_probs) keep them. The model's train or eval mode is restored.

    Raises:
        InputError: a batch that is not laid out for DPO.
    """
    with in_eval_mode(model), torch.no_grad():
        return [_with_reference(model, batch) for batch in batches]


@contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    """The model in evaluation mode (no dropout); every module's own mode is restored after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _with_reference(model: Any, batch: Batch) -> dict[str, Any]:
    if "ref_chosen_logps" in batch and "ref_rejected_logps" in batch:
        return dict(batch)
    chosen, rejected = completion_logps(model, batch)
    return {**batch, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
