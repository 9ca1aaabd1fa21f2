"""``lietoolkit train``: options, one seed one result, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from lietoolkit import cli
from lietoolkit.errors import InputError

pytest.importorskip("trl")

from datasets import Dataset
from safetensors.torch import load_file

from lietoolkit.tasks.generated import sft_families
from lietoolkit.trainers.run import DEFAULT_STEPS, Settings, _options, train_in_order

pytestmark = pytest.mark.filterwarnings("ignore")

FAST = ("--planner", "tournament", "--device", "cpu", "--batch-size", "2", "--disable_tqdm", "True")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def data(tmp_path) -> list[str]:
    """Options that name two sources and a target."""
    made = sft_families(seed=0, rows=8)
    for name, rows in (("a", made["sort"]), ("b", made["copy"]), ("t", made["sort"][:4])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["--source", "a=a.jsonl", "--source", "b=b.jsonl", "--target", "t.jsonl"]


@pytest.fixture
def train(monkeypatch, tmp_path, capsys):
    """Run the command in this process and an empty folder; its output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["lietoolkit", "train", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert stop.value.code == code, out + err
        return out + err

    return call


def result(out: str | Path = "out") -> dict:
    return json.loads((Path(out) / "train.json").read_text())


def test_it_plans_and_trains_in_that_order(train, model, data):
    text = train(
        "--model", model, *data, *FAST, "--steps", "2", "--lr", "1e-2", "--optimizer", "sgd"
    )
    plan, done = json.loads(Path("out/plan.json").read_text()), result()
    assert done["order"] == plan["order"] and " -> ".join(plan["order"]) in text
    assert done["steps"] == 4 and plan["steps"] == 2 and plan["lr"] == 1e-2
    assert plan["optimizer"] == "sgd" and plan["schedule"] == "constant"
    assert done["start"]["target"] == pytest.approx(plan["targets"]["target"]["loss"])
    assert done["final"] != done["start"]
    stages = [row for row in done["log"] if "order/stage" in row]
    assert stages[-1]["order/target_loss"] == pytest.approx(done["final"]["target"])
    weights = load_file("out/model.safetensors")
    before = load_file(Path(model) / "model.safetensors")
    assert any(not weights[name].equal(before[name]) for name in before)


def test_a_config_file_and_trls_names(train, model, data, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"model_name_or_path: {model}\n"
        "source:\n  a: a.jsonl\n  b: b.jsonl\n"
        "target: t.jsonl\n"
        "learning_rate: 0.01\nsteps: 2\nbatch-size: 2\nplanner: tournament\ndevice: cpu\n"
        "gradient_accumulation_steps: 2\nadam_beta2: 0.9\ndisable_tqdm: true\noutput_dir: first\n"
        "constraint: b first\ngradient_checkpointing_kwargs:\n  use_reentrant: false\n"
    )
    train("--config", "run.yaml")
    first = json.loads(Path("first/plan.json").read_text())
    assert first["lr"] == 0.01 and result("first")["steps"] == 4
    assert first["constraints"] == ["b first"] and first["order"] == ["b", "a"]
    assert first["sources"]["a"]["used"] == 4, "two batches of two rows to a step"
    train("--config", "run.yaml", "--lr", "0.02", "--out", "second", "--adam_beta2", "0.8",
          "--num_train_epochs=2", "--max_steps=-1")  # fmt: skip
    assert json.loads(Path("second/plan.json").read_text())["lr"] == 0.02
    assert result("second")["steps"] == 8


def test_a_source_in_two_parts_and_going_on(train, model, data):
    run = ["--model", model, *data, *FAST, "--steps", "2", "--lr", "1e-2", "--split", "a"]
    train(*run)
    plan, done = json.loads(Path("out/plan.json").read_text()), result()
    assert sorted(done["order"]) == ["a/1", "a/2", "b"] and done["steps"] == 4
    assert plan["steps_of"] == {"a/1": 1, "a/2": 1} and plan["steps"] == 2
    train(*run)
    assert result()["final"] == done["final"]


def test_epochs_take_the_place_of_steps_however_they_are_spelled():
    for name in ("num_train_epochs", "num-train-epochs"):
        given = _options(Settings(others=(f"--{name}", "2")), 2, True, Path("out"))
        assert not any(option.startswith("--max_steps") for option in given)
    given = _options(Settings(), 2, True, Path("out"))
    assert f"--max_steps={2 * DEFAULT_STEPS}" in given


@pytest.mark.slow
def test_dpo_and_plain_text(train, model, tmp_path):
    pair = {"prompt": "say", "chosen": " it again", "rejected": " no"}
    (tmp_path / "p.jsonl").write_text("\n".join([json.dumps(pair)] * 4))
    (tmp_path / "q.jsonl").write_text("\n".join([json.dumps(pair | {"prompt": "cat"})] * 4))
    (tmp_path / "x.jsonl").write_text('{"text": "the cat sat"}\n{"text": "on the mat"}\n')
    train("--model", model, *FAST, "--objective", "dpo", "--source", "p=p.jsonl", "--source",
          "q=q.jsonl", "--target", "p.jsonl", "--steps", "1", "--beta", "0.3", "--lr", "1e-3",
          "--out", "d")  # fmt: skip
    assert result("d")["start"]["target"] == pytest.approx(0.693147, abs=1e-5)
    assert result("d")["final"]["target"] < 0.693
    train("--model", model, *FAST, "--objective", "lm", "--source", "x=x.jsonl", "--source",
          "y=x.jsonl", "--target", "x.jsonl", "--steps", "1", "--out", "l")  # fmt: skip
    assert result("l")["steps"] == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--learning_rat", "1"], "--learning_rat: expected an option of lietoolkit train"),
        (["--gradient_accumulation_steps", "two"], "invalid int value: 'two'"),
        (["--optimizer", "adam"], "optimizer: expected one of adamw, sgd, momentum"),
        (["--config", "none.yaml"], "--config none.yaml: expected a YAML file"),
        (["--config", "list.yaml"], "list.yaml: expected option names with values, found list"),
        (["--max_steps", "1"], "max_steps: expected at least one step for each of 2 sources"),
        (["--steps", "0"], "steps: expected a whole number of at least 1, found 0"),
        (["--batch-size", "0"], "per_device_train_batch_size: expected a whole number"),
        (["--warmup", "-1"], "warmup_steps"),
        (["--source", "c=t.txt"], "source 'c': expected prompt, completion as in source 'a', "
                                  "found text"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(train, model, data, tmp_path, options, message):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "t.txt").write_text("the cat sat on the mat")
    assert message in train("--model", model, *data, *FAST, *options, code=2)


def test_a_mistyped_objective_is_no_sft(tmp_path):
    rows = Dataset.from_list([{"prompt": "say", "completion": " it"}] * 2)
    with pytest.raises(InputError, match="objective: expected one of lm, sft, dpo; found 'stf'"):
        train_in_order(Settings(objective="stf"), {"a": rows, "b": rows}, rows, tmp_path)


def test_another_run_in_the_folder_is_not_touched(train, model, data):
    train("--model", model, *data, *FAST, "--steps", "1")
    before = Path("out/model.safetensors").read_bytes()
    text = train("--model", model, *data, *FAST, "--steps", "1", "--lr", "0.5", code=2)
    assert "--out: expected an empty folder or this very run" in text
    assert Path("out/model.safetensors").read_bytes() == before
    # The very same run is there already and stays.
    train("--model", model, *data, *FAST, "--steps", "1")
    assert Path("out/model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(train, model, data):
    options = ["--model", model, *data, *FAST, "--steps", "2", "--lr", "1e-2", "--use_peft",
               "--lora_r", "2", "--lora_dropout", "0.1"]  # fmt: skip
    for out, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        train(*options, "--seed", seed, "--out", out)
    one, two, other = (
        load_file(f"{out}/adapter_model.safetensors") for out in ("one", "two", "other")
    )
    assert all(one[name].equal(two[name]) for name in one)
    assert not all(one[name].equal(other[name]) for name in one)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_in_the_same_place(tmp_path):
    command = [
        sys.executable, "-W", "ignore", "-m", "lietoolkit.cli", "train", "--device", "cpu",
        "--steps", "12", "--batch-size", "4", "--lr", "1e-4", "--planner", "tournament",
        "--save_steps", "4", "--schedule", "linear", "--disable_tqdm", "True", "--out",
    ]  # fmt: skip
    subprocess.run([*command, "calm"], cwd=tmp_path, check=True, capture_output=True)
    for step in (4, 28):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen([*command, "cut"], cwd=tmp_path, stdout=log, stderr=log)
        seen = tmp_path / "cut" / f"checkpoint-{step}"
        while process.poll() is None and not seen.exists():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert "final" not in result(tmp_path / "cut")
    subprocess.run([*command, "cut"], cwd=tmp_path, check=True, capture_output=True)
    calm, cut = result(tmp_path / "calm"), result(tmp_path / "cut")
    assert cut["order"] == calm["order"] and cut["final"] == calm["final"]
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in ("calm", "cut"))
    assert all(one[name].equal(two[name]) for name in one)
