"""Objectives, brackets and scores against closed forms and dense Hessians."""

from __future__ import annotations

import pytest
import torch
from helpers import network, quadratic, start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lietoolkit as lt
from lietoolkit.geometry.cost import metered
from lietoolkit.geometry.sketch import Sketch
from lietoolkit.geometry.space import gram
from lietoolkit.tasks.losses import Loss

SEEDS = st.integers(0, 10_000)


class Block(nn.Module):
    """Attention, RMSNorm, LayerNorm and tied embeddings: what language models are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.rms = nn.RMSNorm(8)
        self.mix = nn.Linear(8, 24)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(ids))
        q, k, v = self.mix(x).chunk(3, -1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(self.rms(x))


def block_loss(model: nn.Module, batch: dict) -> torch.Tensor:
    logits = model(batch["input_ids"][:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten())


def block_objective(dtype: torch.dtype, seed: int = 0, **options) -> lt.ModelObjective:
    torch.manual_seed(seed)
    model = Block().to(dtype)
    batches = [{"input_ids": torch.randint(11, (4, 6))} for _ in range(2)]
    return lt.ModelObjective(model, batches, block_loss, **options)


def dense_hessian(objective: lt.ModelObjective, theta: torch.Tensor) -> torch.Tensor:
    def loss(vector: torch.Tensor) -> torch.Tensor:
        views = dict(zip(objective.space.names, objective.space.unflatten(vector), strict=True))
        total = 0.0
        for batch in objective._batches:
            ids = batch["input_ids"]
            logits = torch.func.functional_call(objective.model, views, (ids[:, :-1],))
            total = total + nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        return total / len(objective._batches)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, theta)


def test_hvp_equals_dense_hessian_in_float64() -> None:
    objective = block_objective(torch.float64)
    theta = objective.space.vector()
    dense = dense_hessian(objective, theta)
    v = start(objective.space.size)
    g, hv = objective.gradient_and_hvp(theta, v, "exact")
    assert torch.linalg.norm(hv - dense @ v) <= 1e-8 * torch.linalg.norm(dense @ v)
    fd = objective.gradient_and_hvp(theta, v, "finite-difference")[1]
    assert torch.linalg.norm(fd - dense @ v) <= 1e-8 * torch.linalg.norm(dense @ v)
    assert torch.allclose(g, objective.gradient(theta), atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "finite-difference", "auto"])
def test_hvp_in_float32_is_within_2e_4(method: str) -> None:
    wide, narrow = block_objective(torch.float64), block_objective(torch.float32)
    narrow.model.load_state_dict(wide.model.state_dict())
    narrow._batches = wide._batches
    theta = wide.space.vector()
    v = wide.gradient(theta)
    truth = wide.gradient_and_hvp(theta, v, "exact")[1]
    hv = narrow.gradient_and_hvp(theta.float(), v.float(), method)[1].double()
    assert torch.linalg.norm(hv - truth) <= 2e-4 * torch.linalg.norm(truth)


def test_auto_falls_back_to_exact_where_differences_fail() -> None:
    def rough(model: nn.Module, batch: dict) -> torch.Tensor:
        w = torch.cat([p.flatten() for p in model.parameters()])
        return 1e-4 * torch.sin(3e4 * w).sum() + 0.0 * batch["input_ids"].sum()

    model = nn.Linear(3, 1)
    objective = lt.ModelObjective(model, [{"input_ids": torch.ones(2, 1)}], rough)
    theta = objective.space.vector()
    v = torch.ones_like(theta)
    auto = objective.gradient_and_hvp(theta, v)[1]
    exact = objective.gradient_and_hvp(theta, v, "exact")[1]
    assert objective.space.difference_move == 0
    assert torch.equal(auto, exact)


@given(SEEDS, st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_bracket_of_quadratics(seed: int, scale: float) -> None:
    a, h_a, c_a = quadratic(5, seed)
    b, h_b, c_b = quadratic(5, seed + 1)
    e, h_e, c_e = quadratic(5, seed + 2)
    theta = scale * start(5, seed)
    g_a, g_b, g_e = h_a @ theta + c_a, h_b @ theta + c_b, h_e @ theta + c_e
    bracket = h_b @ g_a - h_a @ g_b
    assert torch.allclose(lt.lie_bracket(a, b, theta), bracket, rtol=1e-9, atol=1e-9 * scale)
    sigma = float(g_e @ bracket)
    assert lt.order_score(a, b, e, theta) == pytest.approx(sigma, rel=1e-6, abs=1e-9 * scale**2)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_bracket_laws(seed: int) -> None:
    a, b, c = (network(seed + i) for i in range(3))
    theta = start(13, seed)
    ab = lt.lie_bracket(a, b, theta)
    assert torch.allclose(ab, -lt.lie_bracket(b, a, theta), atol=1e-12)
    assert lt.lie_bracket(a, a, theta).abs().max() <= 1e-12
    mixed = lt.Objective(lambda x: 2.0 * b.fn(x) - 0.5 * c.fn(x))
    expected = 2.0 * ab - 0.5 * lt.lie_bracket(a, c, theta)
    assert torch.allclose(lt.lie_bracket(a, mixed, theta), expected, atol=1e-11)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_jacobi_identity() -> None:
    fields = [network(i) for i in range(3)]
    theta = start(13)

    def field(o: lt.Objective):
        return lambda x: -torch.func.grad(o.fn)(x)

    def bracket(f, g):
        return lambda x: torch.func.jvp(g, (x,), (f(x),))[1] - torch.func.jvp(f, (x,), (g(x),))[1]

    f, g, h = (field(o) for o in fields)
    assert torch.allclose(bracket(f, g)(theta), lt.lie_bracket(*fields[:2], theta), atol=1e-11)
    total = sum(bracket(x, bracket(y, z))(theta) for x, y, z in ((f, g, h), (g, h, f), (h, f, g)))
    assert total.abs().max() <= 1e-9


def test_endpoints_differ_by_lr_squared_times_the_bracket() -> None:
    a, b = network(0), network(1)
    theta = start(13)
    remainders = []
    for lr in (1e-2, 1e-3):
        after_a = theta - lr * a.gradient(theta)
        after_b = theta - lr * b.gradient(theta)
        gap = (after_a - lr * b.gradient(after_a)) - (after_b - lr * a.gradient(after_b))
        remainders.append(float((gap - lr**2 * lt.lie_bracket(a, b, theta)).norm()))
    assert remainders[0] / remainders[1] == pytest.approx(1000, rel=0.2)


def test_model_is_left_exactly_as_it_was() -> None:
    objective = block_objective(torch.float32)
    before = {n: p.detach().clone() for n, p in objective.model.named_parameters()}
    storage = {n: p.data_ptr() for n, p in objective.model.named_parameters()}
    theta = objective.space.vector()
    elsewhere = theta + 1
    objective.gradient_and_hvp(elsewhere, theta, "exact")
    objective.gradient_and_hvp(elsewhere, theta, "finite-difference")
    objective.loss(elsewhere)

    def fail(model: nn.Module, batch: dict) -> torch.Tensor:
        raise KeyboardInterrupt

    broken = lt.ModelObjective(objective.model, objective._batches, fail, space=objective.space)
    for call in (broken.loss, broken.gradient):
        with pytest.raises(KeyboardInterrupt):
            call(elsewhere)
    for name, p in objective.model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.data_ptr() == storage[name]
        assert p.grad is None


def test_microbatches_and_chunks_change_nothing() -> None:
    whole, parts = block_objective(torch.float64), block_objective(torch.float64, microbatch=3)
    theta = whole.space.vector()
    v = start(whole.space.size)
    for x, y in zip(
        whole.gradient_and_hvp(theta, v), parts.gradient_and_hvp(theta, v), strict=True
    ):
        assert torch.allclose(x, y, atol=1e-13)
    assert float(whole.loss(theta)) == pytest.approx(float(parts.loss(theta)), abs=1e-13)
    for n in (2, 4):
        chunks = whole.chunks(n)
        assert sum(w for w, _ in chunks) == pytest.approx(1)
        mean = sum(w * part.gradient(theta) for w, part in chunks)
        assert torch.allclose(mean, whole.gradient(theta), atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_thinned_batches_hold_every_row_once_and_cost_their_share(n: int) -> None:
    whole = block_objective(torch.float64)  # two batches of four rows
    theta, thin = whole.space.vector(), whole.thinned(n)
    assert whole.batch_rows == 4 and thin.batch_rows == -(-4 // n)
    rows = torch.cat([batch["input_ids"] for batch in thin._batches])
    every = torch.cat([batch["input_ids"] for batch in whole._batches])
    assert sorted(rows.tolist()) == sorted(every.tolist())
    # Step by step the batches take turns, as whole ones do.
    for step, batch in enumerate(thin._batches):
        own = whole._batches[step % 2]["input_ids"].tolist()
        assert all(row in own for row in batch["input_ids"].tolist())
    with metered() as cost:
        g = [thin.gradient(theta, batch) for batch in range(thin.batches)]
    assert cost.total == pytest.approx(whole.batches)
    if n in (2, 4):
        assert torch.allclose(torch.stack(g).mean(0), whole.gradient(theta), atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_shortened_objective_reads_its_first_batches(n: int) -> None:
    whole = block_objective(torch.float64)  # two batches
    theta, short = whole.space.vector(), whole.shortened(n)
    with metered() as cost:
        g = short.gradient(theta)
    assert cost.total == short.units == short.batches == min(n, 2)
    own = [whole.gradient(theta, batch) for batch in range(min(n, 2))]
    assert torch.allclose(torch.stack(own).mean(0), g, atol=1e-13)
    assert whole.batches == 2 and (short.fingerprint() == whole.fingerprint()) == (n > 1)
    bowl = lt.Objective(lambda x: x.square().sum())
    assert bowl.shortened(n) is bowl


@pytest.mark.parametrize("microbatch", [None, 2])
def test_a_loss_of_ones_own_needs_no_input_ids(microbatch: int | None) -> None:
    def squares(model: nn.Module, batch: dict) -> torch.Tensor:
        return (model(batch["x"]) - batch["y"]).square().mean()

    torch.manual_seed(0)
    batch = {"x": torch.randn(6, 3), "y": torch.randn(6, 1)}
    own = lt.ModelObjective(nn.Linear(3, 1), [batch], squares, microbatch=microbatch)
    theta = own.space.vector()
    g, hv = own.gradient_and_hvp(theta, torch.ones_like(theta))
    inputs = torch.cat([batch["x"], torch.ones(6, 1)], 1)
    assert torch.allclose(hv, 2 * inputs.T @ inputs.sum(1) / 6, rtol=1e-3)
    assert own.batch_rows == 6 and own.thinned(3).batches == 3
    thin = torch.stack([own.thinned(3).gradient(theta, i) for i in range(3)])
    assert torch.allclose(thin.mean(0), g, atol=1e-4)


def test_a_batch_is_read_whole_whatever_it_weighs() -> None:
    whole = block_objective(torch.float64)
    theta = whole.space.vector()
    weightless = Loss("own", whole.kind.loss, lambda batch: batch["no such column"])
    own = lt.ModelObjective(whole.model, whole._batches, weightless, space=whole.space)
    assert own.loss(theta) == whole.loss(theta)


def test_a_short_batch_begins_again_where_others_are_thinned() -> None:
    whole = block_objective(torch.float64)
    short = {"input_ids": whole._batches[1]["input_ids"][:1]}
    uneven = lt.ModelObjective(whole.model, [whole._batches[0], short], block_loss)
    thin = uneven.thinned(4)
    assert [len(batch["input_ids"]) for batch in thin._batches] == [1] * 8
    assert all(batch["input_ids"].equal(short["input_ids"]) for batch in thin._batches[1::2])
    bowl = lt.Objective(lambda x: x.square().sum())
    assert bowl.batch_rows == 1 and bowl.thinned(4) is bowl


@pytest.mark.parametrize("method", ["exact", "finite-difference"])
def test_sketches_of_chunks_are_those_of_each_chunk_alone(method: str) -> None:
    whole = block_objective(torch.float64)
    theta = whole.space.vector()
    v = start(whole.space.size)
    sketch = Sketch(whole.space.size, width=64)
    g, hv, parts = whole.gradient_and_hvp_by_chunk(theta, v, sketch, 4, method)
    truth = whole.gradient_and_hvp(theta, v, "exact")
    for x, y in zip((g, hv), truth, strict=True):
        assert torch.allclose(x, y, atol=1e-7)
    for (share, s_g, s_hv), (expected, chunk) in zip(parts, whole.chunks(4), strict=True):
        assert share == expected
        for x, y in zip((s_g, s_hv), chunk.gradient_and_hvp(theta, v, "exact"), strict=True):
            assert torch.allclose(x, sketch(y), atol=1e-6)


def test_subset_of_parameters_is_a_block_of_the_whole() -> None:
    whole = block_objective(torch.float64)
    space = lt.ParameterSpace(whole.model, ["mix.*", "norm.bias"])
    part = lt.ModelObjective(whole.model, whole._batches, block_loss, space=space)
    named = dict(
        zip(
            whole.space.names,
            whole.space.unflatten(whole.gradient(whole.space.vector())),
            strict=True,
        )
    )
    expected = space.flatten([named[name] for name in space.names])
    assert torch.allclose(part.gradient(space.vector()), expected, atol=1e-14)
    with pytest.raises(lt.InputError, match=r"no trainable parameter matches 'nothing\.\*'"):
        lt.ParameterSpace(whole.model, "nothing.*")


def test_parameters_that_are_elsewhere_are_refused() -> None:
    with pytest.raises(lt.InputError, match="'weight' on the meta device, without values; load"):
        lt.ParameterSpace(nn.Linear(2, 1, device="meta"))
    emptied = nn.Linear(2, 1)
    emptied.bias.ds_id = 0  # DeepSpeed ZeRO-3 marks what it has taken away
    with pytest.raises(lt.InputError, match="'bias' in pieces that are no FSDPModule's; give the"):
        lt.ParameterSpace(emptied)


def test_tied_weights_count_once() -> None:
    model = Block()
    assert lt.ParameterSpace(model).size == sum(p.numel() for p in model.parameters())


def test_half_precision_model_is_computed_in_float32() -> None:
    objective = block_objective(torch.bfloat16)
    theta = objective.space.vector()
    assert theta.dtype == torch.float32
    wide = block_objective(torch.bfloat16)
    wide.model.float()
    wide = lt.ModelObjective(wide.model, objective._batches, block_loss)
    assert torch.allclose(objective.gradient(theta), wide.gradient(theta), atol=1e-6)
    assert all(p.dtype == torch.bfloat16 for p in objective.model.parameters())


def test_inner_products_are_accumulated_in_float64() -> None:
    u = torch.full((1 << 23,), 1e-4)
    u[0] = 1e4
    exact = 1e8 + (u.numel() - 1) * float(u[1]) ** 2
    assert float(gram([u], [u])[0, 0]) == pytest.approx(exact, rel=1e-10)


def test_sketch_keeps_inner_products() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 200_003, generator=generator)
    sketch = Sketch(u.numel(), width=4096)
    error = float(sketch(u) @ sketch(v) - u.double() @ v.double())
    assert abs(error) <= 5 * float(u.norm() * v.norm()) / 4096**0.5


def test_costs_are_counted() -> None:
    objective = block_objective(torch.float32)
    theta = objective.space.vector()
    with metered() as cost:
        objective.gradient(theta)
        objective.gradient_and_hvp(theta, theta, "finite-difference")
        objective.loss(theta, batch=0)
    assert (cost.gradients, cost.hvps, cost.losses) == pytest.approx((4, 2, 1 / 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["exact", "finite-difference"])
def test_what_is_not_finite_is_noticed(bad: float, method: str) -> None:
    slope = torch.tensor([1.0, bad])
    line = lt.Objective(lambda x: (slope * x).sum() + x[0] ** 2)
    with pytest.raises(lt.InputError, match="finite gradient"):
        line.gradient(torch.zeros(2))
    with pytest.raises(lt.InputError, match="expected a finite"):
        line.gradient_and_hvp(torch.zeros(2), torch.ones(2), method)


def test_a_large_gradient_is_finite_though_its_sum_is_not() -> None:
    steep = torch.full((4,), 3e38)
    assert lt.Objective(lambda x: (steep * x).sum()).gradient(torch.zeros(4)).equal(steep)


def test_bad_calls_are_explained() -> None:
    objective = block_objective(torch.float32)
    theta = objective.space.vector()
    with pytest.raises(lt.InputError, match="method: expected one of auto, exact"):
        objective.gradient_and_hvp(theta, theta, "guess")
    with pytest.raises(lt.InputError, match=r"theta: expected shape \[\d+\], got \[3\]"):
        objective.gradient(theta[:3])
    with pytest.raises(lt.InputError, match="v: expected shape"):
        objective.gradient_and_hvp(theta, theta[:3])
    with pytest.raises(lt.InputError, match="all are frozen"):
        lt.ParameterSpace(Block().requires_grad_(False))
    with pytest.raises(lt.InputError, match="expected a finite loss, found NaN"):
        objective.loss(theta * float("nan"))
    with pytest.raises(lt.InputError, match="dropout"):
        lt.ModelObjective(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), [{}], block_loss)
    with pytest.raises(lt.InputError, match="at least one batch"):
        lt.ModelObjective(Block(), [], block_loss)
