"""Float64 that stays float64, inside models that compute parts of themselves in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class StayDouble(TorchFunctionMode):
    """Inside, a float64 tensor is never cast to float32.

    Models written for half precision raise norms, softmax and rotary embeddings to float32
    whatever the input. In a float64 model these casts *lower* the precision: the loss keeps an
    error of 1e-7, larger than many order effects. Casts of other tensors are left alone.

    >>> x = torch.ones(1, dtype=torch.float64)
    >>> with StayDouble():
    ...     x.float().dtype, x.to(torch.float32).dtype, x.softmax(0, dtype=torch.float32).dtype
    (torch.float64, torch.float64, torch.float64)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call func with float64 where float32 was asked for."""
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = tuple(_kept(value) for value in args)
            kwargs = {key: _kept(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _kept(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
