"""Many long vectors: kept as they are, in half precision, or as sketches, as they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lietoolkit.geometry import ranks
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.space import blocks, gram, length

# Above this, vectors are kept in scaled float16: measured to change scores by 3.5e-5.
FULL_PRECISION_BYTES = 2e9
# So many vectors in float16 take 32 times the memory of one in float32. More are kept as sketches,
# all together as long as one vector, but none shorter than this.
MANY, SHORTEST = 64, 1 << 16


def fits_in_full(like: Tensor, count: int) -> bool:
    """Whether so many vectors like this one are kept as they are."""
    size = max(ranks.of_pieces(like.numel()))  # all processes must go the same way
    return count * size * like.element_size() <= FULL_PRECISION_BYTES


@dataclass(frozen=True)
class Stored:
    """A vector as it is, or in float16 with its scale, or a sketch of it with its length."""

    data: Tensor
    scale: Tensor
    dtype: torch.dtype
    length: Tensor | None = None

    @classmethod
    def of(cls, u: Tensor, full: bool) -> Stored:
        """Store u; ``full=False`` in float16."""
        if full:
            return cls(u, torch.ones((), dtype=torch.float64, device=u.device), u.dtype)
        scale = _largest(u).clamp(min=1e-30)
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
        if self.length is not None:
            return self.length
        precise = torch.promote_types(self.data.dtype, torch.float32)
        return self.scale * length(self.data, precise).double()


@dataclass(frozen=True)
class Keeper:
    r"""How to keep so many vectors of one length that inner products are wanted of.

    As they are up to 2 GB; then in float16, up to 64 of them; then as sketches, which make the
    standard deviation of an inner product :math:`\|u\| \|v\| / \sqrt{W}` with W the vectors' length
    over their number, at least 65,536. Pieces of sharded vectors are not sketched.

    Args:
        full: as they are, where there is no sketch.
        sketch: what each is reduced to, or None.
    """

    full: bool
    sketch: Sketch | None = None

    @classmethod
    def of(cls, like: Tensor, count: int) -> Keeper:
        """For so many vectors like this one."""
        if fits_in_full(like, count):
            return cls(True)
        if count <= MANY or not ranks.whole():
            return cls(False)
        width = max(SHORTEST, like.numel() // count)
        return cls(False, Sketch(like.numel(), width, like.device))

    def __call__(self, u: Tensor, alone: bool = False) -> Stored:
        """The vector, kept. ``alone``: one that all others are multiplied with, not one of many."""
        if self.sketch is None:
            return Stored.of(u, self.full or alone)
        data, one = self.sketch(u), torch.ones((), dtype=torch.float64, device=u.device)
        return Stored(data.float(), one, u.dtype, length(u).double())


def stored_gram(left: Sequence[Stored | None], right: Sequence[Stored | None]) -> Tensor:
    """All inner products of stored vectors, [N, M] float64 on the CPU, on every process.

    None is a vector that another process holds. Those on the right are sent round one after the
    other, those on the left stay where they are; so no process ever holds more than one in
    addition to its own.
    """
    if ranks.size() == 1:
        return _products(left, right)
    known = [i for i, u in enumerate(left) if u is not None]
    held = ranks.gather((known, [u is not None for u in right]))
    own = [left[i] for i in known]
    columns = []
    for j, v in enumerate(right):
        holders = [owner for owner, (_, has) in enumerate(held) if has[j]]
        if len(holders) < len(held):
            v = sent(v, holders[0])
        columns.append(_products(own, [v]))
    rows = ranks.gather(torch.cat(columns, 1))
    total = torch.full((len(left), len(right)), math.nan, dtype=torch.float64)
    for (places, _), part in zip(held, rows, strict=True):
        total[places] = part
    return total


def sent(u: Stored | None, owner: int) -> Stored:
    """A stored vector on every process; None where it is not known yet."""
    if ranks.size() == 1:
        assert u is not None
        return u
    data = ranks.broadcast(None if u is None else u.data, owner)
    scale, dtype = ranks.gather(None if u is None else (u.scale.cpu(), u.dtype))[owner]
    return Stored(data, scale.to(data.device), dtype)


def _largest(u: Tensor) -> Tensor:
    """The largest size of a coordinate, the same in every piece."""
    if not u.numel():
        own = u.new_zeros(())
    else:
        least, most = torch.aminmax(u)  # six times as fast as the maximum norm
        own = torch.maximum(-least, most)
    if ranks.whole():
        return own
    return torch.tensor(max(ranks.of_pieces(float(own))), dtype=u.dtype, device=u.device)


def _products(left: Sequence[Stored | None], right: Sequence[Stored | None]) -> Tensor:
    if not left:
        return torch.zeros(0, len(right), dtype=torch.float64)
    sides = [[u for u in side if u is not None] for side in (left, right)]
    products = gram(*([u.data for u in side] for side in sides))
    rows, columns = (torch.stack([u.scale for u in side]) for side in sides)
    return (rows[:, None] * products * columns[None, :]).cpu()
