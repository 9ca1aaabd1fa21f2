"""What a trainer of TRL or transformers knows of its data: rows, batches and loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lietoolkit.errors import InputError
from lietoolkit.tasks.batches import SourceReport, whole_number
from lietoolkit.tasks.losses import (
    IGNORE,
    Loss,
    add_reference_logps,
    in_eval_mode,
    loss_function,
    row_labels,
)
from lietoolkit.tasks.sources import load_rows

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainerData:
    """Data as a trainer would train on them.

    Attributes:
        trainer: an ``SFTTrainer``, ``DPOTrainer`` or ``transformers.Trainer``.
        objective: "sft" or "dpo": what rows the trainer takes.
        loss: the trainer's loss; one the package knows, else the trainer's own function.
        batch_rows: rows of one optimizer step, over all devices and accumulated micro-batches.
        rows: by name, prepared as the trainer prepares its training set, shuffled once.
        reports: what became of each source, filled in as objectives are made.
        notes: what the user should know, in plain sentences.
    """

    trainer: Any
    objective: str
    loss: Loss
    batch_rows: int
    rows: dict[str, Dataset] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def microbatch(self) -> int:
        """Rows (pairs for "dpo") that fit into one forward pass."""
        return self.trainer.args.per_device_train_batch_size

    def add(self, name: str, data: Any) -> None:
        """Prepare rows and keep them under a name.

        Args:
            name: of the source or target.
            data: a ``datasets.Dataset`` as the trainer takes it; for TRL's trainers also whatever
                ``load_rows`` reads.

        Raises:
            InputError: not rows that this trainer can train on.
        """
        given = _dataset(data, self.objective, name, _is_trl(self.trainer))
        with _no_bars():
            rows = _prepared(self.trainer, given, name)
        if not len(rows):
            raise InputError(
                f"source {name!r}: expected at least one row that the trainer keeps; found none of "
                f"{len(given)}: all are too long or have no label token. Raise max_length."
            )
        seed = self.trainer.args.data_seed
        self.rows[name] = rows.shuffle(self.trainer.args.seed if seed is None else seed)

    def indices(self, name: str, steps: int) -> list[int]:
        """Which rows ``steps`` optimizer steps read; a source with too few begins again."""
        return [i % len(self.rows[name]) for i in range(steps * self.batch_rows)]

    def batches(self, name: str, steps: int, again: bool = True) -> list[dict[str, Any]]:
        """What the first ``steps`` steps on a source read, through the trainer's own collator.

        ``again=False``: rows are read once, so that the last batch may hold fewer; for targets.
        """
        size, total = self.batch_rows, len(self.rows[name])
        indices = self.indices(name, steps) if again else range(min(steps * size, total))
        chosen = self.rows[name].select(indices)
        rows = [chosen[i] for i in range(len(chosen))]
        collate = self.trainer.data_collator
        made = [dict(collate(rows[i : i + size])) for i in range(0, len(rows), size)]
        if self.loss.name != "dpo":
            return made
        with _reference(self.trainer) as reference:
            return add_reference_logps(reference, [_on(batch, reference) for batch in made])

    def report(self, name: str, batches: Sequence[Mapping[str, Any]]) -> SourceReport:
        """Rows, batches and tokens of a source, for tables."""
        used = min(len(batches) * self.batch_rows, len(self.rows[name]))
        ids = sum(int(b.get("attention_mask", torch.ones_like(b["input_ids"])).sum())
                  for b in batches)  # fmt: skip
        masks = [b["completion_mask"] if "labels" not in b and "completion_mask" in b
                 else row_labels(b) != IGNORE for b in batches]  # fmt: skip
        labels = sum(int(mask[:, 1:].sum()) for mask in masks)
        return SourceReport(name, None, len(self.rows[name]), used, len(batches), ids, labels, 0, 0)


def read_trainer(trainer: Any) -> TrainerData:
    """What a trainer says about its data and loss; the data themselves are added by name.

    >>> read_trainer(object())
    Traceback (most recent call last):
    ...
    lietoolkit.errors.InputError: trainer: expected an SFTTrainer, a DPOTrainer or a transformers.\
Trainer, found object; give one of these
    """
    if not all(hasattr(trainer, name) for name in ("args", "model", "data_collator")):
        raise InputError(
            "trainer: expected an SFTTrainer, a DPOTrainer or a transformers.Trainer, found "
            f"{type(trainer).__name__}; give one of these"
        )
    args, notes = trainer.args, []
    objective = "dpo" if _is_trl(trainer, "DPOTrainer") else "sft"
    if not _is_trl(trainer) and trainer.data_collator is None:
        raise InputError("trainer: expected a data collator, found None; give data_collator=")
    loss = _known_loss(trainer, objective)
    if loss is None:
        loss = Loss("trainer", _own_loss(trainer), lambda batch: float(len(batch["input_ids"])))
        notes.append("the loss is the trainer's own function; parts of a batch weigh by their rows")
    if args.bf16 or args.fp16:
        half = "bf16" if args.bf16 else "fp16"
        notes.append(f"the trainer computes in {half}; the plan was computed in float32")
    if _drops_out(trainer.model) and not getattr(args, "disable_dropout", False):
        notes.append("the trainer trains with dropout; the plan was computed without")
    if getattr(trainer.model, "quantization_method", None):
        raise InputError(
            "trainer: expected a model with weights that can be differentiated twice, found a "
            "quantised one; plan with the unquantised model"
        )
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        whole_number(name, getattr(args, name), 1)
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return TrainerData(trainer, objective, loss, rows, notes=notes)


def ordered_dataset(data: TrainerData, order: Sequence[str], lengths: Mapping[str, int]) -> Dataset:
    """The sources one after the other, each with the rows of its steps, as one ``Dataset``.

    Args:
        data: with all sources added.
        order: names, trained-first first.
        lengths: steps of each stage.

    Returns:
        Rows ready for the trainer, ``batch_rows`` to a step; a column ``source`` names the stage,
        where the trainer drops columns that it does not need (its default).
    """
    from datasets import concatenate_datasets

    stages = []
    for name in order:
        indices = data.indices(name, lengths[name])
        stage = data.rows[name].select(indices)
        if data.trainer.args.remove_unused_columns:
            stage = stage.add_column("source", [name] * len(stage))
        stages.append(stage)
    return concatenate_datasets(stages)


def _drops_out(model: nn.Module) -> bool:
    return any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())


# --- rows ---------------------------------------------------------------------------------------


def _is_trl(trainer: Any, *names: str) -> bool:
    """Whether the trainer is (a kind of) one of TRL's SFT and DPO trainers."""
    kinds = {kind.__name__ for kind in type(trainer).__mro__ if kind.__module__.startswith("trl.")}
    return bool(kinds & set(names or ("SFTTrainer", "DPOTrainer")))


