"""Write constraints.txt (what is installed here) and environment.yml (its direct part).

    python scripts/pins.py

pyproject.toml names packages with ranges; constraints.txt pins them and all that they need;
environment.yml repeats the pins of the packages that pyproject.toml names, for conda.
"""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What comes with every virtual environment is not ours to pin.
OTHERS = {"lietoolkit", "pip", "setuptools", "wheel"}
HEADER = "# Exact versions of everything, as tested; written by scripts/pins.py.\n"


def canonical(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, str]:
    """Packages that pyproject.toml names, core and extras, with their ranges."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for text in itertools.chain(
        project["dependencies"], *project["optional-dependencies"].values()
    ):
        name, rest = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", text).groups()
        if canonical(name) != "lietoolkit":
            found[canonical(name)] = rest
    return found


def installed() -> dict[str, str]:
    """Versions of all installed packages; a local build tag ("+cpu") is no part of a pin."""
    found = {canonical(d.metadata["Name"]): d.version.split("+")[0] for d in distributions()}
    return {name: found[name] for name in sorted(found) if name not in OTHERS}


def environment(pins: dict[str, str]) -> str:
    """The text of environment.yml."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [
        "# The pins of constraints.txt for conda users; written by scripts/pins.py.",
        "# conda env create -f environment.yml && conda activate lietoolkit",
        "name: lietoolkit",
        "channels: [conda-forge, nodefaults]",
        "dependencies:",
        f"  - python={version}",
        "  - pip",
        "  - pip:",
        "      - -c constraints.txt",
        "      - -e .[dev]",
        *(f"      - {name}=={pins[name]}" for name in sorted(declared())),
    ]
    return "\n".join(lines) + "\n"


def read_pins(text: str) -> dict[str, str]:
    """Every name==version of a file."""
    return dict(re.findall(r"^[\s-]*([\w.-]+)==(\S+)$", text, re.MULTILINE))


def main() -> None:
    pins = installed()
    missing = sorted(set(declared()) - set(pins))
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; run make install first")
    text = HEADER + "".join(f"{name}=={version}\n" for name, version in pins.items())
    (ROOT / "constraints.txt").write_text(text)
    (ROOT / "environment.yml").write_text(environment(pins))


if __name__ == "__main__":
    main()
