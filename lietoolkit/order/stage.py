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
    read at :math:`s_{ij} = e_j + q_j (r_{ij} - e_j)`:

    .. math:: \Delta_{ij} \approx X_{ij} - X_{ji}, \qquad
              X_{ij} = L_E(s_{ij}) + \langle w_j - q_j w^0_j, z_i - \bar z_j\rangle

    In float32 a loss holds no effects below about 2e-5 nats; for those there is the local score.

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
    bar = tqdm(total=2 * len(ranks.mine(names)), desc="stages", unit="stage", disable=not progress)

    def alone(name: str) -> Tensor:
        state = run_stage(sources[name], start, optimizer, sizes[:steps])
        bar.update()
        return torch.stack([state.theta, *state.buffers])

    def column(j: int) -> dict[str, Tensor]:
        """X[:, j] of each target."""
        source, mean = sources[names[j]], _mean_of_others(solo, j)
        replayed = [state for i, state in enumerate(solo) if i != j]

        def replay(s: int, g: Tensor) -> None:
            for i, state in enumerate(replayed):
                replayed[i] = optimizer.step(state, g, sizes[steps + s])

        trajectory = run_trajectory(
            stage_steps(source, sizes[steps:]), mean, optimizer, watch=replay
        )
        end = trajectory.end.theta
        middle = torch.stack([state.theta for state in replayed]).mean(0)
        found = {}
        for name, target in targets.items():
            slope = (target.gradient(end) + target.gradient(middle)) / 2
            w, bare = _carried_back(trajectory, slope, hvp)
            shorter = source.space.norm(w.theta) / source.space.norm(bare.theta).clamp(min=1e-300)
            left = float(shorter.square().clamp(max=1.0))
            curved = state_minus(w, bare, left)
            losses = [target.loss(end + left * (state.theta - end)) for state in replayed]
            losses.insert(j, torch.zeros_like(losses[0]))
            along = [state_dot(source.space, curved, state_minus(state, mean)) for state in solo]
            found[name] = (torch.stack(losses) + torch.stack(along)).cpu()
        bar.update()
        return found

    with bar:
        if hvp == "auto":
            settle(sources, theta, lambda _: next(iter(targets.values())).gradient(theta))
        solo = [
            TrainingState(packed[0], tuple(packed[1:]), start.step + steps)
            for packed in in_turn(names, alone)
        ]
        columns = ranks.each(range(len(names)), column)
    effects = {name: torch.stack([x[name] for x in columns], dim=1) for name in targets}
    return {name: x - x.T for name, x in effects.items()}


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
