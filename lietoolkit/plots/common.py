"""What all figures share: palette, numbers as text, alt text, axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GRAY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F",
)  # fmt: skip
MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def alt_text(where: Axes | Figure) -> str:
    r"""The plain sentences that describe what this module drew on an axes or a whole figure.

    >>> from matplotlib.figure import Figure
    >>> from lietoolkit.plots import score_bars
    >>> ax = score_bars({"a": -2e-3, "b": 2e-3}, ["a", "b"], ax=Figure().subplots())
    >>> alt_text(ax)
    'Pull of each source: a −2.0\xa0×\xa010⁻³, b +2.0\xa0×\xa010⁻³. Negative pulls to the front.'
    """
    axes: Any = where.axes if hasattr(where, "add_axes") else [where]
    return " ".join(text for a in axes if (text := getattr(a, "lietoolkit_alt", "")))


def loss_text(value: float | None, *, signed: bool = True, digits: int = 1) -> str:
    r"""A loss or loss difference as people write it: ``−3.1 × 10⁻⁴``, ``+0.052``, ``0``.

    >>> loss_text(-0.00031), loss_text(0.0521), loss_text(0.0), loss_text(2.5, signed=False)
    ('−3.1\xa0×\xa010⁻⁴', '+0.052', '0', '2.5')
    """
    if value is None or not math.isfinite(value):
        return "not known"
    if value == 0:
        return "0"
    sign = MINUS if value < 0 else "+" if signed else ""
    mantissa, exponent = f"{abs(value):.{digits}e}".split("e")
    power = int(exponent)
    if -2 <= power < 4:
        return f"{sign}{abs(value):.{max(0, digits - power)}f}"
    # No-break spaces: a number must not end on one line and its power on the next.
    return f"{sign}{mantissa}\u00a0×\u00a0{_power_of_ten(power)}"


def unit_of(largest: float) -> tuple[float, str]:
    """The power of ten below a positive number, and how an axis label writes it.

    Numbers that read well as they are, from 0.1 up to 1000, keep the unit 1.

    >>> unit_of(0.00052)
    (0.0001, ' (× 10⁻⁴)')
    """
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    if -1 <= power < 3:
        return 1.0, ""
    return float(f"1e{power}"), f" (× {_power_of_ten(power)})"


def _power_of_ten(power: int) -> str:
    return "10" + str(power).translate(_SUPERSCRIPTS)


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes given, or those of a new pyplot figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def describe(ax: Axes, text: str) -> None:
    """Keep the alt text with the axes, where `alt_text` finds it."""
    ax.lietoolkit_alt = text  # type: ignore[attr-defined]


def short_name(name: str, longest: int = 18) -> str:
    """A name as a figure can carry it: not too long, and never read as a formula."""
    # A dollar sign would start mathtext, and a broken formula would stop the drawing.
    text = str(name).replace("$", r"\$")
    return text if len(text) <= longest else text[: longest - 1] + "…"
