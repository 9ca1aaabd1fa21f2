"""What really happens: schedules trained for real, sharing common prefixes, resumable."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import NotFinite, Objective, in_step
from lietoolkit.training.optimizers import Optimizer, optimizer_from
from lietoolkit.training.schedules import check_run, step_sizes, steps_by_source
from lietoolkit.training.stages import run_stage
from lietoolkit.training.trail import Trail


@ranks.together()
@in_step
def run_schedules(
    sources: Mapping[str, Objective],
    target: Objective | Mapping[str, Objective],
    theta: Tensor,
    orders: Sequence[Sequence[str]],
    lr: float,
    steps: int = 1,
    optimizer: str | Optimizer = "sgd",
    *,
    schedule: str = "constant",
    warmup: int = 0,
    reset: bool = False,
    sweeps: int | None = None,
    steps_of: Mapping[str, int] | None = None,
    folder: str | Path | None = None,
    trail: Trail | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Train every order for real and return the target's final loss of each.

    Orders that begin alike share the work: all ordered pairs of N sources cost
    :math:`N + N(N-1)` stages, all 120 orders of five 325. With ``sweeps=m`` they are rehearsed
    instead: m gradients stand for the k steps of a stage, for m/k of the cost.

    Args:
        sources: what is trained on, by name.
        target: the loss that is read at the end, or several by name.
        theta: start, [P]; not changed, nor is any model.
        orders: each a sequence of names; they may leave sources out.
        lr: step size (the highest one, when a schedule is given).
        steps: steps per stage.
        optimizer: "sgd", "momentum", "adamw" or a configuration.
        schedule: "constant", "linear" or "cosine" over the whole run.
        warmup: steps of linear increase at the start of the run.
        reset: start each stage with fresh optimizer state instead of carrying it through.
        sweeps: gradients a stage, 1 to ``steps``; each is held for its share of the updates, so
            that the optimizer and the schedule act as over all of them. Default: one a step.
        steps_of: steps of single sources whose stages are longer or shorter; with ``sweeps`` they
            take the same share of gradients.
        folder: where finished orders are kept. Called again with the same settings, in any number
            of processes, only the missing ones are run, and the numbers are the same.
        trail: states along the order that was trained last, for the next call with the same
            settings: an order that leaves it two or three places before its end goes on from there.
            Losses are the same.
        progress: show a progress bar over stages.

    Returns:
        [len(orders)] float64 tensor of losses in nats; [len(orders), M] for M named targets.

    Raises:
        InputError: unknown name in an order, bad settings, training that diverges.

    >>> a = Objective(lambda x: (x - 1).square().sum())
    >>> b = Objective(lambda x: (x + 1).square().sum())
    >>> run_schedules({"a": a, "b": b}, a, torch.zeros(1).double(), [["a", "b"], ["b", "a"]], 0.25)
    tensor([1.5625, 0.5625], dtype=torch.float64)
    """
    optimizer = optimizer_from(optimizer)
    targets = {"target": target} if isinstance(target, Objective) else dict(target)
    plans = [tuple(order) for order in orders]
    for order in plans:
        for name in order:
            if name not in sources:
                raise InputError(
                    f"orders: unknown source {name!r}; the sources are {', '.join(sources)}"
                )
    longest = max((len(order) for order in plans), default=0)
    check_run(lr, steps, schedule, warmup, sweeps)
    lengths = steps_by_source(sources, steps, steps_of)
    total = max((sum(map(lengths.__getitem__, order)) for order in plans), default=0)
    settings = {
        "lr": lr,
        "steps": steps,
        "optimizer": repr(optimizer),
        "schedule": schedule,
        "warmup": warmup,
        "reset": reset,
        **({} if sweeps in (None, steps) else {"sweeps": sweeps}),
        **({"steps_of": dict(steps_of), "total": total} if steps_of else {}),
        "stages": longest,
        "theta": _digest(theta),
        "sources": {name: source.fingerprint() for name, source in sources.items()},
    }
    ranks.check_same(
        "run_schedules",
        lambda: {**settings, "orders": plans, "targets": list(map(_label, targets.items()))},
    )
    store = _Store(folder, settings)
    sizes = step_sizes(lr, total, schedule, warmup)
    missing = [
        o for o in dict.fromkeys(plans) if any(store.get(o, t) is None for t in targets.items())
    ]
    start = optimizer.init(theta)

    def train(part: Sequence[tuple[str, ...]]) -> None:
        path = [] if trail is None else trail.follow(key)
        for order in part:
            shared = _common(order, [name for name, _ in path])
            while shared and path[shared - 1][1] is None:
                shared -= 1
            del path[shared:]
            state = (path[-1][1] if path else None) or start
            for position in range(shared, len(order)):
                if reset and position:
                    state = optimizer.init(state.theta)
                name = order[position]
                first = sum(map(lengths.__getitem__, order[:position]))
                state = run_stage(
                    sources[name],
                    state,
                    optimizer,
                    sizes[first : first + lengths[name]],
                    sweeps and math.ceil(sweeps * lengths[name] / steps),
                )
                path.append((order[position], state))
                bar.update()
            store.put(order, {t: _final(t[1], state.theta, order) for t in targets.items()})
        if trail is not None and path:
            trail.leave(key, path)

    key = _key(settings)
    parts = _parts(sorted(missing), ranks.size())
    stages = sum(map(_stages, ranks.mine(parts)))
    bar = tqdm(total=stages, desc="training orders", unit="stage", disable=not progress)
    with bar:
        ranks.each(parts, train)
    store.join()
    table = [[store.get(order, t) for t in targets.items()] for order in plans]
    losses = torch.tensor(table, dtype=torch.float64)
    return losses[:, 0] if isinstance(target, Objective) else losses


