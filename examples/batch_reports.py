"""Many reports from one list of parameters, with a page that compares them.

    python examples/batch_reports.py              the three sweeps below, into out/batch
    python examples/batch_reports.py seeds        one of them
    python examples/batch_reports.py --verify 24  also train 24 orders of each plan for real

A sweep is a list of cases, a case a set of parameters. For each one the order is planned and the
report's notebook is run by papermill. What exists is kept: stopped at any moment, the same command
goes on; to make a report anew, remove its folder.

For sweeps of your own, change SWEEPS. To sweep over course notebooks instead, call
``lietoolkit.course.runner.run("04", {"seed": 3}, "out/batch/04-seed-3")``.
"""

from __future__ import annotations

import argparse
import html
import os
from pathlib import Path
from typing import Any

from lietoolkit.cli import read_sources, read_targets
from lietoolkit.planning import plan_order
from lietoolkit.report import build_report, read_plan
from lietoolkit.tasks.generated import sft_families
from lietoolkit.tasks.smollm2 import smollm2_path
from lietoolkit.verify import verify_plan

Case = dict[str, Any]

# Each sweep: what it asks, and its cases. A case holds "seed" (of the rows drawn), "model", or
# "target" (the instruction family whose loss should end low; default: all of the sources).
SWEEPS: dict[str, tuple[str, list[Case]]] = {
    "seeds": (
        "Does the plan depend on the rows drawn?",
        [{"seed": seed} for seed in range(4)],
    ),
    "models": (
        "Do two models want the same order?",
        [{"model": "course"}, *([{"model": "smollm2-135m"}] if smollm2_path() else [])],
    ),
    "targets": (
        "Does the order change with what the model should be good at?",
        [{"target": name} for name in ("addition", "sort", "past_tense", "antonym")],
    ),
}


def name_of(case: Case) -> str:
    """A folder name that says what the case is: seed-3."""
    return "-".join(f"{key}-{value}" for key, value in case.items())


def make(case: Case, folder: Path, verify: int = 0) -> bool:
    """Plan and report one case, unless its report is there; whether anything was done."""
    if (folder / "report.html").exists():
        return False
    if not (folder / "plan.json").exists():
        seed = case.get("seed", 0)
        sources = read_sources([], None, "sft", seed)
        target, _ = read_targets([], sources, "sft", seed)
        if "target" in case:
            target = {case["target"]: sft_families(seed, split="eval")[case["target"]][:16]}
        plan = plan_order(
            case.get("model", "course"), sources, target, steps=1, optimizer="sgd", seed=seed
        )
        if verify:
            plan = verify_plan(plan, verify, steps=[1], folder=folder / "verify")
        plan.save(folder)
    words = ", ".join(f"{key} {value}" for key, value in case.items())
    build_report(folder / "plan.json", folder, title=f"In which order to train: {words}")
    return True


def index(question: str, cases: list[Case], folder: Path) -> Path:
    """Write a page with a row for each report: parameters, order, effect, link."""
    rows, orders = [], set()
    for case in cases:
        plan = read_plan(folder / name_of(case) / "plan.json")
        orders.add(tuple(plan["order"]))
        effect = sum(t["weight"] * t["plan_vs_reverse"] for t in plan["targets"].values())
        survival = [pair["survival"] for pair in plan["confidence"] if pair["survival"] is not None]
        cells = [
            *map(str, case.values()),
            " → ".join(plan["order"]),
            f"{effect:+.2e}",
            f"{min(survival):.0%}" if survival else "not measured",
        ]
        link = f'<a href="{html.escape(name_of(case))}/report.html">report</a>'
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + f"<td>{link}</td>")
    heads = [*cases[0], "order", "plan against reverse, nats", "least sure neighbors", ""]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{html.escape(question)}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem }}
div {{ overflow-x: auto }} table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid }}</style></head>
<body><h1>{html.escape(question)}</h1>
<p>Plans: {len(cases)}. Different orders among them: {len(orders)}. A negative effect says that the
plan is predicted to end lower than its reverse; the neighbors are the adjacent pair whose sign
survives in the fewest resamples.</p>
<div tabindex="0"><table><tr>{head}</tr>{body}</table></div></body></html>
"""
    written = folder / "index.html.part"
    written.write_text(page, encoding="utf-8")
    os.replace(written, folder / "index.html")
    return folder / "index.html"


def main(arguments: list[str] | None = None) -> None:
    """Run the sweeps that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", nargs="*", help=f"{', '.join(SWEEPS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("out/batch"))
    parser.add_argument("--verify", type=int, default=0, help="orders to train for real, each plan")
    options = parser.parse_args(arguments)
    for name in options.sweeps:
        if name not in SWEEPS:
            parser.error(f"expected a sweep out of {', '.join(SWEEPS)}; found {name!r}")
    for name in options.sweeps or SWEEPS:
        question, cases = SWEEPS[name]
        for case in cases:
            done = make(case, options.out / name / name_of(case), options.verify)
            print(f"{name}: {name_of(case)} {'made' if done else 'was there'}")
        print(f"Wrote {index(question, cases, options.out / name)}")


if __name__ == "__main__":
    main()
