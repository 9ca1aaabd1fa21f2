"""How an exercise is checked: the right answer, known mistakes, and what is said about each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Answer = Callable[..., Any]
NOT_YET = "not attempted yet"


class Wrong(AssertionError):
    """A wrong answer; the message says what is likely wrong. Notebooks show the message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet right. {self}"]


@dataclass(frozen=True)
class Slip:
    """A known mistake: what is said, and a function that makes it."""

    message: str
    fn: Answer


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        key: chapter and number, "1.2".
        right: the reference, which calls the package.
        cases: makes the argument tuples an answer is tried on; the same ones each time.
        mistakes: known ones; the first that an answer equals on all cases is named.
        hints: from gentle to nearly everything.
        also: further conditions on an answer that gives the right values; raises Wrong.
        check: replaces the comparison with ``right`` where many answers are right.
        panel: draws on axes what a function computes; the target and the learner's own.
        picture: what a panel shows, in words.
        tolerance: relative to the largest number of a case.
    """

    key: str
    right: Answer
    cases: Callable[[], Sequence[tuple]]
    hints: tuple[str, ...]
    mistakes: tuple[Slip, ...] = ()
    also: Callable[[Answer], None] | None = None
    check: Callable[[Answer], None] | None = None
    panel: Callable[[Any, Answer], None] | None = None
    picture: str = ""
    tolerance: float = 1e-6

    def verify(self, answer: Answer) -> None:
        """Raise Wrong unless the answer is right; NotImplementedError if it is untouched."""
        if self.check is not None:
            self.check(answer)
        else:
            compare(answer, self.right, self.cases(), self.mistakes, self.tolerance)
        if self.also is not None:
            self.also(answer)


def compare(
    answer: Answer,
    right: Answer,
    cases: Sequence[tuple],
    mistakes: Sequence[Slip],
    tolerance: float = 1e-6,
) -> None:
    """Raise Wrong unless the answer equals ``right`` on all cases.

    A wrong answer that equals one of the known mistakes on all cases gets that mistake's message.
    """
    expected = [right(*copy.deepcopy(case)) for case in cases]
    found = []
    for case in cases:
        arguments = copy.deepcopy(case)
        found.append(answer(*arguments))
        if any(
            isinstance(given, Tensor) and not torch.equal(given, used)
            for given, used in zip(case, arguments, strict=True)
        ):
            raise Wrong("The function changed one of its inputs in place; work on a copy.")
    if all(_same(f, e, tolerance) for f, e in zip(found, expected, strict=True)):
        return
    if any(f is None for f in found):
        raise Wrong("The function returned nothing: end it with return.")
    for mistake in mistakes:
        slips = [mistake.fn(*copy.deepcopy(case)) for case in cases]
        if all(_same(f, s, tolerance) for f, s in zip(found, slips, strict=True)):
            raise Wrong(mistake.message)
    for number, (f, e) in enumerate(zip(found, expected, strict=True), 1):
        if not _same(f, e, tolerance):
            raise Wrong(f"On example {number} of {len(cases)}: {_difference(f, e)}")


def _numbers(value: Any) -> Tensor | None:
    """Numbers as a float64 tensor; None for what is not a number or an array of them."""
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _plain(value: Any) -> Any:
    """Truth values of torch and NumPy as Python's."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and str(dtype).endswith("bool") and not getattr(value, "shape", ()):
        return bool(value)
    return value


def _parts(value: Any) -> list[Any] | None:
    """The items of a tuple or a dict that are compared one by one."""
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in (str(key), value[key])]
    return list(value) if isinstance(value, tuple | list) else None


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    found, expected = _plain(found), _plain(expected)
    f, e = _numbers(found), _numbers(expected)
    if f is not None and e is not None:
        if f.shape != e.shape or not bool(torch.isfinite(f).all()):
            return False
        scale = float(e.abs().max()) if e.numel() else 0.0
        return bool((f - e).abs().max() <= tolerance * scale + 1e-12) if e.numel() else True
    if (f is None) != (e is None):
        return False
    left, right = _parts(found), _parts(expected)
    if left is None or right is None:
        return left is right and type(found) is type(expected) and found == expected
    return len(left) == len(right) and all(
        _same(a, b, tolerance) for a, b in zip(left, right, strict=True)
    )


