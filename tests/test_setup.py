"""Packaging: pins agree with each other, imports are declared, the promised files are there."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("pins", ROOT / "scripts" / "pins.py")
pins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pins)

CONSTRAINTS = pins.read_pins((ROOT / "constraints.txt").read_text())
ENVIRONMENT = pins.read_pins((ROOT / "environment.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_repeats_the_pins_of_what_pyproject_names() -> None:
    declared = pins.declared()
    assert len(declared) > 20
    assert set(ENVIRONMENT) == set(declared)
    assert {name: CONSTRAINTS[name] for name in declared} == ENVIRONMENT


def test_pins_lie_in_the_declared_ranges() -> None:
    for name, allowed in pins.declared().items():
        assert allowed.startswith(">="), f"{name}: a range, not {allowed!r}"
        assert CONSTRAINTS[name] in SpecifierSet(allowed), (name, CONSTRAINTS[name], allowed)


def test_constraints_hold_pins_only() -> None:
    """No index addresses, no build tags, nothing without an exact version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][\w.]*", line), line
    assert lines == sorted(set(lines), key=lambda line: line.split("==")[0])


def test_a_changed_pin_is_noticed() -> None:
    changed = (ROOT / "environment.yml").read_text().replace("torch==", "torch==9", 1)
    assert pins.read_pins(changed) != ENVIRONMENT


def third_party_imports() -> dict[str, str]:
    """Top-level names that the package imports anywhere, with a file that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "lietoolkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.split(".")[0], path.name)
    own = {"lietoolkit", "IPython"}  # IPython: comes with any kernel
    return {n: p for n, p in found.items() if n not in sys.stdlib_module_names | own}


def test_every_import_of_the_package_is_declared() -> None:
    distribution_of = packages_distributions()
    declared = set(pins.declared())
    imports = third_party_imports()
    assert {"torch", "transformers", "papermill"} <= set(imports)
    for name, path in imports.items():
        names = {pins.canonical(d) for d in distribution_of.get(name, [name])}
        assert names & declared, f"{path} imports {name}, which pyproject.toml does not name"


def test_core_needs_little() -> None:
    names = {re.match(r"[\w-]+", d).group() for d in PROJECT["project"]["dependencies"]}
    assert names == {"torch", "numpy", "tqdm"}


def test_promised_files_are_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "lietoolkit/py.typed"):
        assert (ROOT / name).is_file(), name
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["project"]["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_versions_agree() -> None:
    import lietoolkit

    assert lietoolkit.__version__ == PROJECT["project"]["version"]


def test_ci_calls_make_test_and_is_valid_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("make test")
    subprocess.run(["bash", "-n", str(script)], check=True)


MAKE = ["make", "--dry-run", "--no-print-directory", "-C", str(ROOT)]


def dry(*arguments: str) -> str:
    # MAKEFLAGS and variables of an outer make would leak into this one.
    hidden = ("MAKE", "MODEL", "SOURCES", "TARGET", "VERIFY", "OUT", "STEPS", "LR")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    run = subprocess.run([*MAKE, *arguments], capture_output=True, text=True, env=clean)
    if "No such file" in run.stderr:
        pytest.skip("make is not installed")
    assert run.returncode == 0, run.stderr
    return " ".join(run.stdout.replace("\\\n", " ").split())


def test_make_report_passes_its_variables_on() -> None:
    assert '--model "course"' in dry("report") and '--verify "24"' in dry("report")
    line = dry("report", "MODEL=smollm2-135m", "SOURCES=data", "TARGET=a.jsonl", "OBJECTIVE=dpo")
    assert '--model "smollm2-135m" --objective "dpo" --sources "data" --target "a.jsonl"' in line
    assert '--verify "0"' in line
    assert '--verify "6"' in dry("report", "MODEL=smollm2-135m", "VERIFY=6")


def test_make_test_runs_every_kind_of_check() -> None:
    commands = dry("test")
    for part in ("ruff check", "ruff format --check", "mypy", "lint-imports", "--doctest-modules",
                 "plant_errors.py", "-m slow"):  # fmt: skip
        assert part in commands, part


def test_mistakes_to_plant_follow_the_code(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    plant_errors = importlib.import_module("plant_errors")
    assert plant_errors.misfits() == []
    gone = plant_errors.MISTAKES[0]._replace(old="not in the code")
    monkeypatch.setattr(plant_errors, "MISTAKES", (gone,))
    assert "found it 0 times" in plant_errors.misfits()[0]


def test_readme_example_gives_what_it_says() -> None:
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted >= 7
    assert not found.failed


def test_readme_tables_come_from_the_results() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "readme_tables.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_kept_searches_are_those_of_the_package(monkeypatch) -> None:
    """After a change of the search: benchmarks/frontier.py --again benchmarks/results/frontier-*"""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    frontier = importlib.import_module("frontier")
    for path in sorted((ROOT / "benchmarks" / "results").glob("frontier-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        draw = result["draws"]["0"]
        kept = draw["auto"][draw["targets"][0]]
        assert kept == frontier.search_again(result, draw, 0), path.name


@pytest.mark.slow
def test_the_package_states_the_chances_that_the_results_fit() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "calibration.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_readme_table_counts_what_the_benchmark_measured(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    tables = importlib.import_module("readme_tables")
    # Three sources, one target; the local score has one of three signs wrong.
    effect = {("a", "b"): -3.0, ("a", "c"): 2.0, ("b", "c"): 1.0}
    pairs = {f"{i} -> {j}": [x / 2] for (i, j), x in effect.items()}
    pairs |= {f"{j} -> {i}": [-x / 2] for (i, j), x in effect.items()}
    figures = {"gradient norm": {"a": 1.0, "b": 2.0, "c": 3.0},
               "cosine": {"a": 0.3, "b": 0.2, "c": 0.1}}  # fmt: skip
    matrix = [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]
    result = {
        "settings": {"model": "m", "objective": "sft", "data": None,
                     "truth_dtype": "float64"},
        "draws": {"0": {
            "sources": ["a", "b", "c"], "targets": ["t"],
            "predicted": {"local t": {"matrix": matrix, "gradients": figures}},
            "measured": {"1": {"pairs": pairs, "solo": {"a": [1.0], "b": [2.0], "c": [3.0]}}},
        }},
    }  # fmt: skip
    line = tables.pairs_table([result]).splitlines()[-1].split(" | ")
    assert line[:6] == ["| m", "sft", "generated", "float64", "1", "3"]
    assert line[6].startswith("**66.7 %**")
    assert line[7] == "100 %"  # the two larger effects have the right sign
    assert line[9] == "33.3 % / 66.7 %"
    assert tables.percent(0.9999) == "99.9 %"
    text = "<!-- table:pairs -->\nold\n<!-- /table -->\n"
    assert "old" not in tables.fill(text, {"pairs": "new"})
