"""Short random projections of long vectors, for what only needs inner products roughly."""

from __future__ import annotations

import torch
from torch import Tensor

from lietoolkit.geometry import ranks
from lietoolkit.geometry.space import BLOCK


class Sketch:
    r"""Signed bucket sums of a [P] vector: :math:`S u \in R^W` with :math:`E\langle Su, Sv\rangle =
    \langle u, v\rangle`.

    Coordinate p falls into bucket ``p mod width`` with a random sign, so the standard deviation of
    an inner product is about :math:`\|u\| \|v\| / \sqrt{W}`. Of pieces (``ranks.pieces``), p is a
    place in all of them, one after the other, and signs are drawn for each piece.

    Args:
        size: P, of this process's piece.
        width: W.
        device: where the vectors live.
        seed: of the signs.

    >>> sketch = Sketch(1000, width=1000)
    >>> float(sketch(torch.ones(1000)) @ sketch(torch.ones(1000)))
    1000.0
    """

    def __init__(
        self, size: int, width: int = 1 << 16, device: torch.device | str = "cpu", seed: int = 0
    ):
        self.size = size
        sizes = ranks.of_pieces(size)
        place = ranks.piece()
        self.width = min(width, sum(sizes))
        self.first = sum(sizes[:place]) % self.width
        generator = torch.Generator().manual_seed(seed + place)
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8)
        self.signs = signs.mul_(2).sub_(1).to(device)

    def __call__(self, u: Tensor) -> Tensor:
        """The sketch of u [P], shape [W], float64."""
        out = torch.zeros(self.width, dtype=torch.float64, device=u.device)
        rows = max(1, BLOCK // self.width) * self.width
        for start in range(0, self.size, rows):
            signed = u[start : start + rows] * self.signs[start : start + rows]
            full = signed.numel() - signed.numel() % self.width
            out += signed[:full].view(-1, self.width).sum(0, dtype=torch.float64)
            out[: signed.numel() - full] += signed[full:]
        return ranks.summed(out.roll(self.first))
