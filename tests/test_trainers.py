"""Plans made from the real trainers of TRL and transformers, and trained in by them."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import replace

import pytest
import tiny
import torch

import lietoolkit as lt

pytest.importorskip("trl")

from datasets import Dataset, concatenate_datasets
from transformers import (
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from lietoolkit.tasks.generated import preference_families, sft_families
from lietoolkit.tasks.models import load_model
from lietoolkit.trainers import OrderCallback, follow_plan
from lietoolkit.training.from_trainer import live_state
from lietoolkit.training.optimizers import Clipped
from lietoolkit.training.schedules import step_sizes
from lietoolkit.training.stages import run_stage

# The trainers themselves warn of what their next versions will change.
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = {"sft": ("addition", "sort", "copy"), "dpo": ("right_sum", "right_case", "right_order")}
CHEAP = {"planner": "tournament", "chunks": 1, "geometry": False, "forgetting": False}


def rows(kind: str, split: str = "train", n: int = 8) -> dict[str, Dataset]:
    made = (sft_families if kind == "sft" else preference_families)(seed=0, rows=n, split=split)
    return {name: Dataset.from_list(made[name]) for name in NAMES[kind]}


def trainer(kind, folder, model=None, sources=None, trainer_class=None, peft=None, **changed):
    """The trainer as its own examples set it up, on the CPU and in float32."""
    sources = sources or rows(kind)
    settings = {
        "output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "learning_rate": 1e-3, "num_train_epochs": 1,
        "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
    } | changed  # fmt: skip
    config, default = (SFTConfig, SFTTrainer) if kind == "sft" else (DPOConfig, DPOTrainer)
    more = {} if kind == "sft" or peft else {"ref_model": model or tiny.model()}
    return (trainer_class or default)(
        tiny.model() if model is None else load_model(model)[0],
        args=config(**settings),
        train_dataset=concatenate_datasets(list(sources.values())),
        processing_class=tiny.tokenizer() if model is None else load_model(model)[1],
        peft_config=peft,
        **(more if model is None else {}),
    )


def planned(made, kind, **changed):
    sources, target = rows(kind), next(iter(rows(kind, "eval", 4).values()))
    return lt.plan_order(trainer=made, sources=sources, target=target, **(CHEAP | changed))


def repeated(plan, order=None):
    """The final loss of the same run by the package itself."""
    made = plan.material
    (target,) = made.targets.values()
    return lt.run_schedules(
        made.sources, target, made.theta, [order or plan.order], plan.lr, plan.steps,
        made.optimizer, schedule=plan.schedule, warmup=plan.warmup,
    ).item()  # fmt: skip


# --- the trainer's run is the package's -----------------------------------------------------------


@pytest.mark.parametrize(
    "kind, optim, model",
    [
        ("sft", "adamw_torch", None),
        ("dpo", "sgd", None),
        *[
            pytest.param(kind, optim, "course", marks=pytest.mark.slow)
            for kind in ("sft", "dpo")
            for optim in ("sgd", "adamw_torch")
        ],
    ],
)
def test_training_in_order_ends_where_run_schedules_ends(tmp_path, kind, optim, model):
    """All is TRL's default but bf16: linear decay, clipping at norm 1, gradient checkpointing."""
    lr = 1e-2 if optim == "sgd" and model is None else 1e-3
    made = trainer(kind, tmp_path, model, optim=optim, learning_rate=lr)
    plan = planned(made, kind, batches=2)
    assert isinstance(plan.material.optimizer, Clipped) and plan.schedule == "linear"
    expected = repeated(plan)
    follow_plan(made, plan)
    made.train()
    target = next(iter(rows(kind, "eval", 4).values()))
    measured = made.evaluate(target)
    assert measured["eval_loss"] == pytest.approx(expected, abs=1e-4)
    # The order is what is compared, and training did something.
    before = float(next(iter(plan.material.targets.values())).loss(plan.material.theta))
    assert abs(expected - before) > 1e-4
    if optim == "adamw_torch":
        assert abs(repeated(plan, plan.order[::-1]) - expected) > 1e-3


