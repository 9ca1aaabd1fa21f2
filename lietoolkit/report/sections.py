"""The report's sections: each takes a plan (`read_plan`) and returns the blocks to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lietoolkit import plots
from lietoolkit.plots import loss_text
from lietoolkit.report.blocks import Block, bullets, figure, from_html, paragraph, safe, table
from lietoolkit.report.limits import limits, verdict

__all__ = [
    "against_reverse",
    "geometry",
    "headline",
    "limits_section",
    "pairs",
    "settings",
    "tradeoff",
    "verification",
]

Plan = Mapping[str, Any]


def headline(plan: Plan, title: str = "", dpi: int = 110) -> list[Block]:
    """The first screen: the order, what it is worth, how sure, and the gravest limit."""
    order, targets = plan["order"], plan["targets"]
    items = "".join(f"<li>{safe(name)}</li>" for name in order)
    total = _weighted(plan)
    aim = _listed(list(targets))
    heading = safe(title) or f"In which order to train {safe(plan['model'])}"
    better = "lower" if total <= 0 else "higher"
    worth = (
        f"Predicted loss on {safe(aim)}{_sum_note(plan)} after this order: "
        f"<strong>{loss_text(abs(total), signed=False)} {better}</strong> than after the same "
        f"sources in reverse{_percent_of_loss(plan, total)}."
    )
    notes = [worth, *_how_sure(plan)]
    first = next((limit for limit in limits(plan) if limit.level == "serious"), None)
    warning = ""
    if first:
        warning = (
            f'<p class="lt-warning"><strong>Before you rely on it: {safe(first.title)}.</strong> '
            f"{safe(first.text)}</p>"
        )
    lead = from_html(
        f'<h1>{heading}</h1><p class="lt-lead">Train the sources in this order, first to last:</p>'
        f'<ol class="lt-order">{items}</ol>{warning}'
        f'<ul class="lt-facts">{"".join(f"<li>{n}</li>" for n in notes)}</ul>'
    )
    known = [c for c in plan["confidence"] if c.get("survival") is not None]
    if not known:
        return [lead]
    drawn = figure(
        plots.confidence_bars,
        [(c["first"], c["second"]) for c in known],
        [c["survival"] for c in known],
        size=(6.6, 1.5 + 0.42 * len(known)),
        dpi=dpi,
    )
    note = paragraph(
        "The figure shows how often two neighbors keep their places when the prediction is made "
        "again from other draws of the same data. It measures stability. It is not the "
        "probability that the order is right."
    )
    return [lead, drawn, note]


def against_reverse(plan: Plan) -> list[Block]:
    """What the order gains or loses against its reverse, for each target."""
    runs = _runs(plan)
    head = ["target", "weight", "loss before training", "predicted: plan minus reverse",
            "share of the loss"]  # fmt: skip
    measured = [(k, _index_of(run, plan["order"]), _index_of(run, plan["order"][::-1]), run)
                for k, run in runs]  # fmt: skip
    measured = [m for m in measured if m[1] is not None and m[2] is not None]
    head += [f"measured, {_steps(k)}" for k, *_ in measured]
    rows: list[list[object]] = []
    for name, target in plan["targets"].items():
        value, loss = target["plan_vs_reverse"], target.get("loss")
        row = [name, f"{target['weight']:g}", loss_text(loss, signed=False, digits=3),
               loss_text(value), _share(value, loss)]  # fmt: skip
        for _, a, b, run in measured:
            losses = (run.get("targets") or {}).get(name)
            row.append(loss_text(losses[a] - losses[b]) if losses else "not known")
        rows.append(row)
    if len(plan["targets"]) > 1:
        row = ["weighted sum", "", "", loss_text(_weighted(plan)), ""]
        row += [loss_text(run["measured"][a] - run["measured"][b]) for _, a, b, run in measured]
        rows.append(row)
    note = paragraph(
        "Negative numbers mean that the plan ends with the lower loss. The loss is the mean "
        "surprise of the model at the right answer; lower is better. These differences come from "
        f"{_steps(plan['steps'])} on each source at a step size of {plan['lr']:.3g}, so they are "
        "small; their sign is what counts."
    )
    return [table(head, rows), note]


def pairs(plan: Plan, dpi: int = 110) -> list[Block]:
    """The pairwise matrix in planned order, and each source's score."""
    names, order = plan["names"], plan["order"]
    n = len(names)
    where = [names.index(name) for name in order]
    against = [
        (order[i], order[j], plan["matrix"][where[i]][where[j]])
        for i in range(n)
        for j in range(i + 1, n)
        if plan["matrix"][where[i]][where[j]] > 0
    ]
    count = n * (n - 1) // 2
    text = (
        "Each cell compares two ways to train two sources: the row's source first and then the "
        "column's, against the other way round. Negative (purple) means that the row's source is "
        "better first. In a perfect order every cell above the diagonal is negative."
    )
    if against:
        a, b, value = max(against, key=lambda item: item[2])
        fit = (
            f"Here {count - len(against)} of {count} pairs agree with the order. The costliest "
            f"exception is {safe(a)} before {safe(b)} ({loss_text(value)}); no order can always "
            "please every pair."
        )
    else:
        fit = f"Here all {count} pairs agree with the order."
    size = min(9.0, 3.6 + 0.55 * n)
    return [
        paragraph(text, fit),
        figure(plots.order_matrix, plan["matrix"], names, order,
               size=(size + 1.4, size), dpi=dpi),
        paragraph("A source's score is the sum of its row. The order is sorted by it, as far as "
                  "your constraints allow and the planner finds nothing better."),
        figure(plots.score_bars, plan["scores"], order,
               size=(6.6, 1.4 + 0.4 * n), dpi=dpi),
    ]  # fmt: skip


