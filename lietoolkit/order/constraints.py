"""Wishes about the order that every planner must obey."""

from __future__ import annotations

from collections.abc import Sequence

from lietoolkit.errors import InputError

Precedence = set[tuple[int, int]]


def parse_constraints(constraints: Sequence[str], names: Sequence[str]) -> Precedence:
    """Pairs (i, j), "source i before source j", closed under transitivity.

    Args:
        constraints: "a before b", "a after b", "a first", "a last".
        names: the sources.

    Raises:
        InputError: not one of these forms, unknown source, or they contradict each other.

    >>> sorted(parse_constraints(["a before c", "b last"], ["a", "b", "c"]))
    [(0, 1), (0, 2), (2, 1)]
    """
    index = {name: i for i, name in enumerate(names)}
    pairs: Precedence = set()
    for text in constraints:
        new = _read(text, index)
        pairs |= new
    closed = _closure(pairs, len(names))
    loops = [i for i in range(len(names)) if (i, i) in closed]
    if loops:
        raise InputError(
            f"constraints: {'; '.join(constraints)}: they contradict each other "
            f"({names[loops[0]]!r} would have to come before itself); remove one"
        )
    return closed


def _read(text: str, index: dict[str, int]) -> Precedence:
    text = text.strip()
    for word in (" before ", " after "):
        # A name may itself contain the word, so every place is tried.
        for at in range(len(text)):
            if text.startswith(word, at):
                left, right = text[:at].strip(), text[at + len(word) :].strip()
                if left in index and right in index and left != right:
                    pair = (index[left], index[right])
                    return {pair if word == " before " else pair[::-1]}
    for word in (" first", " last"):
        name = text.removesuffix(word).strip()
        if text.endswith(word) and name in index:
            others = [i for i in index.values() if i != index[name]]
            return {(index[name], i) if word == " first" else (i, index[name]) for i in others}
    raise InputError(
        f"constraint {text!r}: expected 'a before b', 'a after b', 'a first' or 'a last' "
        f"with two different names out of {', '.join(index)}"
    )


def _closure(pairs: Precedence, n: int) -> Precedence:
    closed = set(pairs)
    for k in range(n):
        before = [i for i in range(n) if (i, k) in closed]
        after = [j for j in range(n) if (k, j) in closed]
        closed |= {(i, j) for i in before for j in after}
    return closed


def obeys(order: Sequence[int], before: Precedence) -> bool:
    """Whether an order of indices respects every pair.

    >>> obeys([1, 0], {(0, 1)})
    False
    """
    place = {i: p for p, i in enumerate(order)}
    return all(place[i] < place[j] for i, j in before)
