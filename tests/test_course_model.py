"""The course model's files, answers and losses. Floors are far below the card's figures."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import preference_families, sft_families

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "lietoolkit" / "models" / "course"
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def card():
    spec = importlib.util.spec_from_file_location("card", ROOT / "scripts/course_model_card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def test_files_are_small_and_safe(model):
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16 * 2**20
    assert not list(FOLDER.glob("*.bin")) and not list(FOLDER.glob("*.pt"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 1.5e6 <= sum(p.numel() for p in model.parameters()) <= 2.0e6
    assert model.config.tie_word_embeddings


def test_tokenizer_gives_the_text_back(tokenizer):
    texts = [rows[0]["text"] for rows in text_domains(rows=1).values()]
    for text in [*texts, " tab\tünïcode ≤ 漢字 🙂\n\n  end "]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert len(tokenizer) == 2048


def test_prompt_is_a_prefix_of_prompt_and_completion(tokenizer):
    for rows in sft_families(seed=2, rows=16).values():
        for row in rows:
            prompt = tokenizer(row["prompt"])["input_ids"]
            whole = tokenizer(row["prompt"] + row["completion"])["input_ids"]
            assert whole[: len(prompt)] == prompt


def test_chat_template_marks_the_answer(tokenizer):
    user = [{"role": "user", "content": "Opposite of hot?\nAnswer:"}]
    answer = [{"role": "assistant", "content": "cold"}]
    ask = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(user + answer, tokenize=False)
    assert whole == ask + " cold<|end|>"
    marked = tokenizer.apply_chat_template(
        user + answer, return_dict=True, return_assistant_tokens_mask=True
    )
    kept = [t for t, m in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(kept) == " cold<|end|>"


def test_exact_match_is_greedy_decoding(card, model, tokenizer):
    """The card's one-pass measure agrees with ``generate`` row by row."""
    families = sft_families(seed=1, rows=6, split="eval")
    rows = [row for name in ("copy", "category", "sort") for row in families[name]]
    for row in rows:
        ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
        right = tokenizer.decode(out) == row["completion"] + tokenizer.eos_token
        assert right == bool(card.exact_match(model, tokenizer, [row]))


def test_most_completions_are_right_and_something_is_left_to_learn(card, model, tokenizer):
    families = sft_families(seed=1, rows=32, split="eval")
    shares = {name: card.exact_match(model, tokenizer, rows) for name, rows in families.items()}
    assert sum(share > 0.5 for share in shares.values()) >= 10, shares
    losses = {name: card.completion_loss(model, tokenizer, families[name][:16]) for name in shares}
    assert sum(loss > 0.05 for loss in losses.values()) >= 5, losses


def test_domain_losses_are_below_a_unigram_model(card, model, tokenizer):
    held_out = text_domains(seed=1, rows=12, split="eval")
    train = text_domains(seed=1, rows=200)
    for name, rows in held_out.items():
        unigram = card.unigram_loss(tokenizer, train[name], rows)
        assert card.token_loss(model, tokenizer, rows) < unigram - 0.3, name


def test_preference_families_fit_the_context(tokenizer):
    for rows in preference_families(rows=16).values():
        for row in rows:
            longest = max(row["chosen"], row["rejected"], key=len)
            assert len(tokenizer(row["prompt"] + longest)["input_ids"]) <= 128
