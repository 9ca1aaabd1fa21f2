"""The frontier benchmark as a page: who wins at which price, one figure for each kind of training.

All numbers are those of `scripts/readme_tables.py` and `benchmarks/frontier.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import readme_tables
from command_line import table
from matplotlib import rc_context
from matplotlib.figure import Figure
from readme_tables import frontier, summary

from lietoolkit.plots.common import AMBER, BLUE, GRAY, GREEN, PINK

MODELS = {"networks": "small regression networks", "course": "the course model"}
OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum", "adamw": "AdamW"}
SINGLE = ("gradient norm", "cosine", "solo gain")
Results = list[dict]


def results() -> Results:
    """Every result file; those with many draws first, as they say most."""
    found = readme_tables.read_results(readme_tables.RESULTS, "frontier")
    return sorted(found, key=lambda r: (-plans(r), r["settings"]["model"] != "course"))


def plans(result: dict) -> int:
    """How many plans the means are taken over."""
    return sum(len(draw["targets"]) for draw in result["draws"].values())


def name_of(result: dict) -> str:
    """The kind of training in words."""
    s = result["settings"]
    model = MODELS.get(s["model"], s["model"])
    task = "" if s["model"] == "networks" else f", {s['objective']}"
    sizes = "constant step size" if s["schedule"] == "constant" else f"{s['schedule']} schedule"
    return f"{OPTIMIZERS[s['optimizer']]}, {s['steps']} steps, {sizes}: {model}{task}"


def compared(result: dict) -> list[tuple[float, float, float, float, float]]:
    """For each budget: spent, mean gain of "auto" with its interval, and of random orders."""
    rows = frontier.standings(result)
    found = []
    for budget in frontier.BUDGETS:
        row = rows[f"auto, budget {budget:g}"]
        spent = mean(row["cost"])
        random = mean(rows[f"random, best of {max(1, int(spent))}"]["gap share"])
        found.append((spent, *summary(row["gap share"]), random))
    return found


def budgets_table() -> str:
    """Kinds of training against budgets: "auto" / random orders; the better one in bold."""
    head = ["trained with", "plans", *(f"{budget:g} runs" for budget in frontier.BUDGETS)]
    lines = []
    for result in results():
        cells = []
        for _, auto, _, _, random in compared(result):
            # Adding 0 turns a rounded -0.0 into 0.0.
            pair = [f"{round(share, 2) + 0.0:.2f}" for share in (auto, random)]
            pair[auto < random] = f"**{pair[auto < random]}**"
            cells.append("\u00a0/\u00a0".join(pair))
        s = result["settings"]
        lines.append([f"{name_of(result)}, {s['sources']} sources", str(plans(result)), *cells])
    return table(head, lines)


def score_sentence() -> str:
    """How often "auto" is ahead, counted over all cells of the table."""
    cells = [cell for result in results() for cell in compared(result)]
    ahead = sum(auto > random for _, auto, _, _, random in cells)
    surely = sum(low > random for _, _, low, _, random in cells)
    behind = sum(high < random for _, _, _, high, random in cells)
    return (
        f'In {ahead} of {len(cells)} cells "auto" gains more than random orders of the same '
        f"price; in {surely} its 95 % interval lies wholly above theirs, in {behind} wholly below."
    )


def settings_sections(folder: Path) -> str:
    """For each kind of training a heading, a figure and the numbers behind it, folded."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, result in enumerate(results(), 1):
        rows = readme_tables.frontier_rows(result)
        figure = folder / f"frontier-{number}.svg"
        alt = draw(result, figure)
        numbers = table(readme_tables.FRONTIER_HEAD, rows)
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
    found = compared(result)
    with rc_context({"svg.hashsalt": "lietoolkit", "font.size": 11}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0, color=GRAY, linewidth=0.8)
        spent, auto, low, high, _ = zip(*found, strict=True)
        ax.fill_between(spent, low, high, color=BLUE, alpha=0.15, linewidth=0)
        ax.plot(spent, auto, "o-", color=BLUE, label='planner="auto", 95 % interval')
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
    gains = "; ".join(f"{x:.2g} runs {y:.2f} against {z:.2f}" for x, y, _, _, z in found)
    return f'Gain of "auto" against random orders by price. {name_of(result)}: {gains}.'


TABLES: dict[str, Callable[[], str]] = {
    "budgets": budgets_table,
    "score_sentence": score_sentence,
}
