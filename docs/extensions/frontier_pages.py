"""The frontier benchmark as a page: who wins at which price, one figure for each kind of training.

All numbers are those of `scripts/frontier_tables.py`.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from frontier_tables import NUMBERS_HEAD, frontier, gains, name_of, numbers_rows, plans, results
from matplotlib import rc_context
from matplotlib.figure import Figure
from pipe_table import table

from lietoolkit.plots.common import AMBER, BLUE, GRAY, GREEN, PINK

SINGLE = ("gradient norm", "cosine", "solo gain")


def settings_sections(folder: Path) -> str:
    """For each kind of training a heading, a figure and the numbers behind it, folded."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, result in enumerate(results(), 1):
        figure = folder / f"frontier-{number}.svg"
        alt = draw(result, figure)
        numbers = table(NUMBERS_HEAD, numbers_rows(result))
        s = result["settings"]
        parts.append(
            f"### {name_of(result)}\n\n{s['sources']} sources, {plans(result)} plans.\n\n"
            f"::::{{container}} lt-scroll\n:::{{image}} figures/{figure.name}\n"
            f":class: lt-wide\n:alt: {alt}\n:::\n::::\n\n"
            f"<details><summary>The numbers</summary>\n\n{numbers}\n\n</details>\n"
        )
    return "\n".join(parts)


def draw(result: dict, path: Path) -> str:
    """Gain against price for one kind of training, as SVG; returns the alt text."""
    rows = frontier.standings(result)
    points = {name: (mean(r["cost"]), mean(r["gap share"])) for name, r in rows.items()}
    found = gains(result)
    with rc_context({"svg.hashsalt": "lietoolkit", "font.size": 11}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0, color=GRAY, linewidth=0.8)
        spent = [g.spent for g in found]
        band = [g.low for g in found], [g.high for g in found]
        ax.fill_between(spent, *band, color=BLUE, alpha=0.15, linewidth=0)
        ax.plot(
            spent, [g.auto for g in found], "o-", color=BLUE, label='planner="auto", 95 % interval'
        )
        tried = sorted(p for n, p in points.items() if n.startswith("random, best of"))
        ax.plot(*zip(*tried, strict=True), "s--", color=GRAY, label="random orders, the best kept")
        groups = {
            "from the end, exact": (GREEN, "^", "planning from the end, exact"),
            "replay": (AMBER, "v", "replaying all orders"),
        }
        for start, (color, marker, label) in groups.items():
            own = sorted(p for n, p in points.items() if n.startswith(start))
            if own:
                ax.plot(*zip(*own, strict=True), marker, color=color, label=label)
        single = sorted(p for n, p in points.items() if n.startswith(SINGLE))
        ax.plot(*zip(*single, strict=True), "x", color=PINK, label="sorted by a single figure")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_ylim(max(-1.0, min(0.0, *(y for _, y in points.values())) - 0.1), 1.05)
        ax.set_xlabel("price, in training runs of all sources")
        ax.set_ylabel("gap share: 0 median, 1 best order")
        ax.spines[["top", "right"]].set_visible(False)
        figure.legend(fontsize="small", frameon=False, loc="outside lower center", ncols=3)
        figure.savefig(path, metadata={"Date": None})
    told = "; ".join(f"{g.spent:.2g} runs {g.auto:.2f} against {g.random:.2f}" for g in found)
    return f'Gain of "auto" against random orders by price. {name_of(result)}: {told}.'
