"""What every benchmark shares: data from files, one JSON with settings, versions and hardware."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lietoolkit as lt
from lietoolkit.environment import hardware, versions
from lietoolkit.tasks.batches import make_batches
from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import preference_families, sft_families
from lietoolkit.tasks.sources import load_rows

GENERATED = {"sft": sft_families, "dpo": preference_families, "lm": text_domains}


def environment() -> dict[str, Any]:
    """Versions and hardware, for every result file."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {**versions(), **hardware(device)}


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that decide the numbers; data by its name, wherever it lies."""
    kept = {
        k: v
        for k, v in vars(args).items()
        if k not in ("out", "threads", "tag", "one", "peak", "curvlinops", "variants", "repeats")
    }
    if kept.get("data"):
        kept["data"] = "/".join(Path(kept["data"]).parts[-2:])
    return kept


def rows_of(objective: str, data: str | None, split: str, seed: int, count: int) -> dict[str, list]:
    """Rows of every family: generated ones, the files of a folder, or the folders of
    installed packages.

    Of a file, training rows come from its first half and evaluation rows from its second, so that
    a target never holds a source's rows.
    """
    if data is None:
        return GENERATED[objective](seed=seed, rows=count, split=split)
    families = {}
    if data == "packages":
        site = Path(sysconfig.get_paths()["purelib"])
        for folder in sorted({path.parent for path in site.rglob("__init__.py")}):
            # Whole files to either side; of each every other passage, without the licence.
            files = sorted(folder.glob("*.py"))[split == "eval" :: 2]
            texts = [path.read_text("utf-8", "ignore") for path in files]
            rows = [
                {"text": text[i : i + 600]}
                for text in texts
                for i in range(600, len(text) - 600, 1200)
            ]
            if len(rows) >= count:
                name = folder.relative_to(site).as_posix()
                families[name] = random.Random(seed).sample(rows, count)
        return families
    for path in sorted(Path(data).glob("*.jsonl")):
        rows = list(load_rows(str(path), objective, name=path.stem))
        half = len(rows) // 2
        families[path.stem] = rows[:half] if split == "train" else rows[half:]
    return families


def objectives_of(
    space: lt.ParameterSpace,
    tokenizer: Any,
    objective: str,
    families: dict[str, list],
    names: list[str],
    batch_size: int,
    batches: int,
    seed: int,
    max_length: int,
) -> dict[str, lt.ModelObjective]:
    """One objective per named family."""
    out = {}
    for name in names:
        made, _ = make_batches(
            families[name],
            tokenizer,
            objective,
            batch_size=batch_size,
            max_length=max_length,
            name=name,
            limit_batches=batches,
            seed=seed,
        )
        out[name] = lt.ModelObjective(space.model, made, objective, space=space, name=name)
    return out


def summary(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def begun(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The draws that are there already, with the settings and environment of this call.

    Raises:
        SystemExit: they were made with other settings.
    """
    result = json.loads(path.read_text()) if path.exists() else {"draws": {}}
    settings = settings_of(args)
    for key, value in result.get("settings", {}).items():
        # More draws, or more of a list, add to a result and leave what is there as it was.
        adds = key == "draws" or isinstance(value, list)
        if not adds and settings.get(key, value) != value:
            option = f"--{key.replace('_', '-')}"
            sys.exit(
                f"{path}: made with {option} {value}, found {settings[key]}; name another --out"
            )
    return result | {"settings": settings, "environment": environment()}


def all_draws(
    path: Path, args: argparse.Namespace, run_draw: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """The result with ``args.draws`` draws; those that are not there yet are run, and kept."""
    result = begun(path, args)
    for draw in range(args.draws):
        if str(draw) not in result["draws"]:
            result["draws"][str(draw)] = run_draw(draw)
            save(path, result)
    save(path, result)
    return result


def save(path: Path, result: dict[str, Any]) -> None:
    """Write JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
