"""A made-up plan.json for tests: random antisymmetric effects, and runs that obey them noisily."""

from itertools import pairwise, permutations

import numpy as np

NAMES = ["arithmetic", "summaries", "code review", "dialogue", "safety"]


def total(matrix, order, names):
    """½ Σ_{i before j} E_ij: the order's predicted loss relative to the mean over all orders."""
    index = [names.index(name) for name in order]
    return 0.5 * sum(matrix[a][b] for at, a in enumerate(index) for b in index[at + 1 :])


def example_plan(seed=0, names=None, verified=True):
    rng = np.random.default_rng(seed)
    names = list(names or NAMES)
    n = len(names)

    def antisymmetric(scale):
        half = rng.normal(size=(n, n)) + np.linspace(-1, 1, n)[:, None]
        return scale * (half - half.T)

    targets = {
        "exam questions": {"weight": 1.0, "matrix": antisymmetric(2e-4), "loss": 2.31},
        "hard cases": {"weight": 0.5, "matrix": antisymmetric(1.5e-4), "loss": 3.07},
    }
    matrix = sum(t["weight"] * t["matrix"] for t in targets.values())
    scores = dict(zip(names, matrix.sum(axis=1).tolist(), strict=True))
    order = sorted(names, key=scores.get)
    for target in targets.values():
        target["plan_vs_reverse"] = float(2 * total(target["matrix"], order, names))
        target["matrix"] = target["matrix"].tolist()
    baselines = {}
    for what in ("gradient norm", "cosine with the target", "solo gain"):
        ranking = dict(zip(names, rng.normal(size=n).tolist(), strict=True))
        for direction, reverse in (("large first", True), ("small first", False)):
            baselines[f"{what}, {direction}"] = {
                "scores": ranking,
                "order": sorted(names, key=ranking.get, reverse=reverse),
            }
    effect = {(a, b): matrix[names.index(a)][names.index(b)] for a in names for b in names}
    plan = {
        "lietoolkit": "0.1.0",
        "order": order,
        "names": names,
        "scores": scores,
        "matrix": matrix.tolist(),
        "targets": targets,
        "forgetting": dict(zip(names, (3e-4 * rng.normal(size=n)).tolist(), strict=True)),
        "constraints": [f"{order[0]} before {order[-1]}", f"{order[-1]} last"],
        "expected": {},
        "confidence": [
            {
                "first": a,
                "second": b,
                "effect": float(effect[a, b]),
                "survival": round(float(rng.uniform(0.55, 1.0)), 3),
                "resamples": 200,
                "chance": round(float(rng.uniform(0.6, 1.0)), 3),
            }
            for a, b in pairwise(order)
        ],
        "baselines": baselines,
        "geometry": geometry([order[0], order[-1]]),
        "lr": 1.2e-3,
        "lr_rule": {
            "lambda_max": dict(zip(names, rng.uniform(80, 150, n).tolist(), strict=True)),
            "eta_lambda_max": 0.15,
            "note": "step size chosen so that eta * lambda_max = 0.15",
        },
        "steps": 1,
        "method": "local",
        "planner": "tournament",
        "optimizer": "sgd",
        "schedule": "constant",
        "objective": "sft",
        "objective_of": {},
        "steps_of": {},
        "better_than_reverse": 0.97,
        "model": "course",
        "warmup": 0,
        "parameters": {"count": 1843200, "pattern": None},
        "device": "cpu",
        "dtype": "float32",
        "seed": 0,
        "sources": {
            name: {"rows": 64, "batches": 8, "tokens": 5120 + i, "truncated": i, "file": None}
            for i, name in enumerate(names)
        },
        "notes": ["target 'exam questions' shares no rows with the sources"],
        "cost": {"gradients": 7, "hvps": 5, "losses": 2, "total": 17.7, "training_runs": 3.5},
        "seconds": 41.3,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.24.0"},
        "hardware": {"cpu": "x86_64", "cores": 2, "memory_gb": 16},
        "verification": None,
    }
    if verified:
        plan["verification"] = {
            "steps": {
                "1": runs(plan, rng, noise=0.3, scale=1.0),
                "20": runs(plan, rng, noise=4.0, scale=40.0),
            }
        }
    return plan


def geometry(pair):
    x = np.linspace(-0.02, 0.05, 21)
    y = np.linspace(-0.02, 0.06, 25)
    loss = 2.3 + 60 * (x[None, :] - 0.03) ** 2 + 90 * (y[:, None] - 0.02) ** 2
    return {
        "pair": pair,
        "grid_x": x.tolist(),
        "grid_y": y.tolist(),
        "loss": loss.tolist(),
        "path_ab": [[0, 0], [0.030, 0], [0.0371, 0.0402]],
        "path_ba": [[0, 0], [0.007, 0.040], [0.0370, 0.04015]],
        "bracket_norm": 83.2,
        "kappa": 2.5,
        "onset": 0.04,
        "units": "distance in parameter space",
    }


def runs(plan, rng, noise, scale):
    names, planned = plan["names"], plan["order"]
    orders, labels = [planned, planned[::-1]], ["plan", "reverse"]
    for label, baseline in plan["baselines"].items():
        if baseline["order"] not in orders:
            orders.append(baseline["order"])
            labels.append(label)
    everything = list(permutations(names))
    while len(orders) < min(24, len(everything)):
        extra = list(everything[rng.integers(len(everything))])
        if extra not in orders:
            orders.append(extra)
            labels.append("random")
    predicted = np.array([total(plan["matrix"], order, names) for order in orders])
    spread = predicted.std()
    measured = 4.1 + scale * (predicted + noise * spread * rng.normal(size=len(orders)))
    rank = 1 + int((measured < measured[0]).sum())
    return {
        "orders": orders,
        "labels": labels,
        "measured": measured.tolist(),
        "predicted": (scale * (predicted - predicted[0])).tolist(),
        "rank": rank,
        "n": len(orders),
        "percentile": 100 * (len(orders) - rank) / (len(orders) - 1),
        "floor": 2e-5,
        "targets": {
            name: (target["loss"] + (measured - measured.mean()) * share).tolist()
            for (name, target), share in zip(plan["targets"].items(), (0.6, 0.3), strict=False)
        },
    }
