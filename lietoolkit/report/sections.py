"""The report's sections: each takes a plan (`read_plan`) and returns the blocks to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lietoolkit import plots
from lietoolkit.plots import loss_text
from lietoolkit.report.blocks import Block, bullets, figure, from_html, paragraph, safe, table
from lietoolkit.report.checked import index_of, runs_of, steps_text
from lietoolkit.report.explorer import neighbor_effects, weighted_changes
from lietoolkit.report.limits import limits, verdict
from lietoolkit.statistics import chance

__all__ = [
    "against_reverse",
    "geometry",
    "headline",
    "limits_section",
    "pairs",
    "settings",
    "tradeoff",
]

Plan = Mapping[str, Any]

_SETTINGS = {"lr": "step size (lr)", "parameters": "trainable parameters", "dtype": "number type",
             "steps": "steps on each source"}  # fmt: skip


SCORES = (
    "A source's score is the sum of its row. The order is sorted by it, as far as your constraints "
    "allow and the planner finds nothing better."
)
SCORES_ASIDE = (
    "A source's score is the sum of its row. All this is about short steps; the order was not "
    "chosen by it."
)
SCORES_TRIED = (
    "A source's score is the sum of its row. The order was not sorted by it: it is the best of "
    "those that were tried."
)


def headline(plan: Plan, title: str = "", dpi: int = 110) -> list[Block]:
    """The first screen: the order, what it is worth, how sure, and the gravest limit."""
    order, targets = plan["order"], plan["targets"]
    items = "".join(f"<li>{safe(name)}</li>" for name in order)
    total = _weighted(plan)
    aim = _listed(list(targets))
    heading = safe(title) or f"In which order to fine-tune “{safe(plan['model'])}”"
    better = "lower" if total <= 0 else "higher"
    worth = (
        f"Predicted loss on {safe(aim)}{_sum_note(plan)} after this order: "
        f"<strong>{loss_text(abs(total), signed=False)} {better}</strong> than after the same "
        f"sources in reverse{_percent_of_loss(plan, total)}."
    )
    notes = [worth, *_how_sure(plan)]
    grave = [limit for limit in limits(plan) if limit.level == "serious"]
    warning = "".join(
        f'<p class="lt-warning"><strong>Before you rely on it: {safe(limit.title)}.</strong> '
        f"{safe(limit.text)}</p>"
        for limit in grave[:2]
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
        size=(6.2, 1.5 + 0.42 * len(known)),
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
    runs = runs_of(plan)
    head = ["target", "weight", "loss before training", "predicted: plan minus reverse",
            "share of the loss"]  # fmt: skip
    measured = [(k, index_of(run, plan["order"]), index_of(run, plan["order"][::-1]), run)
                for k, run in runs]  # fmt: skip
    measured = [m for m in measured if m[1] is not None and m[2] is not None]
    head += [f"measured, {steps_text(k)}" for k, *_ in measured]
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
    small = all(
        abs(target["plan_vs_reverse"]) < 0.01 * (target.get("loss") or 1.0)
        for target in plan["targets"].values()
    )
    note = paragraph(
        "Negative numbers mean that the plan ends with the lower loss.",
        _loss_in_words(plan),
        f"These differences come from {steps_text(plan['steps'])} on each source at a step size of "
        f"{plan['lr']:.3g}{', so they are small; their sign is what counts' if small else ''}.",
    )
    return [table(head, rows), note]


def pairs(plan: Plan, dpi: int = 110) -> list[Block]:
    """The pairwise matrix in planned order, and each source's score."""
    names, order = plan["names"], plan["order"]
    n = len(names)
    tried = weighted_changes(plan)
    matrix = plan["matrix"] if tried is None else neighbor_effects(tried, n)
    scores = dict(zip(names, map(sum, matrix), strict=True)) if tried else plan["scores"]
    where = [names.index(name) for name in order]
    against = [
        (order[i], order[j], matrix[where[i]][where[j]])
        for i in range(n)
        for j in range(i + 1, n)
        if matrix[where[i]][where[j]] > 0
    ]
    count = n * (n - 1) // 2
    text = (
        "Each cell compares two ways to train two sources: the row's source first and then the "
        "column's, against the other way round. Negative (purple) means that the row's source is "
        "better first. In a perfect order every cell above the diagonal is negative."
    )
    if tried:
        text = (
            "Each cell compares two neighbors in the run: the row's source and right after it the "
            "column's, against the other way round, on average over all orders of the others. "
            "These are guesses from the orders that were tried. Negative (purple) means that the "
            "row's source is better first."
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
    by_pairs = SCORES if plan["planner"] == "tournament" else SCORES_ASIDE
    size = min(8.0, 2.4 + 0.5 * n)
    return [
        paragraph(text, fit),
        figure(plots.order_matrix, matrix, names, order,
               size=(size + 1.4, size), dpi=dpi),
        paragraph(SCORES_TRIED if tried else by_pairs),
        figure(plots.score_bars, scores, order,
               size=(6.2, 1.4 + 0.4 * n), dpi=dpi),
    ]  # fmt: skip


def tradeoff(plan: Plan, dpi: int = 110) -> list[Block]:
    """Targets against each other, and what the order makes the model forget."""
    values = {name: t["plan_vs_reverse"] for name, t in plan["targets"].items()}
    losers = [name for name, value in values.items() if value > 0]
    forgotten = {k: v for k, v in plan["forgetting"].items() if v > 0}
    if not losers:
        who = "Every target" if len(values) > 1 else "The target"
        text = f"{who} does better with the plan than with its reverse."
    elif len(losers) == len(values):
        text = "Nothing is gained on any target: the reverse does better."
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
                   size=(6.2, 1.4 + 0.36 * rows), dpi=dpi)  # fmt: skip
    return [paragraph(text), drawn]


