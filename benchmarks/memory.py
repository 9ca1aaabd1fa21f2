"""Peak memory of a tournament of many sources, in lengths of the model's parameters.

    python benchmarks/memory.py --model smollm2-135m --data FOLDER --sources 4 16 100

Each number of sources runs in a process of its own, since a peak is never forgotten. Sources are
the families in turn, each time with another draw of their rows. The first column is what it
holds before it plans: Python, libraries, the model and one vector.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import begun, objectives_of, rows_of, save

import lietoolkit as lt
from lietoolkit.tasks.models import load_model


def main() -> None:
    args = parse()
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return
    path = Path(args.out) / f"{args.model}-{args.objective}.json"
    result = begun(path, args)
    for count in args.sources:
        if str(count) not in result["draws"]:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", str(count)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result["draws"][str(count)] = json.loads(out.splitlines()[-1])
            save(path, result)
    save(path, result)
    print("\nsources   before   peak   in lengths of the parameters")
    for count, one in result["draws"].items():
        print(f"{count:>7} {one['before']:8.1f} {one['peak']:6.1f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--objective", default="sft", choices=["lm", "sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--sources", type=int, nargs="+", default=[4, 16, 100])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunks", type=int, default=4, help="of the bootstrap; 1: none")
    parser.add_argument("--one", type=int, default=0, help="measure this number, here")
    parser.add_argument("--out", default="out/memory")
    return parser.parse_args()


def measure(args: argparse.Namespace, count: int) -> dict[str, float]:
    """Peaks of this process before and after the tournament, in lengths of the parameters."""
    torch.set_num_threads(1)
    model, tokenizer = load_model(args.model)
    space = lt.ParameterSpace(model)
    theta = space.vector(share=True)
    families = rows_of(args.objective, args.data, "train", args.seed, args.rows * count)
    sizes = (args.rows, 1)
    sources: dict[str, lt.ModelObjective] = {}
    for turn in range(-(-count // len(families))):
        names = sorted(families)[: count - len(sources)]
        made = objectives_of(
            space, tokenizer, args.objective, families, names, *sizes, args.seed + turn,
            args.max_length,
        )  # fmt: skip
        sources |= {f"{name} {turn}": source for name, source in made.items()}
    held = rows_of(args.objective, args.data, "eval", args.seed, args.rows)
    aims = sorted(held)[:1]
    targets = objectives_of(
        space, tokenizer, args.objective, held, aims, *sizes, args.seed, args.max_length
    )
    unit = theta.numel() * theta.element_size() / 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    lt.tournament(sources, targets, theta, lr=1e-3, chunks=args.chunks, progress=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"before": before, "peak": peak}


if __name__ == "__main__":
    main()
