"""plan.json to report.html and report.ipynb: papermill runs the template, nbconvert exports it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError
from lietoolkit.execution import execute_notebook
from lietoolkit.report.explorer import script_source
from lietoolkit.report.reading import check_parameters, read_plan

__all__ = ["build_report", "template_path"]

_HERE = Path(__file__).parent


def template_path() -> Path:
    """The notebook to run: that of the source checkout, else the copy in the package."""
    checkout = _HERE.parent.parent / "notebooks" / "report.ipynb"
    return checkout if checkout.is_file() else _HERE / "report.ipynb"


def build_report(plan_json: str | Path, out: str | Path, **parameters: Any) -> tuple[Path, Path]:
    """Write ``report.html`` (one file, no network) and ``report.ipynb`` (executed) into a folder.

    Both files appear complete or not at all. The notebook runs in a kernel of the current Python,
    with ``out`` as its working folder.

    Args:
        plan_json: the file that ``lietoolkit plan`` wrote.
        out: the folder to write to; made when absent.
        **parameters: ``title`` and ``dpi``, see `check_parameters`.

    Returns:
        (path of report.html, path of report.ipynb).

    Raises:
        InputError: a broken or missing plan.json, an unknown or ill-typed parameter, a folder
            that cannot be written to, or packages of the ``course`` extra that are missing.
        RuntimeError: the notebook failed for a reason that is not the user's.
    """
    plan_json, out = Path(plan_json).resolve(), Path(out).resolve()
    chosen = check_parameters({"plan": str(plan_json), **parameters})
    plan = read_plan(plan_json)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
            made = _run(Path(folder) / "report.ipynb", chosen, plan_json, out)
            page = _export(made, chosen.get("title") or "In which order to train: " + plan["model"])
            written = Path(folder) / "report.html"
            written.write_text(page, encoding="utf-8")
            # The notebook first: a page never stands beside an older notebook for long.
            os.replace(made, out / "report.ipynb")
            os.replace(written, out / "report.html")
    except OSError as error:
        raise InputError(
            f"{out}: expected a folder that can be written to, found: {error.strerror or error}; "
            "choose another with --out or free some space"
        ) from error
    return out / "report.html", out / "report.ipynb"


def _run(target: Path, parameters: dict[str, Any], plan_json: Path, out: Path) -> Path:
    with contextlib.suppress(ValueError):  # another drive on Windows
        # Relative, so that the kept notebook can be moved together with its plan.
        parameters = {**parameters, "plan": os.path.relpath(plan_json, out)}
    return execute_notebook(template_path(), target, parameters, cwd=out)


def _export(notebook: Path, title: str) -> str:
    from jinja2 import FileSystemLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_file="page.html.j2",
        extra_loaders=[FileSystemLoader(str(_HERE))],
        exclude_anchor_links=True,
    )
    resources = {"lietoolkit_title": title, "lietoolkit_script": script_source()}
    body, _ = exporter.from_filename(str(notebook), resources=resources)
    return str(body)
