"""Planning from the end: choose the last source first, then the one before it, and so on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.cost import Cost, metered
from lietoolkit.geometry.objective import Objective, in_step
from lietoolkit.order.constraints import Precedence, parse_constraints
from lietoolkit.order.tournament import check_sources
from lietoolkit.training.optimizers import Optimizer, TrainingState, optimizer_from
from lietoolkit.training.reverse import (
    Step,
    Trajectory,
    at_end,
    pull_back,
    pull_update,
    reverse_steps,
    run_trajectory,
    state_dot,
    state_minus,
    step_gradient,
    update,
)
from lietoolkit.training.schedules import check_run, step_sizes
from lietoolkit.training.stages import interleaved, shares

EFFORTS = ("exact", "linear")


@dataclass(frozen=True)
class FromEnd:
    """An order planned from its end.

    Attributes:
        order: trained-first first.
        rounds: one {name: score} per choice, last position first: the target loss (nats) expected
            at the end if this source comes last of those that remain; the lowest was chosen. Where
            constraints leave one candidate there is no choice.
        cost: gradient equivalents spent.
        sweeps: gradients a stage is stood for by. effort: "exact" or "linear".
    """

    order: list[str]
    rounds: list[dict[str, float]]
    cost: Cost
    sweeps: int
    effort: str


@in_step
def plan_from_end(
    sources: Mapping[str, Objective],
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int,
    optimizer: str | Optimizer = "sgd",
    sweeps: int | None = None,
    *,
    effort: str = "linear",
    one_shot: bool = False,
    schedule: str = "constant",
    warmup: int = 0,
    constraints: Sequence[str] = (),
    hvp: str = "auto",
    progress: bool = False,
) -> FromEnd:
    r"""Order sources by backward induction: which of those that remain should come last?

    *Exact:* for each candidate i of the remaining set R, train the others of R interleaved (one
    step each in turn, every other sweep in reverse, since a sweep favours whoever steps last in
    it), then i, then the stages already chosen, and read the target's loss. N(N+1)/2 - 1 training
    runs of all sources.

    *Linear:* one interleaved run z over all of R, with end :math:`z_T`, serves all candidates.
    What is different when i is missing from it has two parts. The optimizer's own is replayed: the
    run's gradients without those of i give a state :math:`z^{-i}` at no gradient's cost, with the
    buffers, step counter and step sizes of a run without i. The other is curvature: the others'
    gradients would be read elsewhere. With :math:`\lambda` the cotangent of the loss at
    :math:`z_T` through the stages already chosen, carried back along z, and c that of a step's
    gradient, both together change the loss by

    .. math:: p_i = \langle\lambda_T, z^{-i} - z_T\rangle
              + \sum_{s \notin i} \langle H_s c_s,\ \theta^{-i}_s - \theta_s\rangle

    Curvature takes much of a displacement back in a long run, so only the share :math:`\rho_i` of
    it is kept that explains :math:`p_i`, between 0 and 1:

    .. math:: \mathrm{score}_i = L_E(z_T + \rho_i (z^{-i} - z_T),\ \mathrm{then}\ i,\
              \mathrm{then\ those\ chosen}) + p_i - \rho_i \langle\lambda_T, z^{-i} - z_T\rangle

    The sum needs no :math:`\theta^{-i}_s`: Hc of the others, carried back through the updates
    alone, is paired with :math:`z_s - z_{s+1}` at each step of i, over parameters and buffers,
    for a step that is left out leaves the buffers as they were. For small steps of plain SGD, of
    constant size, and evenly many sweeps, scores differ by
    :math:`-\frac{1}{2} k^2\eta^2 \sum_j \sigma_{ij}`, the row sums of the tournament: no other
    term of second order is left. In training runs of all sources the first round costs 4 (exact:
    N, so that few sources are better scored exactly); with m sweeps, m/k of that.

    Args:
        sources: two or more objectives by name; the turns of the interleaved run follow this order.
        target: the loss that should end low.
        theta: where the model is now, [P].
        lr: step size :math:`\eta`, the highest of the schedule. steps: steps per stage, k.
        optimizer: "sgd", "momentum", "adamw" or a configuration; its state is carried throughout.
        sweeps: gradients that stand for a stage, 1 to k, default k. With fewer, each is held for
            its share of the k updates, so that the optimizer acts as over all of them.
        effort: "exact" or "linear".
        one_shot: sort by the scores of the first round instead of scoring again after each choice.
        schedule, warmup: of the step size over the whole run.
        constraints: "a before b", "a first", "a last".
        hvp: how products are made, see ``Objective.gradient_and_hvp``.
        progress: show a progress bar over positions.

    Raises:
        InputError: fewer than two sources, bad settings, training that diverges.

    Source: this project, see docs/theory/whole-orders.md.

    >>> bowl = lambda c, k: Objective(lambda x: 0.5 * k * (x - c).square().sum())
    >>> plan = plan_from_end({"soft": bowl(1.0, 1.0), "stiff": bowl(-1.0, 4.0)}, bowl(1.0, 1.0),
    ...                      torch.zeros(1, dtype=torch.float64), lr=0.1, steps=2)
    >>> plan.order
    ['stiff', 'soft']
    """
    check_run(lr, steps, schedule, warmup, sweeps)
    rule = optimizer_from(optimizer)
    check_sources(sources)
    if not isinstance(target, Objective):
        raise InputError(
            f"target: expected lt.Objective or lt.ModelObjective, found {type(target).__name__}"
        )
    if effort not in EFFORTS:
        raise InputError(f"effort: expected one of {', '.join(EFFORTS)}; found {effort!r}")
    sweeps = steps if sweeps is None else sweeps
    names = list(sources)
    before = parse_constraints(constraints, names)
    sizes = step_sizes(lr, steps * len(names), schedule, warmup)
    run = _Run(sources, target, rule.init(theta), rule, sizes, steps, sweeps, hvp)
    score = _exact if effort == "exact" else _linear_once
    remaining, rounds = names, []
    chosen: list[str] = []
    with metered() as cost, tqdm(total=len(names), desc="positions", disable=not progress) as bar:
        if one_shot:
            rounds.append(score(run, names, names, []))
        while remaining:
            allowed = _allowed(remaining, names, before)
            if not one_shot and len(allowed) > 1:
                rounds.append(score(run, remaining, allowed, chosen))
            last = min(allowed, key=rounds[-1].__getitem__) if len(allowed) > 1 else allowed[0]
            remaining = [name for name in remaining if name != last]
            chosen = [last, *chosen]
            bar.update()
    return FromEnd(chosen, rounds, cost, sweeps, effort)


def _allowed(remaining: Sequence[str], names: Sequence[str], before: Precedence) -> list[str]:
    """Those that need not come before another one."""
    pairs = {(names[i], names[j]) for i, j in before}
    return [a for a in remaining if not any((a, b) in pairs for b in remaining)]


@dataclass(frozen=True)
class _Run:
    """The settings of a run and the steps it is made of."""

    sources: Mapping[str, Objective]
    target: Objective
    start: TrainingState
    optimizer: Optimizer
    sizes: list[float]
    steps: int
    sweeps: int
    hvp: str

    def _step(self, name: str, sweep: int, positions: Iterable[int]) -> Step:
        source = self.sources[name]
        return Step(source, sweep % source.batches, tuple(self.sizes[p] for p in positions))

    def interleaved(self, names: Sequence[str]) -> Iterator[tuple[str, Step]]:
        """A run of these from the start, one step each in turn; every other sweep in reverse."""
        for turn, sweep, places in interleaved(len(names), self.steps, self.sweeps):
            yield names[turn], self._step(names[turn], sweep, places)

    def stages(self, names: Sequence[str], place: int) -> Iterator[Step]:
        """One stage after the other, the first of them at this place of the order."""
        for stage, name in enumerate(names, place):
            for sweep, share in enumerate(shares(self.steps, self.sweeps)):
                yield self._step(name, sweep, [stage * self.steps + s for s in share])

    def train(self, state: TrainingState, steps: Iterable[Step]) -> TrainingState:
        """The state after these steps."""
        for step in steps:
            state = update(self.optimizer, state, step_gradient(step, state), step.sizes)
        return state

    def loss_after(self, state: TrainingState, last: Sequence[str], place: int) -> float:
        """The target's loss after these stages."""
        return float(self.target.loss(self.train(state, self.stages(last, place)).theta))


