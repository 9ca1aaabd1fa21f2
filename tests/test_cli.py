"""The command line: the whole way from files to a verified plan, and the other commands."""

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

import lietoolkit_command
from lietoolkit import cli
from lietoolkit.tasks import options

pytest.importorskip("transformers")
pytest.importorskip("typer")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command line in this process and an empty folder; its output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lietoolkit", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output = capsys.readouterr()
        assert not stop.value.code, output.err
        return output.out

    return call


def lines(path: Path, *rows: dict) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def say(*words: str) -> list[dict]:
    return [{"prompt": f"say {word}:", "completion": f" {word} it is"} for word in words]


FAST = ("--steps", "1", "--optimizer", "sgd", "--no-report", "--device", "cpu")


def test_from_a_folder_to_a_verified_plan(run, model, tmp_path) -> None:
    data = tmp_path / "data"
    lines(data / "one.jsonl", *say("cat", "mat", "sat", "on"))
    lines(data / "two.jsonl", *say("Paris", "France", "capital"))
    (data / "three.csv").write_text("prompt,completion\nsay good:, good it is\n", encoding="utf-8")
    (data / "README").write_text("not data")
    target = lines(tmp_path / "eval.jsonl", *say("again", "Paris"))
    output = run(
        "plan", "--model", model, "--sources", "data", "--target", target, *FAST, "--verify", "4",
        "--verify-steps", "1", "--verify-steps", "2", "--constraint", "two last", "--out", "new",
    )  # fmt: skip
    plan = json.loads((tmp_path / "new" / "plan.json").read_text())
    assert sorted(plan["names"]) == ["one", "three", "two"]
    assert plan["order"][-1] == "two"
    for place, name in enumerate(plan["order"], 1):
        assert f"{place}. {name}" in output
    for steps in ("1", "2"):
        found = plan["verification"]["steps"][steps]
        assert f"plan is number {found['rank']} of {found['n']} orders" in output
    assert "1 step per source" in output and "2 steps per source" in output
    assert plan["sources"]["one"]["rows"] == 4
    assert plan["constraints"] == ["two last"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["plan.json", "verify"]
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "new" / "verify").iterdir()}
    run(
        "plan", "--model", model, "--sources", "data", "--target", target, *FAST, "--verify", "4",
        "--verify-steps", "1", "--verify-steps", "2", "--constraint", "two last", "--out", "new",
    )  # fmt: skip
    again = json.loads((tmp_path / "new" / "plan.json").read_text())
    assert again["verification"] == plan["verification"]
    assert kept == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "new" / "verify").iterdir()}


def test_targets_with_names_and_weights(run, model, tmp_path) -> None:
    a, b = lines(tmp_path / "a.jsonl", *say("cat")), lines(tmp_path / "b.jsonl", *say("good"))
    c = lines(tmp_path / "c.jsonl", *say("Paris"))
    run("plan", "--model", model, *FAST, "--source", f"a={a}", "--source", f"b={b}",
        "--target", c, "--target", f"hard={b}:0.5", "--lr", "0.01")  # fmt: skip
    plan = json.loads(Path("out/plan.json").read_text())
    assert {n: t["weight"] for n, t in plan["targets"].items()} == {"target": 1.0, "hard": 0.5}
    assert plan["lr"] == 0.01


def test_reading_targets() -> None:
    data = {"a": "a.jsonl"}
    assert options.read_targets(["x.jsonl"], data, "sft") == ("x.jsonl", None)
    assert options.read_targets(["t=x.jsonl"], data, "sft") == ({"t": "x.jsonl"}, {"t": 1.0})
    aims, weights = options.read_targets(
        ["x.jsonl", "hard=y.jsonl:0.5", "z=C:/z.jsonl"], data, "sft"
    )
    assert aims == {"target": "x.jsonl", "hard": "y.jsonl", "z": "C:/z.jsonl"}
    assert weights == {"target": 1.0, "hard": 0.5, "z": 1.0}


@pytest.mark.parametrize("objective", ["sft", "dpo", "lm"])
def test_example_data_hold_no_target_row_in_a_source(objective: str) -> None:
    sources = options.read_sources([], None, objective)
    target, weights = options.read_targets([], sources, objective)
    assert list(sources) == list(options.EXAMPLE_SOURCES[objective])
    assert weights is None and target
    trained = {json.dumps(row) for rows in sources.values() for row in rows}
    assert not trained & {json.dumps(row) for row in target}


