"""Time and memory of a plan on paper, for models and machines that are not at hand.

Nothing is measured here. The number of gradients is counted, what they take beyond the count was
measured once (``OVERHEAD``), and everything else is an assumption that :func:`format_estimate`
prints beside the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from lietoolkit.doctor import plan_memory
from lietoolkit.errors import InputError

PARAMETERS = (7e9, 70e9)
SOURCES = (8, 16, 32, 64)
GPUS = (1, 2, 4, 8, 16, 32, 64)

# A tournament of 8 sources took 21.1 times a plain gradient where 17 are counted: course model,
# finite differences, benchmarks/results/hvp-course.json.
OVERHEAD = 1.24
# An exact product keeps so many times the activations of a gradient.
EXACT_ACTIVATIONS = 2.7
# Rank 16 in every linear layer of a 7 B model is about 0.6 %, in attention alone about 0.1 %.
ADAPTERS = 0.005
_LETTERS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Assumptions:
    """What an estimate takes for granted; every field is an option of the command line.

    Attributes:
        tokens: T, read of each source and of the target.
        microbatch: tokens that one GPU holds at once.
        flops: F, of one GPU in the number type used; default: H100, float32 outside tensor cores.
        utilisation: u, the share of F that is reached.
        bandwidth: B, bytes a second in and out of each GPU between nodes; default: 400 Gbit/s.
        node_bandwidth: B inside a node; default: NVLink of an H100.
        node: GPUs of a node.
        gpu_memory: bytes of one GPU.
        bytes_per_parameter: b, of weights, gradients and activations.
        exact: exact Hessian-vector products, 3 gradients a source instead of 2.
        trainable: p, parameters that are planned over (adapters, some layers); None: all.
        overhead: time per counted gradient beyond a plain one.
        vocabulary: rows of the output layer.
    """

    tokens: float = 65_536
    microbatch: float = 256
    flops: float = 67e12
    utilisation: float = 0.5
    bandwidth: float = 50e9
    node_bandwidth: float = 450e9
    node: int = 8
    gpu_memory: float = 80e9
    bytes_per_parameter: float = 4
    exact: bool = False
    trainable: float | None = None
    overhead: float = OVERHEAD
    vocabulary: int = 128_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "exact" and not 0 < value < math.inf:
                raise InputError(f"{field.name}: expected a number above 0, found {value!r}")
        if self.utilisation > 1:
            raise InputError(f"utilisation: expected at most 1, found {self.utilisation!r}")


@dataclass(frozen=True)
class Estimate:
    """One plan on one machine.

    Attributes:
        parameters, sources, gpus: the question.
        shards: GPUs that hold one copy of the model together; the sources are split over
            ``gpus / shards`` such groups.
        gradients: gradient equivalents of the whole plan.
        memory: bytes on the fullest GPU, by kind.
        seconds: by kind: computing, sharding traffic, exchange of vectors; their sum is an upper
            bound, since nothing is taken to overlap.
        fits: whether the memory fits into one GPU's.
    """

    parameters: float
    sources: int
    gpus: int
    shards: int
    gradients: float
    memory: dict[str, float]
    seconds: dict[str, float]
    fits: bool

    @property
    def total_memory(self) -> float:
        """Bytes on the fullest GPU."""
        return sum(self.memory.values())

    @property
    def total_seconds(self) -> float:
        """Wall time."""
        return sum(self.seconds.values())


def model_shape(parameters: float) -> dict[str, int]:
    r"""Layers and widths of a Llama-like model with so many parameters.

    From :math:`P = 12\,L\,d^2` (attention :math:`4 d^2`, gated feed-forward
    :math:`3 \cdot d \cdot \tfrac{8}{3} d` a layer) and :math:`L = d / 128`, so
    :math:`d = (32 P / 3)^{1/3}`.

    >>> model_shape(7e9)
    {'layers': 33, 'hidden': 4211, 'intermediate': 11229}
    """
    hidden = (32 * parameters / 3) ** (1 / 3)
    return {
        "layers": max(1, round(hidden / 128)),
        "hidden": max(1, round(hidden)),
        "intermediate": max(1, round(8 * hidden / 3)),
    }


def gradient_equivalents(sources: int, exact: bool = False) -> int:
    r"""Gradients that a local tournament of N sources for one target costs: :math:`2N + 1`.

    One gradient of the target; of each source a gradient and a Hessian-vector product, which by
    central finite difference are two gradients together, exactly three.

    >>> gradient_equivalents(8), gradient_equivalents(8, exact=True)
    (17, 25)
    """
    return (3 if exact else 2) * sources + 1


def memory_per_gpu(
    parameters: float, sources: int, shards: int, assume: Assumptions
) -> dict[str, float]:
    r"""Bytes on each of the S GPUs that share one copy of the model and plan these sources.

    :func:`lietoolkit.doctor.plan_memory` over S, where b is bytes per parameter, P the model's
    parameters and p those planned over: weights :math:`bP/S`; five working vectors
    :math:`5bp/S`; two vectors a source in float16 :math:`4Np/S`. The activations of a microbatch
    are not shared. With S > 1, two layers are gathered at a time, :math:`2bP/L`.
    """
    shape = model_shape(parameters)
    planned = assume.trainable or parameters
    parts = plan_memory(
        round(planned),
        **shape,
        vocabulary=assume.vocabulary,
        sources=sources,
        rows=1,
        tokens=round(assume.microbatch),
        bytes_per_parameter=assume.bytes_per_parameter,
    )
    whole = assume.bytes_per_parameter * parameters
    return {
        "model": whole / shards,
        "vectors": parts["vectors"] / shards,
        "sources": parts["sources"] / shards,
        "activations": parts["activations"] * (EXACT_ACTIVATIONS if assume.exact else 1),
        "gathered layers": 2 * whole / shape["layers"] if shards > 1 else 0.0,
    }


def estimate(
    parameters: float, sources: int, gpus: int = 1, assume: Assumptions | None = None
) -> Estimate:
    r"""Time and memory of a local tournament for one target.

    The model is cut over S GPUs, that divisor of G which is fastest of those that fit; the
    :math:`G / S` groups share the sources, :math:`n = \lceil N S / G \rceil` each, and each needs
    the target's gradient. With E gradient equivalents a group (:func:`gradient_equivalents` of n):

    - computing: :math:`\omega E \cdot 6 P T / (S F u)`, six operations a parameter and token;
    - sharding: weights gathered forward and backward and gradients of p parameters scattered,
      :math:`E m \cdot b (2 P + p) (1 - 1/S) / B`, for :math:`m = \lceil T / (S t) \rceil`
      microbatches of t tokens on each GPU; B inside a node where S fits into one;
    - exchange: every GPU gives the other groups their slice of its stored vectors,
      :math:`4 n p (1 - S/G) / (S B)`, so that each sums its own part of all inner products.

    Args:
        parameters: P. sources: N. gpus: G.
        assume: everything else; default: ``Assumptions()``.

    Raises:
        InputError: a number that is not positive, or more planned parameters than there are.

    >>> one = estimate(7e9, sources=8, gpus=8)
    >>> one.shards, one.gradients, round(one.total_memory / 1e9), round(one.total_seconds / 60)
    (8, 17, 54, 5)
    """
    assume = assume or Assumptions()
    for name, value in (("parameters", parameters), ("sources", sources), ("gpus", gpus)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}: expected a number above 0, found {value!r}")
    if assume.trainable and assume.trainable > parameters:
        raise InputError(
            f"trainable: expected at most the {parameters:g} parameters of the model, "
            f"found {assume.trainable:g}"
        )
    cuts = [_cut(parameters, sources, gpus, s, assume) for s in range(1, gpus + 1) if gpus % s == 0]
    # Where none fits, the last: cut over all GPUs, it comes closest.
    return min((c for c in cuts if c.fits), key=lambda c: c.total_seconds, default=cuts[-1])


def _cut(parameters: float, sources: int, gpus: int, shards: int, assume: Assumptions) -> Estimate:
    own = math.ceil(sources * shards / gpus)
    memory = memory_per_gpu(parameters, own, shards, assume)
    each = gradient_equivalents(own, assume.exact)
    operations = 6 * parameters * assume.tokens / (shards * assume.flops * assume.utilisation)
    passes = math.ceil(assume.tokens / (shards * assume.microbatch))
    planned = assume.trainable or parameters
    traffic = assume.bytes_per_parameter * (2 * parameters + planned) * (1 - 1 / shards)
    slices = 4 * own * planned * (1 - shards / gpus) / shards
    seconds = {
        "computing": assume.overhead * each * operations,
        "sharding": each * passes * traffic / _bandwidth(shards, assume),
        "exchange": slices / _bandwidth(gpus, assume),
    }
    total = gradient_equivalents(sources, assume.exact)
    fits = sum(memory.values()) <= assume.gpu_memory
    return Estimate(parameters, sources, gpus, shards, total, memory, seconds, fits)


def _bandwidth(gpus: int, assume: Assumptions) -> float:
    return assume.node_bandwidth if gpus <= assume.node else assume.bandwidth


def format_estimate(
    parameters: Iterable[float] = PARAMETERS,
    sources: Sequence[int] = SOURCES,
    gpus: Sequence[int] = GPUS,
    assume: Assumptions | None = None,
) -> str:
    """A table for each model, a row for each plan and machine, and every assumption."""
    assume = assume or Assumptions()
    lines = ["On paper: a local tournament of all sources for one target"]
    head = f"  {'sources':>7} {'GPUs':>6} {'GPUs a copy':>12} {'memory a GPU':>14} {'time':>14}"
    for count in parameters:
        lines += ["", f"{_count(count)} parameters", head]
        for n in sources:
            for g in gpus:
                one = estimate(count, n, g, assume)
                size = _bytes(one.total_memory)
                time = _time(one.total_seconds) if one.fits else "does not fit"
                lines.append(f"  {n:>7} {g:>6} {one.shards:>12} {size:>14} {time:>14}")
        lines.append(f"  Fewest GPUs that fit: {_fewest(count, sources, assume)}")
        if assume.trainable is None:
            small = replace(assume, trainable=ADAPTERS * count)
            lines.append(
                f"  ... planned over adapters of {ADAPTERS:.1%} of the parameters (--trainable "
                f"{_count(ADAPTERS * count, '')}): {_fewest(count, sources, small)}"
            )
    return "\n".join([*lines, "", "Assumed", *(f"  {line}" for line in _assumed(assume))])


def fewest_gpus(parameters: float, sources: int, assume: Assumptions | None = None) -> int | None:
    """The smallest power of two of GPUs on which a plan fits; None: on no number of them.

    >>> fewest_gpus(7e9, sources=8)
    8
    """
    for gpus in (2**k for k in range(15)):
        if estimate(parameters, sources, gpus, assume).fits:
            return gpus
    return None


def _fewest(parameters: float, sources: Sequence[int], assume: Assumptions) -> str:
    found = {n: fewest_gpus(parameters, n, assume) for n in sources}
    return ", ".join(f"{g or 'none'} for {n} sources" for n, g in found.items())


def _assumed(a: Assumptions) -> list[str]:
    method = "exact products: 3" if a.exact else "finite differences: 2"
    lines = [
        f"{a.tokens:,.0f} tokens of each source and of the target, "
        f"{a.microbatch:,.0f} at once on a GPU",
        f"{method} gradients a source and 1 for the target, times {a.overhead:g} (measured on "
        "the course model)",
        f"6 operations a parameter and token; {a.flops / 1e12:g} TFLOP/s a GPU, of which "
        f"{a.utilisation:.0%} is reached",
        f"{a.bytes_per_parameter:g} bytes a parameter for weights, vectors and activations; two "
        "float16 vectors kept for each source",
        f"activations of a Llama-like model with {a.vocabulary:,} words, nothing recomputed",
        "weights, working vectors, kept vectors and rows cut evenly over the GPUs of a copy, the "
        f"sources split over the copies; the fastest cut that fits into {_bytes(a.gpu_memory)}",
        f"{_bytes(a.node_bandwidth)}/s in and out of a GPU in a node of {a.node}, "
        f"{_bytes(a.bandwidth)}/s between nodes; nothing overlaps, no time lost to waiting",
    ]
    lines.append("plan --shard cuts one copy over all GPUs; without it each GPU holds a whole one")
    if a.trainable:
        lines.append(f"planned over {_count(a.trainable)} of the parameters; the rest is frozen")
    if a.bytes_per_parameter < 4 and not a.exact:
        lines.append("CAREFUL: finite differences lose signs below 4 bytes; use --exact")
    lines.append("one plan; orders trained for real (--verify) and rehearsals come on top")
    return lines


def read_count(text: str) -> float:
    """A number with an optional K, M, B or T behind it.

    Raises:
        InputError: it is none.

    >>> read_count("7B"), read_count("1.5e9")
    (7000000000.0, 1500000000.0)
    """
    scale = _LETTERS.get(text[-1:].upper())
    try:
        return float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        raise InputError(f"expected a number such as 7B, 350M or 1e9, found {text!r}") from None


def _count(value: float, space: str = " ") -> str:
    for letter, scale in reversed(_LETTERS.items()):
        if value >= scale:
            return f"{value / scale:.3g}{space}{letter}"
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    return f"{value / 1e12:.1f} TB" if value >= 1e12 else f"{value / 1e9:.3g} GB"


def _time(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
