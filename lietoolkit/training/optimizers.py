"""Optimizers as pure maps on (theta, state)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from lietoolkit.errors import InputError
from lietoolkit.geometry.space import blocks, length


@dataclass(frozen=True)
class TrainingState:
    """Parameters and optimizer state after some steps.

    Attributes:
        theta: parameters, [P].
        buffers: the optimizer's vectors, each [P].
        step: steps taken so far.
    """

    theta: Tensor
    buffers: tuple[Tensor, ...] = field(default=())
    step: int = 0


@runtime_checkable
class Optimizer(Protocol):
    """What a training stage needs of an optimizer."""

    @property
    def name(self) -> str:
        """What tables and rules call it."""

    def init(self, theta: Tensor) -> TrainingState:
        """The state before the first step."""

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g; neither argument is changed."""


class _Elementwise:
    """An optimizer that updates each coordinate from this coordinate alone."""

    def advance(
        self: Optimizer, state: TrainingState, g: Tensor, lrs: Sequence[float]
    ) -> TrainingState:
        """Updates with one gradient, one for each step size, written over the state.

        A block at a time, so that all in between stays in the cache and no long vector is made
        anew: for a language model with AdamW more than twice as fast as ``step``.
        """
        for block in blocks(state.theta):
            theta, *buffers = (vector[block] for vector in (state.theta, *state.buffers))
            new = TrainingState(theta, tuple(buffers), state.step)
            for lr in lrs:
                new = self.step(new, g[block], lr)
            for old, values in zip((theta, *buffers), (new.theta, *new.buffers), strict=True):
                old.copy_(values)
        return TrainingState(state.theta, state.buffers, state.step + len(lrs))


@dataclass(frozen=True)
class SGD(_Elementwise):
    r"""Plain gradient descent, :math:`\theta' = \theta - \eta g`: no momentum, no weight decay."""

    name: str = "sgd"

    def init(self, theta: Tensor) -> TrainingState:
        """The state before the first step."""
        return TrainingState(theta)

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g."""
        return TrainingState(torch.add(state.theta, g, alpha=-lr), (), state.step + 1)


@dataclass(frozen=True)
class Momentum(_Elementwise):
    r"""SGD with momentum as in PyTorch: :math:`m' = \beta m + g,\ \theta' = \theta - \eta m'`."""

    beta: float = 0.9
    name: str = "momentum"

    def init(self, theta: Tensor) -> TrainingState:
        """The state before the first step."""
        return TrainingState(theta, (torch.zeros_like(theta),))

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g."""
        m = torch.add(g, state.buffers[0], alpha=self.beta)
        return TrainingState(torch.add(state.theta, m, alpha=-lr), (m,), state.step + 1)


@dataclass(frozen=True)
class AdamW(_Elementwise):
    """AdamW with PyTorch's defaults; equal to ``torch.optim.AdamW`` to rounding."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 1e-2
    name: str = "adamw"

    def init(self, theta: Tensor) -> TrainingState:
        """The state before the first step."""
        return TrainingState(theta, (torch.zeros_like(theta), torch.zeros_like(theta)))

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g."""
        n = state.step + 1
        m = state.buffers[0].lerp(g, 1 - self.beta1)
        v = torch.addcmul(state.buffers[1] * self.beta2, g, g, value=1 - self.beta2)
        scale = (v.sqrt() / (1 - self.beta2**n) ** 0.5).add_(self.eps)
        theta = state.theta * (1 - lr * self.weight_decay)
        theta = theta.addcdiv_(m, scale, value=-lr / (1 - self.beta1**n))
        return TrainingState(theta, (m, v), n)


