"""What is installed here, what the machine has, and which plans fit into its memory.

Nothing is loaded and nothing is fetched: versions come from package metadata, sizes from the
headers of weight files.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from pathlib import Path
from typing import Any

import torch

from lietoolkit.errors import InputError
from lietoolkit.tasks.model_files import read_header, read_json, weight_files
from lietoolkit.tasks.models import SHORT_NAMES, course_path, local_folder
from lietoolkit.tasks.smollm2 import cache_folder, smollm2_path

PACKAGES = ("lietoolkit", "torch", "transformers", "trl", "datasets", "peft", "accelerate", "gguf")
SOURCES, ROWS, TOKENS = 6, 8, 256


def doctor(model: str | Path | None = None) -> dict[str, Any]:
    """Describe this installation and estimate the memory of a plan with six sources.

    Args:
        model: A short name, folder or cached hub name to estimate for; default: the short names.

    Returns:
        ``versions`` {package: version or None}; ``devices``, one dict each with ``name``,
        ``description``, ``total`` and ``free`` bytes (None when unknown); ``threads``;
        ``models`` {short name: folder or None}; ``cache``; ``estimates``, one
        :func:`plan_memory` each with ``model`` and ``fits`` {device: True, False or None};
        ``advice``, plain sentences about what is missing or would not fit.

    Raises:
        InputError: ``model`` is given and is not on this machine.
    """
    found = {"course": course_path(), "smollm2-135m": smollm2_path()}
    devices = _devices()
    chosen = [name for name in SHORT_NAMES if found[name]] if model is None else [model]
    estimates = [_estimate(name, devices) for name in chosen]
    versions = {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}}
    return {
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "models": {name: str(path) if path else None for name, path in found.items()},
        "cache": str(cache_folder()),
        "estimates": estimates,
        "advice": _missing(versions, found) + [s for e in estimates for s in _tight(e, devices)],
    }


def plan_memory(
    parameters: int,
    *,
    layers: int,
    hidden: int,
    intermediate: int,
    vocabulary: int,
    sources: int = SOURCES,
    rows: int = ROWS,
    tokens: int = TOKENS,
    bytes_per_parameter: float = 4,
) -> dict[str, int]:
    """Rough bytes that a local tournament keeps at its peak.

    With P parameters of b = 4 bytes (float32) and N sources: the model bP; theta, a gradient, a
    direction, a Hessian-vector product and the target's gradient 5bP; the stored g_i and H_i g_E
    of every source in float16 2N x 2P (of more than 32 sources less, see ``Keeper``); and the
    activations of one gradient of ``rows`` x ``tokens`` tokens, b (layers (10 hidden + 4
    intermediate) + 4 vocabulary) bytes a token, which is what a Llama block keeps for the backward
    pass. An exact HVP keeps about 2.7 times the activations.

    >>> plan_memory(1000, layers=1, hidden=1, intermediate=1, vocabulary=1, rows=1, tokens=1)
    {'model': 4000, 'vectors': 20000, 'sources': 24000, 'activations': 72}
    """
    per_token = layers * (10 * hidden + 4 * intermediate) + 4 * vocabulary
    return {
        "model": round(bytes_per_parameter * parameters),
        "vectors": round(5 * bytes_per_parameter * parameters),
        "sources": 2 * sources * 2 * parameters,
        "activations": round(bytes_per_parameter * per_token * rows * tokens),
    }


def format_doctor(report: dict[str, Any]) -> str:
    """The report of :func:`doctor` as text for a terminal."""
    lines = ["Versions"]
    lines += [f"  {name:<13} {v or 'not installed'}" for name, v in report["versions"].items()]
    lines += ["", f"Devices ({report['threads']} CPU threads, {report['platform']})"]
    for device in report["devices"]:
        memory = f"{_size(device['free'])} free of {_size(device['total'])}"
        lines.append(f"  {device['name']:<13} {memory}, {device['description']}")
    lines += ["", "Models"]
    for name, folder in report["models"].items():
        lines.append(f"  {name:<13} {folder or 'not here'}")
    if report["estimates"]:
        lines += ["", f"Memory of a plan with {SOURCES} sources, {ROWS} rows x {TOKENS} tokens"]
    for estimate in report["estimates"]:
        parts = ", ".join(f"{key} {_size(value)}" for key, value in estimate["bytes"].items())
        lines.append(f"  {estimate['model']:<13} about {_size(estimate['total'])}: {parts}")
        words = {True: "fits", False: "does not fit", None: "unknown"}
        fits = ", ".join(f"{name}: {words[fit]}" for name, fit in estimate["fits"].items())
        lines.append(f"  {'':<13} {fits}")
    if report["advice"]:
        lines += ["", "What to do", *[f"  - {sentence}" for sentence in report["advice"]]]
    return "\n".join(lines)


def _estimate(model: str | Path, devices: list[dict[str, Any]]) -> dict[str, Any]:
    folder = local_folder(model)
    config = read_json(folder / "config.json")
    config = config.get("text_config") or config
    parts = plan_memory(
        _parameters(folder),
        layers=_number(config, "num_hidden_layers", "n_layer"),
        hidden=(hidden := _number(config, "hidden_size", "n_embd")),
        intermediate=_number(config, "intermediate_size", "n_inner") or 4 * hidden,
        vocabulary=_number(config, "vocab_size"),
    )
    total = sum(parts.values())
    fits = {d["name"]: None if d["free"] is None else total <= d["free"] for d in devices}
    return {"model": str(model), "bytes": parts, "total": total, "fits": fits}


def _parameters(folder: Path) -> int:
    try:
        headers = [read_header(path) for path in weight_files(folder)]
    except (OSError, ValueError) as error:
        raise InputError(f"model: the weights in {folder} cannot be read: {error}") from error
    return sum(math.prod(t["shape"]) for header in headers for t in header.values())


def _number(config: dict[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)


def _missing(versions: dict[str, str | None], found: dict[str, Path | None]) -> list[str]:
    advice = []
    absent = [name for name in ("transformers", "datasets", "accelerate") if not versions[name]]
    if absent:
        advice.append(f"{', '.join(absent)} missing: pip install 'lietoolkit[llm]'.")
    if found["course"] is None:
        advice.append("The course model is missing from this installation: reinstall lietoolkit.")
    if found["smollm2-135m"] is None:
        advice.append(
            "SmolLM2-135M is not here: lietoolkit models get smollm2-135m (93 MB download, once; "
            "540 MB on disk)."
        )
    return advice


def _tight(estimate: dict[str, Any], devices: list[dict[str, Any]]) -> list[str]:
    lower = {
        "model": "take a smaller model",
        "vectors": "plan over LoRA adapters or a subset of the layers, or take a smaller model",
        "sources": "plan fewer sources at once, or over adapters or a subset of the layers",
        "activations": "lower the rows per microbatch or the tokens per row",
    }
    largest = max(estimate["bytes"], key=estimate["bytes"].__getitem__)
    return [
        f"{estimate['model']} would not fit on {device['name']}: about "
        f"{_size(estimate['total'])} against {_size(device['free'])} free, most of it for "
        f"{largest} ({_size(estimate['bytes'][largest])}): {lower[largest]}."
        for device in devices
        if estimate["fits"][device["name"]] is False
    ]


def _devices() -> list[dict[str, Any]]:
    total, free = _memory()
    cpu = {
        "name": "cpu",
        "description": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "total": total,
        "free": free,
    }
    cards = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card_free, card_total = torch.cuda.mem_get_info(index)
        description = torch.cuda.get_device_name(index)
        name = f"cuda:{index}"
        cards.append(
            {"name": name, "description": description, "total": card_total, "free": card_free}
        )
    return [cpu, *cards]


def _memory() -> tuple[int | None, int | None]:
    """Total and available bytes of this machine, or of the container we are confined to."""
    try:
        import psutil
    except ImportError:
        return None, None
    memory = psutil.virtual_memory()
    limit = _read_int("/sys/fs/cgroup/memory.max")
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    used = _read_int("/sys/fs/cgroup/memory.current") or 0
    return limit, max(0, min(memory.available, limit - used))


def _read_int(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
