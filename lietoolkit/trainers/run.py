"""A whole run: model, TRL trainer, plan, training in that order, and going on after a stop."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from lietoolkit.errors import InputError, memory_errors
from lietoolkit.order_plan import OrderPlan, ranking, read_plan
from lietoolkit.plan_arguments import two_or_more
from lietoolkit.planning import plan_order, recall_plan
from lietoolkit.tasks.formats import FORMATS
from lietoolkit.tasks.losses import in_eval_mode
from lietoolkit.trainers.callback import follow_plan
from lietoolkit.training.schedules import check_run

DEFAULT_STEPS = 20
OPTIMIZERS = {
    "adamw": ["adamw_torch"], "sgd": ["sgd"], "momentum": ["sgd", "--optim_args", "momentum=0.9"],
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What ``lietoolkit train`` was asked for; names as in ``plan_order``.

    ``others`` are options of TRL's configurations, as on its command line; they win.
    """

    model: str = "course"
    objective: str = "sft"
    lr: float | None = None
    steps: int | None = None
    optimizer: str = "adamw"
    planner: str = "auto"
    budget: float = 4.0
    replan: str | int = "never"
    schedule: str = "constant"
    warmup: int = 0
    batch_size: int = 8
    batches: int = 1
    max_length: int | None = None
    device: str = "auto"
    seed: int = 0
    trust_remote_code: bool = False
    split: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    weights: dict[str, float] | None = None
    others: tuple[str, ...] = ()


