"""What lies in a model folder, judged before anything of it is loaded.

Headers, settings and file names are read, never weights and never code. Each problem becomes an
:class:`~lietoolkit.errors.InputError` that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError

_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weights_problem(path: Path) -> str | None:
    """What is wrong with a safetensors file, judged by its header and size; None when nothing."""
    try:
        read_header(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except ValueError as error:
        return str(error)
    return None


def read_header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file, {tensor name: {dtype, shape, data_offsets}}.

    Raises:
        ValueError: The header cannot be read, or does not fit the size of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"is truncated or no safetensors file ({size} bytes)")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError("is no safetensors file (unreadable header)") from error
    if end != size:
        word = "truncated" if size < end else "longer than its header says"
        raise ValueError(f"is {word} ({size} bytes, expected {end})")
    return header


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError when it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"model: {path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"model: {path} should hold a JSON object.")
    return value


def check_config(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """``config.json`` of a model folder that brings or fetches no code (unless allowed)."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise InputError(
                f"model: {folder} holds an adapter, not a model. Merge it into its base model "
                f"(peft: merge_and_unload) and save that folder."
            )
        raise InputError(
            f"model: {folder} has no config.json; found {listing(folder)}. Give the folder that "
            f"save_pretrained wrote."
        )
    config = read_json(path)
    for name in ("config.json", "tokenizer_config.json"):
        if trust_remote_code or not (folder / name).is_file():
            continue
        if read_json(folder / name).get("auto_map"):
            raise InputError(
                f"model: {folder / name} wants to run Python code that comes with the model "
                f"(auto_map). Read that code; if you trust it, pass trust_remote_code=True "
                f"(--trust-remote-code)."
            )
    kernel = None if trust_remote_code else next(_hub_kernels(config), None)
    if kernel is not None:
        raise InputError(
            f"model: {path} wants to fetch and run the code {kernel!r} (attention or experts "
            f"implementation). Remove that entry; if you trust the code, pass "
            f"trust_remote_code=True (--trust-remote-code)."
        )
    if config.get("quantization_config"):
        raise InputError(
            f"model: {path} describes quantized weights, which have no usable gradients. "
            f"Use the unquantized model."
        )
    return config


def _hub_kernels(value: Any, inside: bool = False) -> Iterator[str]:
    """Repositories that a configuration, or a part of it, names as implementation of something."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _hub_kernels(inner, inside or "_implementation" in name)
    elif isinstance(value, list):
        for inner in value:
            yield from _hub_kernels(inner, inside)
    elif inside and isinstance(value, str) and "/" in value:
        yield value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those its index lists, else all."""
    if not (folder / _INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    shards = read_json(folder / _INDEX).get("weight_map", {})
    return [folder / name for name in sorted(set(shards.values()))]


def check_weights(folder: Path) -> set[str]:
    """Check that all weights are there and whole; return the number types they store."""
    files = weight_files(folder)
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise InputError(
            f"model: {folder / _INDEX} lists {', '.join(missing)}, not in the folder. "
            f"Copy the folder again."
        )
    if not files:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
        if pickles:
            raise InputError(
                f"model: {folder} holds weights as {', '.join(pickles)}, and loading such files "
                f"can run any code. Only safetensors are read: convert them where you trust them "
                f"(model.save_pretrained writes safetensors)."
            )
        raise InputError(
            f"model: {folder} has no weights (*.safetensors); found {listing(folder)}."
        )
    stored = set()
    for path in files:
        problem = weights_problem(path)
        if problem is not None:
            raise InputError(f"model: {path} {problem}. Copy or fetch the file again.")
        stored |= {_STORED.get(t["dtype"], t["dtype"]) for t in read_header(path).values()}
    return stored


def check_causal(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that is not of a causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    causal: set[str] = set()
    for names in KNOWN.values():
        causal |= {names} if isinstance(names, str) else set(names)
    found = config.get("architectures") or [KNOWN.get(str(config.get("model_type")), "unknown")]
    if not any(name in causal or str(name).endswith("ForCausalLM") for name in found):
        raise InputError(
            f"model: {folder / 'config.json'} describes {', '.join(map(str, found))} (model_type "
            f"{config.get('model_type')!r}). Expected a causal language model, such as "
            f"LlamaForCausalLM."
        )


def listing(folder: Path) -> str:
    """The first few file names of a folder, for error messages."""
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) or "nothing") + more