def tradeoff(plan: Plan, dpi: int = 110) -> list[Block]:
    """Targets against each other, and what the order makes the model forget."""
    values = {name: t["plan_vs_reverse"] for name, t in plan["targets"].items()}
    losers = [name for name, value in values.items() if value > 0]
    forgotten = {k: v for k, v in plan["forgetting"].items() if v > 0}
    if not losers:
        text = "Every target does better with the plan than with its reverse."
    elif len(losers) == len(values):
        text = "No target does better with the plan than with its reverse."
    else:
        text = f"The targets disagree: the plan costs {safe(_listed(losers))} something."
    if forgotten:
        most = max(forgotten, key=lambda name: forgotten[name])
        text += (
            f" The sources matter too, as things the model should still know at the end: it "
            f"remembers {safe(_listed(list(forgotten)))} less well after the plan than after the "
            f"reverse, most of all {safe(most)} ({loss_text(forgotten[most])})."
        )
    elif plan["forgetting"]:
        text += " No source is remembered less well after the plan than after its reverse."
    rows = len(values) + len(plan["forgetting"])
    drawn = figure(plots.target_tradeoff, values, plan["forgetting"],
                   size=(6.6, 1.4 + 0.36 * rows), dpi=dpi)  # fmt: skip
    return [paragraph(text), drawn]


def geometry(plan: Plan, dpi: int = 110) -> list[Block]:
    """The plane of the strongest pair: both paths and the gap that does not close."""
    plane = plan["geometry"]
    if not plane:
        return [paragraph("The plan holds no picture of the geometry.")]
    a, b = plane["pair"]
    units = f", in {safe(plane['units'])}" if plane.get("units") else ""
    norm = plane.get("bracket_norm")
    size = f" Its length is {norm:.3g} (the Lie bracket of the two sources)." if norm else ""
    text = (
        f"Why order matters, for the pair with the strongest effect, {safe(a)} and {safe(b)}. The "
        "model starts at the plus sign and takes one step on each source. If the steps did not "
        "disturb each other, both ways would end at the same point. They do not: the step on one "
        "source bends the ground for the other. The small gap between the two ends, magnified at "
        f"the right, is what this report predicts.{size} The plane shows the part of it that "
        f"lies along the two steps{units}."
    )
    drawn = figure(
        plots.geometry_plane, plane["grid_x"], plane["grid_y"], plane["loss"],
        plane["path_ab"], plane["path_ba"], (a, b), size=(7.4, 5.4), dpi=dpi,
    )  # fmt: skip
    return [paragraph(text), drawn]


