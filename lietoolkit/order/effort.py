"""How much to spend on an order, and on which planner."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lietoolkit.errors import InputError
from lietoolkit.order.tournament import Tournament

PLANNERS = ("auto", "tournament", "search", "from-end")
# Of the k gradients of a stage, a rehearsal from the end should take this share: with fewer,
# language models trained with AdamW were misjudged.
LEAST_SHARE = 0.2
# Orders rehearsed as a whole after planning from the end: its own, the tournament's, and both in
# reverse.
COMPARED = 4
# A search rehearses stages with one gradient, with this share of the k, or trains them whole. It
# learns from what it tries how far the rough rehearsals can be trusted.
PART = 0.25
# From so many training runs on, sources of several batches are trained whole with an optimizer that
# remembers: there rehearsals, which read fewer of the batches, misled language models.
WHOLE = 3.0
# Above this chance, sources that were random parts of one would look as distinct as these.
ALIKE = 0.05


@dataclass(frozen=True)
class Effort:
    """A planner and how much it may spend.

    Attributes:
        planner: "tournament", "search", "from-end", or "given": the order of the sources as given.
        levels: gradients that stand for a stage, of the rehearsals it may use, rising.
        budget: training runs that whole orders may cost.
        why: the reason, in plain words.
    """

    planner: str
    levels: tuple[int, ...] = (1,)
    budget: float = 0.0
    why: str = ""


def choose_effort(
    sources: int,
    steps: int,
    optimizer: str,
    budget: float = 4.0,
    planner: str = "auto",
    batches: int = 1,
) -> Effort:
    """The planner that measured best where trying orders may cost ``budget`` training runs.

    A training run is N k gradients. One step of plain SGD is the tournament's own case. Beyond it
    a search says which orders to try (``search_levels``), and whether rehearsed with m gradients in
    place of the k of a stage, at m/k of a run each, or trained whole. With plain SGD every batch
    must be read, or the rehearsal is of other sources than the run; the tournament, which reads
    them all, is the better choice where two such rehearsals are too dear. With other optimizers and
    several batches a source, no order is rehearsed from a budget of three runs on.

    Args:
        sources: N. steps: k. optimizer: its name.
        budget: training runs that trying orders may cost.
        planner: "auto", or the one to use whatever the budget.
        batches: that a source is made of, at most.

    >>> effort = choose_effort(5, 20, "adamw", budget=4.0)
    >>> effort.planner, effort.levels
    ('search', (1, 5, 20))
    >>> choose_effort(5, 20, "adamw", budget=4.0, batches=5).levels
    (20,)
    >>> choose_effort(5, 1, "sgd").planner
    'tournament'
    """
    if not (isinstance(budget, int | float) and math.isfinite(budget) and budget > 0):
        raise InputError(f"budget: expected training runs, a positive number, found {budget!r}")
    if planner == "tournament":
        return Effort("tournament", why="asked for")
    if planner == "from-end":
        runs = sources * (sources + 1) / 2 - 1 + COMPARED
        sweeps = min(steps, max(math.ceil(LEAST_SHARE * steps), int(budget * steps / runs + 1e-9)))
        cost = sweeps * runs / steps
        return Effort("from-end", (sweeps,), cost, f"asked for; costs {cost:.2g} runs")
    if planner == "auto" and steps == 1 and optimizer == "sgd":
        return Effort("tournament", why="one step of plain SGD is what the local score predicts")
    least = min(steps, batches) if optimizer == "sgd" else 1
    levels = sorted({max(m, least) for m in (1, math.ceil(PART * steps), steps)})
    if optimizer != "sgd" and batches > 1 and budget >= WHOLE:
        levels = [steps]
    words = f"{steps} steps with {optimizer} are beyond the local score"
    if planner == "search":
        words = "asked for"
    two = 2 * levels[0] / steps
    if two > budget + 1e-9 and planner == "auto":
        return Effort(
            "tournament",
            why=f"{words}, but two orders rehearsed with {levels[0]} of {steps} gradients a stage "
            f"already cost {two:.2g} training runs and the budget is {budget:g}",
        )
    budget = max(two, budget)
    return Effort("search", tuple(levels), budget, f"{words}; a search for {budget:.3g} runs")


def abstain(t: Tournament, seed: int = 0) -> Effort | None:
    """Keep the order as given, if the sources cannot be told apart; else None.

    Args:
        t: a tournament with chunks; without, there is nothing to tell from, and the answer is None.
        seed: of the permutation test, see ``Resampler.chance``.
    """
    chance = None if t.resampler is None else t.resampler.chance(seed=seed)
    if chance is None or chance <= ALIKE:
        return None
    return Effort(
        "given",
        why="no evidence that order matters here: random parts of one source would look as "
        f"distinct as these sources in {100 * chance:.0f}% of cases",
    )
