"""Data in: rows of text from files, folders, data sets and lists, checked for an objective."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InputError
from .formats import FORMATS, check_row, fail, format_of, listed, plain_row, plural

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# fmt: off
TEXT_SUFFIXES = (
    ".txt", ".md", ".rst", ".tex", ".html", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg",
    ".py", ".pyi", ".js", ".ts", ".css", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".kt", ".go",
    ".rs", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".sh", ".sql", ".swift", ".scala", ".hs",
)
# fmt: on
_DATA_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".parquet")
_DATASET_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


Placed = Iterable[tuple[str, Any]]


class Rows(list[dict[str, Any]]):
    """Checked rows that still know where they came from.

    ``file`` is the path or data set name (None for rows in memory), ``place(i)`` names row i for a
    message, ``cut`` says that long rows are to be cut into passages instead of truncated.
    """

    def __init__(
        self,
        rows: Iterable[dict[str, Any]] = (),
        *,
        places: Sequence[str] = (),
        file: str | None = None,
        cut: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(rows)
        self.places, self.file, self.cut, self.notes = list(places), file, cut, list(notes)

    def place(self, index: int) -> str:
        """Where row ``index`` stands, as text: file and line, or source and row."""
        return self.places[index]


def load_rows(source: Any, objective: str, *, name: str, limit: int | None = None) -> Rows:
    """Rows of a source in one of TRL's formats, checked for the objective.

    ``source`` is a JSONL (or JSON, CSV, TSV, Parquet) file, a text file, a folder of text files
    (one row a file, cut into passages by ``make_batches``), a folder saved by ``datasets``, the
    name of a data set on the hub (its train split), a ``datasets.Dataset`` or a list of dicts.

    Fields: "lm" needs ``text`` or ``messages``; "sft" ``prompt`` and ``completion``, or ``text``,
    or ``messages``; "dpo" ``chosen`` and ``rejected``, with ``prompt`` or with the prompt in both.
    Each is text, or a list of messages {"role", "content"} (conversational). The first row decides
    and all others must be like it. Other fields are ignored; nothing in the data is ever run.

    Args:
        source: where the rows are.
        objective: "lm", "sft" or "dpo".
        name: the source's name, for messages.
        limit: read at most so many rows, the first ones.

    Returns:
        A list of dicts with the fields of the format only.

    Raises:
        InputError: with file and line (CSV, Parquet: row), what was expected, found, and to do.

    >>> load_rows([{"prompt": "2 + 2 =", "completion": " 4"}], "sft", name="sums")
    [{'prompt': '2 + 2 =', 'completion': ' 4'}]
    """
    if objective not in FORMATS:
        raise InputError(f"objective: expected 'lm', 'sft' or 'dpo', found {objective!r}.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit: expected a whole number of at least 1, found {limit!r}.")
    if isinstance(source, Rows):
        read: Placed = zip(source.places, source, strict=True)
        file, cut, notes = source.file, source.cut, source.notes
    else:
        read, file, cut, notes = _open(source, name)
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    fields: tuple[str, ...] | None = None
    kind: str | None = None
    for place, row in read:
        if limit is not None and len(rows) == limit:
            break
        row = plain_row(row, place)
        fields = fields or format_of(row, objective, place)
        found = check_row(row, fields, place, objective)
        if kind and found != kind:
            fail(place, f"{kind} rows like the first ({places[0]})", f"a {found} row",
                  "Keep one format in a source.")  # fmt: skip
        kind = found
        rows.append({key: row[key] for key in (*fields, "tools") if row.get(key) is not None})
        places.append(place)
    if not rows:
        raise InputError(f"{file or f'source {name!r}'}: expected at least one row, found none.")
    return Rows(rows, places=places, file=file, cut=cut, notes=notes)


# --- where rows come from -------------------------------------------------------------------------


def _open(source: Any, name: str) -> tuple[Placed, str | None, bool, list[str]]:
    """(place and row pairs, file, cut into passages, notes) of any source."""
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), name)
    if hasattr(source, "column_names") or isinstance(source, (list, tuple)):
        return _numbered(_one_split(source, name), f"source {name!r}"), None, False, []
    fail(f"source {name!r}", "a file, a folder, a data set name, a datasets.Dataset or a list of "
          "dicts", type(source).__name__, "Convert it to one of these.")  # fmt: skip


def _numbered(rows: Iterable[Any], label: str) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows, 1):
        yield f"{label}, row {number}", row


def _one_split(source: Any, name: str) -> Iterable[Any]:
    if not isinstance(source, dict):
        return source
    if "train" in source or len(source) == 1:
        return source.get("train", next(iter(source.values())))
    fail(f"source {name!r}", "one split, or one named train", listed(source), "Pass one of them.")


def _open_path(text: str, name: str) -> tuple[Placed, str | None, bool, list[str]]:
    path = Path(text).expanduser()
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                return _numbered(_saved(path, name), text), text, False, []
            return _text_folder(path, text)
        if path.exists():
            if suffix in JSON_SUFFIXES:
                return _json_rows(path, text), text, False, []
            if suffix in (".csv", ".tsv"):
                return _csv_rows(path, text, "\t" if suffix == ".tsv" else ","), text, False, []
            if suffix == ".parquet":
                return _numbered(_parquet(path, text), text), text, False, []
            if suffix in TEXT_SUFFIXES:
                return iter([(text, {"text": _read(path, text)})]), text, True, []
            known = ", ".join((*_DATA_SUFFIXES, *TEXT_SUFFIXES[:3]))
            fail(text, f"a file ending in {known}", suffix or "no ending", "Rename or convert it.")
    except OSError as error:
        _unreadable(text, error)
    if suffix in (*_DATA_SUFFIXES, *TEXT_SUFFIXES) or not _DATASET_NAME.fullmatch(text):
        fail(text, f"a file or folder ({name!r})", "nothing there", "Check the path.")
    return _numbered(_hub(text, name), text), text, False, []


def _unreadable(label: str, error: OSError) -> NoReturn:
    fail(label, "a file that can be read", error.strerror or str(error), "Check its permissions.")


def _read(path: Path, label: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        _unreadable(label, error)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        fail(f"{label}, line {line}", "UTF-8 text", f"the byte 0x{byte:02x}", "Save it as UTF-8.")
    if not text.strip():
        fail(label, "at least one row", "an empty file", "Fill it or leave this source out.")
    return text


def _json_rows(path: Path, label: str) -> Iterator[tuple[str, Any]]:
    text = _read(path, label)
    if text.lstrip().startswith("["):
        rows = _parse(text, label, 1)
        yield from _numbered(rows, label)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{label}, line {number}", _parse(line, label, number)


def _parse(text: str, label: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{label}, line {line + error.lineno - 1}"
        fail(place, "one JSON object", f"broken JSON ({error.msg}, column {error.colno})",
              "Repair the line; each row is one line.")  # fmt: skip
    except (ValueError, RecursionError):
        fail(f"{label}, line {line}", "one JSON object of text",
              "nesting or a number that is too large", "Repair the line.")  # fmt: skip


def _csv_rows(path: Path, label: str, delimiter: str) -> Iterator[tuple[str, Any]]:
    lines = io.StringIO(_read(path, label), newline="")
    old_limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    try:
        header = next(reader)
        if len(set(header)) < len(header):
            fail(f"{label}, line 1", "different column names", ", ".join(header), "Rename them.")
        for cells in reader:
            if not cells:
                continue
            number += 1
            place = f"{label}, row {number} (line {reader.line_num})"
            if len(cells) != len(header):
                fail(place, f"{len(header)} columns", str(len(cells)),
                      "Quote cells that hold the separator or a line break.")  # fmt: skip
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        fail(f"{label}, line {reader.line_num}", "CSV", f"broken CSV ({error})",
              "Close every quote and double quotes inside a cell.")  # fmt: skip
    finally:
        csv.field_size_limit(old_limit)


def _parquet(path: Path, label: str) -> Iterable[Any]:
    import pyarrow
    from datasets import Dataset
    from pyarrow import parquet

    try:
        return Dataset(parquet.read_table(path))
    except pyarrow.ArrowException as error:
        reason = re.split(r"\.?\s*\n|\. ", str(error))[0][:200]
        fail(label, "a Parquet file", reason, "Write the file again.")


def _saved(path: Path, name: str) -> Iterable[Any]:
    from datasets import load_from_disk

    try:
        return _one_split(load_from_disk(str(path)), name)
    except (OSError, ValueError, KeyError) as error:
        fail(str(path), "a data set saved by datasets", str(error)[:120], "Save it again.")


def _text_folder(path: Path, label: str) -> tuple[Placed, str, bool, list[str]]:
    files = [f for f in sorted(path.rglob("*")) if f.is_file()
             and not any(part.startswith(".") for part in f.relative_to(path).parts)]  # fmt: skip
    texts = [f for f in files if f.suffix.lower() in TEXT_SUFFIXES]
    full = [f for f in texts if f.read_bytes().strip()]
    if not full:
        data = [f for f in files if f.suffix.lower() in _DATA_SUFFIXES]
        noun = "data file" if data else "other or empty file"
        found = plural(len(data or files), noun)
        advice = "Give each data file as a source of its own." if data else "Check the folder."
        fail(label, f"text files ({', '.join(TEXT_SUFFIXES[:3])}, ...)", found, advice)
    notes = []
    if len(texts) > len(full):
        notes.append(f"{plural(len(texts) - len(full), 'empty file')} skipped")
    if len(files) > len(texts):
        notes.append(f"{plural(len(files) - len(texts), 'file')} without text skipped")
    read = ((str(f), {"text": _read(f, str(f))}) for f in full)
    return read, label, True, notes


def _hub(text: str, name: str) -> Iterable[Any]:
    import datasets

    try:
        return _one_split(datasets.load_dataset(text), name)
    except InputError:
        raise
    except Exception as error:  # the hub raises many kinds, all of them about this name
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"{text}: expected a file, a folder or a data set name ({name!r}); found nothing "
            f"there, and it could not be fetched as a data set ({type(error).__name__}: {reason})."
            " Check the path, the name and the network, or give a local file."
        ) from error
