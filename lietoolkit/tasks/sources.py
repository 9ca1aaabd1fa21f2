"""Data in: rows of text from files, folders, data sets and lists, checked for an objective."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InputError

FORMATS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lm": (("text",), ("messages",)),
    "sft": (("prompt", "completion"), ("text",), ("messages",)),
    "dpo": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
}
ROLES = ("system", "developer", "user", "assistant", "tool")
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
_CONTENTS = {"sft": "instruction data", "dpo": "preference data", "lm": "plain text"}


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
        read, file = zip(source.places, source, strict=True), source.file
        cut, notes = source.cut, source.notes
    else:
        read, file, cut, notes = _open(source, name)
    rows, places = [], []
    fields: tuple[str, ...] | None = None
    kind: str | None = None
    for place, row in read:
        if limit is not None and len(rows) == limit:
            break
        row = _plain(row, place)
        fields = fields or _format_of(row, objective, place)
        found = _check(row, fields, place, objective)
        if kind and found != kind:
            _fail(place, f"{kind} rows like the first ({places[0]})", f"a {found} row",
                  "Keep one format in a source.")  # fmt: skip
        kind = found
        rows.append({key: row[key] for key in (*fields, "tools") if row.get(key) is not None})
        places.append(place)
    if not rows:
        raise InputError(f"{file or f'source {name!r}'}: expected at least one row, found none.")
    return Rows(rows, places=places, file=file, cut=cut, notes=notes)


def _fail(place: str, expected: str, found: str, advice: str) -> NoReturn:
    raise InputError(f"{place}: expected {expected}; found {found}. {advice}")


def _listed(fields: Iterable[str]) -> str:
    return ", ".join(sorted(fields))


# --- what a row must hold -------------------------------------------------------------------------


def _plain(row: Any, place: str) -> dict[str, Any]:
    """The row as a dict, with ``conversations`` of {"from", "value"} renamed as TRL renames it."""
    if not isinstance(row, Mapping):
        _fail(place, "an object with named fields", _type(row), 'Write {"field": "text", ...}.')
    row = dict(row)
    turns = row.get("conversations")
    if isinstance(turns, list) and "messages" not in row:
        rename = {"from": "role", "value": "content"}
        row["messages"] = [
            {rename.get(k, k): v for k, v in turn.items()} if isinstance(turn, Mapping) else turn
            for turn in turns
        ]
    return row


def _format_of(row: dict[str, Any], objective: str, place: str) -> tuple[str, ...]:
    present = {key for key, value in row.items() if value is not None}
    for fields in FORMATS[objective]:
        if present.issuperset(fields):
            return fields
    null = {f for fields in FORMATS[objective] for f in fields if f in row} - present
    if null and not any(f in present for f in FORMATS[objective][0]):
        _fail(place, f"text in {_listed(null)}", "null", "Fill it in or remove the row.")
    expected = ", or ".join(", ".join(fields) for fields in FORMATS[objective])
    others = [o for o in ("dpo", "sft", "lm") if o != objective
              and any(present.issuperset(fields) for fields in FORMATS[o])]  # fmt: skip
    advice = "Rename the fields of the file."
    if others:
        advice = f"This is {_CONTENTS[others[0]]}: use objective {others[0]}, or other data."
    elif present & set(FORMATS[objective][0]):
        advice = f"Add {_listed(set(FORMATS[objective][0]) - present)}."
    found = ", ".join(str(key) for key in row if key in present) or "no field"
    _fail(place, f"{expected} for objective {objective}", found, advice)


def _check(row: dict[str, Any], fields: tuple[str, ...], place: str, objective: str) -> str:
    """Check one row's fields; "standard" or "conversational"."""
    missing = [field for field in fields if field not in row]
    if missing:
        found = ", ".join(map(str, row)) or "no field"
        _fail(place, ", ".join(fields), found, f"Add {', '.join(missing)}, or remove the row.")
    kinds = [_check_field(row[field], f"{place}: {field}") for field in fields]
    if len(set(kinds)) > 1:
        found = ", ".join(f"{f} {'text' if k == 'standard' else 'messages'}"
                          for f, k in zip(fields, kinds, strict=True))  # fmt: skip
        _fail(place, "all text or all messages", found, "Write all fields in one format.")
    if "messages" in fields and kinds == ["standard"]:
        _fail(f"{place}: messages", "a list of messages", "text", "Name the field text.")
    if "text" in fields and kinds == ["conversational"]:
        _fail(f"{place}: text", "text", "a list of messages", "Name the field messages.")
    if objective == "dpo" and row["chosen"] == row["rejected"]:
        _fail(place, "chosen and rejected to differ", "the same answer twice",
              "Remove the row: it says nothing about preference.")  # fmt: skip
    if row.get("chat_template_kwargs"):
        _fail(f"{place}: chat_template_kwargs", "no such field", "one",
              "It is not supported: set the tokenizer's chat_template instead.")  # fmt: skip
    return kinds[0]


