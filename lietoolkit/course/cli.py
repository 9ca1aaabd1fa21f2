"""``lietoolkit course list | run | pages | progress | export | reset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The course: notebooks, and how good your bets were.", no_args_is_help=True)


@app.command("list")
def list_notebooks() -> None:
    """The notebooks and the question each answers."""
    from lietoolkit.course.ledger import entries
    from lietoolkit.course.runner import notebooks

    for notebook in notebooks():
        bets = len(entries(notebook.number))
        typer.echo(f"{notebook.number}  {notebook.question}" + (f"  ({bets} bets)" * bool(bets)))


@app.command()
def run(
    number: Annotated[str, typer.Argument(help="01, 02, …")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="KEY=VALUE, several times")
    ] = None,
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    out: Annotated[Path, typer.Option(help="folder of the executed copy")] = Path("out/course"),
    record: Annotated[
        bool, typer.Option("--record", help="keep what it printed, for course.recorded")
    ] = False,
) -> None:
    """Execute a notebook from top to bottom: lietoolkit course run 04 -p seed 7."""
    from lietoolkit.course.runner import read_parameters
    from lietoolkit.course.runner import run as execute
    from lietoolkit.errors import InputError

    # papermill writes "-p seed 7", where the value arrives as an argument of its own.
    values = list(rest or [])
    pairs = {}
    for text in parameter or []:
        name, equals, value = text.partition("=")
        if not equals:
            if not values:
                raise InputError(f"-p {text}: expected a value, as in -p seed 7 or -p seed=7")
            value = values.pop(0)
        pairs[name] = value
    if values:
        raise InputError(f"run: expected nothing after the notebook, found {' '.join(values)}")
    typer.echo(f"Wrote {execute(number, read_parameters(pairs), out, record)}")


@app.command()
def pages(
    out: Annotated[Path, typer.Option(help="folder of the pages")] = Path("out/pages"),
) -> None:
    """Write all notebooks as HTML pages that need no network."""
    from lietoolkit.course.pages import build_pages

    made = build_pages(out)
    typer.echo(f"Wrote {len(made)} pages; begin with {made[0]}")


@app.command()
def progress() -> None:
    """Your bets in numbers, notebook by notebook."""
    from lietoolkit.course.ledger import entries, summary

    for number in sorted({entry.id.split(".")[0] for entry in entries()}):
        typer.echo(summary(number))
    typer.echo(summary())


@app.command()
def export(path: Annotated[Path, typer.Argument(help="JSON file to write")]) -> None:
    """Write all bets and their scores to a file."""
    from lietoolkit.course.ledger import export as write

    typer.echo(f"Wrote {write(path)} bets to {path}")


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Forget every bet."""
    from lietoolkit.course.ledger import entries
    from lietoolkit.course.ledger import reset as forget

    if yes or typer.confirm(f"Forget {len(entries())} bets?"):
        forget()
        typer.echo("The ledger is empty.")
