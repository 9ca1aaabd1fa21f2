"""How often a predicted sign survives resampling of the sources' batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One chunk of a source: its share of the source, and the sketches of its g and Hv."""

    share: float
    g: Tensor
    v: Tensor

    def to_cpu(self) -> tuple[float, Tensor, Tensor]:
        """As plain data in the CPU's memory, to be sent to other processes."""
        return self.share, self.g.cpu(), self.v.cpu()


class Resampler:
    r"""Bootstrap of the score matrix over the chunks of every source.

    Chunks are drawn with replacement within each source, and all scores are formed again from
    sketches of the chunks' gradients and products. Only the *deviation* from the sketched mean is
    used: it is added to the exact matrix, so that the projection adds no bias.

    It measures how much the sign depends on which rows were seen. It says nothing about the step
    size, the horizon or the optimizer, and is not calibrated against trained truth.

    Args:
        parts: the chunks of each source.
    """

    def __init__(self, parts: Sequence[Sequence[Part]]):
        self.shares = [torch.tensor([p.share for p in source]) for source in parts]
        g = torch.stack([p.g for source in parts for p in source])
        v = torch.stack([p.v for source in parts for p in source])
        self.products = (g @ v.T).cpu()
        self.likeness = _cosines(v)

    def deviations(self, resamples: int = 200, seed: int = 0) -> Tensor:
        """Resampled minus mean sigma, [resamples, N, N] float64, loss per squared step size."""
        generator = torch.Generator().manual_seed(seed)
        n, rows = len(self.shares), sum(len(s) for s in self.shares)
        drawn = torch.zeros(resamples + 1, n, rows, dtype=torch.float64)
        start = 0
        for i, share in enumerate(self.shares):
            size = len(share)
            picks = torch.randint(size, (resamples, size), generator=generator)
            counts = torch.zeros(resamples, size).scatter_add_(1, picks, torch.ones(picks.shape))
            counts = torch.cat([torch.ones(1, size), counts]) * share
            drawn[:, i, start : start + size] = (counts / counts.sum(1, keepdim=True)).double()
            start += size
        products = drawn @ self.products @ drawn.transpose(1, 2)
        sigma = products - products.transpose(1, 2)
        return sigma[1:] - sigma[:1]

    def chance(self, permutations: int = 999, seed: int = 0) -> float:
        r"""How often chunks dealt to the sources at random look as distinct as the sources do.

        A permutation test: if all sources were random parts of one, any deal of the chunks would
        be as likely as the one that is. The statistic is the mean cosine of two chunks of one
        source, of their products with the target's gradient: at a model that has learned a source,
        its rows' gradients are all noise, and their products still tell it from others. The true
        deal counts as one of the deals, so that the result is at least 1/(permutations + 1). Where
        it is large, sources cannot be told apart, and no order of them from another.

        Args:
            permutations: random deals; each source keeps its number of chunks.
            seed: of the deals.
        """
        generator = torch.Generator().manual_seed(seed)
        owner = torch.cat([torch.full((len(s),), i) for i, s in enumerate(self.shares)])
        rows = len(owner)
        deals = torch.stack(
            [owner]
            + [owner[torch.randperm(rows, generator=generator)] for _ in range(permutations)]
        )
        same = deals[:, :, None] == deals[:, None, :]
        likeness = (same * self.likeness).sum((1, 2))
        return float((likeness >= likeness[0] - 1e-9 * rows).double().mean())

    def survival(self, sigma: Tensor, resamples: int = 200, seed: int = 0) -> Tensor:
        """Share of resamples in which each pair keeps its sign, [N, N] float64.

        Args:
            sigma: [N, N], the exact scores, in loss per squared step size.
            resamples: how many.
            seed: of the draws.
        """
        resampled = sigma + self.deviations(resamples, seed)
        return (resampled.sign() == sigma.sign()).double().mean(0)


def _cosines(rows: Tensor) -> Tensor:
    """Of all pairs of different rows, [n, n] float64 on the CPU; 0 with a row of zeros."""
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return (rows @ rows.T).cpu().double().fill_diagonal_(0.0)
