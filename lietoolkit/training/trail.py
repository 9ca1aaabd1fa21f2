"""States along the order that was trained last; one that begins alike goes on from there."""

from __future__ import annotations

from collections.abc import Sequence

from lietoolkit.training.optimizers import TrainingState

# How many states are kept: those after which two, and three, places are left. Of the orders that a
# search tries one after the other, nearly all that share any stages part there.
KEPT = 2


def shared_stages(before: Sequence[object], order: Sequence[object]) -> int:
    """Stages of an order that need not be trained again after another one with a ``Trail``.

    >>> [shared_stages("abcde", order) for order in ("abced", "abdce", "acbde")]
    [3, 2, 0]
    """
    pairs = enumerate(zip(before, order, strict=False))
    common = next((n for n, (a, b) in pairs if a != b), min(len(before), len(order)))
    return common if len(order) - 1 - KEPT <= common <= len(order) - 2 else 0


class Trail:
    """What ``run_schedules`` leaves behind of the order it trained last; see there.

    It holds ``KEPT`` training states: parameters and optimizer buffers.
    """

    def __init__(self) -> None:
        self._key = ""
        self._path: list[tuple[str, TrainingState | None]] = []

    def follow(self, key: str) -> list[tuple[str, TrainingState | None]]:
        """The stages of the last order with the states that are kept; none of other settings."""
        return list(self._path) if key == self._key else []

    def leave(self, key: str, path: Sequence[tuple[str, TrainingState | None]]) -> None:
        """Keep what may be needed of a path: each stage's source, and the state at its end."""
        kept = range(len(path) - 1 - KEPT, len(path) - 1)
        self._key = key
        self._path = [(name, s if n in kept else None) for n, (name, s) in enumerate(path, 1)]
