"""Where the course lies."""

from __future__ import annotations

import os
from pathlib import Path

import lietoolkit
from lietoolkit.errors import InputError


def course_folder() -> Path:
    """The folder with the notebooks: ``LIETOOLKIT_NOTEBOOKS``, else beside the package.

    Raises:
        InputError: neither is there.
    """
    chosen = os.environ.get("LIETOOLKIT_NOTEBOOKS")
    folder = Path(chosen) if chosen else Path(lietoolkit.__file__).parent.parent / "notebooks"
    if not folder.is_dir():
        raise InputError(
            f"course: expected the notebooks in {folder}, found no such folder; run it in a copy "
            "of the repository, or set LIETOOLKIT_NOTEBOOKS"
        )
    return folder


def recorded_folder() -> Path:
    """The folder with results that longer runs printed."""
    return course_folder() / "recorded"