def train_in_order(
    settings: Settings,
    sources: Mapping[str, Any],
    target: Any,
    out: Path,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Plan an order and train in it; a run that was stopped goes on from its last checkpoint.

    Args:
        settings: of model, planning and training.
        sources, target: as ``plan_order`` takes them.
        out: folder of ``plan.json``, ``train.json``, checkpoints and the trained model.
        tell: is shown the plan, as text, before training.

    Returns:
        ``order``; ``start`` and ``final``, the loss of each target before and after; ``steps``.

    Raises:
        InputError: anything that cannot be used; a folder that holds another run.
    """
    two_or_more(sources)
    targets = dict(target) if isinstance(target, Mapping) else {"target": target}
    with memory_errors():
        data = {name: _rows(rows, settings.objective, name) for name, rows in sources.items()}
        aims = {name: _rows(rows, settings.objective, name) for name, rows in targets.items()}
        record = {"key": _key(settings, data, aims)}
        _same_run(out, record["key"])
        _write(out / "train.json", record)
        trainer = build_trainer(settings, data, out)
        plan = _plan(settings, trainer, data, aims, out)
        tell(ranking(plan))
        follow_plan(trainer, plan, replan=settings.replan)
        start = _losses(plan)
        trainer.train(resume_from_checkpoint=last_checkpoint(out))
    done = {
        "order": list(_callback(trainer).order),
        "steps": trainer.state.global_step,
        "start": start,
        "final": _losses(plan),
        "log": [row for row in trainer.state.log_history if any("order/" in key for key in row)],
    }
    trainer.save_model(str(out))
    _write(out / "train.json", record | done)
    return done


def build_trainer(settings: Settings, data: Mapping[str, Any], out: Path) -> Any:
    """TRL's trainer for these settings; its data are the first source's until it follows a plan.

    Raises:
        InputError: TRL is not installed; settings or sources that it cannot train with.
    """
    try:
        from trl import DPOConfig, DPOTrainer, ModelConfig, SFTConfig, SFTTrainer, get_peft_config
    except ImportError as error:
        raise InputError(
            f"train: expected TRL, found none ({error}); pip install 'lietoolkit[train]'"
        ) from error
    from lietoolkit.tasks.models import load_model, resolve_device

    device = resolve_device(settings.device)
    dpo = settings.objective == "dpo"
    args, model_args = _parsed(
        (DPOConfig if dpo else SFTConfig, ModelConfig),
        [*_options(settings, len(data), device.type == "cpu", out), *settings.others],
    )
    _check_formats(data, settings.objective)
    model, tokenizer = load_model(
        settings.model, device=device, trust_remote_code=settings.trust_remote_code
    )
    return (DPOTrainer if dpo else SFTTrainer)(
        model,
        args=args,
        train_dataset=next(iter(data.values())),
        processing_class=tokenizer,
        peft_config=get_peft_config(model_args),
    )


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    for folder in sorted(out.glob("checkpoint-*"), key=_number, reverse=True):
        try:
            # The trainer writes this file last.
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def _number(folder: Path) -> int:
    tail = folder.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def _rows(data: Any, objective: str, name: str) -> Any:
    from datasets import Dataset

    from lietoolkit.tasks.sources import load_rows

    if isinstance(data, Dataset):
        return data
    return Dataset.from_list(list(load_rows(data, objective, name=name)))


def _check_formats(data: Mapping[str, Any], objective: str) -> None:
    """Refuse several formats: by the first row, TRL masks the prompts of all rows or of none."""
    if objective not in FORMATS:
        raise InputError(f"objective: expected one of {', '.join(FORMATS)}; found {objective!r}")
    fields = dict.fromkeys(itertools.chain(*FORMATS[objective]))
    found = {name: [f for f in fields if f in rows.column_names] for name, rows in data.items()}
    first = next(iter(found))
    for name, own in found.items():
        if own != found[first]:
            raise InputError(
                f"source {name!r}: expected {', '.join(found[first])} as in source {first!r}, "
                f"found {', '.join(own)}; bring all sources into one format"
            )


def _options(settings: Settings, sources: int, cpu: bool, out: Path) -> list[str]:
    """Ours as TRL's options; what follows them on the command line wins."""
    given: dict[str, Any] = {
        "output_dir": out,
        "per_device_train_batch_size": settings.batch_size,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "seed": settings.seed,
        "report_to": "none",
        "save_total_limit": 2,
        "use_cpu": cpu,
        "bf16": not cpu,
    }
    if settings.lr is not None:
        given["learning_rate"] = settings.lr
    if settings.max_length is not None:
        given["max_length"] = settings.max_length
    theirs = {text.split("=")[0].lstrip("-").replace("-", "_") for text in settings.others}
    if settings.steps is not None or not theirs & {"num_train_epochs", "max_steps"}:
        steps = DEFAULT_STEPS if settings.steps is None else settings.steps
        check_run(1.0, steps)
        given |= {"max_steps": steps * sources, "save_steps": steps}
    optim = OPTIMIZERS.get(settings.optimizer)
    if optim is None:
        raise InputError(
            f"optimizer: expected one of {', '.join(OPTIMIZERS)}; found {settings.optimizer!r}"
        )
    return [*(f"--{key}={value}" for key, value in given.items()), "--optim", *optim]


def _parsed(kinds: tuple[Any, ...], options: list[str]) -> Any:
    from transformers import HfArgumentParser

    parser = HfArgumentParser(kinds, allow_abbrev=False)

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{message}; options are those of lietoolkit train and of TRL")

    parser.error = refuse  # type: ignore[method-assign, assignment]
    try:
        *found, unknown = parser.parse_args_into_dataclasses(
            options, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError) as error:  # what the configurations themselves refuse
        refuse(str(error))
    if unknown:
        raise InputError(
            f"{unknown[0]}: expected an option of lietoolkit train or of TRL's "
            f"{kinds[0].__name__} and ModelConfig, found none of that name; see --help"
        )
    return found


def _plan(
    settings: Settings, trainer: Any, data: Mapping[str, Any], aims: Mapping[str, Any], out: Path
) -> OrderPlan:
    """The plan kept in the folder, else a new one."""
    if (out / "plan.json").exists():
        return recall_plan(read_plan(out), trainer, data, aims, settings.batches, settings.split)
    plan = plan_order(
        trainer=trainer, sources=data, target=aims, planner=settings.planner,
        budget=settings.budget, weights=settings.weights, constraints=settings.constraints,
        split=settings.split, batches=settings.batches, seed=settings.seed, folder=out / "tried",
        progress=True,
    )  # fmt: skip
    plan.save(out)
    return plan


def _losses(plan: OrderPlan) -> dict[str, float]:
    """Loss of each target with the model as it is now."""
    made = plan.material
    assert made is not None
    with in_eval_mode(plan.trainer_material()[0].trainer.model):
        return {
            name: float(aim.loss(aim.space.vector()))  # type: ignore[attr-defined]
            for name, aim in made.targets.items()
        }


def _callback(trainer: Any) -> Any:
    from lietoolkit.trainers.callback import OrderCallback

    return next(c for c in trainer.callback_handler.callbacks if isinstance(c, OrderCallback))


def _key(settings: Settings, data: Mapping[str, Any], aims: Mapping[str, Any]) -> str:
    """A digest of all that decides the outcome."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for kind, sets in (("source", data), ("target", aims)):
        for name, rows in sets.items():
            digest.update(f"{kind} {name}".encode())
            for row in rows:
                digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _same_run(out: Path, key: str) -> None:
    try:
        found = json.loads((out / "train.json").read_text(encoding="utf-8"))["key"]
    except FileNotFoundError:
        if last_checkpoint(out) is None and not (out / "plan.json").exists():
            return
        found = None
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != key:
        raise InputError(
            f"--out: expected an empty folder or this very run, found another run or plan in {out}"
            " (other settings or data); choose another folder"
        )


def _write(path: Path, record: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
