"""How much to spend on an order, and on which planner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
# Language models with an optimizer that remembers are rehearsed with fewer rows instead: each batch
# is read in so many parts. Held gradients misled there.
THIN = 8
# From so many training runs on they are trained whole.
WHOLE = 3.0
# What the tournament beside a search may cost: so many training runs, or this share of the budget.
ASIDE, ASIDE_SHARE = 0.5, 0.25
# Above this chance, sources that were random parts of one would look as distinct as these.
ALIKE = 0.05


class Rehearsal(NamedTuple):
    """How the k steps of a stage are stood for.

    Attributes:
        gradients: taken, 1 to k; each is held for its share of the updates.
        thin: each is of one part in so many of its batch's rows.

    >>> Rehearsal(5).cost(20), Rehearsal(20, 8).cost(20)
    (0.25, 0.125)
    """

    gradients: int
    thin: int = 1

    def cost(self, steps: int) -> float:
        """Of a whole order, in training runs."""
        return self.gradients / (self.thin * steps)

    def words(self, steps: int) -> str:
        """What was done with an order.

        >>> Rehearsal(5).words(20), Rehearsal(20, 8).words(20), Rehearsal(20).words(20)
        ('with 5 of 20 gradients a stage', 'with 1 of 8 rows', 'trained whole')
        """
        if self.gradients < steps:
            return f"with {self.gradients} of {steps} gradients a stage"
        return f"with 1 of {self.thin} rows" if self.thin > 1 else "trained whole"

    @classmethod
    def of(cls, label: str) -> Rehearsal:
        """What has this label."""
        return cls(*map(int, label.split("/")))

    @property
    def label(self) -> str:
        """As keys of plans and results have it: "5", or "20/8" of an eighth of the rows."""
        return f"{self.gradients}/{self.thin}" if self.thin > 1 else str(self.gradients)


@dataclass(frozen=True)
class Effort:
    """A planner and how much it may spend.

    Attributes:
        planner: "tournament", "search", "from-end", or "given": the order of the sources as given.
        levels: the rehearsals it may use, cheap to dear.
        budget: training runs that whole orders may cost.
        why: the reason, in plain words.
    """

    planner: str
    levels: tuple[Rehearsal, ...] = (Rehearsal(1),)
    budget: float = 0.0
    why: str = ""


def thinnest(rows: int) -> int:
    """In how many parts batches of so many rows are read by a rehearsal that thins them.

    >>> thinnest(8), thinnest(4), thinnest(12), thinnest(1)
    (8, 4, 6, 1)
    """
    return rows // -(-rows // THIN)


def choose_effort(
    sources: int,
    steps: int,
    optimizer: str,
    budget: float = 4.0,
    planner: str = "auto",
    batches: int = 1,
    rows: int = 1,
) -> Effort:
    """The planner that measured best where trying orders may cost ``budget`` training runs.

    A training run is N k gradients. One step of plain SGD is the tournament's own case. Beyond it
    a search says which orders to try (``search_levels``), and whether rehearsed or trained whole.
    With plain SGD m gradients stand for the k of a stage, and every batch must be read, or the
    rehearsal is of other sources than the run; the tournament, which reads them all, is the better
    choice where two such rehearsals are too dear. With other optimizers sources that consist of
    rows are rehearsed with fewer of them, and from a budget of three runs on not at all.

    Args:
        sources: N. steps: k. optimizer: its name.
        budget: training runs that trying orders may cost.
        planner: "auto", or the one to use whatever the budget.
        batches: that a source is made of, at most.
        rows: of a batch, at least.

    >>> effort = choose_effort(5, 20, "adamw", budget=4.0)
    >>> effort.planner, [rehearsal.label for rehearsal in effort.levels]
    ('search', ['1', '5', '20'])
    >>> [r.label for r in choose_effort(5, 20, "adamw", budget=1.0, rows=8).levels]
    ['20/8', '5', '20']
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
        return Effort("from-end", (Rehearsal(sweeps),), cost, f"asked for; costs {cost:.2g} runs")
    if planner == "auto" and steps == 1 and optimizer == "sgd":
        return Effort("tournament", why="one step of plain SGD is what the local score predicts")
    levels = _levels(steps, optimizer, budget, batches, rows)
    words = f"{steps} steps with {optimizer} are beyond the local score"
    if planner == "search":
        words = "asked for"
    two = 2 * levels[0].cost(steps)
    if two > budget + 1e-9 and planner == "auto":
        return Effort(
            "tournament",
            why=f"{words}, but two rehearsed orders already cost {two:.2g} training runs and the "
            f"budget is {budget:g}",
        )
    budget = max(two, budget)
    return Effort("search", levels, budget, f"{words}; a search for {budget:.3g} runs")


def _levels(
    steps: int, optimizer: str, budget: float, batches: int, rows: int
) -> tuple[Rehearsal, ...]:
    whole, part = Rehearsal(steps), Rehearsal(math.ceil(PART * steps))
    if optimizer == "sgd":
        least = min(steps, batches)
        found = [Rehearsal(max(m, least)) for m in (1, part.gradients)]
    elif budget >= WHOLE and max(batches, rows) > 1:
        found = []
    elif rows == 1:
        found = [Rehearsal(1), part]
    else:
        found = [part, Rehearsal(steps, thinnest(rows))]
    # Of two that cost the same, the later one.
    by_cost = {rehearsal.cost(steps): rehearsal for rehearsal in (*found, whole)}
    return tuple(by_cost[cost] for cost in sorted(by_cost))


def batches_beside(
    sources: int, targets: Sequence[int], run: int, batches: int, budget: float
) -> int:
    """How many batches each source gives to the tournament beside a search, at least one.

    With an optimizer that remembers, the tournament's order is no more than a first try, which
    fewer batches find nearly as well. N sources with n batches cost N n (1 + T) gradients, beside
    those of the T targets, which are read whole.

    Args:
        sources: N. targets: batches of each.
        run: gradients of a training run.
        batches: of a source, at most.
        budget: of the search, in training runs.

    >>> batches_beside(4, [5], 80, 5, budget=4.0), batches_beside(4, [5], 20, 5, budget=4.0)
    (5, 1)
    """
    left = max(ASIDE, ASIDE_SHARE * budget) * run - sum(targets)
    return min(batches, max(1, int(left / (sources * (1 + len(targets))))))


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
