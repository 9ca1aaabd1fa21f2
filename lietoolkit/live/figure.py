"""A figure whose artists stay and move: alive in JupyterLab, a picture everywhere else."""

from __future__ import annotations

import base64
import html
import io
import struct
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from zlib import compress, crc32

import anywidget
import ipywidgets
import traitlets

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_HERE = files("lietoolkit.live")
# Everything that went wrong in a figure of this process, for tests and for the end of a notebook.
ERRORS: list[str] = []


class Canvas(anywidget.AnyWidget):
    """A PNG with alt text that reports where it is dragged."""

    _esm = (_HERE / "canvas.js").read_text(encoding="utf-8")
    _css = (_HERE / "canvas.css").read_text(encoding="utf-8")
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    draggable = traitlets.Bool(False).tag(sync=True)
    point = traitlets.List(traitlets.Float(), default_value=[]).tag(sync=True)


class LiveFigure:
    """A matplotlib figure redrawn by its controls.

    One output carries the widgets, the PNG of the first frame and its alt text, so the same cell
    is alive in JupyterLab, a picture on a static page, and text for a reader without either.
    What never moves is drawn once; a redraw restores it and draws only the moving artists.

    Args:
        figure: a ``matplotlib.figure.Figure`` that belongs to no pyplot state.
        update: called with the value of every control by name; moves the artists and returns
            the alt text of the new picture.
        controls: widgets by name. Each needs a description, which is its label.
        moving: the artists that ``update`` changes.
        drag: (axes, name of the x control, name of the y control): dragging on these axes sets
            both controls. Both must be controls themselves, so that the keyboard can do the same.

    Errors in ``update`` are shown under the figure and kept in ``errors`` and in
    ``lietoolkit.live.ERRORS``; the first frame raises them.
    """

    def __init__(
        self,
        figure: Figure,
        update: Callable[..., str],
        controls: Mapping[str, ipywidgets.Widget] | None = None,
        moving: Sequence[Artist] = (),
        drag: tuple[Axes, str, str] | None = None,
    ):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.figure, self.update, self.drag = figure, update, drag
        self.controls = dict(controls or {})
        self.errors: list[str] = []
        self._moving = sorted(moving, key=lambda artist: artist.get_zorder())
        self._agg = FigureCanvasAgg(figure)
        for artist in self._moving:
            artist.set_animated(True)
        self._agg.draw()
        self._still = self._agg.copy_from_bbox(figure.bbox)
        self._held = False
        self.alt = self._paint()
        self.canvas = Canvas(png=self.png(), alt=self.alt, draggable=drag is not None)
        self.canvas.observe(self._dragged, "point")
        self._message = ipywidgets.HTML()
        for control in self.controls.values():
            control.observe(self._changed, "value")

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> LiveFigure:
        """Set controls from code, as a hand would, and redraw once."""
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.redraw()
        return self

    def redraw(self) -> None:
        """Draw the current values; what goes wrong is shown, not raised."""
        try:
            alt = self._paint()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self.errors.append(text)
            ERRORS.append(text)
            self._message.value = (
                f'<div role="alert"><b>This figure could not be redrawn.</b> {html.escape(text)}'
                "</div>"
            )
            return
        self._message.value = ""
        self.alt = self.canvas.alt = alt
        self.canvas.png = self.png()

    def png(self, small: bool = False) -> bytes:
        """The picture as it is now; ``small`` takes longer and makes a file to keep."""
        import numpy as np
        from PIL import Image

        pixels = np.asarray(self._agg.buffer_rgba())[:, :, :3]
        if not small:
            return _quick_png(pixels)
        out = io.BytesIO()
        image = Image.fromarray(pixels).quantize(192, dither=Image.Dither.NONE)
        image.save(out, "png", compress_level=9)
        return out.getvalue()

    def widget(self) -> ipywidgets.Widget:
        """Controls, picture, and the place for errors."""
        row = ipywidgets.Layout(flex_flow="row wrap", display="flex")
        box = ipywidgets.Box(list(self.controls.values()), layout=row)
        return ipywidgets.VBox([box, self.canvas, self._message])

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {
            "image/png": base64.b64encode(self.png(small=True)).decode(),
            "text/plain": self.alt,
        }
        if self.controls:
            live = self.widget()._repr_mimebundle_()
            data |= {kind: value for kind, value in live.items() if kind.startswith("application")}
        return data, {"image/png": {"alt": self.alt}}

    def _paint(self) -> str:
        alt = self.update(**self.values)
        self._agg.restore_region(self._still)
        renderer = self._agg.get_renderer()
        for artist in self._moving:
            if artist.get_visible():
                artist.draw(renderer)
        return alt

    def _changed(self, _: Any) -> None:
        if not self._held:
            self.redraw()

    def _dragged(self, change: Any) -> None:
        if self.drag is None or len(change["new"]) != 2:
            return
        axes, *names = self.drag
        left, top = change["new"]
        width, height = self._agg.get_width_height()
        place = axes.transData.inverted().transform((left * width, (1 - top) * height))
        inside = {}
        for name, value in zip(names, place, strict=True):
            control = self.controls[name]
            inside[name] = float(min(max(value, control.min), control.max))
        self.set(**inside)


def _quick_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of [height, width, 3] bytes, in about half of Pillow's time: no filter is tried."""
    import numpy as np

    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, red green blue
    parts = chunk(b"IHDR", header), chunk(b"IDAT", compress(rows.tobytes(), 1)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(
    draw: Callable[..., Any], *args: Any, size: tuple[float, float] = (7, 3.6), **kwargs: Any
) -> LiveFigure:
    """A still figure by a function of ``lietoolkit.plots``: takes ``ax``, sets alt text."""
    from lietoolkit.plots import alt_text

    figure, (ax,) = new_figure(size)
    draw(*args, ax=ax, **kwargs)
    return LiveFigure(figure, lambda: alt_text(ax))


def new_figure(size: tuple[float, float], columns: int = 1, **grid: Any) -> tuple[Figure, list]:
    """A white figure with the course's resolution and fonts, outside pyplot, and its axes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    fonts = {"font.size": 10, "axes.titlesize": "medium", "axes.spines.top": False,
             "axes.spines.right": False}  # fmt: skip
    with style.context(["default", fonts]):
        figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
        axes = figure.subplots(1, columns, squeeze=False, **grid)[0]
    return figure, list(axes)
