"""Fill the tables of README.md from the results of the benchmarks.

    python scripts/readme_tables.py            # rewrite what lies between the markers
    python scripts/readme_tables.py --check    # exit 1 when README.md does not fit the results

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "benchmarks")]
import frontier_tables  # noqa: E402
import replan  # noqa: E402
import split  # noqa: E402
import stage  # noqa: E402
from common import summary  # noqa: E402
from orders import standings  # noqa: E402
from pairs import accuracies  # noqa: E402
from pipe_table import table  # noqa: E402

from lietoolkit.order.effort import ALIKE  # noqa: E402
from lietoolkit.statistics import wilson_interval  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
NONE_YET = "*No results in `benchmarks/results` yet.*"
# Both directions of each baseline in one cell.
BASELINES = {
    "gradient norm, small / large first": (
        "gradient norm, small first", "gradient norm, large first",
    ),
    "cosine, aligned last / first": ("cosine, aligned last", "cosine, aligned first"),
    "solo gain, best last / first": ("solo gain, best last", "solo gain, best first"),
}  # fmt: skip


def percent(share: float) -> str:
    """A share as text; only a true 1 is shown as 100 %.

    >>> percent(1.0), percent(0.9996)
    ('100 %', '99.9 %')
    """
    if share == 1:
        return "100 %"
    return f"{min(100 * share, 99.9):.1f} %"


def pairs_table(results: list[dict]) -> str:
    """One line per result file and number of steps."""
    if not results:
        return NONE_YET
    head = ["model", "objective", "data", "truth in", "steps", "decisions",
            "local score, 95 % interval", "larger half", "Trotter", *BASELINES]  # fmt: skip
    lines = []
    for result in results:
        settings = result["settings"]
        for steps, found in accuracies(result).items():
            rows = found["predictors"]
            local = rows["local"]
            trotter = percent(rows["trotter"]["right"]) if "trotter" in rows else ""
            interval = f"{percent(local['low'])} to {percent(local['high'])}"
            lines.append([
                settings["model"] + (", LoRA" if settings.get("lora") else ""),
                settings["objective"], settings["data"] or "generated", settings["truth_dtype"],
                str(steps), str(found["n"]), f"**{percent(local['right'])}** ({interval})",
                percent(local["larger half"]), trotter,
                *(" / ".join(percent(rows[side]["right"]) for side in sides)
                  for sides in BASELINES.values()),
            ])  # fmt: skip
    return table(head, lines)


def orders_table(results: list[dict]) -> str:
    """One line per result file: percentiles of the tournament's order and of the baselines'."""
    if not results:
        return NONE_YET
    figures = ("gradient norm", "cosine", "solo gain")
    head = ["model", "objective", "sources", "orders trained", "plans",
            "tournament, 95 % interval", "gap share", "best of all", "Borda",
            *(f"{figure}, small / large first" for figure in figures)]  # fmt: skip
    lines = []
    for result in results:
        settings, rows = result["settings"], standings(result)
        ours = next(rows[f"tournament, {way}"] for way in ("exact", "search")
                    if f"tournament, {way}" in rows)  # fmt: skip
        center, low, high = summary(ours["percentile"])
        orders = settings.get("sample") or f"all {math.factorial(settings['sources'])}"

        def percentile(planner: str, rows: dict = rows) -> str:
            return f"{mean(rows[planner]['percentile']):.1f}"

        lines.append([
            settings["model"], settings["objective"], str(settings["sources"]), str(orders),
            str(len(ours["rank"])), f"**{center:.1f}** ({low:.1f} to {high:.1f})",
            f"{mean(ours['gap share']):.2f}", f"{ours['rank'].count(1)} of {len(ours['rank'])}",
            percentile("tournament, Borda"),
            *(" / ".join(percentile(f"{figure}, {side} first") for side in ("small", "large"))
              for figure in figures),
        ])  # fmt: skip
    return table(head, lines)


def stage_table(results: list[dict]) -> str:
    """Per optimizer and number of steps: the stage commutator beside what else there is."""
    if not results:
        return NONE_YET
    head = ["model", "objective", "trained with", "steps", "decisions",
            "stage commutator, 95 % interval", "larger half", "local score",
            "best solo last / first"]  # fmt: skip
    lines = []
    for result in results:
        settings = result["settings"]
        for k, row in stage.accuracies(result).items():
            one = row["stage"]
            interval = f"{percent(one['low'])} to {percent(one['high'])}"
            last, first = (percent(row[f"best solo {side}"]["right"]) for side in ("last", "first"))
            lines.append([
                settings["model"], settings["objective"], settings["optimizer"], str(k),
                str(row["n"]), f"**{percent(one['right'])}** ({interval})",
                percent(one["larger half"]), percent(row["local"]["right"]), f"{last} / {first}",
            ])  # fmt: skip
    return table(head, lines)


def replan_table(results: list[dict]) -> str:
    """Per optimizer and way to plan again on the way: what the target's last loss gains by it."""
    if not results:
        return NONE_YET
    head = ["model", "trained with", "runs", "planned again before each stage by",
            "gain in nats, 95 % interval", "better", "worse", "costs, training runs"]  # fmt: skip
    lines = []
    for result in results:
        settings = result["settings"]
        for way, row in replan.gains(result).items():
            middle, low, high = summary(row["gain"])
            better, worse = (sum(sign * x > 0 for x in row["gain"]) for sign in (1, -1))
            lines.append([
                settings["model"], f"{settings['optimizer']}, {settings['steps']} steps",
                str(len(row["gain"])), way.removeprefix("again by "),
                f"{middle:+.4f} ({low:+.4f} to {high:+.4f})", str(better), str(worse),
                f"{mean(row['runs']):.2f}",
            ])  # fmt: skip
    return table(head, lines)


