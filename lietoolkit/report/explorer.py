"""The order explorer: one self-contained piece of HTML with its script, style and data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lietoolkit.order.constraints import parse_constraints
from lietoolkit.report.blocks import Block, from_html, safe

__all__ = ["explorer", "explorer_data", "script_source"]

_HERE = files("lietoolkit.report")


def explorer_data(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs: names, the planned order as indices, matrices, constraints as pairs.

    Args:
        plan: the content of a plan.json, as `read_plan` returns it.

    Returns:
        A dict of plain values.
    """
    names = plan["names"]
    return {
        "names": names,
        "planned": [names.index(name) for name in plan["order"]],
        "total": plan["matrix"],
        "targets": [
            {"name": name, "weight": target["weight"], "matrix": target["matrix"]}
            for name, target in plan["targets"].items()
        ],
        "constraints": [
            {"text": text, "pairs": sorted(parse_constraints([text], names))}
            for text in plan["constraints"]
        ],
    }


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
    markup = (
        f'<style>{css}</style><div class="lt-explorer" data-plan="{data}"><ol>{listed}</ol>'
        "<p>Moving the sources needs a browser that runs scripts.</p></div>"
        f"<script>{js}</script>"
    )
    block = from_html(markup)
    block.bundle["text/plain"] = "Order explorer: " + ", then ".join(plan["order"])
    return [block]
