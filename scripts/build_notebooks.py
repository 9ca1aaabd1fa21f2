"""Build the course's notebooks from their sources: run them, keep pictures and text, no widgets."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

from lietoolkit.execution import this_python

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "jupytext": {"formats": "ipynb,src//py:percent"},
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3",
    },
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}  # fmt: skip


def sources(numbers: list[str] | None = None) -> list[Path]:
    """The py:percent sources of the course (not of the report)."""
    found = [*sorted((FOLDER / "src").glob("[0-9][0-9]_*.py")), FOLDER / "src" / "index.py"]
    return [p for p in found if not numbers or p.name[:2] in numbers or p.stem in numbers]


def read_source(path: Path) -> Any:
    """The notebook of a source, with cell ids that depend on the place alone."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for n, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.name[:2]}-{n:02d}"
    return notebook


def execute(notebook: Any, cwd: Path) -> None:
    """Run all cells in a fresh kernel of this Python, with a ledger of its own."""
    with tempfile.TemporaryDirectory() as ledger:
        # Figures and numbers must not depend on the reader's settings.
        os.environ.update(LIETOOLKIT_HOME=ledger, MPLBACKEND="agg")
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            kernel_manager_class=this_python(),
            resources={"metadata": {"path": str(cwd)}},
            store_widget_state=False,
            coalesce_streams=True,
        )
        client.execute()


def tidy(notebook: Any) -> None:
    """Drop what changes from run to run and what needs a kernel to be seen."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop(WIDGET, None)
                output.metadata = {k: v for k, v in output.metadata.items() if k in output.data}


def main() -> None:
    """Build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="01, 02, …; default: all")
    parser.add_argument("--pair", action="store_true", help="do not run; keep old outputs")
    options = parser.parse_args()
    for path in sources(options.numbers):
        notebook, target = read_source(path), FOLDER / f"{path.stem}.ipynb"
        if options.pair:
            keep_outputs(notebook, nbformat.read(target, as_version=4))
        else:
            execute(notebook, FOLDER)
        tidy(notebook)
        nbformat.write(notebook, target)
        print(f"{target.name}: {target.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def keep_outputs(notebook: Any, old: Any) -> None:
    """Take over the outputs of code cells whose source is unchanged."""
    known = {c.source: c for c in old.cells if c.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source in known:
            cell.outputs = known[cell.source].outputs
            cell.execution_count = known[cell.source].execution_count


if __name__ == "__main__":
    main()
