"""Tables and sentences of the frontier benchmark, for README.md and the site."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from statistics import mean
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]
import frontier  # noqa: E402
from common import summary  # noqa: E402
from pipe_table import table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
MODELS = {
    "networks": "Small regression networks",
    "course": "Course model",
    "smollm2-135m": "SmolLM2-135M",
}
OBJECTIVES = {"sft": "SFT", "dpo": "DPO", "lm": "next-token"}
OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum", "adamw": "AdamW"}
NUMBERS_HEAD = ["budget, training runs", "spent with the tournament",
                "auto, gap share, 95 % interval", "random orders",
                "best single figure, in hindsight", "planning from the end"]  # fmt: skip


class Gain(NamedTuple):
    """What one budget gains in one kind of training, as gap shares."""

    budget: float
    spent: float
    auto: float
    low: float
    high: float
    random: float
    single: float | None
    single_name: str
    from_end: float | None


def results() -> list[dict]:
    """Every result file, language models first and those with many plans, as they say most."""
    found = [json.loads(p.read_text("utf-8")) for p in sorted(RESULTS.glob("frontier-*.json"))]
    return sorted(found, key=lambda r: (r["settings"]["model"] == "networks", -plans(r)))


def plans(result: dict) -> int:
    """How many plans the means are taken over."""
    return sum(len(draw["targets"]) for draw in result["draws"].values())


def name_of(result: dict) -> str:
    """The kind of training in words."""
    s = result["settings"]
    task = "" if s["model"] == "networks" else f", {OBJECTIVES[s['objective']]}"
    sizes = "constant step size" if s["schedule"] == "constant" else f"{s['schedule']} schedule"
    model = MODELS.get(s["model"], s["model"])
    return f"{model}{task}: {OPTIMIZERS[s['optimizer']]}, {s['steps']} steps, {sizes}"


def gains(result: dict) -> list[Gain]:
    """For each budget what "auto" gains, random orders, and the best of what the sum pays for."""
    rows = frontier.standings(result)
    share = {name: mean(row["gap share"]) for name, row in rows.items()}
    cost = {name: mean(row["cost"]) for name, row in rows.items()}
    found = []
    for budget in frontier.BUDGETS:
        auto = f"auto, budget {budget:g}"
        spent = cost[auto]
        affordable = [name for name in rows if cost[name] <= spent + 0.01]
        single = [n for n in affordable if n.endswith(("small first", "large first"))]
        best = max(single, key=share.__getitem__, default="")
        # Only where it was asked in every draw.
        full = [
            n for n in affordable
            if n.startswith("from the end, exact, m=")
            and len(rows[n]["cost"]) == len(rows[auto]["cost"])
        ]  # fmt: skip
        found.append(Gain(
            budget, spent, *summary(rows[auto]["gap share"]),
            random=share[f"random, best of {max(1, int(spent))}"],
            single=share.get(best), single_name=best,
            from_end=share[max(full, key=cost.__getitem__)] if full else None,
        ))  # fmt: skip
    return found


def budgets_table() -> str:
    """Kinds of training against budgets: "auto", random orders, single figures; best in bold."""
    head = [
        "trained with",
        "plans",
        *(f"{budget:g} run{'s' * (budget != 1)}" for budget in frontier.BUDGETS),
    ]
    lines = []
    for result in results():
        cells = []
        for gain in gains(result):
            shares = [gain.auto, gain.random, *([] if gain.single is None else [gain.single])]
            texts = [two_digits(share) for share in shares]
            best = max(range(len(shares)), key=lambda i: round(shares[i], 2))
            texts[best] = f"**{texts[best]}**"
            texts[0] += f" ({two_digits(gain.low)} to {two_digits(gain.high)})"
            cells.append("<br>".join(texts))
        sources = result["settings"]["sources"]
        lines.append([f"{name_of(result)}, {sources} sources", str(plans(result)), *cells])
    return table(head, lines)


def score_sentence() -> str:
    """How often "auto" is ahead, counted over all cells of the table."""
    cells = [gain for result in results() for gain in gains(result)]
    ahead = sum(c.auto > c.random for c in cells)
    surely = sum(c.low > c.random for c in cells)
    behind = sum(c.high < c.random for c in cells)
    compared = [c for c in cells if c.single is not None]
    beyond = sum(c.auto > c.single for c in compared)
    return textwrap.fill(
        f'In {ahead} of {len(cells)} cells "auto" gains more than random orders of the same '
        f"price; in {surely} its 95 % interval lies wholly above theirs, in {behind} wholly below. "
        f"In {beyond} of {len(compared)} it gains more than the best single figure, chosen in "
        "hindsight.",
        width=100,
    )


def numbers_rows(result: dict) -> list[list[str]]:
    """Of one result file, in the columns of ``NUMBERS_HEAD``."""
    return [
        [
            f"{g.budget:g}", f"{g.spent:.2f}",
            f"{two_digits(g.auto)} ({two_digits(g.low)} to {two_digits(g.high)})",
            two_digits(g.random),
            "" if g.single is None else f"{two_digits(g.single)} ({g.single_name})",
            "" if g.from_end is None else two_digits(g.from_end),
        ]
        for g in gains(result)
    ]  # fmt: skip


def two_digits(share: float) -> str:
    """A share as text, without a sign where it rounds to nothing.

    >>> two_digits(0.456), two_digits(-0.001)
    ('0.46', '0.00')
    """
    return f"{round(share, 2) + 0.0:.2f}"
