"""One flat vector over the trained parameters, and the only code that puts it in a model."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.shards import Shards, shards_of

# Long float32 vectors are multiplied in float64, a block at a time, so that no float64 copy of a
# whole model is ever made. Blocks of a few megabytes stay in the cache and in the allocator's
# pool: blocks of 32 MB took 14 times as long.
BLOCK = 1 << 18


def blocks(like: Tensor) -> Iterator[slice]:
    """Slices of a vector that stay in the cache; on a GPU the whole of it."""
    size = like.numel()
    step = BLOCK if like.device.type == "cpu" else max(size, 1)
    return (slice(start, start + step) for start in range(0, size, step))


def gram(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    r"""All inner products :math:`G_{ij} = \langle u_i, v_j\rangle`, accumulated in float64.

    Args:
        left: N vectors of shape [P], any floating dtype.
        right: M vectors of shape [P] on the same device.

    Returns:
        [N, M] tensor, float64, on the vectors' device; summed over pieces in ``ranks.pieces``.

    >>> gram([torch.ones(3)], [torch.arange(3.0), torch.ones(3)])
    tensor([[3., 3.]], dtype=torch.float64)
    """
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left[0].device)
    step = max(1 << 12, BLOCK // max(len(left), len(right)))
    size = left[0].numel()
    rows, columns = (total.new_empty(len(side), min(step, size)) for side in (left, right))
    for start in range(0, size, step):
        width = min(step, size - start)
        for side, block in ((left, rows), (right, columns)):
            for row, u in zip(block, side, strict=True):
                row[:width].copy_(u[start : start + width])
        total += rows[:, :width] @ columns[:, :width].T
    return ranks.summed(total)


def length(u: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Euclidean norm of a vector [P], a scalar tensor; as precise as dtype, default its own.

    Of pieces it is float64.
    """
    if dtype in (None, u.dtype) or u.device.type != "cpu":
        own = torch.linalg.vector_norm(u, dtype=dtype)
    else:  # converted in the cache: torch's own conversion took six times as long
        parts = [torch.linalg.vector_norm(u[block].to(dtype)) for block in blocks(u)]
        own = torch.linalg.vector_norm(torch.stack([u.new_zeros((), dtype=dtype), *parts]))
    return own if ranks.whole() else ranks.summed(own.double() ** 2).sqrt()


class VectorSpace:
    """Inner products of flat vectors; what an objective without a model lives in."""

    _scratch: Tensor | None = None
    # The distance of finite differences, 0 where none is accurate; see ModelObjective.
    difference_move: float | None = None
    # Where vectors are pieces of those of a sharded model.
    shards: Shards | None = None

    def in_step(self) -> AbstractContextManager[None]:
        """Inside, sums over coordinates are over those of all pieces; see ``ranks.pieces``."""
        return ranks.pieces(None if self.shards is None else self.shards.group)

    def places(self, u: Tensor) -> list[tuple[int, int]]:
        """Runs of a vector's coordinates in the whole of all pieces: the first, and how many."""
        return [(0, u.numel())]

    def scratch(self, like: Tensor) -> Tensor:
        """A vector to overwrite; on a CPU the same one each time.

        There new memory is slow: the system clears each page when it is first written to.
        """
        if like.device.type != "cpu":
            return torch.empty_like(like)
        old = self._scratch
        if old is None or old.shape != like.shape or old.dtype != like.dtype:
            self._scratch = torch.empty_like(like)
        assert self._scratch is not None
        return self._scratch

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """Inner product of two [P] vectors as a float64 scalar tensor."""
        return self.gram([u], [v])[0, 0]

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """All inner products, [N, M], float64."""
        with self.in_step():
            return gram(left, right)

    def norm(self, u: Tensor) -> Tensor:
        """Euclidean norm as a float64 scalar tensor."""
        return self.dot(u, u).sqrt()


