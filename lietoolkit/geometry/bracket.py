"""The Lie bracket of two gradient fields and its score for a target."""

from __future__ import annotations

from torch import Tensor

from lietoolkit.geometry.objective import Objective


def lie_bracket(a: Objective, b: Objective, theta: Tensor, method: str = "auto") -> Tensor:
    r"""Bracket of the gradient fields :math:`f_X = -\nabla L_X` at theta.

    .. math:: b_{AB} = [f_A, f_B] = H_B g_A - H_A g_B

    One SGD step of size :math:`\eta` on A and then one on B ends
    :math:`\eta^2 b_{AB} + O(\eta^3)` away from where B and then A ends.

    Args:
        a: the objective trained first.
        b: the objective trained second.
        theta: where, [P].
        method: of the Hessian-vector products, see ``Objective.gradient_and_hvp``.

    Returns:
        [P], in loss per parameter squared times parameter; multiply by :math:`\eta^2`.

    Source: Sweeney 2026, definition of the bracket.

    >>> import torch
    >>> a = Objective(lambda x: x[0] ** 2 * x[1])
    >>> b = Objective(lambda x: x[1] ** 2)
    >>> lie_bracket(a, b, torch.tensor([1.0, 3.0], dtype=torch.float64)).tolist()
    [-12.0, 2.0]
    """
    g_a, g_b = a.gradient(theta), b.gradient(theta)
    return b.hvp(theta, g_a, method) - a.hvp(theta, g_b, method)


def order_score(
    a: Objective, b: Objective, target: Objective, theta: Tensor, method: str = "auto"
) -> float:
    r"""The order score :math:`\sigma_{AB} = \langle g_E, b_{AB}\rangle`; negative: train A first.

    Computed as :math:`\langle H_B g_E, g_A\rangle - \langle H_A g_E, g_B\rangle` (Hessians are
    symmetric), so that each source costs one gradient and one product.

    Args:
        a: first source.
        b: second source.
        target: the loss E that should end low.
        theta: where, [P].
        method: of the Hessian-vector products.

    Returns:
        The score in loss per squared step size: :math:`L_E(A \to B) - L_E(B \to A) =
        \eta^2 \sigma_{AB} + O(\eta^3)`.

    Source: Sweeney 2026, order effect.

    >>> import torch
    >>> a = Objective(lambda x: x[0] ** 2 * x[1])
    >>> b = Objective(lambda x: x[1] ** 2)
    >>> e = Objective(lambda x: x[0])
    >>> order_score(a, b, e, torch.tensor([1.0, 3.0], dtype=torch.float64))
    -12.0
    """
    g_target = target.gradient(theta)
    g_a, v_a = a.gradient_and_hvp(theta, g_target, method)
    g_b, v_b = b.gradient_and_hvp(theta, g_target, method)
    return float(a.space.dot(v_b, g_a) - a.space.dot(v_a, g_b))
