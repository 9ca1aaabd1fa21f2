"""Formulas of the site as inline drawings: no script, no font, no network."""

from __future__ import annotations

from functools import cache
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from lietoolkit.course.formulas import formula
from lietoolkit.errors import InputError

log = logging.getLogger(__name__)
draw = cache(formula)


def inline(writer: Any, node: nodes.math) -> None:
    """A formula within a line."""
    writer.body.append(_drawn(node, node.astext()))
    raise nodes.SkipNode


def display(writer: Any, node: nodes.math_block) -> None:
    """A formula of its own; it scrolls where the page is too narrow."""
    large = node.astext().replace(r"\frac", r"\dfrac")
    writer.body.append(f'<div class="lt-display" tabindex="0">{_drawn(node, large)}</div>\n')
    raise nodes.SkipNode


def _drawn(node: nodes.Node, tex: str) -> str:
    try:
        return draw(tex)
    except InputError as error:
        log.warning("%s", error, location=node)
        return ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the renderer to Sphinx as "drawn"."""
    app.add_html_math_renderer("drawn", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
