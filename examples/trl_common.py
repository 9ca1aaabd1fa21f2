"""Model, data and options that the TRL examples share."""

from __future__ import annotations

import argparse
from typing import Any

from datasets import Dataset, concatenate_datasets

from lietoolkit.tasks.generated import preference_families, sft_families
from lietoolkit.tasks.models import load_model, resolve_device

SOURCES = {
    "sft": ("addition", "sort", "copy", "past_tense"),
    "dpo": ("right_sum", "right_case", "right_order", "in_french"),
}


def options(about: str | None) -> argparse.Namespace:
    """--model, --rows, --out, --seed."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--model", default="course", help="course, smollm2-135m, folder, hub name")
    parser.add_argument("--rows", type=int, default=32, help="of each source")
    parser.add_argument("--out", default="out/trl", help="folder of checkpoints and logs")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def model_and_tokenizer(name: str) -> tuple[Any, Any]:
    """By short name, folder or hub name, in float32."""
    return load_model(name)


def families(kind: str, rows: int, seed: int) -> tuple[dict[str, Dataset], Dataset]:
    """Sources to train on, and held-out rows of all of them as the target."""
    make = sft_families if kind == "sft" else preference_families
    train, held_out = make(seed, rows, "train"), make(seed, 4, "eval")
    sources = {name: Dataset.from_list(train[name]) for name in SOURCES[kind]}
    target = Dataset.from_list([row for name in SOURCES[kind] for row in held_out[name]])
    return sources, target


def everything(sources: dict[str, Dataset]) -> Dataset:
    """All sources as one data set: what the trainer would shuffle without a plan."""
    return concatenate_datasets(list(sources.values()))


def settings(args: argparse.Namespace, lr: float) -> dict[str, Any]:
    """What every trainer here is given."""
    cpu = resolve_device("auto").type == "cpu"
    return {
        "output_dir": args.out, "learning_rate": lr, "num_train_epochs": 1,
        "per_device_train_batch_size": 8, "seed": args.seed, "use_cpu": cpu, "bf16": not cpu,
        "report_to": "none", "save_strategy": "no", "logging_steps": 4,
    }  # fmt: skip
