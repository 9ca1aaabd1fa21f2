"""The course: what its notebooks import, the prediction ledger, and the runner.

Every notebook begins with one line, for instance
``from lietoolkit.course import course, live, lt, torch``. Nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# What the notebooks' import line offers: name -> (module, attribute or None for the module).
_OFFERED = {
    "course": ("lietoolkit.course", None),
    "fields": ("lietoolkit.geometry.fields", None),
    "gradient_plane": ("lietoolkit.order.plane", "gradient_plane"),
    "itertools": ("itertools", None),
    "language": ("lietoolkit.course.language", None),
    "live": ("lietoolkit.live", None),
    "lt": ("lietoolkit", None),
    "math": ("math", None),
    "metered": ("lietoolkit.geometry.cost", "metered"),
    "np": ("numpy", None),
    "plots": ("lietoolkit.plots", None),
    "study_schedules": ("lietoolkit.order.studies", "study_schedules"),
    "torch": ("torch", None),
    "transported_effect": ("lietoolkit.order.transport", "transported_effect"),
    "toys": ("lietoolkit.tasks.toys", None),
    "setup": ("lietoolkit.course.settings", "setup"),
    "Settings": ("lietoolkit.course.settings", "Settings"),
    "bet": ("lietoolkit.course.ledger", "bet"),
    "reveal": ("lietoolkit.course.ledger", "reveal"),
    "finish": ("lietoolkit.course.ledger", "finish"),
    "summary": ("lietoolkit.course.ledger", "summary"),
    "contents": ("lietoolkit.course.overview", "contents"),
    "recorded": ("lietoolkit.course.records", "recorded"),
    "check": ("lietoolkit.course.exercises", "check"),
    "hint": ("lietoolkit.course.exercises", "hint"),
    "solution": ("lietoolkit.course.exercises", "solution"),
}


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _OFFERED[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted(_OFFERED)
