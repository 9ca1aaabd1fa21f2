"""Step size from curvature: a fixed fraction of what the stiffest source allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective, in_step
from lietoolkit.order.shares import settle

# eta * lambda_max of the stiffest source. Gradient descent turns unstable at 2 and stops
# behaving like its leading order well before 1; below 0.1 effects drown in rounding.
ETA_LAMBDA = 0.1
LOCAL_REGIME = 0.3


@dataclass(frozen=True)
class StepSize:
    """A step size and where it comes from.

    Attributes:
        lr: the step size.
        lambda_max: largest Hessian eigenvalue of each source along its gradient, from below; empty
            for AdamW, whose steps do not grow with the gradient.
        eta_lambda_max: lr times the largest of them; the rule's fixed number.
        note: a warning in plain words, or an empty string.
    """

    lr: float
    lambda_max: dict[str, float]
    note: str = ""

    @property
    def eta_lambda_max(self) -> float | None:
        """The dimensionless step of the stiffest source; None where it was not measured."""
        return self.lr * max(self.lambda_max.values()) if self.lambda_max else None


def lambda_max(source: Objective, theta: Tensor, products: int = 5, hvp: str = "auto") -> float:
    """Largest Hessian eigenvalue by Lanczos from the gradient, a lower bound that rises quickly.

    Args:
        source: the objective.
        theta: where, [P].
        products: Hessian-vector products spent.
        hvp: how they are made.

    Returns:
        The eigenvalue, in loss per squared parameter; 1/lr has the same unit.

    >>> bowl = Objective(lambda x: 0.5 * (torch.tensor([1.0, 9.0]) * x * x).sum())
    >>> round(lambda_max(bowl, torch.ones(2), products=2), 3)
    9.0
    """
    space = source.space
    q = source.gradient(theta)
    last = torch.zeros_like(q)
    diagonal: list[float] = []
    beside: list[float] = []
    # Three vectors, however many products: with so few, what orthogonality is lost does not matter.
    for _ in range(products):
        length = float(space.norm(q))
        if not length > 0:
            break
        beside.append(length)
        q /= length
        w = source.gradient_and_hvp(theta, q, hvp, check=False)[1]
        diagonal.append(float(space.dot(w, q)))
        if len(beside) > 1:
            w.sub_(last, alpha=beside[-1])
        w.sub_(q, alpha=diagonal[-1])
        last, q = q, w
    if not diagonal:
        return 0.0
    above = torch.diag(torch.tensor(beside[1:], dtype=torch.float64), 1)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + above + above.T
    return float(torch.linalg.eigvalsh(small)[-1])


@in_step
def step_size(
    sources: Mapping[str, Objective],
    theta: Tensor,
    lr: float | None = None,
    products: int = 5,
    hvp: str = "auto",
    progress: bool = False,
) -> StepSize:
    r"""The rule :math:`\eta\,\lambda_{\max} = 0.1` for the stiffest source.

    One product along each source's gradient tells which is stiffest, by
    :math:`\|Hg\| / \|g\| \leq \max_i |\lambda_i|`; the others are spent on that one alone.

    Args:
        sources: objectives by name.
        theta: where, [P].
        lr: a step size to judge instead of choosing one.
        products: Hessian-vector products for the stiffest source.
        hvp: how they are made.
        progress: show a progress bar.

    Source: the classical bound of gradient descent, 2, with a margin, as a dimensionless number.
    """
    names = list(sources)
    bar = tqdm(total=len(ranks.mine(names)) + 1, desc="step size", disable=not progress)

    def along_gradient(name: str) -> float:
        source = sources[name]
        g = source.gradient(theta)
        hg = source.gradient_and_hvp(theta, g, hvp, check=False)[1]
        bar.update()
        return float(source.space.norm(hg) / source.space.norm(g).clamp(min=1e-30))

    settle(sources, theta, lambda source: source.gradient(theta))
    with bar:
        values = dict(zip(names, ranks.each(names, along_gradient), strict=True))
        stiffest = max(values, key=lambda name: values[name])
        values[stiffest] = ranks.first(lambda: lambda_max(sources[stiffest], theta, products, hvp))
        bar.update()
    largest = max(values.values())
    if largest <= 0:
        return StepSize(lr or 1e-3, values, "no curvature found: the step size is a guess")
    chosen = ETA_LAMBDA / largest if lr is None else lr
    return StepSize(chosen, values, step_note(chosen * largest))


def step_note(eta_lambda_max: float) -> str:
    """A warning when the step leaves the regime in which local scores hold, else ''."""
    if eta_lambda_max >= 1:
        return (
            f"lr times curvature is {eta_lambda_max:.2g}: at 1 or more, predicted signs mean "
            "nothing; lower lr"
        )
    if eta_lambda_max > LOCAL_REGIME:
        return (
            f"lr times curvature is {eta_lambda_max:.2g}, outside the local regime "
            f"(up to {LOCAL_REGIME}): expect wrong signs among the small effects"
        )
    return ""
