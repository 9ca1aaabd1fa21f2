"""Several processes plan together: the same numbers as one, errors for all, nobody left waiting."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from helpers import network, start
from processes import SECONDS, fork, together

import lietoolkit as lt
from lietoolkit import cli
from lietoolkit.geometry import ranks, storage
from lietoolkit.order.plane import gradient_plane
from lietoolkit.order.schedule_bracket import order_against_reverse
from lietoolkit.order.stepsize import step_size
from lietoolkit.training.truth import run_schedules

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
SOURCES = {name: network(seed) for seed, name in enumerate("abcde")}
TARGETS = {"one": network(10), "two": network(11)}
THETA = start(13)


class Broken(lt.Objective):
    """A source whose loss is NaN in one of the processes only."""

    def __init__(self, number: int):
        super().__init__(network(0).fn, "broken")
        self.number = number

    def _loss_and_gradient(self, theta, batch):
        value, g = super()._loss_and_gradient(theta, batch)
        return value, g * float("nan") if dist.get_rank() == self.number else g


def close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, torch.Tensor | float):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    else:
        assert found == expected


def figures(t: lt.Tournament) -> list[Any]:
    return [
        t.matrix, t.targets, t.target_losses, t.gradients, vars(t.cost),
        None if t.resampler is None else [t.resampler.products, t.resampler.likeness],
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 4])
def test_a_tournament_has_the_numbers_of_one_process(tmp_path, count) -> None:
    def all_kinds() -> list[Any]:
        run = (SOURCES, TARGETS, THETA, 0.1)
        return [
            figures(lt.tournament(*run, steps=3, chunks=2, weights={"two": -0.5})),
            figures(lt.tournament(*run, method="trotter", hvp="finite-difference")),
            figures(lt.tournament(*run, steps=2, method="stage", optimizer="adamw")),
        ]

    expected = all_kinds()
    for found in together(count, all_kinds, tmp_path):
        close(found, expected)


@pytest.mark.parametrize("many", [64, 1])
def test_so_have_vectors_in_half_precision_and_sketches(tmp_path, monkeypatch, many) -> None:
    monkeypatch.setattr(storage, "FULL_PRECISION_BYTES", 0)
    monkeypatch.setattr(storage, "MANY", many)

    def short() -> list[Any]:
        t = lt.tournament(SOURCES, TARGETS["one"], THETA, 0.1)
        stage = lt.tournament(SOURCES, TARGETS["one"], THETA, 0.1, 2, "stage", "adamw")
        return [t.matrix, stage.matrix, order_against_reverse(SOURCES, t.order, THETA, 0.1)]

    expected = short()
    for found in together(2, short, tmp_path):
        close(found, expected)


def test_so_have_all_other_parts_of_a_plan(tmp_path) -> None:
    target = TARGETS["one"]

    def parts() -> list[Any]:
        end = [
            lt.plan_from_end(SOURCES, target, THETA, 0.1, 2, effort=effort)
            for effort in ("exact", "linear")
        ]
        plane = gradient_plane(("a", "b"), SOURCES["a"], SOURCES["b"], target, THETA, 0.1)
        return [
            vars(step_size(SOURCES, THETA)),
            order_against_reverse(SOURCES, list("cadbe"), THETA, 0.1, 4, steps_of={"a": 2}),
            plane.to_dict(),
            [[plan.order, plan.rounds, vars(plan.cost)] for plan in end],
        ]

    expected = parts()
    for found in together(3, parts, tmp_path):
        close(found, expected)


def test_truth_runs_are_the_same_and_resumed_by_any_number_of_processes(tmp_path) -> None:
    orders = [list(o) for o in ("abc", "abd", "acb", "bac", "cab", "cba", "e")]

    def train(folder: str, some: int = len(orders)) -> torch.Tensor:
        return run_schedules(
            SOURCES, TARGETS, THETA, orders[:some], 0.1, 3, "momentum", folder=tmp_path / folder,
            steps_of={"e": 2},
        )  # fmt: skip

    expected = train("one")
    for found in together(3, lambda: train("three"), tmp_path):
        assert torch.equal(found, expected)
    files = sorted((tmp_path / "three").iterdir())
    lines = [len(file.read_text().splitlines()) for file in files]
    assert len(files) == 3 and sum(lines) == 2 * len(orders)  # each its own, two targets
    for count in (1, 2, 4):
        kept = sum(path.stat().st_size for path in files)
        for found in together(count, lambda: train("three"), tmp_path):
            assert torch.equal(found, expected)
        assert sorted((tmp_path / "three").iterdir()) == files
        assert sum(path.stat().st_size for path in files) == kept


def test_neighbors_stay_together_when_orders_are_shared_out(tmp_path) -> None:
    from lietoolkit.training.truth import _parts

    orders = sorted(tuple(o) for o in ("abc", "acb", "bac", "bca", "cab", "cba"))
    assert _parts(orders, 3) == [orders[:2], orders[2:4], orders[4:]]
    assert _parts(orders[:1], 3) == [orders[:1], [], []]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


ROWS = {
    "math": [{"prompt": f"Q: {n} plus 1?", "completion": f" {n + 1}"} for n in range(8)],
    "cat": [{"prompt": "say it again", "completion": f" the cat sat {n} times"} for n in range(8)],
    "list": [{"prompt": "count", "completion": " " + "1 " * n} for n in range(1, 9)],
}


@pytest.mark.parametrize("planner", ["tournament", "search"])
def test_a_plan_in_float32_has_the_numbers_of_one_process(tmp_path, model, planner) -> None:
    """Finite differences amplify rounding: their step must be the one that one process takes."""

    def plan() -> dict[str, Any]:
        made = lt.plan_order(
            model, ROWS, ROWS["math"][:4], steps=2, optimizer="sgd", planner=planner,
            dtype="float32", batch_size=4, chunks=2, folder=tmp_path / "tried",
        )  # fmt: skip
        saved = made.to_dict()
        del saved["seconds"], saved["cost"]
        return saved

    (expected,) = fork(1, lambda _: plan())
    assert isinstance(expected, dict), expected
    for found in together(2, plan, tmp_path):
        close(found, expected)


def test_an_error_of_one_process_is_raised_by_all(tmp_path) -> None:
    sources = {**SOURCES, "broken": Broken(1)}
    calls = {
        "step size": lambda: step_size(sources, THETA),
        "truth": lambda: run_schedules(
            sources, TARGETS["one"], THETA, [["a"], ["broken"]], 0.1, folder=tmp_path / "kept"
        ),
        "beside the collectives": lambda: ranks.together()(fail_in_one)(),
    }

    def fail_in_one() -> None:
        if ranks.rank() == 1:
            raise lt.InputError("only here")
        ranks.first(lambda: 1)

    for call, work in calls.items():
        errors = together(2, work, tmp_path)
        assert all(isinstance(error, lt.InputError) for error in errors), (call, errors)
        assert str(errors[0]) == str(errors[1]), call
        assert errors[0].told and errors[1].told, call
    # What the other process had trained is kept.
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) == 1


def test_processes_that_are_given_different_things_are_told(tmp_path) -> None:
    def differ() -> None:
        lt.tournament(SOURCES, TARGETS, THETA, 0.1 + ranks.rank())

    def elsewhere() -> None:
        ranks.first(lambda: 1) if ranks.rank() else ranks.gather(1)

    for work, words in ((differ, "same settings in every process"), (elsewhere, "same calls")):
        for error in together(2, work, tmp_path):
            assert isinstance(error, lt.InputError) and words in str(error)


def test_alone_shares_nothing(tmp_path) -> None:
    def different() -> list[float]:
        number = dist.get_rank()
        with ranks.alone():
            assert ranks.size() == 1
            return run_schedules(SOURCES, TARGETS["one"], THETA, [["abc"[number]]], 0.1).tolist()

    found = together(2, different, tmp_path)
    expected = run_schedules(SOURCES, TARGETS["one"], THETA, [["a"], ["b"]], 0.1).tolist()
    assert [loss for (loss,) in found] == expected


def test_costs_of_all_processes_are_counted_once(tmp_path) -> None:
    def spend() -> dict[str, float]:
        from lietoolkit.geometry.cost import metered

        with metered() as cost:
            ranks.each(list("abcde"), lambda name: float(SOURCES[name].loss(THETA)))
            ranks.first(lambda: float(SOURCES["a"].gradient(THETA).sum()))
        return vars(cost)

    for found in together(3, spend, tmp_path):
        close(found, spend())


def test_a_killed_process_ends_the_others_and_the_run_is_resumed(tmp_path) -> None:
    orders = [[name] for name in "abcd"]

    def train() -> torch.Tensor:
        return run_schedules(
            SOURCES, TARGETS["one"], THETA, orders, 0.1, 2, folder=tmp_path / "kept"
        )

    def killed() -> torch.Tensor:
        if dist.get_rank() == 1:
            source = SOURCES["d"]
            source.fn = lambda theta: os.kill(os.getpid(), signal.SIGKILL)
        return train()

    first, second = together(2, killed, tmp_path)
    assert second == signal.SIGKILL
    assert isinstance(first, ranks.LostProcess) and "another process has ended" in str(first)
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) == 2  # a and b; c
    expected = run_schedules(SOURCES, TARGETS["one"], THETA, orders, 0.1, 2)
    for found in together(2, train, tmp_path):
        assert torch.equal(found, expected)


def command(count: int, folders: list[Path], *arguments: str) -> list[tuple[int, str, str]]:
    """Exit code and output of ``lietoolkit`` in so many processes, each in its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(number: int) -> int:
        os.chdir(folders[number])
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ |= {
            "RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_RANK": str(number),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        sys.argv = ["lietoolkit", *arguments]
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
        return -1

    codes = fork(count, run)
    return [
        (code, (folder / "stdout").read_text(), (folder / "stderr").read_text())
        for code, folder in zip(codes, folders, strict=True)
    ]


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Working folders of two processes, with the same data."""
    made = [tmp_path / "0", tmp_path / "1"]
    for folder in made:
        folder.mkdir()
        for name, rows in ROWS.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def plan_arguments(model: str, *more: str) -> list[str]:
    sources = [part for name in ROWS for part in ("--source", f"{name}={name}.jsonl")]
    return [
        "plan", "--model", model, *sources, "--target", "math.jsonl", "--steps", "1", "--device",
        "cpu", "--batch-size", "4", "--no-report", *more,
    ]  # fmt: skip


def test_the_command_writes_and_prints_once(model, folders, tmp_path) -> None:
    pytest.importorskip("typer")
    alone = plan_arguments(model, "--verify", "4", "--verify-steps", "1", "--out", "alone")
    assert command(1, folders[:1], *alone)[0][0] == 0
    shared = [*alone[:-1], str(tmp_path / "shared")]
    (code, out, err), (other, nothing, silence) = command(2, folders, *shared)
    assert code == other == 0, err + silence
    assert "Train in this order" in out and not nothing and not silence
    results = (folders[0] / "alone" / "plan.json", tmp_path / "shared" / "plan.json")
    plans = [json.loads(path.read_text()) for path in results]
    for plan in plans:
        del plan["seconds"]
    close(plans[1], plans[0])


def test_the_command_ends_everywhere_when_one_process_finds_a_broken_file(model, folders) -> None:
    pytest.importorskip("typer")
    (folders[1] / "cat.jsonl").write_text('{"prompt": "no completion"}\n')
    (code, out, err), (other, nothing, silence) = command(2, folders, *plan_arguments(model))
    assert code == other == 2
    assert "cat.jsonl" in err and "Traceback" not in err and not out
    assert not nothing and "Error" not in silence  # it is said once
    # Files that are both right but not the same.
    (folders[1] / "cat.jsonl").write_text((folders[0] / "math.jsonl").read_text())
    (code, _, err), (other, _, silence) = command(2, folders, *plan_arguments(model))
    assert code == other == 2 and "same data in every process" in err and "Error" not in silence


def test_wrapped_models_are_refused(tmp_path) -> None:
    def wrapped() -> list[str]:
        from torch.nn.parallel import DistributedDataParallel

        messages = []
        for wrap in (DistributedDataParallel, sharded):
            with pytest.raises(lt.InputError) as caught:
                lt.ModelObjective(wrap(torch.nn.Linear(4, 4)), [{"x": torch.ones(2, 4)}], len)
            messages.append(str(caught.value))
        return messages

    def sharded(layer: torch.nn.Module) -> torch.nn.Module:
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(layer, device_id=torch.device("cpu"))

    for found in together(2, wrapped, tmp_path):
        assert "give model.module" in found[0]
        assert "found FullyShardedDataParallel; give the model before" in found[1]


TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2")
# With --cpu it wants MPI; --multi_gpu starts its processes where there is no GPU, too.
ACCELERATE = ("accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_plan_is_started_and_ended_when_one_process_is_killed(model, folders, launcher) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("accelerate")
    plan = plan_arguments(model, "--verify", "6")
    launch = [sys.executable, "-m", *launcher, "-m", "lietoolkit.cli", *plan]

    def start(**more: Any) -> subprocess.Popen:
        return subprocess.Popen(
            launch, cwd=folders[0], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(Path(lt.__file__).parent.parent)}, **more,
        )  # fmt: skip

    killed = start()
    kept = folders[0] / "out" / "verify"
    deadline = time.monotonic() + SECONDS
    while not list(kept.glob("orders-*.1.jsonl")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    told = killed.communicate(timeout=SECONDS)[0]
    assert killed.returncode and "Signal 9 (SIGKILL)" in told
    again = start()
    assert not again.wait(timeout=2 * SECONDS) and (folders[0] / "out" / "plan.json").exists()
    assert again.communicate()[0].count("Train in this order") == 1
