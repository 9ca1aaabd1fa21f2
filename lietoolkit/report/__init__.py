"""The report on a plan: a notebook run by papermill, and one HTML page that needs no network."""

from lietoolkit.report.blocks import Block, show
from lietoolkit.report.build import build_report
from lietoolkit.report.checked import verification
from lietoolkit.report.explorer import explorer
from lietoolkit.report.limits import limits
from lietoolkit.report.reading import check_parameters, read_plan
from lietoolkit.report.sections import (
    against_reverse,
    geometry,
    headline,
    limits_section,
    pairs,
    settings,
    tradeoff,
)

__all__ = [
    "Block",
    "against_reverse",
    "build_report",
    "check_parameters",
    "explorer",
    "geometry",
    "headline",
    "limits",
    "limits_section",
    "pairs",
    "read_plan",
    "settings",
    "show",
    "tradeoff",
    "verification",
]
