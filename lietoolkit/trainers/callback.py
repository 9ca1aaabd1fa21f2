"""A trainer that follows a plan: its data in order, what is logged, and planning again."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from lietoolkit.errors import InputError
from lietoolkit.order.constraints import parse_constraints
from lietoolkit.order.effort import PLANNERS, choose_effort
from lietoolkit.planning import OrderPlan, plan_order
from lietoolkit.tasks.losses import in_eval_mode
from lietoolkit.trainers.sampler import StageSampler
from lietoolkit.training.from_trainer import TrainerRun, live_state
from lietoolkit.training.optimizers import Resumed
from lietoolkit.training.schedules import step_sizes

# Asked to, trainers make a callback anew from its saved state alone when they restore a checkpoint;
# it finds its plan by the model. Weak on both sides: the trainer's sampler keeps the first one.
_followed: weakref.WeakKeyDictionary[nn.Module, weakref.ref[OrderCallback]]
_followed = weakref.WeakKeyDictionary()


def follow_plan(
    trainer: Any,
    plan: OrderPlan,
    *,
    replan: str | int = "never",
    planner: str = "tournament",
    budget: float = 4.0,
) -> OrderCallback:
    """Let a trainer train in planned order, and log what was expected and what came.

    The trainer's data become ``plan.dataset()``, read from first to last, in one pass: the plan's
    stages hold the passes that ``num_train_epochs`` asked for. Everything else stays as it was.

    Args:
        trainer: the one the plan was made from.
        plan: of ``plan_order(trainer=...)``.
        replan: "never"; "stage": order the remaining sources anew, from the model and optimizer as
            they are, before each stage ends; or a number: every so many steps.
        planner, budget: of planning again, as in ``plan_order``.

    Returns:
        The callback that was added to the trainer; ``callback.order`` is the order in force.

    Raises:
        InputError: the plan is of another trainer; planning again with loader processes, on
            several devices, or by a planner that cannot.
    """
    data, _ = plan.trainer_material()
    if data.trainer is not trainer:
        raise InputError(
            "plan: expected one made from this trainer, found one of another; "
            "call plan_order(trainer=trainer, ...)"
        )
    callback = OrderCallback(plan, replan=replan, planner=planner, budget=budget)
    trainer.train_dataset = plan.dataset()
    trainer.args.num_train_epochs = 1
    # The sampler of every version; newer ones also have a setting for it, which nothing else reads.
    trainer._get_train_sampler = lambda dataset=None: callback.sampler
    if hasattr(trainer.args, "train_sampling_strategy"):
        trainer.args.train_sampling_strategy = "sequential"
    trainer.remove_callback(OrderCallback)
    trainer.add_callback(callback)
    return callback


class OrderCallback(TrainerCallback, ExportableState):
    """Logs a plan beside what came of it, and plans the remaining sources again if asked to.

    Logged through the trainer: ``order/place/NAME`` of each source and the effect that is expected
    of the whole order against its reverse, at the beginning; after every stage the target's loss
    and what the stage changed in it, in nats; at each new plan, the effect expected of it, and
    whether it changed the order. The order in force is kept with checkpoints.

    Args:
        plan, replan, planner, budget: see ``follow_plan``, which makes and adds it.
    """

    def __init__(
        self,
        plan: OrderPlan | None = None,
        *,
        replan: str | int = "never",
        planner: str = "tournament",
        budget: float = 4.0,
    ):
        self.replan, self.planner, self.budget = replan, planner, budget
        # Of the target, before the first stage and after each.
        self.losses: list[float] = []
        self.replans: list[dict[str, Any]] = []
        self.order: list[str] = []
        if plan is not None:
            self._bind(plan)

    def _bind(self, plan: OrderPlan) -> None:
        data, run = plan.trainer_material()
        if type(self.replan) is not int and self.replan not in ("never", "stage"):
            raise InputError(
                f"replan: expected 'never', 'stage' or a number of steps, found {self.replan!r}"
            )
        if type(self.replan) is int and self.replan < 1:
            raise InputError(f"replan: expected at least 1 step, found {self.replan}")
        self._check_planner(plan, run)
        args = data.trainer.args
        if self.replan != "never" and (args.dataloader_num_workers or args.world_size > 1):
            raise InputError(
                "replan: expected dataloader_num_workers=0 and one device, so that no batch of a "
                "later stage is read early; change the trainer's arguments or replan='never'"
            )
        self.plan, self.data, self.run = plan, data, run
        self.order = list(plan.order)
        blocks = {
            name: range(first * data.batch_rows, last * data.batch_rows)
            for name, first, last in plan.stages
        }
        self.sampler = StageSampler(blocks, self.order)
        _followed[data.trainer.model] = weakref.ref(self)

    def _check_planner(self, plan: OrderPlan, run: TrainerRun) -> None:
        """Refuse now what planning again would refuse in the middle of training."""
        if self.planner not in PLANNERS:
            raise InputError(
                f"planner: expected one of {', '.join(PLANNERS)}; found {self.planner!r}"
            )
        choose_effort(len(plan.order), plan.steps, plan.optimizer, self.budget, self.planner)
        if self.planner == "from-end" and len(set(run.lengths.values())) > 1:
            raise InputError(
                "planner: expected another than 'from-end', whose stages are equally long, found "
                "stages of different lengths; use planner='search'"
            )

    # --- what the trainer calls -----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain data."""
        arguments = {"replan": self.replan, "planner": self.planner, "budget": self.budget}
        kept = {
            "order": list(self.order),
            "losses": list(self.losses),
            "replans": list(self.replans),
        }
        return {"args": arguments, "attributes": kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Take up the order of a checkpoint; or begin, and log the plan."""
        if not hasattr(self, "plan"):
            first = _followed[given["model"]]()
            assert first is not None
            for name in ("plan", "data", "run", "sampler"):
                setattr(self, name, getattr(first, name))
        if state.global_step:
            kept = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes")
            if kept is None:
                raise InputError(
                    "checkpoint: expected one written while following a plan, found another; "
                    "train from the beginning"
                )
            self.losses, self.replans = list(kept["losses"]), list(kept["replans"])
            self._take(kept["order"])
            return
        self._take(self.plan.order)
        self.losses, self.replans = [], []
        places = {f"order/place/{name}": i + 1 for i, name in enumerate(self.order)}
        self._log_loss("", places | {"order/expected_effect": _expected(self.plan)})

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """At the end of a stage, log it; where asked, plan the sources that are left again."""
        step, ends = state.global_step, self._ends()
        if step in ends:
            self._log_loss(ends[step], {"order/stage": list(ends.values()).index(ends[step]) + 1})
        # The loader holds the first batch of the next step already: a stage that begins with it
        # has begun, so the last chance to move one is a step before it.
        asked = step + 1 in ends if self.replan == "stage" else self._every(step)
        if asked:
            left = [name for name, at in zip(self.order, self._starts(), strict=True) if at > step]
            if len(left) > 1:
                self._plan_again(left, step, given["optimizer"])

    # --- its parts ------------------------------------------------------------------------------

    def _starts(self) -> list[int]:
        starts, at = [], 0
        for name in self.order:
            starts.append(at)
            at += self.run.lengths[name]
        return starts

    def _ends(self) -> dict[int, str]:
        """Step after the last of each stage, and its source."""
        starts = zip(self.order, self._starts(), strict=True)
        return {at + self.run.lengths[name]: name for name, at in starts}

    def _space(self) -> Any:
        """Of the parameters that are planned with; all objectives share it."""
        return next(iter(_material(self.plan).sources.values())).space

    def _every(self, step: int) -> bool:
        return isinstance(self.replan, int) and step % self.replan == 0

    def _take(self, order: list[str]) -> None:
        # In place: the sampler reads the same list.
        self.sampler.order[:] = order
        self.order = self.sampler.order

    def _log_loss(self, stage: str, values: dict[str, float]) -> None:
        targets = _material(self.plan).targets
        trainer = self.data.trainer
        with in_eval_mode(trainer.model), torch.random.fork_rng(devices=[]):
            here = self._space().vector()
            losses = {name: float(aim.loss(here)) for name, aim in targets.items()}
            total = sum(self.plan.targets[name]["weight"] * loss for name, loss in losses.items())
            values["order/target_loss"] = total
            if self.losses:
                values[f"order/change/{stage}"] = total - self.losses[-1]
                values["order/realised_change"] = total - self.losses[0]
            self.losses.append(total)
            self._log(values)

    def _log(self, values: dict[str, float]) -> None:
        # Logging clears the trainer's wish to log its own losses at this step.
        trainer = self.data.trainer
        wish = trainer.control.should_log
        trainer.log(values)
        trainer.control.should_log = wish

    def _plan_again(self, left: list[str], step: int, optimizer: Any) -> None:
        made, trainer = _material(self.plan), self.data.trainer
        lengths = {name: self.run.lengths[name] for name in left}
        total = sum(self.run.lengths.values())
        sizes = step_sizes(self.plan.lr, total, self.plan.schedule, self.plan.warmup)
        rest = sizes[-sum(lengths.values()) :]
        lr = max(rest)
        live = live_state(self._space(), optimizer, made.optimizer)
        resumed = Resumed(made.optimizer, live, tuple(size / lr for size in rest))
        # As in the first plan: a loss of the user's own need not be differentiable twice.
        hvp = "finite-difference" if self.data.loss.name == "trainer" else "auto"
        with in_eval_mode(trainer.model), torch.random.fork_rng(devices=[]):
            new = plan_order(
                trainer.model, {name: made.sources[name] for name in left}, made.targets,
                self.plan.objective, lr, max(lengths.values()), resumed, self.planner,
                budget=self.budget, steps_of=lengths, constraints=_among(self.plan, left),
                weights={name: aim["weight"] for name, aim in self.plan.targets.items()},
                parameters=self.plan.parameters["pattern"], hvp=hvp,
                forgetting=False, geometry=False, seed=self.plan.seed,
            )  # fmt: skip
            changed = new.order != left
            self._log({"order/replanned": int(changed), "order/expected_rest": _expected(new)})
        self.replans.append(
            {"step": step, "from": left, "to": new.order, "cost": new.cost["total"]}
        )
        self._take([name for name in self.order if name not in left] + new.order)


def _material(plan: OrderPlan) -> Any:
    assert plan.material is not None  # a plan without it is refused when the callback is made
    return plan.material


def _expected(plan: OrderPlan) -> float:
    """Predicted effect of the order against its reverse, over weighted targets."""
    return sum(aim["weight"] * aim["plan_vs_reverse"] for aim in plan.targets.values())


def _among(plan: OrderPlan, left: list[str]) -> list[str]:
    """The constraints between sources that are left."""
    pairs = parse_constraints(plan.constraints, plan.names)
    named = [(plan.names[i], plan.names[j]) for i, j in sorted(pairs)]
    return [f"{a} before {b}" for a, b in named if a in left and b in left]
