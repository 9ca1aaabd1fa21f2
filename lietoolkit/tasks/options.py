"""Sources and targets as the command line names them, and where results may go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lietoolkit.errors import InputError

DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# What is planned when no data are given: families that differ in skill.
EXAMPLE_SOURCES = {
    "sft": ("addition", "sort", "copy", "past_tense"),
    "dpo": ("right_sum", "right_case", "right_order", "in_french"),
    "lm": ("python", "cpp", "manual", "json"),
}


def named(
    option: str, given: list[str] | None, kind: Callable[[str], Any] = str, example: str = ""
) -> dict[str, Any]:
    """NAME=VALUE options by name."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            if not (equals and name and value):
                raise ValueError
            made = kind(value)
        except ValueError:
            shape = {"source": "FILE", "steps-of": "STEPS"}.get(option, "VALUE")
            raise InputError(
                f"--{option} {text!r}: expected NAME={shape}"
                + (f", e.g. {example}" if example else "")
            ) from None
        if name in found:
            raise InputError(f"--{option}: expected different names, found {name!r} twice")
        found[name] = made
    return found


def read_sources(
    given: list[str], folder: Path | None, objective: str, seed: int = 0
) -> dict[str, Any]:
    """Sources by name from NAME=FILE options or a folder; the examples when there are none."""
    check_seed(seed)
    found: dict[str, Any] = named("source", given, example="math=math.jsonl")
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--sources: expected a folder, found {folder}")
        for entry in sorted(folder.iterdir()):
            name = entry.stem if entry.suffix in DATA_FILES else entry.name
            if entry.suffix not in DATA_FILES and not entry.is_dir():
                continue
            if name in found:
                raise InputError(f"--sources: expected different names, found {name!r} twice")
            found[name] = str(entry)
        if not found:
            raise InputError(
                f"--sources: expected {', '.join(DATA_FILES)} files, found none in {folder}"
            )
    if found:
        return found
    families = _families(objective, "train", seed)
    return {name: families[name] for name in EXAMPLE_SOURCES[objective]}


def read_targets(
    given: list[str], sources: dict[str, Any], objective: str, seed: int = 0
) -> tuple[Any, dict[str, float] | None]:
    """The target, or several by name with weights; for the examples, held-out rows of theirs."""
    if not given:
        if not all(isinstance(data, list) for data in sources.values()):
            raise InputError("--target: expected a file whose loss should end low, found none")
        families = _families(objective, "eval", seed)
        return [row for name in sources for row in families[name][:8]], None
    if len(given) == 1 and "=" not in given[0]:
        return given[0], None
    aims, weights = {}, {}
    for n, text in enumerate(given):
        name, equals, path = text.partition("=")
        if not equals:
            # The first target needs no name.
            name, path = ("target", text) if n == 0 else ("", text)
        head, colon, weight = path.rpartition(":")
        value = 1.0
        if colon and _is_number(weight):
            path, value = head, float(weight)
        if not name or not path or name in aims:
            raise InputError(
                f"--target {text!r}: expected NAME=FILE or NAME=FILE:WEIGHT, each name once"
            )
        aims[name], weights[name] = path, value
    return aims, weights


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _families(objective: str, split: str, seed: int) -> dict[str, list]:
    from lietoolkit.tasks.domains import text_domains
    from lietoolkit.tasks.generated import preference_families, sft_families

    makers: dict[str, Callable[..., dict[str, list]]] = {
        "sft": sft_families, "dpo": preference_families, "lm": text_domains,
    }  # fmt: skip
    if objective not in makers:
        raise InputError(f"objective: expected one of {', '.join(makers)}; found {objective!r}")
    return makers[objective](seed=seed, rows=64, split=split)


def check_seed(seed: int) -> None:
    """Refuse what some of the libraries' generators cannot start from."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed: expected a whole number from 0 to {2**32 - 1}, found {seed!r}")


def writable(out: Path) -> None:
    """Fail before the work, not after it."""
    probe = out / ".writable"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
    except OSError as error:
        with suppress(OSError):  # a read-only folder refuses this, too
            probe.unlink(missing_ok=True)
        raise InputError(
            f"--out: expected a folder that can be written to, found {out} "
            f"({error.strerror or error}); choose another"
        ) from error