@dataclass(frozen=True)
class _Around:
    """An optimizer around another one, like it in all that it does not say itself."""

    inner: Optimizer

    @property
    def name(self) -> str:
        """The inner optimizer's."""
        return self.inner.name

    @property
    def beta(self) -> float:
        """The inner optimizer's momentum."""
        return getattr(self.inner, "beta", 0.0)

    def init(self, theta: Tensor) -> TrainingState:
        """The state before the first step."""
        return self.inner.init(theta)

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g."""
        return self.inner.step(state, g, lr)

    def advance(self, state: TrainingState, g: Tensor, lrs: Sequence[float]) -> TrainingState:
        """Such updates, written over the state where the inner optimizer can."""
        return advance(self.inner, state, g, lrs)


@dataclass(frozen=True)
class Clipped(_Around):
    r"""An optimizer whose gradient is first cut to a norm of at most ``max_norm``.

    :math:`g \leftarrow g \cdot \min(1, c / (\|g\| + 10^{-6}))` as in
    ``torch.nn.utils.clip_grad_norm_``, which transformers' Trainer applies by default with c = 1.

    >>> Clipped(SGD(), 1.0).step(SGD().init(torch.zeros(1)), torch.tensor([4.0]), 0.5).theta
    tensor([-0.5000])
    """

    max_norm: float

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g, cut if too long."""
        return self.inner.step(state, self._cut(g), lr)

    def advance(self, state: TrainingState, g: Tensor, lrs: Sequence[float]) -> TrainingState:
        """Such updates, written over the state where the inner optimizer can."""
        return advance(self.inner, state, self._cut(g), lrs)

    def _cut(self, g: Tensor) -> Tensor:
        norm = length(g, torch.float64)
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        return g * factor.to(g.dtype)


@dataclass(frozen=True)
class Resumed(_Around):
    """An optimizer in the middle of training: runs begin with the buffers and steps of ``state``.

    ``rest`` are the step sizes of all updates that are left, as shares of the lr that is asked for,
    so that the rest of any schedule is a run of constant lr; empty: lr itself.

    >>> now = TrainingState(torch.zeros(1), (torch.ones(1),), step=7)
    >>> late = Resumed(Momentum(), now, rest=(1.0, 0.5))
    >>> late.init(torch.tensor([2.0]))
    TrainingState(theta=tensor([2.]), buffers=(tensor([1.]),), step=7)
    """

    state: TrainingState
    rest: tuple[float, ...] = ()

    def init(self, theta: Tensor) -> TrainingState:
        """The live buffers beside the parameters a run starts from."""
        return TrainingState(theta, self.state.buffers, self.state.step)

    def step(self, state: TrainingState, g: Tensor, lr: float) -> TrainingState:
        """One update with gradient g, of the size that this update has in the schedule."""
        return self.inner.step(state, g, lr * self._share(state.step))

    def advance(self, state: TrainingState, g: Tensor, lrs: Sequence[float]) -> TrainingState:
        """Such updates, written over the state where the inner optimizer can."""
        own = [lr * self._share(step) for step, lr in enumerate(lrs, state.step)]
        return advance(self.inner, state, g, own)

    def _share(self, step: int) -> float:
        return self.rest[step - self.state.step] if self.rest else 1.0


def advance(
    optimizer: Optimizer, state: TrainingState, g: Tensor, lrs: Sequence[float]
) -> TrainingState:
    """Updates with one gradient that may write over the state, for whoever needs it no more.

    Args:
        optimizer, state, g: as in ``Optimizer.step``.
        lrs: the step size of each update.

    >>> before = TrainingState(torch.ones(1))
    >>> advance(SGD(), before, torch.ones(1), [0.25, 0.25]).theta, before.theta
    (tensor([0.5000]), tensor([0.5000]))
    """
    own = getattr(optimizer, "advance", None)
    if own is not None:
        return cast(TrainingState, own(state, g, lrs))
    for lr in lrs:
        state = optimizer.step(state, g, lr)
    return state


OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adamw": AdamW}


def optimizer_from(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by name ("sgd", "momentum", "adamw"), or the configuration itself.

    Raises:
        InputError: unknown name, or something else.

    >>> optimizer_from("momentum")
    Momentum(beta=0.9, name='momentum')
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise InputError(
                f"optimizer: expected one of {', '.join(OPTIMIZERS)}; found {optimizer!r}"
            )
        return OPTIMIZERS[optimizer]()
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"optimizer: expected a name or a configuration such as lt.AdamW(), found {optimizer!r}"
        )
    return optimizer