def _difference(found: Any, expected: Any) -> str:
    f, e = _numbers(found), _numbers(expected)
    if f is not None and e is not None:
        if f.shape != e.shape:
            return f"expected shape {list(e.shape)}, got {list(f.shape)}."
        if not bool(torch.isfinite(f).all()):
            return "the result holds NaN or infinity."
        off = float((f - e).abs().max())
        if off < 1e-3 * float(e.abs().max()):
            return f"right to a few digits, off by {off:.1g}: use float64 and do not round."
    return f"expected {short(expected)}, got {short(found)}."


def short(value: Any) -> str:
    """A value as a message can carry it."""
    numbers = _numbers(value)
    if numbers is None:
        parts = _parts(value)
        if isinstance(value, tuple) and parts is not None:
            return "(" + ", ".join(short(part) for part in parts) + ")"
        text = repr(value)
        return text if len(text) <= 80 else text[:79] + "…"
    flat = numbers.flatten().tolist()
    text = ", ".join(f"{x:.4g}" for x in flat[:6]) + (", …" if len(flat) > 6 else "")
    return text if numbers.ndim == 0 else f"[{text}]"


def draw_panels(exercise: Exercise, answer: Answer) -> tuple[Any, str]:
    """The target beside the learner's own, as a matplotlib figure, and its description."""
    from matplotlib.figure import Figure

    panel = exercise.panel
    if panel is None:
        raise ValueError(f"exercise {exercise.key} has no picture")
    figure = Figure(figsize=(7.2, 3.0), dpi=90, layout="constrained")
    target, yours = figure.subplots(1, 2)
    panel(target, exercise.right)
    target.set_title("target", fontsize=10)
    yours.set_title("yours", fontsize=10)
    try:
        panel(yours, answer)
        said = "drawn the same way from your function"
    except NotImplementedError:
        said = NOT_YET
    except Exception as error:  # a half-written function may raise anything
        said = f"your function raised {type(error).__name__}: {error}"
    if said.startswith(("your", NOT_YET)):
        yours.clear()
        yours.set_title("yours", fontsize=10)
        yours.set_axis_off()
        yours.text(0.5, 0.5, said, ha="center", va="center", wrap=True, transform=yours.transAxes)
    else:
        # The target's limits, widened where a wrong answer lies outside.
        for axis in ("x", "y"):
            ends = [getattr(ax, f"get_{axis}lim")() for ax in (target, yours)]
            if ends[0][0] < ends[0][1]:
                low, high = min(low for low, _ in ends), max(high for _, high in ends)
                getattr(yours, f"set_{axis}lim")(low, high)
    return figure, f"Left, the target: {exercise.picture}. Right, yours: {said}."


def network(seed: int, samples: int = 12, width: int = 4) -> Callable[[Tensor], Tensor]:
    """A smooth loss of 3 * width + 1 parameters: a small tanh network on random data."""
    x, y = random_vectors(seed, (samples, 2), samples)

    def loss(theta: Tensor) -> Tensor:
        w = theta[: 2 * width].view(2, width)
        last = theta[2 * width : 3 * width]
        out = torch.tanh(x.to(theta.dtype) @ w) @ last + theta[3 * width]
        return 0.5 * (out - y.to(theta.dtype)).square().mean()

    return loss


def random_vectors(seed: int, *shapes: int | tuple[int, ...]) -> list[Tensor]:
    """Standard normal float64 tensors of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(shape,) if isinstance(shape, int) else shape for shape in shapes]
    return [torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes]


def same_number(a: float, b: float, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree relative to the second."""
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)
