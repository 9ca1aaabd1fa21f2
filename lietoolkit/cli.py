"""The command line: ``lietoolkit plan | report | models | doctor | course``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lietoolkit.course.cli import app as course_app
from lietoolkit.environment import keep_freed_memory
from lietoolkit.errors import InputError
from lietoolkit.statistics import chance

if TYPE_CHECKING:
    from lietoolkit.planning import OrderPlan

app = typer.Typer(
    help="In which order to fine-tune a model on several sources, before any training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that need no hub.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(course_app, name="course")

DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# What is planned when no data are given: families that differ in skill.
EXAMPLE_SOURCES = {
    "sft": ("addition", "sort", "copy", "past_tense"),
    "dpo": ("right_sum", "right_case", "right_order", "in_french"),
    "lm": ("python", "cpp", "manual", "json"),
}


@app.command()
def plan(
    model: Annotated[
        str, typer.Option(help="course, smollm2-135m, a folder or a hub name")
    ] = "course",
    objective: Annotated[str, typer.Option(help="lm, sft or dpo")] = "sft",
    source: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE, once per source; FILE may be a folder of text"),
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(help="a folder: each data file or text folder in it is a source")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="FILE, or NAME=FILE[:WEIGHT] several times")
    ] = None,
    objective_of: Annotated[
        list[str] | None,
        typer.Option(help="NAME=lm|sft|dpo, of a source or target that is not --objective"),
    ] = None,
    steps_of: Annotated[
        list[str] | None, typer.Option(help="NAME=STEPS, of a source that is not --steps")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="'a before b', 'a first' or 'a last'")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="step size; default: from the curvature")] = None,
    steps: Annotated[int, typer.Option(help="steps per source")] = 20,
    optimizer: Annotated[str, typer.Option(help="sgd, momentum or adamw")] = "adamw",
    planner: Annotated[str, typer.Option(help="auto, tournament, search or from-end")] = "auto",
    budget: Annotated[float, typer.Option(help="training runs that trying orders may cost")] = 4.0,
    method: Annotated[str, typer.Option(help="local, trotter or stage")] = "local",
    schedule: Annotated[str, typer.Option(help="constant, linear or cosine")] = "constant",
    warmup: Annotated[int, typer.Option(help="steps of linear increase at the start")] = 0,
    batch_size: Annotated[int, typer.Option(help="rows in a batch")] = 8,
    batches: Annotated[int, typer.Option(help="batches read of each source")] = 1,
    max_length: Annotated[int | None, typer.Option(help="context in tokens")] = None,
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
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    seed: Annotated[int, typer.Option(help="of the rows drawn")] = 0,
    out: Annotated[Path, typer.Option(help="folder for plan.json and the report")] = Path("out"),
    report: Annotated[bool, typer.Option(help="write report.html and report.ipynb")] = True,
    trust_remote_code: Annotated[bool, typer.Option(help="let the model run its own code")] = False,
) -> None:
    """Plan an order; write plan.json, report.html and report.ipynb."""
    from lietoolkit.planning import plan_order
    from lietoolkit.verify import check_orders, verify_plan

    check_orders(verify, verify_steps)
    _writable(out)
    data = read_sources(source or [], sources, objective, seed)
    aims, weights = read_targets(target or [], data, objective, seed)
    try:
        made = plan_order(
            model, data, aims, objective, lr, steps, optimizer, planner, budget=budget,
            method=method, weights=weights, constraints=constraint or (), schedule=schedule,
            warmup=warmup, batch_size=batch_size, batches=batches, max_length=max_length,
            microbatch=microbatch, parameters=parameters, device=device, seed=seed,
            trust_remote_code=trust_remote_code, folder=out / "tried", progress=True,
            objective_of=named("objective-of", objective_of),
            steps_of=named("steps-of", steps_of, int),
        )  # fmt: skip
        made.save(out)
        if verify:
            made = verify_plan(
                made, verify, steps=verify_steps, folder=out / "verify", progress=True
            )
            made.save(out)
    except KeyboardInterrupt:
        typer.echo("\nStopped. Finished orders are kept; the same command continues.", err=True)
        raise
    typer.echo(ranking(made))
    if report:
        _write_report(out / "plan.json", out)


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


def named(
    option: str, given: list[str] | None, kind: Callable[[str], Any] = str, example: str = ""
) -> dict[str, Any]:
    """NAME=VALUE options by name."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            if not (equals and name and value):
                raise ValueError
            made = kind(value)
        except ValueError:
            shape = {"source": "FILE", "steps-of": "STEPS"}.get(option, "VALUE")
            raise InputError(
                f"--{option} {text!r}: expected NAME={shape}"
                + (f", e.g. {example}" if example else "")
            ) from None
        if name in found:
            raise InputError(f"--{option}: expected different names, found {name!r} twice")
        found[name] = made
    return found