def _check_field(value: Any, place: str) -> str:
    if isinstance(value, str):
        _check_unicode(value, place)
        return "standard"
    if not isinstance(value, list):
        _fail(place, "text, or a list of messages", _type(value), "Write it in quotes as text.")
    if not value:
        _fail(place, "at least one message", "an empty list", "Add one or remove the row.")
    for number, message in enumerate(value, 1):
        where = f"{place}, message {number}"
        if not isinstance(message, Mapping):
            _fail(where, 'a message {"role": ..., "content": ...}', _type(message),
                  "Write text without a list, or messages with role and content.")  # fmt: skip
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                found = _type(message[key]) if key in message else f"no {key}"
                _fail(where, f"text in {key}", found, f"Give every message a {key}.")
            _check_unicode(message[key], where)
        if message["role"] not in ROLES:
            _fail(where, f"a role out of {', '.join(ROLES)}", repr(message["role"]), "Rename it.")
    return "conversational"


def _check_unicode(text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        _fail(place, "valid Unicode text", f"half a surrogate pair at character {error.start + 1}",
              "Repair or remove it.")  # fmt: skip


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "null"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"a number ({str(value)[:20]})"
    return names.get(type(value), type(value).__name__)


# --- where rows come from -------------------------------------------------------------------------

Placed = Iterator[tuple[str, Any]]


def _open(source: Any, name: str) -> tuple[Placed, str | None, bool, list[str]]:
    """(place and row pairs, file, cut into passages, notes) of any source."""
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), name)
    if hasattr(source, "column_names") or isinstance(source, (list, tuple)):
        return _numbered(_one_split(source, name), f"source {name!r}"), None, False, []
    _fail(f"source {name!r}", "a file, a folder, a data set name, a datasets.Dataset or a list of "
          "dicts", type(source).__name__, "Convert it to one of these.")  # fmt: skip


def _numbered(rows: Iterable[Any], label: str) -> Placed:
    for number, row in enumerate(rows, 1):
        yield f"{label}, row {number}", row


def _one_split(source: Any, name: str) -> Iterable[Any]:
    if not isinstance(source, dict):
        return source
    if "train" in source or len(source) == 1:
        return source.get("train", next(iter(source.values())))
    _fail(f"source {name!r}", "one split, or one named train", _listed(source), "Pass one of them.")


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
            _fail(text, f"a file ending in {known}", suffix or "no ending", "Rename or convert it.")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{text}: expected a file that can be read; found: {reason}. "
            "Check its permissions and that it is complete."
        ) from error
    if suffix in (*_DATA_SUFFIXES, *TEXT_SUFFIXES) or not _DATASET_NAME.fullmatch(text):
        _fail(f"source {name!r}", "a file or folder", f"nothing at {text}", "Check the path.")
    return _numbered(_hub(text, name), text), text, False, []


def _read(path: Path, label: str) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        _fail(f"{label}, line {line}", "UTF-8 text", f"the byte 0x{byte:02x}", "Save it as UTF-8.")
    if not text.strip():
        _fail(label, "at least one row", "an empty file", "Fill it or leave this source out.")
    return text


def _json_rows(path: Path, label: str) -> Placed:
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
        _fail(place, "one JSON object", f"broken JSON ({error.msg} at column {error.colno})",
              "Repair the line; each row is one line.")  # fmt: skip
    except (ValueError, RecursionError):
        _fail(f"{label}, line {line}", "one JSON object of text",
              "nesting or a number that is too large", "Repair the line.")  # fmt: skip


def _csv_rows(path: Path, label: str, delimiter: str) -> Placed:
    lines = _read(path, label).splitlines(keepends=True)
    old_limit = csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    try:
        header = next(reader)
        if len(set(header)) < len(header):
            _fail(f"{label}, line 1", "different column names", ", ".join(header), "Rename them.")
        for cells in reader:
            if not cells:
                continue
            number += 1
            place = f"{label}, row {number} (line {reader.line_num})"
            if len(cells) != len(header):
                _fail(place, f"{len(header)} columns", str(len(cells)),
                      "Quote cells that hold the separator or a line break.")  # fmt: skip
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        _fail(f"{label}, line {reader.line_num}", "CSV", f"broken CSV ({error})",
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
        _fail(label, "a Parquet file", str(error).split("\n")[0][:120], "Write the file again.")


def _saved(path: Path, name: str) -> Iterable[Any]:
    from datasets import load_from_disk

    try:
        return _one_split(load_from_disk(str(path)), name)
    except (OSError, ValueError, KeyError) as error:
        _fail(str(path), "a data set saved by datasets", str(error)[:120], "Save it again.")


def _text_folder(path: Path, label: str) -> tuple[Placed, str, bool, list[str]]:
    files = [f for f in sorted(path.rglob("*")) if f.is_file()
             and not any(part.startswith(".") for part in f.relative_to(path).parts)]  # fmt: skip
    texts = [f for f in files if f.suffix.lower() in TEXT_SUFFIXES]
    full = [f for f in texts if f.read_bytes().strip()]
    if not full:
        data = [f for f in files if f.suffix.lower() in _DATA_SUFFIXES]
        found = f"{len(data)} data files" if data else f"{len(files)} other or empty files"
        advice = "Give each data file as a source of its own." if data else "Check the folder."
        _fail(label, f"text files ({', '.join(TEXT_SUFFIXES[:3])}, ...)", found, advice)
    notes = []
    if len(texts) > len(full):
        notes.append(f"{len(texts) - len(full)} empty files were skipped")
    if len(files) > len(texts):
        notes.append(f"{len(files) - len(texts)} files that are not text were skipped")
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
            f"source {name!r}: expected a file, a folder or a data set name; found nothing at "
            f"{text}, and it could not be fetched as a data set ({type(error).__name__}: {reason})."
            " Check the path, the name and the network, or give a local file."
        ) from error
