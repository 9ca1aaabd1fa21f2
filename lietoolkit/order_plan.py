"""What a plan is: an order, the predictions behind it, what they cost, and how to train in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective
from lietoolkit.order.effort import Rehearsal
from lietoolkit.order.search import Searched
from lietoolkit.statistics import chance
from lietoolkit.tasks.trainer import TrainerData, ordered_dataset
from lietoolkit.training.from_trainer import TrainerRun
from lietoolkit.training.optimizers import Optimizer

if TYPE_CHECKING:
    import pandas
    from datasets import Dataset
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Material:
    """What a plan was made of, kept for verification; not saved."""

    sources: dict[str, Objective]
    targets: dict[str, Objective]
    theta: Tensor
    optimizer: Optimizer
    searched: Searched | None = None
    data: TrainerData | None = None
    run: TrainerRun | None = None


@dataclass(frozen=True)
class OrderPlan:
    """An order of sources, the predictions behind it, and what they cost.

    Fields are those of ``plan.json``. Effects are in loss units (nats for language models):
    ``matrix[i][j]`` is L_target(i then j) - L_target(j then i), negative when i should go first.
    ``confidence`` holds, for each adjacent pair, the ``chance`` that it should not be turned round:
    a probability calibrated on orders trained for real (None where there is none: the local score
    of other optimizers than plain SGD). ``survival`` tells how often the sign survives resampling
    of the sources' rows; an order that was rehearsed has no such number (None).
    ``better_than_reverse`` is the chance that the order beats its reverse. ``expected``, where
    orders were tried: for each target the loss to expect of every order less that of the plan, by
    the places in ``names``, "201"; empty with more than 6 sources.
    """

    order: list[str]
    names: list[str]
    scores: dict[str, float]
    matrix: list[list[float]]
    targets: dict[str, dict[str, Any]]
    forgetting: dict[str, float]
    constraints: list[str]
    confidence: list[dict[str, Any]]
    better_than_reverse: float | None
    baselines: dict[str, dict[str, Any]]
    geometry: dict[str, Any] | None
    lr: float
    lr_rule: dict[str, Any]
    steps: int
    method: str
    planner: str
    effort: dict[str, Any]
    rounds: list[dict[str, float]]
    expected: dict[str, dict[str, float]]
    optimizer: str
    schedule: str
    warmup: int
    objective: str
    objective_of: dict[str, str]
    steps_of: dict[str, int]
    model: str
    parameters: dict[str, Any]
    device: str
    dtype: str
    seed: int
    sources: dict[str, dict[str, Any]]
    notes: list[str]
    cost: dict[str, float]
    seconds: float
    versions: dict[str, str]
    hardware: dict[str, Any]
    verification: dict[str, Any] | None = None
    material: Material | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything that is saved, as plain data."""
        kept = [f.name for f in fields(self) if f.name != "material"]
        return {"lietoolkit": self.versions["lietoolkit"]} | {n: getattr(self, n) for n in kept}

    def to_frame(self) -> pandas.DataFrame:
        """One row per source in planned order: place, score, predicted forgetting."""
        import pandas

        return pandas.DataFrame(
            {
                "place": range(1, len(self.order) + 1),
                "source": self.order,
                "score": [self.scores[name] for name in self.order],
                "forgetting": [self.forgetting.get(name, float("nan")) for name in self.order],
            }
        ).set_index("place")

    @property
    def stages(self) -> list[tuple[str, int, int]]:
        """Source, first step and step after the last of each stage, of a plan made from a trainer.

        Raises:
            InputError: the plan was not made with ``trainer=``.
        """
        _, run = self.trainer_material()
        found, at = [], 0
        for name in self.order:
            found.append((name, at, at + run.lengths[name]))
            at += run.lengths[name]
        return found

    def dataset(self) -> Dataset:
        """All sources in planned order as one ``datasets.Dataset``, to be read from first to last.

        Rows are ready for the trainer that the plan was made with; each step reads its batch size
        of them, and ``stages`` says where a source begins and ends.

        Raises:
            InputError: the plan was not made with ``trainer=``.
        """
        data, run = self.trainer_material()
        return ordered_dataset(data, self.order, run.lengths)

    def trainer_material(self) -> tuple[TrainerData, TrainerRun]:
        """The data and the run of the trainer that the plan was made with.

        Raises:
            InputError: it was made without ``trainer=``, or read from a file.
        """
        made = self.material
        if made is None or made.data is None or made.run is None:
            raise InputError(
                "plan: expected one made from a trainer, whose rows it knows; "
                "call plan_order(trainer=..., sources=..., target=...)"
            )
        return made.data, made.run

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the pairwise matrix in planned order."""
        from lietoolkit.plots import order_matrix

        return order_matrix(self.matrix, self.names, self.order, ax=ax)

    def save(self, folder: str | Path) -> Path:
        """Write ``plan.json`` into a folder, all or nothing; returns its path."""
        folder = Path(folder)
        part = folder / ".plan.json.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            os.replace(part, folder / "plan.json")
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise InputError(
                f"out: expected a folder that can be written to, found {folder} "
                f"({error.strerror or error}); choose another with --out"
            ) from error
        return folder / "plan.json"


def read_plan(folder: str | Path) -> OrderPlan:
    """The plan that ``save`` wrote into a folder, without its material.

    Raises:
        InputError: no plan there, or not one of this version's.
    """
    path = Path(folder) / "plan.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        saved.pop("lietoolkit")
        return OrderPlan(**saved)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: expected a plan as this version writes it, found {error}; plan again"
        ) from error


def ranking(made: OrderPlan) -> str:
    """The plan in a few lines of text."""
    lines = ["", f"Train in this order ({made.model}, {made.objective}, lr {made.lr:.3g}):"]
    pairs = {row["first"]: row for row in made.confidence}
    width = max(len(name) for name in made.order)
    for place, name in enumerate(made.order, 1):
        row = pairs.get(name)
        # Effects of pairs say little about an order that was rehearsed as a whole.
        row = row if made.planner == "tournament" else None
        note = f"   before the next one: {row['effect']:+.2g}" if row else ""
        if row and row["survival"] is not None:
            note += f", the same sign in {row['survival']:.0%} of resamples"
        lines.append(f"  {place}. {name:{width}}{note}".rstrip())
    if made.better_than_reverse is not None:
        if made.better_than_reverse in (0, 1):
            known = "Better" if made.better_than_reverse else "Worse"
            lines.append(f"{known} than its reverse: both were trained")
        else:
            likely = chance(made.better_than_reverse)
            lines.append(f"Chance that it is better than its reverse: {likely}")
    lines.append(f"Planner: {made.planner}; {made.effort['why']}")
    if made.effort["tries"]:
        lines.append(f"Tried: {tries_in_words(made.effort['tries'], made.steps)}")
    for name, target in made.targets.items():
        lines.append(
            f"Predicted for {name}, against the reverse order: {target['plan_vs_reverse']:+.3g}"
        )
    for steps, run in (made.verification or {"steps": {}})["steps"].items():
        lines.append(
            f"Trained for real, {steps} step{'s' * (steps != '1')} per source: "
            f"the plan is number {run['rank']} of {run['n']} orders"
        )
    lines += [f"Note: {note}" for note in made.notes]
    cost = made.cost
    lines.append(
        f"Cost: {cost['total']:.0f} gradients, {cost['training_runs']:.2g} training runs; "
        f"{made.seconds:.0f} s"
    )
    return "\n".join(lines)


def tries_in_words(tries: Mapping[str, int], steps: int) -> str:
    """How many orders were tried, and how.

    Args:
        tries: number of orders by how a stage was stood for, see ``Rehearsal.label``.
        steps: of a stage.

    >>> tries_in_words({"20/8": 6, "5": 1, "20": 2}, 20)
    '6 orders with 1 of 8 rows, 1 order with 5 of 20 gradients a stage, 2 orders trained whole'
    """
    return ", ".join(
        f"{count} order{'s' * (count != 1)} {Rehearsal.of(label).words(steps)}"
        for label, count in tries.items()
    )