def verification(plan: Plan, dpi: int = 110) -> list[Block]:
    """Predicted against measured, for each number of steps that was trained for real."""
    runs = _runs(plan)
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
    at = _index_of(run, plan["order"])
    at = 0 if at is None else at
    planned = " (as planned)" if steps == plan["steps"] else ""
    n = run["n"]
    text = (
        f"{n} orders were trained, {_steps(steps)} on each source. The plan came "
        f"<strong>{run['rank']} of {n}</strong>: {verdict(run['percentile'])} (it beats "
        f"{run['percentile']:.0f}% of the others; a random order beats 50% on average)."
    )
    by_label: dict[str, int] = {"plan": at}
    reverse = _index_of(run, plan["order"][::-1])
    if reverse is not None:
        by_label["reverse of the plan"] = reverse
    for name, baseline in plan["baselines"].items():
        where = _index_of(run, baseline["order"])
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
        from_html(f"<h3>{_steps(steps).capitalize()} on each source{planned}</h3><p>{text}</p>"),
        figure(plots.verification_strip, measured, labels, size=(6.6, 2.2 + 0.24 * named), dpi=dpi),
        table(head, rows),
    ]
    if len(plan["targets"]) > 1 and run.get("targets"):
        blocks.append(_ranks_by_target(run["targets"], at))
    others = [i for i in range(len(measured)) if i != at]
    if others:
        agreement = _agreement(predicted, measured)
        blocks += [
            paragraph(
                "Each point below is one order compared with the plan: how much worse (or better) "
                "it was predicted to be, and how much it was. Points in the blue area were "
                f"predicted on the right side.{agreement} All points share the plan's own run, so "
                "the interval in the title is only a guide."
            ),
            figure(
                plots.predicted_vs_measured,
                [predicted[i] - predicted[at] for i in others],
                [measured[i] - measured[at] for i in others],
                floor=run.get("floor"), size=(6.6, 4.2), dpi=dpi,
            ),
        ]  # fmt: skip
    return blocks


def limits_section(plan: Plan) -> list[Block]:
    """Limits of this plan, most serious first."""
    marks = {"serious": "Serious", "caution": "Caution", "ok": "Fine"}
    return [bullets(
        f'<strong class="lt-{limit.level}">{marks[limit.level]} · {safe(limit.title)}.</strong> '
        f"{safe(limit.text)}"
        for limit in limits(plan)
    )]  # fmt: skip


def settings(plan: Plan) -> list[Block]:
    """Settings, sources, versions and cost."""
    keys = ("objective", "model", "parameters", "optimizer", "schedule", "lr", "steps", "planner",
            "method", "device", "dtype", "seed")  # fmt: skip
    rows = [[key, _plain(plan[key])] for key in keys if plan.get(key) is not None]
    if plan["constraints"]:
        rows.append(["constraints", "; ".join(map(str, plan["constraints"]))])
    if plan["lr_rule"].get("note"):
        rows.append(["step size rule", plan["lr_rule"]["note"]])
    blocks = [table(["setting", "value"], rows, "Settings")]
    curvature = plan["lr_rule"].get("lambda_max") or {}
    if plan["sources"]:
        head = [
            "source",
            "rows",
            "batches",
            "tokens",
            "truncated rows",
            "largest curvature",
            "file",
        ]
        blocks.append(table(head, [
            [name, *(_plain(s.get(k)) for k in ("rows", "batches", "tokens", "truncated")),
             f"{curvature[name]:.3g}" if curvature.get(name) else "", s.get("file") or ""]
            for name, s in plan["sources"].items()
        ], "Sources"))  # fmt: skip
    blocks.append(paragraph(_cost(plan)))
    made = {"lietoolkit": plan.get("lietoolkit"), **plan["versions"], **plan["hardware"]}
    blocks.append(
        table(["made with", ""], [[k, _plain(v)] for k, v in made.items() if v is not None],
              "Versions and machine")
    )  # fmt: skip
    return blocks