def measure_order_effect(
    a: Objective,
    b: Objective,
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int = 1,
    optimizer: str | Optimizer = "sgd",
    *,
    schedule: str = "constant",
    warmup: int = 0,
    reset: bool = False,
) -> float:
    r"""Train both orders and return :math:`L_E(A \to B) - L_E(B \to A)`; negative: A first.

    Args as in ``run_schedules``. In loss units (nats for language models).

    >>> a = Objective(lambda x: (x - 1).square().sum())
    >>> b = Objective(lambda x: (x + 1).square().sum())
    >>> measure_order_effect(a, b, a, torch.zeros(1, dtype=torch.float64), lr=0.25)
    1.0
    """
    losses = run_schedules(
        {"a": a, "b": b},
        target,
        theta,
        [("a", "b"), ("b", "a")],
        lr,
        steps,
        optimizer,
        schedule=schedule,
        warmup=warmup,
        reset=reset,
    )
    return float(losses[0] - losses[1])


def _final(target: Objective, theta: Tensor, order: Sequence[str]) -> float:
    try:
        return float(target.loss(theta))
    except NotFinite as error:
        raise InputError(
            f"after training {' -> '.join(order)} the loss of {target.name!r} is NaN or infinite; "
            "lower lr"
        ) from error


def _parts(orders: Sequence[tuple[str, ...]], count: int) -> list[list[tuple[str, ...]]]:
    """Sorted orders in so many parts of about as many stages; neighbors share prefixes."""
    parts: list[list[tuple[str, ...]]] = [[] for _ in range(count)]
    total, done = _stages(orders), 0
    for i, order in enumerate(orders):
        parts[done * count // total].append(order)
        done += len(order) - (_common(order, orders[i - 1]) if i else 0)
    return parts


def _stages(orders: Sequence[tuple[str, ...]]) -> int:
    return len({order[:n] for order in orders for n in range(1, len(order) + 1)})


def _common(order: Sequence[str], path: Sequence[str]) -> int:
    shared = 0
    while shared < min(len(order), len(path)) and order[shared] == path[shared]:
        shared += 1
    return shared


def _digest(theta: Tensor) -> str:
    data = theta.detach().cpu().contiguous().view(torch.uint8).numpy()
    pieces = ranks.of_pieces(hashlib.sha256(data.data).hexdigest()[:16])
    return pieces[0] if len(pieces) == 1 else _key(pieces)


def _key(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class _Store:
    """Finished orders of one setting, one JSON line each, appended and flushed as they come."""

    def __init__(self, folder: str | Path | None, settings: dict):
        self.losses: dict[tuple[tuple[str, ...], str], float] = {}
        self.path: Path | None = None
        if folder is None:
            return
        name = f"orders-{_key(settings)}"
        folder = Path(folder)
        # Each process appends to a file of its own, and reads what any number of them has left;
        # of those that hold pieces, and know the same, only the first.
        path = folder / (f"{name}.{ranks.rank()}.jsonl" if ranks.rank() else f"{name}.jsonl")
        if not ranks.piece():
            self.path = path
            with _disk_errors(path):
                folder.mkdir(parents=True, exist_ok=True)
                for kept in folder.glob(f"{name}*.jsonl"):
                    self._read(kept)
        self.join()

    def join(self) -> None:
        """What all processes have, in each."""
        for losses in ranks.gather(self.losses):
            self.losses |= losses

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().split(b"\n")
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # empty, or cut off by a kill in the middle of writing
            self.losses[tuple(row["order"]), row["target"]] = float.fromhex(row["loss"])
        if lines[-1] and path == self.path:  # a cut-off line must not swallow the next one
            with path.open("ab") as file:
                file.write(b"\n")

    def get(self, order: tuple[str, ...], target: tuple[str, Objective]) -> float | None:
        return self.losses.get((order, _label(target)))

    def put(self, order: tuple[str, ...], losses: Mapping[tuple[str, Objective], float]) -> None:
        lines = []
        for target, loss in losses.items():
            self.losses[order, _label(target)] = loss
            row = {"order": order, "target": _label(target), "loss": loss.hex()}
            lines.append(json.dumps(row) + "\n")
        with ranks.together():
            if self.path is not None:
                with _disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: finished orders cannot be kept ({error.strerror or error}); free some space "
            "or choose another folder; what was kept is found again"
        ) from error


def _label(target: tuple[str, Objective]) -> str:
    return f"{target[0]} {target[1].fingerprint()}"