def split_table(results: list[dict]) -> str:
    """One line per result file and budget."""
    head = ["trained with", "plans", "budget, runs", "gain of halves, 95 % interval", "better",
            "worse"]  # fmt: skip
    lines = []
    for result in results:
        for budget, gains in split.gains(result).items():
            middle, low, high = summary(gains)
            lines.append([
                f"{frontier_tables.name_of(result)}, {result['settings']['sources']} sources",
                str(len(gains)), budget, f"{middle:+.2f} ({low:+.2f} to {high:+.2f})",
                str(sum(x > 0 for x in gains)), str(sum(x < 0 for x in gains)),
            ])  # fmt: skip
    return table(head, lines)


def costs_table(results: list[dict]) -> str:
    """One line per result file and way to make a gradient with a product."""
    if not results:
        return NONE_YET
    head = ["model", "gradient and product by", "time, in plain gradients",
            "memory, of a plain gradient"]  # fmt: skip
    lines = []
    for result in results:
        for variant, row in result["rows"].items():
            low, high = row["spread"]
            lines.append([
                result["settings"]["model"], variant,
                f"{row['time']:.2f} ({low:.2f} to {high:.2f})", f"{row['memory']:.2f}",
            ])  # fmt: skip
    return table(head, lines)


def memory_table(results: list[dict]) -> str:
    """Peak memory of a process before and after a tournament, by number of sources."""
    if not results:
        return NONE_YET
    head = ["model", "sources", "loaded, before planning", "peak of the tournament"]
    lines = [
        [result["settings"]["model"], count, f"{one['before']:.1f}", f"{one['peak']:.1f}"]
        for result in results
        for count, one in result["draws"].items()
    ]
    return table(head, lines)


def abstention_table(results: list[dict]) -> str:
    """How often the order is kept as given, of parts of one source and of families."""
    if not results:
        return NONE_YET
    head = ["model", "objective", "random parts of one family: order kept, 95 % interval",
            "different families: order kept"]  # fmt: skip
    lines = []
    for result in results:
        line = [result["settings"]["model"], result["settings"]["objective"]]
        for kind in ("parts", "families"):
            p = [draw[kind] for draw in result["draws"].values()]
            kept = sum(x > ALIKE for x in p)
            low, high = wilson_interval(kept, len(p))
            line.append(f"{kept} of {len(p)} ({percent(low)} to {percent(high)})")
        lines.append(line)
    return table(head, lines)


def calibration_table(result: dict) -> str:
    """Stated chances against what came out, by kind of statement and model."""
    kinds = {
        "pairs": "sign of a pair, local score, plain SGD",
        "orders": "orders found by trying",
    }
    head = ["what is stated", "model", "statements", "stated on average", "right, 95 % interval",
            "calibration error", "of perfect chances", "with what is known"]  # fmt: skip
    lines = []
    for row in result["rows"]:
        low, high = wilson_interval(round(row["right"] * row["n"]), row["n"])
        model = row["model"] + (" (fitted)" if row["model"] == "course" else "")
        lines.append([
            kinds[row["kind"]], model, str(row["n"]), percent(row["stated"]),
            f"{percent(row['right'])} ({percent(low)} to {percent(high)})", f"{row['error']:.3f}",
            f"{row['by_chance']:.3f}", f"{row['error_of_all']:.3f}",
        ])  # fmt: skip
    return table(head, lines)


def read_result(path: Path) -> dict:
    """One result file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_results(folder: Path, kind: str) -> list[dict]:
    """Results of one benchmark, "pairs" or "orders" and so on, real models first."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}-*.json"))]
    return sorted(found, key=lambda r: r["settings"]["model"] == "course")


def fill(text: str, tables: dict[str, str], file: str = "README.md") -> str:
    """The text of a file with every marked table replaced.

    Every marker must have its table, and every table its marker.
    """
    marked = re.compile(r"(<!-- table:(\w+) -->\n).*?(\n?<!-- /table -->)", re.DOTALL)
    names = [name for _, name, _ in marked.findall(text)]
    if sorted(names) != sorted(tables):
        sys.exit(f"{file}: expected the tables {sorted(tables)}, found {sorted(names)}")
    return marked.sub(lambda m: f"{m[1]}{tables[m[2]]}\n<!-- /table -->", text)


TABLES: dict[str, Callable[[], str]] = {
    "pairs": lambda: pairs_table(read_results(RESULTS, "pairs")),
    "orders": lambda: orders_table(read_results(RESULTS, "orders")),
    "budgets": frontier_tables.budgets_table,
    "score_sentence": frontier_tables.score_sentence,
    "abstention": lambda: abstention_table(read_results(RESULTS, "abstention")),
    "replan": lambda: replan_table(read_results(RESULTS, "replan")),
    "split": lambda: split_table(read_results(RESULTS, "split")),
    "stage": lambda: stage_table(read_results(RESULTS, "stage")),
    "calibration": lambda: calibration_table(read_result(RESULTS / "calibration.json")),
    "costs": lambda: costs_table(read_results(RESULTS, "hvp")),
    "memory": lambda: memory_table(read_results(RESULTS, "memory")),
}


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    filled = fill(text, {name: make() for name, make in TABLES.items()})
    if "--check" in sys.argv[1:]:
        if filled != text:
            sys.exit("README.md does not fit the results; run python scripts/readme_tables.py")
    else:
        path.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
