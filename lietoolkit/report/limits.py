"""How far a plan can be trusted, in plain words computed from the plan itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lietoolkit.order.effort import Rehearsal
from lietoolkit.order_plan import tries_in_words
from lietoolkit.plots import loss_text

__all__ = ["Limit", "limits", "verdict"]

# Differences of float32 losses below this are rounding (as in later work by Sweeney).
FLOAT32_FLOOR = 2e-5
_LOCAL = ("local", "trotter")
# Planners that choose among whole orders which they tried.
REHEARSED = ("search", "from-end")


class Limit(NamedTuple):
    """One limit: "ok", "caution" or "serious", a title and one or two sentences, not escaped."""

    level: str
    title: str
    text: str


def limits(plan: Mapping[str, Any]) -> list[Limit]:
    """The limits of a plan, most serious first.

    Args:
        plan: the content of a plan.json, as `read_plan` returns it.

    Returns:
        Limits on horizon, optimizer, step size, resolution, stability, checking and the notes
        that planning left.

    Source: published sign accuracies are Sweeney 2026 (98.1 % at one step and 73.1 % at 20 for
    SFT; 46.7 to 57.1 % with AdamW); the chance level of whole orders at 20 steps is measured on
    small networks.
    """
    found = [
        _horizon(plan), _optimizer(plan), _step_size(plan), _resolution(plan), _stability(plan),
        _checked(plan), *_notes(plan),
    ]  # fmt: skip
    order = ("serious", "caution", "ok")
    return sorted((limit for limit in found if limit), key=lambda limit: order.index(limit.level))


def _notes(plan: Mapping[str, Any]) -> list[Limit]:
    # The step-size rule's own warning is `_step_size` in other words.
    notes = [note for note in plan["notes"] if note != plan["lr_rule"].get("note")]
    return [Limit("caution", "Noted while planning", note) for note in notes]


def verdict(percentile: float) -> str:
    """A percentile among trained orders (100 the best, 50 chance) in words.

    >>> verdict(96), verdict(52), verdict(10)
    ('among the best', 'no better than a random order', 'worse than most orders')
    """
    if percentile >= 90:
        return "among the best"
    if percentile >= 65:
        return "better than most orders"
    return "no better than a random order" if percentile >= 35 else "worse than most orders"


def _horizon(plan: Mapping[str, Any]) -> Limit | None:
    steps = plan["steps"]
    if plan["planner"] == "given":
        return Limit("serious", "The order may not matter", f"{_sentence(plan['effort']['why'])}.")
    if plan["planner"] in REHEARSED:
        return _rehearsed(plan)
    if plan["method"] not in _LOCAL:
        return None
    if steps == 1:
        return Limit(
            "ok",
            "Number of steps",
            "Planned for one step on each source, where this kind of prediction is known to "
            "work. If you train for more than a few steps on each source, the best order may be "
            "another one.",
        )
    text = (
        f"Planned for {steps} steps on each source, but the prediction looks only at the very "
        "start of training. In published tests it was right for 98% of pairs at 1 step and for "
        "73% at 20; for whole orders at 20 steps it did no better than chance in our tests."
    )
    return Limit("serious" if steps >= 10 else "caution", "Number of steps", text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _rehearsed(plan: Mapping[str, Any]) -> Limit:
    tries, steps = plan["effort"].get("tries", {}), plan["steps"]
    text = (
        f"The order was found by trying: {tries_in_words(tries, steps)}. A larger --budget tries "
        "more. "
    )
    text += (
        "What the matrix of pairs and the explorer say of other orders is a guess from these."
        if plan["expected"]
        else "The matrix of pairs and the explorer show effects of short steps, which the order "
        "was not chosen by."
    )
    most = max((Rehearsal.of(label).cost(steps) for label in tries), default=0)
    return Limit("ok" if most >= 0.25 else "caution", "Number of steps", text)


def _optimizer(plan: Mapping[str, Any]) -> Limit | None:
    name = plan["optimizer"]
    if plan["planner"] in ("given", *REHEARSED):
        return None
    if plan["method"] not in _LOCAL or name == "sgd":
        if plan["method"] in _LOCAL and plan["schedule"] != "constant":
            return Limit(
                "caution",
                "Step-size schedule",
                f"The step size follows a {plan['schedule']} schedule. Sources trained while it "
                "is large weigh more, and this prediction does not see that.",
            )
        return None
    shown = {"adamw": "AdamW"}.get(name, name)
    return Limit(
        "serious",
        "Optimizer",
        f"You train with {shown}, which remembers earlier gradients; this prediction ignores that "
        "memory. In published tests with AdamW it was right for 47 to 57% of pairs, which is a "
        "coin toss. Treat the order as a guess unless it was checked below.",
    )


def _step_size(plan: Mapping[str, Any]) -> Limit | None:
    value = plan["lr_rule"].get("eta_lambda_max")
    if plan["optimizer"] == "adamw":
        return None  # whose steps do not grow with the gradient
    if value is None:
        return Limit(
            "caution",
            "Step size",
            f"The step size {plan['lr']:.3g} was given and not compared with the curvature of "
            "the sources, so we do not know whether it is small enough for the prediction.",
        )
    size = f"The step size is {plan['lr']:.3g}; times the largest curvature it is {value:.2g}"
    if value > 1:
        text = f"{size}. Above 1, predicted signs mean nothing. Use a smaller step size."
        return Limit("serious", "Step size", text)
    if value > 0.3:
        text = f"{size}. The prediction holds best below 0.3: expect errors in the small effects."
        return Limit("caution", "Step size", text)
    return Limit("ok", "Step size", f"{size}: small enough for the prediction (1 is the limit).")


def _resolution(plan: Mapping[str, Any]) -> Limit | None:
    effect = abs(sum(t["weight"] * t["plan_vs_reverse"] for t in plan["targets"].values()))
    if plan.get("dtype") == "float64":
        return None
    if effect < FLOAT32_FLOOR:
        return Limit(
            "serious",
            "Size of the effect",
            f"The whole effect of the order, {loss_text(effect, signed=False)}, is below what "
            f"32-bit numbers resolve in a loss (about {loss_text(FLOAT32_FLOOR, signed=False)}). "
            "For this target the order hardly matters.",
        )
    pairs = [abs(plan["matrix"][i][j]) for i in range(len(plan["names"])) for j in range(i)]
    small = sum(p < FLOAT32_FLOOR for p in pairs)
    if not small:
        return None
    return Limit(
        "caution",
        "Size of the effect",
        f"{small} of {len(pairs)} pairs differ by less than "
        f"{loss_text(FLOAT32_FLOOR, signed=False)}, what 32-bit numbers resolve in a loss: a "
        "training run cannot tell those orders apart.",
    )


def _stability(plan: Mapping[str, Any]) -> Limit | None:
    known = [c for c in plan["confidence"] if c.get("survival") is not None]
    weak = [c for c in known if c["survival"] < 0.75]
    if not weak:
        return None
    listed = ", ".join(f"{c['first']} before {c['second']} ({c['survival']:.0%})" for c in weak)
    return Limit(
        "caution",
        "Sensitivity to the data",
        f"With other batches of the same data, these neighbors often change places: {listed}. "
        "More rows for each source would help; or take their order as free.",
    )


def _checked(plan: Mapping[str, Any]) -> Limit | None:
    runs = (plan["verification"] or {}).get("steps") or {}
    if not runs:
        return Limit(
            "caution",
            "Not checked",
            "No order was trained to check this plan. Planning again with --verify 24 trains 24 "
            "orders and shows where the plan stands among them.",
        )
    bad = [(int(k), r) for k, r in runs.items() if r["percentile"] < 65]
    if not bad:
        return None
    listed = "; ".join(
        f"at {k} step{'s' * (k != 1)} rank {r['rank']} of {r['n']}, {verdict(r['percentile'])}"
        for k, r in sorted(bad, key=lambda item: item[0])
    )
    planned = any(k == plan["steps"] for k, _ in bad)
    level = "serious" if planned else "caution"
    return Limit(level, "Checked by training", f"{listed[0].upper()}{listed[1:]}.")
