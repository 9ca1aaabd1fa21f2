"""Versions and hardware, for everything that is kept."""

from __future__ import annotations

import ctypes
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


def keep_freed_memory() -> None:
    """Let the process reuse freed memory; for commands that run large models on a CPU.

    glibc gives freed activations back to the system and asks for them again a moment later. The
    system clears each page anew, which took a quarter of the time of a plan with 134 million
    parameters. Blocks above 32 MB, such as whole gradients, still go back at once: kept, they
    would leave gaps. Without glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def hardware(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The device's name, threads and cores."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "cpu_threads": torch.get_num_threads(), "cpu_count": os.cpu_count()}
