"""``lietoolkit train``: plan, then train with TRL in that order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lietoolkit import shared_options as shared

# Options that this command does not know are TRL's.
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
_OTHERS = "lietoolkit.others"


def _read_config(context: typer.Context, file: Path | None) -> Path | None:
    """A YAML file's values as defaults; those this command does not know are kept for TRL."""
    if file is None:
        return None
    values = _yaml(file)
    names = {
        option.lstrip("-").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for option in parameter.opts
    }
    several = {p.name for p in context.command.params if getattr(p, "multiple", False)}
    known, others = {}, []
    for key, value in values.items():
        if key not in names:
            parts = value if isinstance(value, list) else [value]
            # TRL reads mappings as JSON.
            texts = [json.dumps(x) if isinstance(x, Mapping) else str(x) for x in parts]
            others += [f"--{key}", *texts]
            continue
        name = names[key]
        if name in several and isinstance(value, Mapping):
            value = [f"{left}={right}" for left, right in value.items()]
        elif name in several and isinstance(value, str):
            value = [value]
        known[name] = value
    context.default_map = {**(context.default_map or {}), **known}
    context.meta[_OTHERS] = others
    return file


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    from lietoolkit.errors import InputError

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"--config {file}: expected a YAML file of option names and values, found "
            f"{' '.join(str(error).split())}; correct it"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"--config {file}: expected option names with values, found {type(values).__name__}; "
            "write one 'name: value' a line"
        )
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def train(
    context: typer.Context,
    model: Annotated[
        str, typer.Option("--model", "--model_name_or_path", help=shared.MODEL)
    ] = "course",
    objective: shared.Objective = "sft",
    source: Annotated[list[str] | None, typer.Option(help="NAME=FILE, once per source")] = None,
    sources: shared.Sources = None,
    target: shared.Targets = None,
    split: shared.Split = None,
    constraint: shared.Constraints = None,
    lr: Annotated[
        float | None, typer.Option("--lr", "--learning_rate", help="step size; default: TRL's")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="steps per source; default 20, or as num_train_epochs or max_steps say"),
    ] = None,
    optimizer: shared.OptimizerName = "adamw",
    planner: shared.Planner = "auto",
    budget: shared.Budget = 4.0,
    replan: Annotated[str, typer.Option(help="never, stage, or a number of steps")] = "never",
    schedule: Annotated[
        str, typer.Option("--schedule", "--lr_scheduler_type", help=shared.SCHEDULE)
    ] = "constant",
    warmup: Annotated[
        int, typer.Option("--warmup", "--warmup_steps", help="steps of linear increase")
    ] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--per_device_train_batch_size", help=shared.BATCH_SIZE)
    ] = 8,
    batches: Annotated[int, typer.Option(help="batches read of each source for planning")] = 1,
    max_length: Annotated[
        int | None, typer.Option("--max-length", "--max_length", help=shared.MAX_LENGTH)
    ] = None,
    device: shared.Device = "auto",
    seed: Annotated[int, typer.Option(help="of rows, adapters and dropout")] = 0,
    out: Annotated[
        Path, typer.Option("--out", "--output_dir", help="plan.json, checkpoints and the model")
    ] = Path("out"),
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", "--trust_remote_code", help=shared.TRUST_REMOTE_CODE),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of options; the command line wins",
            is_eager=True,
            callback=_read_config,
        ),
    ] = None,
) -> None:
    """Plan an order, then train in it with TRL; stopped, the same command goes on.

    Any option of TRL's SFTConfig or DPOConfig and ModelConfig may follow, as TRL names it:
    --gradient_accumulation_steps 4 --use_peft --lora_r 8 --report_to tensorboard.
    """
    from lietoolkit.tasks.options import read_sources, read_targets, writable
    from lietoolkit.trainers.run import Settings, train_in_order

    writable(out)
    data = read_sources(source or [], sources, objective, seed)
    aims, weights = read_targets(target or [], data, objective, seed)
    settings = Settings(
        model=model, objective=objective, lr=lr, steps=steps, optimizer=optimizer, planner=planner,
        budget=budget, replan=int(replan) if replan.isdigit() else replan, schedule=schedule,
        warmup=warmup, batch_size=batch_size, batches=batches, max_length=max_length,
        device=device, seed=seed, trust_remote_code=trust_remote_code,
        split=tuple(split or ()), constraints=tuple(constraint or ()), weights=weights,
        others=(*context.meta.get(_OTHERS, ()), *context.args),
    )  # fmt: skip
    done = train_in_order(settings, data, aims, out, typer.echo)
    typer.echo(f"Trained in this order: {' -> '.join(done['order'])}")
    for name, loss in done["final"].items():
        typer.echo(f"Loss of {name}: {done['start'][name]:.4f} before, {loss:.4f} after")
    typer.echo(f"Wrote the model, plan.json and train.json into {out}")
