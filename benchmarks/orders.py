"""Where the planned order stands among all orders of a few sources, trained for real.

    python benchmarks/orders.py --model course --sources 4 --targets 8 --draws 3
    python benchmarks/orders.py --model smollm2-135m --data FOLDER --sources 4 --targets 6
    python benchmarks/orders.py --sources 50 --sample 300 --data FOLDER --tag 50
    python benchmarks/orders.py --sources 85 --sample 300 --objective lm --data packages --tag 85

The plan of each target is the tournament's; the truth of all targets comes from one run of all
orders, or of a random sample. Beside it stand the baselines, in both directions. Resumable.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import all_draws, objectives_of, rows_of, summary

import lietoolkit as lt
from lietoolkit.order.baselines import baseline_orders
from lietoolkit.order.linear_ordering import EXACT_LIMIT
from lietoolkit.tasks.models import load_model


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    tag = f"-{args.tag}" if args.tag else ""
    out = Path(args.out) / f"{args.model}-{args.objective}-k{args.steps}{tag}"
    path = out.with_suffix(".json")
    table(all_draws(path, args, lambda draw: run_draw(args, draw, out)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files, or packages; default: generated")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--sample", type=int, default=0, help="random orders; 0: all there are")
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", default="out/orders")
    parser.add_argument("--tag", default="")
    return parser.parse_args()


def run_draw(args: argparse.Namespace, draw: int, out: Path) -> dict:
    seed = args.seed + draw
    model, tokenizer = load_model(args.model, dtype=args.dtype)
    space = lt.ParameterSpace(model)
    theta = space.vector()
    train = rows_of(args.objective, args.data, "train", seed, 4 * args.rows)
    held = rows_of(args.objective, args.data, "eval", seed, 4 * args.rows)
    pick = random.Random(seed)
    names = sorted(pick.sample(sorted(train), args.sources))
    aims = sorted(pick.sample(sorted(held), args.targets))
    sizes = (args.rows, 1, seed, args.max_length)
    sources = objectives_of(space, tokenizer, args.objective, train, names, *sizes)
    targets = objectives_of(space, tokenizer, args.objective, held, aims, *sizes)
    rule = lt.step_size(sources, theta, progress=True)
    if args.sample:
        every = [pick.sample(names, len(names)) for _ in range(args.sample)]
    else:
        every = [list(order) for order in itertools.permutations(names)]
    run = {"folder": f"{out}-{draw}", "progress": True}
    solo = lt.run_schedules(
        sources, targets, theta, [[n] for n in names], rule.lr, args.steps, **run
    )
    plans = {}
    for m, (aim, target) in enumerate(targets.items()):
        t = lt.tournament(sources, target, theta, rule.lr, args.steps, progress=True)
        # Minus the final loss ranks like the gain.
        gains = dict(zip(names, (-solo[:, m]).tolist(), strict=True))
        baselines = baseline_orders({**t.gradients, "solo gain": gains})
        best = "exact" if len(names) <= EXACT_LIMIT else "search"
        plans[aim] = {"tournament, Borda": t.order, f"tournament, {best}": t.best_order(best)}
        plans[aim] |= {name: baseline["order"] for name, baseline in baselines.items()}
    chosen = [order for found in plans.values() for order in found.values() if order not in every]
    losses = lt.run_schedules(sources, targets, theta, every + chosen, rule.lr, args.steps, **run)
    return {
        "lr": rule.lr,
        "lambda_max": rule.lambda_max,
        "sources": names,
        "targets": aims,
        # A sample is drawn again by its seed, and long.
        "orders": chosen if args.sample else every,
        "sampled": len(every),
        "losses": losses.tolist(),
        "plans": plans,
    }


def standings(result: dict) -> dict[str, dict[str, list[float]]]:
    """Percentile and gap share of every planner, one number per draw and target.

    Among the orders that were not chosen by anybody: all there are, or the sample. 100 is better
    than all of them. The gap share is (median - chosen) / (median - best of them).
    """
    found: dict[str, dict[str, list[float]]] = {}
    for draw in result["draws"].values():
        losses = np.array(draw["losses"])
        first = len(losses) - len(draw["orders"])
        places = {tuple(order): first + i for i, order in enumerate(draw["orders"])}
        for m, aim in enumerate(draw["targets"]):
            column = losses[: draw.get("sampled", len(losses)), m]
            for planner, order in draw["plans"][aim].items():
                place = places[tuple(order)]
                chosen = losses[place, m]
                # Without itself, where it is one of them.
                others = len(column) - (place < len(column))
                ties = (column == chosen).sum() - (place < len(column))
                worse = (column > chosen).sum() + 0.5 * ties
                row = found.setdefault(planner, {"percentile": [], "gap share": [], "rank": []})
                row["percentile"].append(float(100 * worse / others))
                gap = np.median(column) - column.min()
                row["gap share"].append(float((np.median(column) - chosen) / gap))
                row["rank"].append(1 + int((column < chosen).sum()))
    return found


def table(result: dict) -> None:
    print(f"{'planner':34}{'percentile':>11}{'95 % interval':>17}{'gap share':>11}  ranks")
    for planner, row in standings(result).items():
        mean, low, high = summary(row["percentile"])
        print(
            f"{planner:34}{mean:>11.1f}{f'{low:.1f} to {high:.1f}':>17}"
            f"{np.mean(row['gap share']):>11.2f}  {row['rank']}"
        )


if __name__ == "__main__":
    main()
