"""The prediction ledger: bets with a stated confidence, scored against what was measured.

A bet on one answer with confidence p scores :math:`(p - [right])^2` (Brier): 0 is best, 0.25 is
what "50 % sure" always gets, 1 is being certain and wrong. Everything stays in one file on this
machine: ``ledger.jsonl`` in the folder of `home`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One scored bet.

    Attributes:
        id: of the question, "01.halve"; the part before the dot is the notebook.
        choice: the answer bet on. confidence: how sure, 0 to 1. truth: the measured answer.
        when: time in UTC.
    """

    id: str
    choice: str
    confidence: float
    truth: str
    when: str

    @property
    def right(self) -> bool:
        """Whether the bet was won."""
        return self.choice == self.truth

    @property
    def brier(self) -> float:
        """The squared distance between confidence and outcome."""
        return (self.confidence - self.right) ** 2


@dataclass
class Bet:
    """An open question: what the controls or the arguments of ``bet`` say so far."""

    id: str
    question: str
    options: tuple[str, ...]
    choice: str | None = None
    confidence: float = 0.75


_OPEN: dict[str, Bet] = {}


def home() -> Path:
    """Where the ledger lives: the variable ``LIETOOLKIT_HOME``, else the user's data folder."""
    chosen = os.environ.get("LIETOOLKIT_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home())
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "lietoolkit"


def entries(notebook: str | None = None) -> list[Entry]:
    """All scored bets, oldest first; of one notebook ("01") if named.

    Raises:
        InputError: a line of the ledger cannot be read.
    """
    path = home() / "ledger.jsonl"
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: expected one bet as JSON, found {line[:60]!r}; "
                "remove the line, or start anew with `lietoolkit course reset`"
            ) from error
    return [e for e in found if notebook is None or e.id.split(".")[0] == notebook]


def record(entry: Entry) -> bool:
    """Keep a bet; only the first one on a question counts. Returns whether it was kept."""
    if any(old.id == entry.id for old in entries()):
        return False
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "ledger.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder that can be written to ({error.strerror}); "
            "set LIETOOLKIT_HOME to another"
        ) from error
    return True


def reset() -> None:
    """Forget every bet."""
    (home() / "ledger.jsonl").unlink(missing_ok=True)


def export(path: str | Path) -> int:
    """Write all bets with their scores as a JSON list; returns how many."""
    rows = [{**asdict(e), "right": e.right, "brier": e.brier} for e in entries()]
    Path(path).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(rows)


def bet(
    id: str,
    question: str,
    options: Sequence[str],
    choice: str | None = None,
    confidence: float | None = None,
) -> Any:
    """Ask a question before its answer is computed; shows controls to bet with.

    Args:
        id: notebook, dot, name: "01.halve".
        question: in words.
        options: the possible answers.
        choice: bet without the controls.
        confidence: how sure, from 0 to 1, with ``choice``.

    Returns:
        Something to display.

    Raises:
        InputError: fewer than two options, a choice that is not one, a confidence outside 0 to 1.
    """
    if len(set(options)) < 2 or len(set(options)) < len(options):
        raise InputError(f"bet {id!r}: expected two or more different options, found {options}")
    if choice is not None and choice not in options:
        raise InputError(f"bet {id!r}: expected one of {list(options)}, found {choice!r}")
    if confidence is not None and not 0 <= confidence <= 1:
        raise InputError(f"bet {id!r}: expected a confidence from 0 to 1, found {confidence}")
    made = Bet(id, question, tuple(options), choice)
    if confidence is not None:
        made.confidence = confidence
    _OPEN[id] = made
    return _Question(made)


def reveal(id: str, truth: str, measured: str = "") -> None:
    """Compare an open bet with the truth, print both, and keep the score.

    Args:
        id: of the bet.
        truth: one of its options, computed.
        measured: what was measured, in words with the number.

    Raises:
        InputError: no such bet, or a truth that is not one of its options.
    """
    if id not in _OPEN:
        raise InputError(f"reveal {id!r}: run the cell with this bet first")
    made = _OPEN[id]
    if truth not in made.options:
        raise InputError(f"reveal {id!r}: expected one of {list(made.options)}, found {truth!r}")
    print(f"Answer: {truth}." + (f" Measured: {measured}." if measured else ""))
    if made.choice is None:
        print("You did not bet on this one.")
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(id, made.choice, made.confidence, truth, now)
    kept = record(entry)
    print(
        f"You said: {entry.choice}, {entry.confidence:.0%} sure. "
        f"{'Right' if entry.right else 'Not so'}; score {entry.brier:.2f} (0 is best)."
        + ("" if kept else " Your first bet on this question is the one that counts.")
    )


def finish(notebook: str) -> None:
    """The end of a notebook: its bets in numbers; raises if a live figure failed on the way."""
    print(summary(notebook))
    if "lietoolkit.live.figure" in sys.modules:
        errors = sys.modules["lietoolkit.live.figure"].ERRORS
        if errors:
            raise RuntimeError(f"live figures failed: {'; '.join(errors)}")


def summary(notebook: str | None = None) -> str:
    """How many bets were won, and how well the stated confidence fits."""
    made = entries(notebook)
    where = f"Notebook {notebook}" if notebook else "All notebooks"
    if not made:
        return f"{where}: no bets yet."
    won, mean = sum(e.right for e in made), sum(e.brier for e in made) / len(made)
    sure = sum(e.confidence for e in made) / len(made)
    return (
        f"{where}: {won} of {len(made)} bets right; you were {sure:.0%} sure on average. "
        f"Brier score {mean:.2f} (0 is best; saying 50% every time gives 0.25)."
    )


class _Question:
    """The question with its controls; plain text where there are none."""

    def __init__(self, made: Bet):
        self.made = made

    def __repr__(self) -> str:
        return f"{self.made.question} ({' / '.join(self.made.options)})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        live = self.widget()._repr_mimebundle_()
        shown = {kind: value for kind, value in live.items() if kind.startswith("application")}
        return {"text/plain": repr(self), **shown}

    def widget(self) -> Any:
        """Answers, confidence, and what is recorded so far."""
        import ipywidgets

        wide = {"description_width": "initial"}
        question = ipywidgets.HTML()
        answers = ipywidgets.RadioButtons(
            options=self.made.options, value=self.made.choice, description="Your bet:", style=wide,
            layout=ipywidgets.Layout(width="auto"),
        )  # fmt: skip
        sure = ipywidgets.IntSlider(
            value=round(100 * self.made.confidence), min=0, max=100, step=5, style=wide,
            description="How sure, in %:",
        )  # fmt: skip
        note = ipywidgets.Label("No bet yet: choose an answer.")

        def changed(_: Any) -> None:
            self.made.choice, self.made.confidence = answers.value, sure.value / 100
            if answers.value is not None:
                note.value = f"Your bet: {answers.value}, {sure.value}% sure."

        answers.observe(changed, "value")
        sure.observe(changed, "value")
        question.value = f"<b>{self.made.question}</b>"
        return ipywidgets.VBox([question, answers, sure, note])
