"""Sources given in two parts, so that others may be trained between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective

PARTS = (1, 2)


def part_name(name: str, part: int) -> str:
    """What a part of a source is called.

    >>> part_name("math", 2)
    'math/2'
    """
    return f"{name}/{part}"


def in_parts(
    sources: Mapping[str, Any],
    split: Iterable[str],
    objective: str = "sft",
    objective_of: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The sources, with the first and the second half of the rows of some as sources of their own.

    An order in which the halves come one after the other is one in which the source is whole, so
    whoever plans for the parts learns whether it pays to split.

    Args:
        sources: name -> data, as ``plan_order`` takes them.
        split: names of those to split.
        objective, objective_of: the losses, as there.

    Returns:
        The sources, and ``objective_of`` with the parts in it.

    Raises:
        InputError: an unknown name, a ready objective, fewer than two rows, or a name that is
            taken.

    >>> rows = [{"text": str(n)} for n in range(3)]
    >>> found, _ = in_parts({"a": rows, "b": rows}, ["a"], "lm")
    >>> {name: len(rows) for name, rows in found.items()}
    {'a/1': 2, 'a/2': 1, 'b': 3}
    """
    wanted = set(split)
    unknown = sorted(wanted - set(sources))
    if unknown:
        raise InputError(
            f"split: {unknown[0]!r} is no source; there are {', '.join(map(str, sources))}"
        )
    own = dict(objective_of or {})
    found: dict[str, Any] = {}
    for name, data in sources.items():
        pieces = {name: data}
        if name in wanted:
            pieces = _halves(_rows(data, name, own.get(name, objective)), name)
            if name in own:
                own |= dict.fromkeys(pieces, own.pop(name))
        taken = sorted(set(pieces) & set(found))
        if taken:
            raise InputError(f"split: {taken[0]!r} is the name of another source; rename it")
        found |= pieces
    return found, own


def steps_in_parts(
    split: Iterable[str], steps: int, steps_of: Mapping[str, int] | None
) -> dict[str, int]:
    """``steps_of`` with the steps of split sources shared out between their parts.

    Raises:
        InputError: a source of a single step.

    >>> steps_in_parts(["a"], 5, {"b": 2})
    {'b': 2, 'a/1': 3, 'a/2': 2}
    """
    found = dict(steps_of or {})
    for name in dict.fromkeys(split):
        own = found.pop(name, steps)
        if own < len(PARTS):
            raise InputError(
                f"split: expected at least two steps of {name!r}, found {own}; leave it whole or "
                "raise steps"
            )
        found |= {part_name(name, 1): (own + 1) // 2, part_name(name, 2): own // 2}
    return found


def _halves(rows: Sequence[Any], name: str) -> dict[str, Any]:
    if len(rows) < len(PARTS):
        raise InputError(
            f"split: expected at least two rows in {name!r}, found {len(rows)}; leave it whole"
        )
    half = (len(rows) + 1) // 2
    # A data set stays one: a trainer prepares it as it would the whole.
    select = getattr(rows, "select", None) or (lambda piece: [rows[i] for i in piece])
    places = (range(half), range(half, len(rows)))
    return {part_name(name, part): select(piece) for part, piece in zip(PARTS, places, strict=True)}


def _rows(data: Any, name: str, objective: str) -> Sequence[Any]:
    if isinstance(data, Objective):
        raise InputError(f"split: expected rows of {name!r}, found an objective; leave it whole")
    if isinstance(data, list) or hasattr(data, "select"):
        return data
    from lietoolkit.tasks.sources import load_rows

    return list(load_rows(data, objective, name=name))
