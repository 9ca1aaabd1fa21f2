"""What the command line says about input it cannot use: one clear line, exit code 2, no traces."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny
import torch

import lietoolkit as lt
from lietoolkit import cli
from lietoolkit.tasks import losses

pytest.importorskip("transformers")
pytest.importorskip("typer")

SUMS = [{"prompt": f"Q: what is {i} plus 2? A:", "completion": f" {i + 2}"} for i in range(6)]
WORDS = [{"prompt": f"say {word}:", "completion": f" {word} it is"} for word in
         ("cat", "mat", "good", "again", "Paris", "France")]  # fmt: skip
ANSWERS = [{"prompt": "the capital is", "completion": f" {word}"} for word in ("Paris", "good")]
PAIRS = [{"prompt": f"say {i}:", "chosen": f" it is {i}", "rejected": " the cat"} for i in range(6)]


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def place(saved: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with a model and data that work, made the working folder."""
    shutil.copytree(saved, tmp_path / "model")
    for name, rows in (("sums", SUMS), ("words", WORDS), ("eval", ANSWERS), ("prefs", PAIRS)):
        write(tmp_path / f"{name}.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


SOURCES = ("--source", "sums=sums.jsonl", "--source", "words=words.jsonl")
TARGET = ("--target", "eval.jsonl")
SETTINGS = ("--model", "./model", "--steps", "1", "--optimizer", "sgd", "--no-report",
            "--out", "out", "--device", "cpu")  # fmt: skip


@pytest.fixture
def call(place: Path, monkeypatch, capfd) -> Callable[..., Run]:
    """Run the command line in this process."""

    def run(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["lietoolkit", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return Run(code, *capfd.readouterr())

    return run


@pytest.fixture
def plan(call) -> Callable[..., Run]:
    """``lietoolkit plan`` with working settings, and these arguments after them."""

    def run(*arguments: str, sources=SOURCES, target=TARGET) -> Run:
        return call("plan", *SETTINGS, *sources, *target, *arguments)

    return run


def error_line(run: Run) -> str:
    """The last line of the message; progress bars may stand before it."""
    return run.err[max(run.err.rfind("\nError: "), 0) :]


def refused(run: Run, *pieces: str, left: tuple[str, ...] = ()) -> None:
    """Exit code 2, one message with all pieces, no traceback, nothing half-written."""
    assert run.code == 2, run
    assert "Traceback" not in run.err
    message = error_line(run).lstrip("\n")
    assert message.startswith("Error: "), message
    for piece in pieces:
        assert piece in message, message
    out = Path("out")
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == sorted(left)


def test_good_input_works(plan, place) -> None:
    run = plan()
    assert run.code == 0, run.err
    assert "1. " in run.out
    assert [p.name for p in (place / "out").iterdir()] == ["plan.json"]


# --- data ----------------------------------------------------------------------------------------

LINE = json.dumps(SUMS[0]) + "\n"
LONG = json.dumps({"prompt": "the cat sat on the mat " * 90, "completion": " ok"}) + "\n"
FILES = {
    "empty file": (b"", ["words.jsonl", "at least one row", "empty file"]),
    "only blank lines": (b"\n \n\n", ["words.jsonl", "at least one row"]),
    "broken JSON": (
        (LINE + '{"prompt": "a", "compl\n').encode(),
        ["words.jsonl, line 2", "one JSON object", "broken JSON", "Repair the line"],
    ),
    "missing field": (
        (LINE + '{"prompt": "a"}\n').encode(),
        ["words.jsonl, line 2", "prompt, completion", "Add completion"],
    ),
    "wrong type": (
        (LINE + '{"prompt": "a", "completion": 5}\n').encode(),
        ["words.jsonl, line 2: completion", "expected text", "a number (5)"],
    ),
    "a list instead of an object": (b"[1]\n", ["words.jsonl, row 1", "an object", "a number"]),
    "preference data": (
        json.dumps(PAIRS[0]).encode(),
        ["words.jsonl, line 1", "objective sft", "preference data", "use objective dpo"],
    ),
    "not UTF-8": (
        LINE.encode() + b'{"prompt": "\xff", "completion": " a"}\n',
        ["words.jsonl, line 2", "UTF-8", "0xff"],
    ),
    "empty completion": (
        b'{"prompt": "a", "completion": ""}\n',
        ["words.jsonl, line 1", "completion that tokenises to nothing"],
    ),
    "every row too long": (
        LONG.encode(),
        ["words.jsonl", "context of 256 tokens", "1 row, all too long", "Shorten the rows."],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_data_files(case: str, plan) -> None:
    content, pieces = FILES[case]
    Path("words.jsonl").write_bytes(content)
    refused(plan(), *pieces)


def test_a_bad_target_is_named_too(plan) -> None:
    Path("eval.jsonl").write_text('{"prompt": "a", "compl', encoding="utf-8")
    refused(plan(), "eval.jsonl, line 1", "broken JSON")


def test_chosen_equal_to_rejected(plan) -> None:
    write(Path("words.jsonl"), [*PAIRS, {"prompt": "a", "chosen": " b", "rejected": " b"}])
    sources = ("--source", "a=prefs.jsonl", "--source", "b=words.jsonl")
    target = ("--target", "prefs.jsonl")
    run = plan("--objective", "dpo", sources=sources, target=target)
    refused(run, "words.jsonl, line 7", "chosen and rejected to differ", "Remove the row")


def test_instruction_data_for_dpo_and_lm(plan) -> None:
    refused(plan("--objective", "dpo"), "sums.jsonl, line 1", "chosen", "use objective sft")
    refused(plan("--objective", "lm"), "sums.jsonl, line 1", "text", "use objective sft")


def test_missing_file_and_folder_without_data(plan, place) -> None:
    gone = ("--source", "a=sums.jsonl", "--source", "b=gone.jsonl")
    refused(plan(sources=gone), "gone.jsonl: expected a file", "'b'", "Check the path")
    aim = ("--target", "hard=gone.csv")
    refused(plan(target=aim), "gone.csv: expected a file", "'hard'", "Check the path")
    (place / "empty").mkdir()
    refused(plan(sources=("--sources", "empty")), "--sources", ".jsonl", "none in empty")
    refused(plan(sources=("--sources", "gone")), "--sources", "a folder", "gone")


def test_duplicate_names_and_one_source(plan, place) -> None:
    twice = ("--source", "a=sums.jsonl", "--source", "a=words.jsonl")
    refused(plan(sources=twice), "--source", "different names", "'a' twice")
    (place / "data").mkdir()
    write(place / "data" / "a.jsonl", SUMS)
    (place / "data" / "a.csv").write_text("prompt,completion\na, b\n", encoding="utf-8")
    refused(plan(sources=("--sources", "data")), "--sources", "'a' twice")
    refused(plan(sources=("--source", "a=sums.jsonl")), "at least two", "found 1", "--source")
    refused(plan(sources=("--source", "sums.jsonl")), "--source", "NAME=FILE")


def test_no_target(plan) -> None:
    refused(plan(target=()), "--target", "expected a file", "found none")


def test_target_equal_to_source_is_allowed_and_said(plan) -> None:
    run = plan(target=("--target", "sums.jsonl"))
    assert run.code == 0, run.err
    assert "the same data as source 'sums'" in run.out
    assert any(
        "same data" in note for note in json.loads(Path("out/plan.json").read_text())["notes"]
    )


def test_truncation_is_counted_and_said(plan) -> None:
    answer = {"prompt": "say", "completion": " the cat sat on the mat" * 90}
    write(Path("words.jsonl"), [*WORDS, answer])
    run = plan()
    assert run.code == 0, run.err
    assert "words: 1 row longer than the context of 256 tokens: the end was cut off" in run.out
    assert json.loads(Path("out/plan.json").read_text())["sources"]["words"]["truncated"] == 1
    # What transformers says of long rows is not true of rows that were cut.
    assert "indexing errors" not in run.err


def test_rows_that_are_all_too_long_for_a_shorter_context(plan) -> None:
    Path("words.jsonl").write_text(LONG)
    pieces = ("words.jsonl", "context of 32 tokens", "Shorten the rows or raise max_length.")
    refused(plan("--max-length", "32"), *pieces)


@pytest.mark.parametrize("limit", [int(1e30), 500])
def test_rows_are_cut_to_what_the_model_can_read(limit: int, plan, place) -> None:
    """Positions beyond a table of 48 would be an IndexError; the tokenizer does not know of it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_positions": 48, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=330, bos_token_id=1, eos_token_id=2, **sizes)
    shutil.rmtree(place / "model")
    GPT2LMHeadModel(config).save_pretrained(place / "model")
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.model_max_length = limit
    tokenizer.save_pretrained(place / "model")
    write(Path("words.jsonl"), [{"prompt": "say", "completion": " the cat sat" * 50}] * 3)
    run = plan()
    assert run.code == 0, run.err
    assert "words: 3 rows longer than the context of 48 tokens: the end was cut off" in run.out
    shutil.rmtree("out")
    refused(plan("--max-length", "49"), "max_length", "context of 48 tokens", "49", "lower it")


# --- models --------------------------------------------------------------------------------------


def test_unknown_models(plan, monkeypatch) -> None:
    refused(plan("--model", "./nowhere"), "model", "no folder './nowhere'", "course")

    def unreachable(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    refused(plan("--model", "nobody/nothing"), "'nobody/nothing'", "no route", "check the spelling")


def damage(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "no config":
        config.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "pickle":
        weights.unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    elif how == "remote code":
        settings = json.loads(config.read_text())
        config.write_text(json.dumps(settings | {"auto_map": {"AutoModelForCausalLM": "m.M"}}))
        (folder / "m.py").write_text("open('exploded', 'w')\n")
    elif how == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()


class Bomb:
    """Loading this pickle leaves a file behind."""

    def __reduce__(self):
        return open, ("exploded", "w")


@pytest.mark.parametrize(
    ("how", "pieces"),
    [
        ("no config", ["model has no config.json", "save_pretrained"]),
        ("truncated", ["model.safetensors is truncated", "Copy or fetch the file again"]),
        ("pickle", ["pytorch_model.bin", "can run any code", "Only safetensors"]),
        ("remote code", ["config.json", "wants to run Python code", "--trust-remote-code"]),
        ("no tokenizer", ["model has no tokenizer", "tokenizer.save_pretrained"]),
    ],
)
def test_bad_model_folders(how: str, pieces: list[str], plan, place) -> None:
    damage(place / "model", how)
    refused(plan(), "model: ", *pieces)
    assert not (place / "exploded").exists()


def test_half_precision_is_converted_and_said(plan, place) -> None:
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        tiny.model().to(dtype).save_pretrained(place / "model")
        run = plan()
        assert run.code == 0, run.err
        assert f"stored in {name}; they were converted" in run.out
        assert json.loads(Path("out/plan.json").read_text())["dtype"] in ("float32", "float64")


def test_not_finite_loss_names_its_source(plan, place) -> None:
    model, tokenizer = tiny.model(), tiny.tokenizer()
    (broken,) = set(tokenizer("Z")["input_ids"])
    with torch.no_grad():
        model.get_input_embeddings().weight[broken] = float("nan")
    model.save_pretrained(place / "model")
    write(Path("words.jsonl"), [{"prompt": "Z", "completion": " cat"}])
    refused(plan(), "words", "finite", "NaN or infinity", "check")
    # ... also when it is not the first to be read, and as a target.
    swapped = ("--source", "words=words.jsonl", "--source", "sums=sums.jsonl")
    refused(plan(sources=swapped), "words", "NaN or infinity")
    fine = ("--source", "a=sums.jsonl", "--source", "b=eval.jsonl")
    refused(plan(sources=fine, target=("--target", "words.jsonl")), "target", "NaN or infinity")


# --- settings ------------------------------------------------------------------------------------

ARGUMENTS = {
    "--objective ppo": ["objective", "lm, sft, dpo", "'ppo'"],
    "--optimizer lion": ["optimizer", "sgd, momentum, adamw", "'lion'"],
    "--method magic": ["method", "local, trotter", "'magic'"],
    "--planner magic": ["planner", "auto, tournament", "'magic'"],
    "--schedule steps": ["schedule", "constant, linear, cosine", "'steps'"],
    "--lr 0": ["lr", "positive finite number", "0.0"],
    "--lr -1e-3": ["lr", "positive finite number", "-0.001"],
    "--lr nan": ["lr", "positive finite number", "nan"],
    "--lr inf": ["lr", "positive finite number", "inf"],
    "--steps 0": ["steps", "at least 1", "0"],
    "--steps -3": ["steps", "at least 1", "-3"],
    "--warmup -1": ["warmup", "whole number", "-1"],
    "--batch-size 0": ["batch_size", "at least 1", "0"],
    "--batches 0": ["Error: batches", "at least 1", "0"],
    "--split nobody": ["split", "'nobody' is no source", "sums, words"],
    "--split sums --steps 1": ["split", "at least two steps of 'sums'", "leave it whole"],
    "--seed -1": ["seed", "0 to 4294967295", "-1"],
    "--seed 4294967296": ["seed", "0 to 4294967295", "4294967296"],
    "--microbatch 0": ["microbatch", "at least 1", "0"],
    "--max-length 1": ["max_length", "at least 2", "1"],
    "--max-length 257": ["max_length", "context of 256 tokens", "257", "lower it"],
    "--verify 1": ["verify", "at least 2", "1"],
    "--verify -2": ["verify", "at least 2", "-2"],
    "--verify 2 --verify-steps 0": ["verify_steps", "at least 1", "0"],
    "--device tpu9": ["device", "auto", "'tpu9'"],
    "--parameters no.such.*": ["parameters", "no trainable parameter", "'no.such.*'"],
    "--constraint sums_last": ["constraint 'sums_last'", "'a before b'", "sums, words"],
    "--target bad=eval.jsonl:nan": ["weight", "nan"],
}  # fmt: skip


@pytest.mark.parametrize("text", ARGUMENTS)
def test_bad_arguments(text: str, plan) -> None:
    refused(plan(*text.split()), *ARGUMENTS[text])


@pytest.mark.filterwarnings("ignore")  # of trl and its dependencies
def test_bad_arguments_of_training(call, place) -> None:
    pytest.importorskip("trl")
    train = ("train", "--model", "./model", *SOURCES, *TARGET, "--device", "cpu", "--steps", "1")
    refused(call(*train, "--seed", "-1"), "seed", "0 to 4294967295", "-1")
    run = call(*train, "--batch-size", "0")
    assert run.code == 2, run.err
    assert "per_device_train_batch_size: expected a whole number of at least 1" in run.err
    assert not Path("out/plan.json").exists()


def test_contradicting_constraints(plan) -> None:
    loop = ("--constraint", "sums before words", "--constraint", "words before sums")
    refused(plan(*loop), "constraints", "contradict", "remove one")


def test_parser_errors_keep_its_own_form(plan, call) -> None:
    wrong = {"--steps": plan("--steps", "many"), "--nonsense": plan("--nonsense"),
             "--lr": call("plan", "--lr")}  # fmt: skip
    for option, run in wrong.items():
        assert run.code == 2
        assert "Traceback" not in run.err
        assert option in run.err.splitlines()[-1]
    assert not Path("out").exists()


stays_finite = pytest.mark.skipif(
    torch.__version__ < (2, 7), reason="torch 2.6 keeps this model's loss finite at such steps"
)


@stays_finite
def test_diverging_training_says_at_which_step(plan) -> None:
    run = plan("--lr", "300", "--verify", "2", "--verify-steps", "30")
    assert run.code == 2, run
    assert re.search(r"training on '\w+' diverged at step \d+ of 30 .*Lower lr", error_line(run))
    assert "Traceback" not in run.err
    assert json.loads(Path("out/plan.json").read_text())["verification"] is None


@pytest.mark.parametrize("lr", [pytest.param("1e+20", marks=stays_finite), "1e+30"])
def test_absurd_step_size_says_so(lr: str, plan) -> None:
    refused(plan("--lr", lr), "lr", lr, "diverged at step 2", "Lower lr")


# --- resources -----------------------------------------------------------------------------------


@pytest.fixture
def fail_at(monkeypatch) -> Callable[[int, BaseException], None]:
    """Make the n-th evaluation of the loss from now raise, once."""

    def arm(n: int, error: BaseException) -> None:
        calls = iter(range(10**9))
        true_loss = losses.token_mean

        def loss(model, batch):
            if next(calls) == n:
                raise error
            return true_loss(model, batch)

        monkeypatch.setattr(losses, "token_mean", loss)

    return arm


def evaluations(monkeypatch, run: Callable[[], Run]) -> int:
    """How often a run evaluates the loss."""
    count = 0
    true_loss = losses.token_mean

    def loss(model, batch):
        nonlocal count
        count += 1
        return true_loss(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "token_mean", loss)
        assert run().code == 0
    shutil.rmtree("out")
    return count


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_says_what_to_lower(error, plan, fail_at) -> None:
    fail_at(5, error)
    refused(plan(), "out of memory", "lower", "batch_size", "max_length", "microbatch")


def test_out_of_memory_while_verifying(plan, fail_at, monkeypatch) -> None:
    before = evaluations(monkeypatch, plan)
    fail_at(before + 3, torch.OutOfMemoryError("CUDA out of memory."))
    run = plan("--verify", "2", "--verify-steps", "4")
    assert run.code == 2
    assert "Traceback" not in run.err
    assert "out of memory" in run.err and "microbatch" in run.err


def test_folder_that_cannot_be_written_to(plan, place, monkeypatch) -> None:
    (place / "file").write_text("not a folder")
    for out in ("file", "file/out"):
        refused(plan("--out", out), "--out", f"found {out}", "choose another")
    assert (place / "file").read_text() == "not a folder"

    def read_only(self, *args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        refused(plan(), "--out", "Read-only file system", "choose another")
    (place / "out").mkdir()
    with monkeypatch.context() as patch:  # the folder is there, and nothing in it can be changed
        patch.setattr(Path, "write_bytes", read_only)
        patch.setattr(Path, "unlink", read_only)
        refused(plan(), "--out", "found out (Read-only file system)", "choose another")


def test_disk_full_from_the_start(plan, monkeypatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", full)
    refused(plan(), "--out", "No space left", "choose another")


def test_disk_full_while_saving_the_plan(plan, monkeypatch) -> None:
    true_write = Path.write_text

    def half(self, text, *args, **options):
        if "plan.json" in self.name:
            true_write(self, text[:40], *args, **options)
            full()
        return true_write(self, text, *args, **options)

    monkeypatch.setattr(Path, "write_text", half)
    refused(plan(), "out", "No space left", "choose another")


def test_disk_full_while_verifying(plan, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    run = plan("--verify", "2", "--verify-steps", "1")
    assert run.code == 2, run
    assert "Traceback" not in run.err
    assert "No space left" in run.err and "out/verify" in run.err
    assert json.loads(Path("out/plan.json").read_text())["verification"] is None


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_interrupt_at_any_time(plan, fail_at, monkeypatch) -> None:
    total = evaluations(monkeypatch, plan)
    for n in (0, 1, total // 2, total - 1):
        fail_at(n, KeyboardInterrupt())
        run = plan()
        assert run.code == 130, run
        assert "Traceback" not in run.err
        assert not any(p.is_file() for p in Path("out").rglob("*"))


def test_interrupted_verification_keeps_the_plan_and_continues(plan, fail_at, monkeypatch) -> None:
    verified = ("--verify", "2", "--verify-steps", "3")
    total = evaluations(monkeypatch, lambda: plan(*verified))
    fail_at(total - 3, KeyboardInterrupt())
    run = plan(*verified)
    assert run.code == 130
    assert "the same command continues" in run.err
    assert json.loads(Path("out/plan.json").read_text())["verification"] is None
    assert plan(*verified).code == 0
    assert json.loads(Path("out/plan.json").read_text())["verification"]["steps"]["3"]["n"] == 2


# --- a model given as an object ------------------------------------------------------------------


def of_object(model, **options) -> lt.OrderPlan:
    return lt.plan_order(
        model, {"sums": SUMS, "words": WORDS}, ANSWERS, lr=0.01, steps=1, optimizer="sgd",
        tokenizer=tiny.tokenizer(), **options,
    )  # fmt: skip


def test_train_mode_with_dropout_is_refused() -> None:
    model = tiny.model(attention_dropout=0.1).train()
    with pytest.raises(lt.InputError, match=r"dropout.*'attention_dropout'.*call model.eval\(\)"):
        of_object(model)
    of_object(model.eval(), geometry=False)
    of_object(tiny.model().train(), geometry=False)  # no dropout: nothing to object to


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ZeroDivisionError()])
def test_the_model_is_untouched_after_any_end(error, fail_at) -> None:
    model = tiny.model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    storage = [p.data_ptr() for p in model.parameters()]
    fail_at(7, error)
    with pytest.raises((type(error), lt.InputError)):
        of_object(model)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert [p.data_ptr() for p in model.parameters()] == storage
    assert all(p.grad is None for p in model.parameters())


def test_fused_attention_is_switched_said_and_switched_back() -> None:
    model = tiny.model()
    model.set_attn_implementation("flex_attention")
    made = of_object(model, geometry=False)
    assert any("'flex_attention' has no second derivative" in note for note in made.notes)
    assert model.config._attn_implementation == "flex_attention"
    expected = of_object(tiny.model(attn_implementation="sdpa"), geometry=False)
    assert made.matrix == expected.matrix


def test_half_precision_object_is_said() -> None:
    made = of_object(tiny.model().bfloat16(), geometry=False)
    assert any("half precision" in note for note in made.notes)
    assert made.dtype == "float32"


def test_saved_plans_that_are_no_plans(call, place) -> None:
    for content, piece in (("", "plan.json"), ('{"order": 1}', "plan.json"), ("{", "plan.json")):
        (place / "plan.json").write_text(content)
        refused(call("report", "plan.json", "--out", "out"), piece)
    refused(call("report", "gone.json", "--out", "out"), "gone.json")
