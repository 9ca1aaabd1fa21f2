"""Does it pay to give every source in two halves, with others between them?

    python benchmarks/split.py networks-sft-n5-k20-adamw-linear-lr0.003
    python benchmarks/split.py course-sft-n4-k20-adamw-linear-lr0.0003

Takes the runs of a result of frontier.py: there all orders of whole sources were trained, and
searched at the same budgets. Here the search orders half stages, of the same rows, half as many
steps each, from the same first guess and its reverse. Gain: how much lower the target's loss ends
than after the order of whole sources, as a share of the gap between the median and the best of
those. Resumable: draws that are there are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from common import environment, save, summary
from frontier import first_guess, material, searched

import lietoolkit as lt
from lietoolkit.order.effort import choose_effort
from lietoolkit.order.search import search_levels

RESULTS = Path(__file__).parent / "results"
BUDGETS = (3.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", help="what follows frontier- in the name of a result file")
    parser.add_argument("--out", default="out/split")
    args = parser.parse_args()
    torch.set_num_threads(1)
    whole = json.loads((RESULTS / f"frontier-{args.cell}.json").read_text(encoding="utf-8"))
    path = Path(args.out) / f"{args.cell}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"draws": {}}
    result |= {"settings": whole["settings"] | {"budgets": BUDGETS}, "environment": environment()}
    for seed in tqdm(whole["draws"], desc="draws"):
        if seed not in result["draws"]:
            result["draws"][seed] = run_draw(whole, seed)
            save(path, result)
    for budget, row in gains(result).items():
        mean, low, high = summary(row)
        print(f"budget {budget:5}: gain {mean:+.2f} ({low:+.2f} to {high:+.2f}), n {len(row)}")


def run_draw(whole: dict, seed: str) -> dict:
    """For each target and budget: the order of halves, what it cost, and the gain."""
    draw, s = whole["draws"][seed], argparse.Namespace(**whole["settings"])
    sources, targets, theta = material(s, s.seed + int(seed))
    names = draw["orders"][0]
    halves = {f"{name}/{part}": sources[name] for name in names for part in (1, 2)}
    labels, steps = list(halves), s.steps // 2
    # Halves of one source are alike, so one of their two orders is enough.
    before = {(i, i + 1) for i in range(0, len(labels), 2)}
    ends: dict[tuple, list[float]] = {}
    found: dict[str, dict] = {}
    for (m, aim), budget in itertools.product(enumerate(targets), BUDGETS):
        plan = searched(whole, draw, m)[f"auto, budget {budget:g}"]
        read = {k: getattr(s, k) if s.model != "networks" else 1 for k in ("batches", "rows")}
        effort = choose_effort(len(labels), steps, s.optimizer, budget, **read)

        def loss(order: list[int], level: int, m: int = m, levels: tuple = effort.levels) -> float:
            r = levels[level]
            key = (tuple(order), r.label)
            if key not in ends:
                thin = {name: half.thinned(r.thin) for name, half in halves.items()}
                ends[key] = lt.run_schedules(
                    thin, targets, theta, [[labels[i] for i in order]], draw["lr"], steps,
                    s.optimizer, sweeps=r.gradients, schedule=s.schedule, warmup=s.warmup,
                )[0].tolist()  # fmt: skip
            return ends[key][m]

        local = [names.index(n) for n in first_guess(whole, draw, m, budget)["order"]]
        first = [[2 * i + part for i in order for part in (0, 1)] for order in (local, local[::-1])]
        search = search_levels(
            loss, len(labels), budget, [r.cost(steps) for r in effort.levels], first, before,
            lengths=[1.0] * len(labels),
        )  # fmt: skip
        column = np.array(draw["losses"])[:, m]
        unsplit = column[draw["orders"].index(plan["order"])]
        split = loss(search.order, len(effort.levels) - 1)
        found.setdefault(aim, {})[f"{budget:g}"] = {
            "order": [labels[i] for i in search.order],
            "cost": search.spent,
            "gain": float((unsplit - split) / (np.median(column) - column.min())),
        }
    return found


def gains(result: dict) -> dict[str, list[float]]:
    """By budget, one number a draw and target."""
    found: dict[str, list[float]] = {}
    for draw in result["draws"].values():
        for by_budget in draw.values():
            for budget, row in by_budget.items():
                found.setdefault(budget, []).append(row["gain"])
    return found


if __name__ == "__main__":
    main()
