"""What leaves the repository: source distribution, wheel, bill of materials, citation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distributions, version
from pathlib import Path, PurePosixPath

import pytest
from packaging.specifiers import SpecifierSet
from test_setup import CONSTRAINTS, PROJECT, dry, pins

ROOT = Path(__file__).parent.parent
RELEASE = PROJECT["project"]["version"]
OLDEST = pins.read_pins((ROOT / "constraints-oldest.txt").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both distributions, made as `make wheel` makes them, from a copy."""
    pytest.importorskip("build")
    assert "python -m build --outdir out/dist ." in dry("wheel")
    place = tmp_path_factory.mktemp("release")
    leave = shutil.ignore_patterns(
        ".git", ".venv", "out", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, place / "source", ignore=leave)
    # What must never get into a distribution, whoever builds it.
    for stray in ("notebooks/.ipynb_checkpoints/x-checkpoint.ipynb", "tests/__pycache__/x.pyc"):
        (place / "source" / stray).parent.mkdir(exist_ok=True)
        (place / "source" / stray).write_text("stray")
    command = [sys.executable, "-m", "build", "--outdir", str(place / "dist"), "."]
    done = subprocess.run(command, cwd=place / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return place / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"lietoolkit-{RELEASE}-py3-none-any.whl"


@pytest.mark.slow
def test_source_distribution_holds_what_a_packager_needs(built: Path) -> None:
    with tarfile.open(built / f"lietoolkit-{RELEASE}.tar.gz") as archive:
        names = {str(PurePosixPath(*PurePosixPath(n).parts[1:])) for n in archive.getnames()}
    needed = ["Makefile", "constraints.txt", "constraints-oldest.txt", "environment.yml", ".ci/run",
              "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE",
              "tests/conftest.py", "tests/test_release.py", "notebooks/index.ipynb",
              "notebooks/src/report.py", "exercises/src/01_flows_and_brackets.py",
              "scripts/make_course_model.py", "benchmarks/results/hvp-course.json",
              "examples/batch_reports.py",
              "lietoolkit/models/course/model.safetensors"]  # fmt: skip
    assert not [name for name in needed if name not in names]
    assert not [n for n in names if "__pycache__" in n or "checkpoint.ipynb" in n]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:  # in an unpacked distribution there is no git
        tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
        assert not tracked - names


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "lietoolkit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".ipynb_c" not in str(path)
    }  # fmt: skip
    for name in ("py.typed", "models/course/model.safetensors", "models/course/tokenizer.json",
                 "report/page.html.j2", "report/report.ipynb", "report/explorer.js",
                 "course/page.html.j2", "live/canvas.js"):  # fmt: skip
        assert f"lietoolkit/{name}" in source
    source.add("lietoolkit_command.py")
    info = f"lietoolkit-{RELEASE}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == source
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}METADATA").decode()
    assert f"Version: {RELEASE}" in metadata
    assert f"{info}licenses/LICENSE" in names
    assert (
        "lietoolkit = lietoolkit_command:main"
        in zipfile.ZipFile(wheel).read(f"{info}entry_points.txt").decode()
    )


@pytest.mark.slow
def test_plan_from_the_wheel_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    """A new environment, only what the wheel asks for, outside the repository: a whole report."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    assert (
        "false"
        in re.search(
            r"system-site-packages = (\w+)", (tmp_path / "venv" / "pyvenv.cfg").read_text()
        )[0]
    )
    work = tmp_path / "work"
    work.mkdir()
    hidden = ("PYTHON", "LIETOOLKIT", "JUPYTER", "COV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"OMP_NUM_THREADS": "1", "LIETOOLKIT_CACHE": str(tmp_path / "cache")}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done.stdout

    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "-c", ROOT / "constraints.txt", f"{wheel}[course]")  # fmt: skip
    run(python, "-m", "pip", "check")
    where = run(python, "-c", "import lietoolkit; print(lietoolkit.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    said = run(tmp_path / "venv" / "bin" / "lietoolkit", "plan", "--steps", "1", "--optimizer",
               "sgd", "--verify", "2", "--verify-steps", "1", "--out", "out")  # fmt: skip
    assert "Train in this order (course, sft" in said
    plan = json.loads((work / "out" / "plan.json").read_text())
    assert plan["versions"]["lietoolkit"] == RELEASE
    assert plan["versions"]["torch"].split("+")[0] == CONSTRAINTS["torch"]
    page = (work / "out" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in plan["order"]) and "lt-explorer" in page
    assert (work / "out" / "report.ipynb").is_file()
    assert not [p for p in work.rglob("*") if "site-packages" in str(p)]


# --- the two ends of the supported range ---------------------------------------------------------


def test_oldest_pins_are_the_lower_ends() -> None:
    """Each direct dependency is pinned at its lower bound: raising one means testing the other."""
    declared = pins.declared()
    assert set(declared) <= set(OLDEST)
    for name, allowed in declared.items():
        assert OLDEST[name] in SpecifierSet(allowed), (name, OLDEST[name], allowed)
        lowest = re.fullmatch(r">=([\d.]+)", allowed)[1]
        assert same_release(OLDEST[name], lowest), f"{name}: {OLDEST[name]} is not {lowest}"


def same_release(found: str, lowest: str) -> bool:
    """3.6.1 is the oldest release of >=3.6 when no 3.6.0 can be had."""
    parts = lowest.split(".")
    return found.split(".")[: len(parts)] == parts


def test_oldest_and_newest_differ_where_it_matters() -> None:
    for name in ("torch", "transformers", "trl", "datasets", "peft", "accelerate"):
        assert OLDEST[name] != CONSTRAINTS[name], name


def test_make_oldest_runs_the_fast_tests_from_the_wheel() -> None:
    commands = dry("oldest")
    assert "-c constraints-oldest.txt" in commands and "out/dist/*.whl" in commands
    assert re.search(r"oldest/bin/pytest .*tests", commands)
    assert "make oldest" in (ROOT / "CONTRIBUTING.md").read_text()


# --- bill of materials ---------------------------------------------------------------------------


@pytest.mark.slow
def test_bill_of_materials_lists_all_that_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    command = re.search(r"cyclonedx-py (environment .*?) --output-file", dry("sbom"))[1].split()
    out = tmp_path / "sbom.json"
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *command, "--output-file", str(out), sys.executable],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "lietoolkit"
    listed = {pins.canonical(c["name"]): c["version"] for c in bill["components"]}
    here = {pins.canonical(d.metadata["Name"]): d.version for d in distributions()}
    here = {name: found for name, found in here.items() if name != "lietoolkit"}
    assert {name: listed.get(name) for name in here} == here
    assert listed["torch"] == version("torch")
    # Dependencies are known, not only a list: torch needs sympy, for one.
    needs = {d["ref"]: d.get("dependsOn", []) for d in bill["dependencies"]}
    ref = next(c["bom-ref"] for c in bill["components"] if c["name"] == "torch")
    assert any("sympy" in needed for needed in needs[ref])


# --- citation ------------------------------------------------------------------------------------


def test_citation_is_complete_and_agrees_with_the_package() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # What version 1.2.0 of the format demands.
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] in ("software", "dataset")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["title"] == project["name"]
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert [a["name"] for a in cited["authors"]] == [a["name"] for a in project["authors"]]
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["authors"][0]["family-names"] == "Sweeney" and paper["year"] == 2026
    assert "ICML" in paper["conference"]["name"]
    assert paper["identifiers"][0]["value"] == "arXiv:2606.24993"
