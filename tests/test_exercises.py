"""The exercises: solutions pass, stubs wait, mistakes are named, nothing leaks, nbgrader grades."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from planted_answers import PLANTED

from lietoolkit.course import exercises as ex
from lietoolkit.course.checks_core import Wrong
from lietoolkit.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "exercises"


def _load_builder():
    spec = importlib.util.spec_from_file_location(
        "build_exercises", ROOT / "scripts/build_exercises.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder = _load_builder()
SOURCES = sorted((FOLDER / "src").glob("[0-9][0-9]_*.py"))
SOLVED = {source.stem: builder.solution_notebook(source) for source in SOURCES}
KEYS = {key: name for name, nb in SOLVED.items() for key, *_ in builder.headings(nb)}


def _cells(name: str, key: str) -> tuple[str, str]:
    """The import cell of a notebook and the cell that holds an exercise's solution."""
    notebook = SOLVED[name]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    place = next(i for i, source in enumerate(code) if source.startswith(f'ex.check("{key}"'))
    answer = max(i for i in range(place) if "BEGIN SOLUTION" in code[i])
    return code[0], code[answer]


def _answer(key: str, cell: str | None = None):
    """The function of an exercise, from its solution cell or from a changed one."""
    imports, solution = _cells(KEYS[key], key)
    space: dict = {}
    exec(imports, space)
    if key == "6.4":  # it may use the function of 6.2
        exec(_cells(KEYS[key], "6.2")[1], space)
    exec(cell or solution, space)
    return space[re.search(r"^def (\w+)", solution, re.M)[1]]


def _planted(key: str, piece: str | None, replacement: str) -> str:
    _, cell = _cells(KEYS[key], key)
    region = re.search(r"( +### BEGIN SOLUTION\n)(.*?)( +### END SOLUTION)", cell, re.S)
    body = region[2]
    if piece is None:
        changed = "".join(f"    {line}\n" for line in replacement.splitlines())
    else:
        assert piece in body, f"{piece!r} is not in the solution of {key}"
        changed = body.replace(piece, replacement)
    return cell[: region.start(2)] + changed + cell[region.end(2) :]