def _exact(
    run: _Run, remaining: Sequence[str], candidates: Sequence[str], chosen: Sequence[str]
) -> dict[str, float]:
    def score(i: str) -> float:
        others = [name for name in remaining if name != i]
        state = run.train(run.start, (step for _, step in run.interleaved(others)))
        return run.loss_after(state, [i, *chosen], len(others))

    return dict(zip(candidates, ranks.each(candidates, score), strict=True))


def _linear_once(run: _Run, *asked: Sequence[str]) -> dict[str, float]:
    """In one process: all candidates share one interleaved run."""
    return ranks.first(lambda: _linear(run, *asked))


def _linear(
    run: _Run, remaining: Sequence[str], candidates: Sequence[str], chosen: Sequence[str]
) -> dict[str, float]:
    turns = list(run.interleaved(remaining))
    without = {i: run.start for i in candidates}
    plans = {i: run.interleaved([name for name in remaining if name != i]) for i in candidates}

    def replay(index: int, g: Tensor) -> None:
        for i in candidates:
            if turns[index][0] != i:
                _, step = next(plans[i])
                without[i] = update(run.optimizer, without[i], g, step.sizes)

    joint = run_trajectory([step for _, step in turns], run.start, run.optimizer, watch=replay)
    rest = run_trajectory(list(run.stages(chosen, len(remaining))), joint.end, run.optimizer)
    cotangent = pull_back(rest, at_end(rest, run.target.gradient(rest.end.theta)), run.hvp)
    curvature = _curvature(run, joint, cotangent, [name for name, _ in turns], candidates)
    scores = {}
    for i in candidates:
        away = state_minus(without.pop(i), joint.end)
        straight = float(state_dot(run.sources[i].space, cotangent, away))
        change = straight + curvature[i]
        kept = min(max(change / straight, 0.0), 1.0) if straight else 1.0
        state = TrainingState(
            joint.end.theta + kept * away.theta,
            tuple(b + kept * x for b, x in zip(joint.end.buffers, away.buffers, strict=True)),
            away.step,
        )
        loss = run.loss_after(state, [i, *chosen], len(remaining) - 1)
        scores[i] = loss + change - kept * straight
    return scores


def _curvature(
    run: _Run,
    joint: Trajectory,
    cotangent: TrainingState,
    turns: Sequence[str],
    candidates: Sequence[str],
) -> dict[str, float]:
    """What the curvature of the others does to the loss when a candidate's steps are left out."""
    change = dict.fromkeys(candidates, 0.0)
    bent = {i: at_end(joint, torch.zeros_like(joint.end.theta)) for i in candidates}
    for step in reverse_steps(joint, cotangent, run.hvp):
        source, _, sizes = joint.steps[step.number]
        for i in candidates:
            if i == turns[step.number]:
                left_out = state_minus(step.before, step.after)
                change[i] += float(state_dot(source.space, bent[i], left_out))
            else:
                pulled, _ = pull_update(run.optimizer, step.before, step.gradient, sizes, bent[i])
                theta = pulled.theta + step.curvature
                bent[i] = TrainingState(theta, pulled.buffers, pulled.step)
    return change
