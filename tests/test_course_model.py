"""The course model's files, answers and losses. Floors are far below the card's figures."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import preference_families, sft_families

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "lietoolkit" / "models" / "course"
transformers = pytest.importorskip("transformers")


def _script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card():
    return _script("course_model_card")


@pytest.fixture
def maker(monkeypatch):
    """The pretraining script, on two invented passages instead of the whole environment."""
    script = _script("make_course_model")
    passages = [{"text": "def add(a, b):\n    return a + b\n" * 12}, {"text": "A sheep is. " * 30}]
    monkeypatch.setattr(script, "text_domains", lambda *_, **__: {"toy": passages})
    monkeypatch.setattr(script, "evaluate", lambda *_: {})
    return script


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
    losses = {name: card.completion_loss(model, tokenizer, families[name][:8]) for name in shares}
    assert sum(loss > 0.05 for loss in losses.values()) >= 5, losses


def test_domain_losses_are_below_a_unigram_model(card, model, tokenizer):
    held_out = text_domains(seed=1, rows=6, split="eval")
    train = text_domains(seed=1, rows=64)
    for name, rows in held_out.items():
        unigram = card.unigram_loss(tokenizer, train[name], rows)
        assert card.token_loss(model, tokenizer, rows) < unigram - 0.8, name


def test_unigram_loss_is_the_closed_form(card, tokenizer):
    rows = [{"text": "A A B"}]
    ids = tokenizer("A A B")["input_ids"]
    total = len(ids) + len(tokenizer)
    expected = -sum(math.log((ids.count(i) + 1) / total) for i in ids[1:]) / (len(ids) - 1)
    assert card.unigram_loss(tokenizer, rows, rows) == pytest.approx(expected)


def test_losses_ignore_padding_and_neighbours(card, model, tokenizer):
    rows = [{"text": "def f(x):\n    return x"}, {"text": "The cat sat on the mat. " * 9}]
    each = [card.token_loss(model, tokenizer, [row]) for row in rows]
    sizes = [len(tokenizer(row["text"])["input_ids"]) - 1 for row in rows]
    mean = sum(x * n for x, n in zip(each, sizes, strict=True)) / sum(sizes)
    assert card.token_loss(model, tokenizer, rows) == pytest.approx(mean, rel=1e-5)


def test_pretraining_batches_depend_on_seed_and_step_only(maker, tokenizer):
    stream, again = maker.Stream(tokenizer, 0), maker.Stream(tokenizer, 0)
    again.batch(51, "completion")
    for kind, shape in maker.SHAPES.items():
        batch = stream.batch(3, kind)
        assert batch["input_ids"].shape == shape
        assert all(torch.equal(batch[key], again.batch(3, kind)[key]) for key in batch)
        assert not torch.equal(batch["input_ids"], stream.batch(4, kind)["input_ids"])
    labels, ids = batch["labels"], batch["input_ids"]
    counted = labels != -100
    assert torch.equal(labels[counted], ids[counted])
    assert "Answer:" not in tokenizer.decode(labels[counted])
    assert (batch["position_ids"] == 0).sum() > len(ids)  # several documents a row


def test_packed_documents_do_not_see_each_other(maker, model):
    torch.manual_seed(0)
    positions = torch.cat([torch.arange(20), torch.arange(30)])[None]
    second = torch.randint(5, 2000, (1, 30))
    labels = torch.full((1, 50), -100)
    labels[0, 21:] = second[0, 1:]
    losses = []
    for _ in range(2):  # another first document must not change the loss of the second
        ids = torch.cat([torch.randint(5, 2000, (1, 20)), second], 1)
        batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
        losses.append(maker.loss_and_gradients(model, batch)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_pretraining_withholds_words_from_families_of_facts(maker):
    assert not maker.allowed("category", "Category of plum?\nAnswer:")
    assert maker.allowed("category", "Category of plums?\nAnswer:")
    assert maker.allowed("copy", "Repeat: plum\nAnswer:")
    rows = sft_families(rows=300)
    assert set(rows) | set(preference_families(rows=1)) >= maker.FACTS
    for name in maker.FACTS & set(rows):
        hidden = sum(not maker.allowed(name, row["prompt"]) for row in rows[name])
        assert 0.02 < hidden / 300 < 0.4, name


@pytest.mark.slow
def test_interrupted_pretraining_goes_on_to_the_same_weights(maker, tmp_path, monkeypatch):
    def run(name):
        maker.train(4, 0, tmp_path / name, tmp_path / name / "model", every=2, fresh=False)
        return (tmp_path / name / "model" / "model.safetensors").read_bytes()

    straight = run("straight")
    real, calls = maker.backward, []

    def stop_at_the_fourth(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(maker, "backward", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    monkeypatch.setattr(maker, "backward", real)
    assert run("stopped") == straight


def test_preference_families_fit_the_context(tokenizer):
    for rows in preference_families(rows=16).values():
        for row in rows:
            longest = max(row["chosen"], row["rejected"], key=len)
            assert len(tokenizer(row["prompt"] + longest)["input_ids"]) <= 128
