"""Sources: every format gives the same rows, and every bad row is named by file and line."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lietoolkit.errors import InputError
from lietoolkit.tasks.sources import load_rows

ROWS = [
    {"prompt": "2 + 2 =", "completion": " 4"},
    {"prompt": 'a "quoted", cell\nof two lines', "completion": "105"},
    {"prompt": "<script>alert(1)</script> {{ 7 * 7 }}", "completion": "```{python}\n%%bash\n```"},
    {"prompt": "naïve 世界 \u2028 line", "completion": "'=1+1"},
]
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(source, objective="sft", **options):
    with pytest.raises(InputError) as caught:
        load_rows(source, objective, name="math", **options)
    return str(caught.value)


# --- the same rows from everywhere ----------------------------------------------------------------


def test_every_format_gives_the_same_rows(tmp_path):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "bom.jsonl").write_text(
        "\ufeff" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
        encoding="utf-8",
    )
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["completion", "prompt"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    files = ("a.parquet", "saved", "a.jsonl", "a.json", "bom.jsonl", "a.csv", "a.tsv")
    sources = [*(tmp_path / name for name in files), ROWS, data, DatasetDict(train=data),
               str(tmp_path / "a.jsonl")]  # fmt: skip
    for source in sources:
        rows = load_rows(source, "sft", name="math")
        assert rows == ROWS, source
    assert rows.file == str(tmp_path / "a.jsonl")
    assert load_rows(ROWS, "sft", name="math").file is None


def test_places_name_the_line_or_the_row(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    path.write_text("\n" + path.read_text())
    assert load_rows(path, "sft", name="math").place(0) == f"{path}, line 2"
    assert load_rows(ROWS, "sft", name="math").place(1) == "source 'math', row 2"


def test_limit_reads_the_first_rows_only(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    path.write_text(path.read_text() + "broken")
    assert load_rows(path, "sft", name="math", limit=2) == ROWS[:2]
    assert "limit: expected a whole number of at least 1, found 0" in refused(path, limit=0)


def test_checked_rows_can_be_checked_again(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    rows = load_rows(path, "sft", name="math")
    again = load_rows(rows, "sft", name="math")
    assert again == rows
    assert again.place(2) == rows.place(2)
    assert "use objective sft" in refused(rows, "dpo")


def test_a_folder_of_text_files_is_a_row_a_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.py").write_text("print('never run')\n")
    (tmp_path / "deep" / "a.md").write_text("# Title\n")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("no")
    rows = load_rows(tmp_path, "lm", name="code")
    assert rows == [{"text": "print('never run')\n"}, {"text": "# Title\n"}]
    assert rows.cut
    assert rows.place(1) == str(tmp_path / "deep" / "a.md")
    assert rows.notes == ["1 empty file skipped", "1 file without text skipped"]
    assert load_rows(tmp_path / "b.py", "lm", name="code") == rows[:1]


def test_other_formats_and_fields():
    def rows(objective, row):
        return load_rows([row], objective, name="x")[0]

    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert rows("lm", {"text": "a", "id": 3}) == {"text": "a"}
    assert rows("sft", {"prompt": "a", "completion": "b", "text": "c"}) == {
        "prompt": "a", "completion": "b"}  # fmt: skip
    assert rows("sft", {"messages": chat, "tools": "[]"}) == {"messages": chat, "tools": "[]"}
    sharegpt = {"conversations": [{"from": m["role"], "value": m["content"]} for m in chat]}
    assert rows("lm", sharegpt) == {"messages": chat}
    assert rows("dpo", {**PAIR, "prompt": None}) == {"chosen": "a", "rejected": "b"}
    assert rows("dpo", PAIR) == PAIR


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_any_text_survives_json_and_csv(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    rows = [{"text": text} for text in texts]
    assert load_rows(jsonl(folder / "a.jsonl", rows), "lm", name="x") == rows
    texts = [text.replace("\r", "").replace("\0", "") + "x" for text in texts]
    with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    rows = [{"text": text} for text in texts]
    assert load_rows(folder / "a.csv", "lm", name="x") == rows


# --- bad input ------------------------------------------------------------------------------------

GOOD = b'{"prompt": "a", "completion": "b"}\n'
PREFERENCE = json.dumps(PAIR).encode() + b"\n"
BAD_JSONL = {
    "empty file": ("sft", b"", "{f}: expected at least one row; found an empty file. Fill it"),
    "blank file": ("sft", b"\n \n", "{f}: expected at least one row; found an empty file."),
    "broken JSON": (
        "sft",
        GOOD + b'{"prompt": "a", "completion": \n' + GOOD,
        "{f}, line 2: expected one JSON object; found broken JSON (Expecting value, column",
    ),
    "two objects on a line": ("sft", GOOD.strip() + GOOD, "line 1: .* broken JSON (Extra data"),
    "too deep": ("sft", GOOD + b'{"a":' * 99999, "{f}, line 2: expected one JSON object of text"),
    "huge number": ("sft", b'{"a": ' + b"9" * 9999 + b"}", "found nesting or a number that is"),
    "not an object": ("sft", GOOD + b'"text"\n', "{f}, line 2: expected an object with named"),
    "missing field": (
        "sft",
        GOOD + b'{"prompt": "a"}\n',
        "{f}, line 2: expected prompt, completion; found prompt. Add completion, or remove",
    ),
    "missing field at once": (
        "sft",
        b'{"prompt": "a", "id": 1}\n',
        "{f}, line 1: expected prompt, completion, or text, or messages for objective sft; "
        "found prompt, id. Add completion.",
    ),
    "other names": ("sft", b'{"question": "a", "answer": "b"}', "found question, answer. Rename"),
    "no fields": ("sft", b"{}", "found no field."),
    "number": (
        "sft",
        GOOD * 2 + b'{"prompt": "a", "completion": 105}\n',
        "{f}, line 3: completion: expected text, or a list of messages; found a number (105).",
    ),
    "boolean": ("sft", b'{"prompt": true, "completion": "a"}', "found true or false."),
    "null": ("sft", GOOD + b'{"prompt": "a", "completion": null}', "completion: .* found null."),
    "null at once": ("lm", b'{"text": null}', "{f}, line 1: expected text in text; found null."),
    "object": ("lm", b'{"text": {"a": 1}}', "text: expected text, .* found an object."),
    "not UTF-8": (
        "sft",
        GOOD + b'{"prompt": "caf\xe9", "completion": "b"}\n',
        "{f}, line 2: expected UTF-8 text; found the byte 0xe9. Save it as UTF-8.",
    ),
    "half a character": ("lm", b'{"text": "a\\ud83d"}', "{f}, line 1: text: .* at character 2."),
    "preference for sft": (
        "sft",
        PREFERENCE,
        "{f}, line 1: expected prompt, completion, or text, or messages for objective sft; "
        "found prompt, chosen, rejected. This is preference data: use objective dpo, or other",
    ),
    "preference for lm": ("lm", PREFERENCE, "This is preference data: use objective dpo"),
    "instructions for dpo": (
        "dpo",
        GOOD,
        "expected prompt, chosen, rejected, or chosen, rejected for objective dpo; found prompt, "
        "completion. This is instruction data: use objective sft",
    ),
    "instructions for lm": ("lm", GOOD, "This is instruction data: use objective sft"),
    "text for dpo": ("dpo", b'{"text": "a"}', "objective sft"),
    "chosen equals rejected": (
        "dpo",
        PREFERENCE + b'{"prompt": "p", "chosen": "a", "rejected": "a"}\n',
        "{f}, line 2: expected chosen and rejected to differ; found the same answer twice.",
    ),
    "no messages": ("lm", b'{"messages": []}', "messages: expected at least one message"),
    "messages of text": ("lm", b'{"messages": ["a"]}', "messages, message 1: .* found text."),
    "no role": ("lm", b'{"messages": [{"content": "a"}]}', "message 1: .* role; found no role."),
    "unknown role": (
        "lm",
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}',
        "{f}, line 1: messages, message 2: expected a role out of system, developer, user, "
        "assistant, tool; found 'robot'.",
    ),
    "content is no text": (
        "lm",
        b'{"messages": [{"role": "user", "content": ["a"]}]}',
        "message 1: expected text in content; found a list.",
    ),
    "messages as text": ("lm", b'{"messages": "a"}', "Name the field text."),
    "text as messages": (
        "lm",
        b'{"text": [{"role": "user", "content": "a"}]}',
        "Name the field messages.",
    ),
    "half conversational": (
        "sft",
        b'{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}',
        "expected all text or all messages; found prompt text, completion messages.",
    ),
    "mixed formats": (
        "sft",
        GOOD + b'{"prompt": [{"role": "user", "content": "a"}], '
        b'"completion": [{"role": "assistant", "content": "b"}]}',
        "{f}, line 2: expected standard rows like the first ({f}, line 1); found a conversational",
    ),
    "template arguments": (
        "sft",
        b'{"prompt": "a", "completion": "b", "chat_template_kwargs": {"chat_template": "{{ x }}"}}',
        "chat_template_kwargs: .* It is not supported",
    ),
}


def matches(message, expected, file):
    """The parts around " .* " stand in the message, in this order."""
    rest = message
    for part in expected.replace("{f}", str(file)).split(" .* "):
        _, found, rest = rest.partition(part)
        if not found:
            return False
    return True


@pytest.mark.parametrize("case", BAD_JSONL)
def test_bad_json_lines(tmp_path, case):
    objective, data, expected = BAD_JSONL[case]
    path = tmp_path / "data.jsonl"
    path.write_bytes(data)
    message = refused(path, objective)
    assert matches(message, expected, path), message
    assert str(path) in message
    assert message.endswith(".")


BAD_FILES = {
    "a.csv": {
        b"prompt,completion\na,b\nc\n": "{f}, row 2 (line 3): expected 2 columns; found 1.",
        b'prompt,completion\n"a\nb",c\nd,e,f\n': "{f}, row 2 (line 4): expected 2 columns; found 3",
        b"prompt,prompt\na,b\n": "{f}, line 1: expected different column names; found prompt, ",
        b"question,answer\na,b\n": "{f}, row 1 (line 2): expected prompt, completion, or text",
        b'prompt,completion\na,"b\n': "{f}, line 2: expected CSV; found broken CSV (unexpected",
        b"prompt,completion\n": "{f}: expected at least one row, found none.",
        b"prompt,completion\na,\xff\n": "{f}, line 2: expected UTF-8 text; found the byte 0xff.",
        b"": "{f}: expected at least one row; found an empty file.",
    },
    "a.parquet": {b"PAR1 cut off": "{f}: expected a Parquet file; found", b"": "{f}: expected a"},
    "a.json": {
        b'[{"prompt": "a", "completion": "b"},\n {"prompt": 1}]': "{f}, row 2: expected prompt, co",
        b'[{"prompt": "a",\n "completion": "b"\n': "{f}, line 3: expected one JSON object; found",
        b"[]": "{f}: expected at least one row, found none.",
    },
    "a.xlsx": {b"PK": "{f}: expected a file ending in .jsonl, .ndjson, .json, .csv, .tsv, .parq"},
    "a.txt": {b"ok\n\xfe": "{f}, line 2: expected UTF-8 text; found the byte 0xfe."},
}


@pytest.mark.parametrize(
    ("name", "data"), [(name, data) for name, cases in BAD_FILES.items() for data in cases]
)
def test_bad_files(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    message = refused(path)
    assert matches(message, BAD_FILES[name][data], path), message


def test_a_cut_parquet_file_is_said_in_one_sentence(tmp_path):
    """pyarrow adds a guess to it, of which half would be shown."""
    from datasets import Dataset

    path = tmp_path / "a.parquet"
    Dataset.from_list(ROWS).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-50])
    message = refused(path)
    assert message.startswith(f"{path}: expected a Parquet file; found ")
    assert message.endswith(". Write the file again.")
    # datasets 4.7 keeps what pyarrow found to itself.
    assert "magic bytes not found in footer" in message or "Error creating dataset" in message
    assert "Either" not in message


def test_a_bad_parquet_row_is_named(tmp_path):
    from datasets import Dataset

    path = tmp_path / "a.parquet"
    Dataset.from_dict({"prompt": ["a", "b"], "completion": ["c", None]}).to_parquet(path)
    assert f"{path}, row 2: completion: expected text" in refused(path)


def test_bad_places(tmp_path):
    missing = tmp_path / "nothing.jsonl"
    for path in (missing, tmp_path / "no"):
        said = f"{path}: expected a file or folder ('math'); found nothing there. Check the path."
        assert refused(path) == said
    message = refused(tmp_path)
    assert f"{tmp_path}: expected text files (.txt, .md, .rst, ...); found no other or" in message
    jsonl(tmp_path / "a.jsonl", ROWS)
    message = refused(tmp_path)
    assert "found 1 data file" in message
    assert "Give each data file as a source of its own" in message
    (tmp_path / "a.jsonl").rename(tmp_path / "a.txt")
    assert "use objective sft" in refused(tmp_path, "dpo")
    assert "source 'math': expected at least one row, found none" in refused([])
    assert "source 'math', row 1: expected an object" in refused([3])
    assert "source 'math': expected a file, a folder" in refused({"prompt": "a"})
    assert "source 'math': expected a file, a folder" in refused(3.5)
    assert "objective: expected 'lm', 'sft' or 'dpo', found 'kto'" in refused([], "kto")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = jsonl(tmp_path / "a.jsonl", ROWS)

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    assert f"{path}: expected a file that can be read; found Permission denied." in refused(path)


def test_a_dataset_name(monkeypatch):
    import datasets

    asked = []

    def load(name):
        asked.append(name)
        return datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = load_rows("someone/some-data", "sft", name="math")
    assert (rows, rows.file, asked) == (ROWS, "someone/some-data", ["someone/some-data"])
    assert rows.place(1) == "someone/some-data, row 2"


def test_a_dataset_name_without_a_network(monkeypatch):
    import datasets

    def load(name):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    message = refused("someone/some-data")
    assert message.startswith("someone/some-data: expected a file, a folder or a data set name")
    assert "'math'" in message and "it could not be fetched" in message
    assert "ConnectionError: Couldn't reach the hub" in message
    assert "network" in message


def test_several_splits_without_train():
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    message = refused(DatasetDict(test=data, validation=data))
    assert "expected one split, or one named train; found test, validation" in message
    assert load_rows(DatasetDict(test=data), "sft", name="x") == ROWS
