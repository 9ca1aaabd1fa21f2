"""The stage commutator: order effects of stages of any length, with any optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry.objective import Objective
from lietoolkit.training.optimizers import Optimizer, TrainingState
from lietoolkit.training.reverse import (
    at_end,
    pull_back,
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
    *others'* solo ends, second ends :math:`e_i = \Phi_i(\bar z_i)`, :math:`\lambda = \nabla L_E` at
    the mean of the :math:`e_i`, and :math:`w_i = D\Phi_i(\bar z_i)^T (\lambda, 0)`:

    .. math:: \Delta_{ij} \approx \langle\lambda, e_j - e_i\rangle
              + \langle w_j, z_i - \bar z_j\rangle - \langle w_i, z_j - \bar z_i\rangle

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

    Source: PAPER section 5.2, in its linear form, each reference without its own source; with two
    sources it is where the second stage really begins.
    """
    steps = len(sizes) // 2
    start = optimizer.init(theta)
    bar = tqdm(total=2 * len(sources), desc="stages", unit="stage", disable=not progress)
    with bar:
        solo = []
        for source in sources.values():
            solo.append(run_stage(source, start, optimizer, sizes[:steps]))
            bar.update()
        ends = [
            run_stage(source, _mean_of_others(solo, i), optimizer, sizes[steps:]).theta
            for i, source in enumerate(sources.values())
        ]
        middle = torch.stack(ends).mean(0)
        cotangents = {name: target.gradient(middle) for name, target in targets.items()}
        n = len(ends)
        effects = {name: torch.zeros(n, n, dtype=torch.float64) for name in targets}
        for j, source in enumerate(sources.values()):
            mean = _mean_of_others(solo, j)
            trajectory = run_trajectory(stage_steps(source, sizes[steps:]), mean, optimizer)
            offsets = [state_minus(state, mean) for state in solo]
            for name, cotangent in cotangents.items():
                w = pull_back(trajectory, at_end(trajectory, cotangent), hvp)
                base = source.space.dot(cotangent, ends[j] - middle)
                along = torch.stack([state_dot(source, w, offset) for offset in offsets])
                effects[name][:, j] = (base + along).cpu()
            bar.update()
    return {name: effect - effect.T for name, effect in effects.items()}


def _mean_of_others(ends: Sequence[TrainingState], i: int) -> TrainingState:
    states = [state for j, state in enumerate(ends) if j != i]
    buffers = zip(*(state.buffers for state in states), strict=True)
    return TrainingState(
        torch.stack([state.theta for state in states]).mean(0),
        tuple(torch.stack(list(same)).mean(0) for same in buffers),
        states[0].step,
    )
