"""Sources shared among processes: what they agree on first, and vectors that all must see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from lietoolkit.geometry import ranks
from lietoolkit.geometry.objective import Objective


def settle(
    sources: Mapping[str, Objective], theta: Tensor, direction: Callable[[Objective], Tensor]
) -> None:
    """Choose the steps of finite differences before sources are shared out, as one process would.

    There the first product in a space chooses for all that follow; shared out, each process would
    choose by its own first source, and its products would differ in the fifth digit.

    Args:
        sources: by name. theta: [P].
        direction: the vector of a source's first product.
    """
    if ranks.size() == 1:
        return
    firsts: dict[int, Objective] = {}
    for source in sources.values():
        if source.space.difference_move is None:
            firsts.setdefault(id(source.space), source)
    asked = list(firsts.values())

    def choose(source: Objective) -> float | None:
        source.settle(theta, direction)
        return source.space.difference_move

    for source, move in zip(asked, ranks.each(asked, choose), strict=True):
        source.space.difference_move = move


def in_turn(names: Sequence[str], work: Callable[[str], Tensor]) -> Iterator[Tensor]:
    """The vectors ``work(name)`` on every process, one after the other.

    Each process makes its share first and keeps it until its turn has come; one alone keeps none.
    """
    if ranks.size() == 1:
        yield from map(work, names)
        return
    kept: dict[str, Tensor] = {}
    ranks.each(names, lambda name: kept.update({name: work(name)}))
    for i, name in enumerate(names):
        yield ranks.broadcast(kept.pop(name, None), i % ranks.size())
