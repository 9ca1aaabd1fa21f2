"""What a notebook printed in a longer run than a page's own: kept, dated, with its command."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lietoolkit.course.places import recorded_folder
from lietoolkit.environment import hardware, versions


def keep(executed: Path, folder: Path, number: str, parameters: Mapping[str, Any]) -> Path:
    """Keep what an executed notebook printed, under its headings; bets and checks left out.

    Args:
        executed: the notebook as it was run.
        folder: where ``NN-profile.json`` is written.
        number: of the notebook. parameters: it was run with.
    """
    import nbformat

    heading, cells, seconds = "", [], 0.0
    for cell in nbformat.read(executed, as_version=4).cells:
        seconds += cell.metadata.get("papermill", {}).get("duration") or 0.0
        if cell.cell_type == "markdown":
            titles = [line for line in cell.source.splitlines() if line.startswith("## ")]
            heading = titles[-1].removeprefix("## ") if titles else heading
        elif cell.cell_type == "code" and "course." not in cell.source:
            text = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
            cells += [{"heading": heading, "text": text}] if text else []
    options = "".join(f" -p {name} {value}" for name, value in parameters.items())
    kept = {
        "command": f"lietoolkit course run {number}{options} --record",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "cells": cells,
        "environment": {**versions(), **hardware()},
    }
    path = folder / f"{number}-{parameters['profile']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def recorded(number: str, profile: str = "laptop") -> None:
    """Print what a notebook showed when it was run in that profile, and when and how."""
    path = recorded_folder() / f"{number}-{profile}.json"
    if not path.is_file():
        print(f"No run was kept. lietoolkit course run {number} -p profile {profile} --record")
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    machine = kept["environment"]
    print(
        f"{kept['date']}, {kept['seconds'] / 60:.0f} min on {machine['device']}, "
        f"torch {machine['torch']}\n{kept['command']}"
    )
    heading = ""
    for cell in kept["cells"]:
        if cell["heading"] != heading:
            heading = cell["heading"]
            print(f"\n{heading}")
        print("\n".join(f"    {line}" for line in cell["text"].splitlines()))
