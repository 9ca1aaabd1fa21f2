"""Controls with a label in full, usable from the keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

_STYLE = {"description_width": "initial"}


def _layout(width: str) -> ipywidgets.Layout:
    return ipywidgets.Layout(width=width, margin="0 16px 4px 0")


def slider(
    label: str, low: float, high: float, value: float, step: float = 0.01, digits: int = 2
) -> ipywidgets.FloatSlider:
    """A slider over numbers."""
    return ipywidgets.FloatSlider(
        description=label, min=low, max=high, value=value, step=step, style=_STYLE,
        readout_format=f".{digits}f", layout=_layout("330px"),
    )  # fmt: skip


def whole(label: str, low: int, high: int, value: int) -> ipywidgets.IntSlider:
    """A slider over whole numbers."""
    return ipywidgets.IntSlider(
        description=label, min=low, max=high, value=value, style=_STYLE, layout=_layout("330px")
    )


def power(label: str, low: float, high: float, value: float, step: float = 0.1) -> Any:
    """A slider over powers of ten: ``low`` and ``high`` are exponents, ``value`` is the number."""
    return ipywidgets.FloatLogSlider(
        description=label, min=low, max=high, value=value, step=step, base=10, style=_STYLE,
        readout_format=".1e", layout=_layout("330px"),
    )  # fmt: skip


def choice(label: str, options: Sequence[Any], value: Any = None) -> ipywidgets.Dropdown:
    """A list to choose from."""
    return ipywidgets.Dropdown(
        description=label, options=list(options), value=options[0] if value is None else value,
        style=_STYLE, layout=_layout("260px"),
    )  # fmt: skip


def tick(label: str, value: bool = False) -> ipywidgets.Checkbox:
    """On or off."""
    return ipywidgets.Checkbox(
        description=label, value=value, indent=False, style=_STYLE, layout=_layout("260px")
    )


def steps(label: str, options: Sequence[Any], value: Any) -> ipywidgets.SelectionSlider:
    """A slider over a few given values."""
    return ipywidgets.SelectionSlider(
        description=label, options=list(options), value=value, style=_STYLE,
        layout=_layout("300px"),
    )  # fmt: skip
