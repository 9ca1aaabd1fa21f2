"""The predicted effect of one pair."""

from __future__ import annotations

from torch import Tensor

from lietoolkit.geometry.objective import Objective
from lietoolkit.order.tournament import tournament
from lietoolkit.training.optimizers import Optimizer


def predict_order_effect(
    a: Objective,
    b: Objective,
    target: Objective,
    theta: Tensor,
    lr: float,
    steps: int = 1,
    method: str = "local",
    optimizer: str | Optimizer = "sgd",
) -> float:
    r"""Predict :math:`L_E(A \to B) - L_E(B \to A)` without training; negative: A first.

    .. math:: \Delta_{AB} \approx k^2 \eta^2 \sigma_{AB}

    Args as in ``tournament``; in loss units. For one pair alone, training both orders
    (``measure_order_effect``) costs 4k gradients; this costs 5.

    >>> import torch
    >>> a = Objective(lambda x: x[0] ** 2 * x[1])
    >>> b = Objective(lambda x: x[1] ** 2)
    >>> e = Objective(lambda x: x[0])
    >>> theta = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> round(predict_order_effect(a, b, e, theta, lr=0.1), 6)
    -0.12
    """
    t = tournament({"a": a, "b": b}, target, theta, lr, steps, method, optimizer)
    return float(t.matrix[0, 1])
