"""Float64 that stays float64, inside models that compute parts of themselves in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MATRIX_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)


class StayDouble(TorchFunctionMode):
    """Inside, a float64 tensor is never cast to float32.

    Models written for half precision raise norms, softmax and rotary embeddings to float32
    whatever the input. In a float64 model these casts *lower* the precision: the loss keeps an
    error of 1e-7, larger than many order effects. Casts of other tensors are left alone; where one
    of them meets a float64 tensor in a matrix product (positions, in rotary embeddings), it is
    raised, as sums and elementwise products do by themselves.

    >>> x = torch.ones(1, dtype=torch.float64)
    >>> with StayDouble():
    ...     x.float().dtype, x.to(torch.float32).dtype, x.softmax(0, dtype=torch.float32).dtype
    (torch.float64, torch.float64, torch.float64)
    >>> with StayDouble():
    ...     (x[:, None] @ torch.arange(3)[None, :].float()).dtype
    torch.float64
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
        if func in _MATRIX_PRODUCTS:
            types_met = {value.dtype for value in args if isinstance(value, Tensor)}
            if types_met == {torch.float32, torch.float64}:
                args = tuple(value.double() for value in args)
        return func(*args, **kwargs)


def _kept(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
