"""Run the course's notebooks from the command line, with checked parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lietoolkit.course.places import course_folder, recorded_folder
from lietoolkit.course.records import keep
from lietoolkit.course.settings import PARAMETERS, check_values
from lietoolkit.errors import InputError
from lietoolkit.execution import execute_notebook


@dataclass(frozen=True)
class Notebook:
    """One notebook of the course: number, path, and the question it answers."""

    number: str
    path: Path
    question: str


def notebooks() -> list[Notebook]:
    """All numbered notebooks, in order."""
    import nbformat

    found = []
    for path in sorted(course_folder().glob("[0-9][0-9]_*.ipynb")):
        first = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        found.append(Notebook(path.name[:2], path, first.lstrip("# ").strip()))
    return found


def find(number: str) -> Notebook:
    """A notebook by number ("4", "04") or file name.

    Raises:
        InputError: there is none; lists those there are.
    """
    for notebook in notebooks():
        if number.zfill(2) == notebook.number or number in (notebook.path.name, notebook.path.stem):
            return notebook
    listed = ", ".join(n.number for n in notebooks())
    raise InputError(f"notebook {number!r}: expected one of {listed}")


def read_parameters(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Parameters given as text, in their types.

    Raises:
        InputError: unknown or ill-typed, with the list of valid ones.

    >>> read_parameters({"seed": "7"})
    {'seed': 7}
    """
    values: dict[str, Any] = {}
    for name, text in pairs.items():
        kind = PARAMETERS[name][0] if name in PARAMETERS else str
        try:
            values[name] = kind(text)
        except ValueError:
            values[name] = text  # check_values says what is wrong with it
    check_values(values)
    return values


def run(
    number: str,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path = "out",
    record: bool = False,
) -> Path:
    """Execute a notebook with papermill and write the result.

    Args:
        number: which, see `find`.
        parameters: see ``lietoolkit.course.settings.PARAMETERS``.
        out: folder of the executed copy.
        record: keep what it printed for the page, see ``lietoolkit.course.records``.

    Returns:
        Its path.

    Raises:
        InputError: unknown notebook or parameter, or a mistake the notebook itself names.
        RuntimeError: a cell failed, or a live figure did.
    """
    notebook = find(number)
    parameters = dict(parameters or {})
    check_values(parameters)
    target = Path(out) / notebook.path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    executed = execute_notebook(notebook.path, target, parameters)
    if record:
        keep(executed, recorded_folder(), notebook.number, check_values(parameters))
    return executed
