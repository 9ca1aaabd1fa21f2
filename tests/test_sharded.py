"""A model sharded with FSDP2: the numbers of one process, which has all of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from processes import together
from test_ranks import ROWS, close, command, plan_arguments
from torch import nn

import lietoolkit as lt
from lietoolkit.geometry import ranks
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.storage import Stored, stored_gram
from lietoolkit.order.plane import gradient_plane
from lietoolkit.order.schedule_bracket import order_against_reverse
from lietoolkit.training.optimizers import Clipped

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.skipif(
        not hasattr(getattr(fsdp, "FSDPModule", None), "reset_iter_state"),
        reason="torch too old to go on after an error",
    ),
]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(6, 10), nn.Linear(10, 6), nn.LayerNorm(6)
        self.broken = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.broken:
            raise ZeroDivisionError("in the middle of a forward pass")
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """Rows that no number of processes divides, tied embeddings, and a single number."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embed, self.blocks = nn.Embedding(13, 6), nn.ModuleList([Block(), Block()])
            self.head = nn.Linear(6, 13, bias=False)
            self.scale = nn.Parameter(torch.tensor([0.7]))
        self.head.weight = self.embed.weight
        self.to(dtype)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) * self.scale
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def next_token(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    ids = batch["input_ids"]
    return nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def build(dtype: torch.dtype = torch.float64, root: bool = True) -> Net:
    """The model, whole in a process alone, else sharded; ``root=False``: its blocks only."""
    model = Net(dtype)
    if dist.is_initialized():
        for block in model.blocks:
            fsdp.fully_shard(block)
        if root:
            fsdp.fully_shard(model)
    return model


def objectives(model: nn.Module, names: str = "abcd") -> dict[str, lt.ModelObjective]:
    space, made = lt.ParameterSpace(model), {}
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 13, (2, 4, 5), generator=generator)
        made[name] = lt.ModelObjective(
            model, [{"input_ids": rows} for rows in ids], next_token, space=space, name=name
        )
    return made


def one_and_many(count: int, work: Callable[[], Any], folder: Any) -> tuple[Any, list[Any]]:
    """What one process finds, and each of several."""
    found = together(count, work, folder)
    for one in found:
        assert not isinstance(one, BaseException | int), one
    return work(), found


def pieces(space: lt.ParameterSpace, vector: torch.Tensor) -> list[torch.Tensor]:
    return [view.flatten().clone() for view in space.unflatten(vector)]


