"""The course as static pages: each notebook with its outputs in one file that needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lietoolkit
from lietoolkit.course.places import course_folder
from lietoolkit.course.runner import notebooks
from lietoolkit.errors import InputError

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

_PACKAGE = Path(lietoolkit.__file__).parent
# From a notebook to another one: the pages of exercises lie in a folder below, not beside.
_LINK = re.compile(r"""(href=["'])(?!\w+:)(?:\.\./(?=exercises/))?([^"'#]+)\.ipynb\b""")


def build_pages(out: str | Path = "out/pages") -> list[Path]:
    """Write every notebook of the course, and the students' exercises, as HTML.

    The outputs are those in the files; nothing is run. Links between notebooks become links
    between pages, formulas become drawings, pictures keep their alt text.

    Args:
        out: folder; its pages are replaced.

    Returns:
        The pages, ``index.html`` first.

    Raises:
        InputError: no notebooks, a notebook that cannot be read, a formula that cannot be drawn,
            or packages of the ``course`` extra that are missing.
    """
    try:
        exporter = _exporter()
    except ImportError as error:
        raise InputError(
            f"course pages needs the package {error.name!r}; install lietoolkit[course]"
        ) from error
    out, made = Path(out), []
    for source, target, way in _plan(course_folder()):
        page = out / target
        page.parent.mkdir(parents=True, exist_ok=True)
        try:
            page.write_text(_page(exporter, source, way), encoding="utf-8")
        except InputError as error:
            raise InputError(f"{source.name}: {error}") from error
        made.append(page)
    return made


def _plan(folder: Path) -> Iterator[tuple[Path, str, list[tuple[str, str]]]]:
    """Each notebook, the page it becomes, and the links above it: (text, address)."""
    files = [notebook.path for notebook in notebooks()]
    yield folder / "index.ipynb", "index.html", []
    for n, file in enumerate(files):
        way = [("Contents", "index.html")]
        way += [(f"← {p.stem[:2]}", f"{p.stem}.html") for p in files[max(n - 1, 0) : n]]
        way += [(f"{p.stem[:2]} →", f"{p.stem}.html") for p in files[n + 1 : n + 2]]
        yield file, f"{file.stem}.html", way
    names = {file.stem for file in files}
    for file in sorted((folder.parent / "exercises").glob("[0-9][0-9]_*.ipynb")):
        way = [("Contents", "../index.html")]
        if file.stem in names:
            way.append((f"Notebook {file.stem[:2]}", f"../{file.stem}.html"))
        yield file, f"exercises/{file.stem}.html", way


def _exporter() -> HTMLExporter:
    from jinja2 import FileSystemLoader
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    from lietoolkit.course.formulas import formula

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return formula(body)

        def block_math(self, body: str) -> str:
            large = body.replace(r"\frac", r"\dfrac")
            return f'<div class="lt-display" tabindex="0">{formula(large)}</div>'

    exporter = HTMLExporter(
        template_file="course/page.html.j2", extra_loaders=[FileSystemLoader(str(_PACKAGE))]
    )
    exporter.register_filter(
        "markdown2html",
        lambda source: MarkdownWithMath(
            renderer=Renderer(escape=False, exclude_anchor_links=True)
        ).render(source),
    )
    return exporter


def _page(exporter: HTMLExporter, source: Path, way: list[tuple[str, str]]) -> str:
    import nbformat

    try:
        notebook = nbformat.read(source, as_version=4)
    except (OSError, ValueError) as error:
        raise InputError(f"expected a notebook, found {error}") from error
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ").strip()
    resources: dict[str, Any] = {
        "lietoolkit_title": title, "lietoolkit_way": way, "lietoolkit_styles": _code_styles(),
    }  # fmt: skip
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return _LINK.sub(r"\1\2.html", str(body))


def _code_styles() -> str:
    """Colors of code for light and dark pages, on the page's own background."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style).get_style_defs(".highlight pre").splitlines()
        return "\n".join(line for line in lines if line.startswith(".highlight pre ."))

    dark = f"@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}"
    return f"{rules('xcode')}\n{dark}"
