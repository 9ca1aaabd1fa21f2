"""Checks of notebook 05: tournaments, cycles and linear ordering."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lietoolkit.course.checks_core import Answer, Exercise, Slip, Wrong, compare, random_vectors
from lietoolkit.geometry.space import gram
from lietoolkit.order.linear_ordering import borda_order, exact_order, order_value
from lietoolkit.plots import order_matrix


def antisymmetric(seed: int, size: int) -> Tensor:
    """A random matrix of effects, [N, N]."""
    (m,) = random_vectors(seed, (size, size))
    m = (64 * m).round() / 64  # sums are exact, so that equal values come out equal
    return m - m.T


# 5.1


def effect_matrix(g: Tensor, v: Tensor) -> Tensor:
    """All σ_ij from the N gradients and N products."""
    products = gram(list(g), list(v))
    return products - products.T


def _matrix_panel(ax: Any, effects: Answer) -> None:
    g, v = random_vectors(50, (5, 4), (5, 4))
    order_matrix(effects(g, v), list("ABCDE"), ax=ax)


# 5.2


def borda(matrix: Tensor) -> tuple[Tensor, list[int]]:
    """Row sums, and the order they give."""
    return matrix.sum(1), borda_order(matrix.numpy())


def _ranks(matrix: Tensor) -> tuple[Tensor, list[int]]:
    scores, order = borda(matrix)
    return scores, [order.index(i) for i in range(len(order))]


def _borda_panel(ax: Any, rank: Answer) -> None:
    scores, order = rank(antisymmetric(51, 6))
    order = [int(i) for i in order]
    heights = [float(scores[i]) for i in order]
    ax.bar(range(6), heights, color="#56B4E9", edgecolor="black")
    ax.set_xticks(range(6), ["ABCDEF"[i] for i in order])
    ax.axhline(0, color="gray", linewidth=0.8)
    ax.set(xlabel="trained first … trained last", ylabel="row sum")


# 5.3


def best_order(matrix: Tensor) -> list[int]:
    """The best order of all."""
    return exact_order(matrix.numpy())


def _neighbors_only(matrix: Tensor) -> list[int]:
    m = matrix.numpy()
    orders = itertools.permutations(range(len(m)))
    return list(min(orders, key=lambda o: sum(m[i, j] for i, j in itertools.pairwise(o))))


def _order_panel(ax: Any, best: Answer) -> None:
    matrix = antisymmetric(55, 5)
    mine = order_value(matrix.numpy(), [int(i) for i in best(matrix)])
    orders = itertools.permutations(range(5))
    values = sorted(order_value(matrix.numpy(), order) for order in orders)
    ax.plot(range(1, 121), values, ".", color="gray", label="all 120 orders")
    ax.plot([1 + int(np.argmin(np.abs(np.array(values) - mine)))], [mine], "*", color="black",
            markersize=14, label="chosen")  # fmt: skip
    ax.set(xlabel="rank", ylabel="predicted loss + constant")
    ax.legend(fontsize=8)


# 5.4


def find_cycle(matrix: Tensor) -> tuple[int, int, int] | None:
    """The first triple that goes round."""
    for i, j, k in itertools.permutations(range(len(matrix)), 3):
        if matrix[i, j] < 0 and matrix[j, k] < 0 and matrix[k, i] < 0:
            return i, j, k
    return None


def _transitive(seed: int, size: int) -> Tensor:
    (s,) = random_vectors(seed, size)
    return s[:, None] - s[None, :]


def _rock_paper_scissors() -> Tensor:
    m = _transitive(56, 5)
    for i, j in ((0, 3), (3, 4), (4, 0)):
        m[i, j], m[j, i] = -0.5, 0.5
    return m


def _check_cycle(find: Answer) -> None:
    cases = [_rock_paper_scissors(), _transitive(57, 5), _transitive(58, 3), antisymmetric(59, 7)]
    for number, matrix in enumerate(cases, 1):
        cycle, example = find(matrix.clone()), find_cycle(matrix)
        if cycle is None:
            if example is not None:
                raise Wrong(
                    f"Matrix {number} has a cycle, for example {example}: look at all triples."
                )
            continue
        try:
            i, j, k = (int(x) for x in cycle)
        except (TypeError, ValueError):
            raise Wrong(f"Expected three numbers (i, j, k) or None, got {cycle!r}.") from None
        if len({i, j, k}) < 3:
            raise Wrong(f"{(i, j, k)} names a source twice; a cycle has three different ones.")
        steps = [float(matrix[p, q]) for p, q in ((i, j), (j, k), (k, i))]
        if all(step > 0 for step in steps):
            raise Wrong(
                f"{(i, j, k)} is the cycle backwards (sign): M[i, j] < 0 means that i goes first."
            )
        if not all(step < 0 for step in steps):
            raise Wrong(
                f"{(i, j, k)} is no cycle in matrix {number}: M[i, j], M[j, k] and M[k, i] must "
                "all be negative. Did you check the way back, from k to i?"
            )


def _cycle_panel(ax: Any, find: Answer) -> None:
    matrix = _rock_paper_scissors()
    cycle = find(matrix) or ()
    bold = set(zip(cycle, (*cycle[1:], *cycle[:1]), strict=True))
    angles = [math.pi / 2 - 2 * math.pi * n / 5 for n in range(5)]
    points = [(math.cos(t), math.sin(t)) for t in angles]
    for i, j in itertools.permutations(range(5), 2):
        if matrix[i, j] < 0:
            on = (i, j) in bold
            ax.annotate(
                "", points[j], points[i],
                arrowprops={
                    "arrowstyle": "-|>", "shrinkA": 11, "shrinkB": 11,
                    "color": "black" if on else "#BBBBBB", "lw": 2.5 if on else 1,
                },
            )  # fmt: skip
    for n, (x, y) in enumerate(points):
        ax.text(x, y, str(n), ha="center", va="center", fontsize=11)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    ax.set_axis_off()


# 5.5

LOOKUPS = 60  # allowed reads of the matrix, times N 2^N


class _CountedRow(list):
    """A row that counts how often it is read, and stops a search that reads too often."""

    def __init__(self, values: Sequence[float], reads: list[int], limit: int):
        super().__init__(values)
        self.reads = reads
        self.limit = limit

    def __getitem__(self, place: Any) -> Any:
        self.reads[0] += 1
        if self.reads[0] > self.limit:
            raise Wrong(
                f"More than {self.limit} look-ups for {len(self)} sources: this tries the orders "
                "one by one. Remember the best value of each set of sources instead."
            )
        return super().__getitem__(place)


def fast_order(matrix: list[list[float]]) -> list[int]:
    """The best order, by dynamic programming."""
    return exact_order(np.array(matrix))


def _order_cases(sizes: Sequence[int]) -> list[tuple]:
    return [(antisymmetric(60 + n, n).tolist(),) for n in sizes]


def _check_reads(find: Answer) -> None:
    size = 10
    matrix = antisymmetric(75, size).tolist()
    reads, limit = [0], LOOKUPS * size * 2**size
    order = find([_CountedRow(row, reads, limit) for row in matrix])
    compare(lambda: list(order), lambda: fast_order(matrix), [()], ())


EXERCISES = [
    Exercise(
        key="5.1",
        right=effect_matrix,
        cases=lambda: [tuple(random_vectors(52, (4, 6), (4, 6)))],
        mistakes=(
            Slip(
                "The sign is flipped (transposed): σ_ij = ⟨v_j, g_i⟩ - ⟨v_i, g_j⟩.",
                lambda g, v: -effect_matrix(g, v),
            ),
            Slip("Only the first term ⟨v_j, g_i⟩: subtract its transpose.", lambda g, v: g @ v.T),
            Slip("Only one term, and transposed.", lambda g, v: v @ g.T),
            Slip(
                "The two terms are added; effects are antisymmetric, so subtract.",
                lambda g, v: g @ v.T + v @ g.T,
            ),
            Slip(
                "Elementwise products: σ_ij needs inner products over the P parameters.",
                lambda g, v: v * g,
            ),
        ),
        hints=(
            "Stacked as [N, P], all inner products at once are one matrix product.",
            "M = g @ v.T has M[i, j] = ⟨g_i, v_j⟩. What is its transpose?",
        ),
        panel=_matrix_panel,
        picture="a 5 by 5 antisymmetric matrix of effects",
    ),
    Exercise(
        key="5.2",
        right=borda,
        cases=lambda: [(antisymmetric(53, 6),), (antisymmetric(54, 4),)],
        mistakes=(
            Slip(
                "The order is descending: the smallest row sum is trained first (ascending).",
                lambda m: (borda(m)[0], borda(m)[1][::-1]),
            ),
            Slip(
                "The sums run over the wrong axis: sum each row, over j.",
                lambda m: (m.sum(0), borda_order(-m.numpy())),
            ),
            Slip(
                "The sums run over the wrong axis (columns), and the order is descending.",
                lambda m: (m.sum(0), borda(m)[1]),
            ),
            Slip("These are ranks; return the sources in the order they are trained.", _ranks),
            Slip("Only the order; return the row sums too.", lambda m: borda(m)[1]),
        ),
        hints=(
            "A very negative row means: before nearly everybody, this source lowers the loss.",
            "matrix.sum(1) and torch.argsort.",
        ),
        panel=_borda_panel,
        picture="bars of the row sums, rising from left to right",
    ),
    Exercise(
        key="5.3",
        right=best_order,
        cases=lambda: [(antisymmetric(n, 5),) for n in (55, 61, 62)],
        mistakes=(
            Slip(
                "This is the worst order (sign): M[i, j] counts where i comes before j; take the "
                "minimum.",
                lambda m: best_order(-m),
            ),
            Slip("This is the Borda order; here it is not the best.", lambda m: borda(m)[1]),
            Slip(
                "Only neighbors were counted: every earlier source meets every later one.",
                _neighbors_only,
            ),
            Slip(
                "All orders came out equal: count each pair once, i before j.",
                lambda m: list(range(len(m))),
            ),
        ),
        hints=(
            "itertools.permutations gives all orders; min(..., key=...) the best.",
            "The value of an order is the sum of M[i, j] over all i that come before j.",
        ),
        panel=_order_panel,
        picture="predicted losses of all 120 orders, sorted, with a star on the lowest",
    ),
    Exercise(
        key="5.4",
        right=find_cycle,
        cases=lambda: [],
        check=_check_cycle,
        hints=(
            "M[i, j] < 0 means that i wants to go before j.",
            "Try all triples (i, j, k); all three of M[i, j], M[j, k], M[k, i] must be negative.",
        ),
        panel=_cycle_panel,
        picture="five sources on a circle with arrows from first to second; three bold arrows run "
        "in a triangle",
    ),
    Exercise(
        key="5.5",
        right=fast_order,
        cases=lambda: _order_cases((2, 4, 6, 7)),
        mistakes=(
            Slip(
                "This is the worst order: the minimum is wanted, and the walk back from the full "
                "set gives the source trained last first.",
                lambda m: fast_order((-np.array(m)).tolist()),
            ),
            Slip(
                "This is the Borda order, not the best one.",
                lambda m: borda_order(np.array(m)),
            ),
            Slip(
                "This is the value of the best order; return the order.",
                lambda m: 2 * order_value(np.array(m), fast_order(m)),
            ),
        ),
        also=_check_reads,
        hints=(
            "The best value of a set S, all trained before the rest, does not depend on the rest.",
            "Some j of S comes last in it: best[S] = min over j of best[S − j] + Σ M[i, j], i in "
            "S − j.",
            "Keep best and the chosen j for each S, as bits of a number; then walk back from the "
            "full set.",
        ),
    ),
]
