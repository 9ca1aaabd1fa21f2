"""The order explorer: one self-contained piece of HTML with its script, style and data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from math import factorial
from typing import Any

from lietoolkit.order.constraints import parse_constraints
from lietoolkit.report.blocks import Block, from_html, safe

__all__ = ["explorer", "explorer_data", "neighbor_effects", "script_source", "weighted_changes"]

_HERE = files("lietoolkit.report")


def explorer_data(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs: names, the planned order as indices, matrices, constraints as pairs.

    Of orders that were tried, what is expected of every order stands beside the matrices.

    Args:
        plan: the content of a plan.json, as `read_plan` returns it.

    Returns:
        A dict of plain values.
    """
    names = plan["names"]
    return {
        "names": names,
        "planned": [names.index(name) for name in plan["order"]],
        "total": {"matrix": plan["matrix"], "expected": weighted_changes(plan)},
        "targets": [
            {
                "name": name,
                "weight": target["weight"],
                "matrix": target["matrix"],
                "expected": plan["expected"].get(name),
            }
            for name, target in plan["targets"].items()
        ],
        "constraints": [
            {"text": text, "pairs": sorted(parse_constraints([text], names))}
            for text in plan["constraints"]
        ],
    }


def weighted_changes(plan: Mapping[str, Any]) -> dict[str, float] | None:
    """Of every order, the weighted sum of what is expected of the targets; None: not known."""
    if not plan["expected"]:
        return None
    weights = [plan["targets"][name]["weight"] for name in plan["expected"]]
    tables = list(plan["expected"].values())
    return {
        order: sum(w * table[order] for w, table in zip(weights, tables, strict=True))
        for order in tables[0]
    }


def neighbor_effects(expected: Mapping[str, float], n: int) -> list[list[float]]:
    """How much better each source right before each other one is than right after it, [n][n].

    The mean over all orders in which the two are neighbors. Where losses are sums over pairs, these
    are the pairs' effects.

    >>> neighbor_effects({"01": 0.0, "10": 1.0}, 2)
    [[0.0, -1.0], [1.0, 0.0]]
    """
    ahead = [[0.0] * n for _ in range(n)]
    for order, change in expected.items():
        for i, j in pairwise(map(int, order)):
            ahead[i][j] += change / factorial(n - 1)
    return [[ahead[i][j] - ahead[j][i] for j in range(n)] for i in range(n)]


def script_source() -> str:
    """The explorer's script as the page's security policy names it: a hash of its text.

    A browser that obeys the policy runs this script and no other, whatever got into the page.
    """
    digest = hashlib.sha256(_script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _script() -> str:
    return (_HERE / "explorer.js").read_text(encoding="utf-8")


def explorer(plan: Mapping[str, Any]) -> list[Block]:
    """The explorer of a plan; without a script engine, the planned order as a plain list.

    The data travel in an attribute, escaped as a whole, so nothing in a name can end it.
    """
    data = safe(json.dumps(explorer_data(plan), ensure_ascii=False, allow_nan=False))
    listed = "".join(f"<li>{safe(name)}</li>" for name in plan["order"])
    css = (_HERE / "explorer.css").read_text(encoding="utf-8")
    js = _script()
    guess = "<p>Orders that were not tried are guessed from those that were.</p>"
    markup = (
        f"<style>{css}</style>{guess if plan['expected'] else ''}"
        f'<div class="lt-explorer" data-plan="{data}"><ol>{listed}</ol>'
        "<p>Moving the sources needs a browser that runs scripts.</p></div>"
        f"<script>{js}</script>"
    )
    block = from_html(markup)
    block.bundle["text/plain"] = "Order explorer: " + ", then ".join(plan["order"])
    return [block]
