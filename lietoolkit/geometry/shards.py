"""The pieces of a model that FSDP2 has sharded, and refusals of what is split in other ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks


class Shards:
    """Where the pieces of a model's parameters are, and how others are put there.

    A sharded parameter has its rows dealt out by FSDP2. One that is whole in every process is cut
    here, into a range of its numbers for each, so that every coordinate is one process's own and
    sums count none twice.

    Args:
        model: after ``fully_shard``. parts: its modules that were sharded.
    """

    def __init__(self, model: nn.Module, parts: Sequence[Any]):
        below = {id(p) for part in parts for p in part.modules() if p is not part}
        self.parts = parts
        self.roots = [part for part in parts if id(part) not in below]
        self.reshard()
        mesh = _checked(model, parts)
        self.group = mesh.get_group()
        self.count, self.place = mesh.size(), mesh.get_local_rank()
        self.trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]

    def reshard(self) -> None:
        """Let go of whole parameters: FSDP2 keeps those of the root, and would use them again."""
        for part in self.parts:
            part.reshard()

    def piece(self, tensor: Tensor) -> Tensor:
        """This process's piece of a parameter or gradient: a view of it."""
        with torch.no_grad():
            tensor = tensor.detach()
            if hasattr(tensor, "to_local"):
                return tensor.to_local()
            each = -(-tensor.numel() // self.count)
            return tensor.reshape(-1)[self.place * each : (self.place + 1) * each]

    def mean_piece(self, gradient: Tensor) -> Tensor:
        """This process's piece of the mean of all processes' gradients."""
        if _sharded(gradient):
            return self.piece(gradient)  # FSDP2 has taken the mean
        with ranks.pieces(self.group):
            return self.piece(ranks.summed(gradient) / self.count)

    def first(self, tensor: Tensor) -> int:
        """The place of this process's first number among those of a parameter."""
        rows = len(tensor) if _sharded(tensor) else tensor.numel()
        return min(self.place * -(-rows // self.count), rows) * (tensor.numel() // max(rows, 1))

    @contextmanager
    def at(self, tensors: Sequence[Tensor], pieces: Sequence[Tensor]) -> Iterator[None]:
        """The model with these parameters made of these pieces; all is as before after the block.

        FSDP2 gathers from memory of its own, so numbers are written into it, and the model's own
        are kept meanwhile. To restore them no other process is needed.
        """
        own = [self.piece(p).clone() if _sharded(p) else p.detach().clone() for p in tensors]
        grads = [p.grad for p in self.trained]
        try:
            self.reshard()
            for parameter in self.trained:
                parameter.grad = None
            for parameter, piece in zip(tensors, pieces, strict=True):
                if _sharded(parameter):
                    self.piece(parameter).copy_(piece)
                else:
                    parameter.detach().copy_(self._whole(parameter, piece))
            yield
        except BaseException:
            # What was under way in FSDP2 would be taken for a part of the next forward pass.
            for root in self.roots:
                root.reset_iter_state()
            raise
        finally:
            self.reshard()
            for parameter, data in zip(tensors, own, strict=True):
                (self.piece(parameter) if _sharded(parameter) else parameter.detach()).copy_(data)
            for parameter, grad in zip(self.trained, grads, strict=True):
                parameter.grad = grad

    def _whole(self, like: Tensor, piece: Tensor) -> Tensor:
        whole = torch.zeros_like(like, memory_format=torch.contiguous_format).detach()
        self.piece(whole).copy_(piece)
        with ranks.pieces(self.group):
            return ranks.summed(whole)


def shards_of(model: nn.Module) -> Shards | None:
    """The pieces of a model that ``fully_shard`` has sharded; None for a whole one.

    Raises:
        InputError: parameters in other pieces, or gradients that are averaged behind our back.
    """
    wrapped = type(model).__name__
    if wrapped in ("DistributedDataParallel", "DataParallel"):
        raise InputError(
            f"model: expected the model itself, found it inside {wrapped}; give model.module"
        )
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()):
        raise _refusal("FullyShardedDataParallel")
    parts = [
        part
        for part in model.modules()
        if any(kind.__name__ == "FSDPModule" for kind in type(part).__mro__)
    ]
    if parts:
        return Shards(model, parts)
    for name, parameter in model.named_parameters():
        # DTensor of tensor parallelism; the emptied parameters of DeepSpeed ZeRO-3.
        if _sharded(parameter) or hasattr(parameter, "ds_id"):
            raise _refusal(f"{name!r} in pieces that are no FSDPModule's")
        if parameter.is_meta:
            raise InputError(
                f"model: expected parameters in memory, found {name!r} on the meta device, without "
                "values; load the model without offloading (no device_map)"
            )
    return None


def _checked(model: nn.Module, parts: Sequence[Any]) -> Any:
    """The mesh that the parameters are sharded over; raises InputError if they cannot be used."""
    if not hasattr(parts[0], "reset_iter_state"):
        raise InputError(
            "model: sharded by fully_shard, expected a torch whose FSDPModule has "
            f"reset_iter_state (2.13 has), found {torch.__version__}; update torch, or give the "
            "model before it is sharded"
        )
    inside = {id(p) for part in parts for p in part.parameters()}
    meshes = []
    parameter: Any  # a DTensor, a class not loaded without need
    for name, parameter in model.named_parameters():
        if not _sharded(parameter):
            continue
        mesh, placed = parameter.device_mesh, str(parameter.placements)
        if id(parameter) not in inside or placed != "(Shard(dim=0),)":
            raise _refusal(f"{name!r} placed {placed}")
        if mesh.size() != dist.get_world_size():
            raise _refusal(f"{name!r} over {mesh.size()} of {dist.get_world_size()} processes")
        if parameter.to_local().device.type != mesh.device_type:
            raise _refusal(f"{name!r} offloaded to the {parameter.device.type}")
        meshes.append(mesh)
    for part in parts:
        state = part._get_fsdp_state()
        for held in state._fsdp_param_groups:
            if not held.reduce_grads or held.gradient_divide_factor is not None:
                raise InputError(
                    "model: expected fully_shard to give the mean of the gradients, found a model "
                    "whose set_requires_gradient_sync or set_gradient_divide_factor was called; "
                    "set them back"
                )
        policy = state._mp_policy
        for kind in (policy.param_dtype, policy.reduce_dtype, policy.output_dtype):
            if kind is not None and kind != next(model.parameters()).dtype:
                raise InputError(
                    f"model: expected no mixed precision, found {policy} of fully_shard; scores "
                    "need float32: shard the model without mp_policy"
                )
    if not meshes:
        raise _refusal("fully_shard without any parameter")
    return meshes[0]


def _sharded(parameter: Tensor) -> bool:
    return hasattr(parameter, "placements")


def _refusal(found: str) -> InputError:
    return InputError(
        "model: expected whole parameters, or all sharded by rows over all processes with "
        f"fully_shard (FSDP2), found {found}; give the model before it is split"
    )
