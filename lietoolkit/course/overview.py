"""The map of the course: every notebook, its question, its time, and how far you are."""

from __future__ import annotations

import html
import re
from typing import Any

from lietoolkit.course.ledger import entries
from lietoolkit.course.places import course_folder
from lietoolkit.course.runner import Notebook, notebooks


class Contents:
    """A table for notebooks, plain lines for a terminal."""

    def __init__(self, rows: list[tuple[Notebook, str, str, int]]):
        self.rows = rows

    def __repr__(self) -> str:
        return "\n".join(
            f"{notebook.question} ({time}; {bets} bets)" for notebook, time, _, bets in self.rows
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        lines = [
            "<tr><td style='text-align:left'>"
            f"<a href='{notebook.path.name}'>{html.escape(notebook.question)}</a></td>"
            f"<td>{time}</td><td>{link}</td><td>{bets or 'none yet'}</td></tr>"
            for notebook, time, link, bets in self.rows
        ]
        head = "<tr><th style='text-align:left'>notebook</th><th>time</th><th>exercises</th>"
        table = f"<table>{head}<th>your bets</th></tr>{''.join(lines)}</table>"
        return {"text/plain": repr(self), "text/html": table}


def contents() -> Contents:
    """All notebooks of the course with time, exercises and the bets you made."""
    import nbformat

    exercises = course_folder().parent / "exercises"
    rows = []
    for notebook in notebooks():
        first = nbformat.read(notebook.path, as_version=4).cells[0].source
        found = re.search(r"About (\d+) minutes", first)
        file = next(iter(sorted(exercises.glob(f"{notebook.number}_*.ipynb"))), None)
        link = f"<a href='../exercises/{file.name}'>{notebook.number}</a>" if file else ""
        time = f"{found.group(1)} min" if found else ""
        rows.append((notebook, time, link, len(entries(notebook.number))))
    return Contents(rows)