def read_sources(
    given: list[str], folder: Path | None, objective: str, seed: int = 0
) -> dict[str, Any]:
    """Sources by name from NAME=FILE options or a folder; the examples when there are none."""
    found: dict[str, Any] = named("source", given, example="math=math.jsonl")
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--sources: expected a folder, found {folder}")
        for entry in sorted(folder.iterdir()):
            name = entry.stem if entry.suffix in DATA_FILES else entry.name
            if entry.suffix not in DATA_FILES and not entry.is_dir():
                continue
            if name in found:
                raise InputError(f"--sources: expected different names, found {name!r} twice")
            found[name] = str(entry)
        if not found:
            raise InputError(
                f"--sources: expected {', '.join(DATA_FILES)} files, found none in {folder}"
            )
    if found:
        return found
    families = _families(objective, "train", seed)
    return {name: families[name] for name in EXAMPLE_SOURCES[objective]}


def read_targets(
    given: list[str], sources: dict[str, Any], objective: str, seed: int = 0
) -> tuple[Any, dict[str, float] | None]:
    """The target, or several by name with weights; for the examples, held-out rows of theirs."""
    if not given:
        if not all(isinstance(data, list) for data in sources.values()):
            raise InputError("--target: expected a file whose loss should end low, found none")
        families = _families(objective, "eval", seed)
        return [row for name in sources for row in families[name][:8]], None
    if len(given) == 1 and "=" not in given[0]:
        return given[0], None
    aims, weights = {}, {}
    for n, text in enumerate(given):
        name, equals, path = text.partition("=")
        if not equals:
            # The first target needs no name.
            name, path = ("target", text) if n == 0 else ("", text)
        head, colon, weight = path.rpartition(":")
        value = 1.0
        if colon and _is_number(weight):
            path, value = head, float(weight)
        if not name or not path or name in aims:
            raise InputError(
                f"--target {text!r}: expected NAME=FILE or NAME=FILE:WEIGHT, each name once"
            )
        aims[name], weights[name] = path, value
    return aims, weights


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _families(objective: str, split: str, seed: int) -> dict[str, list]:
    from lietoolkit.tasks.domains import text_domains
    from lietoolkit.tasks.generated import preference_families, sft_families

    makers: dict[str, Callable[..., dict[str, list]]] = {
        "sft": sft_families, "dpo": preference_families, "lm": text_domains,
    }  # fmt: skip
    if objective not in makers:
        raise InputError(f"objective: expected one of {', '.join(makers)}; found {objective!r}")
    return makers[objective](seed=seed, rows=64, split=split)


def ranking(made: OrderPlan) -> str:
    """The plan in a few lines of text."""
    lines = ["", f"Train in this order ({made.model}, {made.objective}, lr {made.lr:.3g}):"]
    pairs = {row["first"]: row for row in made.confidence}
    width = max(len(name) for name in made.order)
    for place, name in enumerate(made.order, 1):
        row = pairs.get(name)
        # Effects of pairs say little about an order that was rehearsed as a whole.
        row = row if made.planner == "tournament" else None
        note = f"   before the next one: {row['effect']:+.2g}" if row else ""
        if row and row["survival"] is not None:
            note += f", the same sign in {row['survival']:.0%} of resamples"
        lines.append(f"  {place}. {name:{width}}{note}".rstrip())
    if made.better_than_reverse is not None:
        lines.append(
            f"Chance that it is better than its reverse: {chance(made.better_than_reverse)}"
        )
    lines.append(f"Planner: {made.planner}; {made.effort['why']}")
    for name, target in made.targets.items():
        lines.append(
            f"Predicted for {name}, against the reverse order: {target['plan_vs_reverse']:+.3g}"
        )
    for steps, run in (made.verification or {"steps": {}})["steps"].items():
        lines.append(
            f"Trained for real, {steps} step{'s' * (steps != '1')} per source: "
            f"the plan is number {run['rank']} of {run['n']} orders"
        )
    lines += [f"Note: {note}" for note in made.notes]
    cost = made.cost
    lines.append(
        f"Cost: {cost['total']:.0f} gradients, {cost['training_runs']:.2g} training runs; "
        f"{made.seconds:.0f} s"
    )
    return "\n".join(lines)


def _write_report(plan_file: Path, out: Path) -> None:
    from lietoolkit.report import build_report

    html, notebook = build_report(plan_file, out)
    typer.echo(f"Wrote {html} and {notebook}")


def _writable(out: Path) -> None:
    """Fail before the work, not after it."""
    probe = out / ".writable"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
    except OSError as error:
        probe.unlink(missing_ok=True) if out.is_dir() else None
        raise InputError(
            f"--out: expected a folder that can be written to, found {out} "
            f"({error.strerror or error}); choose another"
        ) from error


def main() -> None:
    """Run the command line; a user's mistake ends with one clear line and exit code 2."""
    keep_freed_memory()
    try:
        # The parser turns Ctrl-C into an exit code of its own and returns it.
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
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
