"""The command line: ``lietoolkit plan | train | report | models | doctor | course``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lietoolkit import shared_options as shared
from lietoolkit.course.cli import app as course_app
from lietoolkit.environment import keep_freed_memory
from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.tasks.options import named, read_sources, read_targets, writable
from lietoolkit.trainers.cli import EXTRA, train

app = typer.Typer(
    help="In which order to fine-tune a model on several sources, before any training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that need no hub.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(course_app, name="course")


@app.command()
def plan(
    model: Annotated[str, typer.Option(help=shared.MODEL)] = "course",
    objective: shared.Objective = "sft",
    source: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE, once per source; FILE may be a folder of text"),
    ] = None,
    sources: shared.Sources = None,
    target: shared.Targets = None,
    objective_of: Annotated[
        list[str] | None,
        typer.Option(help="NAME=lm|sft|dpo, of a source or target that is not --objective"),
    ] = None,
    steps_of: Annotated[
        list[str] | None, typer.Option(help="NAME=STEPS, of a source that is not --steps")
    ] = None,
    split: shared.Split = None,
    constraint: shared.Constraints = None,
    lr: Annotated[float | None, typer.Option(help="step size; default: from the curvature")] = None,
    steps: Annotated[int, typer.Option(help="steps per source")] = 20,
    optimizer: shared.OptimizerName = "adamw",
    planner: shared.Planner = "auto",
    budget: shared.Budget = 4.0,
    method: Annotated[str, typer.Option(help="local, trotter or stage")] = "local",
    schedule: Annotated[str, typer.Option(help=shared.SCHEDULE)] = "constant",
    warmup: Annotated[int, typer.Option(help="steps of linear increase at the start")] = 0,
    batch_size: Annotated[int, typer.Option(help=shared.BATCH_SIZE)] = 8,
    batches: Annotated[int, typer.Option(help="batches read of each source")] = 1,
    max_length: Annotated[int | None, typer.Option(help=shared.MAX_LENGTH)] = None,
    microbatch: Annotated[
        int | None, typer.Option(help="rows per forward pass, to save memory")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option(help="pattern of parameter names, e.g. '*.o_proj.weight'")
    ] = None,
    verify: Annotated[int, typer.Option(help="train so many orders for real")] = 0,
    verify_steps: Annotated[
        list[int] | None, typer.Option(help="steps of the real runs; default: --steps and 20")
    ] = None,
    device: shared.Device = "auto",
    shard: Annotated[
        bool, typer.Option("--shard", help="hold the model in pieces, one in each process")
    ] = False,
    seed: Annotated[int, typer.Option(help="of the rows drawn")] = 0,
    out: Annotated[Path, typer.Option(help="folder for plan.json and the report")] = Path("out"),
    report: Annotated[bool, typer.Option(help="write report.html and report.ipynb")] = True,
    trust_remote_code: Annotated[bool, typer.Option(help=shared.TRUST_REMOTE_CODE)] = False,
) -> None:
    """Plan an order; write plan.json, report.html and report.ipynb."""
    from lietoolkit.order_plan import ranking
    from lietoolkit.planning import plan_order
    from lietoolkit.verify import check_orders, verify_plan

    with ranks.from_environment(device), ranks.together():
        show = ranks.rank() == 0
        check_orders(verify, verify_steps)
        if show:
            writable(out)
        data = read_sources(source or [], sources, objective, seed)
        aims, weights = read_targets(target or [], data, objective, seed)
        try:
            made = plan_order(
                model, data, aims, objective, lr, steps, optimizer, planner, budget=budget,
                method=method, weights=weights, constraints=constraint or (), schedule=schedule,
                warmup=warmup, batch_size=batch_size, batches=batches, max_length=max_length,
                microbatch=microbatch, parameters=parameters, device=device, seed=seed,
                shard=shard,
                trust_remote_code=trust_remote_code, folder=out / "tried", progress=show,
                objective_of=named("objective-of", objective_of),
                steps_of=named("steps-of", steps_of, int), split=split or (),
            )  # fmt: skip
            if show:
                made.save(out)
            if verify:
                made = verify_plan(
                    made, verify, steps=verify_steps, folder=out / "verify", progress=show
                )
                if show:
                    made.save(out)
        except KeyboardInterrupt:
            if show:
                words = "Stopped. Finished orders are kept; the same command continues."
                typer.echo(f"\n{words}", err=True)
            raise
    if not show:
        return
    typer.echo(ranking(made))
    if report:
        _write_report(out / "plan.json", out)


app.command(context_settings=EXTRA)(train)


@app.command(name="report")
def report_command(
    plan_file: Annotated[Path, typer.Argument(help="plan.json")] = Path("out/plan.json"),
    out: Annotated[Path | None, typer.Option(help="folder; default: beside the plan")] = None,
) -> None:
    """Write the report of a plan again: report.html and report.ipynb."""
    _write_report(plan_file, out or plan_file.parent)


@models_app.command("get")
def models_get(name: Annotated[str, typer.Argument(help="smollm2-135m")]) -> None:
    """Fetch a model once and keep it in the user's cache."""
    from lietoolkit.tasks.smollm2 import get_smollm2

    if name != "smollm2-135m":
        raise InputError(
            f"models get: expected smollm2-135m, found {name!r}; "
            "'course' is already there, hub names load by themselves"
        )
    typer.echo(get_smollm2())


