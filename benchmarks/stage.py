"""Sign accuracy of pair effects after many steps, with any optimizer: local score and stage
commutator against training both orders for real.

    python benchmarks/stage.py --optimizer adamw --lr 3e-4 --steps 1 5 20 50

One decision is a pair of sources for a target. The local score describes plain SGD whatever is
trained with, so it is shown as what a user of it would get. "Best solo last" trains last what helps
the target most alone. Resumable: draws that are there are kept, and get what they lack.
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
from common import begun, objectives_of, rows_of, save

import lietoolkit as lt
from lietoolkit.statistics import wilson_interval
from lietoolkit.tasks.models import load_model

PREDICTORS = ("local", "stage", "best solo last", "best solo first")


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    path = Path(args.out) / f"{args.model}-{args.objective}-{args.optimizer}.json"
    result = begun(path, args)
    for draw, k in itertools.product(range(args.draws), args.steps):
        found = result["draws"].setdefault(str(draw), {})
        one = found.setdefault(str(k), {})
        if not {"local", "stage", "measured"} <= set(one):
            fill(one, args, args.seed + draw, k, f"{path.with_suffix('')}-{draw}")
            save(path, result)
    save(path, result)
    for k, row in accuracies(result).items():
        print(f"\nk = {k}, n = {row['n']}")
        for name in PREDICTORS:
            one = row[name]
            print(f"{name:18}{one['right']:8.1%}  {one['low']:.1%} to {one['high']:.1%}"
                  f"  larger half {one['larger half']:.1%}")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "momentum", "adamw"])
    parser.add_argument("--lr", type=float, help="default: from --eta-lambda")
    parser.add_argument("--eta-lambda", type=float, default=0.1, help="lr times curvature")
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/stage")
    return parser.parse_args()


def fill(found: dict, args: argparse.Namespace, seed: int, k: int, folder: str) -> None:
    """Predicted and measured effects of all pairs, {kind: {target: [N, N]}}, where not there."""
    model, tokenizer = load_model(args.model)
    # The small model in float64: effects of one step are not lost in rounding.
    model = model.double() if args.model == "course" else model
    space = lt.ParameterSpace(model)
    train = rows_of(args.objective, args.data, "train", seed, args.rows)
    held = rows_of(args.objective, args.data, "eval", seed, args.rows)
    pick = random.Random(seed)
    names = sorted(pick.sample(sorted(train), args.sources))
    aims = sorted(pick.sample(sorted(held), args.targets))
    sizes = (args.rows, 1, seed, args.max_length)
    sources = objectives_of(space, tokenizer, args.objective, train, names, *sizes)
    targets = objectives_of(space, tokenizer, args.objective, held, aims, *sizes)
    theta = space.vector()
    lr = args.lr or args.eta_lambda / max(lt.step_size(sources, theta).lambda_max.values())
    found |= {"lr": lr, "sources": names}
    for method in sorted({"local", "stage"} - set(found)):
        t = lt.tournament(sources, targets, theta, lr, k, method, args.optimizer, progress=True)
        found[method] = {aim: matrix.tolist() for aim, matrix in t.targets.items()}
        found[f"{method} cost"] = t.cost.total
    if "measured" in found:
        return
    pairs = list(itertools.permutations(range(len(names)), 2))
    orders = [[n] for n in names] + [[names[i], names[j]] for i, j in pairs]
    losses = lt.run_schedules(
        sources, targets, theta, orders, lr, k, args.optimizer, folder=folder, progress=True
    ).numpy()
    found["solo"] = {aim: losses[: len(names), m].tolist() for m, aim in enumerate(aims)}
    ends = dict(zip(pairs, losses[len(names) :], strict=True))
    found["measured"] = {
        aim: [[float(ends[i, j][m] - ends[j, i][m]) if i != j else 0.0 for j in range(len(names))]
              for i in range(len(names))]
        for m, aim in enumerate(aims)
    }  # fmt: skip


def accuracies(result: dict) -> dict[int, dict]:
    """Per number of steps: decisions, and of each predictor its share of signs right.

    The larger half are the decisions whose measured effect is at least the median in size.
    """
    found = {}
    for k in sorted({int(k) for draw in result["draws"].values() for k in draw}):
        effects: list[float] = []
        guesses: dict[str, list[float]] = {name: [] for name in PREDICTORS}
        for draw in result["draws"].values():
            if str(k) not in draw:
                continue
            one = draw[str(k)]
            for aim, measured in one["measured"].items():
                solo = one["solo"][aim]
                for i, j in itertools.combinations(range(len(one["sources"])), 2):
                    effects.append(measured[i][j])
                    guesses["local"].append(one["local"][aim][i][j])
                    guesses["stage"].append(one["stage"][aim][i][j])
                    # Negative: i first; i helps less alone, so its loss alone is higher.
                    guesses["best solo last"].append(solo[j] - solo[i])
                    guesses["best solo first"].append(solo[i] - solo[j])
        large = np.abs(effects) >= np.median(np.abs(effects))
        found[k] = {"n": len(effects)}
        for name, values in guesses.items():
            right = np.sign(values) == np.sign(effects)
            low, high = wilson_interval(int(right.sum()), len(right))
            found[k][name] = {"right": float(right.mean()), "low": low, "high": high,
                              "larger half": float(right[large].mean())}  # fmt: skip
    return found


if __name__ == "__main__":
    main()
