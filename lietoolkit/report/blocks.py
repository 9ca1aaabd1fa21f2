"""What a cell of the report shows: escaped text, tables, and figures that carry alt text."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lietoolkit.plots import alt_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Block", "bullets", "figure", "paragraph", "safe", "show", "table"]


LONG = ' class="lt-long"'  # a cell that needs room on a narrow screen


class Block:
    """One output: a MIME bundle and its metadata, as IPython's display protocol wants them."""

    def __init__(self, bundle: dict[str, Any], metadata: dict[str, Any] | None = None):
        self.bundle, self.metadata = bundle, metadata or {}

    def __repr__(self) -> str:
        """The plain text of the block."""
        return str(self.bundle["text/plain"])

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle, self.metadata


def safe(text: object) -> str:
    """Text from data, escaped: markup in it is shown, never obeyed.

    >>> safe("<script>")
    '&lt;script&gt;'
    """
    return html.escape(str(text), quote=True)


def from_html(markup: str) -> Block:
    """A block of markup whose every piece of data has been through `safe`."""
    spaced = re.sub(r"</(p|li|tr|h3|td|th|caption)>", lambda m: m.group(0) + "\n"
                    if m.group(1) not in ("td", "th") else m.group(0) + "  ", markup)  # fmt: skip
    plain = html.unescape(re.sub(r"<[^>]*>", "", spaced))
    plain = "\n".join(line.strip() for line in plain.splitlines() if line.strip())
    return Block({"text/html": markup, "text/plain": plain})


def paragraph(*sentences: str) -> Block:
    """One paragraph of already safe markup."""
    return from_html(f"<p>{' '.join(s for s in sentences if s)}</p>")


def bullets(items: Iterable[str]) -> Block:
    """A list of already safe markup."""
    return from_html("<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Block:
    """A table; every cell is escaped. The first column heads its row."""
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f"<td{LONG if len(str(cell)) > 30 else ''}>{safe(cell)}</td>" for cell in rest
        )
        lines.append(f'<tr><th scope="row">{safe(first)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{safe(h)}</th>' for h in head)
    top = f"<caption>{safe(caption)}</caption>" if caption else ""
    return from_html(
        f'<div class="lt-scroll"><table>{top}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(
    draw: Callable[..., Axes], *args: Any, size: tuple[float, float], dpi: int = 110, **kwargs: Any
) -> Block:
    """Draw with a function of `lietoolkit.plots` and keep the PNG with its alt text.

    The figure belongs to no pyplot state, so nothing is shown twice and nothing leaks.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", {"font.size": 11}]):
        canvas = Figure(figsize=size, layout="constrained", facecolor="white")
        alt = alt_text(draw(*args, ax=canvas.subplots(), **kwargs))
        png = io.BytesIO()
        canvas.savefig(png, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    data = base64.b64encode(png.getvalue()).decode()
    return Block({"image/png": data, "text/plain": alt}, {"image/png": {"alt": alt}})


def show(blocks: Iterable[Block]) -> None:
    """Display blocks one after the other as outputs of the current cell."""
    from IPython.display import display

    for block in blocks:
        display(block)