def test_generated_files_are_current() -> None:
    stale = [
        file.name
        for file, text in builder.outputs().items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run scripts/build_exercises.py"


def test_every_notebook_has_three_exercises_and_each_has_a_check() -> None:
    count = Counter(KEYS.values())
    assert set(count) == {source.stem for source in SOURCES} and min(count.values()) >= 3
    for key in KEYS:
        exercise = ex.find(key)
        assert exercise.hints
        assert (exercise.panel is None) == (f'ex.draw("{key}"' not in _source(key))
        assert f'ex.check("{key}"' in _source(key) and f'ex.hint("{key}")' in _source(key)


def _source(key: str) -> str:
    return (FOLDER / "src" / f"{KEYS[key]}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", KEYS)
def test_the_solution_is_right_and_the_stub_waits(key: str, capsys) -> None:
    assert ex.check(key, _answer(key)) is None
    assert capsys.readouterr().out == f"{key}: right\n"
    _, cell = _cells(KEYS[key], key)
    result = ex.check(key, _answer(key, builder.without_solution(cell)))
    out = capsys.readouterr()
    assert out.out == f"{key}: not attempted yet\n" and not out.err
    assert float(repr(result)) == 0


@pytest.mark.parametrize(("key", "piece", "replacement", "message"), PLANTED)
def test_a_planted_mistake_is_named(
    key: str, piece: str | None, replacement: str, message: str
) -> None:
    answer = _answer(key, _planted(key, piece, replacement))
    with pytest.raises(Wrong, match=re.escape(message)):
        ex.check(key, answer)


def test_every_exercise_has_three_planted_mistakes() -> None:
    count = Counter(key for key, *_ in PLANTED)
    assert {key: count[key] for key in KEYS if count[key] < 3} == {}


DRAWN = [key for key in KEYS if ex.find(key).panel]


@pytest.mark.parametrize(
    "key", [DRAWN[0], *(pytest.param(key, marks=pytest.mark.slow) for key in DRAWN[1:])]
)
def test_pictures_show_the_target_before_and_after(key: str) -> None:
    _, cell = _cells(KEYS[key], key)
    stub = ex.draw(key, _answer(key, builder.without_solution(cell)))
    assert repr(stub).endswith("Right, yours: not attempted yet.")
    solved = ex.draw(key, _answer(key))
    assert "drawn the same way" in repr(solved)
    assert solved.page != stub.page and "alt=" in solved._repr_html_()

    def broken(*_: object) -> None:
        raise KeyError("lr")

    assert "your function raised KeyError" in repr(ex.draw(key, broken))


def test_student_notebooks_hold_no_solution() -> None:
    leaks = {}
    for name, notebook in SOLVED.items():
        student = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        found = _leaks(notebook, nbformat.reads(student, as_version=4))
        if found or "SOLUTION" in student:
            leaks[name] = found
    assert leaks == {}


def _leaks(solved: nbformat.NotebookNode, student: nbformat.NotebookNode) -> list[str]:
    """Lines of solutions that are found in the student's notebook, outside what both share."""
    text = "\n".join(cell.source for cell in student.cells)
    text += "".join(str(cell.get("outputs", "")) for cell in student.cells)
    lines = []
    for cell in solved.cells:
        for region in re.findall(r"BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S):
            lines += [line.strip() for line in region.splitlines()]
    return [line for line in lines if len(line) > 8 and line in text]


@pytest.mark.parametrize("name", SOLVED)
def test_a_leaked_solution_is_noticed(name: str) -> None:
    """Each solution in turn, in a student's cell, in a printed text, or in the prose."""
    solved, leaks = SOLVED[name], 0
    assert _leaks(solved, builder.student_notebook(solved)) == []
    for cell in solved.cells:
        for region in re.findall(r"BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S):
            for place in ("code", "output", "prose"):
                leaky = builder.student_notebook(solved)
                at = next(
                    c for c in leaky.cells if (c.cell_type == "markdown") == (place == "prose")
                )
                if place == "output":
                    at["outputs"] = [{"text": region}]
                else:
                    at["source"] += "\n" + region
                assert _leaks(solved, leaky), region
            leaks += 1
    assert leaks >= 3


def test_hints_are_folded_and_solutions_come_from_the_source(tmp_path, monkeypatch) -> None:
    hint = ex.hint("1.1")
    assert hint.page.count("<details>") == len(ex.find("1.1").hints) and "<b>" not in hint.page
    shown = ex.solution("1.1")
    assert "x = x + t / steps * field(x)" in shown.text and "SOLUTION" not in shown.text
    monkeypatch.setattr(ex, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.chdir(tmp_path)
    assert "without solutions" in repr(ex.solution("1.1"))


@pytest.mark.parametrize(
    ("key", "message"),
    [("1.99", "expected one of 1.1"), ("99.1", "no exercises yet"), ("one", 'such as "1.2"')],
)
def test_unknown_exercises_are_refused(key: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ex.find(key)


def test_warnings_of_an_answer_cost_no_points(capsys) -> None:
    def loud(sigma, lr, steps):
        warnings.warn("careful", UserWarning, stacklevel=1)
        return (steps * lr) ** 2 * sigma

    assert ex.check("4.1", loud) is None
    assert capsys.readouterr().err == ""


def test_answers_may_not_change_their_inputs() -> None:
    def in_place(field, x, t, steps):
        for _ in range(steps):
            x += t / steps * field(x)
        return x

    with pytest.raises(Wrong, match="in place"):
        ex.check("1.1", in_place)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda sigma, lr, steps: 1.0001 * (steps * lr) ** 2 * sigma, "do not round"),
        (lambda sigma, lr, steps: [sigma, lr], "expected shape [], got [2]"),
        (lambda sigma, lr, steps: float("nan"), "NaN"),
        (lambda sigma, lr, steps: "0.1", "got '0.1'"),
    ],
)
def test_other_wrong_answers_are_told_what_was_expected(answer, message: str) -> None:
    with pytest.raises(Wrong, match=re.escape(message)):
        ex.check("4.1", answer)


def test_a_wrong_answer_shows_its_message_without_a_traceback() -> None:
    with pytest.raises(Wrong) as caught:
        ex.check("1.1", lambda field, x, t, steps: x)
    lines = caught.value._render_traceback_()
    assert len(lines) == 1 and lines[0].startswith("Not yet right. On example 1 of 3: expected [")


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("kind", ["solutions", ""])
def test_notebooks_run(name: str, kind: str) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / kind / f"{name}.ipynb", as_version=4)
    # A busy machine hands one printed line over in two pieces.
    options = {"coalesce_streams": True, "resources": {"metadata": {"path": FOLDER}}}
    NotebookClient(notebook, timeout=240, **options).execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    said = [o.text.strip().split(": ")[1] for o in outputs if o.output_type == "stream"]
    expected = "right" if kind else "not attempted yet"
    assert said == [expected] * sum(n == name for n in KEYS.values())


@pytest.mark.slow
def test_nbgrader_hands_out_grades_and_explains(tmp_path: Path) -> None:
    pytest.importorskip("nbgrader", reason="needs nbgrader: pip install nbgrader")
    names = [source.stem for source in SOURCES]
    builder.course_folder(tmp_path)
    _nbgrader(tmp_path, "generate_assignment", "exercises", "--create")
    release = tmp_path / "release" / "exercises"
    for name in names:
        handed_out = nbformat.read(release / f"{name}.ipynb", as_version=4)
        ours = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        assert [c.source for c in handed_out.cells] == [c.source for c in ours.cells]
    for student in ("empty", "perfect", "wrong"):
        shutil.copytree(release, tmp_path / "submitted" / student / "exercises")
    for name in names:
        solved = nbformat.from_dict(SOLVED[name])
        hand_in = tmp_path / "submitted" / "perfect" / "exercises" / f"{name}.ipynb"
        _fill_in(hand_in, {c.id: c.source for c in solved.cells})
        first = next(key for key, owner in KEYS.items() if owner == name)
        planted = next(row for row in PLANTED if row[0] == first)
        for cell in solved.cells:
            if cell.source == _cells(name, first)[1]:
                cell["source"] = _planted(*planted[:3])
        hand_in = tmp_path / "submitted" / "wrong" / "exercises" / f"{name}.ipynb"
        _fill_in(hand_in, {c.id: c.source for c in solved.cells})
    _nbgrader(tmp_path, "autograde", "exercises", "--create")
    _nbgrader(tmp_path, "generate_feedback", "exercises")
    _nbgrader(tmp_path, "export", "--to", "grades.csv")
    lines = [line.split(",") for line in (tmp_path / "grades.csv").read_text().splitlines()]
    grades = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    scores = {row["student_id"]: float(row["score"]) for row in grades}
    points = {key: p for nb in SOLVED.values() for key, *_, p in builder.headings(nb)}
    lost = sum(points[next(k for k, owner in KEYS.items() if owner == name)] for name in names)
    total = sum(points.values())
    assert float(grades[0]["max_score"]) == total
    assert scores == {"empty": 0, "perfect": total, "wrong": total - lost}
    feedback = tmp_path / "feedback" / "wrong" / "exercises" / f"{names[0]}.html"
    assert PLANTED[0][3] in feedback.read_text(encoding="utf-8")


def _nbgrader(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "nbgrader", *arguments]
    # nbgrader calls alembic by name, so the environment's programs must come first.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": programs}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _fill_in(file: Path, sources: dict[str, str]) -> None:
    """Write answers into the student's cells of a handed-out notebook."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell["source"] = sources[cell.id]
    nbformat.write(notebook, file)