class ParameterSpace(VectorSpace):
    """The parameters of a model that are trained, seen as one vector of shape [P].

    Tied weights are one parameter and count once. Frozen parameters (``requires_grad=False``) are
    left out, so for a LoRA model the space is that of the adapters.

    Of a model that ``fully_shard`` (FSDP2) has sharded over all processes, a vector is this
    process's piece: P is the length of that, and inner products are summed over all.

    Args:
        model: any module.
        parameters: None for all trainable parameters, or patterns over their names as a shell
            has them (``"*.o_proj.weight"``), one or a list.
        dtype: what vectors and computation use. Default: float32, or float64 for a float64 model.

    Raises:
        InputError: nothing matches, the model has no trainable parameter, or it is split over
            processes in another way.

    >>> space = ParameterSpace(nn.Linear(2, 1))
    >>> space.size, space.names
    (3, ['weight', 'bias'])
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.shards = shards_of(model)
        self.model = model
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError("model: expected trainable parameters, found none (all are frozen)")
        if parameters is not None:
            patterns = [parameters] if isinstance(parameters, str) else list(parameters)
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(n, pattern) for n, _ in named):
                    raise InputError(
                        f"parameters: no trainable parameter matches {pattern!r}; "
                        f"names look like {', '.join(n for n, _ in named[:3])}"
                    )
            named = [
                (n, p) for n, p in named if any(fnmatch.fnmatchcase(n, pat) for pat in patterns)
            ]
        self.names = [n for n, _ in named]
        self.tensors = [p for _, p in named]
        self.count = sum(p.numel() for p in self.tensors)  # of all pieces
        self.shapes = [self._piece(p).shape for p in self.tensors]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.size = sum(self.sizes)
        self.device = self.tensors[0].device
        wide = any(p.dtype == torch.float64 for p in self.tensors)
        self.dtype = dtype or (torch.float64 if wide else torch.float32)
        if self.shards is not None:
            for name, p in model.named_parameters():
                if p.dtype != self.dtype:  # FSDP2 computes in what it holds
                    raise InputError(
                        f"model: expected a sharded model with parameters of {self.dtype}, found "
                        f"{name!r} of {p.dtype}; convert it before fully_shard (model.float())"
                    )
        self._cast: list[tuple[Tensor, Tensor]] | None = None

    def vector(self, share: bool = False) -> Tensor:
        """A flat copy of the parameters as they are now, [P].

        ``share=True`` lets the parameters be views of it, so that a large model is not held twice;
        for a model that nobody else uses; not for one that is sharded.
        """
        theta = self.flatten([self._piece(p) for p in self.tensors])
        if share and self.shards is None:
            for parameter, view in zip(self.tensors, self.unflatten(theta), strict=True):
                parameter.data = view
        return theta

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors of the parameters' shapes as one new vector [P] in the space's dtype."""
        out = torch.empty(self.size, dtype=self.dtype, device=self.device)
        for view, tensor in zip(out.split(self.sizes), tensors, strict=True):
            view.copy_(tensor.reshape(-1))
        return out

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector [P] in the parameters' shapes."""
        if vector.shape != (self.size,):
            raise InputError(
                f"theta: expected shape [{self.size}], got {list(vector.shape)}; "
                "take it from space.vector()"
            )
        return [v.view(s) for v, s in zip(vector.split(self.sizes), self.shapes, strict=True)]

    def places(self, u: Tensor) -> list[tuple[int, int]]:
        """Runs of a vector's coordinates in the whole of all pieces: the first, and how many."""
        if self.shards is None:
            return super().places(u)
        starts = itertools.accumulate((p.numel() for p in self.tensors), initial=0)
        firsts = (
            start + self.shards.first(p) for start, p in zip(starts, self.tensors, strict=False)
        )
        return list(zip(firsts, self.sizes, strict=True))

    def _piece(self, parameter: Tensor) -> Tensor:
        return parameter.detach() if self.shards is None else self.shards.piece(parameter)

    @contextmanager
    def at(self, theta: Tensor) -> Iterator[list[Tensor]]:
        """The model with its parameters at theta; yields them, in the order of ``names``.

        Nothing is written: each parameter points into theta for the time of the block and back
        to its own storage after it, so the model's own numbers cannot change, whatever happens.
        (A sharded model's are written over, and back from a copy.)
        Frozen parameters and buffers of another float type are shown in the space's dtype.
        """
        views = self.unflatten(theta.detach().to(self.device, self.dtype))
        if self._cast is None:
            self._cast = self._frozen_in_dtype()
        frozen = [t.data for t, _ in self._cast]
        shards = self.shards
        try:
            for tensor, cast in self._cast:
                tensor.data = cast
            with self._pointing(views) if shards is None else shards.at(self.tensors, views):
                yield list(self.tensors)
        finally:
            for (tensor, _), data in zip(self._cast, frozen, strict=True):
                tensor.data = data

    @contextmanager
    def _pointing(self, views: Sequence[Tensor]) -> Iterator[None]:
        own = [p.data for p in self.tensors]
        grads = [p.grad for p in self.tensors]
        try:
            for parameter, view in zip(self.tensors, views, strict=True):
                parameter.grad = None
                parameter.data = view
            yield
        finally:
            for parameter, data, grad in zip(self.tensors, own, grads, strict=True):
                parameter.data = data
                parameter.grad = grad

    def _frozen_in_dtype(self) -> list[tuple[Tensor, Tensor]]:
        inside = {id(p) for p in self.tensors}
        others = [*self.model.parameters(), *self.model.buffers()]
        return [
            (t, t.data.to(self.dtype))
            for t in others
            if id(t) not in inside and t.is_floating_point() and t.dtype != self.dtype
        ]
