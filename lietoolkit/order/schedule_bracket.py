"""What a whole order changes against its reverse, for any number of targets at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective, in_step
from lietoolkit.geometry.storage import Keeper, Stored, sent, stored_gram
from lietoolkit.order.shares import in_turn
from lietoolkit.training.schedules import steps_by_source


@in_step
def schedule_bracket(
    sources: Mapping[str, Objective],
    order: Sequence[str],
    theta: Tensor,
    hvp: str = "auto",
    progress: bool = False,
    lengths: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, Stored | None], Keeper]:
    r"""Displacement between an order and its reverse, per squared step size.

    .. math:: B_\pi = \sum_{i\ \mathrm{before}\ j} b_{ij}
        = \sum_j H_j \left(\sum_{i\ before\ j} g_i - \sum_{i\ after\ j} g_i\right)

    so :math:`\theta_\pi - \theta_{\mathrm{reverse}} = k^2\eta^2 B_\pi` to leading order, and the
    difference in any loss L is :math:`k^2\eta^2 \langle \nabla L, B_\pi\rangle`. One product per
    source serves every target, where a matrix of effects needs one per source *and* target.

    Args:
        sources: objectives by name.
        order: all of them, trained-first first.
        theta: where, [P].
        hvp: how products are made.
        progress: show a progress bar.
        lengths: of stages, in units of k, where they differ: they multiply a source's field.

    Returns:
        B [P], each source's gradient, stored, None where another process has it, and how they are
        kept. Where that is as sketches, each gradient is computed twice.

    Source: follows from the definitions in Sweeney 2026 by bilinearity.

    >>> a = Objective(lambda x: x[0] ** 2 * x[1])
    >>> b = Objective(lambda x: x[1] ** 2)
    >>> theta = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> schedule_bracket({"a": a, "b": b}, ["a", "b"], theta)[0].tolist()
    [-12.0, 2.0]
    """
    keep = Keeper.of(theta, len(order))
    share = dict.fromkeys(order, 1.0) | dict(lengths or {})
    own = ranks.mine(order)
    # What lies before a source, less what lies after it; one vector, moved along the order.
    v = torch.zeros_like(theta)
    gradients: dict[str, Stored | None] = {}
    fields = in_turn(order, lambda name: sources[name].gradient(theta, check=False))
    for name in order:
        g = next(fields)
        v.sub_(g, alpha=share[name])
        gradients[name] = keep(g) if name in own else None
        del g  # or it would lie beside the next

    def field(i: int, name: str) -> Tensor:
        if keep.sketch is not None:
            return sources[name].gradient(theta, check=False)
        return sent(gradients[name], i % ranks.size()).load()

    def moved() -> Iterator[Tensor]:
        for i, name in enumerate(order):
            g = field(i, name)
            v.add_(g, alpha=share[name])
            if keep.sketch is None:  # can be loaded again: no need to hold it meanwhile
                del g
            yield v
            v.add_(field(i, name) if keep.sketch is None else g, alpha=share[name])

    directions, kept = moved(), {}
    if ranks.size() > 1:  # which products are made at the same time
        kept = {name: u.clone() for name, u in zip(order, directions, strict=True) if name in own}

    def product(name: str) -> Tensor:
        u = kept.pop(name) if name in kept else next(directions)
        return sources[name].gradient_and_hvp(theta, u, hvp, check=False)[1]

    total = torch.zeros_like(theta)
    products = in_turn(order, product)
    for name in tqdm(order, desc="forgetting", disable=not progress):
        total.add_(next(products), alpha=share[name])
    return total, gradients, keep


@in_step
def order_against_reverse(
    sources: Mapping[str, Objective],
    order: Sequence[str],
    theta: Tensor,
    lr: float,
    steps: int = 1,
    hvp: str = "auto",
    progress: bool = False,
    steps_of: Mapping[str, int] | None = None,
) -> dict[str, float]:
    r"""Predicted :math:`L_m(\pi) - L_m(\mathrm{reverse})` for every source m as a target.

    Positive: this order makes the model forget source m, compared with the reverse.

    Args as in ``schedule_bracket``; in loss units.
    """
    lengths = {n: k / steps for n, k in steps_by_source(sources, steps, steps_of).items()}
    bracket, gradients, keep = schedule_bracket(sources, order, theta, hvp, progress, lengths)
    effects = stored_gram(list(gradients.values()), [keep(bracket, alone=True)])[:, 0]
    scaled = ((steps * lr) ** 2 * effects).tolist()
    by_name = dict(zip(gradients, scaled, strict=True))
    return {name: by_name[name] for name in sources}
