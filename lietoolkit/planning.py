"""From a model and data to a plan: the one call behind the command line and the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lietoolkit.environment import hardware, versions
from lietoolkit.errors import InputError, memory_errors
from lietoolkit.geometry import ranks
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.objective import Objective, WeightedSum, no_exact
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.order.baselines import baseline_orders
from lietoolkit.order.constraints import parse_constraints
from lietoolkit.order.effort import abstain, batches_beside, choose_effort
from lietoolkit.order.plane import gradient_plane
from lietoolkit.order.recommend import chance_against_reverse, neighbors, recommend
from lietoolkit.order.stepsize import StepSize, step_size
from lietoolkit.order.tournament import Tournament, tournament
from lietoolkit.order_plan import Material, OrderPlan
from lietoolkit.plan_arguments import (
    check_settings,
    leave_to_the_trainer,
    losses_of,
    two_or_more,
    weights_of,
)
from lietoolkit.tasks.building import Builder, differentiable_attention, overlaps, resolve_model
from lietoolkit.tasks.losses import in_eval_mode
from lietoolkit.tasks.parts import in_parts, steps_in_parts
from lietoolkit.training.from_trainer import read_objectives
from lietoolkit.training.optimizers import Optimizer, optimizer_from
from lietoolkit.training.schedules import steps_by_source

# Without a curvature rule for adaptive optimizers, what practitioners start from.
DEFAULT_ADAMW_LR = 1e-4


@ranks.together()
def plan_order(
    model: str | nn.Module | None = None,
    sources: Mapping[str, Any] | None = None,
    target: Any = None,
    objective: str = "sft",
    lr: float | None = None,
    steps: int = 20,
    optimizer: str | Optimizer = "adamw",
    planner: str = "auto",
    *,
    trainer: Any = None,
    budget: float = 4.0,
    method: str = "local",
    tokenizer: Any = None,
    weights: Mapping[str, float] | None = None,
    objective_of: Mapping[str, str] | None = None,
    steps_of: Mapping[str, int] | None = None,
    split: Sequence[str] = (),
    constraints: Sequence[str] = (),
    schedule: str = "constant",
    warmup: int = 0,
    batch_size: int = 8,
    batches: int = 1,
    max_length: int | None = None,
    microbatch: int | None = None,
    parameters: str | Sequence[str] | None = None,
    reference: nn.Module | None = None,
    hvp: str = "auto",
    chunks: int = 4,
    resamples: int = 200,
    forgetting: bool = True,
    geometry: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    shard: bool = False,
    seed: int = 0,
    trust_remote_code: bool = False,
    folder: str | Path | None = None,
    progress: bool = False,
) -> OrderPlan:
    r"""Recommend an order to train several sources in, before any training.

    With ``trainer=`` the model, tokens, collator, loss, optimizer, step sizes, batch size and steps
    of each stage are those of an ``SFTTrainer``, ``DPOTrainer`` or ``transformers.Trainer``; give
    sources, target and how to plan. ``lietoolkit.trainers.follow_plan`` then trains in that order.

    Args:
        model: a name ("course", "smollm2-135m", a folder, a hub name), or a causal language model
            (then give its tokenizer too, unless all data are batches).
        sources: name -> data: a file (JSONL, CSV, Parquet), a folder of text files, a data set
            name, rows, a ``datasets.Dataset``, ready batches, or an ``Objective``.
        target: data, as above, whose loss should end low; or several as {name: data}.
        objective: "lm", "sft" or "dpo"; of every source and target that ``objective_of`` does not
            name.
        lr: step size; default: the rule lr * lambda_max = 0.1 (AdamW: 1e-4).
        steps: steps per source.
        optimizer: "sgd", "momentum", "adamw" or a configuration.
        planner: "tournament" (pair effects), "search" (orders rehearsed, and the next one chosen
            by those before), "from-end" (rehearsed backward induction), or "auto": what measured
            best for these settings within the budget; the sources' own order ("given" in the
            plan) where they cannot be told apart.
        trainer: takes the place of model and of everything that says how it is trained.
        budget: training runs that trying orders may cost; the tournament comes on top (of few
            batches where more would be dear), and one more order where the reverse of the best was
            not among those tried.
        method: "local", "trotter" or "stage" (many steps, any optimizer), see ``tournament``.
        tokenizer: of a model given as an object.
        weights: of several targets.
        objective_of: the loss of single sources or targets, to plan stages of several kinds.
        steps_of: steps of single sources, where their stages are longer or shorter; with the
            planners "tournament" (not ``method="stage"``) and "search".
        split: sources whose rows and steps are given in two halves, "NAME/1" and "NAME/2", with
            others between them where that is better.
        constraints: "a before b", "a first", "a last"; obeyed exactly.
        schedule, warmup: of the step size over the whole run.
        batch_size, batches: rows in a batch, and batches read of each source and target.
        max_length: context in tokens.
        microbatch: rows per forward pass, to save memory; results are the same.
        parameters: patterns of parameter names to differentiate by; default all trainable ones.
        reference: frozen reference model of DPO; default the model as it is.
        hvp: "auto", "exact" or "finite-difference".
        chunks, resamples: of the bootstrap behind ``confidence``; chunks=1: none.
        forgetting: predict what the order does to each source's own loss.
        geometry: evaluate the target on the plane of the strongest pair's gradients.
        device: "auto", "cpu" or "cuda".
        dtype: "float32", "float64", or "auto": float64 for a named model of at most 10 million
            parameters on the CPU, where it costs little and no effect drowns in rounding.
        shard: hold a named model in pieces, one in each process (FSDP2), where it does not fit
            into one; a model given as an object may be sharded already, with ``fully_shard``.
        seed: of the rows drawn and the bootstrap.
        trust_remote_code: allow a model to bring its own code.
        folder: where orders tried by a search are kept; the same call continues from there.
        progress: show progress bars.

    Raises:
        InputError: anything that cannot be planned; says what and what to do.

    The model is left exactly as it was.

    Where ``torch.distributed`` is initialised, its processes share the work and each returns the
    same plan; all must make the call. With a sharded model all work on every batch together.
    """
    start = time.perf_counter()
    if model is None and trainer is None:
        raise InputError("model: expected a name or a model (or trainer=), found None; give one")
    sources, data, run = two_or_more(sources), None, None
    notes: list[str] = []
    if trainer is not None:
        leave_to_the_trainer(
            model=model, objective=objective, lr=lr, steps=steps, optimizer=optimizer,
            tokenizer=tokenizer, schedule=schedule, warmup=warmup, batch_size=batch_size,
            max_length=max_length, microbatch=microbatch, reference=reference,
            device=device, dtype=dtype, objective_of=objective_of, steps_of=steps_of, shard=shard,
        )  # fmt: skip
    if split:
        sources, objective_of = in_parts(sources, split, objective, objective_of)
        if trainer is None:
            steps_of = steps_in_parts(split, steps, steps_of)
    if trainer is not None:
        data, run, sources, target = read_objectives(
            trainer, sources, target, batches, parameters, split
        )
        model, objective, lr, steps = trainer.model, data.objective, run.lr, run.steps
        optimizer, schedule, warmup = run.optimizer, run.schedule, run.warmup
        if len(set(run.lengths.values())) > 1:
            if planner == "from-end" or method == "stage":
                notes.append(
                    f"stages have {min(run.lengths.values())} to {max(run.lengths.values())} "
                    f"steps; planned as if each had {steps}"
                )
            else:
                steps_of = run.lengths
        hvp = "finite-difference" if hvp == "auto" and data.loss.name == "trainer" else hvp
        notes += [*data.notes, *run.notes]
    assert model is not None
    check_settings(objective, lr, steps, planner, method, hvp, schedule, warmup)
    optimizer = optimizer_from(optimizer)
    parse_constraints(constraints, list(sources))
    targets = dict(target) if isinstance(target, Mapping) else {"target": target}
    losses = losses_of({**sources, **targets}, objective, objective_of)
    lengths = steps_by_source(sources, steps, steps_of)
    steps = max(lengths.values())  # the longest stage is what shorter ones are a share of
    steps_of = {name: own for name, own in lengths.items() if own != steps}
    if steps_of and (planner == "from-end" or method == "stage"):
        raise InputError(
            "steps_of: expected none with planner='from-end' or method='stage', whose stages are "
            "equally long; use planner='search'"
        )
    weights = weights_of(weights, targets)
    network, tokenizer, label = resolve_model(
        model, tokenizer, device, dtype, trust_remote_code, notes, shard
    )
    quiet = nullcontext() if trainer is None else in_eval_mode(network)
    with memory_errors(), quiet, differentiable_attention(network, notes):
        space = ParameterSpace(network, parameters)
        if space.shards is not None and hvp == "exact":
            raise no_exact()
        build = Builder(
            space,
            tokenizer,
            objective,
            batch_size,
            batches,
            max_length,
            microbatch,
            reference,
            seed,
        )
        made = {name: build(data, name, losses[name]) for name, data in sources.items()}
        aims = {name: build(data, name, losses[name]) for name, data in targets.items()}
        notes += overlaps(made, aims) + build.notes
        theta = space.vector(share=isinstance(model, str))
        ranks.check_same(
            "plan_order",
            lambda: {
                "model": f"of {space.count} parameters, length {float(space.norm(theta)):.12g}",
                "data": [made[name].fingerprint() for name in made],
                "target": [aims[name].fingerprint() for name in aims],
                "settings": (lr, steps, repr(optimizer), planner, budget, schedule, warmup),
            },
        )
        with metered() as cost:
            rule = _step_size(made, theta, lr, optimizer, hvp, progress)
            stiffest = max(rule.lambda_max.values(), default=0.0)
            # Who names a method wants its tournament.
            asked = "tournament" if planner == "auto" and method != "local" else planner
            most = max(source.batches for source in made.values())
            effort = choose_effort(
                len(made), steps, optimizer.name, budget, asked,
                batches=most, rows=min(source.batch_rows for source in made.values()),
            )  # fmt: skip
            counts = {most}
            if asked != "tournament" and optimizer.name != "sgd":
                whole = [aim.batches for aim in aims.values()]
                counts.add(batches_beside(len(made), whole, sum(lengths.values()), most, budget))
            # Sources that a few batches cannot tell apart are read whole.
            for read in sorted(counts):
                t = tournament(
                    {name: source.shortened(read) for name, source in made.items()}, aims,
                    theta, rule.lr, steps, method, optimizer,
                    weights=weights, constraints=constraints, schedule=schedule, warmup=warmup,
                    hvp=hvp, chunks=chunks, seed=seed, steps_of=steps_of, progress=progress,
                )  # fmt: skip
                kept = abstain(t, seed) if asked == "auto" else None
                if kept is None:
                    break
            effort = kept or effort
            if read < most:
                notes.append(
                    f"pair effects are from {read} of {most} batches of each source: a larger "
                    "budget reads more"
                )
            chosen = recommend(
                effort, t, made, aims, weights, theta, optimizer,
                lambda_max=stiffest, schedule=schedule, warmup=warmup,
                hvp=hvp, forgetting=forgetting, folder=folder, progress=progress,
            )  # fmt: skip
            plane = _plane(t, made, aims, weights, theta, progress) if geometry else None
    before = sum(weights[name] * loss for name, loss in t.target_losses.items())
    notes += [note for note in (rule.note, chosen.worse_than(before)) if note]
    return OrderPlan(
        order=chosen.order,
        names=t.names,
        scores=t.scores,
        matrix=t.matrix.tolist(),
        targets={
            name: {
                "weight": weights[name],
                "matrix": t.targets[name].tolist(),
                "loss": t.target_losses[name],
                "plan_vs_reverse": chosen.plan_vs_reverse[name],
            }
            for name in aims
        },
        forgetting=chosen.forgetting,
        constraints=list(constraints),
        confidence=neighbors(t, chosen, resamples, seed, stiffest),
        better_than_reverse=chance_against_reverse(
            t, chosen, sum(weights[n] * chosen.plan_vs_reverse[n] for n in aims), stiffest
        ),
        baselines=baseline_orders(t.gradients, constraints),
        geometry=plane,
        lr=rule.lr,
        lr_rule={
            "lambda_max": rule.lambda_max,
            "eta_lambda_max": rule.eta_lambda_max,
            "note": rule.note,
        },
        steps=steps,
        method=method,
        planner=chosen.effort.planner,
        effort={"tries": chosen.tries, "why": chosen.effort.why},
        rounds=chosen.rounds,
        expected=chosen.expected,
        optimizer=optimizer.name,
        schedule=schedule,
        warmup=warmup,
        objective=objective,
        objective_of={name: losses[name] for name in objective_of or {}},
        steps_of=t.steps_of,
        model=label,
        parameters={"count": space.count, "pattern": parameters},
        device=str(space.device),
        dtype=str(space.dtype).removeprefix("torch."),
        seed=seed,
        sources=build.reports if data is None else data.reports,
        notes=notes,
        cost={**cost.to_dict(), "training_runs": cost.total / sum(lengths.values())},
        seconds=time.perf_counter() - start,
        versions=versions(),
        hardware=hardware(space.device),
        material=Material(made, aims, theta, optimizer, chosen.searched, data, run),
    )


def recall_plan(
    plan: OrderPlan,
    trainer: Any,
    sources: Mapping[str, Any],
    target: Any,
    batches: int = 1,
    split: Sequence[str] = (),
) -> OrderPlan:
    """A plan read from a file, with its trainer and data again, as ``plan_order`` returned it.

    Args:
        plan: of ``read_plan``.
        trainer, sources, target, batches, split: what it was made from.

    Raises:
        InputError: the sources are not the plan's.
    """
    sources, _ = in_parts(sources, split)
    if sorted(sources) != sorted(plan.names):
        raise InputError(
            f"sources: expected those of the plan, {', '.join(plan.names)}; "
            f"found {', '.join(sources)}"
        )
    patterns = plan.parameters["pattern"]
    data, run, made, aims = read_objectives(trainer, sources, target, batches, patterns, split)
    theta = ParameterSpace(trainer.model, patterns).vector()
    return replace(plan, material=Material(made, aims, theta, run.optimizer, None, data, run))


def _step_size(
    sources: Mapping[str, Objective],
    theta: Tensor,
    lr: float | None,
    optimizer: Optimizer,
    hvp: str,
    progress: bool,
) -> StepSize:
    if optimizer.name == "adamw":
        return StepSize(lr or DEFAULT_ADAMW_LR, {})
    return step_size(sources, theta, lr, hvp=hvp, progress=progress)


def _plane(
    t: Tournament,
    sources: Mapping[str, Objective],
    targets: Mapping[str, Objective],
    weights: Mapping[str, float],
    theta: Tensor,
    progress: bool,
) -> dict[str, Any]:
    strongest = int(t.matrix.abs().argmax())
    i, j = sorted(divmod(strongest, len(t.names)))
    a, b = t.names[i], t.names[j]
    if t.matrix[i, j] > 0:
        a, b = b, a
    target = WeightedSum(targets, weights)
    return gradient_plane(
        (a, b), sources[a], sources[b], target, theta, t.lr, progress=progress
    ).to_dict()
