"""What the site does not keep by hand: tables, figures and notebooks, made when it is built.

Between `<!-- table:NAME -->` and `<!-- /table -->` of a page goes the table of that name, as in
README.md: of the benchmarks' results (`scripts/readme_tables.py`) or of the command line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import lietoolkit

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import command_line
import frontier_pages
import readme_tables

MARKED = re.compile(r"<!-- table:(\w+) -->")
READ_ONLY_NOTE = (
    "```{note}\nA page to read, with the pictures as they were when the notebook was run. In "
    "JupyterLab (`make course`) the figures move, bets are scored and exercises checked.\n```"
)


def tables(docs: Path) -> dict[str, Callable[[], str]]:
    """Every table that a page may ask for, by name."""
    return {
        **readme_tables.TABLES,
        **command_line.TABLES,
        "frontier_settings": lambda: frontier_pages.settings_sections(docs / "figures"),
    }


@cache
def _made(docs: Path, name: str) -> str:
    return tables(docs)[name]()


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the tables into a page as it is read."""
    names = MARKED.findall(source[0])
    if not names:
        return
    docs = Path(app.srcdir)
    unknown = sorted(set(names) - set(tables(docs)))
    if unknown:
        raise ExtensionError(f"{docname}: no table is called {', '.join(unknown)}")
    source[0] = readme_tables.fill(source[0], {n: _made(docs, n) for n in names}, docname)
    # The page is read again when the results change, or what makes tables of them.
    root = Path(__file__).parents[2]
    makers = (*root.glob("scripts/*_tables.py"), *root.glob("benchmarks/*.py"))
    package, extensions = Path(lietoolkit.__file__).parent, Path(__file__).parent
    results = readme_tables.RESULTS.glob("*.json")
    for path in (*makers, *package.rglob("*.py"), *extensions.glob("*.py"), *results):
        app.env.note_dependency(str(path))


def copy_notebooks(app: Sphinx) -> None:
    """The course and its exercises, as pages: with a note, and with the pictures' alt texts."""
    import nbformat

    from lietoolkit.course.places import course_folder
    from lietoolkit.course.runner import notebooks

    course = Path(app.srcdir) / "course"
    exercises = sorted((course_folder().parent / "exercises").glob("[0-9][0-9]_*.ipynb"))
    for kind, paths in {"notebooks": [n.path for n in notebooks()], "exercises": exercises}.items():
        folder = course / kind
        folder.mkdir(parents=True, exist_ok=True)
        for old in {p.name for p in folder.glob("*.ipynb")} - {p.name for p in paths}:
            (folder / old).unlink()
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            title, *rest = notebook.cells
            note = nbformat.v4.new_markdown_cell(READ_ONLY_NOTE, id="read-only")
            notebook.cells = [title, note, *rest]
            for cell in rest:
                _describe_pictures(cell)
            _write(folder / path.name, nbformat.writes(notebook))


def _describe_pictures(cell: dict) -> None:
    # The site reads a picture's alt text from its cell, the notebook has it with the output.
    for output in cell.get("outputs", []):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt:
            cell["metadata"]["mystnb"] = {"image": {"alt": alt}}


def _write(path: Path, text: str) -> None:
    """Only what changed, so that a second build is quick."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the notebooks before pages are looked for, and the tables as each page is read."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
