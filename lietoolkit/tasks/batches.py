"""Checked rows become token batches, tokenised and masked as TRL's trainers do."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .formats import plural
from .losses import IGNORE
from .sources import Rows, load_rows

DEFAULT_LENGTH = 1024
PASSAGES_A_PICK = 8  # so that a limit does not fill up with passages of one long file


@dataclass(frozen=True)
class SourceReport:
    """What became of a source: counts of rows, batches and tokens, and notes in plain words.

    ``rows`` were read, ``used`` examples are in the batches; ``truncated`` of those looked at were
    longer than the context and lost their end, ``dropped`` had no label token (left). ``tokens``
    counts what the model reads, ``label_tokens`` what the loss is taken on, after the shift.
    """

    name: str
    file: str | None
    rows: int
    used: int
    batches: int
    tokens: int
    label_tokens: int
    truncated: int
    dropped: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True)
class _Example:
    """One sequence with labels, or the chosen and the rejected one of a pair."""

    ids: list[list[int]]
    labelled: list[list[bool]]
    moved: bool = False  # the completion starts inside the prompt's last tokens

    def cut(self, start: int, stop: int | None) -> _Example:
        part = slice(start, stop)
        ids = [x[part] for x in self.ids]
        return _Example(ids, [x[part] for x in self.labelled], self.moved)

    @property
    def learnable(self) -> bool:
        return all(any(labelled[1:]) for labelled in self.labelled)


def make_batches(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    objective: str,
    *,
    batch_size: int = 8,
    max_length: int | None = None,
    context: int | None = None,
    name: str,
    limit_batches: int | None = None,
    seed: int | None = 0,
) -> tuple[list[dict[str, Tensor]], SourceReport]:
    """Token batches of rows, as the installed TRL's trainers would make them.

    Standard rows: EOS is appended to the completion (or text), prompt and prompt + completion are
    tokenised, and the completion starts where the two differ. Conversational rows go through the
    tokenizer's chat template. Sequences keep their first ``max_length`` tokens and are padded on
    the right. Rows from text files are cut into passages of ``max_length`` tokens instead.

    Args:
        rows: of ``load_rows``, or a list of dicts (checked here).
        tokenizer: a transformers tokenizer.
        objective: "lm", "sft" or "dpo".
        batch_size: rows, or pairs for "dpo", in a batch; the last batch may hold fewer.
        max_length: longest sequence in tokens; by default 1024, or the least of
            tokenizer.model_max_length and context where that is less.
        context: tokens that the model can read, where it has such a limit.
        name: the source's name, for messages and the report.
        limit_batches: at most so many batches, from rows drawn without replacement.
        seed: shuffles the rows, the same way each time; None keeps their order.

    Returns:
        Batches of int64 tensors [rows, T]: ``input_ids``, ``attention_mask`` and ``labels`` (-100
        on prompt and padding); for "dpo" [2 pairs, T], chosen above rejected, with
        ``completion_mask`` in place of labels. And a ``SourceReport``.

    Raises:
        InputError: bad argument; bad row (file and line); no row with a label token.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    limit = None if limit_batches is None else whole_number("limit_batches", limit_batches, 1)
    if max_length is None:
        max_length = min(int(tokenizer.model_max_length), DEFAULT_LENGTH, context or DEFAULT_LENGTH)
    max_length = whole_number("max_length", max_length, 2)
    if context is not None and max_length > context:
        raise InputError(
            f"max_length: expected at most the model's context of {context} tokens, found "
            f"{max_length}; lower it, or leave it out."
        )
    rows = load_rows(rows, objective, name=name)
    order = list(range(len(rows)))
    if seed is not None:
        random.Random(seed).shuffle(order)

    wanted = sys.maxsize if limit is None else limit * batch_size
    enough = wanted * PASSAGES_A_PICK if rows.cut else wanted
    examples: list[_Example] = []
    count: Counter[str] = Counter()
    longest_prompt = 0
    for index in order:
        if len(examples) >= enough:
            break
        whole = _tokenise(rows[index], tokenizer, rows.place(index))
        length = max(map(len, whole.ids))
        count["moved"] += whole.moved
        if rows.cut:
            parts = [whole.cut(i, i + max_length) for i in range(0, length, max_length)]
        else:
            parts = [whole.cut(0, max_length)]
            count["truncated"] += length > max_length
        kept = [part for part in parts if part.learnable]
        if not kept:
            count["dropped"] += 1
            count["too long"] += length > max_length
            longest_prompt = max(longest_prompt, whole.labelled[0].count(False))
        examples += kept
    if not examples:
        _refuse(rows, name, max_length, context, count, longest_prompt)
    if rows.cut and seed is not None:
        random.Random(seed).shuffle(examples)
    examples = examples[:wanted]

    pad = tokenizer.pad_token_id
    pad = next(i for i in (pad, tokenizer.eos_token_id, 0) if i is not None)
    groups = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
    batches = [_collate(group, pad) for group in groups]
    report = SourceReport(
        name=name,
        file=rows.file,
        rows=len(rows),
        used=len(examples),
        batches=len(batches),
        tokens=sum(len(ids) for example in examples for ids in example.ids),
        label_tokens=sum(sum(m[1:]) for example in examples for m in example.labelled),
        truncated=count["truncated"],
        dropped=count["dropped"],
        notes=(*rows.notes, *_notes(rows, count, max_length, tokenizer, examples)),
    )
    return batches, report


