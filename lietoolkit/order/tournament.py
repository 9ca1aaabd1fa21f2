"""Tournament of sources: every pair's predicted order effect for one gradient and product each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.geometry.cost import Cost, metered
from lietoolkit.geometry.objective import NotFinite, Objective, in_step
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.storage import Keeper, Stored, stored_gram
from lietoolkit.order.confidence import Part, Resampler
from lietoolkit.order.constraints import parse_constraints
from lietoolkit.order.linear_ordering import borda_order, exact_order, search_order
from lietoolkit.order.shares import in_turn, settle
from lietoolkit.order.stage import stage_effects
from lietoolkit.training.optimizers import Optimizer, optimizer_from
from lietoolkit.training.schedules import check_run, step_sizes, steps_by_source

METHODS = ("local", "trotter", "stage")
RANKINGS = {"borda": borda_order, "exact": exact_order, "search": search_order}


@dataclass(frozen=True)
class Tournament:
    r"""Predicted effects of every pair, and the orders that follow.

    Attributes:
        names: the sources, in the order given.
        matrix: [N, N] float64, antisymmetric: :math:`L_E(i \to j) - L_E(j \to i)` in loss units
            (nats); negative: train i first. For several targets, the weighted sum.
        targets: the matrix of each target alone.
        gradients: baselines' material: per source gradient norm, and cosine with the target.
        resampler: bootstrap of the sources' batches; None unless asked for.
        cost: gradient equivalents spent.
        lr: step size. steps: steps per stage. method, optimizer: of the prediction.
        constraints: what every order obeys.
        steps_of: steps of stages that are longer or shorter.
    """

    names: list[str]
    matrix: Tensor
    targets: dict[str, Tensor]
    target_losses: dict[str, float]
    gradients: dict[str, dict[str, float]]
    cost: Cost
    lr: float
    steps: int
    method: str
    optimizer: str
    constraints: tuple[str, ...] = ()
    steps_of: dict[str, int] = field(default_factory=dict)
    resampler: Resampler | None = field(default=None, repr=False)

    @property
    def scores(self) -> dict[str, float]:
        """Borda score of each source, its row sum, in loss units; the smallest goes first."""
        return dict(zip(self.names, self.matrix.sum(1).tolist(), strict=True))

    @property
    def sigma(self) -> Tensor:
        r"""Order scores, [N, N] float64, in loss per squared step size: effects less
        :math:`k_i k_j \eta^2`.
        """
        return self.matrix / _squared_steps(self.names, self.lr, self.steps, self.steps_of)

    @property
    def order(self) -> list[str]:
        """The Borda order, trained-first first."""
        return self.best_order()

    def best_order(self, method: str = "borda") -> list[str]:
        """The recommended order: "borda", "exact" (at most 14 sources) or "search" (any number)."""
        if method not in RANKINGS:
            raise InputError(f"method: expected one of {', '.join(RANKINGS)}; found {method!r}")
        before = parse_constraints(self.constraints, self.names)
        return [self.names[i] for i in RANKINGS[method](self.matrix.numpy(), before)]


@ranks.together()
@in_step
def tournament(
    sources: Mapping[str, Objective],
    target: Objective | Mapping[str, Objective],
    theta: Tensor,
    lr: float,
    steps: int = 1,
    method: str = "local",
    optimizer: str | Optimizer = "sgd",
    *,
    weights: Mapping[str, float] | None = None,
    constraints: Sequence[str] = (),
    schedule: str = "constant",
    warmup: int = 0,
    hvp: str = "auto",
    chunks: int = 1,
    seed: int = 0,
    steps_of: Mapping[str, int] | None = None,
    progress: bool = False,
) -> Tournament:
    r"""Score every pair of sources for a target, in N gradients and N Hessian-vector products.

    With :math:`v_i = H_i g_E` the local pair effect is
    :math:`k^2\eta^2 (\langle v_j, g_i\rangle - \langle v_i, g_j\rangle)`. "stage" follows k steps
    of any optimizer instead, for 2k gradients and k products a source, and of the target 2N
    gradients and N(N - 1) losses: see ``stage_effects``.

    Args:
        sources: two or more objectives by name.
        target: the loss that should end low, or several by name.
        theta: where the model is now, [P].
        lr: step size :math:`\eta`. steps: steps per stage, k.
        method: "local", or "trotter": the target's gradient is read at
            :math:`\theta - k\eta \frac{2}{N}\sum_i g_i`, for two sources the drift-matched
            reference of the paper; or "stage".
        optimizer: used by "stage"; the other two describe plain SGD whatever is trained with.
        weights: of several targets; default 1 each.
        constraints: "a before b", "a first", "a last".
        schedule, warmup: of the step size over the whole run of all sources; "stage" takes the
            first two stages of it.
        hvp: how products are made, see ``Objective.gradient_and_hvp``.
        chunks: parts each source is split into for the bootstrap; 1: no bootstrap ("stage": none).
        seed: of the bootstrap's random projection.
        steps_of: steps of single sources whose stages are longer or shorter; not with "stage".
        progress: show a progress bar over sources.

    Raises:
        InputError: fewer than two sources, bad settings, a loss or gradient that is not finite.

    Source: Sweeney 2026, tournament with Borda scores.

    >>> bowl = lambda c, k: Objective(lambda x: 0.5 * k * (x - c).square().sum())
    >>> t = tournament({"soft": bowl(1.0, 1.0), "stiff": bowl(-1.0, 4.0)}, bowl(1.0, 1.0),
    ...                torch.zeros(1, dtype=torch.float64), lr=0.1)
    >>> t.order, round(float(t.matrix[0, 1]), 6)
    (['stiff', 'soft'], 0.08)
    """
    check_run(lr, steps, schedule, warmup)
    rule = optimizer_from(optimizer)
    check_sources(sources)
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}; found {method!r}")
    lengths = steps_by_source(sources, steps, steps_of)
    if steps_of and method == "stage":
        raise InputError("steps_of: expected none with method='stage', whose stages are as long")
    parse_constraints(constraints, list(sources))
    targets = {"target": target} if isinstance(target, Objective) else dict(target)
    weights = {name: 1.0 for name in targets} | dict(weights or {})
    if set(weights) != set(targets):
        raise InputError(f"weights: expected names out of {', '.join(targets)}")
    ranks.check_same(
        "tournament",
        lambda: {
            "sources": [source.fingerprint() for source in sources.values()],
            "target": [objective.fingerprint() for objective in targets.values()],
            "settings": (lr, method, repr(rule), weights, schedule, warmup, hvp, chunks, lengths),
        },
    )
    with metered() as cost:
        at = theta
        if method == "trotter":
            at = theta - 2 * lr * _mean_field(sources, theta, lengths)
        losses, g_targets = _target_gradients(targets, theta, at)
        only = len(g_targets) == 1 and set(weights.values()) == {1.0}
        mixed = next(iter(g_targets.values())) if only else _weighted(g_targets, weights)
        count = len(sources) * (1 if method == "stage" else 1 + len(targets))
        keep = Keeper.of(theta, count)
        combined = keep(mixed, alone=True)
        if method == "stage":
            sizes = step_sizes(lr, steps * len(sources), schedule, warmup)[: 2 * steps]
            matrices = stage_effects(sources, targets, theta, rule, sizes, hvp, progress)
            g = _gradients(sources, theta, keep)
            along = stored_gram(g, [combined])[:, 0]
            resampler = None
        else:
            g, v, resampler = _vectors(
                sources, g_targets, weights, theta, keep, hvp, chunks, seed, progress
            )
            # All inner products in one pass over the gradients.
            products = stored_gram(g, [*itertools.chain(*v.values()), combined])
            squared = _squared_steps(list(sources), lr, steps, lengths)
            *blocks, along = products.split([len(g)] * len(v) + [1], dim=1)
            matrices = {
                name: squared * _effects(sources, block)
                for name, block in zip(v, blocks, strict=True)
            }
    return Tournament(
        names=list(sources),
        matrix=_weighted(matrices, weights),
        targets=matrices,
        target_losses=losses,
        gradients=_baseline_figures(sources, g, combined, along.flatten()),
        cost=cost,
        lr=lr,
        steps=steps,
        method=method,
        optimizer=rule.name,
        constraints=tuple(constraints),
        steps_of=dict(steps_of or {}),
        resampler=resampler,
    )


def check_sources(sources: Mapping[str, Objective]) -> None:
    """Raise InputError unless there are at least two sources and all are objectives."""
    if len(sources) < 2:
        raise InputError(f"sources: an order needs at least two, found {len(sources)}")
    for name, source in sources.items():
        if not isinstance(source, Objective):
            raise InputError(
                f"sources[{name!r}]: expected lt.Objective or lt.ModelObjective, "
                f"found {type(source).__name__}"
            )


def _weighted(tensors: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weights[name] * tensor for name, tensor in tensors.items()]).sum(0)


def _squared_steps(
    names: Sequence[str], lr: float, steps: int, steps_of: Mapping[str, int]
) -> Tensor:
    """k_i k_j lr^2, [N, N] float64."""
    k = torch.tensor([steps_of.get(name, steps) for name in names], dtype=torch.float64)
    return lr**2 * k.outer(k)


def _target_gradients(
    targets: Mapping[str, Objective], theta: Tensor, at: Tensor
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The loss of each target at theta, and its gradient at the reference."""
    own: dict[str, float] = {}

    def read(name: str) -> Tensor:
        value, g = targets[name].loss_and_gradient(at)
        own[name] = float(value if at is theta else targets[name].loss(theta))
        return g

    gradients = dict(zip(targets, in_turn(list(targets), read), strict=True))
    losses = {name: loss for part in ranks.gather(own) for name, loss in part.items()}
    return {name: losses[name] for name in targets}, gradients


