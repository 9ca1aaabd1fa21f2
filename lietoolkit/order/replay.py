"""Replay: what any order does, from gradients that are recorded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective, in_step
from lietoolkit.order.tournament import check_sources
from lietoolkit.training.optimizers import Optimizer, TrainingState, optimizer_from
from lietoolkit.training.reverse import Step, step_gradient, update
from lietoolkit.training.schedules import check_run, step_sizes
from lietoolkit.training.stages import interleaved, shares

# Of the moves' mean squared length, added to the squares of all: sources may move alike.
RIDGE = 1e-6


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
    curvature: int = 1,
    schedule: str = "constant",
    warmup: int = 0,
    progress: bool = False,
) -> Tensor:
    r"""Predict the target's final loss of every order from a few gradients of each source.

    The order matters in two ways. With a stateful optimizer or a schedule it does so in first order
    of the step size, through the state and the step sizes alone. And each source meets gradients
    that those before it have changed, the bracket's part. So each source's gradients
    :math:`g_{j,s}` are recorded once, every so manieth along a run of that source alone, at
    :math:`\theta_{j,s}`; it moves the model by :math:`d_j`. What moving by :math:`d_i` changes in
    them is read in the middle of that run,

    .. math:: c_{ji} = g_j(\theta + \frac{1}{2} d_j + d_i) - g_j(\theta + \frac{1}{2} d_j)
              \approx H_j d_i .

    Then any order :math:`\pi` is replayed: the optimizer's updates, at no gradient's cost, with

    .. math:: g_j(\theta') \approx g_{j,s} + \sum_i a_i\, c_{ji}, \qquad
              a = \arg\min_a \|\theta' - \theta_{j,s} - \sum_i a_i d_i\|,

    give a displacement :math:`D_\pi`. The same interleaved, all sources in turn, gives
    :math:`D_\circ`, and really training so, with as few gradients, an end :math:`\theta_\circ` for
    every order to be compared at:

    .. math:: L_E(\theta_\circ + D_\pi - D_\circ)

    For one small step of plain SGD two orders differ by :math:`\eta^2\sigma + O(\eta^3)`. The cost
    is 2 / ``every`` training runs of all sources, N (N + 1) gradients of ``curvature`` batches, and
    one loss an order and target. ``Objective.thinned`` sources make all but the losses cheaper.
    Kept in memory are N (2 k / ``every`` + N + 1) vectors.

    Args:
        sources: two or more objectives by name.
        target: what is read at the end, or several by name.
        theta: start, [P].
        orders: each of all sources, by name.
        lr, steps, optimizer, schedule, warmup: of the training that is predicted.
        every: one gradient is taken in so many steps, and held for them.
        curvature: batches that each :math:`c_{ji}` is read from, at most all there are; 0 leaves
            them out, and then plain SGD of constant step size seems not to know of order.
        progress: show a progress bar over the orders that are replayed.

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
    for name, value, least in (("every", every, 1), ("curvature", curvature, 0)):
        if type(value) is not int or value < least:
            raise InputError(
                f"{name}: expected a whole number of at least {least}, found {value!r}"
            )
    names = list(sources)
    plans = [tuple(order) for order in orders]
    for order in plans:
        if sorted(order) != sorted(names):
            raise InputError(
                f"orders: expected each of {', '.join(names)} once in every order, "
                f"found {', '.join(order)}"
            )
    rule = optimizer_from(optimizer)
    sweeps = -(-steps // every)
    sizes = step_sizes(lr, steps * len(names), schedule, warmup)
    start = rule.init(theta)
    recorded = _record(sources, start, rule, sizes, sweeps, steps)
    model = _Model(sources, recorded, theta, curvature)

    real = replayed = start
    for turn, sweep, places in interleaved(len(names), steps, sweeps):
        name, updates = names[turn], tuple(sizes[p] for p in places)
        step = Step(sources[name], sweep % sources[name].batches, updates)
        real = update(rule, real, step_gradient(step, real), updates)
        replayed = update(rule, replayed, model.gradient(name, sweep, replayed.theta), updates)
    shift = real.theta - replayed.theta

    read = {"target": target} if isinstance(target, Objective) else dict(target)
    losses: dict[tuple[str, ...], list[float]] = {}
    path: list[tuple[str, TrainingState]] = []
    held = shares(steps, sweeps)
    # Orders that begin alike are replayed from where they part.
    for order in tqdm(sorted(set(plans)), desc="replayed orders", disable=not progress):
        while path and [name for name, _ in path] != list(order[: len(path)]):
            path.pop()
        for place in range(len(path), len(order)):
            state = path[-1][1] if path else start
            for sweep, share in enumerate(held):
                g = model.gradient(order[place], sweep, state.theta)
                state = update(rule, state, g, tuple(sizes[place * steps + s] for s in share))
            path.append((order[place], state))
        losses[order] = [float(o.loss(path[-1][1].theta + shift)) for o in read.values()]
    table = torch.tensor([losses[order] for order in plans], dtype=torch.float64)
    return table[:, 0] if isinstance(target, Objective) else table


class _Recorded(NamedTuple):
    """A run of one source: its gradients, where they were taken, and how far it came."""

    gradients: list[Tensor]
    places: list[Tensor]
    moved: Tensor


def _record(
    sources: Mapping[str, Objective],
    start: TrainingState,
    optimizer: Optimizer,
    sizes: Sequence[float],
    sweeps: int,
    steps: int,
) -> dict[str, _Recorded]:
    """At the mean step sizes of all places that a source could have."""
    count = len(sizes) // steps
    found = {}
    for name, source in sources.items():
        state, gradients, places = start, [], []
        for sweep, share in enumerate(shares(steps, sweeps)):
            mean = tuple(sum(sizes[p * steps + s] for p in range(count)) / count for s in share)
            step = Step(source, sweep % source.batches, mean)
            gradients.append(step_gradient(step, state))
            places.append(state.theta)
            state = update(optimizer, state, gradients[-1], mean)
        found[name] = _Recorded(gradients, places, state.theta - start.theta)
    return found


class _Model:
    """Every source's gradient wherever training leads, from what was recorded.

    Its Hessian is known along the moves of all sources, and taken as zero across them.
    """

    def __init__(
        self,
        sources: Mapping[str, Objective],
        recorded: Mapping[str, _Recorded],
        theta: Tensor,
        curvature: int,
    ):
        self.recorded, self.space = recorded, next(iter(sources.values())).space
        self.moves = [run.moved for run in recorded.values()]
        self.changes: dict[str, Tensor] = {}
        if not curvature:
            return
        products = self.space.gram(self.moves, self.moves)
        self.products = products + RIDGE * products.diagonal().mean().clamp(min=1e-30) * torch.eye(
            len(products), dtype=products.dtype, device=products.device
        )
        for name, source in sources.items():
            middle = theta + recorded[name].moved / 2
            plain = _mean_gradient(source, middle, curvature)
            there = [_mean_gradient(source, middle + move, curvature) for move in self.moves]
            self.changes[name] = torch.stack(there) - plain

    def gradient(self, name: str, sweep: int, theta: Tensor) -> Tensor:
        """The gradient to expect of a source at theta, [P], in its sweep of a stage."""
        run = self.recorded[name]
        if not self.changes:
            return run.gradients[sweep]
        along = self.space.gram(self.moves, [theta - run.places[sweep]])
        parts = torch.linalg.solve(self.products, along)[:, 0]
        return run.gradients[sweep] + parts.to(theta.dtype) @ self.changes[name]


def _mean_gradient(source: Objective, theta: Tensor, batches: int) -> Tensor:
    count = min(batches, source.batches)
    return torch.stack([source.gradient(theta, batch=b) for b in range(count)]).mean(0)
