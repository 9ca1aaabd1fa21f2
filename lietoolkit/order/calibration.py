r"""Confidence as a probability, fitted to orders trained for real.

The numbers below are fitted on the course model by ``benchmarks/calibration.py`` (maximum
likelihood) and tested, not refitted, on small networks and on SmolLM2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.special import ndtr

Array = NDArray[np.float64]

# Of the local score: level, slope by log size, slope by log reach.
PAIRS = (3.4, 0.3, 0.7)
# Of orders that were tried: level and slope.
ORDERS = (0.2, 0.85)
# Where the step size rule leaves the stiffest source: a reach of one step.
UNIT = 0.1
# A guess is never certain: 0 and 1 are said of orders that were both trained.
DOUBT = 1e-6


def pair_chances(
    effects: Tensor,
    typical: Tensor | float,
    reach: Tensor | float,
    fit: Sequence[float] = PAIRS,
) -> Tensor:
    r"""The probability that effects predicted by the local score have the right sign.

    .. math:: \Phi(a + b \ln(|\Delta| / \Delta_{typical}) - c \ln(k\eta\lambda_{max} / 0.1))

    Small effects are missed more often than large ones, and all more often after a longer reach.
    For plain SGD only.

    Args:
        effects: predicted effects, any shape.
        typical: the median size of the effects of all pairs, in the same units; of that shape, or
            one for all, as ``reach``.
        reach: :math:`k\eta\lambda_{max}`, steps times step size times curvature.
        fit: a, b and c.

    Returns:
        Probabilities in the shape of the effects, float64.

    >>> pair_chances(torch.tensor([1.0, 0.01]), typical=1.0, reach=0.5).round(decimals=2).tolist()
    [0.99, 0.81]
    """
    level, by_size, by_reach = fit
    tiny = 1e-300
    size = effects.double().abs() / torch.as_tensor(typical).double().clamp(min=tiny)
    longer = torch.as_tensor(reach).double().clamp(min=tiny) / UNIT
    found = ndtr(level + by_size * size.clamp(min=1e-9).log() - by_reach * longer.log())
    return found.clamp(DOUBT, 1 - DOUBT)


def typical_effect(matrix: Tensor) -> float:
    """The median size of all pair effects."""
    n = len(matrix)
    i, j = torch.triu_indices(n, n, offset=1)
    return float(matrix[i, j].abs().median())


def order_chances(lead: Array, variance: Array, fit: Sequence[float] = ORDERS) -> Array:
    r"""The probability that an order is better than others, given the orders that were tried.

    .. math:: \Phi\left(a + b\,\frac{\mu_{other} - \mu_{order}}{\sqrt{v}}\right)

    Args:
        lead, variance: of ``Searched.lead``: the difference of the means and its variance v.
        fit: a and b.

    >>> order_chances(np.array([0.0, 1.0]), np.array([0.5, 0.5]), (0.2, 1.0)).round(2).tolist()
    [0.58, 0.95]
    """
    level, slope = fit
    score = level + slope * lead / np.sqrt(variance + 1e-12)
    return np.asarray(ndtr(torch.from_numpy(score)).clamp(DOUBT, 1 - DOUBT).numpy())
