"""Parameters, ledger and runner of the course."""

from __future__ import annotations

import json

import pytest

import lietoolkit as lt
from lietoolkit.cli import app
from lietoolkit.course import ledger, runner, settings


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("LIETOOLKIT_HOME", str(tmp_path / "home"))


def test_setup_checks_and_seeds(capsys) -> None:
    import torch

    run = settings.setup({"profile": "ci", "seed": 7, "device": "auto", "_x": 1, "json": json})
    assert (run.profile, run.seed, run.device) == ("ci", 7, "cpu")
    assert capsys.readouterr().out == "profile ci, seed 7, device cpu\n"
    assert torch.initial_seed() == 7
    assert run.generator.initial_seed() == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sed": 7}, r"'sed': there is no such parameter.*profile \(str.*seed \(int.*device"),
        ({"seed": "7"}, r"'seed': expected int, found '7' \(str\)"),
        ({"seed": True}, "'seed': expected int, found True"),
        ({"seed": -1}, "0 or more, found -1"),
        ({"profile": "fast"}, "one of ci, laptop, gpu; found 'fast'"),
        ({"profile": None}, r"'profile': expected str, found None"),
        ({"device": "tpu"}, "expected auto or one of cpu.*found 'tpu'"),
    ],
)
def test_bad_parameters_are_refused_with_the_valid_ones(given, message: str) -> None:
    with pytest.raises(lt.InputError, match=message):
        settings.setup({"profile": "ci", "seed": 0, "device": "auto"} | given)


def test_setup_sees_what_papermill_injected_and_nothing_later() -> None:
    names = {"profile": "ci", "seed": 0, "device": "auto", "later": 3, "sed": 7}
    cells = ["", "from x import y", "profile = 'ci'\nseed = 0", "run = course.setup(globals())"]
    settings.setup({**names, "In": [*cells, "later = 3", "course.setup(globals())"]})
    injected = [*cells[:3], "# Parameters\nsed = 7\n", *cells[3:]]
    with pytest.raises(lt.InputError, match="'sed'"):
        settings.setup({**names, "In": injected})


def test_bets_are_scored_once(capsys) -> None:
    ledger.bet("01.q", "Which?", ["a", "b"], choice="a", confidence=0.8)
    ledger.reveal("01.q", "b", "b = 2.0")
    text = capsys.readouterr().out
    assert "Answer: b. Measured: b = 2.0." in text
    assert "80% sure. Not so; score 0.64" in text
    ledger.bet("01.q", "Which?", ["a", "b"], choice="b", confidence=1.0)
    ledger.reveal("01.q", "b")
    assert "first bet on this question is the one that counts" in capsys.readouterr().out
    ledger.bet("02.q", "Which?", ["a", "b"], choice="a", confidence=0.9)
    ledger.reveal("02.q", "a")
    first, second = ledger.entries()
    assert (first.brier, second.brier) == (pytest.approx(0.64), pytest.approx(0.01))
    assert "1 of 2 bets right" in ledger.summary()
    assert "Brier score 0.64" in ledger.summary("01")


def test_no_bet_no_score(capsys) -> None:
    ledger.bet("01.q", "Which?", ["a", "b"])
    ledger.reveal("01.q", "a")
    assert "did not bet" in capsys.readouterr().out
    assert ledger.entries() == []
    assert "no bets yet" in ledger.summary("01")


def test_bet_controls_record_what_is_chosen() -> None:
    pytest.importorskip("ipywidgets")
    question = ledger.bet("01.q", "Which?", ["a", "b"])
    _, answers, sure, note = question.widget().children
    assert answers.value is None
    answers.value, sure.value = "b", 60
    assert note.value == "Your bet: b, 60% sure."
    ledger.reveal("01.q", "b")
    assert [(e.choice, e.confidence) for e in ledger.entries()] == [("b", 0.6)]
    assert "application/vnd.jupyter.widget-view+json" in question._repr_mimebundle_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ledger.bet("q", "?", ["a"]), "two or more different"),
        (lambda: ledger.bet("q", "?", ["a", "a"]), "two or more different"),
        (lambda: ledger.bet("q", "?", ["a", "b"], choice="c"), "found 'c'"),
        (lambda: ledger.bet("q", "?", ["a", "b"], choice="a", confidence=80), "found 80"),
        (lambda: ledger.reveal("nowhere", "a"), "run the cell with this bet first"),
        (lambda: (ledger.bet("q", "?", ["a", "b"]), ledger.reveal("q", "c")), "found 'c'"),
    ],
)
def test_mistakes_with_bets_are_named(call, message: str) -> None:
    with pytest.raises(lt.InputError, match=message):
        call()


def test_a_broken_ledger_is_named_with_its_line() -> None:
    ledger.home().mkdir(parents=True)
    (ledger.home() / "ledger.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(lt.InputError, match=r"ledger.jsonl, line 1: expected one bet"):
        ledger.summary()


def test_finish_raises_when_a_figure_failed() -> None:
    live = pytest.importorskip("lietoolkit.live")
    live.ERRORS.append("ValueError: planted")
    try:
        with pytest.raises(RuntimeError, match="planted"):
            ledger.finish("01")
    finally:
        live.ERRORS.clear()
    ledger.finish("01")


def test_command_line(tmp_path) -> None:
    from typer.testing import CliRunner

    cli = CliRunner()
    ledger.bet("01.q", "Which?", ["a", "b"], choice="a", confidence=0.8)
    ledger.reveal("01.q", "a")
    listed = cli.invoke(app, ["course", "list"])
    assert "01  " in listed.output
    assert "(1 bets)" in listed.output
    assert "1 of 1 bets right" in cli.invoke(app, ["course", "progress"]).output
    cli.invoke(app, ["course", "export", str(tmp_path / "bets.json")])
    assert json.loads((tmp_path / "bets.json").read_text())[0]["brier"] == pytest.approx(0.04)
    cli.invoke(app, ["course", "reset", "--yes"])
    assert ledger.entries() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "99"], "expected one of 01"),
        (["run", "01", "-p", "sed", "7"], "'sed': there is no such parameter"),
        (["run", "01", "-p", "seed=x"], "'seed': expected int, found 'x'"),
        (["run", "01", "-p", "seed"], "expected a value, as in -p seed 7"),
        (["run", "01", "extra"], "expected nothing after the notebook"),
    ],
)
def test_command_line_refuses_before_running(arguments, message: str, tmp_path) -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["course", *arguments, "--out", str(tmp_path)])
    assert isinstance(result.exception, lt.InputError)
    assert message in str(result.exception)
    assert not list(tmp_path.glob("*.ipynb"))


def test_notebooks_are_found_by_number_and_name() -> None:
    assert runner.find("1") == runner.find("01") == runner.find("01_flows_and_brackets")
