"""Do stated chances hold? Fitted on the course model, tested on everything else.

    python benchmarks/calibration.py            # fits, prints, writes benchmarks/results
    python benchmarks/calibration.py --check    # fails unless the package states what was fitted

Reads the results of pairs.py and frontier.py. The calibration error is the mean distance between
the stated chance and the share that is right, in ten bins of the stated chance, weighted by their
size. Few statements show an error even where their chances are perfect; it is told beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import environment, save
from frontier import searches

from lietoolkit.order.calibration import (
    ORDERS,
    PAIRS,
    order_chances,
    pair_chances,
    typical_effect,
)

RESULTS = Path(__file__).parent / "results"
# Coarse on purpose: so few decisions fit no finer numbers.
LEVELS, SLOPES = np.arange(0, 1.55, 0.1).round(2), (0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)
GRIDS = {
    "pairs": (np.arange(1.5, 4.05, 0.1).round(2), np.arange(0, 1.05, 0.1).round(2),
              np.arange(0, 1.05, 0.1).round(2)),
    "orders": (LEVELS, SLOPES),
}  # fmt: skip
STATED = {"pairs": PAIRS, "orders": ORDERS}


class Statements(NamedTuple):
    """What was stated of one model, ready for any fit, and whether it was right.

    ``known`` are as many that nobody had to guess: they are stated as certain, and are.
    """

    features: tuple[np.ndarray, ...]
    right: np.ndarray
    known: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rows, fits = [], {}
    for kind, found in {"pairs": pairs(), "orders": orders()}.items():
        fits[kind] = min(
            itertools.product(*GRIDS[kind]), key=lambda fit: surprise(kind, found["course"], fit)
        )
        for model, stated in found.items():
            row = {"kind": kind, "model": model} | reliability(kind, stated, fits[kind])
            rows.append(row)
            print(
                f"{kind:10}{model:14} n {row['n']:5}  stated {row['stated']:.3f}  right "
                f"{row['right']:.3f}  calibration error {row['error']:.3f}, of perfect chances "
                f"{row['by_chance']:.3f}; {row['known']} more are known, error of all "
                f"{row['error_of_all']:.3f}"
            )
    fits = {kind: [float(x) for x in fit] for kind, fit in fits.items()}
    print(fits)
    if args.check:
        if fits != {kind: list(map(float, fit)) for kind, fit in STATED.items()}:
            raise SystemExit(f"order/calibration.py states {STATED}; the results fit {fits}")
        return
    save(RESULTS / "calibration.json", {"fits": fits, "rows": rows, "environment": environment()})


def pairs() -> dict[str, Statements]:
    """Every pair of every target: is the sign of the local score right?"""
    found: dict[str, list] = {}
    for path in sorted(RESULTS.glob("pairs-*.json")):
        result = json.loads(path.read_text())
        adapters = ", LoRA" if result["settings"].get("lora") else ""
        rows = found.setdefault(result["settings"]["model"] + adapters, [])
        for draw in result["draws"].values():
            names = draw["sources"]
            curvature = draw["lr"] * max(draw["lambda_max"].values())
            for k, (m, aim) in itertools.product(draw["measured"], enumerate(draw["targets"])):
                matrix = torch.tensor(draw["predicted"][f"local {aim}"]["matrix"]).double()
                after = draw["measured"][k]["pairs"]
                for i, j in itertools.combinations(range(len(names)), 2):
                    a, b = names[i], names[j]
                    effect = after[f"{a} -> {b}"][m] - after[f"{b} -> {a}"][m]
                    predicted = float(matrix[i, j])
                    reach = int(k) * curvature
                    rows.append((predicted, typical_effect(matrix), reach, effect * predicted > 0))
    return _gathered(found)


def orders() -> dict[str, Statements]:
    """Every order that "auto" chose: is it better than its reverse, and than each swap?

    Where both were trained it is known.
    """
    found: dict[str, list] = {}
    known: dict[str, int] = {}
    for path in sorted(RESULTS.glob("frontier-*.json")):
        result = json.loads(path.read_text())
        model = result["settings"]["model"]
        rows = found.setdefault(model, [])
        for draw in result["draws"].values():
            if "tried" in draw:  # a sample: what an order is held against was not trained
                continue
            names = draw["orders"][0]
            places = {tuple(map(names.index, order)): n for n, order in enumerate(draw["orders"])}
            for m in range(len(draw["targets"])):
                for _, search in searches(result, draw, m):
                    if search is None:
                        continue
                    order = search.order
                    others = [order[::-1]]
                    for p in range(len(order) - 1):
                        others.append([*order[:p], order[p + 1], order[p], *order[p + 2 :]])
                    if search.trained(order) is not None:
                        every, others = others, [o for o in others if search.trained(o) is None]
                        known[model] = known.get(model, 0) + len(every) - len(others)
                    if not others:
                        continue
                    loss, *losses = (draw["losses"][places[tuple(o)]][m] for o in [order, *others])
                    right = [loss < other for other in losses]
                    rows += zip(*search.lead(order, others), right, strict=True)
    return {model: s._replace(known=known.get(model, 0)) for model, s in _gathered(found).items()}


def _gathered(found: dict[str, list]) -> dict[str, Statements]:
    columns = {model: np.array(rows, dtype=float).T for model, rows in found.items()}
    return {model: Statements(tuple(c[:-1]), c[-1]) for model, c in columns.items()}


def chances(kind: str, features: Sequence[np.ndarray], fit: Sequence[float]) -> np.ndarray:
    """The package's own formula."""
    if kind == "pairs":
        return pair_chances(*map(torch.from_numpy, features), fit).numpy()
    return order_chances(*features, fit)


def surprise(kind: str, stated: Statements, fit: Sequence[float]) -> float:
    """Mean negative log likelihood, nats."""
    p = np.clip(chances(kind, stated.features, fit), 1e-4, 1 - 1e-4)
    return float(-np.log(np.where(stated.right > 0, p, 1 - p)).mean())


def reliability(kind: str, made: Statements, fit: Sequence[float]) -> dict:
    """Stated against right, in all and by bins."""
    p, right = chances(kind, made.features, fit), made.right
    place = np.minimum((10 * p).astype(int), 9)
    bins = [
        {
            "n": int((place == b).sum()),
            "stated": float(p[place == b].mean()),
            "right": float(right[place == b].mean()),
        }
        for b in range(10)
        if (place == b).any()
    ]
    return {
        "n": len(p),
        "known": made.known,
        "stated": float(p.mean()),
        "right": float(right.mean()),
        "error": calibration_error(p, right),
        "by_chance": by_chance(p),
        "error_of_all": calibration_error(p, right) * len(p) / (len(p) + made.known),
        "bins": bins,
    }


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Mean distance of stated and right over ten bins, weighted by their size."""
    place = np.minimum((10 * p).astype(int), 9)
    return sum(abs((p - right)[place == b].sum()) for b in range(10)) / len(p)


def by_chance(p: np.ndarray, draws: int = 2000, seed: int = 0) -> float:
    """The error to expect of as many statements that come true just as often as they say."""
    random = np.random.default_rng(seed)
    return float(np.mean([calibration_error(p, random.random(len(p)) < p) for _ in range(draws)]))


if __name__ == "__main__":
    main()
