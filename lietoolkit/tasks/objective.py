"""Model, batches and loss as one objective over the flat parameter vector."""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.cost import record
from lietoolkit.geometry.objective import Objective, no_exact
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.tasks.losses import LOSS_NAMES, Loss, add_reference_logps, loss_function
from lietoolkit.tasks.precision import StayDouble

log = logging.getLogger("lietoolkit")

# Products at neighbouring steps that agree to CLOSE are good enough to stop looking; where none
# agree to AGREEMENT, "auto" takes exact products.
CLOSE, AGREEMENT = 1e-3, 2e-2


class ModelObjective(Objective):
    r"""The mean loss of a model over a source's batches, as a function of theta.

    Args:
        model: a causal language model, in evaluation mode.
        batches: dicts of tensors as transformers' and TRL's collators make them, or a loader of
            such. The objective is the plain mean of the batches' losses.
        loss: "lm", "sft", "dpo", or a callable (model, batch) -> scalar.
        space: the parameters to differentiate by; default all trainable ones. Objectives of one
            plan share one space.
        name: what errors and tables call the source.
        microbatch: rows per forward pass; gradients accumulate exactly. Default: a whole batch.
        reference: frozen reference model of DPO; default: the model itself as it is now.
        beta: DPO's temperature.

    Raises:
        InputError: no batches; dropout is active; parameters do not match.

    The model's parameters are left exactly as they were by every call.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[dict[str, Any]],
        loss: str | Callable[[Any, Any], Tensor] | Loss = "lm",
        *,
        space: ParameterSpace | None = None,
        name: str = "objective",
        microbatch: int | None = None,
        reference: nn.Module | None = None,
        beta: float = 0.1,
    ):
        _refuse_dropout(model)
        if microbatch is not None and microbatch < 1:
            raise InputError(f"microbatch: expected at least 1 row, found {microbatch}")
        self.model = model
        self.name = name
        self.space: ParameterSpace = space or ParameterSpace(model)
        self.kind = loss_function(loss, beta=beta)
        self.microbatch = microbatch
        # Kept on the host, where they are cut and weighed; what is evaluated lies on the device.
        own = [_to_device(batch, torch.device("cpu")) for batch in batches]
        if not own:
            raise InputError(f"{name}: expected at least one batch, found none")
        # A reference that is not this model at theta tells results apart, see fingerprint().
        self._other_reference = reference is not None or "ref_chosen_logps" in own[0]
        if self.kind.name == "dpo":
            given = [_to_device(batch, self.space.device) for batch in own]
            with self._at(self.space.vector()):
                given = add_reference_logps(model if reference is None else reference, given)
            own = [_to_device(batch, torch.device("cpu")) for batch in given]
        self._batches = own
        self._units: float | None = None
        self._pieces: dict[int, list[tuple[float, dict[str, Any]]]] = {}

    @property
    def batches(self) -> int:
        """How many batches one evaluation of the whole objective reads."""
        return len(self._batches)

    def chunks(self, n: int) -> list[tuple[float, Objective]]:
        """Weights (summing to 1) and objectives of at most n parts, by batch or by rows."""
        if len(self._batches) >= n:
            groups = [self._batches[i::n] for i in range(n)]
            weights = [len(group) / len(self._batches) for group in groups]
        else:
            per_batch = -(-n // len(self._batches))
            groups, weights = [], []
            for batch in self._batches:
                parts = self.kind.split(batch, per_batch)
                total = sum(self.kind.weight(part) for part in parts)
                groups += [[part] for part in parts]
                weights += [self.kind.weight(p) / total / len(self._batches) for p in parts]
        units = self.units
        return [(w, self._with(g, w * units)) for w, g in zip(weights, groups, strict=True)]

    @property
    def batch_rows(self) -> int:
        """Rows (pairs for "dpo") of the largest batch."""
        return max(map(self._rows_of, self._batches))

    def thinned(self, n: int) -> ModelObjective:
        """The same with batches of 1/n of the rows each, the first parts of all batches ahead.

        Step by step it reads the batches in the same turn, and of each another part every time
        round; a batch of fewer parts than others begins again.
        """
        if n == 1:
            return self
        size = -(-self.batch_rows // n)
        parts = [self.kind.split(b, -(-self._rows_of(b) // size)) for b in self._batches]
        count = max(map(len, parts))
        chosen = [p[j % len(p)] for j in range(count) for p in parts]
        return self._with(chosen, sum(map(self._rows_of, chosen)) / self.batch_rows)

    def shortened(self, n: int) -> ModelObjective:
        """The same with its first n batches only."""
        kept = self._batches[:n]
        return self._with(kept, self.units * len(kept) / len(self._batches))

    def fingerprint(self) -> str:
        """A digest of loss and batches, for files that results are resumed from."""
        digest = hashlib.sha256(f"{self.kind.name} {self.space.dtype}".encode())
        for batch in self._batches:
            for key in sorted(batch):
                counts = self._other_reference or not key.startswith("ref_")
                if isinstance(batch[key], Tensor) and counts:
                    digest.update(key.encode())
                    data = batch[key].detach().cpu().contiguous().view(torch.uint8)
                    digest.update(data.numpy().tobytes())
        return f"{self.name}:{digest.hexdigest()[:16]}"

    def in_space(self, space: ParameterSpace) -> ModelObjective:
        """The same objective over another space of the same model: other parameters or dtype."""
        moved = self._with(self._batches, self.units)
        moved.space = space
        return moved

    @property
    def units(self) -> float:
        """Batches read by one evaluation; a part of a batch counts by its share."""
        return float(len(self._batches)) if self._units is None else self._units

    def _rows_of(self, batch: dict[str, Any]) -> int:
        return len(self.kind.split(batch, sys.maxsize))

    def _with(self, batches: list[dict[str, Any]], units: float) -> ModelObjective:
        part = object.__new__(ModelObjective)
        part.__dict__.update(self.__dict__)
        part._batches, part._units, part._pieces = batches, units, {}
        return part

    def _parts(self, batch: int | None) -> list[tuple[float, dict[str, Any]]]:
        chosen = range(len(self._batches)) if batch is None else [batch]
        return [(w / len(chosen), piece) for b in chosen for w, piece in self._pieces_of(b)]

    def _pieces_of(self, batch: int) -> list[tuple[float, dict[str, Any]]]:
        """Micro-batches with their weights, on the device; made once.

        Weights sum to 1: over all processes where a sharded model's rows are dealt out.
        """
        if batch not in self._pieces:
            parts, place = self._dealt(self._batches[batch])
            own, spare = parts[min(place, len(parts) - 1)], 0
            pieces = [own]
            if self.microbatch is not None:
                pieces = self.kind.split(own, -(-self._rows_of(own) // self.microbatch))
                # All gather the model's layers together, so all take as many forward passes.
                count = max(-(-self._rows_of(part) // self.microbatch) for part in parts)
                spare = count - len(pieces)
            shares = [1.0]  # of a whole batch, whatever it weighs
            if self._readers > 1 or len(pieces) > 1:
                total = sum(map(self.kind.weight, parts)) or 1.0
                mine = place < len(parts)  # else there are fewer rows than processes
                shares = [mine * self.kind.weight(piece) / total for piece in pieces]
            pieces, shares = [*pieces, *pieces[:1] * spare], [*shares, *[0.0] * spare]
            ready = [_to_device(self.kind.ready(piece), self.space.device) for piece in pieces]
            self._pieces[batch] = list(zip(shares, ready, strict=True))
        return self._pieces[batch]

    @property
    def _readers(self) -> int:
        """Processes that a batch's rows are dealt out to."""
        # Of a loss that may not be a mean over rows each process reads all, unless told otherwise.
        by_rows = self.kind.name in LOSS_NAMES or self.microbatch is not None
        shards = self.space.shards
        return shards.count if by_rows and shards is not None else 1

    def _dealt(self, batch: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        """The rows of a batch by process that reads them, and which of these this one is."""
        shards = self.space.shards
        if shards is None or self._readers == 1:
            return [batch], 0
        return self.kind.split(batch, shards.count), shards.place

    @contextmanager
    def _at(self, theta: Tensor) -> Iterator[list[Tensor]]:
        """The model at theta, computing in the space's precision throughout."""
        precise = StayDouble() if self.space.dtype == torch.float64 else nullcontext()
        with self.space.at(theta) as parameters, precise:
            yield parameters

    def _loss(self, theta: Tensor, batch: int | None) -> Tensor:
        with self._at(theta):
            losses = [w * self.kind.loss(self.model, b).double() for w, b in self._parts(batch)]
        return self._agreed(torch.stack(losses).sum())

    def _loss_and_gradient(self, theta: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        g = torch.zeros(self.space.size, dtype=self.space.dtype, device=self.space.device)
        return self._agreed(self._backward(theta, self._parts(batch), g)), g

    def _agreed(self, loss: Tensor) -> Tensor:
        with self.space.in_step():
            return ranks.agreed(ranks.summed(loss) if self._readers > 1 else loss)

    def _accumulate(self, theta: Tensor, total: Tensor, weight: float) -> None:
        self._backward(theta, [(weight * w, part) for w, part in self._parts(None)], total)

    def _backward(
        self, theta: Tensor, parts: list[tuple[float, dict[str, Any]]], total: Tensor
    ) -> Tensor:
        """The weighted loss; its gradient is added to ``total`` as it comes, without a copy."""
        shards, views = self.space.shards, self.space.unflatten(total)
        with torch.enable_grad(), self._at(theta) as parameters:
            for parameter, view in zip(parameters, views, strict=True):
                parameter.grad = view if shards is None else None
            value = torch.zeros((), dtype=torch.float64, device=total.device)
            for weight, part in parts:
                loss = weight * self.kind.loss(self.model, part)
                # FSDP2 has leaves of its own, and leaves the mean of their gradients in ours.
                (self._readers * loss).backward(inputs=parameters if shards is None else None)
                value += loss.detach().double()
            if shards is not None:
                for parameter, view in zip(parameters, views, strict=True):
                    if parameter.grad is not None:
                        view.add_(shards.mean_piece(parameter.grad).view(view.shape))
        return value

    def _exact(self, theta: Tensor, v: Tensor, batch: int | None) -> tuple[Tensor, Tensor]:
        if self.space.shards is not None:
            raise no_exact()
        g = torch.zeros(self.space.size, dtype=self.space.dtype, device=self.space.device)
        hv = torch.zeros_like(g)
        direction = self.space.unflatten(v.to(self.space.dtype))
        # Fused attention has no second derivative; the plain kernel has.
        kernel = sdpa_kernel(SDPBackend.MATH)
        with torch.enable_grad(), self._at(theta) as parameters, kernel:
            # As in a gradient, products accumulate straight into views of one flat vector.
            for parameter, view in zip(parameters, self.space.unflatten(hv), strict=True):
                parameter.grad = view
            for weight, part in self._parts(batch):
                loss = weight * self.kind.loss(self.model, part)
                first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
                for view, d in zip(self.space.unflatten(g), first, strict=True):
                    if d is not None:
                        view.add_(d.detach())
                used = [
                    (d, x) for d, x in zip(first, direction, strict=True)
                    if d is not None and d.requires_grad
                ]  # fmt: skip
                if used:
                    outputs, cotangents = zip(*used, strict=True)
                    torch.autograd.backward(outputs, cotangents, inputs=parameters)
        return g, hv

    def _choose_method(self, theta: Tensor, v: Tensor) -> str:
        sharded = self.space.shards is not None
        if self.space.dtype != torch.float32:
            return "finite-difference" if sharded else "exact"
        if self.space.difference_move is None:
            move, gap = self._best_move(theta, v)
            close = gap <= AGREEMENT
            if not close:
                log.warning(
                    "%s: finite differences at neighbouring steps disagree by %.1g at best; "
                    "using %s",
                    self.name,
                    gap,
                    "the best of them, for a sharded model has no exact products"
                    if sharded
                    else "exact Hessian-vector products (1.5 times the cost)",
                )
            self.space.difference_move = move if close or sharded else 0.0
        return "finite-difference" if self.space.difference_move else "exact"

    def _move(self, theta: Tensor) -> float:
        return self.space.difference_move or super()._move(theta)

    def _best_move(self, theta: Tensor, v: Tensor) -> tuple[float, float]:
        """The step at which products of one row change least, and by how much they change.

        Truncation grows with the square of the step, rounding with its inverse, and where they
        balance differs between models by orders of magnitude. Products at steps a factor of 4
        apart are compared; the middle of the pair that agrees best is taken.
        """
        rows = self.kind.split(self._batches[0], sys.maxsize)
        row = self._with(rows[:1], 1 / len(rows))
        start, products, gaps = super()._move(theta), {}, {}
        with self.space.in_step():
            # Products are compared as sketches: each would be as long as the model.
            sketch = Sketch(theta.numel(), device=theta.device, places=self.space.places(theta))

        def gap(i: int) -> float:
            for j in (i, i + 1):
                if j not in products:
                    product = row._difference(theta, v, None, start * 4.0**j)[1]
                    record(gradients=2 * row.units)
                    with self.space.in_step():
                        products[j] = sketch(product)
                    del product  # or it would lie beside the next
            change = (products[i] - products[i + 1]).norm()
            gaps[i] = float(change / products[i].norm().clamp(min=1e-30))
            return gaps[i] if math.isfinite(gaps[i]) else math.inf

        best = i = -1
        direction = -1
        gaps[best] = gap(best)
        while gaps[best] > CLOSE and abs(i) < 6:
            i += direction
            gaps[i] = gap(i)
            if gaps[i] < gaps[best]:
                best = i
            elif direction == -1 and best == -1:
                i, direction = -1, 1  # smaller steps are worse: try larger ones
            else:
                break
        return start * 4.0 ** (best + 0.5), gaps[best]


def _to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    # To a GPU nothing has to wait; from one, the numbers must have come before they are read.
    ahead = device.type != "cpu"
    return {
        key: value.to(device, non_blocking=ahead) if isinstance(value, Tensor) else value
        for key, value in dict(batch).items()
    }


def _refuse_dropout(model: nn.Module) -> None:
    if not model.training:
        return
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    config = getattr(model, "config", None)
    settings = [k for k in ("attention_dropout", "attn_pdrop") if getattr(config, k, 0)]
    if layers or settings:
        raise InputError(
            f"model: expected no active dropout, found it in {(layers + settings)[0]!r} "
            "(the model is in train mode); call model.eval() first"
        )
