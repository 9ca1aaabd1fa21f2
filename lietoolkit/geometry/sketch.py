"""Short random projections of long vectors, for what only needs inner products roughly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lietoolkit.geometry import ranks
from lietoolkit.geometry.space import BLOCK


class Sketch:
    r"""Signed bucket sums of a [P] vector: :math:`S u \in R^W` with :math:`E\langle Su, Sv\rangle =
    \langle u, v\rangle`.

    Coordinate p falls into bucket ``p mod width`` with a random sign, so the standard deviation of
    an inner product is about :math:`\|u\| \|v\| / \sqrt{W}`. In ``ranks.pieces`` each process
    sketches its piece, with the signs and buckets of the whole, and the sum is what all have.

    Args:
        size: P, of this process's piece.
        width: W.
        device: where the vectors live.
        seed: of the signs.
        places: of a piece, see ``VectorSpace.places``; default: from 0.

    >>> sketch = Sketch(1000, width=1000)
    >>> float(sketch(torch.ones(1000)) @ sketch(torch.ones(1000)))
    1000.0
    """

    def __init__(
        self,
        size: int,
        width: int = 1 << 16,
        device: torch.device | str = "cpu",
        seed: int = 0,
        places: Sequence[tuple[int, int]] | None = None,
    ):
        self.places = [(0, size)] if places is None else places
        self.width = min(width, sum(ranks.of_pieces(size)))
        generator = torch.Generator().manual_seed(seed)
        parts, drawn = [], 0
        for first, length in self.places:
            for skipped in range(drawn, first, BLOCK):
                _signs(min(BLOCK, first - skipped), generator)
            parts.append(_signs(length, generator).to(device))
            drawn = first + length
        self.signs = torch.cat(parts) if len(parts) > 1 else parts[0]

    def __call__(self, u: Tensor) -> Tensor:
        """The sketch of u [P], shape [W], float64."""
        total = torch.zeros(self.width, dtype=torch.float64, device=u.device)
        lengths = [length for _, length in self.places]
        runs = zip(self.places, u.split(lengths), self.signs.split(lengths), strict=True)
        rows = max(1, BLOCK // self.width) * self.width
        for (first, length), part, signs in runs:
            out = torch.zeros_like(total)
            for start in range(0, length, rows):
                signed = part[start : start + rows] * signs[start : start + rows]
                full = signed.numel() - signed.numel() % self.width
                out += signed[:full].view(-1, self.width).sum(0, dtype=torch.float64)
                out[: signed.numel() - full] += signed[full:]
            total += out.roll(first % self.width)
        return ranks.summed(total)


def _signs(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