def geometry(plan: Plan, dpi: int = 110) -> list[Block]:
    """The plane of the strongest pair: both paths and the gap that does not close."""
    plane = plan["geometry"]
    if not plane:
        return [paragraph("The plan holds no picture of the geometry.")]
    a, b = plane["pair"]
    units = f", in {safe(plane['units'])}" if plane.get("units") else ""
    norm = plane.get("bracket_norm")
    size = ""
    if norm:
        size = (
            f" Its whole length is about {plan['lr'] ** 2 * norm:.2g}: the step size squared "
            f"times {norm:.3g}, the length of the Lie bracket of the two sources."
        )
    if plane.get("onset"):
        apart = 0.1 * plan["lr"] / plane["onset"]
        many = plane["onset"] / plan["lr"]
        size += (
            f" That is {apart:.1%} of the way from the start. The order begins to show where it is "
            f"about 10%: after some {many:.0f} steps on each source, or with a step size of "
            f"{plane['onset']:.2g}."
            if many >= 2
            else f" That is {apart:.1%} of the way from the start: the order shows at once."
        )
    text = (
        f"This is the pair with the strongest effect, {safe(a)} and {safe(b)}. The "
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
    rows = [
        [_SETTINGS.get(key, key), _plain(plan[key])] for key in keys if plan.get(key) is not None
    ]
    for key, what in (("objective_of", "other losses"), ("steps_of", "other stages, in steps")):
        if plan[key]:
            rows.append([what, "; ".join(f"{name}: {own}" for name, own in plan[key].items())])
    if plan["constraints"]:
        rows.append(["constraints", "; ".join(map(str, plan["constraints"]))])
    if plan["lr_rule"].get("note"):
        rows.append(["step size rule", plan["lr_rule"]["note"]])
    blocks = [table(["setting", "value"], rows, "Settings")]
    curvature = plan["lr_rule"].get("lambda_max") or {}
    if plan["sources"]:
        columns = {
            "source": list(plan["sources"]),
            **{head: [_plain(s.get(key)) for s in plan["sources"].values()]
               for key, head in (("rows", "rows"), ("batches", "batches"), ("tokens", "tokens"),
                                 ("truncated", "truncated rows"))},
            "largest curvature": [f"{curvature[name]:.3g}" if curvature.get(name) else ""
                                  for name in plan["sources"]],
            "file": [s.get("file") or "" for s in plan["sources"].values()],
        }  # fmt: skip
        if not any(columns["largest curvature"]):
            del columns["largest curvature"]  # AdamW has no use for it
        lines = [list(line) for line in zip(*columns.values(), strict=True)]
        blocks.append(table(list(columns), lines, "Sources"))
    blocks.append(paragraph(_cost(plan)))
    made = {"lietoolkit": plan.get("lietoolkit"), **plan["versions"], **plan["hardware"]}
    rows = [[key.replace("_", " "), _plain(v)] for key, v in made.items() if v is not None]
    blocks.append(table(["made with", "value"], rows, "Versions and machine"))
    return blocks


def _cost(plan: Plan) -> str:
    cost, parts = plan["cost"], []
    if cost.get("total") is not None:
        parts.append(
            f"Planning cost as much as {cost['total']:.4g} plain gradients "
            f"({cost.get('gradients', 0):.4g} gradients, {cost.get('hvps', 0):.4g} Hessian-vector "
            f"products, {cost.get('losses', 0):.4g} losses)"
        )
        if cost.get("training_runs") is not None:
            parts.append(f", or {cost['training_runs']:.3g} training runs of all sources")
        parts.append(".")
    if plan["seconds"] is not None:
        parts.append(f" It took {plan['seconds']:.0f} seconds.")
    return "".join(parts) or "What the plan cost was not recorded."


def _how_sure(plan: Plan) -> list[str]:
    lines = []
    if plan["better_than_reverse"] is not None:
        likely = [c for c in plan["confidence"] if c.get("chance") is not None]
        text = (
            "Chance that this order is better than its reverse, trained on these very rows: "
            f"<strong>{chance(plan['better_than_reverse'])}</strong>, calibrated on orders "
            "trained for real."
        )
        if plan["better_than_reverse"] in (0, 1):
            text = (
                "This order and its reverse were both trained on these very rows: it is "
                f"{'better' if plan['better_than_reverse'] else 'worse'}."
            )
        if likely:
            least = min(likely, key=lambda c: c["chance"])
            text += (
                f" Least certain of the neighbors: {safe(least['first'])} before "
                f"{safe(least['second'])} ({chance(least['chance'])})."
            )
        lines.append(text)
    known = [c for c in plan["confidence"] if c.get("survival") is not None]
    if known:
        firm = sum(c["survival"] >= 0.9 for c in known)
        least = min(known, key=lambda c: c["survival"])
        lines.append(
            f"With other rows of the same sources: {firm} of {len(known)} neighboring pairs keep "
            f"their order in at least 90% of {known[0].get('resamples', 0)} redraws. Least stable: "
            f"{safe(least['first'])} before {safe(least['second'])} ({least['survival']:.0%})."
        )
    runs = runs_of(plan)
    for steps, run in runs:
        lines.append(
            f"Checked by training {run['n']} orders for {steps_text(steps)} on each source: the "
            f"plan came <strong>{run['rank']} of {run['n']}</strong>, {verdict(run['percentile'])}"
            f"{_horizon_note(plan, steps)}."
        )
    whole = plan.get("effort", {}).get("tries", {}).get(str(plan["steps"]), 0)
    if whole > 1:
        lines.append(f"Chosen as the best of {whole} orders that were trained for real.")
    elif not runs:
        lines.append("Not checked by training. This is a prediction.")
    return lines


def _horizon_note(plan: Plan, steps: int) -> str:
    if steps == plan["steps"]:
        return ""
    return f" (the plan was made for {steps_text(plan['steps'])})"


def _loss_in_words(plan: Plan) -> str:
    losses = {plan["objective_of"].get(name, plan["objective"]) for name in plan["targets"]}
    preferences = "how far the model is from preferring the chosen answers"
    if losses == {"dpo"}:
        return f"The loss says {preferences}."
    words = "The loss is the model's mean surprise at the right next token, in nats"
    return f"{words}; of preferences, {preferences}." if "dpo" in losses else f"{words}."


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
    digits = f"{share:.0f}" if abs(share) >= 100 else f"{share:.2g}"
    return f"{digits}%".replace("-", "−") if abs(share) >= 1e-3 else "under 0.001%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(v)}" for key, v in value.items() if v is not None)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
