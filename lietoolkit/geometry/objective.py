"""A loss over one flat parameter vector, with its gradient and Hessian-vector product."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.cost import record
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.space import VectorSpace, blocks, length

Call = TypeVar("Call", bound=Callable[..., Any])
HVP_METHODS = ("auto", "exact", "finite-difference")

# Distance |eps v| moved to either side by a central difference, where nothing better is known.
# It does not scale with |theta|: the best distance in float32 was 2e-3 to 2e-2 for models whose
# |theta| differ by a factor of 200. ``ModelObjective`` finds its own.
MOVE = {torch.float32: 4e-3, torch.float64: 1e-5}


class NotFinite(InputError):
    """A loss or gradient is NaN or infinite."""


class Objective:
    r"""A loss :math:`L(\theta)` with gradient :math:`g = \nabla L` and products :math:`Hv`.

    Args:
        fn: theta [P] -> scalar tensor, in pure torch.
        name: what errors call it.

    >>> bowl = Objective(lambda x: 0.5 * (x * x).sum())
    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> g, hv = bowl.gradient_and_hvp(x, torch.ones_like(x))
    >>> g.tolist(), hv.tolist()
    ([1.0, 2.0], [1.0, 1.0])
    """

    def __init__(self, fn: Callable[[Tensor], Tensor], name: str = "objective"):
        self.fn = fn
        self.name = name
        self.space = VectorSpace()

    @property
    def batches(self) -> int:
        """How many batches one evaluation of the whole objective reads."""
        return 1

    @property
    def units(self) -> float:
        """What one evaluation of the whole objective costs, in batches; a part costs less."""
        return float(self.batches)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch, that ``thinned`` could take one by one."""
        return 1

    def loss(self, theta: Tensor, batch: int | None = None) -> Tensor:
        """The loss at theta, a float64 scalar tensor. ``batch``: only that batch of it."""
        with torch.no_grad():
            value = self._loss(theta, batch)
        record(losses=self._price(batch))
        return self._finite(value.double(), "loss")

    def gradient(self, theta: Tensor, batch: int | None = None, check: bool = True) -> Tensor:
        """The gradient at theta, [P]. ``batch``: only that batch of the objective.

        ``check=False`` leaves out the test for NaN, which makes a GPU wait for the host.
        """
        g = self._gradient(theta, batch)
        record(gradients=self._price(batch))
        return self._finite(g, "gradient") if check else g

    def loss_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (float64 scalar) and the gradient, [P], for the price of the gradient."""
        value, g = self._loss_and_gradient(theta, None)
        record(gradients=self.units)
        return self._finite(value, "loss"), self._finite(g, "gradient")

    def gradient_and_hvp(
        self,
        theta: Tensor,
        v: Tensor,
        method: str = "auto",
        batch: int | None = None,
        check: bool = True,
    ) -> tuple[Tensor, Tensor]:
        r"""Gradient and Hessian-vector product, ([P], [P]).

        "finite-difference" takes :math:`Hv \approx (g(\theta+\epsilon v) - g(\theta-\epsilon v)) /
        2\epsilon` and the mean of the two as g, for the price of two gradients. "exact"
        differentiates the gradient (double backward), for three. "auto" is exact, except for
        float32 models: there it takes the finite difference, with the step at which products of
        one row agree best between step sizes; where none agree it is exact.
        """
        if method not in HVP_METHODS:
            raise InputError(f"method: expected one of {', '.join(HVP_METHODS)}; found {method!r}")
        if v.shape != theta.shape:
            raise InputError(f"v: expected shape {list(theta.shape)}, got {list(v.shape)}")
        if method == "auto":
            method = self._choose_method(theta, v)
        n = self._price(batch)
        if method == "exact":
            g, hv = self._exact(theta, v, batch)
            record(gradients=n, hvps=2 * n)
        else:
            g, hv = self._difference(theta, v, batch)
            record(gradients=n, hvps=n)
        if check:
            if method == "exact":  # a difference shows what is not finite in either gradient
                self._finite(g, "gradient")
            self._finite(hv, "Hessian-vector product")
        return g, hv

    def gradient_and_hvp_by_chunk(
        self, theta: Tensor, v: Tensor, sketch: Sketch, n: int, method: str = "auto"
    ) -> tuple[Tensor, Tensor, list[tuple[float, Tensor, Tensor]]]:
        """Gradient and product, and of at most n chunks the share and sketches of both, [W] each.

        Chunks are summed as they come, so that no chunk holds vectors of its own: its sketch is
        what it adds to the sketch of the sum. Nothing is checked for NaN.
        """
        if method == "auto":
            method = self._choose_method(theta, v)
        chunks = self.chunks(n)
        if method == "finite-difference":
            record(gradients=self.units, hvps=self.units)
            g, hv, seen = self._difference_by_chunk(theta, v, chunks, sketch)
        else:
            g, hv, seen = torch.zeros_like(theta), torch.zeros_like(theta), []
            for share, chunk in chunks:
                g_chunk, hv_chunk = chunk.gradient_and_hvp(theta, v, method, check=False)
                g.add_(g_chunk, alpha=share)
                hv.add_(hv_chunk, alpha=share)
                seen.append((sketch(g_chunk), sketch(hv_chunk)))
        return g, hv, [(share, *both) for (share, _), both in zip(chunks, seen, strict=True)]

    def hvp(self, theta: Tensor, v: Tensor, method: str = "auto") -> Tensor:
        """The Hessian-vector product alone, [P]."""
        return self.gradient_and_hvp(theta, v, method)[1]

    def settle(self, theta: Tensor, direction: Callable[[Objective], Tensor]) -> None:
        """Choose how products are made, as the first product along this direction would."""
        if theta.dtype == torch.float32:
            self._choose_method(theta, direction(self))

    def chunks(self, n: int) -> list[tuple[float, Objective]]:
        """Weights (summing to 1) and objectives of at most n parts; the objective is their mean."""
        return [(1.0, self)]

    def fingerprint(self) -> str:
        """A name for what is being minimised, for files that results are resumed from."""
        return f"{self.name}:{type(self).__name__}"

    def thinned(self, n: int) -> Objective:
        """The same with batches of about 1/n of the rows; itself where there are none to part."""
        return self

    def shortened(self, n: int) -> Objective:
        """The same with its first n batches only; itself where there are no more."""
        return self

    # What a subclass replaces.

    def _loss(self, theta: Tensor, batch: int | None) -> Tensor:
        return self.fn(theta)

    def _loss_and_gradient(self, theta: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        x = theta.detach().requires_grad_()
        value = self.fn(x)
        (g,) = torch.autograd.grad(value, x, allow_unused=True)
        return value.detach().double(), _or_zeros(g, x)

    def _exact(self, theta: Tensor, v: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        x = theta.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            (g,) = torch.autograd.grad(self.fn(x), x, create_graph=True, allow_unused=True)
            if g is None or not g.requires_grad:
                return _or_zeros(g, x).detach(), torch.zeros_like(x).detach()
            (hv,) = torch.autograd.grad(g, x, v.to(x.dtype), allow_unused=True)
        return g.detach(), _or_zeros(hv, x)

    def _choose_method(self, theta: Tensor, v: Tensor) -> str:
        return "exact"

    def _move(self, theta: Tensor) -> float:
        return MOVE[theta.dtype]

    # Shared arithmetic.

    def _price(self, batch: int | None) -> float:
        return self.units if batch is None else self.units / self.batches

    def _gradient(self, theta: Tensor, batch: int | None) -> Tensor:
        return self._loss_and_gradient(theta, batch)[1]

    def _accumulate(self, theta: Tensor, total: Tensor, weight: float) -> None:
        """Add weight times the gradient at theta to a vector."""
        total.add_(self._gradient(theta, None), alpha=weight)

    def _difference(
        self, theta: Tensor, v: Tensor, batch: int | None, move: float | None = None
    ) -> tuple[Tensor, Tensor]:
        eps, points = self._either_side(theta, v, move)
        ahead, behind = (self._gradient(point, batch) for point in points)
        _difference_in_place(ahead, behind, eps)
        return behind, ahead

    def _difference_by_chunk(
        self, theta: Tensor, v: Tensor, chunks: list[tuple[float, Objective]], sketch: Sketch
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        eps, points = self._either_side(theta, v)
        sums, sketches = [], []
        for point in points:
            total, seen = torch.zeros_like(theta), []
            for share, chunk in chunks:
                chunk._accumulate(point, total, share)
                seen.append(sketch(total))
            sums.append(total)
            shares = torch.tensor([share for share, _ in chunks], dtype=torch.float64)
            added = torch.stack(seen).diff(dim=0, prepend=torch.zeros_like(seen[0])[None])
            sketches.append(added / shares.to(added.device, non_blocking=True)[:, None])
        (ahead, behind), (s_ahead, s_behind) = sums, sketches
        _difference_in_place(ahead, behind, eps)
        g, hv = (s_ahead + s_behind) / 2, (s_ahead - s_behind) / (2 * eps.double())
        return behind, ahead, list(zip(g, hv, strict=True))

    def _either_side(
        self, theta: Tensor, v: Tensor, move: float | None = None
    ) -> tuple[Tensor, Iterator[Tensor]]:
        """The step eps, and theta + eps v, then theta - eps v, in the same memory."""
        # All on the device: no number is read back to choose the step.
        move = self._move(theta) if move is None else move
        with self.space.in_step():
            # A step size needs no float64 length.
            eps = (move / length(v).clamp(min=1e-30)).to(theta.dtype)
        # In place: for a large model every vector counts, and every pass over one.
        point = self.space.scratch(theta)
        return eps, (torch.addcmul(theta, v, sign * eps, out=point) for sign in (1, -1))

    def _finite(self, value: Tensor, what: str) -> Tensor:
        with self.space.in_step():
            # NaN and infinity survive a sum, which reads a large vector 20 times as fast.
            fine = bool(torch.isfinite(ranks.summed(value.sum())))
            fine = fine or not bool(ranks.summed((~torch.isfinite(value)).sum()))
        if not fine:
            raise NotFinite(
                f"{self.name}: expected a finite {what}, found NaN or infinity; "
                "check this source's data and the learning rate"
            )
        return value


class WeightedSum(Objective):
    """A weighted sum of objectives: what several targets are together.

    >>> bowl = Objective(lambda x: x.square().sum())
    >>> both = WeightedSum({"a": bowl, "b": bowl}, {"a": 1.0, "b": -0.5})
    >>> both.loss(torch.tensor([2.0])).item()
    2.0
    >>> both.hvp(torch.tensor([2.0]), torch.ones(1)).item()
    1.0
    """

    def __init__(
        self, parts: Mapping[str, Objective], weights: Mapping[str, float], name: str = "target"
    ):
        self.parts = [(weights[key], part) for key, part in parts.items()]
        self.name = name
        self.space = next(iter(parts.values())).space

    @property
    def batches(self) -> int:
        """All parts' batches together."""
        return sum(part.batches for _, part in self.parts)

    def fingerprint(self) -> str:
        """The parts' fingerprints with their weights."""
        return " + ".join(f"{weight} {part.fingerprint()}" for weight, part in self.parts)

    def _loss(self, theta: Tensor, batch: int | None) -> Tensor:
        return torch.stack([w * part._loss(theta, None) for w, part in self.parts]).sum()

    def _loss_and_gradient(self, theta: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        value = torch.zeros((), dtype=torch.float64, device=theta.device)
        total = torch.zeros_like(theta)
        for weight, part in self.parts:
            part_value, g = part._loss_and_gradient(theta, None)
            value += weight * part_value
            total.add_(g, alpha=weight)
        return value, total

    def _exact(self, theta: Tensor, v: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        g, hv = torch.zeros_like(theta), torch.zeros_like(theta)
        for weight, part in self.parts:
            part_g, part_hv = part._exact(theta, v, None)
            g.add_(part_g, alpha=weight)
            hv.add_(part_hv, alpha=weight)
        return g, hv


def in_step(call: Call) -> Call:
    """Decorator: with objectives of a sharded model, all processes make the call step by step.

    What cannot be had of such a model, exact products, is refused before anything is computed.
    """

    @functools.wraps(call)
    def inside(*args: Any, **kwargs: Any) -> Any:
        given = [v.values() if isinstance(v, Mapping) else [v] for v in (*args, *kwargs.values())]
        spaces = [o.space for values in given for o in values if isinstance(o, Objective)]
        sharded = [space for space in spaces if space.shards is not None]
        if sharded and len(sharded) < len(spaces):
            raise InputError(
                "objectives: expected all of the one sharded model, found others among them; "
                "give lt.ModelObjective of that model only"
            )
        if sharded and kwargs.get("hvp") == "exact":
            raise no_exact()
        with sharded[0].in_step() if sharded else nullcontext():
            return call(*args, **kwargs)

    return cast(Call, inside)


def no_exact() -> InputError:
    """The refusal of second derivatives through FSDP2's hooks, which know the first one only."""
    return InputError(
        "hvp: expected 'finite-difference' (or 'auto') with a sharded model, found 'exact', which "
        "needs the whole model in one process; leave it out"
    )


def _difference_in_place(ahead: Tensor, behind: Tensor, eps: Tensor) -> None:
    """Gradients at theta +- eps v become Hv (in ``ahead``) and their mean (in ``behind``)."""
    scale = 0.5 / eps
    for block in blocks(ahead):
        difference = ahead[block].sub_(behind[block])
        behind[block].add_(difference, alpha=0.5)
        difference.mul_(scale)


def _or_zeros(g: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like).detach() if g is None else g
