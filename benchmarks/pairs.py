"""Sign accuracy of predicted order effects against training both orders for real.

    python benchmarks/pairs.py --model course --objective sft --draws 3
    python benchmarks/pairs.py --model smollm2-135m --objective sft --data FOLDER --steps 1 5
    python benchmarks/pairs.py --model course --lora 8 --tag lora --draws 3

One draw is a set of sources, a set of targets, and all pairs. Predictions are made in float32, as
the package makes them; truth is trained in float64 unless told otherwise (a large model).
With --lora adapters are trained, after some steps of AdamW on all sources together: before these
their A matrices have no gradient. Results are written as they come and found again when the command
is repeated.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import begun, objectives_of, rows_of, save

import lietoolkit as lt
from lietoolkit.geometry.objective import WeightedSum
from lietoolkit.order.stepsize import step_size
from lietoolkit.statistics import wilson_interval
from lietoolkit.tasks.models import load_model
from lietoolkit.training.optimizers import optimizer_from
from lietoolkit.training.stages import run_stage


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    out = Path(args.out) / f"{args.model}-{args.objective}{'-' + args.tag if args.tag else ''}"
    path = out.with_suffix(".json")
    result = begun(path, args)
    for draw in range(args.draws):
        run_draw(args, draw, out, path, result)
    save(path, result)
    table(result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--sources", type=int, default=6)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--methods", nargs="+", default=["local", "trotter"])
    parser.add_argument("--eta-lambda", type=float, default=0.1, help="lr times curvature")
    parser.add_argument("--rows", type=int, default=8, help="rows in a batch")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters; 0: all weights")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before, with --lora")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--truth-dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", default="out/pairs")
    parser.add_argument("--tag", default="")
    return parser.parse_args()


def run_draw(args: argparse.Namespace, draw: int, out: Path, path: Path, result: dict) -> None:
    entry = result["draws"].setdefault(str(draw), {"predicted": {}, "measured": {}})
    predictions = len(args.methods) * len(entry.get("targets", ()))
    if len(entry["predicted"]) >= predictions > 0 and len(entry["measured"]) >= len(args.steps):
        return
    seed = args.seed + draw
    train = rows_of(args.objective, args.data, "train", seed, 4 * args.rows)
    held = rows_of(args.objective, args.data, "eval", seed, 4 * args.rows)
    pick = random.Random(seed)
    names = sorted(pick.sample(sorted(train), min(args.sources, len(train))))
    aims = sorted(pick.sample(sorted(held), min(args.targets, len(held))))
    entry["sources"], entry["targets"] = names, aims

    def build(dtype: str) -> tuple:
        model, tokenizer = load_model(args.model, dtype=dtype)
        if args.lora:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(seed)
            model = get_peft_model(model, LoraConfig(r=args.lora, task_type="CAUSAL_LM")).eval()
        space = lt.ParameterSpace(model)
        sizes = (args.rows, 1, seed, args.max_length)
        sources = objectives_of(space, tokenizer, args.objective, train, names, *sizes)
        targets = objectives_of(space, tokenizer, args.objective, held, aims, *sizes)
        return space, sources, targets

    space, sources, targets = build("float32")
    theta = start = warmed(args, sources, space.vector()) if args.lora else space.vector()
    if "lambda_max" not in entry:
        rule = step_size(sources, theta, progress=True)
        entry["lambda_max"] = rule.lambda_max
        entry["lr"] = args.eta_lambda / max(rule.lambda_max.values())
        save(path, result)
        print(f"draw {draw}: lr {entry['lr']:.3g}, lambda_max {rule.lambda_max}", flush=True)
    lr = entry["lr"]
    for method, aim in itertools.product(args.methods, aims):
        key = f"{method} {aim}"
        if key in entry["predicted"]:
            continue
        began = time.perf_counter()
        t = lt.tournament(sources, targets[aim], theta, lr, 1, method, progress=True)
        entry["predicted"][key] = {
            "matrix": t.matrix.tolist(),
            "gradients": t.gradients,
            "cost": t.cost.to_dict(),
            "seconds": time.perf_counter() - began,
        }
        save(path, result)
        print(f"draw {draw}: {key} {entry['predicted'][key]['seconds']:.0f} s", flush=True)
    del space, sources, targets
    space, sources, targets = build(args.truth_dtype)
    theta = start.to(space.dtype)
    pairs = list(itertools.permutations(names, 2))
    for steps in args.steps:
        if str(steps) in entry["measured"]:
            continue
        orders = [[name] for name in names] + [list(p) for p in pairs]
        losses = lt.run_schedules(
            sources, targets, theta, orders, lr, steps, folder=f"{out}-{draw}", progress=True
        )
        start_losses = [float(t.loss(theta)) for t in targets.values()]
        entry["measured"][str(steps)] = {
            "start": dict(zip(aims, start_losses, strict=True)),
            "solo": {n: losses[i].tolist() for i, n in enumerate(names)},
            "pairs": {
                f"{a} -> {b}": losses[len(names) + i].tolist() for i, (a, b) in enumerate(pairs)
            },
        }
        save(path, result)


def warmed(args: argparse.Namespace, sources: dict, theta: torch.Tensor) -> torch.Tensor:
    """Adapters after some steps on all sources together."""
    everything = WeightedSum(sources, {name: 1 / len(sources) for name in sources})
    adamw = optimizer_from("adamw")
    state = run_stage(everything, adamw.init(theta), adamw, [1e-3] * args.warm_up)
    return state.theta


def decisions(result: dict, steps: str) -> list[dict]:
    """One row per (pair, target): the measured effect and every predictor's value."""
    rows = []
    for draw in result["draws"].values():
        if steps not in draw["measured"]:
            continue
        names, measured, k = draw["sources"], draw["measured"][steps], int(steps)
        for m, aim in enumerate(draw["targets"]):
            for i, j in itertools.combinations(range(len(names)), 2):
                a, b = names[i], names[j]
                first, second = f"{a} -> {b}", f"{b} -> {a}"
                row = {"effect": measured["pairs"][first][m] - measured["pairs"][second][m]}
                for key, value in draw["predicted"].items():
                    method, target = key.split(" ", 1)
                    if target == aim:
                        row[method] = k * k * value["matrix"][i][j]
                        if method == "local":
                            norm, cosine = (value["gradients"][x] for x in GRADIENT_FIGURES)
                # Negative: a goes first.
                row["gradient norm, large first"] = norm[b] - norm[a]
                row["gradient norm, small first"] = norm[a] - norm[b]
                row["cosine, aligned last"] = cosine[a] - cosine[b]
                row["cosine, aligned first"] = cosine[b] - cosine[a]
                solo = measured["solo"]
                row["solo gain, best last"] = solo[b][m] - solo[a][m]
                row["solo gain, best first"] = solo[a][m] - solo[b][m]
                rows.append(row)
    return rows


