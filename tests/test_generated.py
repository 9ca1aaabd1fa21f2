"""Generated instruction families, preference pairs, and text domains."""

import json

import pytest

from lietoolkit.errors import InputError
from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import FRENCH, KIND_OF, preference_families, sft_families

MAKERS = [sft_families, preference_families, text_domains]


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_rows_another_seed_other_rows(make):
    assert make(seed=3, rows=8) == make(seed=3, rows=8)
    assert make(seed=3, rows=8) != make(seed=4, rows=8)


@pytest.mark.parametrize("make", MAKERS)
def test_rows_are_counted_and_unique(make):
    for name, rows in make(seed=0, rows=64).items():
        keys = {row.get("prompt", row.get("text")) for row in rows}
        assert len(rows) == len(keys) == 64, name


@pytest.mark.parametrize("make", [sft_families, preference_families])
def test_splits_share_no_prompt_whatever_the_seed(make):
    held_out = make(seed=9, rows=60, split="eval")
    for seed in (0, 9):
        for name, rows in make(seed=seed, rows=400).items():
            prompts = {row["prompt"] for row in rows}
            assert not prompts & {row["prompt"] for row in held_out[name]}, name


def test_domain_splits_share_no_passage():
    train, held_out = text_domains(rows=150), text_domains(rows=150, split="eval")
    assert set(train) == set(held_out)
    for name in train:
        texts = {row["text"] for row in train[name]}
        shared = sum(row["text"] in texts for row in held_out[name])
        assert shared <= 0.02 * len(held_out[name]), name


def test_a_small_family_begins_again_when_used_up():
    rows = sft_families(rows=600)["translation"]
    assert len(rows) == 600
    assert len({row["prompt"] for row in rows}) > 100


def test_formats():
    families = sft_families()
    assert len(families) >= 10
    for rows in families.values():
        for row in rows:
            assert set(row) == {"prompt", "completion"}
            assert not row["prompt"][-1].isspace()
            assert row["completion"][0] == " " and row["completion"].strip()
    pairs = preference_families()
    assert len(pairs) >= 6
    for rows in pairs.values():
        for row in rows:
            assert set(row) == {"prompt", "chosen", "rejected"}
            assert row["chosen"] != row["rejected"]
            assert row["chosen"][0] == row["rejected"][0] == " "


def test_domains_hold_passages_of_a_few_hundred_characters():
    domains = text_domains()
    always = {"python", "pytorch", "cpp", "stubs", "manual", "docstrings", "readme"}
    assert always <= set(domains)
    for rows in domains.values():
        assert all(set(row) == {"text"} and 200 <= len(row["text"]) <= 600 for row in rows)


def test_answers_are_right():
    """Each answer is worked out again from the words of the prompt."""
    families = sft_families(seed=5, rows=50)

    def pairs(name):
        return [(row["prompt"], row["completion"].strip()) for row in families[name]]

    def words(prompt):
        return [w for w in prompt.replace("\n", " ").split() if w in KIND_OF]

    for prompt, answer in pairs("reverse"):
        assert answer.split() == words(prompt)[::-1]
    for prompt, answer in pairs("sort"):
        assert answer.split() == sorted(words(prompt))
    for prompt, answer in pairs("count"):
        assert int(answer) == len(words(prompt))
    for prompt, answer in pairs("addition"):
        digits = "".join(c if c.isdigit() else " " for c in prompt).split()
        assert int(answer) == sum(map(int, digits))
    for prompt, answer in pairs("comparison"):
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in prompt).split()]
        assert int(answer) == (max if "larger" in prompt else min)(numbers)
    for prompt, answer in pairs("translation"):
        assert any(e in prompt and f == answer for e, f in FRENCH.items())
    for prompt, answer in pairs("json"):
        assert set(json.loads(answer)) == {"name", "age", "city"}
        assert all(str(value) in prompt for value in json.loads(answer).values())


def test_rejected_answers_are_wrong():
    pairs = preference_families(seed=5, rows=50)
    for row in pairs["valid_json"]:
        assert json.loads(row["chosen"])
        with pytest.raises(json.JSONDecodeError):
            json.loads(row["rejected"])
    for row in pairs["right_order"]:
        assert row["chosen"].split() == sorted(row["rejected"].split())
        assert row["rejected"].split() != sorted(row["rejected"].split())
    assert all(len(row["chosen"]) < len(row["rejected"]) / 3 for row in pairs["short"])


@pytest.mark.parametrize("make", MAKERS)
def test_bad_arguments_are_refused(make):
    with pytest.raises(InputError, match="rows: expected at least 1, got 0"):
        make(rows=0)
    with pytest.raises(InputError, match=r'split: expected "train" or "eval", got \'test\''):
        make(split="test")