def _mean_field(
    sources: Mapping[str, Objective], theta: Tensor, lengths: Mapping[str, int]
) -> Tensor:
    """The mean of the sources' gradients times their steps, [P]."""
    total = torch.zeros_like(theta)
    fields = in_turn(list(sources), lambda name: sources[name].gradient(theta, check=False))
    for name in sources:
        total.add_(next(fields), alpha=lengths[name])
    return total / len(sources)


def _gradients(
    sources: Mapping[str, Objective], theta: Tensor, keep: Keeper
) -> list[Stored | None]:
    """The g_i of this process's share, None for the others."""
    own: dict[str, Stored] = {}

    def read(name: str) -> None:
        own[name] = keep(sources[name].gradient(theta))

    ranks.each(list(sources), read)
    return [own.get(name) for name in sources]


def _vectors(
    sources: Mapping[str, Objective],
    g_targets: Mapping[str, Tensor],
    weights: Mapping[str, float],
    theta: Tensor,
    keep: Keeper,
    hvp: str,
    chunks: int,
    seed: int,
    progress: bool,
) -> tuple[list[Stored | None], dict[str, list[Stored | None]], Resampler | None]:
    """The g_i, the v_i of each target, None where another process has them, and the material of
    the bootstrap.
    """
    sketch = None
    if chunks > 1:
        places = next(iter(sources.values())).space.places(theta)
        sketch = Sketch(theta.numel(), device=theta.device, seed=seed, places=places)
    all_g: dict[str, Stored] = {}
    all_v: dict[str, dict[str, Stored]] = {name: {} for name in g_targets}
    parts: dict[str, list[Part]] = {}
    names = list(sources)
    bar = tqdm(total=len(ranks.mine(names)), desc="sources", disable=not progress)

    def read(own: str) -> None:
        source = sources[own]
        mixed: list[Tensor] = []
        for name, direction in g_targets.items():
            if sketch is None:
                g, v = source.gradient_and_hvp(theta, direction, hvp, check=False)
            else:
                g, v, seen = source.gradient_and_hvp_by_chunk(theta, direction, sketch, chunks, hvp)
                along = [weights[name] * v_chunk for _, _, v_chunk in seen]
                mixed = [a + b for a, b in zip(mixed, along, strict=True)] if mixed else along
            all_v[name][own] = keep(v)
            del v  # or it would lie beside the next
        all_g[own] = keep(g)
        if sketch is not None:
            parts[own] = [Part(p[0], p[1], m) for p, m in zip(seen, mixed, strict=True)]
        bar.update()

    with bar:
        if hvp == "auto":
            settle(sources, theta, lambda _: next(iter(g_targets.values())))
        ranks.each(names, read)
    resampler = None
    if sketch is not None:
        plain = ranks.each(names, lambda own: [part.to_cpu() for part in parts[own]])
        resampler = Resampler([[Part(*part) for part in source] for source in plain])
    return (
        [all_g.get(name) for name in names],
        {target: [own.get(name) for name in names] for target, own in all_v.items()},
        resampler,
    )


def _effects(sources: Mapping[str, Objective], products: Tensor) -> Tensor:
    """sigma_ij = <v_j, g_i> - <v_i, g_j> of all pairs from <g_i, v_j>, [N, N] on the CPU."""
    sigma = products - products.T
    for name, row in zip(sources, sigma, strict=True):
        if bool(row.isnan().all()) or not bool(torch.isfinite(row).any()):
            raise NotFinite(
                f"source {name!r}: expected a finite loss and gradient, found NaN or infinity; "
                "check its data"
            )
    return sigma


def _baseline_figures(
    sources: Mapping[str, Objective],
    g: Sequence[Stored | None],
    target: Stored,
    along: Tensor,
) -> dict[str, dict[str, float]]:
    norms = torch.tensor(
        ranks.each(list(g), lambda u: float(u.norm()) if u is not None else 0.0),
        dtype=torch.float64,
    )
    cosines = along / (norms * target.norm().cpu()).clamp(min=1e-300)
    return {
        "gradient norm": dict(zip(sources, norms.tolist(), strict=True)),
        "cosine": dict(zip(sources, cosines.tolist(), strict=True)),
    }
