"""What the exercise notebooks call: ``draw``, ``check``, ``hint`` and ``solution``.

Each takes the exercise's key, "1.2" for the second exercise of notebook 01. The checks of notebook
NN live in ``checks_NN.py``; the texts, stubs and solutions in ``exercises/src`` of the repository.
"""

from __future__ import annotations

import base64
import html
import importlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lietoolkit.course.checks_core import NOT_YET, Exercise, draw_panels
from lietoolkit.errors import InputError

BEGIN, END = "BEGIN SOLUTION", "END SOLUTION"


class Shown:
    """Something a notebook shows as HTML and a terminal as plain text."""

    def __init__(self, text: str, page: str):
        self.text = text
        self.page = page

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.page


def find(key: str) -> Exercise:
    """The exercise of that key.

    Raises:
        InputError: no such exercise; the message lists those of the notebook.
    """
    chapter, _, number = str(key).partition(".")
    if not (chapter.isdigit() and number.isdigit()):
        raise InputError(f'key: expected an exercise such as "1.2", found {key!r}')
    try:
        module = importlib.import_module(f"lietoolkit.course.checks_{int(chapter):02d}")
    except ModuleNotFoundError:
        raise InputError(f"key: notebook {int(chapter):02d} has no exercises yet") from None
    by_key = {exercise.key: exercise for exercise in module.EXERCISES}
    if key not in by_key:
        raise InputError(f"key: expected one of {', '.join(by_key)}; found {key!r}")
    return by_key[key]


def check(key: str, answer: Callable[..., Any]) -> Shown | None:
    """Check an answer.

    Prints that it is right and returns None. For an untouched stub prints "not attempted yet" and
    returns what reads as 0, which is how nbgrader is told to give no points.

    Raises:
        Wrong: (an AssertionError) with the likely mistake.
    """
    try:
        with warnings.catch_warnings():
            # nbgrader gives no points for a cell that writes to stderr.
            warnings.simplefilter("ignore")
            find(key).verify(answer)
    except NotImplementedError:
        print(f"{key}: {NOT_YET}")
        return Shown("0.0", "<small>0 points so far</small>")
    print(f"{key}: right")
    return None


def draw(key: str, answer: Callable[..., Any]) -> Shown:
    """The target beside the learner's own, as a PNG with alt text."""
    figure, alt = draw_panels(find(key), answer)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Shown(
        alt,
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" '
        'style="max-width:100%;height:auto">',
    )


def hint(key: str) -> Shown:
    """The exercise's hints, folded; open them one by one."""
    hints = find(key).hints
    titles = [f"Hint {n} of {len(hints)}" for n in range(1, len(hints) + 1)]
    pairs = list(zip(titles, hints, strict=True))
    return Shown(
        "\n".join(f"{title}: {text}" for title, text in pairs),
        "".join(
            f"<details><summary>{title}</summary>{html.escape(text)}</details>"
            for title, text in pairs
        ),
    )


def solution(key: str) -> Shown:
    """The solution, folded, if this copy of the course comes with solutions."""
    find(key)
    code = next((code for file in _sources(key) if (code := _cell(file, key))), None)
    if code is None:
        text = f"{key}: this copy of the course comes without solutions."
        return Shown(text, html.escape(text))
    return Shown(
        code,
        f"<details><summary>Solution of {key}</summary><pre>{html.escape(code)}</pre></details>",
    )


def _sources(key: str) -> Iterator[Path]:
    """Sources of the notebook: in the folder one works in, those above it, or the checkout."""
    here = Path.cwd()
    pattern = f"{int(key.partition('.')[0]):02d}_*.py"
    roots = [here, *here.parents, Path(__file__).resolve().parents[2]]
    for root in roots:
        for folder in (root / "src", root / "exercises" / "src"):
            yield from sorted(folder.glob(pattern))


def _cell(file: Path, key: str) -> str | None:
    """The code between the exercise's heading and its check, without nbgrader's marks."""
    text = file.read_text(encoding="utf-8")
    section = re.search(rf"^# ## {re.escape(key)} .*?(?=^# ## |\Z)", text, re.M | re.S)
    for cell in re.split(r"^# %%.*\n", section[0], flags=re.M) if section else []:
        if BEGIN in cell:
            lines = [x for x in cell.splitlines() if BEGIN not in x and END not in x]
            return "\n".join(lines).strip()
    return None
