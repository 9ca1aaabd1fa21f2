"""The parameters of a course notebook, checked before anything runs."""

from __future__ import annotations

import ast
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lietoolkit.errors import InputError

PROFILES = ("ci", "laptop", "gpu")
DEVICES = ("auto", "cpu", "cuda", "mps")
# name -> (type, default, what it is)
PARAMETERS: dict[str, tuple[type, Any, str]] = {
    "profile": (str, "laptop", "ci (small and quick), laptop (a real model), or gpu"),
    "seed": (int, 0, "of everything drawn at random, 0 or more"),
    "device": (str, "auto", "auto, cpu, cuda or mps"),
}
_PLAIN = (str, int, float, list, dict, tuple, set)
_IPYTHON = {"In", "Out", "exit", "quit"}


@dataclass(frozen=True)
class Settings:
    """What a notebook runs with.

    Attributes:
        profile: "ci", "laptop" or "gpu".
        seed: of everything random.
        device: "cpu", "cuda" or "mps".
        dtype: of the toy problems, float64.
    """

    profile: str
    seed: int
    device: str

    @property
    def generator(self) -> Any:
        """A fresh CPU random generator with the seed."""
        import torch

        return torch.Generator().manual_seed(self.seed)


def check_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The course's parameters out of ``given``, defaults filled in.

    Raises:
        InputError: an unknown name, or a value of the wrong type or range; lists the valid ones.

    >>> check_values({"seed": 7})
    {'profile': 'laptop', 'seed': 7, 'device': 'auto'}
    """
    listed = "; ".join(
        f"{name} ({kind.__name__}, default {default!r}): {what}"
        for name, (kind, default, what) in PARAMETERS.items()
    )
    for name in given:
        if name not in PARAMETERS:
            raise InputError(
                f"parameter {name!r}: there is no such parameter. The parameters are: {listed}"
            )
    found: dict[str, Any] = {}
    for name, (kind, default, _) in PARAMETERS.items():
        value = given.get(name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"parameter {name!r}: expected {kind.__name__}, found {value!r} "
                f"({type(value).__name__}). The parameters are: {listed}"
            )
        found[name] = value
    if found["profile"] not in PROFILES:
        raise InputError(
            f"parameter 'profile': expected one of {', '.join(PROFILES)}; "
            f"found {found['profile']!r}"
        )
    if found["device"] not in DEVICES:
        raise InputError(
            f"parameter 'device': expected auto or one of {', '.join(DEVICES[1:])}; "
            f"found {found['device']!r}"
        )
    if not 0 <= found["seed"] < 2**31:
        raise InputError(f"parameter 'seed': expected 0 or more, found {found['seed']}")
    return found


def resolve_device(device: str, profile: str) -> str:
    """The device by name; "auto" takes the GPU in profile "gpu" and the CPU otherwise.

    Raises:
        InputError: unknown, or not on this machine.
    """
    import torch

    here = {"cpu": True, "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available()}  # fmt: skip
    if device == "auto":
        if profile == "gpu" and not here["cuda"]:
            raise InputError(
                "parameter 'profile': expected a CUDA GPU for 'gpu', found none; use 'laptop'"
            )
        return "cuda" if profile == "gpu" else "cpu"
    if not here.get(device, False):
        usable = ", ".join(name for name, yes in here.items() if yes)
        raise InputError(
            f"parameter 'device': expected auto or one of {usable} on this machine; "
            f"found {device!r}"
        )
    return device


def setup(namespace: Mapping[str, Any]) -> Settings:
    """Check a notebook's parameters and prepare torch; call it as ``course.setup(globals())``.

    papermill only warns about parameters a notebook does not have, and takes any type. So every
    plain value that was assigned before the first call counts as a parameter.

    Args:
        namespace: the notebook's ``globals()``.

    Returns:
        The settings, with the device resolved.

    Raises:
        InputError: an unknown or ill-typed parameter, or a device that is not here.
    """
    import torch

    assigned = _assigned(namespace)
    values = check_values({name: namespace[name] for name in assigned if name in namespace})
    settings = Settings(
        values["profile"], values["seed"], resolve_device(values["device"], values["profile"])
    )
    torch.manual_seed(settings.seed)
    if settings.profile == "ci" and "LIETOOLKIT_HOME" not in os.environ:
        # Bets made while testing must not land in the learner's ledger.
        os.environ["LIETOOLKIT_HOME"] = tempfile.mkdtemp(prefix="lietoolkit-")
    print(f"profile {settings.profile}, seed {settings.seed}, device {settings.device}")
    return settings


def _assigned(namespace: Mapping[str, Any]) -> list[str]:
    """Names of plain values set by hand or by papermill before ``setup`` was first called."""
    names: list[str] = []
    if "In" in namespace and any("setup(" in cell for cell in namespace["In"]):
        for cell in namespace["In"]:
            if "setup(" in cell:
                break
            names += _targets(cell)
    else:
        names = [name for name in namespace if name not in _IPYTHON and name[:1] != "_"]
    plain = (n for n in names if n in PARAMETERS or isinstance(namespace.get(n), _PLAIN))
    return list(dict.fromkeys(plain))


def _targets(source: str) -> list[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with magics
        return []
    found = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found += [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(node.target.id)
    return found
