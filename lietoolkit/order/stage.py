"""The stage commutator: order effects of stages of any length, with any optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective
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
    from :math:`\bar z_j`, end at :math:`r_{ij}`, on average at :math:`\bar r_j`. What curvature
    changes in those gradients is taken linearly: with :math:`\lambda = \nabla L_E`, the mean of
    :math:`\lambda(e_j)` and :math:`\lambda(\bar r_j)` is carried back through the stage to
    :math:`w_j`, and through its updates alone to :math:`w^0_j`. Curvature shortens what is left of
    an offset, :math:`q_j = \min(1, \|w_j\|^2 / \|w^0_j\|^2)` (of the parameters), so the target is
    read at :math:`s_{ij} = e_j + q_j (r_{ij} - e_j)`. From :math:`s_{ij}` to :math:`s_{ji}` its
    loss is followed by :math:`e_j` and :math:`e_i`, by its slope at both ends of each piece:

    .. math:: \Delta_{ij} \approx X_{ij} - X_{ji}
              + \frac{1}{2} \langle\lambda(e_i) + \lambda(e_j), e_j - e_i\rangle

    .. math:: X_{ij} = \frac{1}{2} \langle\lambda(e_j) + \lambda(s_{ij}), s_{ij} - e_j\rangle
              + \langle w_j - q_j w^0_j, z_i - \bar z_j\rangle

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
    space = sources[names[0]].space
    after: dict[str, dict[str, Tensor]] = {}  # X[:, j] of each target, of this process's share
    bar = tqdm(total=2 * len(ranks.mine(names)), desc="stages", unit="stage", disable=not progress)

    def alone(name: str) -> Tensor:
        state = run_stage(sources[name], start, optimizer, sizes[:steps])
        bar.update()
        return torch.stack([state.theta, *state.buffers])

    def second(name: str) -> Tensor:
        """Make a column of X, return where the stage ends and the slopes there."""
        own = names.index(name)
        mean = _mean_of_others(solo, own)
        replayed = [state for i, state in enumerate(solo) if i != own]

        def replay(s: int, g: Tensor) -> None:
            for i, state in enumerate(replayed):
                replayed[i] = optimizer.step(state, g, sizes[steps + s])

        trajectory = run_trajectory(
            stage_steps(sources[name], sizes[steps:]), mean, optimizer, watch=replay
        )
        end = trajectory.end.theta
        middle = torch.stack([state.theta for state in replayed]).mean(0)
        slopes, column = [], {}
        for aim, target in targets.items():
            slope = target.gradient(end)
            w, bare = _carried_back(trajectory, (slope + target.gradient(middle)) / 2, hvp)
            shorter = space.norm(w.theta) / space.norm(bare.theta).clamp(min=1e-300)
            left = float(shorter.square().clamp(max=1.0))
            curved = state_minus(w, bare, left)
            straight = []
            for state in replayed:
                way = left * (state.theta - end)
                straight.append(space.dot(slope + target.gradient(end + way), way) / 2)
            straight.insert(own, torch.zeros_like(straight[0]))
            along = [state_dot(space, curved, state_minus(state, mean)) for state in solo]
            column[aim] = (torch.stack(straight) + torch.stack(along)).cpu()
            slopes.append(slope)
        after[name] = column
        bar.update()
        return torch.stack([end, *slopes])

    with bar:
        if hvp == "auto":
            settle(sources, theta, lambda _: next(iter(targets.values())).gradient(theta))
        solo = [
            TrainingState(packed[0], tuple(packed[1:]), start.step + steps)
            for packed in in_turn(names, alone)
        ]
        ends = list(in_turn(names, second))
    columns = {name: column for part in ranks.gather(after) for name, column in part.items()}
    effects = {}
    for m, aim in enumerate(targets, 1):
        x = torch.stack([columns[name][aim] for name in names], dim=1)
        d = space.gram([end[m] for end in ends], [end[0] for end in ends]).cpu()
        effects[aim] = x - x.T + (d - d.T + d.diag()[None, :] - d.diag()[:, None]) / 2
    return effects


def _carried_back(
    trajectory: Trajectory, cotangent: Tensor, hvp: str
) -> tuple[TrainingState, TrainingState]:
    """A cotangent of the end carried back to the start, and through the updates alone."""
    w = bare = at_end(trajectory, cotangent)
    for step in reverse_steps(trajectory, w, hvp):
        sizes = trajectory.steps[step.number].sizes
        bare, _ = pull_update(trajectory.optimizer, step.before, step.gradient, sizes, bare)
        w = step.cotangent
    return w, bare


def _mean_of_others(ends: Sequence[TrainingState], i: int) -> TrainingState:
    states = [state for j, state in enumerate(ends) if j != i]
    buffers = zip(*(state.buffers for state in states), strict=True)
    return TrainingState(
        torch.stack([state.theta for state in states]).mean(0),
        tuple(torch.stack(list(same)).mean(0) for same in buffers),
        states[0].step,
    )
