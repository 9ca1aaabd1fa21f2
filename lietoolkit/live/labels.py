"""Many short texts that move together, drawn at once: matplotlib spends half a ms on each Text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

SIZE = 10  # points, as the other texts of a live figure


def labels(ax: Axes) -> PathCollection:
    """An empty set of labels on the axes, for `set_labels` and a figure's moving artists."""
    from matplotlib.collections import PathCollection
    from matplotlib.transforms import IdentityTransform

    drawn = PathCollection([], offset_transform=ax.transData, linewidths=0)
    drawn.set_transform(IdentityTransform())
    ax.add_collection(drawn, autolim=False)
    return drawn


def set_labels(
    drawn: PathCollection,
    texts: Sequence[str],
    places: Sequence[tuple[float, float]],
    colors: Sequence[str],
) -> None:
    """Put texts with their middles at places, in data coordinates."""
    figure = drawn.get_figure(root=True)
    assert figure is not None  # `labels` put it on axes
    pixels = SIZE * figure.dpi / 72
    drawn.set_paths([_outline(text, pixels) for text in texts])
    drawn.set_offsets(list(places) or [(float("nan"), 0.0)])
    drawn.set_facecolor(list(colors))


@lru_cache(maxsize=1024)
def _outline(text: str, pixels: float) -> Path:
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    path = TextPath((0, 0), text, size=pixels)
    box = path.get_extents()
    middle = (box.x0 + box.x1) / 2
    return Affine2D().translate(-middle, -0.36 * pixels).transform_path(path)  # half a digit