def whole_number(name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number and no smaller; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, found {value!r}.")
    return value


# --- rows to token ids ----------------------------------------------------------------------------


def _tokenise(row: dict[str, Any], tokenizer: Any, place: str) -> _Example:
    if "text" in row or "messages" in row:
        text = row.get("text", row.get("messages"))
        tokens = _ids(_end(text, tokenizer), row, tokenizer, place)
        return _Example([tokens], [[True] * len(tokens)])
    if "completion" in row:
        prompt, answers = row["prompt"], {"completion": row["completion"]}
    else:
        row = row if "prompt" in row else _with_prompt(row)
        prompt, answers = row["prompt"], {key: row[key] for key in ("chosen", "rejected")}
    for field, answer in answers.items():
        if not _says_something(answer, tokenizer):
            raise InputError(
                f"{place}: expected text in {field}; found a {field} that tokenises to nothing "
                f"({str(answer)[:60]!r}). Fill it in or remove the row."
            )
    prompt_ids = _ids(prompt, row, tokenizer, place, add_generation_prompt=True)
    ids = [_ids(prompt + _end(a, tokenizer), row, tokenizer, place) for a in answers.values()]
    start = min(_common_prefix(prompt_ids, x) for x in ids)
    labelled = [[i >= start for i in range(len(x))] for x in ids]
    return _Example(ids, labelled, moved=start < len(prompt_ids))


def _end(text: Any, tokenizer: Any) -> Any:
    """Text ending in EOS; messages as they are, since the chat template ends them."""
    eos = tokenizer.eos_token
    if isinstance(text, str) and eos and not text.endswith(eos):
        return text + eos
    return text


def _ids(
    content: Any, row: dict[str, Any], tokenizer: Any, place: str, **template: Any
) -> list[int]:
    if isinstance(content, str):
        return list(tokenizer(text=content, verbose=False)["input_ids"])
    if not content:
        return []
    if not tokenizer.chat_template:
        raise InputError(
            f"{place}: expected text, since this model's tokenizer has no chat template; found "
            "messages. Use text fields, or a model with a chat template."
        )
    tools = row.get("tools")
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
        encoded = tokenizer.apply_chat_template(
            content, tools=tools, tokenize=True, return_dict=True, **template
        )
    except Exception as error:  # a template raises whatever its author chose
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{place}: expected messages (and tools) that the model's chat template accepts; "
            f"found: {reason}. Change the roles or their order."
        ) from error
    return list(encoded["input_ids"])


def _says_something(answer: Any, tokenizer: Any) -> bool:
    texts = [answer] if isinstance(answer, str) else [message["content"] for message in answer]
    return any(
        tokenizer(text=text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in texts
        if text
    )


def _common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """Take the common start of chosen and rejected as the prompt, but leave both an answer."""
    chosen, rejected = row["chosen"], row["rejected"]
    start = min(_common_prefix(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    if start > 0 and chosen[start] != rejected[start] and chosen[start - 1] == " ":
        start -= 1  # the space before a word belongs to the answer
    start = max(start, 0)
    return {
        **row,
        "prompt": chosen[:start],
        "chosen": chosen[start:],
        "rejected": rejected[start:],
    }


# --- token ids to tensors -------------------------------------------------------------------------


def _collate(examples: list[_Example], pad: int) -> dict[str, Tensor]:
    sides = len(examples[0].ids)
    ids = [example.ids[side] for side in range(sides) for example in examples]
    flags = [example.labelled[side] for side in range(sides) for example in examples]
    width = max(map(len, ids))

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])

    batch = {
        "input_ids": padded(ids, pad),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
    }
    mask = padded([[int(flag) for flag in row] for row in flags], 0)
    if sides == 2:
        return {**batch, "completion_mask": mask}
    return {**batch, "labels": batch["input_ids"].masked_fill(mask == 0, IGNORE)}


# --- what is said about a source ------------------------------------------------------------------


def _notes(
    rows: Rows, count: Counter[str], max_length: int, tokenizer: Any, examples: list[_Example]
) -> list[str]:
    notes = []
    if count["truncated"]:
        notes.append(
            f"{plural(count['truncated'], 'row')} longer than the context of {max_length} tokens: "
            "the end was cut off"
        )
    if count["dropped"]:
        rows_out = plural(count["dropped"], "row")
        notes.append(f"{rows_out} left out: no label token within the context")
    same = sum(len(e.ids) == 2 and e.ids[0] == e.ids[1] for e in examples)
    if same:
        notes.append(f"{plural(same, 'pair')} with chosen and rejected equal after tokenisation")
    if count["moved"]:
        notes.append(
            f"in {plural(count['moved'], 'row')} the last tokens of the prompt merge with the "
            "completion and count as its start; end prompts on a token boundary to avoid it"
        )
    if rows.cut:
        notes.append(f"text files were cut into passages of at most {max_length} tokens")
    if tokenizer.eos_token is None:
        notes.append("the tokenizer has no end-of-sequence token, so none was added")
    return notes


def _refuse(
    rows: Rows,
    name: str,
    max_length: int,
    context: int | None,
    count: Counter[str],
    prompt: int,
) -> None:
    where = rows.file or f"source {name!r}"
    if count["too long"]:
        more = "" if max_length == context else " or raise max_length"
        raise InputError(
            f"{where}: expected at least one row with a label token within the context of "
            f"{max_length} tokens; found {plural(len(rows), 'row')}, all too long (the longest "
            f"prompt has {prompt} tokens). Shorten the rows{more}."
        )
    raise InputError(
        f"{where}: expected at least one row of two tokens or more; found "
        f"{plural(len(rows), 'row')}, all shorter. Add text."
    )
