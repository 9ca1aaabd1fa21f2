"""How a trainer of TRL or transformers trains: stages, step sizes and optimizer, as the package's.

With these, ``run_schedules`` repeats the trainer's run: same updates, clipping included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.tasks.losses import in_eval_mode
from lietoolkit.tasks.objective import ModelObjective
from lietoolkit.tasks.parts import PARTS, part_name, steps_in_parts
from lietoolkit.tasks.trainer import TrainerData, read_trainer
from lietoolkit.training.optimizers import (
    SGD,
    AdamW,
    Clipped,
    Momentum,
    Optimizer,
    TrainingState,
)
from lietoolkit.training.schedules import SCHEDULES
from lietoolkit.training.stages import shares

# Of each optimizer its vectors' names in torch, in the order of ``TrainingState.buffers``.
BUFFERS = {"sgd": (), "momentum": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}


@dataclass(frozen=True)
class TrainerRun:
    """What a trainer's arguments say about a run over all sources.

    Attributes:
        lr: highest step size. lengths: steps of each source's stage.
        optimizer: with the trainer's clipping. schedule, warmup: over the whole run.
        notes: where the plan's run differs from the trainer's.
    """

    lr: float
    lengths: dict[str, int]
    optimizer: Optimizer
    schedule: str
    warmup: int
    notes: list[str]

    @property
    def steps(self) -> int:
        """Steps of a stage, the mean where they differ."""
        return max(1, round(sum(self.lengths.values()) / len(self.lengths)))


def read_run(data: TrainerData, names: list[str], split: Sequence[str] = ()) -> TrainerRun:
    """Stages, step sizes and optimizer out of a trainer's arguments.

    Every source is trained on for ``num_train_epochs`` passes, its last step filled up from its
    beginning; with ``max_steps`` these steps are shared out evenly instead.

    Args:
        data: with every source added.
        names: the sources.
        split: those that are there as two halves, which take the steps of one source together.

    Raises:
        InputError: fewer steps than sources.
    """
    args = data.trainer.args
    notes: list[str] = []
    lengths = _lengths(data, names, split, notes)
    total = sum(lengths.values())
    optimizer, lr = _optimizer(data.trainer, notes)
    if args.max_grad_norm:
        optimizer = Clipped(optimizer, float(args.max_grad_norm))
        if optimizer.name != "adamw":
            notes.append(
                f"the trainer clips gradients at norm {args.max_grad_norm:g}: rehearsals do, too, "
                "the local score does not"
            )
    kind = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    schedule = "constant" if kind.startswith("constant") else kind
    if schedule not in SCHEDULES:
        notes.append(f"the trainer's schedule {kind!r} was planned as 'linear'")
        schedule = "linear"
    own = not getattr(data.trainer, "_created_lr_scheduler", True)
    if own and data.trainer.lr_scheduler is not None:
        notes.append(f"the trainer's own schedule object was planned as {schedule!r}")
    warmup = 0 if kind == "constant" else int(args.get_warmup_steps(total))
    return TrainerRun(lr, lengths, optimizer, schedule, warmup, notes)


def read_objectives(
    trainer: Any,
    sources: Mapping[str, Any],
    target: Any,
    batches: int = 1,
    parameters: str | Sequence[str] | None = None,
    split: Sequence[str] = (),
) -> tuple[TrainerData, TrainerRun, dict[str, Objective], dict[str, Objective]]:
    """Sources and targets of a trainer as objectives, and the run it would make of them.

    Args:
        trainer: an ``SFTTrainer``, ``DPOTrainer`` or ``transformers.Trainer``.
        sources: name -> rows. target: rows, or several as {name: rows}.
        batches: how many of each stage's batches an objective reads, the first ones.
        parameters: patterns of parameter names; default all that the trainer trains.
        split: sources that are given as two halves, see ``in_parts``.

    Returns:
        The trainer's data and run, and the objectives of sources and targets by name.

    Raises:
        InputError: rows, a trainer or arguments that cannot be used.
    """
    data = read_trainer(trainer)
    targets = dict(target) if isinstance(target, Mapping) else {"target": target}
    for name, rows in (*sources.items(), *((f"target {n}", r) for n, r in targets.items())):
        data.add(name, rows)
    run = read_run(data, list(sources), split)
    # Objectives of one source all read as many batches as the shortest stage has.
    taken = min(batches, *run.lengths.values())
    space = ParameterSpace(trainer.model, parameters)
    if space.shards is not None:
        raise InputError(
            "trainer: expected a model that is whole in each process, found one that fully_shard "
            "has sharded; give the model itself instead of trainer=, or plan before it is sharded"
        )

    def objective(name: str, label: str, steps: int, again: bool) -> Objective:
        made = data.batches(name, steps, again)
        data.reports.setdefault(label, data.report(name, made).to_dict())
        smaller = data.microbatch < data.batch_rows
        return ModelObjective(
            trainer.model, made, data.loss, space=space, name=label,
            microbatch=data.microbatch if smaller else None,
        )  # fmt: skip

    with in_eval_mode(trainer.model):
        made = {name: objective(name, name, taken, True) for name in sources}
        aims = {name: objective(f"target {name}", name, batches, False) for name in targets}
    return data, run, made, aims


def live_state(space: ParameterSpace, optimizer: Any, rule: Optimizer) -> TrainingState:
    """A torch optimizer's buffers as one ``TrainingState`` at the model's parameters now.

    Args:
        space: of the parameters. optimizer: torch's, that trains them.
        rule: the package's optimizer that goes on in its place. Where torch's keeps other buffers,
            and before its first step, the state is a fresh one of the rule's.

    A parameter that has not been stepped counts with zeros.

    >>> from lietoolkit.training.optimizers import AdamW
    >>> model = torch.nn.Linear(2, 1)
    >>> adamw = torch.optim.AdamW(model.parameters())
    >>> _ = model(torch.ones(2)).backward(), adamw.step()
    >>> live_state(ParameterSpace(model), adamw, AdamW()).step
    1
    """
    states: Mapping[Any, Mapping[str, Any]] = optimizer.state
    found = [states.get(p, {}) for p in space.tensors]
    names = BUFFERS.get(rule.name, ())
    if not any(all(name in state for name in names) for state in found):
        return rule.init(space.vector())
    buffers = tuple(
        space.flatten([
            state[name] if state.get(name) is not None else torch.zeros_like(p)
            for state, p in zip(found, space.tensors, strict=True)
        ])
        for name in names
    )  # fmt: skip
    step = max(int(state.get("step", 0)) for state in found)
    return TrainingState(space.vector(), buffers, step)


def _lengths(
    data: TrainerData, names: list[str], split: Sequence[str], notes: list[str]
) -> dict[str, int]:
    args = data.trainer.args
    if args.max_steps > 0:
        whole_of = {part_name(name, part): name for name in split for part in PARTS}
        wholes = list(dict.fromkeys(whole_of.get(name, name) for name in names))
        if args.max_steps < len(wholes):
            raise InputError(
                f"max_steps: expected at least one step for each of {len(wholes)} sources, found "
                f"{args.max_steps}; raise it in the trainer's arguments"
            )
        stages = zip(wholes, shares(args.max_steps, len(wholes)), strict=True)
        found = steps_in_parts(split, 1, {name: len(stage) for name, stage in stages})
        return {name: found[name] for name in names}
    lengths = {}
    for name in names:
        rows = args.num_train_epochs * len(data.rows[name])
        lengths[name] = max(1, int(-(-rows // data.batch_rows)))
        twice = lengths[name] * data.batch_rows - round(rows)
        if twice:
            notes.append(f"{name}: its last step is filled up with {twice} of its first rows")
    return lengths


def _optimizer(trainer: Any, notes: list[str]) -> tuple[Optimizer, float]:
    """The package's optimizer that updates as the trainer's does, and the highest step size."""
    kind, groups = _kind_and_groups(trainer)
    first = groups[0]
    decay = max(group.get("weight_decay", 0.0) for group in groups)
    optimizer: Optimizer
    if issubclass(kind, torch.optim.SGD):
        momentum = first.get("momentum", 0.0)
        optimizer = Momentum(momentum) if momentum else SGD()
        if decay:
            notes.append(f"SGD's weight decay of {decay:g} is not in the plan")
    else:
        adam = first if issubclass(kind, torch.optim.AdamW) else {}
        beta1, beta2 = adam.get("betas", (AdamW.beta1, AdamW.beta2))
        optimizer = AdamW(beta1, beta2, adam.get("eps", AdamW.eps), decay)
        if not adam:
            notes.append(f"the trainer's optimizer {kind.__name__} was planned as AdamW")
        if decay:
            notes.append(
                "the plan decays every parameter; the trainer leaves out biases and norm weights"
            )
    for name in ("nesterov", "dampening", "amsgrad", "maximize"):
        if first.get(name):
            notes.append(f"{name} of the trainer's optimizer is not in the plan")
    # A schedule that has run before keeps its highest step size as "initial_lr"; Adafactor may
    # have none.
    sizes = (group.get("initial_lr", group.get("lr")) for group in groups)
    return optimizer, max(float(lr or trainer.args.learning_rate) for lr in sizes)


def _kind_and_groups(trainer: Any) -> tuple[type, list[Mapping[str, Any]]]:
    """The class and the parameter groups' settings of the optimizer that trains."""
    # Training leaves the optimizer wrapped by accelerate.
    made = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    if made is not None:
        return type(made), made.param_groups
    kind, settings = trainer.optimizer_cls_and_kwargs or trainer.get_optimizer_cls_and_kwargs(
        trainer.args, trainer.model
    )
    return kind, [{**settings, "weight_decay": trainer.args.weight_decay}]
