"""What planning again on the way gains: real trainers, with and without it, on the same rows.

    python benchmarks/replan.py --optimizer adamw --draws 12
    python benchmarks/replan.py --optimizer sgd --draws 12

Each draw has four generated families as sources, another one as the target, and one first plan;
TRL's SFTTrainer then trains in it once as it stands and once for each way to plan again before
each stage. Gain: the target's last loss as it stands minus the last loss with planning again.
Resumable: draws that are there are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import all_draws, summary

import lietoolkit as lt
from lietoolkit.tasks.generated import sft_families
from lietoolkit.tasks.models import load_model

BATCH = 8
# How the rest is planned again, by name; None leaves the first plan as it is.
WAYS: dict[str, dict[str, Any] | None] = {
    "as planned": None,
    "again by tournament": {"replan": "stage"},
    "again by search": {"replan": "stage", "planner": "search", "budget": 1.0},
}
OPTIMIZERS = {"sgd": "sgd", "adamw": "adamw_torch"}
# Peak step sizes.
RATES = {"sgd": 0.03, "adamw": 3e-4}


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    # The trainers warn of what their next versions will change.
    warnings.simplefilter("ignore")
    path = Path(args.out) / f"{args.model}-sft-{args.optimizer}.json"
    table(all_draws(path, args, lambda draw: run_draw(args, args.seed + draw)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--optimizer", default="adamw", choices=sorted(OPTIMIZERS))
    parser.add_argument("--lr", type=float, help=f"default: {RATES}")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="of each stage")
    parser.add_argument("--budget", type=float, default=1.0, help="of the first plan")
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/replan")
    return parser.parse_args()


def run_draw(args: argparse.Namespace, seed: int) -> dict:
    """Of each way: the order taken, and the target's losses from the start to the end."""
    from datasets import Dataset

    from lietoolkit.trainers import follow_plan

    pick = random.Random(seed)
    train = sft_families(seed, BATCH * args.steps, "train")
    *names, aim = pick.sample(sorted(train), args.sources + 1)
    sources = {name: Dataset.from_list(train[name]) for name in names}
    target = Dataset.from_list(sft_families(seed, 4 * BATCH, "eval")[aim])
    found: dict[str, Any] = {"sources": names, "target": aim, "ways": {}}
    for way, again in WAYS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            trainer = trainer_of(args, sources, seed, folder)
            # The same every time, for nothing here is left to chance.
            plan = lt.plan_order(
                trainer=trainer, sources=sources, target=target, budget=args.budget,
                geometry=False, forgetting=False,
            )  # fmt: skip
            callback = follow_plan(trainer, plan, **(again or {}))
            trainer.train()
        cost = sum(step["cost"] for step in callback.replans)
        found["ways"][way] = {
            "order": list(callback.order),
            "losses": callback.losses,
            "runs": cost / (args.sources * args.steps),
        }
        if again is None:
            assert callback.order == plan.order
            found["planner"] = plan.planner
    return found


def trainer_of(args: argparse.Namespace, sources: dict, seed: int, folder: str) -> Any:
    """TRL's SFTTrainer with its defaults (linear decay, clipping at 1), but float32 and no bar."""
    from datasets import concatenate_datasets
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load_model(args.model)
    return SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=folder, report_to="none", save_strategy="no", disable_tqdm=True, bf16=False,
            use_cpu=True, per_device_train_batch_size=BATCH, num_train_epochs=1, seed=seed,
            learning_rate=args.lr or RATES[args.optimizer], optim=OPTIMIZERS[args.optimizer],
            logging_strategy="no",
        ),
        train_dataset=concatenate_datasets(list(sources.values())),
        processing_class=tokenizer,
    )  # fmt: skip


def gains(result: dict) -> dict[str, dict[str, list[float]]]:
    """Of each way to plan again, by draw: nats gained at the end, and what it cost in runs."""
    draws = [draw["ways"] for draw in result["draws"].values()]
    plain = [draw["as planned"]["losses"][-1] for draw in draws]
    return {
        way: {
            "gain": [end - draw[way]["losses"][-1] for end, draw in zip(plain, draws, strict=True)],
            "runs": [draw[way]["runs"] for draw in draws],
        }
        for way, again in WAYS.items()
        if again is not None
    }


def table(result: dict) -> None:
    """Print the mean gain of each way with its 95 % bootstrap interval."""
    for way, row in gains(result).items():
        mean, low, high = summary(row["gain"])
        won = sum(x > 0 for x in row["gain"])
        lost = sum(x < 0 for x in row["gain"])
        runs = summary(row["runs"])[0]
        print(f"{way:22} gain {mean:+.4f} nats ({low:+.4f} to {high:+.4f}), better in {won}, "
              f"worse in {lost} of {len(row['gain'])}, for {runs:.2f} runs")  # fmt: skip


if __name__ == "__main__":
    main()
