"""Figures of plain arrays: no model, no plan, no global state.

Every function takes an optional ``ax``, draws on it and returns it. Signs and groups differ by
marker, hatch or line style as well as by color (Okabe and Ito's palette), so that the figures
survive color blindness and a grayscale printer; text takes its color from matplotlib's current
style. `alt_text` gives the sentence that a reader without the picture needs. Losses are in nats
unless the caller's losses are not; negative effects mean "trained first is better".
"""

from lietoolkit.plots.common import alt_text, loss_text
from lietoolkit.plots.effects import confidence_bars, order_matrix, score_bars, target_tradeoff
from lietoolkit.plots.plane import geometry_plane
from lietoolkit.plots.truth import predicted_vs_measured, verification_strip

__all__ = [
    "alt_text",
    "confidence_bars",
    "geometry_plane",
    "loss_text",
    "order_matrix",
    "predicted_vs_measured",
    "score_bars",
    "target_tradeoff",
    "verification_strip",
]
