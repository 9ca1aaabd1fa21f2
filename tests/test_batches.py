"""Batches: what the masks cover, what is cut, dropped, counted and refused."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lietoolkit.errors import InputError
from lietoolkit.tasks.batches import _with_prompt, make_batches
from lietoolkit.tasks.losses import loss_function
from lietoolkit.tasks.sources import load_rows

SUMS = [{"prompt": f"{i} plus 1 is", "completion": f" {i + 1}"} for i in range(20)]
PAIRS = [{"prompt": "good?", "chosen": f" yes{i}", "rejected": " no"} for i in range(5)]
BIGBENCH = Path(__file__).resolve().parents[2] / "shared" / "data" / "bigbench"
LONG = "the cat sat on the mat " * 40


def chat(role, content):
    return [{"role": role, "content": content}]


def batches(rows, objective="sft", tokenizer=None, **options):
    return make_batches(rows, tokenizer or tiny.tokenizer(), objective, name="math", **options)


def refused(rows, objective="sft", **options):
    with pytest.raises(InputError) as caught:
        batches(rows, objective, **options)
    return str(caught.value)


def labelled(batch, row):
    labels = batch["labels"][row]
    return tiny.tokenizer().decode(labels[labels != -100])


def read(batch, row):
    return tiny.tokenizer().decode(batch["input_ids"][row][batch["attention_mask"][row] == 1])


# --- masks ----------------------------------------------------------------------------------------


def test_labels_are_the_completion_and_its_end():
    (batch,), _ = batches(SUMS[9:11], seed=None)
    assert read(batch, 0) == "9 plus 1 is 10</s>"
    assert [labelled(batch, row) for row in range(2)] == [" 10</s>", " 11</s>"]
    assert {key: value.dtype for key, value in batch.items()} == dict.fromkeys(batch, torch.int64)
    assert batch["attention_mask"][0].tolist()[-1] == 0  # padding stands on the right
    assert batch["labels"][0].tolist()[-1] == -100


def test_text_is_labelled_whatever_the_objective():
    for objective in ("lm", "sft"):
        (batch,), report = batches([{"text": "Paris is good"}], objective)
        assert torch.equal(batch["labels"], batch["input_ids"])
        assert report.label_tokens == batch["input_ids"].numel() - 1


def test_conversations_go_through_the_chat_template():
    row = {"prompt": chat("user", "2?"), "completion": chat("assistant", "5")}
    (batch,), _ = batches([row])
    assert read(batch, 0) == "<|user|>2?</s>\n<|assistant|>5</s>\n"
    assert labelled(batch, 0) == "5</s>\n"


def test_tools_reach_the_template():
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.chat_template = "{{ tools[0]['name'] if tools else 'none' }}:" + tiny.CHAT_TEMPLATE
    messages = chat("user", "2?") + chat("assistant", "5")
    for tools in ([{"name": "add"}], json.dumps([{"name": "add"}])):
        (batch,), _ = batches([{"messages": messages, "tools": tools}], "lm", tokenizer)
        assert read(batch, 0).startswith("add:<|user|>")
    message = refused([{"messages": messages, "tools": "[broken"}], "lm")
    assert "source 'math', row 1: expected messages (and tools) that the model's chat" in message


def test_preference_batches_hold_chosen_above_rejected():
    (batch,), report = batches(PAIRS[:2], "dpo", seed=None)
    assert read(batch, 0) == "good? yes0</s>"
    assert [read(batch, row) for row in (1, 2, 3)] == [
        "good? yes1</s>", "good? no</s>", "good? no</s>"]  # fmt: skip
    completion = batch["input_ids"][3][batch["completion_mask"][3] == 1]
    assert tiny.tokenizer().decode(completion) == " no</s>"
    assert sorted(batch) == ["attention_mask", "completion_mask", "input_ids"]
    assert (report.used, loss_function("dpo").weight(batch)) == (2, 2)


def test_end_of_sequence_is_added_once_and_padding_is_not_end():
    (batch,), _ = batches([{"text": "a</s>"}, {"text": "a"}, {"text": "a longer one"}], "lm")
    assert (batch["input_ids"] == 2).sum(dim=1).tolist() == [1, 1, 1]
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.pad_token = None
    (batch,), _ = batches([{"text": "a"}, {"text": "a longer one"}], "lm", tokenizer, seed=None)
    assert batch["input_ids"][0, -1] == 2
    assert batch["labels"][0, -1] == -100


def test_html_and_templates_are_plain_text():
    text = "<script>alert(1)</script> {{ 7 * 7 }} {% raw %} ```python\n%%bash\nrm -rf /\n```"
    (batch,), _ = batches([{"text": text}], "lm")
    assert read(batch, 0) == text + "</s>"
    (batch,), _ = batches([{"prompt": chat("user", text), "completion": chat("assistant", text)}])
    assert read(batch, 0).count("{{ 7 * 7 }}") == 2


PIECES = st.lists(st.sampled_from(["a", "b ", " ", "é", "ab"]), min_size=1, max_size=4).map("".join)


@pytest.mark.filterwarnings("ignore")  # of TRL and its dependencies
@settings(max_examples=60, deadline=None)
@given(start=PIECES, chosen=PIECES, rejected=PIECES)
def test_an_implicit_prompt_is_the_one_that_trl_takes(start, chosen, rejected):
    from trl.data_utils import extract_prompt

    row = {"chosen": "Q" + start + chosen, "rejected": "Q" + start + rejected}
    assert _with_prompt(row) == extract_prompt(row)
    turns = {key: [chat("user", part)[0] for part in text] for key, text in row.items()}
    assert _with_prompt(turns) == extract_prompt(turns)


# --- counts ---------------------------------------------------------------------------------------


def test_the_report_adds_up(tmp_path):
    path = tmp_path / "sums.jsonl"
    long = [{"prompt": "1?", "completion": LONG}, {"prompt": LONG, "completion": " 2"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in SUMS + long))
    made, report = batches(load_rows(path, "sft", name="math"), batch_size=4, max_length=30)
    assert [len(batch["input_ids"]) for batch in made] == [4, 4, 4, 4, 4, 1]
    assert max(batch["input_ids"].shape[1] for batch in made) == 30
    assert report.to_dict() == {
        "name": "math",
        "file": str(path),
        "rows": 22,
        "used": 21,
        "batches": 6,
        "tokens": int(sum(batch["attention_mask"].sum() for batch in made)),
        "label_tokens": int(sum(loss_function("sft").weight(batch) for batch in made)),
        "truncated": 2,
        "dropped": 1,
        "notes": [
            "2 rows longer than the context of 30 tokens: the end was cut off",
            "1 row left out: no label token within the context",
        ],
    }
    json.dumps(report.to_dict())


def test_the_default_context_is_the_tokenizers_but_at_most_1024():
    (batch,), report = batches([{"text": "cat" * 3000}], "lm")
    assert batch["input_ids"].shape[1] == 256
    assert report.truncated == 1
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.model_max_length = int(1e30)
    (batch,), _ = batches([{"text": "cat" * 3000}], "lm", tokenizer)
    assert batch["input_ids"].shape[1] == 1024


def test_text_files_are_cut_into_passages(tmp_path):
    (tmp_path / "a.txt").write_text(LONG)
    (tmp_path / "b.txt").write_text("Paris")
    rows = load_rows(tmp_path, "lm", name="prose")
    made, report = batches(rows, "lm", max_length=32, seed=None, batch_size=2)
    ids = [
        row[mask == 1]
        for batch in made
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert tiny.tokenizer().decode(torch.cat(ids)) == LONG + "</s>Paris</s>"
    assert all(len(row) == 32 for row in ids[:-2])
    assert (report.rows, report.used, report.truncated) == (2, len(ids), 0)
    assert report.notes == ("text files were cut into passages of at most 32 tokens",)
    few, _ = batches(rows, "lm", max_length=32, batch_size=2, limit_batches=1)
    assert len(few) == 1


def test_tokens_that_merge_over_the_boundary_are_said():
    _, report = batches([{"prompt": "the ans", "completion": "wer"}])
    assert report.notes[0].startswith("in 1 row the last tokens of the prompt merge with the")


def test_pairs_that_truncation_makes_equal_are_said():
    rows = [{"prompt": "a", "chosen": LONG + "1", "rejected": LONG + "2"}, *PAIRS]
    _, report = batches(rows, "dpo", max_length=16)
    assert "1 pair with chosen and rejected equal after tokenisation" in report.notes


def test_a_tokenizer_without_end_of_sequence_is_said():
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.eos_token = None
    (batch,), report = batches([{"text": "a cat"}], "lm", tokenizer)
    assert 2 not in batch["input_ids"]
    assert report.notes == ("the tokenizer has no end-of-sequence token, so none was added",)


# --- which rows -----------------------------------------------------------------------------------


def as_lists(made):
    return [{key: value.tolist() for key, value in batch.items()} for batch in made]


def test_the_seed_decides_the_rows():
    few, report = batches(SUMS, batch_size=3, limit_batches=2, seed=1)
    again, _ = batches(SUMS, batch_size=3, limit_batches=2, seed=1)
    others, _ = batches(SUMS, batch_size=3, limit_batches=2, seed=2)
    every, _ = batches(SUMS, batch_size=3, seed=1)
    assert as_lists(few) == as_lists(again) != as_lists(others)
    assert as_lists(every)[:2] == as_lists(few)
    assert (report.used, report.rows, report.batches) == (6, 20, 2)
    rows = [read(batch, row) for batch in every for row in range(len(batch["input_ids"]))]
    assert sorted(rows) == sorted(f"{i} plus 1 is {i + 1}</s>" for i in range(20))
    in_order, _ = batches(SUMS, batch_size=20, seed=None)
    assert read(in_order[0], 3) == "3 plus 1 is 4</s>"


def test_dropped_rows_do_not_count_towards_a_limit():
    rows = [{"prompt": LONG, "completion": " 2"}, *SUMS[:2]]
    made, report = batches(rows, batch_size=2, limit_batches=1, max_length=30, seed=None)
    assert (report.used, report.dropped, len(made[0]["input_ids"])) == (2, 1, 2)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(
        st.tuples(st.text("ab :\n</s>é", max_size=12), st.text("ab é", min_size=1, max_size=12)),
        min_size=1,
        max_size=6,
    ),
    size=st.integers(1, 4),
    length=st.integers(4, 24),
)
def test_batch_size_changes_no_row(texts, size, length):
    """Cut into batches or not, the same rows with the same labels, in the same order."""
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in texts]

    def flat(batch_size):
        try:
            made, report = batches(rows, batch_size=batch_size, max_length=length)
        except InputError:
            return None
        assert report.used + report.dropped == report.rows == len(rows)
        return [
            (ids[mask == 1].tolist(), labels[labels != -100].tolist())
            for batch in made
            for ids, mask, labels in zip(
                batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
            )
        ]

    whole, parts = flat(99), flat(size)
    assert whole == parts
    for ids, labels in whole or []:
        assert ids[-len(labels) :] == labels
        assert len(ids) <= length


@pytest.mark.skipif(not BIGBENCH.is_dir(), reason="the shared data sets are absent")
def test_real_families_make_batches():
    files = sorted(BIGBENCH.glob("*/*.jsonl"))
    assert len(files) > 30
    for path in files:
        objective = {"sft": "sft", "preference": "dpo"}[path.parent.name]
        rows = load_rows(path, objective, name=path.stem)
        made, report = batches(rows, objective, batch_size=4, limit_batches=2, max_length=4000)
        assert len(made) == 2
        assert report.used == 8
        assert all(loss_function(objective).weight(batch) > 0 for batch in made)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("completion", ["", chat("assistant", "")])
def test_a_completion_that_tokenises_to_nothing(tmp_path, completion):
    path = tmp_path / "math.jsonl"
    prompt = "1?" if completion == "" else chat("user", "1?")
    full = " 1" if completion == "" else chat("assistant", "1")
    rows = [{"prompt": prompt, "completion": full}, {"prompt": prompt, "completion": completion}]
    path.write_text("\n".join(map(json.dumps, rows)))
    message = refused(load_rows(path, "sft", name="math"))
    assert message.startswith(
        f"{path}, line 2: expected text in completion; found a completion that tokenises to nothing"
    )


def test_a_rejected_answer_that_tokenises_to_nothing():
    rows = [{"prompt": "a", "chosen": "b", "rejected": ""}]
    assert "row 1: expected text in rejected; found a rejected that" in refused(rows, "dpo")


def test_every_row_longer_than_the_context():
    rows = [{"prompt": LONG, "completion": " 2"}] * 2
    message = refused(rows, max_length=64)
    length = len(tiny.tokenizer()(LONG)["input_ids"])
    assert message == (
        "source 'math': expected at least one row with a label token within the context of 64 "
        f"tokens; found 2 rows, all too long (the longest prompt has {length} tokens). Shorten the "
        "rows or raise max_length."
    )
    pairs = [{"prompt": LONG, "chosen": " 2", "rejected": " 3"}]
    assert "found 1 row, all too long" in refused(pairs, "dpo", max_length=64)


def test_rows_with_nothing_to_predict():
    assert "expected at least one row of two tokens or more" in refused([{"text": ""}], "lm")


def test_messages_without_a_chat_template():
    rows = [{"messages": chat("user", "a")}]
    message = refused(rows, "lm", tokenizer=tiny.tokenizer(chat=False))
    assert "row 1: expected text, since this model's tokenizer has no chat template" in message


def test_messages_that_the_template_refuses():
    tokenizer = tiny.tokenizer.__wrapped__()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    message = refused([{"messages": chat("user", "a")}], "lm", tokenizer=tokenizer)
    assert "row 1: expected messages" in message
    assert "found: roles must alternate. Change the roles" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, found 0."),
        ({"batch_size": 2.5}, "batch_size: expected a whole number of at least 1, found 2.5."),
        ({"limit_batches": 0}, "limit_batches: expected a whole number of at least 1, found 0."),
        ({"max_length": 1}, "max_length: expected a whole number of at least 2, found 1."),
        ({"objective": "kto"}, "objective: expected 'lm', 'sft' or 'dpo', found 'kto'."),
        ({"objective": "dpo"}, "source 'math', row 1: expected prompt, chosen, rejected"),
    ],
)
def test_bad_arguments(options, message):
    assert refused(SUMS, **options).startswith(message)


def test_rows_are_checked_here_too():
    assert "row 1: completion: expected text" in refused([{"prompt": "a", "completion": 3}])
    assert "expected at least one row" in refused([])
    checked = load_rows(SUMS, "sft", name="math")
    assert "use objective sft" in refused(checked, "dpo")
