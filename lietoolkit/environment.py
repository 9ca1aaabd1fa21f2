"""Versions and hardware, for everything that is kept."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in ("lietoolkit", "torch", "transformers", "datasets"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The device's name, threads and cores."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "cpu_threads": torch.get_num_threads(), "cpu_count": os.cpu_count()}