GRADIENT_FIGURES = ("gradient norm", "cosine")


def accuracies(result: dict) -> dict[int, dict]:
    """Per number of steps: decisions, median effect, and for each predictor its accuracy.

    ``{steps: {"n", "median", "predictors": {name: {"right", "low", "high", "larger half"}}}}``;
    shares between 0 and 1, ``low`` and ``high`` the 95 % Wilson interval. The larger half are the
    decisions whose measured effect is at least the median in size.
    """
    found = {}
    for steps in sorted({int(s) for d in result["draws"].values() for s in d["measured"]}):
        rows = decisions(result, str(steps))
        effects = np.array([row.pop("effect") for row in rows])
        median = float(np.median(np.abs(effects)))
        large = np.abs(effects) >= median
        predictors = {}
        # Of the predictors that every draw has.
        for name in [name for name in rows[0] if all(name in row for row in rows)]:
            right = np.sign([row[name] for row in rows]) == np.sign(effects)
            low, high = wilson_interval(int(right.sum()), len(right))
            predictors[name] = {
                "right": float(right.mean()),
                "low": low,
                "high": high,
                "larger half": float(right[large].mean()),
            }
        found[steps] = {"n": len(rows), "median": median, "predictors": predictors}
    return found


def table(result: dict) -> None:
    """Print accuracy with 95 % Wilson intervals, all decisions and the larger half."""
    for steps, found in accuracies(result).items():
        print(f"\nk = {steps}, n = {found['n']}, median |effect| {found['median']:.3g}")
        print(f"{'predictor':34}{'right':>8}{'95 % interval':>18}{'larger half':>13}")
        for name, row in found["predictors"].items():
            interval = f"{row['low']:.1%} to {row['high']:.1%}"
            print(f"{name:34}{row['right']:>8.1%}{interval:>18}{row['larger half']:>13.1%}")


if __name__ == "__main__":
    main()
