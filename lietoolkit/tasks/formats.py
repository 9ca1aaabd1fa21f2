"""What a row must hold: TRL's formats, and what is said about a row that breaks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ..errors import InputError

FORMATS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lm": (("text",), ("messages",)),
    "sft": (("prompt", "completion"), ("text",), ("messages",)),
    "dpo": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
}
ROLES = ("system", "developer", "user", "assistant", "tool")
_CONTENTS = {"sft": "instruction data", "dpo": "preference data", "lm": "plain text"}


def fail(place: str, expected: str, found: str, advice: str) -> NoReturn:
    """Raise an InputError with all that a user needs to repair the data."""
    raise InputError(f"{place}: expected {expected}; found {found}. {advice}")


def plural(number: int, noun: str) -> str:
    """The number with its noun, as in "1 row" and "2 rows"."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def listed(fields: Iterable[str]) -> str:
    """The names in alphabetical order, as text."""
    return ", ".join(sorted(fields))


def plain_row(row: Any, place: str) -> dict[str, Any]:
    """The row as a dict, with ``conversations`` of {"from", "value"} renamed as TRL renames it."""
    if not isinstance(row, Mapping):
        fail(place, "an object with named fields", type_name(row), 'Write {"field": "text", ...}.')
    row = dict(row)
    turns = row.get("conversations")
    if isinstance(turns, list) and "messages" not in row:
        rename = {"from": "role", "value": "content"}
        row["messages"] = [
            {rename.get(k, k): v for k, v in turn.items()} if isinstance(turn, Mapping) else turn
            for turn in turns
        ]
    return row


def format_of(row: dict[str, Any], objective: str, place: str) -> tuple[str, ...]:
    """The fields of the objective's first format that the row fits."""
    present = {key for key, value in row.items() if value is not None}
    for fields in FORMATS[objective]:
        if present.issuperset(fields):
            return fields
    null = {f for fields in FORMATS[objective] for f in fields if f in row} - present
    if null and not any(f in present for f in FORMATS[objective][0]):
        fail(place, f"text in {listed(null)}", "null", "Fill it in or remove the row.")
    expected = ", or ".join(", ".join(fields) for fields in FORMATS[objective])
    others = [o for o in ("dpo", "sft", "lm") if o != objective
              and any(present.issuperset(fields) for fields in FORMATS[o])]  # fmt: skip
    advice = "Rename the fields of the file."
    if others:
        advice = f"This is {_CONTENTS[others[0]]}: use objective {others[0]}, or other data."
    elif present & set(FORMATS[objective][0]):
        advice = f"Add {listed(set(FORMATS[objective][0]) - present)}."
    found = ", ".join(str(key) for key in row if key in present) or "no field"
    fail(place, f"{expected} for objective {objective}", found, advice)


def check_row(row: dict[str, Any], fields: tuple[str, ...], place: str, objective: str) -> str:
    """Check the fields of one row, and say whether it is "standard" or "conversational"."""
    missing = [field for field in fields if field not in row]
    if missing:
        found = ", ".join(map(str, row)) or "no field"
        fail(place, ", ".join(fields), found, f"Add {', '.join(missing)}, or remove the row.")
    kinds = [_check_field(row[field], f"{place}: {field}") for field in fields]
    if len(set(kinds)) > 1:
        found = ", ".join(f"{f} {'text' if k == 'standard' else 'messages'}"
                          for f, k in zip(fields, kinds, strict=True))  # fmt: skip
        fail(place, "all text or all messages", found, "Write all fields in one format.")
    if "messages" in fields and kinds == ["standard"]:
        fail(f"{place}: messages", "a list of messages", "text", "Name the field text.")
    if "text" in fields and kinds == ["conversational"]:
        fail(f"{place}: text", "text", "a list of messages", "Name the field messages.")
    if objective == "dpo" and row["chosen"] == row["rejected"]:
        fail(place, "chosen and rejected to differ", "the same answer twice",
              "Remove the row: it says nothing about preference.")  # fmt: skip
    if row.get("chat_template_kwargs"):
        fail(f"{place}: chat_template_kwargs", "no such field", "one",
              "It is not supported: set the tokenizer's chat_template instead.")  # fmt: skip
    return kinds[0]


def _check_field(value: Any, place: str) -> str:
    if isinstance(value, str):
        _check_unicode(value, place)
        return "standard"
    if not isinstance(value, list):
        fail(place, "text, or a list of messages", type_name(value), "Write it in quotes as text.")
    if not value:
        fail(place, "at least one message", "an empty list", "Add one or remove the row.")
    for number, message in enumerate(value, 1):
        where = f"{place}, message {number}"
        if not isinstance(message, Mapping):
            fail(where, 'a message {"role": ..., "content": ...}', type_name(message),
                  "Write text without a list, or messages with role and content.")  # fmt: skip
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                found = type_name(message[key]) if key in message else f"no {key}"
                fail(where, f"text in {key}", found, f"Give every message a {key}.")
            _check_unicode(message[key], where)
        if message["role"] not in ROLES:
            fail(where, f"a role out of {', '.join(ROLES)}", repr(message["role"]), "Rename it.")
    return "conversational"


def _check_unicode(text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        fail(place, "valid Unicode text", f"half a surrogate pair at character {error.start + 1}",
              "Repair or remove it.")  # fmt: skip


def type_name(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "null"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"a number ({str(value)[:20]})"
    return names.get(type(value), type(value).__name__)
