"""How often the planner says that order does not matter, where it cannot and where it may.

    python benchmarks/abstention.py --model course --objective sft --draws 40
    python benchmarks/abstention.py --model smollm2-135m --objective sft --data FOLDER --draws 10

A draw: a target, and sources that are random parts of one family, or different families. Resumable:
draws that are there are kept.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import all_draws, objectives_of, rows_of

import lietoolkit as lt
from lietoolkit.order.effort import ALIKE
from lietoolkit.statistics import wilson_interval
from lietoolkit.tasks.models import load_model


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    path = Path(args.out) / f"{args.model}-{args.objective}.json"
    model, tokenizer = load_model(args.model)
    space = lt.ParameterSpace(model)
    result = all_draws(path, args, lambda draw: chances(args, space, tokenizer, draw))
    for kind in ("parts", "families"):
        p = [draw[kind] for draw in result["draws"].values()]
        kept = sum(x > ALIKE for x in p)
        low, high = wilson_interval(kept, len(p))
        print(f"{kind:9} abstains in {kept} of {len(p)} draws ({low:.0%} to {high:.0%})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8, help="of a source, in one batch")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--out", default="out/abstention")
    return parser.parse_args()


def chances(
    args: argparse.Namespace, space: lt.ParameterSpace, tokenizer: object, draw: int
) -> dict:
    """The permutation test's p for parts of one family and for several families."""
    n, rows = args.sources, args.rows
    train = rows_of(args.objective, args.data, "train", draw, n * rows)
    held = rows_of(args.objective, args.data, "eval", draw, rows)
    pick = random.Random(draw)
    enough = sorted(name for name, have in train.items() if len(have) >= n * rows)
    whole = list(train[pick.choice(enough)])
    pick.shuffle(whole)
    made = {
        "parts": {f"part {i}": whole[i * rows : (i + 1) * rows] for i in range(n)},
        "families": {name: train[name][:rows] for name in sorted(pick.sample(sorted(train), n))},
    }
    aim = pick.choice(sorted(held))
    sizes = (rows, 1, draw, args.max_length)
    target = objectives_of(space, tokenizer, args.objective, held, [aim], *sizes)[aim]
    found = {}
    for kind, sources in made.items():
        objectives = objectives_of(space, tokenizer, args.objective, sources, list(sources), *sizes)
        t = lt.tournament(objectives, target, space.vector(), lr=1e-3, chunks=args.chunks)
        found[kind] = t.resampler.chance()
    return found


if __name__ == "__main__":
    main()
