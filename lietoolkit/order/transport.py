"""The transported bracket: the local score, integrated along what both sources do together."""

from __future__ import annotations

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective
from lietoolkit.training.schedules import check_run


def transported_effect(
    a: Objective,
    b: Objective,
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int = 1,
    pieces: int | None = None,
) -> float:
    r"""Order effect of two flows, :math:`L_E(A \to B) - L_E(B \to A)`; negative: A first.

    .. math:: \Delta_{AB} = t^2 \int_0^1 \langle\lambda(s), b_{AB}(\theta(s))\rangle\,ds + O(t^4),
        \quad t = k\eta

    :math:`\theta' = -t(g_A + g_B)` is the joint drift from the start, :math:`\lambda` the target's
    gradient at its end, carried back along it: :math:`\lambda' = t(H_A + H_B)\lambda`. Both by
    Euler; with one piece this is the Trotter score. It describes gradient flows: steps so long
    that they jump, and optimizers with a state, are beyond it. For understanding: it costs
    twice as much as training both orders.

    Args:
        a: first source.
        b: second source.
        target: the loss E.
        theta: start, [P].
        lr: step size :math:`\eta`.
        steps: steps per stage, k.
        pieces: of the integral, each two gradients and a product more of each source. Default: one
            for each step, at least 8.

    Returns:
        The effect in loss units.

    Raises:
        InputError: bad settings, or a loss that is not finite.

    Source: the Baker-Campbell-Hausdorff series of the two orders, see docs/theory.

    >>> a = Objective(lambda x: x[0] ** 2 * x[1])
    >>> b = Objective(lambda x: x[1] ** 2)
    >>> e = Objective(lambda x: x[0])
    >>> theta = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> round(transported_effect(a, b, e, theta, lr=0.001) / 0.001**2, 1)
    -11.9
    """
    check_run(lr, steps)
    pieces = max(steps, 8) if pieces is None else pieces
    if pieces < 1:
        raise InputError(f"pieces: expected at least one, found {pieces}")
    t = steps * lr
    path = [theta]
    for _ in range(pieces):
        path.append(path[-1] - t / pieces * (a.gradient(path[-1]) + b.gradient(path[-1])))
    cotangent = target.gradient(path.pop())
    total = torch.zeros((), dtype=torch.float64)
    for at in reversed(path):
        g_a, v_a = a.gradient_and_hvp(at, cotangent)
        g_b, v_b = b.gradient_and_hvp(at, cotangent)
        # The products that carry the cotangent back give the bracket along it as well.
        total += (a.space.dot(v_b, g_a) - a.space.dot(v_a, g_b)).cpu() / pieces
        cotangent = cotangent - t / pieces * (v_a + v_b)
    return float(t**2 * total)