def _cost(plan: Plan) -> str:
    cost, parts = plan["cost"], []
    if cost.get("total") is not None:
        parts.append(
            f"Planning cost as much as {cost['total']:.4g} plain gradients "
            f"({cost.get('gradients', 0):g} gradients, {cost.get('hvps', 0):g} Hessian-vector "
            f"products, {cost.get('losses', 0):g} losses)"
        )
        if cost.get("training_runs") is not None:
            parts.append(f", or {cost['training_runs']:.3g} training runs of all sources")
        parts.append(".")
    if plan["seconds"] is not None:
        parts.append(f" It took {plan['seconds']:.0f} seconds.")
    return "".join(parts) or "What the plan cost was not recorded."


def _how_sure(plan: Plan) -> list[str]:
    lines = []
    known = [c for c in plan["confidence"] if c.get("survival") is not None]
    if known:
        firm = sum(c["survival"] >= 0.9 for c in known)
        least = min(known, key=lambda c: c["survival"])
        lines.append(
            f"Stability: {firm} of {len(known)} neighboring pairs keep their order in at least "
            f"90% of {known[0].get('resamples', 0)} redraws of the data. Least stable: "
            f"{safe(least['first'])} before {safe(least['second'])} ({least['survival']:.0%})."
        )
    runs = _runs(plan)
    for steps, run in runs:
        lines.append(
            f"Checked by training {run['n']} orders for {_steps(steps)} on each source: the plan "
            f"came <strong>{run['rank']} of {run['n']}</strong>, {verdict(run['percentile'])}."
        )
    if not runs:
        lines.append("Not checked by training. This is a prediction.")
    return lines


def _ranks_by_target(targets: Mapping[str, list[float]], at: int) -> Block:
    rows = [
        [name, f"{1 + sum(v < losses[at] for v in losses)} of {len(losses)}",
         loss_text(losses[at] - min(losses))]
        for name, losses in targets.items()
    ]  # fmt: skip
    return table(["target", "plan's rank", "above the best order tried for it"], rows)


def _agreement(predicted: list[float], measured: list[float]) -> str:
    from lietoolkit.statistics import rank_correlation

    value = rank_correlation(predicted, measured)
    if math.isnan(value):
        return ""
    return f" Rank correlation over all orders: {value:.2f} (1 perfect, 0 none)."


def _runs(plan: Plan) -> list[tuple[int, Mapping[str, Any]]]:
    steps = (plan["verification"] or {}).get("steps") or {}
    return sorted(((int(k), run) for k, run in steps.items()), key=lambda item: item[0])


def _index_of(run: Mapping[str, Any], order: list[str]) -> int | None:
    return run["orders"].index(order) if order in run["orders"] else None


def _weighted(plan: Plan) -> float:
    return sum(t["weight"] * t["plan_vs_reverse"] for t in plan["targets"].values())


def _sum_note(plan: Plan) -> str:
    return " (weighted sum)" if len(plan["targets"]) > 1 else ""


def _percent_of_loss(plan: Plan, value: float) -> str:
    losses = [t.get("loss") for t in plan["targets"].values()]
    if any(loss is None for loss in losses):
        return ""
    total = sum(t["weight"] * t["loss"] for t in plan["targets"].values())
    return f" ({_share(abs(value), total)} of the loss before training)"


def _share(value: float, loss: float | None) -> str:
    if not loss:
        return "not known"
    share = 100 * value / loss
    return f"{share:.2g}%".replace("-", "−") if abs(share) >= 1e-3 else "under 0.001%"


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