@pytest.mark.slow
def test_adapters_are_planned_and_trained_alone(tmp_path):
    from peft import LoraConfig

    peft = LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.0, task_type="CAUSAL_LM", init_lora_weights=False
    )
    made = trainer("sft", tmp_path, peft=peft, optim="adamw_torch", learning_rate=1e-2)
    plan = planned(made, "sft", batches=2)
    assert plan.parameters["count"] == sum(
        p.numel() for p in made.model.parameters() if p.requires_grad
    )
    assert not any("B matrices" in note for note in plan.notes)
    expected = repeated(plan)
    follow_plan(made, plan)
    made.train()
    target = next(iter(rows("sft", "eval", 4).values()))
    assert made.evaluate(target)["eval_loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_fresh_adapters_are_said_to_be_scored_in_part(tmp_path):
    from peft import LoraConfig

    made = trainer("sft", tmp_path, peft=LoraConfig(r=2, task_type="CAUSAL_LM"))
    assert any("B matrices are zero" in note for note in planned(made, "sft").notes)


@pytest.mark.slow
def test_the_reference_of_adapters_is_the_model_without_them(tmp_path):
    from peft import LoraConfig

    peft = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
    made = trainer("dpo", tmp_path, peft=peft)
    (target,) = planned(made, "dpo").material.targets.values()
    loss = float(target.loss(target.space.vector()))
    aim = next(iter(rows("dpo", "eval", 4).values()))
    assert loss == pytest.approx(made.evaluate(aim)["eval_loss"], abs=1e-5)
    assert abs(loss - 0.6931) > 1e-4, "the adapters do something, or nothing is compared"


@pytest.mark.slow
def test_a_plain_trainer_is_read_too(tmp_path):
    tokenizer = tiny.tokenizer()
    texts = {
        "a": ["the cat sat"] * 3 + ["on the mat"],
        "b": ["2 plus 3 is 5"] * 4,
        "t": ["Paris"] * 2,
    }
    data = {
        name: Dataset.from_list([dict(tokenizer(text)) for text in lines])
        for name, lines in texts.items()
    }
    made = Trainer(
        tiny.model(),
        TrainingArguments(
            str(tmp_path), report_to="none", use_cpu=True, per_device_train_batch_size=2,
            optim="sgd", learning_rate=0.1, num_train_epochs=1, save_strategy="no",
            disable_tqdm=True, max_grad_norm=0.0,
        ),
        DataCollatorForLanguageModeling(tokenizer, mlm=False),
        train_dataset=data["a"],
    )  # fmt: skip
    sources = {name: data[name] for name in ("a", "b")}
    plan = lt.plan_order(trainer=made, sources=sources, target=data["t"], batches=2, **CHEAP)
    assert plan.material.optimizer == lt.SGD()
    expected = repeated(plan)
    follow_plan(made, plan)
    made.train()
    assert made.evaluate(data["t"])["eval_loss"] == pytest.approx(expected, abs=1e-4)


class Doubled(SFTTrainer):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


def test_a_loss_of_the_users_own_is_the_one_planned_with(tmp_path):
    plain = planned(trainer("sft", tmp_path), "sft")
    made = trainer("sft", tmp_path, trainer_class=Doubled)
    own = planned(made, "sft")
    assert own.targets["target"]["loss"] == pytest.approx(2 * plain.targets["target"]["loss"])
    assert any("trainer's own function" in note for note in own.notes)
    assert not any(made._metrics["eval"].values()), "planning is not counted in the trainer's logs"


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"loss_type": ["ipo"]}, {"label_smoothing": 0.1}])
def test_other_kinds_of_dpo_are_the_trainers_own_loss(tmp_path, changed):
    made = trainer("dpo", tmp_path, **changed)
    plan = planned(made, "dpo")
    aim = next(iter(rows("dpo", "eval", 4).values()))
    assert plan.targets["target"]["loss"] == pytest.approx(
        made.evaluate(aim)["eval_loss"], abs=1e-5
    )
    assert plan.material.data.loss.name == "trainer"


# --- what is read off a trainer -------------------------------------------------------------------


def test_planning_leaves_the_model_and_its_mode_alone(tmp_path):
    made = trainer("sft", tmp_path)
    made.model.train()
    before = {name: p.clone() for name, p in made.model.state_dict().items()}
    planned(made, "sft")
    assert all(torch.equal(p, before[name]) for name, p in made.model.state_dict().items())
    assert all(module.training for module in made.model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed, optimizer",
    [
        ({"optim": "sgd"}, lt.SGD()),
        ({"optim": "sgd", "optim_args": "momentum = 0.8"}, lt.Momentum(0.8)),
        ({"adam_beta2": 0.95}, lt.AdamW(beta2=0.95, weight_decay=0.0)),
    ],
)
def test_the_optimizer_is_the_trainers(tmp_path, changed, optimizer):
    plan = planned(trainer("sft", tmp_path, max_grad_norm=0.0, **changed), "sft")
    assert plan.material.optimizer == optimizer
    plan = planned(trainer("sft", tmp_path, max_grad_norm=0.5, **changed), "sft")
    assert plan.material.optimizer == Clipped(optimizer, 0.5)


