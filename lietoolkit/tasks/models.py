"""Language models in: a short name, a folder or a hub name becomes (model, tokenizer).

Only ``safetensors`` weights are read, no code that comes with a model runs unless allowed, and
everything is computed in float32 (or float64): second derivatives in half precision lose signs.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lietoolkit.errors import InputError
from lietoolkit.geometry import ranks
from lietoolkit.tasks.model_files import check_causal, check_config, check_weights, listing
from lietoolkit.tasks.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger("lietoolkit")

SHORT_NAMES = ("course", "smollm2-135m")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tokenizer_config.json",
)  # fmt: skip


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    trust_remote_code: bool = False,
    fetch: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready to be differentiated.

    The model comes in evaluation mode (no dropout), without a key-value cache, every parameter
    with ``requires_grad``. What the user should know about it (half-precision weights, a missing
    padding token) is listed in plain sentences in ``model.lietoolkit_notes`` and logged to
    ``logging.getLogger("lietoolkit")`` at level INFO.

    Args:
        name_or_path: "course" (ships with the package), "smollm2-135m" (fetched once into the
            user's cache), a folder as ``save_pretrained`` writes it, or a hub name. A short name
            wins over a folder of the same name: write "./course" for the folder.
        device: "auto" (CUDA if there is one, else CPU), or a torch device.
        dtype: "float32" or "float64"; weights stored in another type are converted.
        trust_remote_code: Run Python code that comes with the model.
        fetch: Allow network use; without it only what is on this machine is loaded.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: The name is unknown, the folder is not a causal language model with a
            tokenizer in safetensors format, a file is damaged, the model wants to run its own
            code, or device or dtype cannot be used.
    """
    target = resolve_device(device)
    precision = _resolve_dtype(dtype)
    notes: list[str] = []
    folder = _find_folder(name_or_path, trust_remote_code, fetch, notes)
    config = check_config(folder, trust_remote_code)
    stored = check_weights(folder)
    halves = sorted(stored & {"float16", "bfloat16"})
    if halves:
        notes.append(
            f"The weights are stored in {' and '.join(halves)}; "
            "they were converted, and everything is computed in float32 or wider."
        )
    with quiet_transformers():
        check_causal(folder, config)
        model = _read_model(folder, precision, trust_remote_code)
        tokenizer = _read_tokenizer(folder, trust_remote_code, model, notes)
    model.eval()
    model.requires_grad_(True)
    model.config.use_cache = False
    model.lietoolkit_notes = notes
    for note in notes:
        logger.info("%s: %s", name_or_path, note)
    return _move(model, target), tokenizer


def model_info(model: torch.nn.Module) -> dict[str, Any]:
    """What there is to say about a model in one line of a report.

    Returns:
        ``type``, ``parameters`` (tied weights counted once), ``trainable``, ``dtype``,
        ``device``, ``context_length`` (tokens, None when the model states none), ``vocabulary``.

    >>> info = model_info(torch.nn.Linear(3, 2))
    >>> info["parameters"], info["dtype"], info["context_length"]
    (8, 'float32', None)
    """
    parameters = list(model.parameters())
    config = text_config(getattr(model, "config", None))
    first = parameters[0] if parameters else torch.zeros(0)
    return {
        "type": getattr(config, "model_type", None) or type(model).__name__,
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "dtype": str(first.dtype).removeprefix("torch."),
        "device": str(first.device),
        "context_length": context_length(config),
        "vocabulary": getattr(config, "vocab_size", None),
    }


def text_config(config: Any) -> Any:
    """The part of a configuration that describes the language model (or the whole of it)."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def context_length(config: Any) -> int | None:
    """Longest input in tokens that a configuration states, or None."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Torch device for "auto" or a device name; InputError when this machine lacks it."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f'device: expected "auto", "cpu" or "cuda" (or "cuda:1", ...), found {device!r}.'
        ) from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise InputError(
                f"device: {device!r} asked for, but torch sees {count} CUDA device(s) here. "
                f'Use device="cpu" or "auto"; `lietoolkit doctor` shows what is installed.'
            )
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise InputError('device: "mps" is not available here. Use device="cpu" or "auto".')
    return found


def shard_model(model: torch.nn.Module, device: torch.device) -> None:
    """Shard a model over all processes with FSDP2, each transformer block by itself, in place.

    Args:
        model: in the CPU's memory; its blocks go to the device one by one.
        device: where each process keeps its piece, and computes.

    Raises:
        InputError: there is one process only.
    """
    if ranks.size() == 1:
        raise InputError(
            "shard: expected several processes to share the model, found one; start them with "
            "torchrun --nproc-per-node N -m lietoolkit.cli plan --shard, or leave shard out"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.size(),))
    blocks = getattr(model, "_no_split_modules", None) or ()
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def course_path() -> Path | None:
    """Folder of the embedded course model, or None when this installation lacks it."""
    folder = Path(__file__).resolve().parent.parent / "models" / "course"
    return folder if (folder / "config.json").is_file() else None


