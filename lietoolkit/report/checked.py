"""The section on real training runs: where the plan stands, predicted against measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lietoolkit import plots
from lietoolkit.plots import loss_text
from lietoolkit.report.blocks import Block, figure, from_html, paragraph, table
from lietoolkit.report.limits import verdict
from lietoolkit.statistics import rank_correlation

__all__ = ["index_of", "runs_of", "steps_text", "verification"]

Plan = Mapping[str, Any]


def verification(plan: Plan, dpi: int = 110) -> list[Block]:
    """Predicted against measured, for each number of steps that was trained for real."""
    runs = runs_of(plan)
    if not runs:
        return [paragraph(
            "Nothing was trained to check this plan. <code>lietoolkit plan … --verify 24</code> "
            "trains 24 orders for real and puts the result here."
        )]  # fmt: skip
    blocks: list[Block] = []
    for steps, run in runs:
        blocks += _one_verification(plan, steps, run, dpi)
    return blocks


def _one_verification(plan: Plan, steps: int, run: Mapping[str, Any], dpi: int) -> list[Block]:
    measured, predicted = run["measured"], run["predicted"]
    at = run["orders"].index(plan["order"])
    planned = " (as planned)" if steps == plan["steps"] else ""
    n = run["n"]
    text = (
        f"{n} orders were trained, {steps_text(steps)} on each source. The plan came "
        f"<strong>{run['rank']} of {n}</strong>: {verdict(run['percentile'])} (it beats "
        f"{run['percentile']:.0f}% of the others; a random order beats 50% on average)."
    )
    by_label: dict[str, int] = {"plan": at}
    reverse = index_of(run, plan["order"][::-1])
    if reverse is not None:
        by_label["reverse of the plan"] = reverse
    for name, baseline in plan["baselines"].items():
        where = index_of(run, baseline["order"])
        if where is not None:
            by_label[name] = where
    best = min(range(len(measured)), key=lambda i: measured[i])
    by_label["best order tried"] = best
    rows = [
        [label, " → ".join(run["orders"][i]), 1 + sum(m < measured[i] for m in measured),
         loss_text(measured[i] - measured[at]), loss_text(predicted[i] - predicted[at])]
        for label, i in by_label.items()
    ]  # fmt: skip
    head = ["way to choose", "order", f"rank of {n}", "measured, minus the plan",
            "predicted, minus the plan"]  # fmt: skip
    labels = ["random"] * len(measured)
    for label, i in reversed(by_label.items()):
        if label not in ("best order tried", "plan", "reverse of the plan"):
            labels[i] = label
    if reverse is not None:
        labels[reverse] = "reverse"
    labels[at] = "plan"
    named = sum(label != "random" for label in labels)
    blocks = [
        from_html(f"<h3>{steps_text(steps)} on each source{planned}</h3><p>{text}</p>"),
        figure(plots.verification_strip, measured, labels, size=(6.2, 2.2 + 0.24 * named), dpi=dpi),
        table(head, rows),
    ]
    if len(plan["targets"]) > 1 and run.get("targets"):
        blocks.append(_ranks_by_target(run["targets"], at))
    others = [i for i in range(len(measured)) if i != at]
    if others:
        agreement = _agreement(predicted, measured)
        far = ""
        if steps != plan["steps"]:
            far = (
                f" The prediction was made for {steps_text(plan['steps'])} and only scaled, so "
                "compare sides rather than sizes."
            )
        if run.get("dtype", plan["dtype"]) != plan["dtype"]:
            far += f" These runs were trained in {run['dtype']}."
        blocks += [
            paragraph(
                "Each point below is one order compared with the plan: how much worse (or better) "
                "it was predicted to be, and how much it was. Points in the blue area were "
                f"predicted on the right side.{agreement}{far} All points share the plan's own "
                "run, so the interval in the title is only a guide."
            ),
            figure(
                plots.predicted_vs_measured,
                [predicted[i] - predicted[at] for i in others],
                [measured[i] - measured[at] for i in others],
                floor=run.get("floor"), size=(6.2, 4.2), dpi=dpi,
            ),
        ]  # fmt: skip
    return blocks


def _ranks_by_target(targets: Mapping[str, list[float]], at: int) -> Block:
    rows = [
        [name, f"{1 + sum(v < losses[at] for v in losses)} of {len(losses)}",
         loss_text(losses[at] - min(losses))]
        for name, losses in targets.items()
    ]  # fmt: skip
    return table(["target", "plan's rank", "above the best order tried for it"], rows)


def _agreement(predicted: list[float], measured: list[float]) -> str:
    value = rank_correlation(predicted, measured)
    if math.isnan(value):
        return ""
    return f" Rank correlation over all orders: {value:.2f} (1 perfect, 0 none).".replace("-", "−")


def runs_of(plan: Plan) -> list[tuple[int, Mapping[str, Any]]]:
    """(steps, run) of every verified horizon, shortest first."""
    steps = (plan["verification"] or {}).get("steps") or {}
    return sorted(((int(k), run) for k, run in steps.items()), key=lambda item: item[0])


def index_of(run: Mapping[str, Any], order: list[str]) -> int | None:
    """Where an order stands among a run's orders, if it was trained."""
    return run["orders"].index(order) if order in run["orders"] else None


def steps_text(count: int) -> str:
    """``1 step``, ``20 steps``."""
    return f"{count} step{'s' * (count != 1)}"