@pytest.mark.parametrize("prepared", [False, True])
def test_an_optimizer_object_is_read_too(tmp_path, prepared):
    made = trainer("sft", tmp_path, max_grad_norm=0.0)
    made.optimizer = torch.optim.SGD(made.model.parameters(), lr=0.03, momentum=0.7)
    if prepared:  # as training leaves it behind
        made.train()
    else:
        made.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(made.optimizer, factor=1.0)
    plan = planned(made, "sft")
    assert plan.material.optimizer == lt.Momentum(0.7) and plan.lr == 0.03
    said = "the trainer's own schedule object was planned as 'linear'"
    assert (said in plan.notes) == (not prepared)


@pytest.mark.parametrize(
    "changed, own, optimizer, note",
    [
        ({"optim": "sgd", "weight_decay": 0.1}, None, lt.SGD(), "SGD's weight decay of 0.1 is not"),
        ({}, (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}), lt.Momentum(),
         "nesterov of the trainer's optimizer is not in the plan"),
        ({}, (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5}), lt.Momentum(0.5), None),
        ({"optim": "adafactor"}, None, lt.AdamW(weight_decay=0.0), "Adafactor was planned as"),
    ],
)  # fmt: skip
def test_what_the_optimizer_does_beyond_the_plan_is_said(tmp_path, changed, own, optimizer, note):
    made = trainer("sft", tmp_path, max_grad_norm=0.0, **changed)
    made.optimizer_cls_and_kwargs = own
    plan = planned(made, "sft")
    assert plan.material.optimizer == optimizer and plan.lr == (own[1]["lr"] if own else 1e-3)
    said = [text for text in plan.notes if "optimizer" in text or "decay" in text]
    assert len(said) == (note is not None) and all(note in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, schedule, warmup",
    [("linear", "linear", 2), ("cosine", "cosine", 2), ("constant", "constant", 0),
     ("constant_with_warmup", "constant", 2), ("polynomial", "linear", 2)],
)  # fmt: skip
def test_step_sizes_are_the_trainers(tmp_path, kind, schedule, warmup):
    made = trainer("sft", tmp_path, lr_scheduler_type=kind, warmup_steps=2)
    plan = planned(made, "sft")
    assert (plan.schedule, plan.warmup, plan.lr) == (schedule, warmup, 1e-3)
    assert any("'polynomial'" in note for note in plan.notes) == (kind == "polynomial")
    if kind != "polynomial":
        follow_plan(made, plan)
        made.train()
        theirs = [row["learning_rate"] for row in made.state.log_history if "learning_rate" in row]
        assert theirs == pytest.approx(step_sizes(1e-3, 6, schedule, warmup))


def test_stages_follow_epochs_or_share_max_steps(tmp_path):
    plan = planned(trainer("sft", tmp_path, num_train_epochs=1.5), "sft")
    assert [last - first for _, first, last in plan.stages] == [3, 3, 3]
    plan = planned(trainer("sft", tmp_path, max_steps=7), "sft")
    assert sorted(last - first for _, first, last in plan.stages) == [2, 2, 3]
    assert plan.stages[-1][2] == 7
    # Planned with these very lengths.
    assert (plan.steps, sorted(plan.steps_of.values())) == (3, [2, 2])
    with pytest.raises(lt.InputError, match=r"max_steps: expected at least one step for each of 3"):
        planned(trainer("sft", tmp_path, max_steps=2), "sft")


