"""The arithmetic of plans on paper: against counts, a measured benchmark, and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lietoolkit as lt
from lietoolkit import estimate as module
from lietoolkit.cli import app
from lietoolkit.errors import InputError
from lietoolkit.estimate import (
    Assumptions,
    estimate,
    fewest_gpus,
    format_estimate,
    gradient_equivalents,
    memory_per_gpu,
    model_shape,
    read_count,
)
from lietoolkit.tasks.models import load_model

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


@pytest.mark.parametrize("exact", [False, True])
def test_gradients_are_those_that_a_tournament_spends(exact: bool) -> None:
    """A model: on a function of a vector the library takes exact products throughout."""
    import tiny

    model, tokenizer = tiny.model(), tiny.tokenizer()
    batch = tokenizer("one two three", return_tensors="pt")
    batch = {"input_ids": batch["input_ids"], "labels": batch["input_ids"].clone()}
    made = lt.ModelObjective(model, [batch], loss="lm")
    theta = made.space.vector()
    made.gradient_and_hvp(theta, made.gradient(theta))  # the step is searched once, at no extra
    hvp = "exact" if exact else "finite-difference"
    spent = lt.tournament({c: made for c in "abcde"}, made, theta, lr=1e-3, hvp=hvp).cost.total
    assert spent == gradient_equivalents(5, exact)


def test_overhead_lies_in_what_was_measured() -> None:
    row = json.loads((RESULTS / "hvp-course.json").read_text())["rows"]["tournament of 8"]
    low, high = row["spread"]
    counted = gradient_equivalents(8)
    assert low / counted <= module.OVERHEAD <= high / counted
    assert row["time"] / counted == pytest.approx(module.OVERHEAD, rel=0.1)


@pytest.mark.parametrize(
    ("parameters", "layers", "hidden"), [(6.7e9, 32, 4096), (69e9, 80, 8192), (1.1e9, 22, 2048)]
)
def test_shape_is_near_that_of_real_models(parameters, layers, hidden) -> None:
    shape = model_shape(parameters)
    assert shape["layers"] == pytest.approx(layers, rel=0.25)
    assert shape["hidden"] == pytest.approx(hidden, rel=0.25)
    d = shape["hidden"]
    block = 4 * d * d + 3 * d * shape["intermediate"]
    assert shape["layers"] * block == pytest.approx(parameters, rel=0.05)


def test_one_gpu_by_hand() -> None:
    """1 B parameters, 2 sources, 1000 tokens each: 5 gradients of 6e12 operations, 10 TFLOP/s."""
    assume = Assumptions(
        tokens=1000, microbatch=100, flops=20e12, utilisation=0.5, overhead=1.0, gpu_memory=1e12
    )
    one = estimate(1e9, sources=2, gpus=1, assume=assume)
    assert one.seconds == {"computing": pytest.approx(3.0), "sharding": 0.0, "exchange": 0.0}
    assert one.memory["model"] == 4e9
    assert one.memory["vectors"] == 20e9
    assert one.memory["sources"] == 8e9
    assert one.memory["gathered layers"] == 0
    assert one.fits and one.shards == 1
    assert not estimate(1e9, 2, 1, Assumptions(gpu_memory=32e9)).fits


def test_sources_are_split_over_copies_and_each_needs_the_target() -> None:
    assume = Assumptions(gpu_memory=1e15, bandwidth=1e9, node_bandwidth=1e9, overhead=1.0)
    one, four = (estimate(1e8, 8, g, assume) for g in (1, 4))
    assert four.shards == 1
    # 17 gradients on one GPU; on each of four those of two sources and the target's.
    assert four.seconds["computing"] / one.seconds["computing"] == pytest.approx(5 / 17)
    # Each sends three quarters of its 2 x 2 float16 vectors.
    assert four.seconds["exchange"] == pytest.approx(2 * 2 * 2 * 1e8 * 0.75 / 1e9)
    assert four.seconds["sharding"] == 0
    # Nine sources: one GPU has three, and the others wait.
    assert estimate(1e8, 9, 4, assume).seconds["computing"] == pytest.approx(
        one.seconds["computing"] * 7 / 17
    )


def test_a_model_that_does_not_fit_is_cut() -> None:
    assume = Assumptions(
        tokens=4096, microbatch=256, gpu_memory=60e9, node_bandwidth=1e9, overhead=1.0
    )
    one = estimate(7e9, 8, 8, assume)
    assert one.fits and one.shards == 8
    whole = memory_per_gpu(7e9, 8, 1, assume)
    for kind in ("model", "vectors", "sources"):
        assert one.memory[kind] == pytest.approx(whole[kind] / 8)
    assert one.memory["activations"] == whole["activations"]
    # 4096 tokens are two microbatches of 256 on each of 8; three times 7/8 of the weights in each.
    assert one.seconds["sharding"] == pytest.approx(17 * 2 * 3 * 4 * 7e9 * 7 / 8 / 1e9)
    assert one.seconds["exchange"] == 0


def test_between_nodes_the_slower_network_counts() -> None:
    assume = Assumptions(gpu_memory=1e15, bandwidth=1e9, node_bandwidth=9e9, node=8)
    eight, sixteen = (estimate(1e8, 16, g, assume) for g in (8, 16))
    sent = [(2, 7 / 8, 9e9), (1, 15 / 16, 1e9)]
    for one, (own, share, speed) in zip((eight, sixteen), sent, strict=True):
        assert one.seconds["exchange"] == pytest.approx(4 * own * 1e8 * share / speed)


def test_the_fastest_cut_that_fits_is_taken() -> None:
    """Eight sources on 64 GPUs: eight copies of 8 keep all busy, sixteen of 4 only half."""
    one = estimate(7e9, 8, 64, Assumptions(gpu_memory=90e9))
    assert one.shards == 8
    assert estimate(7e9, 8, 64, Assumptions(gpu_memory=40e9)).shards == 8
    assert estimate(7e9, 8, 64, Assumptions(gpu_memory=25e9)).shards > 8


def test_adapters_take_vectors_not_weights() -> None:
    full, some = Assumptions(), Assumptions(trainable=7e6)
    for kind, ratio in (("model", 1), ("vectors", 1000), ("sources", 1000), ("activations", 1)):
        a, b = (memory_per_gpu(7e9, 8, 1, assume)[kind] for assume in (full, some))
        assert a == pytest.approx(ratio * b), kind
    assert fewest_gpus(7e9, 64, some) < fewest_gpus(7e9, 64, full)


def test_exact_products_cost_half_as_much_again() -> None:
    a, b = (estimate(1e9, 8, 1, Assumptions(exact=e)) for e in (False, True))
    assert b.total_seconds / a.total_seconds == pytest.approx(25 / 17)
    assert b.memory["activations"] == pytest.approx(2.7 * a.memory["activations"])


def test_every_assumption_moves_the_result_and_is_shown() -> None:
    base = Assumptions()
    ask = {"parameters": [7e9], "sources": [8], "gpus": [8, 16]}
    first = format_estimate(**ask, assume=base)
    changed = {
        "tokens": 131072, "microbatch": 512, "flops": 133e12, "utilisation": 0.25,
        "bandwidth": 0.25e9, "node_bandwidth": 225e9, "node": 4, "gpu_memory": 40e9,
        "bytes_per_parameter": 2, "exact": True, "trainable": 7e6, "overhead": 1.36,
        "vocabulary": 32000,
    }  # fmt: skip
    assert set(changed) == set(Assumptions.__dataclass_fields__)
    for name, value in changed.items():
        after = format_estimate(**ask, assume=Assumptions(**{name: value}))
        before, then = (text.partition("\nAssumed") for text in (first, after))
        assert before[0] != then[0], f"{name} changes nothing"
        assert before[2] != then[2], f"{name} is not shown"


@pytest.mark.parametrize(
    ("options", "name"),
    [({"flops": 0.0}, "flops"), ({"utilisation": 1.5}, "utilisation"),
     ({"tokens": float("nan")}, "tokens"), ({"trainable": -1.0}, "trainable")],
)  # fmt: skip
def test_impossible_assumptions_are_named(options, name) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected"):
        Assumptions(**options)


def test_impossible_questions_are_named() -> None:
    with pytest.raises(InputError, match="gpus: expected a number above 0, found 0"):
        estimate(7e9, 8, 0)
    with pytest.raises(InputError, match="trainable: expected at most the 7e"):
        estimate(7e9, 8, 1, Assumptions(trainable=8e9))


def test_numbers_with_letters() -> None:
    assert [read_count(t) for t in ("350M", "7b", "1e3", "2K")] == [350e6, 7e9, 1e3, 2e3]
    for text in ("", "B", "seven"):
        with pytest.raises(InputError, match="such as 7B"):
            read_count(text)


def test_command_line() -> None:
    from typer.testing import CliRunner

    run = CliRunner().invoke(
        app, ["doctor", "--estimate", "--parameters", "1B", "--sources", "8", "--gpus", "1",
              "--gpu-memory", "100B", "--tokens", "1K"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    row = next(line for line in run.output.splitlines() if line.split()[:3] == ["8", "1", "1"])
    one = estimate(1e9, 8, 1, Assumptions(tokens=1000, gpu_memory=100e9))
    assert f"{one.total_seconds:.1f} s" in row and f"{one.total_memory / 1e9:.3g} GB" in row
    assert "1,000 tokens" in run.output and "67 TFLOP/s" in run.output
    default = CliRunner().invoke(app, ["doctor", "--estimate"]).output
    assert "7 B parameters" in default and "70 B parameters" in default
    own = CliRunner().invoke(app, ["doctor", "--estimate", "--model", "course"]).output
    size = sum(p.numel() for p in load_model("course", device="cpu")[0].parameters())
    assert f"{size / 1e6:.3g} M parameters" in own