def test_preferences_and_text_files(run, model, tmp_path) -> None:
    pair = {"prompt": "say it:", "chosen": " good", "rejected": " the cat"}
    for name in ("a", "b"):
        lines(tmp_path / "prefs" / f"{name}.jsonl", pair, pair | {"prompt": f"say {name}:"})
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "x.txt").write_text(f"the cat sat on the mat {name} " * 9)
    run("plan", "--model", model, *FAST, "--objective", "dpo", "--sources", "prefs",
        "--target", "prefs/a.jsonl")  # fmt: skip
    assert json.loads(Path("out/plan.json").read_text())["objective"] == "dpo"
    run("plan", "--model", model, *FAST, "--objective", "lm", "--sources", "text",
        "--target", "text/a")  # fmt: skip
    assert json.loads(Path("out/plan.json").read_text())["names"] == ["a", "b"]


def test_other_commands(run, model, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LIETOOLKIT_CACHE", str(tmp_path / "cache"))
    listed = run("models", "list")
    assert "course" in listed and "lietoolkit models get smollm2-135m" in listed
    assert "torch" in run("doctor")
    assert "--verify" in run("plan", "--help")
    assert "plan" in run("--help")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_control_c_ends_with_130_and_leaves_nothing(model, tmp_path) -> None:
    for name in "ab":
        lines(tmp_path / f"{name}.jsonl", *say("cat", name))
    arguments = ["plan", "--model", model, *FAST, "--source", "a=a.jsonl", "--source", "b=b.jsonl",
                 "--target", "a.jsonl", "--verify", "2", "--verify-steps", "500000"]  # fmt: skip
    # The children of a shell's background job ignore Ctrl-C unless told otherwise.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from lietoolkit.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "out" / "plan.json").exists():
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        error = child.communicate(timeout=60)[1]
    finally:
        child.kill()
    assert child.returncode == 130, error
    assert "the same command continues" in error
    assert "Traceback" not in error
    assert "order" in json.loads((tmp_path / "out" / "plan.json").read_text())


# Says when the command begins to load the package.
LOADING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Loading:
    def find_spec(self, name, *where):
        if name == "lietoolkit":
            print("started", flush=True)

sys.meta_path.insert(0, Loading())
from lietoolkit_command import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_control_c_while_the_package_loads_says_nothing(tmp_path) -> None:
    loaded = 0
    for delay in (0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4):
        child = subprocess.Popen(
            [sys.executable, "-c", LOADING, "plan", "--out", "out"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert child.stdout.readline() == "started\n"
            time.sleep(delay)
            child.send_signal(signal.SIGINT)
            error = child.communicate(timeout=60)[1]
        finally:
            child.kill()
        # Ended by the signal itself while loading, by the command afterwards.
        assert child.returncode in (-signal.SIGINT, 130), error
        assert "Traceback" not in error, (delay, error)
        loaded += child.returncode == 130
    assert loaded < 9


@pytest.mark.parametrize(
    "given, spins",
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_do_not_spin_long_unless_told_otherwise(monkeypatch, given, spins) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that the end of the test takes away what is set below
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr("lietoolkit.cli.main", lambda: seen.append(os.environ.copy()))
    lietoolkit_command.main()
    assert seen[0].get("GOMP_SPINCOUNT") == spins


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "train"])
def test_killed_at_random_it_resumes_with_the_same_numbers(command: str) -> None:
    script = ROOT / "scripts" / "kill_and_resume.py"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--kills", "3", "--command", command],
        capture_output=True, text=True, env=env,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 of 3 resumes identical" in found.stdout


@pytest.mark.slow
def test_the_course_model_is_planned_and_reported(run) -> None:
    """What `make report` does, with fewer orders."""
    output = run("plan", "--steps", "1", "--optimizer", "sgd", "--verify", "4",
                 "--verify-steps", "1", "--verify-steps", "20")  # fmt: skip
    assert "20 steps per source" in output
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert json.loads(Path("out/plan.json").read_text())["order"][0] in page
    assert Path("out/report.ipynb").is_file()


@pytest.mark.slow
def test_smollm2_is_planned(run) -> None:
    from lietoolkit.errors import InputError
    from lietoolkit.tasks.generated import sft_families
    from lietoolkit.tasks.smollm2 import get_smollm2

    try:
        get_smollm2(progress=False)
    except InputError as error:
        if "could not download" not in str(error):
            raise
        pytest.skip(f"smollm2-135m is neither cached nor downloadable: {error}")
    # Two sources: enough to go through everything, at half the cost.
    for name in ("sort", "copy", "addition"):
        rows = sft_families(rows=4)[name]
        Path(f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    data = ("--source", "sort=sort.jsonl", "--source", "copy=copy.jsonl")
    data += ("--target", "addition.jsonl")
    output = run("plan", "--model", "smollm2-135m", *FAST, *data, "--batch-size", "2")
    plan = json.loads(Path("out/plan.json").read_text())
    assert plan["parameters"]["count"] == 134_515_008
    assert f"1. {plan['order'][0]}" in output
    assert plan["lr_rule"]["eta_lambda_max"] == pytest.approx(0.1)
    assert all(abs(x) < 1 for row in plan["matrix"] for x in row)