def test_a_source_in_two_parts(tmp_path):
    made = trainer("sft", tmp_path, optim="sgd", learning_rate=1e-2)
    plan = planned(made, "sft", split=["sort"])
    lengths = {name: last - first for name, first, last in plan.stages}
    assert lengths == {"addition": 2, "sort/1": 1, "sort/2": 1, "copy": 2}
    # In one batch each, so that planning reads all that is trained on.
    plan = planned(made, "sft", split=NAMES["sft"])
    expected = repeated(plan)
    callback = follow_plan(made, plan)
    made.train()
    assert callback.order == plan.order
    assert callback.losses[-1] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - callback.losses[0]) > 1e-4
    # Steps that sources share evenly are shared as if the two parts were one.
    plan = planned(trainer("sft", tmp_path, max_steps=7), "sft", split=["sort"])
    lengths = {name: last - first for name, first, last in plan.stages}
    assert lengths == {"addition": 2, "sort/1": 1, "sort/2": 1, "copy": 3}
    with pytest.raises(lt.InputError, match="split: expected at least two steps of 'sort'"):
        planned(trainer("sft", tmp_path, max_steps=3), "sft", split=["sort"])


@pytest.mark.slow
def test_accumulated_batches_are_one_step(tmp_path):
    made = trainer(
        "sft", tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        optim="adamw_torch",
    )  # fmt: skip
    plan = planned(made, "sft", batches=2)
    assert plan.steps == 2 and plan.material.data.batch_rows == 4
    expected = repeated(plan)
    follow_plan(made, plan)
    made.train()
    assert made.state.global_step == 6
    target = next(iter(rows("sft", "eval", 4).values()))
    assert made.evaluate(target)["eval_loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_short_source_begins_again_to_fill_its_last_step(tmp_path):
    sources = rows("sft")
    sources["sort"] = sources["sort"].select(range(6))
    made = trainer("sft", tmp_path, sources=sources)
    target = next(iter(rows("sft", "eval", 4).values()))
    plan = lt.plan_order(trainer=made, sources=sources, target=target, **CHEAP)
    assert "sort: its last step is filled up with 2 of its first rows" in plan.notes
    (block,) = [list(g) for name, g in itertools.groupby(plan.dataset(), lambda r: r["source"])
                if name == "sort"]  # fmt: skip
    assert len(block) == 8 and block[6:] == block[:2]


# --- data in order --------------------------------------------------------------------------------


class Seen:
    """A collator that keeps what the trainer asks for."""

    def __init__(self, collator):
        self.collator, self.rows = collator, []

    def __call__(self, examples):
        self.rows += [example["input_ids"] for example in examples]
        return self.collator(examples)


def test_the_dataset_holds_the_sources_in_order_and_is_read_in_order(tmp_path):
    made = trainer("sft", tmp_path)
    plan = planned(made, "sft")
    plan = replace(plan, order=plan.order[::-1])
    data = plan.dataset()
    assert [name for name, _ in itertools.groupby(data["source"])] == plan.order
    assert plan.stages == [(name, 2 * i, 2 * i + 2) for i, name in enumerate(plan.order)]
    follow_plan(made, plan)
    made.data_collator = Seen(made.data_collator)
    made.train()
    assert made.data_collator.rows == data["input_ids"]
    # Rows of a source are shuffled once, and all of them are there.
    first = [row for row in data if row["source"] == "sort"]
    whole = made._prepare_dataset(
        rows("sft")["sort"], made.processing_class, made.args, False, None, "x"
    )
    assert sorted(row["input_ids"] for row in first) == sorted(whole["input_ids"])
    assert [row["input_ids"] for row in first] != whole["input_ids"]


# --- the callback ---------------------------------------------------------------------------------


def test_the_plan_and_what_came_of_it_are_logged(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = trainer("sft", tmp_path, report_to="tensorboard")
    plan = planned(made, "sft")
    callback = follow_plan(made, plan)
    made.train()
    log = made.state.log_history
    assert {
        row["order/place/" + plan.order[0]] for row in log if "order/expected_effect" in row
    } == {1}
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    changes = [row for row in log if "order/stage" in row]
    assert [row["step"] for row in changes] == [2, 4, 6]
    total = sum(row[f"order/change/{name}"] for row, name in zip(changes, plan.order, strict=True))
    assert total == pytest.approx(changes[-1]["order/realised_change"], abs=1e-12)
    target = next(iter(rows("sft", "eval", 4).values()))
    assert changes[-1]["order/target_loss"] == pytest.approx(
        made.evaluate(target)["eval_loss"], abs=1e-5
    )
    assert callback.losses[-1] == changes[-1]["order/target_loss"]
    # The trainer's own losses are logged at every step all the same.
    assert [row["step"] for row in log if "grad_norm" in row] == [1, 2, 3, 4, 5, 6]
    board = EventAccumulator(str(events)).Reload()
    logged = [event.value for event in board.Scalars("train/order/target_loss")]
    assert logged == pytest.approx(callback.losses, abs=1e-6)


@pytest.mark.slow
def test_live_optimizer_state_is_that_of_the_same_run(tmp_path):
    for optim in ("adamw_torch", "sgd"):
        more = {"optim_args": "momentum=0.9"} if optim == "sgd" else {}
        made = trainer("sft", tmp_path, optim=optim, **more)
        plan = planned(made, "sft", batches=2)
        material = plan.material
        state = material.optimizer.init(material.theta)
        sizes = step_sizes(plan.lr, 6, plan.schedule)
        for place, name in enumerate(plan.order):
            own = sizes[2 * place : 2 * place + 2]
            state = run_stage(material.sources[name], state, material.optimizer, own)
        follow_plan(made, plan)
        made.train()
        space = next(iter(material.sources.values())).space
        live = live_state(space, made.optimizer, material.optimizer)
        assert torch.allclose(live.theta, state.theta, atol=1e-5)
        assert len(live.buffers) == len(state.buffers)
        for ours, theirs in zip(state.buffers, live.buffers, strict=True):
            assert (ours - theirs).norm() < 1e-3 * ours.norm()
        assert live.step in (state.step, 0)  # torch's SGD counts no steps


@pytest.mark.parametrize(
    "make", [torch.optim.Adamax, lambda p: torch.optim.RMSprop(p, momentum=0.9)]
)
def test_buffers_of_another_optimizer_are_not_taken_for_adamws(make):
    model = torch.nn.Linear(2, 1)
    optimizer = make(model.parameters())
    model(torch.ones(2)).backward()
    optimizer.step()
    live = live_state(lt.ParameterSpace(model), optimizer, lt.AdamW())
    assert live.step == 0 and [float(b.norm()) for b in live.buffers] == [0.0, 0.0]


class Stop(TrainerCallback):
    """Ends training after a step, as a kill would, with its checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **given):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def reversed_plan(made):
    """A plan turned round, so that planning again has something to change."""
    plan = planned(made, "sft")
    return replace(plan, order=plan.order[::-1])


@pytest.mark.parametrize("replan", ["stage", pytest.param(1, marks=pytest.mark.slow)])
def test_planning_again_moves_what_has_not_begun(tmp_path, replan):
    made = trainer("sft", tmp_path)
    plan = reversed_plan(made)
    callback = follow_plan(made, plan, replan=replan)
    made.data_collator = Seen(made.data_collator)
    made.train()
    (again,) = [r for r in callback.replans if r["from"] != r["to"]]
    assert again["step"] == 1 and set(again["from"]) == set(plan.order[1:])
    assert callback.order == [plan.order[0], *again["to"]] != plan.order
    assert made.data_collator.rows == replace(plan, order=callback.order).dataset()["input_ids"]
    assert sum(row.get("order/replanned", 0) for row in made.state.log_history) == 1


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What planning again asks of ``plan_order``, by name."""
    calls = []

    def spy(*args, **more):
        calls.append(inspect.signature(lt.plan_order).bind(*args, **more).arguments)
        return lt.plan_order(*args, **more)

    monkeypatch.setattr("lietoolkit.trainers.callback.plan_order", spy)
    return calls


@pytest.mark.parametrize(
    "kind", ["cosine", pytest.param("constant_with_warmup", marks=pytest.mark.slow)]
)
def test_planning_again_knows_the_steps_that_are_left(tmp_path, asked, kind):
    made = trainer("sft", tmp_path, lr_scheduler_type=kind, warmup_steps=4, max_steps=7)
    plan = planned(made, "sft")
    follow_plan(made, plan, replan="stage", planner="search")
    made.train()
    theirs = [row["learning_rate"] for row in made.state.log_history if "learning_rate" in row]
    (given,) = asked
    first = plan.stages[1][1]
    assert list(given["sources"]) == plan.order[1:] and len(theirs) == 7
    assert given["steps_of"] == {name: last - first for name, first, last in plan.stages[1:]}
    sizes = [given["lr"] * share for share in given["optimizer"].rest]
    assert sizes == pytest.approx(theirs[first:])
    assert given["optimizer"].state.step == first - 1


def test_planning_again_takes_a_loss_of_the_users_own_as_the_plan_does(tmp_path, asked):
    made = trainer("sft", tmp_path, trainer_class=Doubled)
    follow_plan(made, planned(made, "sft"), replan="stage")
    made.train()
    assert asked[0]["hvp"] == "finite-difference"


@pytest.mark.slow
def test_planning_again_is_off_unless_asked_for(tmp_path):
    made = trainer("sft", tmp_path)
    plan = reversed_plan(made)
    callback = follow_plan(made, plan)
    made.train()
    assert callback.order == plan.order and not callback.replans


@pytest.mark.slow
def test_planning_again_keeps_constraints(tmp_path):
    made = trainer("sft", tmp_path)
    free = planned(made, "sft")
    turned = free.order[::-1]
    plan = replace(free, order=turned, constraints=[f"{turned[1]} before {turned[2]}"])
    callback = follow_plan(made, plan, replan="stage")
    made.train()
    assert callback.replans and callback.order == turned


@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_a_changed_order_survives_checkpoint_and_resume(tmp_path, restore):
    def run(folder, stop=None, resume=False):
        made = trainer(
            "sft", folder, optim="adamw_torch", save_strategy="steps", save_steps=2,
            restore_callback_states_from_checkpoint=restore,
        )  # fmt: skip
        callback = follow_plan(made, reversed_plan(made), replan="stage")
        if stop:
            made.add_callback(Stop(stop))
        made.train(resume_from_checkpoint=resume)
        if restore and resume:
            (callback,) = [
                c for c in made.callback_handler.callbacks if isinstance(c, OrderCallback)
            ]
        rows = [row for row in made.state.log_history if any("order/" in key for key in row)]
        return made.model.state_dict(), callback, rows

    expected, calm, calm_log = run(tmp_path / "calm")
    run(tmp_path / "cut", stop=3)
    found, callback, logged = run(tmp_path / "cut", resume=True)
    assert callback.order == calm.order and callback.replans == calm.replans
    assert callback.losses == calm.losses
    assert logged == calm_log
    assert all(torch.equal(p, expected[name]) for name, p in found.items())


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_planned_is_refused(tmp_path):
    made, sources = trainer("sft", tmp_path), rows("sft")
    target = sources["copy"]
    for changed, message in (
        ({"trainer": object()}, "trainer: expected an SFTTrainer"),
        ({"lr": 0.1}, "lr: expected to come from the trainer"),
        ({"steps": 3}, "steps: expected to come from the trainer"),
        ({"model": tiny.model()}, "model: expected to come from the trainer"),
        ({"sources": {"a": target}}, "sources: expected at least two"),
        ({"sources": {"a": target, "b": 3}}, "source 'b': expected a file"),
    ):
        with pytest.raises(lt.InputError, match=message):
            lt.plan_order(**({"trainer": made, "sources": sources, "target": target} | changed))
    with pytest.raises(lt.InputError, match="model: expected a name or a model"):
        lt.plan_order(sources=sources, target=target)
    long = {"prompt": "sort " * 400, "completion": "x"}
    with pytest.raises(
        lt.InputError, match="source 'b': expected at least one row that the trainer"
    ):
        short = trainer("sft", tmp_path, max_length=200)
        lt.plan_order(trainer=short, sources={"a": target, "b": [long]}, target=target)


def test_what_cannot_be_followed_is_refused(tmp_path):
    made = trainer("sft", tmp_path)
    plan = planned(made, "sft")
    with pytest.raises(lt.InputError, match="plan: expected one made from this trainer"):
        follow_plan(trainer("sft", tmp_path), plan)
    for replan in ("often", 0, True):
        with pytest.raises(lt.InputError, match="replan: expected"):
            follow_plan(made, plan, replan=replan)
    with pytest.raises(lt.InputError, match="planner: expected one of auto, tournament"):
        follow_plan(made, plan, replan="stage", planner="often")
    with pytest.raises(lt.InputError, match="budget: expected training runs"):
        follow_plan(made, plan, replan="stage", planner="auto", budget=0)
    uneven = trainer("sft", tmp_path, max_steps=7)
    with pytest.raises(lt.InputError, match="planner: expected another than 'from-end'"):
        follow_plan(uneven, planned(uneven, "sft"), replan="stage", planner="from-end")
    made.args.dataloader_num_workers = 1
    with pytest.raises(lt.InputError, match="dataloader_num_workers=0"):
        follow_plan(made, plan, replan="stage")
    with pytest.raises(lt.InputError, match="plan: expected one made from a trainer"):
        replace(plan, material=None).dataset()
