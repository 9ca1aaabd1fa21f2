"""Optimizer replay: what any order does to the optimizer, from gradients recorded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective, in_step
from lietoolkit.order.tournament import check_sources
from lietoolkit.training.optimizers import Optimizer, TrainingState, optimizer_from
from lietoolkit.training.reverse import Step, step_gradient, update
from lietoolkit.training.schedules import check_run, step_sizes
from lietoolkit.training.stages import interleaved, shares
from lietoolkit.training.truth import run_schedules


@in_step
def replay_orders(
    sources: Mapping[str, Objective],
    target: Objective | Mapping[str, Objective],
    theta: Tensor,
    orders: Sequence[Sequence[str]],
    lr: float,
    steps: int,
    optimizer: str | Optimizer = "adamw",
    every: int = 5,
    *,
    schedule: str = "constant",
    warmup: int = 0,
    progress: bool = False,
) -> Tensor:
    r"""Predict the target's final loss of every order from a few gradients of each source.

    With a stateful optimizer or a schedule the order matters in first order of the step size,
    through the state and the step sizes alone. So each source's gradients are recorded once, every
    so manieth along a run of that source alone, and any order is replayed: the optimizer's updates
    with the recorded gradients give a displacement :math:`D_\pi` at no gradient's cost. The same
    gradients interleaved, all sources in turn, give :math:`D_\circ`, and really training so, with
    as few gradients, an end :math:`\theta_\circ` for every order to be compared at:

    .. math:: L_E(\theta_\circ + D_\pi - D_\circ)

    The cost is 2 / ``every`` training runs of all sources, and one loss an order and target. Plain
    SGD of constant step size only adds gradients up: there all orders are predicted to be equal.

    Args:
        sources: two or more objectives by name.
        target: what is read at the end, or several by name.
        theta: start, [P].
        orders: each of all sources, by name.
        lr, steps, optimizer, schedule, warmup: of the training that is predicted.
        every: one gradient is taken in so many steps, and held for them.
        progress: show a progress bar over the stages that are replayed.

    Returns:
        [len(orders)] float64 tensor of losses in nats; [len(orders), M] for M named targets.

    Raises:
        InputError: an order that leaves a source out or repeats it, bad settings, training that
            diverges.

    Source: this project, see docs/theory/whole-orders.md.

    Momentum carries a source's gradient into the stages after its own:

    >>> import torch
    >>> slope = lambda i: Objective(lambda x: x[i])
    >>> two, start = {"a": slope(0), "b": slope(1)}, torch.zeros(2, dtype=torch.float64)
    >>> orders = [("a", "b"), ("b", "a")]
    >>> losses = replay_orders(two, slope(0), start, orders, lr=0.1, steps=2, optimizer="momentum")
    >>> losses.round(decimals=3).tolist()
    [-0.615, -0.29]
    """
    check_run(lr, steps, schedule, warmup)
    check_sources(sources)
    if type(every) is not int or every < 1:
        raise InputError(f"every: expected a whole number of at least 1, found {every!r}")
    names = list(sources)
    for order in orders:
        if sorted(order) != sorted(names):
            raise InputError(
                f"orders: expected each of {', '.join(names)} once in every order, "
                f"found {', '.join(order)}"
            )
    rule = optimizer_from(optimizer)
    sweeps = -(-steps // every)
    sizes = step_sizes(lr, steps * len(names), schedule, warmup)
    kept = {name: _record(s, rule.init(theta), rule, sizes, sweeps, steps)
            for name, s in sources.items()}  # fmt: skip
    real = replayed = rule.init(theta)
    for turn, sweep, places in interleaved(len(names), steps, sweeps):
        source, updates = sources[names[turn]], tuple(sizes[p] for p in places)
        step = Step(source, sweep % source.batches, updates)
        real = update(rule, real, step_gradient(step, real), updates)
        replayed = update(rule, replayed, kept[names[turn]][sweep], updates)
    shift = real.theta - replayed.theta
    read = {"target": target} if isinstance(target, Objective) else dict(target)
    losses = run_schedules(
        {name: _Recorded(sources[name], gradients) for name, gradients in kept.items()},
        {name: _Shifted(objective, shift) for name, objective in read.items()},
        theta, orders, lr, steps, rule,
        schedule=schedule, warmup=warmup, sweeps=sweeps, progress=progress,
    )  # fmt: skip
    return losses[:, 0] if isinstance(target, Objective) else losses


def _record(
    source: Objective,
    state: TrainingState,
    optimizer: Optimizer,
    sizes: Sequence[float],
    sweeps: int,
    steps: int,
) -> list[Tensor]:
    """Gradients along a run of one source, at the mean step sizes of all places it could have."""
    places = len(sizes) // steps
    gradients = []
    for sweep, share in enumerate(shares(steps, sweeps)):
        mean = tuple(sum(sizes[p * steps + s] for p in range(places)) / places for s in share)
        step = Step(source, sweep % source.batches, mean)
        gradients.append(step_gradient(step, state))
        state = update(optimizer, state, gradients[-1], mean)
    return gradients


class _Recorded(Objective):
    """A source whose gradients are known by their number, wherever it is asked."""

    def __init__(self, source: Objective, gradients: list[Tensor]):
        self.name, self.gradients, self.space = source.name, gradients, source.space

    @property
    def batches(self) -> int:
        return len(self.gradients)

    def gradient(self, theta: Tensor, batch: int | None = None, check: bool = True) -> Tensor:
        assert batch is not None
        return self.gradients[batch]


class _Shifted(Objective):
    """A target that is read elsewhere."""

    def __init__(self, target: Objective, shift: Tensor):
        self.target, self.shift = target, shift
        self.name, self.space = target.name, target.space

    @property
    def batches(self) -> int:
        return self.target.batches

    def _loss(self, theta: Tensor, batch: int | None) -> Tensor:
        return self.target._loss(theta + self.shift, batch)
