"""Rows in stages: each source's block of a data set, in an order that may still change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch.utils.data import Sampler


class StageSampler(Sampler[int]):
    """Indices of a data set that holds one block of rows for each source.

    Args:
        blocks: rows of each source.
        order: names, trained-first first. The list may change while it is read: a stage that has
            not begun is looked up when the one before it ends.

    >>> order = ["a", "b"]
    >>> sampler = StageSampler({"a": range(0, 2), "b": range(2, 4)}, order)
    >>> list(sampler)
    [0, 1, 2, 3]
    >>> order.reverse()
    >>> list(sampler), len(sampler)
    ([2, 3, 0, 1], 4)
    """

    def __init__(self, blocks: Mapping[str, Sequence[int]], order: list[str]):
        self.blocks = dict(blocks)
        self.order = order

    def __iter__(self) -> Iterator[int]:
        """The rows, stage by stage."""
        for place in range(len(self.order)):
            yield from self.blocks[self.order[place]]

    def __len__(self) -> int:
        """How many rows all stages have."""
        return sum(len(block) for block in self.blocks.values())
