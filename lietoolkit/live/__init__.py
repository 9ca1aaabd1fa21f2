"""Live figures: persistent artists moved by controls, with a picture and alt text in one output."""

from lietoolkit.live.bowls import explore_bowls
from lietoolkit.live.curvature import difference, explore_hvp_error, show_costs, time_ratios
from lietoolkit.live.figure import ERRORS, LiveFigure, new_figure, picture
from lietoolkit.live.flows import explore_flows, explore_parking
from lietoolkit.live.horizon import (
    Confidence,
    HorizonEffects,
    confidence_study,
    explore_horizon,
    horizon_effects,
    show_confidence,
)
from lietoolkit.live.ordering import explore_ordering, picked, show_orders
from lietoolkit.live.pairs import PairEffects, explore_pairs, pair_effects
from lietoolkit.live.schedules import explore_schedules
from lietoolkit.live.tournaments import explore_cycle, explore_matrix

__all__ = [
    "ERRORS",
    "Confidence",
    "HorizonEffects",
    "LiveFigure",
    "PairEffects",
    "confidence_study",
    "difference",
    "explore_bowls",
    "explore_cycle",
    "explore_flows",
    "explore_horizon",
    "explore_hvp_error",
    "explore_matrix",
    "explore_ordering",
    "explore_pairs",
    "explore_parking",
    "explore_schedules",
    "horizon_effects",
    "new_figure",
    "pair_effects",
    "picked",
    "picture",
    "show_confidence",
    "show_costs",
    "show_orders",
    "time_ratios",
]
