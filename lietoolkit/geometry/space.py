"""One flat vector over the trained parameters, and the only code that puts it in a model."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lietoolkit.errors import InputError

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
        [N, M] tensor, float64, on the vectors' device.

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
    return total


class VectorSpace:
    """Inner products of flat vectors; what an objective without a model lives in."""

    _scratch: Tensor | None = None
    # The distance of finite differences, 0 where none is accurate; see ModelObjective.
    difference_move: float | None = None

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
        return gram([u], [v])[0, 0]

    def gram(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """All inner products, [N, M], float64."""
        return gram(left, right)

    def norm(self, u: Tensor) -> Tensor:
        """Euclidean norm as a float64 scalar tensor."""
        return self.dot(u, u).sqrt()


class ParameterSpace(VectorSpace):
    """The parameters of a model that are trained, seen as one vector of shape [P].

    Tied weights are one parameter and count once. Frozen parameters (``requires_grad=False``) are
    left out, so for a LoRA model the space is that of the adapters.

    Args:
        model: any module.
        parameters: None for all trainable parameters, or patterns over their names as a shell
            has them (``"*.o_proj.weight"``), one or a list.
        dtype: what vectors and computation use. Default: float32, or float64 for a float64 model.

    Raises:
        InputError: nothing matches, or the model has no trainable parameter.

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
        _refuse_parallel(model)
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
        self.shapes = [p.shape for p in self.tensors]
        self.sizes = [p.numel() for p in self.tensors]
        self.size = sum(self.sizes)
        self.device = self.tensors[0].device
        wide = any(p.dtype == torch.float64 for p in self.tensors)
        self.dtype = dtype or (torch.float64 if wide else torch.float32)
        self._cast: list[tuple[Tensor, Tensor]] | None = None

    def vector(self, share: bool = False) -> Tensor:
        """A flat copy of the parameters as they are now, [P].

        ``share=True`` lets the parameters be views of it, so that a large model is not held twice;
        for a model that nobody else uses.
        """
        theta = self.flatten([p.detach() for p in self.tensors])
        if share:
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

    @contextmanager
    def at(self, theta: Tensor) -> Iterator[list[Tensor]]:
        """The model with its parameters at theta; yields them, in the order of ``names``.

        Nothing is written: each parameter points into theta for the time of the block and back
        to its own storage after it, so the model's own numbers cannot change, whatever happens.
        Frozen parameters and buffers of another float type are shown in the space's dtype.
        """
        views = self.unflatten(theta.detach().to(self.device, self.dtype))
        if self._cast is None:
            self._cast = self._frozen_in_dtype()
        own = [p.data for p in self.tensors]
        frozen = [t.data for t, _ in self._cast]
        grads = [p.grad for p in self.tensors]
        try:
            for tensor, cast in self._cast:
                tensor.data = cast
            for parameter, view in zip(self.tensors, views, strict=True):
                parameter.grad = None
                parameter.data = view
            yield list(self.tensors)
        finally:
            for parameter, data, grad in zip(self.tensors, own, grads, strict=True):
                parameter.data = data
                parameter.grad = grad
            for (tensor, _), data in zip(self._cast, frozen, strict=True):
                tensor.data = data

    def _frozen_in_dtype(self) -> list[tuple[Tensor, Tensor]]:
        inside = {id(p) for p in self.tensors}
        others = [*self.model.parameters(), *self.model.buffers()]
        return [
            (t, t.data.to(self.dtype))
            for t in others
            if id(t) not in inside and t.is_floating_point() and t.dtype != self.dtype
        ]


def _refuse_parallel(model: nn.Module) -> None:
    """Parameters in pieces, or gradients that are averaged behind our back, give wrong numbers."""
    wrapped = type(model).__name__
    if wrapped in ("DistributedDataParallel", "DataParallel"):
        raise InputError(
            f"model: expected the model itself, found it inside {wrapped}; give model.module"
        )
    for name, parameter in model.named_parameters():
        # DTensor of FSDP2 and tensor parallelism; the emptied parameters of DeepSpeed ZeRO-3.
        if hasattr(parameter, "placements") or hasattr(parameter, "ds_id"):
            raise InputError(
                f"model: expected whole parameters, found {name!r} sharded over processes; give "
                "the model before it is sharded (each process plans with all of it)"
            )
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()):
        raise InputError(
            "model: expected whole parameters, found FullyShardedDataParallel; give the model "
            "before it is sharded (each process plans with all of it)"
        )
