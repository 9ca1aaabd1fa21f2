"""Short training runs that an answer of notebook 10 may ask for, and the turns they are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from lietoolkit.course.checks_core import Wrong, network, random_vectors
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.from_end import FromEnd, plan_from_end


class Runs:
    """``run(turns)``: trains with SGD, one step for each name, and returns the target's loss."""

    def __init__(self, seed: int, names: str, lr: float = 0.3):
        self.names, self.lr = list(names), lr
        self.sources = {x: Objective(network(seed + i)) for i, x in enumerate(names)}
        self.target = Objective(network(seed + 20))
        (self.theta,) = random_vectors(seed + 21, 13)
        self.count = 0
        self.limit: int | None = None

    def __call__(self, turns: Iterable[str]) -> float:
        """The target's loss after these steps, counted."""
        turns = list(turns)
        unknown = [x for x in turns if x not in self.names]
        if unknown:
            raise Wrong(f"run takes names, one for each step, not nested; found {unknown[0]!r}.")
        self.count += 1
        if self.limit is not None and self.count > self.limit:
            raise Wrong(
                f"More than {self.limit} runs: run each candidate of a choice once, and none "
                "where one source is left."
            )
        theta = self.theta
        for x in turns:
            theta = theta - self.lr * self.sources[x].gradient(theta)
        return float(self.target.loss(theta))

    def __deepcopy__(self, _: dict) -> Runs:
        return self  # nothing that an answer can change

    def plan(self, steps: int) -> FromEnd:
        """The package's plan."""
        return plan_from_end(self.sources, self.target, self.theta, self.lr, steps, effort="exact")


def mixture(names: Sequence[str], steps: int) -> list[str]:
    """One step each in turn, every other sweep backwards."""
    sweeps = [list(names)[:: -1 if s % 2 else 1] for s in range(steps)]
    return list(itertools.chain(*sweeps))


def stages(names: Iterable[str], steps: int) -> list[str]:
    """One stage after the other."""
    return [x for name in names for x in [name] * steps]