def local_folder(name_or_path: str | Path) -> Path:
    """Folder of a model that is on this machine already; InputError otherwise. No network."""
    folder = _find_folder(name_or_path, trust_remote_code=False, fetch=False, notes=[])
    check_config(folder, trust_remote_code=True)
    return folder


def _resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    known = {"float32": torch.float32, "float64": torch.float64}
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise InputError(
            f'dtype: expected "float32" or "float64", found {str(dtype)!r}. Half precision loses '
            f"the signs of second derivatives; half-precision weights are converted on loading."
        )
    return found


def _find_folder(name: str | Path, trust_remote_code: bool, fetch: bool, notes: list[str]) -> Path:
    if name == "course":
        folder = course_path()
        if folder is None:
            raise InputError(
                "model: the course model is missing from this installation of lietoolkit "
                "(lietoolkit/models/course). Reinstall the package."
            )
        return folder
    if name == "smollm2-135m":
        from lietoolkit.tasks.smollm2 import get_smollm2, smollm2_path

        folder = smollm2_path()
        if folder is None and not fetch:
            raise InputError(
                "model: smollm2-135m is not on this machine yet. "
                "Run `lietoolkit models get smollm2-135m` (93 MB, once)."
            )
        if folder is None:
            logger.info("smollm2-135m is not on this machine yet: fetching it (93 MB, once)")
            folder = get_smollm2()
            notes.append(f"smollm2-135m was fetched and converted into {folder}.")
        return folder
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise InputError(f"model: {path} is a file. Give the folder that holds config.json.")
    if isinstance(name, Path) or not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"model: there is no folder {str(name)!r}. Expected a short name "
            f"({' or '.join(SHORT_NAMES)}), a folder with config.json, or a hub name."
        )
    return _from_hub(name, trust_remote_code, fetch)


def _from_hub(name: str, trust_remote_code: bool, fetch: bool) -> Path:
    """Local snapshot of a hub model: settings, tokenizer and safetensors, never pickles."""
    from huggingface_hub import snapshot_download

    patterns = [*_HUB_FILES, "*.py"] if trust_remote_code else _HUB_FILES
    try:
        return Path(
            snapshot_download(
                name, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=not fetch
            )
        )
    except Exception as error:  # connection, missing repository, gated, disk: all end the same way
        reason = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
        raise InputError(
            f"model: {name!r} is neither a short name ({', '.join(SHORT_NAMES)}) nor a folder "
            f"here, and the hub did not give it ({type(error).__name__}: {reason}). Use a short "
            f"name or a folder, or check the spelling and the network."
        ) from error


def _read_model(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except MemoryError as error:
        raise _too_large(folder) from error
    except Exception as error:  # whatever the library says about these files, said in one line
        raise InputError(
            f"model: {folder} could not be loaded ({_reason(error)}). Write it again with "
            f"model.save_pretrained, or use another model."
        ) from error
    model, report = loaded
    other = sorted(report["mismatched_keys"])
    if other:
        tensor, stored, asked = other[0]
        raise InputError(
            f"model: {folder / 'config.json'} asks for {tensor} of shape {list(asked)}, the "
            f"weights hold {list(stored)}. They do not belong together: copy both from one model."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model: the weights in {folder} lack {len(missing)} tensor(s) that config.json asks "
            f"for, {missing[0]} first. They would be random: use a complete model."
        )
    return model


def _read_tokenizer(
    folder: Path, trust_remote_code: bool, model: PreTrainedModel, notes: list[str]
) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(
            f"model: {folder} has no tokenizer (tokenizer.json); found {listing(folder)}. Save "
            f"it beside the model with tokenizer.save_pretrained."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # tokenizers raise many types for damaged files
        raise InputError(
            f"model: the tokenizer in {folder} could not be loaded ({_reason(error)}). Write it "
            f"again with tokenizer.save_pretrained."
        ) from error
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if not 0 < len(tokenizer) <= rows:
        raise InputError(
            f"model: the tokenizer in {folder} has {len(tokenizer)} tokens, the model's embedding "
            f"{rows}. They do not belong together: save the matching tokenizer there."
        )
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(f"The tokenizer has no padding token; {tokenizer.eos_token!r} pads.")
    return tokenizer


def _reason(error: Exception) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _move(model: Any, device: torch.device) -> PreTrainedModel:
    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise _too_large(device) from error


def _too_large(where: Path | torch.device) -> InputError:
    return InputError(
        f"model: out of memory ({where}). Use a smaller model, free memory, or another device; "
        f"`lietoolkit doctor` shows what fits."
    )