def near(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_vectors_and_their_products(tmp_path, monkeypatch, count, root, dtype, tolerance) -> None:
    def work() -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
        a, b, *_ = objectives(build(dtype, root)).values()
        space, theta = a.space, a.space.vector()
        assert space.count == 375 and (space.size < 375) == dist.is_initialized()
        loss, g = a.loss_and_gradient(theta)
        v = b.gradient(theta, batch=1)
        mean, hv = a.gradient_and_hvp(theta, v, "finite-difference")
        short = Clipped(lt.SGD(), 0.1)
        with space.in_step():
            sketch = Sketch(space.size, width=64, seed=3, places=space.places(g))
            whole = [Stored.of(u, True) for u in (g, v)]
            halves = [Stored.of(u, False) for u in (g, v)]
            clipped = short.step(short.init(theta), g, 1.0).theta - theta
            projected = torch.stack([sketch(u) for u in (g, v, hv)])
            products = [
                space.gram([g, v, hv], [g, v]), projected,
                stored_gram(whole, halves), whole[0].norm(), halves[1].scale,
            ]  # fmt: skip
        assert ranks.whole()
        norms = [space.norm(clipped), space.dot(g, v), loss, a.loss(theta)]
        return [pieces(space, u) for u in (theta, g, mean, hv)], [*products, *norms]

    (vectors, figures), many = one_and_many(count, work, tmp_path)
    # The bound of a central difference: rounding over the distance.
    bounds = (0.0, tolerance, tolerance, 10 * tolerance)
    for i, (expected, bound) in enumerate(zip(vectors, bounds, strict=True)):
        joined = [torch.cat(parts) for parts in zip(*(found[0][i] for found in many), strict=True)]
        near(torch.cat(joined), torch.cat(expected), bound)
    for _, found in many:
        for one, first, expected in zip(found, many[0][1], figures, strict=True):
            near(one, expected, 10 * tolerance)
            assert torch.equal(one, first)  # or processes would go different ways


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_rows_are_dealt_out(tmp_path, count) -> None:
    def work() -> list[Any]:
        model = build(root=False)
        space, read, found = lt.ParameterSpace(model), [], []

        def loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
            read.append(len(batch["input_ids"]))
            return next_token(model, batch)

        for rows in (5, 2):
            ids = torch.randint(0, 13, (rows, 5), generator=torch.Generator().manual_seed(rows))
            source = lt.ModelObjective(model, [{"input_ids": ids}], loss, space=space, microbatch=2)
            read.clear()
            value, g = source.loss_and_gradient(space.vector())
            found.append((pieces(space, g), [value, source.loss(space.vector())], list(read)))
        return found

    expected, many = one_and_many(count, work, tmp_path)
    # Who has fewer rows, or none, takes as many passes, of weight 0.
    passes = {2: [[[2, 1], [2, 2]], [[1], [1]]], 4: [[[2], [2], [1], [1]], [[1]] * 4]}
    for at, (vectors, losses, _) in enumerate(expected):
        joined = [torch.cat(parts) for parts in zip(*(own[at][0] for own in many), strict=True)]
        near(torch.cat(joined), torch.cat(vectors), 1e-12)
        for own in many:
            near(torch.stack(own[at][1]), torch.stack(losses), 1e-12)
        assert [own[at][2][: len(own[at][2]) // 2] for own in many] == passes[count][at]


def aims(made: dict[str, lt.ModelObjective]) -> dict[str, lt.ModelObjective]:
    """Two targets in the space of the sources."""
    return {"aim": made.pop("d"), "other": made["a"]}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_tournaments_and_trained_orders(tmp_path, count) -> None:
    def work() -> list[Any]:
        made = objectives(build())
        target, space = aims(made), made["a"].space
        theta, before = space.vector(), [_local(p.detach()).clone() for p in space.tensors]
        local = lt.tournament(
            made, target, theta, 0.1, 3, chunks=2, hvp="finite-difference", weights={"other": -0.5}
        )
        orders = [list(order) for order in ("abc", "cab", "ac")]
        trained = [
            lt.run_schedules(made, target, theta, orders, 0.1, 2, rule)
            for rule in ("sgd", "adamw", Clipped(lt.Momentum(), 0.3))
        ]
        assert all(map(torch.equal, (_local(p.detach()) for p in space.tensors), before))
        products = [local.matrix, local.gradients, local.resampler.products, local.target_losses]
        return [trained, [products, local.order], lt.step_size(made, theta).lambda_max]

    expected, many = one_and_many(count, work, tmp_path)
    for found in many:
        for one, other, tolerance in zip(found, expected, (1e-12, 1e-8, 1e-6), strict=True):
            agree(one, other, tolerance)
        agree(found, many[0], 0.0)


@pytest.mark.slow
def test_all_else_that_plans(tmp_path) -> None:
    def work() -> list[Any]:
        made = objectives(build())
        target = aims(made)
        theta, run = made["a"].space.vector(), (made, target)
        methods = [lt.tournament(*run, theta, 0.1, method="trotter"),
                   lt.tournament(*run, theta, 0.1, 2, "stage", "adamw")]  # fmt: skip
        rounds = [
            list(scores.values())
            for effort in ("exact", "linear")
            for scores in lt.plan_from_end(
                made, target["aim"], theta, 0.1, 2, effort=effort, one_shot=True
            ).rounds
        ]
        plane = gradient_plane(("a", "b"), made["a"], made["b"], target["aim"], theta, 0.1, 2)
        return [
            [t.matrix for t in methods], [t.order for t in methods], rounds,
            lt.replay_orders(*run, theta, ["abc", "cba"], 0.1, 4, every=4),
            order_against_reverse(made, list("cab"), theta, 0.1, 4), plane.to_dict()["loss"],
        ]  # fmt: skip

    expected, many = one_and_many(2, work, tmp_path)
    for found in many:
        agree(found, expected, 1e-6)
        agree(found, many[0], 0.0)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _numbers(values: Any) -> bool:
    """Whether they make a vector or a matrix."""
    return all(isinstance(v, float) for v in values) or all(
        isinstance(v, list) and len(v) == len(values) and _numbers(v) for v in values
    )


def agree(found: Any, expected: Any, tolerance: float) -> None:
    """Equal; to the accuracy of a central difference where one process takes exact products."""
    if isinstance(expected, dict):
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list) and not _numbers(expected):
        for one, other in zip(found, expected, strict=True):
            agree(one, other, tolerance)
    elif isinstance(expected, torch.Tensor | float | list):
        one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
        near(one, other, tolerance)
    else:
        assert found == expected


def test_the_model_is_as_it_was(tmp_path) -> None:
    def work() -> list[torch.Tensor]:
        model = build()
        source = objectives(model)["a"]
        theta = source.space.vector()
        next_token(model, source._batches[0]).backward()  # the user's own, while training
        kept = [(_local(p.detach()).clone(), p.grad) for p in source.space.tensors]

        def as_before() -> bool:
            model(torch.zeros(1, 2, dtype=torch.long))  # no number of ours is used any more
            for part in filter(lambda m: hasattr(m, "reshard"), model.modules()):
                part.reshard()
            return all(
                torch.equal(_local(p.detach()), own) and p.grad is grad
                for p, (own, grad) in zip(source.space.tensors, kept, strict=True)
            )

        g, away = source.gradient(theta), source.gradient(theta + 1)
        assert as_before()
        for broken in (0, 1):
            model.blocks[broken].broken = True
            with pytest.raises(ZeroDivisionError):
                source.gradient(theta + 1)
            model.blocks[broken].broken = False
            assert as_before()
        with pytest.raises(ZeroDivisionError), source.space.at(theta + 1):
            next_token(model, source._batches[0])
            raise ZeroDivisionError
        assert as_before()
        assert torch.equal(source.gradient(theta + 1), away)
        assert torch.equal(source.gradient(theta), g)
        with pytest.raises(lt.InputError, match="expected a finite gradient"):
            source.gradient(torch.where(torch.arange(len(theta)) == dist.get_rank(), 1e200, theta))
        assert as_before()
        # Training goes on from the model's own numbers.
        model.zero_grad()
        next_token(model, source._batches[0]).backward()
        return [_local(p.grad) for p in source.space.tensors], [_local(g) for _, g in kept]

    for found in together(2, work, tmp_path):
        assert not isinstance(found, BaseException | int), found
        assert all(map(torch.equal, *found))


def llama(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """A Llama with tied embeddings of an odd number of rows."""
    made = tiny.model(seed, vocab_size=331, tie_word_embeddings=True).to(dtype)
    if dist.is_initialized():
        for layer in made.model.layers:
            fsdp.fully_shard(layer)
        fsdp.fully_shard(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "settings",
    [{"planner": "tournament", "optimizer": "sgd", "steps": 2, "chunks": 2, "lr": 0.05},
     {"planner": "search", "optimizer": "adamw", "steps": 5, "chunks": 1, "budget": 2.0}],
    ids=["tournament", "search"],
)  # fmt: skip
def test_a_plan_in_float32(tmp_path, count, settings) -> None:
    pytest.importorskip("transformers")

    def plan() -> dict[str, Any]:
        folder = tmp_path / ("many" if dist.is_initialized() else "one")
        saved = lt.plan_order(
            llama(), ROWS, ROWS["math"][:4], tokenizer=tiny.tokenizer(), batch_size=4,
            folder=folder, **settings,
        ).to_dict()  # fmt: skip
        del saved["seconds"], saved["cost"]
        return saved

    expected, many = one_and_many(count, plan, tmp_path)
    for found in many:
        assert found["order"] == expected["order"]
        assert found["parameters"] == expected["parameters"]
        # Sums over rows dealt out round otherwise, which central differences in float32 enlarge:
        # one process is itself up to 6e-4 away from float64, where both agree to 1e-12.
        for name in ("matrix", "scores", "targets", "forgetting", "lr_rule"):
            agree(found[name], expected[name], 2e-3)
        close(found, many[0])
    if settings["planner"] == "search":
        kept = {file: file.read_text() for file in (tmp_path / "many").iterdir()}
        assert not any(file.name.count(".") > 1 for file in kept)  # the first process's only
        assert len({line for text in kept.values() for line in text.splitlines()}) == sum(
            len(text.splitlines()) for text in kept.values()
        )
        close(together(count, plan, tmp_path)[0], many[0])
        assert kept == {file: file.read_text() for file in (tmp_path / "many").iterdir()}


@pytest.mark.parametrize("other", [False, True])
def test_preferences_have_the_reference_of_one_process(tmp_path, other) -> None:
    pytest.importorskip("transformers")
    from lietoolkit.tasks.batches import make_batches

    pairs = [{"prompt": "say", "chosen": f" cat {n}", "rejected": " the the"} for n in range(4)]

    def work() -> list[Any]:
        model = llama(torch.float64)
        model.model.embed_tokens.requires_grad_(False)  # as under adapters
        space = lt.ParameterSpace(model, "*.self_attn.*")
        batches, _ = make_batches(pairs, tiny.tokenizer(), "dpo", batch_size=4, name="pairs")
        made = lt.ModelObjective(
            model,
            batches,
            "dpo",
            space=space,
            microbatch=2,
            reference=llama(torch.float64, seed=1) if other else None,
        )
        theta = space.vector()
        at = theta - 0.1 * made.gradient(theta)
        g = made.gradient(at)
        assert not any(p.grad is not None for p in model.parameters())
        v, *_ = made.gradient_and_hvp(theta, g, "finite-difference")
        assert torch.equal(space.vector(), theta)
        return [made.loss(theta), made.loss(at), space.dot(v, g), space.norm(g), space.dot(g, at)]

    expected, many = one_and_many(2, work, tmp_path)
    for found in many:
        agree(found, expected, 1e-10)


def test_what_cannot_be_planned_with_is_refused(tmp_path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    def refused(call: Callable[[], Any]) -> str:
        with pytest.raises(lt.InputError) as caught:
            call()
        return str(caught.value)

    def work() -> dict[str, str]:
        half = fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16)
        mesh, square = (
            init_device_mesh("cpu", (2,)),
            init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "pieces")),
        )
        scaled = build()
        scaled.set_requires_gradient_sync(False)
        models = {
            "mixed": fsdp.fully_shard(Net(torch.float32), mp_policy=half),
            "bfloat16": fsdp.fully_shard(Net(torch.bfloat16)),
            "columns": fsdp.fully_shard(
                nn.Linear(4, 4, False), shard_placement_fn=lambda _: Shard(1)
            ),
            "hybrid": fsdp.fully_shard(Net(torch.float32), mesh=square),
            "tensor parallel": parallelize_module(nn.Linear(4, 4), mesh, ColwiseParallel()),
            "not averaged": scaled,
        }
        found = {name: refused(lambda m=m: lt.ParameterSpace(m)) for name, m in models.items()}
        made = objectives(build())
        theta = made["a"].space.vector()
        other = {**made, "z": lt.Objective(lambda x: x.sum())}
        calls = {
            "exact": lambda: lt.tournament(made, made["a"], theta, 0.1, hvp="exact"),
            "product": lambda: made["a"].hvp(theta, theta, "exact"),
            "others": lambda: lt.tournament(other, made["a"], theta, 0.1),
            "plan": lambda: lt.plan_order(
                build(), {name: list(made["a"]._batches) for name in "ab"},
                list(made["b"]._batches), "lm", hvp="exact",
            ),
            "twice": lambda: lt.plan_order(build(), ROWS, ROWS["cat"], shard=True),
        }  # fmt: skip
        return found | {name: refused(call) for name, call in calls.items()}

    for found in together(2, work, tmp_path):
        assert isinstance(found, dict), found
        assert "no mixed precision" in found["mixed"]
        assert "of torch.bfloat16; convert it before" in found["bfloat16"]
        for kind in ("columns", "hybrid", "tensor parallel"):
            assert "sharded by rows over all processes" in found[kind], kind
        assert "mean of the gradients" in found["not averaged"]
        for kind in ("exact", "product", "plan"):
            assert "'finite-difference' (or 'auto') with a sharded" in found[kind], kind
        assert "all of the one sharded model" in found["others"]
        assert "expected the model by name" in found["twice"]


def test_no_agreement_of_step_sizes_is_said_and_no_exact_product_taken(tmp_path, caplog) -> None:
    def work() -> tuple[str, str]:
        from lietoolkit.tasks import objective

        objective.AGREEMENT = -1.0
        source = objectives(build(torch.float32))["a"]
        theta = source.space.vector()
        source.gradient_and_hvp(theta, theta)
        return caplog.text, source._choose_method(theta, theta)

    for text, method in together(2, work, tmp_path):
        assert "a sharded model has no exact products" in text and method == "finite-difference"


def test_a_killed_process_ends_the_others(tmp_path) -> None:
    def killed() -> Any:
        made = objectives(build())
        if dist.get_rank() == 1:
            made["b"].kind.__dict__["loss"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return lt.run_schedules(
            made, made["a"], made["a"].space.vector(), [["a"], ["b"]], 0.1, folder=tmp_path / "kept"
        )

    first, second = together(2, killed, tmp_path)
    assert second == signal.SIGKILL
    assert isinstance(first, ranks.LostProcess) and "another process has ended" in str(first)
    (file,) = (tmp_path / "kept").iterdir()
    assert len(file.read_text().splitlines()) == 1


def test_data_that_differ_are_refused(tmp_path) -> None:
    def differ() -> None:
        names = "abcd" if dist.get_rank() else "abdc"
        made = objectives(build(), names)
        lt.tournament(dict(zip("abcd", made.values(), strict=True)), made["a"],
                      made["a"].space.vector(), 0.1)  # fmt: skip

    for error in together(2, differ, tmp_path):
        assert isinstance(error, lt.InputError) and "same sources in every process" in str(error)


def test_a_file_that_cannot_be_written_ends_all(tmp_path) -> None:
    (tmp_path / "file").write_text("")

    def work() -> None:
        made = objectives(build())
        theta = made["a"].space.vector()
        lt.run_schedules(made, made["a"], theta, [["a"]], 0.1, folder=tmp_path / "file")

    errors = together(2, work, tmp_path)
    assert all(isinstance(error, lt.InputError) for error in errors), errors
    assert "cannot be kept" in str(errors[1])


@pytest.mark.slow
def test_the_command_shards_a_model(tmp_path) -> None:
    pytest.importorskip("typer")
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
        for name, rows in ROWS.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    more = ("--optimizer", "sgd", "--verify", "2", "--verify-steps", "1")
    arguments = [*plan_arguments(str(tmp_path / "model"), *more), "--out"]
    ((code, _, err),) = command(1, folders[:1], *arguments, "one")
    assert code == 0, err
    shared = [*arguments, str(tmp_path / "many"), "--shard"]
    (code, out, err), (other, nothing, silence) = command(2, folders, *shared)
    assert code == other == 0, err + silence
    assert "Train in this order" in out and not nothing and not silence
    one, many = (
        json.loads((place / "plan.json").read_text())
        for place in (folders[0] / "one", tmp_path / "many")
    )
    assert many["order"] == one["order"] and many["dtype"] == one["dtype"] == "float64"
    agree(many["matrix"], one["matrix"], 1e-6)
    agree(many["verification"]["steps"]["1"]["measured"],
          one["verification"]["steps"]["1"]["measured"], 1e-6)  # fmt: skip
    (code, _, err), *_ = command(1, folders[:1], *arguments, "alone", "--shard")
    assert code == 2 and "expected several processes" in err
