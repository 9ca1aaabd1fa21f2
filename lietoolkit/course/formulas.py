"""Formulas for pages that need no network: TeX in, an inline drawing out, in the text's color."""

from __future__ import annotations

import html

from lietoolkit.errors import InputError

_SIZE = 100  # of the letters drawn
_EM = _SIZE / 1.15  # serif letters look smaller than the text around them


def formula(tex: str) -> str:
    r"""An SVG element of a TeX formula, as high as the text around it, with the TeX as its label.

    matplotlib knows a part of TeX that is enough for us: `\frac{1}{2}` but not `\frac12`,
    `\left(` but not `\big(`.

    Args:
        tex: without the dollar signs.

    Raises:
        InputError: matplotlib cannot read it; says where it stopped.

    >>> formula("x^2")[:25]
    '<svg class="lt-formula" r'
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    tex = " ".join(tex.split())
    font = FontProperties(family="serif", math_fontfamily="stix")
    try:
        drawn = TextPath((0, 0), f"${tex}$", size=_SIZE, prop=font)
    except ValueError as error:
        raise InputError(
            f"formula {tex!r}: expected TeX that matplotlib reads, found: "
            f"{str(error).splitlines()[-1]}; write it another way"
        ) from error
    box = drawn.get_extents()
    left, low, width, height = box.x0 - 3, box.y0 - 3, box.width + 6, box.height + 6
    # In SVG y points down; the baseline stays at y = 0 and is put on the baseline of the text.
    path = "".join(
        "MLQCZ"[(1, 2, 3, 4, 79).index(int(code))]
        + ("" if code == 79 else " ".join(f"{v:.0f}" for v in points * _flips(len(points))))
        for points, code in drawn.iter_segments(simplify=False)
    )
    return (
        f'<svg class="lt-formula" role="img" aria-label="{html.escape(tex, quote=True)}" '
        f'viewBox="{left:.0f} {-low - height:.0f} {width:.0f} {height:.0f}" '
        f'style="width:{width / _EM:.2f}em;height:{height / _EM:.2f}em;'
        f'vertical-align:{low / _EM:.2f}em"><path d="{path}"/></svg>'
    )


def _flips(count: int) -> list[int]:
    return [1 - 2 * (n % 2) for n in range(count)]
