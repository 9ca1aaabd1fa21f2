"""Make the exercise notebooks from their sources.

    python scripts/build_exercises.py                      # exercises/*.ipynb, solutions/, README
    python scripts/build_exercises.py --check              # only say what is out of date
    python scripts/build_exercises.py --nbgrader FOLDER    # a course folder for nbgrader

Each ``exercises/src/NN_*.py`` gives a student notebook and a solution notebook. Both carry
nbgrader's marks: a cell with a solution region is the student's, a call of ``ex.check`` is graded.
Points stand in the exercise's heading.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1] / "exercises"
HEADING = re.compile(
    r"^## (\d+\.\d+) (.+)\n"
    r"\*(Warm-up|Exercise|Challenge|An afternoon) · (\d+) minutes · (\d+) points?\*"
)
# What nbgrader's generate_assignment puts in place of a solution.
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
TABLE = ("<!-- table: begin -->", "<!-- table: end -->")

NBGRADER_CONFIG = '''"""nbgrader settings of this course folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "lietoolkit"
c.ExecutePreprocessor.timeout = 300
'''


def solution_notebook(source: Path) -> NotebookNode:
    """The notebook with solutions, marked for nbgrader."""
    notebook = jupytext.read(source, fmt="py:percent")
    points = 0
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
        cell["metadata"] = NotebookNode()
        if cell.cell_type == "markdown":
            match = HEADING.match(cell.source)
            if cell.source.startswith("## ") and not match:
                raise SystemExit(f"{source.name}: heading without level, minutes and points")
            points = int(match[5]) if match else points
        elif "BEGIN SOLUTION" in cell.source:
            cell.metadata = _marks(f"answer-{number}", solution=True, locked=False)
        elif graded := re.match(r'ex\.check\("([\d.]+)"', cell.source):
            grade_id = "check-" + graded[1].replace(".", "-")
            cell.metadata = _marks(grade_id, grade=True, points=points)
    notebook["metadata"] = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    return notebook


def _marks(grade_id: str, **changes: object) -> NotebookNode:
    marks = {"grade": False, "grade_id": grade_id, "locked": True, "schema_version": 3}
    return NotebookNode(nbgrader={**marks, "solution": False, "task": False, **changes})


def student_notebook(solved: NotebookNode) -> NotebookNode:
    """The same notebook with every solution region replaced by a stub."""
    notebook = nbformat.from_dict(solved)
    for cell in notebook.cells:
        cell["source"] = without_solution(cell.source)
    return notebook


def without_solution(code: str) -> str:
    """Code with nbgrader's stub in place of each solution region."""
    lines, inside = [], False
    for line in code.splitlines():
        if "BEGIN SOLUTION" in line:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + stub for stub in STUB]
        elif "END SOLUTION" in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def headings(solved: NotebookNode) -> list[tuple[str, str, str, int, int]]:
    """Key, title, level, minutes and points of each exercise."""
    found = [HEADING.match(cell.source) for cell in solved.cells]
    return [(m[1], m[2], m[3], int(m[4]), int(m[5])) for m in found if m]


def outputs(root: Path = ROOT) -> dict[Path, str]:
    """All generated files and their text."""
    files, rows = {}, []
    for source in sorted((root / "src").glob("[0-9][0-9]_*.py")):
        solved = solution_notebook(source)
        name = source.with_suffix(".ipynb").name
        files[root / "solutions" / name] = nbformat.writes(solved) + "\n"
        files[root / name] = nbformat.writes(student_notebook(solved)) + "\n"
        rows += [
            f"| [{key}]({name}) | {title} | {level.lower()} | {minutes} | {points} |"
            for key, title, level, minutes, points in headings(solved)
        ]
    readme = (root / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(TABLE[0])
    after = rest.split(TABLE[1])[1]
    table = ["| | exercise | level | minutes | points |", "|---|---|---|---|---|", *rows]
    files[root / "README.md"] = before + "\n".join([TABLE[0], *table, TABLE[1]]) + after
    return files


def course_folder(folder: Path, root: Path = ROOT) -> None:
    """A folder nbgrader can work in: source/exercises with all notebooks, and its settings."""
    target = folder / "source" / "exercises"
    target.mkdir(parents=True, exist_ok=True)
    for file, text in outputs(root).items():
        if file.parent.name == "solutions":
            (target / file.name).write_text(text, encoding="utf-8")
    (folder / "nbgrader_config.py").write_text(NBGRADER_CONFIG, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    parser.add_argument("--nbgrader", type=Path, metavar="FOLDER", help="make a course folder")
    arguments = parser.parse_args()
    if arguments.nbgrader:
        course_folder(arguments.nbgrader)
        return
    stale = []
    for file, text in outputs().items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file)
            if not arguments.check:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
    for file in stale:
        print(f"{'out of date' if arguments.check else 'wrote'}: {file.relative_to(ROOT.parent)}")
    sys.exit(bool(stale and arguments.check))


if __name__ == "__main__":
    main()