@models_app.command("list")
def models_list() -> None:
    """Which of the models with short names are here."""
    from lietoolkit.tasks.models import course_path
    from lietoolkit.tasks.smollm2 import smollm2_path

    typer.echo(f"course         {course_path() or 'missing: reinstall the package'}")
    here = smollm2_path() or "not here yet: lietoolkit models get smollm2-135m"
    typer.echo(f"smollm2-135m   {here}")


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option(help="also estimate the memory of a plan")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="time and memory on paper; the options below")
    ] = False,
    parameters: Annotated[
        list[str] | None, typer.Option(help="of the model, e.g. 7B; several times")
    ] = None,
    sources: Annotated[list[int] | None, typer.Option(help="how many; several times")] = None,
    gpus: Annotated[list[int] | None, typer.Option(help="how many; several times")] = None,
    tokens: Annotated[str, typer.Option(help="read of each source")] = "65536",
    microbatch: Annotated[int, typer.Option(help="tokens at once on a GPU")] = 256,
    flops: Annotated[str, typer.Option(help="operations a second of a GPU")] = "67T",
    utilisation: Annotated[float, typer.Option(help="share of them that is reached")] = 0.5,
    gpu_memory: Annotated[str, typer.Option(help="bytes of a GPU")] = "80B",
    bytes_per_parameter: Annotated[float, typer.Option(help="4: float32")] = 4,
    exact: Annotated[bool, typer.Option("--exact", help="exact second derivatives")] = False,
    trainable: Annotated[
        str | None, typer.Option(help="parameters planned over, e.g. 40M; default: all")
    ] = None,
    bandwidth: Annotated[str, typer.Option(help="bytes a second of a GPU between nodes")] = "50B",
    node_bandwidth: Annotated[str, typer.Option(help="... inside a node")] = "450B",
    node: Annotated[int, typer.Option(help="GPUs of a node")] = 8,
) -> None:
    """Versions, device, memory, and what would not fit; or a plan on paper (--estimate)."""
    from lietoolkit.doctor import doctor as examine
    from lietoolkit.doctor import format_doctor

    if not estimate:
        typer.echo(format_doctor(examine(model)))
        return
    from lietoolkit import estimate as paper

    number = paper.read_count
    assume = paper.Assumptions(
        tokens=number(tokens), microbatch=microbatch, flops=number(flops),
        utilisation=utilisation, bandwidth=number(bandwidth),
        node_bandwidth=number(node_bandwidth), node=node, gpu_memory=number(gpu_memory),
        bytes_per_parameter=bytes_per_parameter, exact=exact,
        trainable=number(trainable) if trainable else None,
    )  # fmt: skip
    counts = [number(text) for text in parameters or ()]
    if model is not None:
        counts.append(examine(model)["estimates"][0]["bytes"]["model"] / 4)
    typer.echo(
        paper.format_estimate(
            counts or paper.PARAMETERS, sources or paper.SOURCES, gpus or paper.GPUS, assume
        )
    )


def _write_report(plan_file: Path, out: Path) -> None:
    from lietoolkit.report import build_report

    html, notebook = build_report(plan_file, out)
    typer.echo(f"Wrote {html} and {notebook}")


def main() -> None:
    """Run the command line; a user's mistake ends with one clear line and exit code 2."""
    keep_freed_memory()
    try:
        # The parser turns Ctrl-C into an exit code of its own and returns it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except InputError as error:
        if ranks.is_heard(error):
            typer.echo(f"Error: {error}", err=True)
        ranks.wait_until_heard(error)
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Usage errors of the parser know how to show themselves.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise


if __name__ == "__main__":
    main()
