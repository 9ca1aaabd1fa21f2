"""Live figures: persistent artists moved by controls, with a picture and alt text in one output."""

from lietoolkit.live.bowls import explore_bowls
from lietoolkit.live.figure import ERRORS, LiveFigure, new_figure, picture
from lietoolkit.live.flows import explore_flows, explore_parking

__all__ = [
    "ERRORS",
    "LiveFigure",
    "explore_bowls",
    "explore_flows",
    "explore_parking",
    "new_figure",
    "picture",
]
