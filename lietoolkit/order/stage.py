"""The stage commutator: order effects of stages of any length, with any optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective
from lietoolkit.geometry.storage import fits_in_full
from lietoolkit.order.shares import in_turn, settle
from lietoolkit.training.optimizers import Optimizer, TrainingState
from lietoolkit.training.reverse import (
    Trajectory,
    at_end,
    pull_update,
    reverse_steps,
    run_trajectory,
    stage_steps,
    state_dot,
    state_minus,
)
from lietoolkit.training.stages import run_stage


def stage_effects(
    sources: Mapping[str, Objective],
    targets: Mapping[str, Objective],
    theta: Tensor,
    optimizer: Optimizer,
    sizes: Sequence[float],
    hvp: str = "auto",
    progress: bool = False,
) -> dict[str, Tensor]:
    r"""Effects of all pairs of k-step stages, O(N) stages instead of N + N(N-1).

    A stage is a map :math:`\Phi_i` of the training state :math:`z = (\theta, \mathrm{buffers})`.
    With solo ends :math:`z_i = \Phi_i(z_0)`, for each source the mean :math:`\bar z_i` of the
    *others'* solo ends, and second ends :math:`e_i = \Phi_i(\bar z_i)`. What the optimizer makes of
    stage j after stage i is replayed: its updates from :math:`z_i`, with the gradients of the stage
    from :math:`\bar z_j`, end at :math:`r_{ij}`. What curvature changes in those gradients is taken
    linearly: with :math:`\lambda = \nabla L_E` at the mean of the :math:`e_i`, carried back through
    the stage to :math:`w_j = D\Phi_j(\bar z_j)^T (\lambda, 0)`, and through its updates alone to
    :math:`w^0_j`, and with :math:`\lambda_{ij} = \nabla L_E` halfway between :math:`r_{ij}` and
    :math:`r_{ji}`,

    .. math:: \Delta_{ij} \approx \langle\lambda_{ij}, r_{ij} - r_{ji}\rangle
              + \langle w_j - w^0_j, z_i - \bar z_j\rangle
              - \langle w_i - w^0_i, z_j - \bar z_i\rangle

    The target's slope is read N(N-1)/2 times. Where the N^2 states :math:`r_{ij}` do not fit into
    memory, :math:`\lambda` serves all pairs; with AdamW that costs many signs.

    For one small SGD step this is :math:`\eta^2\sigma_{ij} + O(\eta^3)`. It is exact for quadratic
    sources and a linear target, whatever k. Around the :math:`\bar z_i`, not :math:`z_0`, since
    cold second moments of AdamW have no derivative; and without the source itself, whose own step,
    along its own stiff directions, no second stage begins with.

    Args:
        sources: objectives by name.
        targets: objectives by name.
        theta: start, [P].
        optimizer: of both stages; its state is carried from the first to the second.
        sizes: step sizes of both stages, first then second; 2k numbers.
        hvp: how products are made.
        progress: show a progress bar.

    Returns:
        For each target [N, N] float64 on the CPU, :math:`L(i \to j) - L(j \to i)` in loss units.

    Source: this project, see docs/theory/horizon.md. Each reference leaves its own source out; with
    two sources it is where the second stage really begins.
    """
    steps = len(sizes) // 2
    start = optimizer.init(theta)
    names = list(sources)
    n = len(names)
    bar = tqdm(total=2 * len(ranks.mine(names)), desc="stages", unit="stage", disable=not progress)
    after: dict[int, list[Tensor]] = {}  # by second stage, of this process's share; then by first
    all_pairs = fits_in_full(theta, n * n)

    def alone(name: str) -> Tensor:
        state = run_stage(sources[name], start, optimizer, sizes[:steps])
        bar.update()
        return torch.stack([state.theta, *state.buffers])

    def second_end(name: str) -> Tensor:
        mean = _mean_of_others(solo, names.index(name))
        return run_stage(sources[name], mean, optimizer, sizes[steps:]).theta

    def column(j: int) -> dict[str, Tensor]:
        source = sources[names[j]]
        mean = _mean_of_others(solo, j)
        offsets = [state_minus(state, mean) for state in solo]
        replayed = list(solo)

        def replay(s: int, g: Tensor) -> None:
            for i, state in enumerate(replayed):
                replayed[i] = optimizer.step(state, g, sizes[steps + s])

        trajectory = run_trajectory(
            stage_steps(source, sizes[steps:]), mean, optimizer, watch=replay
        )
        found = {}
        for name, cotangent in cotangents.items():
            curved = _curvature(trajectory, cotangent, hvp)
            along = torch.stack([state_dot(source, curved, offset) for offset in offsets])
            if not all_pairs:
                along += torch.stack(
                    [source.space.dot(cotangent, state.theta - middle) for state in replayed]
                )
            found[name] = along.cpu()
        if all_pairs:
            after[j] = [state.theta for state in replayed]
        bar.update()
        return found

    with bar:
        solo = [
            TrainingState(packed[0], tuple(packed[1:]), start.step + steps)
            for packed in in_turn(names, alone)
        ]
        middle = torch.stack(list(in_turn(names, second_end))).mean(0)
        slopes = in_turn(list(targets), lambda name: targets[name].gradient(middle))
        cotangents = dict(zip(targets, slopes, strict=True))
        if hvp == "auto":
            settle(sources, theta, lambda _: next(iter(cotangents.values())))
        columns = ranks.each(range(n), column)
    effects = {name: torch.stack([c[name] for c in columns], dim=1) for name in targets}
    if all_pairs:
        for name, effect in effects.items():
            effect += _halfway(targets[name], after, n)
    return {name: effect - effect.T for name, effect in effects.items()}


def _halfway(target: Objective, after: Mapping[int, Sequence[Tensor]], n: int) -> Tensor:
    """<slope halfway, r_ij - r_ji> above the diagonal, [n, n] on the CPU; r_ij = after[j][i]."""
    pairs = list(itertools.combinations(range(n), 2))
    # Who has the one state of a pair gets the other.
    homes = {(i, j): i if (i + j) % 2 else j for i, j in pairs}
    lent: dict[tuple[int, int], Tensor] = {}
    for i, j in pairs if ranks.size() > 1 else ():
        home = homes[i, j]
        other = i + j - home
        state = ranks.broadcast(
            after[other][home] if other in after else None, other % ranks.size()
        )
        if home in after:
            lent[i, j] = state

    def along(home: int) -> dict[tuple[int, int], float]:
        found = {}
        for i, j in (pair for pair in pairs if homes[pair] == home):
            other = i + j - home
            ours, theirs = after[home][other], lent.pop((i, j), None)
            theirs = after[other][home] if theirs is None else theirs
            ij, ji = (theirs, ours) if home == i else (ours, theirs)
            slope = target.gradient((ij + ji) / 2)
            found[i, j] = float(target.space.dot(slope, ij - ji))
        return found

    upper = torch.zeros(n, n, dtype=torch.float64)
    for part in ranks.each(range(n), along):
        for (i, j), value in part.items():
            upper[i, j] = value
    return upper


def _curvature(trajectory: Trajectory, cotangent: Tensor, hvp: str) -> TrainingState:
    """Of a cotangent carried back, what curvature added: w less the same through updates alone."""
    w = bare = at_end(trajectory, cotangent)
    for step in reverse_steps(trajectory, w, hvp):
        sizes = trajectory.steps[step.number].sizes
        bare, _ = pull_update(trajectory.optimizer, step.before, step.gradient, sizes, bare)
        w = step.cotangent
    return state_minus(w, bare)


def _mean_of_others(ends: Sequence[TrainingState], i: int) -> TrainingState:
    states = [state for j, state in enumerate(ends) if j != i]
    buffers = zip(*(state.buffers for state in states), strict=True)
    return TrainingState(
        torch.stack([state.theta for state in states]).mean(0),
        tuple(torch.stack(list(same)).mean(0) for same in buffers),
        states[0].step,
    )
