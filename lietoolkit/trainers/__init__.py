"""Train in a planned order with TRL's trainers and transformers' ``Trainer``.

``plan_order(trainer=trainer, sources=..., target=...)`` plans for a trainer that is set up, and
``follow_plan(trainer, plan)`` lets its ``train()`` read the sources in that order. Nothing is
loaded before it is asked for: the command line looks in here without transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lietoolkit.trainers.callback import OrderCallback, follow_plan
    from lietoolkit.trainers.sampler import StageSampler

__all__ = ["OrderCallback", "StageSampler", "follow_plan"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "sampler" if name == "StageSampler" else "callback"
    return getattr(import_module(f"{__name__}.{home}"), name)
