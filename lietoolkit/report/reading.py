"""plan.json in, checked: whatever is wrong with it is named before anything is drawn."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import parse_constraints
from lietoolkit.order.recommend import TABLED

__all__ = ["PARAMETERS", "check_parameters", "read_plan"]

PARAMETERS: dict[str, tuple[type, str]] = {
    "plan": (str, "path of the plan.json to report on"),
    "title": (str, "heading of the report; empty for the standard one"),
    "dpi": (int, "resolution of the figures, 50 to 300"),
}

# What the report cannot do without, and the type JSON gives it.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "order": list, "names": list, "scores": dict, "matrix": list, "targets": dict,
    "steps": int, "lr": (int, float), "method": str, "optimizer": str, "objective": str,
    "model": str,
}  # fmt: skip

_OPTIONAL: dict[str, Any] = {
    "forgetting": {}, "constraints": [], "confidence": [], "baselines": {}, "geometry": None,
    "lr_rule": {}, "planner": "tournament", "effort": {}, "rounds": [],
    "expected": {},
    "schedule": "constant", "objective_of": {}, "steps_of": {}, "better_than_reverse": None,
    "sources": {}, "notes": [],
    "cost": {}, "seconds": None, "versions": {}, "hardware": {}, "verification": None,
}  # fmt: skip

_AGAIN = "make the file again with `lietoolkit plan`"


def check_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The report's parameters out of ``given`` (a notebook's ``globals()`` or keyword arguments).

    In a notebook, names that hold plain values and belong neither to the report nor to IPython
    are unknown parameters: papermill itself only warns about them and accepts any type.

    Args:
        given: {name: value}.

    Returns:
        The parameters of the report, and nothing else.

    Raises:
        InputError: an unknown name, or a value of the wrong type or out of range.

    >>> check_parameters({"plan": "out/plan.json", "title": "", "dpi": 110})["dpi"]
    110
    """
    listed = "; ".join(f"{name} ({kind.__name__}): {what}" for name, (kind, what) in
                       PARAMETERS.items())  # fmt: skip
    ipython = {"In", "Out", "exit", "quit"}
    for name, value in given.items():
        plain = isinstance(value, str | int | float | list | dict | tuple) or value is None
        if name not in PARAMETERS and plain and name not in ipython and not name.startswith("_"):
            raise InputError(
                f"parameter {name!r}: the report has no such parameter; it has: {listed}"
            )
    found = {name: given[name] for name in PARAMETERS if name in given}
    for name, value in found.items():
        kind = PARAMETERS[name][0]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"parameter {name!r}: expected {kind.__name__}, found {value!r} "
                f"({type(value).__name__}); the parameters are: {listed}"
            )
    if "dpi" in found and not 50 <= found["dpi"] <= 300:
        raise InputError(f"parameter 'dpi': expected 50 to 300, found {found['dpi']}")
    return found


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read and check a plan.json.

    Args:
        path: the file that ``lietoolkit plan`` or ``OrderPlan.save`` wrote.

    Returns:
        Its content, with the optional keys filled in.

    Raises:
        InputError: the file is missing, is not JSON, or lacks or contradicts what a plan holds;
            the message names the file, the key or line, and what to do.
    """
    path = Path(path)
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: expected a plan.json, found none that can be read ({error.strerror}); "
            "make one with `lietoolkit plan`"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, found {error.reason}; {_AGAIN}") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: expected JSON, found {error.msg}; {_AGAIN}"
        ) from None

    def wrong(key: str, expected: str, found: object) -> InputError:
        return InputError(f"{path}, {key!r}: expected {expected}, found {found!r}; {_AGAIN}")

    if not isinstance(plan, dict):
        raise wrong("(top)", "an object", type(plan).__name__)
    for key, kind in _NEEDED.items():
        if key not in plan:
            raise InputError(f"{path}: expected the key {key!r}, found none; {_AGAIN}")
        if not isinstance(plan[key], kind) or isinstance(plan[key], bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise wrong(key, " or ".join(k.__name__ for k in kinds), plan[key])
    for key, default in _OPTIONAL.items():
        value = plan.setdefault(key, default)
        if value is None and isinstance(default, dict | list):
            plan[key] = type(default)()
    names = plan["names"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise wrong("names", "different strings", names)
    if len(names) < 2:
        raise wrong("names", "two sources or more", names)
    if sorted(map(str, plan["order"])) != sorted(names):
        raise wrong("order", "every name of 'names' once", plan["order"])
    if set(plan["scores"]) != set(names):
        raise wrong("scores", "one number for each source", sorted(plan["scores"]))
    if not plan["targets"]:
        raise wrong("targets", "at least one target", plan["targets"])
    _check_matrix(plan["matrix"], len(names), lambda e, f: wrong("matrix", e, f))
    for target, what in plan["targets"].items():
        key = f"targets/{target}/matrix"
        if not isinstance(what, dict) or "matrix" not in what:
            raise wrong(key, "a matrix", what)
        _check_matrix(what["matrix"], len(names), lambda e, f, key=key: wrong(key, e, f))
    if plan["expected"]:
        _check_expected(plan, wrong)
    try:
        parse_constraints(plan["constraints"], names)
    except InputError as error:
        raise InputError(f"{path}: {error}; {_AGAIN}") from None
    for steps, run in ((plan["verification"] or {}).get("steps") or {}).items():
        lengths = {key: len(run.get(key, ())) for key in ("orders", "measured", "predicted")}
        if len(set(lengths.values())) != 1 or not lengths["orders"]:
            raise wrong(f"verification/steps/{steps}", "lists of one length", lengths)
        if plan["order"] not in run["orders"]:
            raise wrong(f"verification/steps/{steps}/orders", "the planned order among them",
                        f"{lengths['orders']} others")  # fmt: skip
    return plan


def _check_matrix(matrix: Any, n: int, wrong: Any) -> None:
    if len(matrix) != n or any(not isinstance(r, list) or len(r) != n for r in matrix):
        raise wrong(f"{n} rows of {n} numbers", f"{len(matrix)} rows")
    for row in matrix:
        for value in row:
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise wrong("finite numbers", value)


def _check_expected(plan: Mapping[str, Any], wrong: Any) -> None:
    if set(plan["expected"]) != set(plan["targets"]):
        raise wrong("expected", "every target", sorted(plan["expected"]))
    n = len(plan["names"])
    if n > TABLED:
        raise wrong("expected", f"nothing with more than {TABLED} sources", f"{n} of them")
    orders = {"".join(map(str, order)) for order in itertools.permutations(range(n))}
    for target, changes in plan["expected"].items():
        key = f"expected/{target}"
        if not isinstance(changes, dict) or set(changes) != orders:
            raise wrong(key, f"a number for each of {len(orders)} orders", changes)
        for value in changes.values():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise wrong(key, "finite numbers", value)
