"""What was spent, in gradient equivalents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# One forward pass is a third of a gradient: of the three matrix products a layer makes in a
# forward and backward pass, it makes one.
LOSS = 1.0 / 3.0


@dataclass
class Cost:
    """Gradient equivalents by kind; one unit is a forward and backward pass of one batch.

    A gradient and Hessian-vector product by central finite difference is two gradients: one is
    booked under ``gradients``, one under ``hvps``. Exactly, the product alone books two.

    >>> cost = Cost(gradients=3, hvps=2, losses=1)
    >>> cost.total
    6.0
    """

    gradients: float = 0.0
    hvps: float = 0.0
    losses: float = 0.0

    @property
    def total(self) -> float:
        """All kinds added up."""
        return float(self.gradients + self.hvps + self.losses)

    def to_dict(self) -> dict[str, float]:
        """The three kinds and their sum."""
        return {
            "gradients": self.gradients,
            "hvps": self.hvps,
            "losses": self.losses,
            "total": self.total,
        }


@dataclass
class _Meters:
    active: list[Cost] = field(default_factory=list)


_METERS = _Meters()


@contextmanager
def metered() -> Iterator[Cost]:
    """Count every gradient, Hessian-vector product and loss evaluated inside the block."""
    cost = Cost()
    _METERS.active.append(cost)
    try:
        yield cost
    finally:
        # By identity: nested meters may hold equal counts.
        _METERS.active[:] = [meter for meter in _METERS.active if meter is not cost]


def record(*, gradients: float = 0.0, hvps: float = 0.0, losses: float = 0.0) -> None:
    """Book an evaluation with every open meter."""
    book(Cost(gradients, hvps, losses * LOSS))


def book(cost: Cost) -> None:
    """Add what was spent elsewhere, in another process, to every open meter."""
    for meter in _METERS.active:
        meter.gradients += cost.gradients
        meter.hvps += cost.hvps
        meter.losses += cost.losses