def _dataset(data: Any, objective: str, name: str, trl: bool) -> Dataset:
    from datasets import Dataset

    if isinstance(data, Dataset):
        return data
    if not trl:
        raise InputError(
            f"source {name!r}: expected a datasets.Dataset that the trainer's collator takes, "
            f"found {type(data).__name__}; tokenise it first, or use TRL's SFTTrainer"
        )
    return Dataset.from_list(list(load_rows(data, objective, name=name)))


@contextmanager
def _no_bars() -> Iterator[None]:
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            enable_progress_bars()


def _prepared(trainer: Any, dataset: Dataset, name: str) -> Dataset:
    """Rows as the trainer's loader would see them: tokenised by TRL, without unused columns."""
    args = trainer.args
    ready = "prompt_ids" in dataset.column_names or getattr(trainer, "_skip_prepare_dataset", False)
    if _is_trl(trainer) and not ready:
        offered = {
            "dataset": dataset,
            "processing_class": trainer.processing_class,
            "args": args,
            "packing": getattr(args, "packing", False),
            "formatting_func": getattr(trainer, "_formatting_func", None),
            "dataset_name": name,
        }
        wanted = inspect.signature(trainer._prepare_dataset).parameters
        dataset = trainer._prepare_dataset(**{key: offered[key] for key in wanted})
    if getattr(args, "precompute_ref_log_probs", False):
        size = args.precompute_ref_batch_size or args.per_device_train_batch_size
        dataset = trainer._precompute_ref_logps(dataset, name, size)
    return trainer._remove_unused_columns(dataset, name)


# --- loss ---------------------------------------------------------------------------------------


def _known_loss(trainer: Any, objective: str) -> Loss | None:
    """The package's loss that equals the trainer's, if one does."""
    from transformers import Trainer

    args, kind = trainer.args, type(trainer)
    plain = args.label_smoothing_factor == 0 and getattr(trainer, "compute_loss_func", None) is None
    if objective == "dpo":
        kinds = [args.loss_type] if isinstance(args.loss_type, str) else list(args.loss_type)
        plain = (
            plain
            and kinds == ["sigmoid"]
            and args.loss_weights in (None, [1.0])
            and not args.label_smoothing
            and args.ld_alpha is None
            and not args.use_weighting
            and getattr(args, "f_divergence_type", "reverse_kl") in ("reverse_kl", None)
        )
        return loss_function("dpo", beta=args.beta) if plain and _owns_loss(kind, "trl.") else None
    if _is_trl(trainer):
        plain = plain and args.loss_type == "nll" and not getattr(trainer, "aux_loss_enabled", 0)
        return loss_function("sft") if plain and _owns_loss(kind, "trl.") else None
    config = getattr(trainer.model, "config", None)
    causal = hasattr(trainer.model, "generate") and not getattr(config, "is_encoder_decoder", False)
    unchanged = kind.compute_loss is Trainer.compute_loss
    return loss_function("sft") if plain and causal and unchanged else None


def _owns_loss(kind: type, package: str) -> bool:
    owner = next(k for k in kind.__mro__ if "compute_loss" in k.__dict__)
    return owner.__module__.startswith(package)


def _own_loss(trainer: Any) -> Callable[[Any, Any], Tensor]:
    """The trainer's function; the metrics that it counts along the way are put back."""

    def loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        metrics = getattr(trainer, "_metrics", {})
        kept = {mode: {k: list(v) for k, v in m.items()} for mode, m in metrics.items()}
        try:
            value = trainer.compute_loss(model, dict(batch))
        finally:
            for mode, values in kept.items():
                metrics[mode].clear()
                metrics[mode].update(values)
        return value

    return loss


@contextmanager
def _reference(trainer: Any) -> Iterator[nn.Module]:
    """DPO's reference model; with adapters, the model without them (or its "ref" adapter)."""
    model = trainer.model
    if trainer.ref_model is not None:
        yield trainer.ref_model
    elif not hasattr(model, "peft_config"):
        yield model  # log-probabilities are in the batches already
    elif "ref" in model.peft_config:
        active = model.active_adapter
        model.set_adapter("ref")
        try:
            yield model
        finally:
            model.set_adapter(active)
    else:
        with in_eval_mode(model), model.disable_adapter():
            yield model


def _on(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
