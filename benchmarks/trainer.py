"""The two lines for TRL, against the package: does a trainer end where `run_schedules` ends?

    python benchmarks/trainer.py --model smollm2-135m --objective sft --data FOLDER
    python benchmarks/trainer.py --model smollm2-135m --objective dpo --data FOLDER

SFTTrainer or DPOTrainer with its own defaults (linear decay, clipping at 1, gradient checkpointing)
but float32, planned and trained in that order; then the same order by the package. Both read the
target's last loss.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import environment, rows_of, save, settings_of

import lietoolkit as lt
from lietoolkit.tasks.models import load_model


def main() -> None:
    args = parse()
    # The trainers warn of what their next versions will change.
    warnings.simplefilter("ignore")
    result = {**compare(args), "settings": settings_of(args), "environment": environment()}
    save(Path(args.out) / f"{args.model}-{args.objective}.json", result)
    print(f"{' -> '.join(result['order'])}: target {result['before']:.6f} before")
    print(f"{result['trainer']:.6f} after TRL's trainer, {result['package']:.6f} after "
          f"run_schedules, difference {result['trainer'] - result['package']:.1e}")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="course")
    parser.add_argument("--objective", default="sft", choices=["sft", "dpo"])
    parser.add_argument("--data", help="folder of JSONL files; default: generated families")
    parser.add_argument("--sources", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16, help="of each source")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/trainer")
    return parser.parse_args()


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """The order, and the target's loss before, after the trainer, and after the package."""
    from datasets import Dataset, concatenate_datasets
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from lietoolkit.trainers import follow_plan

    train = rows_of(args.objective, args.data, "train", args.seed, args.rows)
    held_out = rows_of(args.objective, args.data, "eval", args.seed, args.rows)
    *names, aim = sorted(train)[: args.sources + 1]
    sources = {name: Dataset.from_list(train[name][: args.rows]) for name in names}
    target = Dataset.from_list(held_out[aim][: args.rows])
    config, kind = (SFTConfig, SFTTrainer) if args.objective == "sft" else (DPOConfig, DPOTrainer)
    model, tokenizer = load_model(args.model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = kind(
            model,
            args=config(
                output_dir=folder, report_to="none", save_strategy="no", bf16=False, use_cpu=True,
                per_device_train_batch_size=args.batch_size, num_train_epochs=1, seed=args.seed,
                per_device_eval_batch_size=args.rows, learning_rate=args.lr,
            ),
            train_dataset=concatenate_datasets(list(sources.values())),
            processing_class=tokenizer,
        )  # fmt: skip
        plan = lt.plan_order(
            trainer=trainer, sources=sources, target=target, planner="tournament",
            batches=-(-args.rows // args.batch_size), geometry=False, forgetting=False,
        )  # fmt: skip
        follow_plan(trainer, plan)
        before = trainer.evaluate(target)["eval_loss"]
        trainer.train()
        after = trainer.evaluate(target)["eval_loss"]
    made = plan.material
    assert made is not None
    package = lt.run_schedules(
        made.sources, made.targets, made.theta, [plan.order], plan.lr, plan.steps, made.optimizer,
        schedule=plan.schedule, warmup=plan.warmup, progress=True,
    )  # fmt: skip
    return {"order": plan.order, "before": before, "trainer": after, "package": package.item()}


if __name__ == "__main__":
    main()
