"""Running a notebook with papermill, in this very Python."""

from __future__ import annotations

import keyword
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError


def execute_notebook(
    source: Path, target: Path, parameters: Mapping[str, Any], cwd: Path | None = None
) -> Path:
    """Execute a notebook and write the result.

    Args:
        source: the notebook.
        target: where the executed copy goes.
        parameters: put in behind the cell tagged ``parameters``; names must be identifiers.
        cwd: the notebook's working folder; default the target's.

    Raises:
        InputError: papermill is missing, a name is no identifier, or the notebook itself raised
            an InputError.
        RuntimeError: a cell failed.
    """
    for name in parameters:
        # papermill writes "name = value" into a cell: it quotes the value, but not the name.
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InputError(f"parameter {name!r}: expected a name, such as seed")
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        raise InputError(
            f"running notebooks needs the package {error.name!r}; install lietoolkit[course]"
        ) from error
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(cwd or target.parent),
            progress_bar=False,
            log_output=False,
            kernel_manager_class=this_python(),
        )
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from error
        raise RuntimeError(f"{source.name}: {error.ename}: {error.evalue}") from error
    return target


def this_python() -> type:
    """A kernel manager whose kernel is this very Python and sees this very package.

    A kernel called python3 that some other installation registered would otherwise win.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    parent = str(Path(__file__).parent.parent)
    path = os.pathsep.join(p for p in (parent, os.environ.get("PYTHONPATH")) if p)

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[
                    *(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
                    "--log-level=CRITICAL",
                ],
                display_name="Python 3",
                language="python",
                env={"PYTHONPATH": path},
            )

    return ThisPython
