"""Losses: equal to TRL's trainers, and the laws that accumulation relies on."""

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lietoolkit.errors import InputError
from lietoolkit.tasks.batches import make_batches
from lietoolkit.tasks.losses import add_reference_logps, loss_function

LENGTH = 40


def chat(role, content):
    return [{"role": role, "content": content}]


TEXT = [
    {"text": "the cat sat on the mat"},
    {"text": "Paris"},
    {"text": "the answer is good " * 12},
    {"text": "ends in eos already</s>"},
]
PROMPT_COMPLETION = [
    {"prompt": "Q: what is 2 plus 3?\nA:", "completion": " 5"},
    {"prompt": "the capital of France is", "completion": " Paris, and the cat sat there"},
    {"prompt": "say it again: ", "completion": "good"},  # the space merges with nothing
    {"prompt": "the ans", "completion": "wer is 5"},  # tokens merge across the boundary
    {"prompt": "Q: again? ", "completion": "the answer is good " * 12},  # truncated
    {"prompt": "the cat sat on the mat " * 12, "completion": " lost"},  # dropped
]
CHAT_PROMPT_COMPLETION = [
    {"prompt": chat("system", "be good") + chat("user", "2 plus 3?"),
     "completion": chat("assistant", "5")},
    {"prompt": chat("user", "the capital of France?"),
     "completion": chat("assistant", "Paris is " * 20)},
]  # fmt: skip
MESSAGES = [
    {"messages": chat("user", "what is 2 plus 3?") + chat("assistant", "the answer is 5")},
    {"messages": chat("user", "again") + chat("assistant", "5")},
]
PREFERENCE = [
    {"prompt": "Q: what is 2 plus 3?\nA:", "chosen": " 5", "rejected": " the cat sat on the mat"},
    {"prompt": "the capital of France is", "chosen": " Paris", "rejected": " again good</s>"},
    {"prompt": "the ans", "chosen": "wer is 5", "rejected": " good"},
    {"prompt": "Q:", "chosen": " the answer is good" * 12, "rejected": " no"},
    {"prompt": "the cat sat on the mat " * 12, "chosen": " lost", "rejected": " gone"},
]
CHAT_PREFERENCE = [
    {"prompt": chat("user", "2 plus 3?"), "chosen": chat("assistant", "5"),
     "rejected": chat("assistant", "the cat")},
    {"prompt": chat("system", "be good") + chat("user", "France?"),
     "chosen": chat("assistant", "Paris"), "rejected": chat("assistant", "the mat")},
]  # fmt: skip
IMPLICIT = [
    {"chosen": "Q: what is 2 plus 3? the answer is 5", "rejected": "Q: what is 2 plus 3? the cat"},
    {"chosen": "Paris is good", "rejected": "Paris is good and again"},
]
CHAT_IMPLICIT = [
    {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]}
    for row in CHAT_PREFERENCE
]


def trl_batch(trainer):
    rows = list(trainer.train_dataset)
    return trainer.data_collator(rows)


@pytest.mark.filterwarnings("ignore")  # of TRL and its dependencies, which are not ours to mend
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        ("lm", TEXT),
        ("lm", MESSAGES),
        ("sft", PROMPT_COMPLETION),
        ("sft", CHAT_PROMPT_COMPLETION),
        ("sft", TEXT),
        ("sft", MESSAGES),
    ],
)
def test_equals_the_loss_of_trl_sft_trainer(tmp_path, objective, rows, bos):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer, model = tiny.tokenizer(bos), tiny.model()
    args = SFTConfig(
        output_dir=tmp_path, report_to=[], use_cpu=True, max_length=LENGTH, disable_tqdm=True
    )
    trainer = SFTTrainer(
        model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    theirs = trl_batch(trainer)
    (ours,), report = make_batches(
        rows, tokenizer, objective, batch_size=99, max_length=LENGTH, name="rows", seed=None
    )
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}
    model.eval()
    with torch.no_grad():
        expected = trainer.compute_loss(model, dict(theirs)).item()
        loss = loss_function(objective)
        assert loss.loss(model, ours).item() == pytest.approx(expected, abs=1e-5)
        assert loss.loss(model, theirs).item() == pytest.approx(expected, abs=1e-5)
    assert report.used == len(trainer.train_dataset)
    assert loss.weight(ours) == report.label_tokens == (theirs["labels"][:, 1:] != -100).sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("rows", [PREFERENCE, CHAT_PREFERENCE, IMPLICIT, CHAT_IMPLICIT])
def test_equals_the_loss_of_trl_dpo_trainer(tmp_path, rows, bos):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer, model, reference = tiny.tokenizer(bos), tiny.model(0), tiny.model(1)
    args = DPOConfig(
        output_dir=tmp_path, report_to=[], use_cpu=True, max_length=LENGTH, disable_tqdm=True
    )
    trainer = DPOTrainer(
        model,
        ref_model=reference,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    theirs = trl_batch(trainer)
    (ours,), report = make_batches(
        rows, tokenizer, "dpo", batch_size=99, max_length=LENGTH, name="rows", seed=None
    )
    assert {k: v.tolist() for k, v in ours.items()} == {k: v.tolist() for k, v in theirs.items()}
    model.eval()
    with torch.no_grad():
        expected = trainer.compute_loss(model, dict(theirs)).item()
    assert abs(expected - math.log(2)) > 1e-3  # the two models disagree, or nothing is compared
    for batch in (ours, theirs):
        (ready,) = add_reference_logps(reference, [batch])
        loss = loss_function("dpo").loss(model, ready).item()
        assert loss == pytest.approx(expected, abs=1e-5)
    assert report.used == len(trainer.train_dataset) == loss_function("dpo").weight(ours)


# --- by hand --------------------------------------------------------------------------------------


class Bigram(torch.nn.Module):
    """Next-token logits from a table: every loss can be added up by hand."""

    def __init__(self, size=5):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        table = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids, attention_mask=None, use_cache=True):
        assert use_cache is False
        return SimpleNamespace(logits=self.table[input_ids])

    def logp(self, before, token):
        row = self.table.detach()[before].tolist()
        return row[token] - math.log(sum(map(math.exp, row)))


def test_label_at_t_is_predicted_from_the_token_before_it():
    model = Bigram()
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [4, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, -100, 3, 4], [-100, 3, -100, -100]]),
    }
    by_hand = -(model.logp(2, 3) + model.logp(3, 4) + model.logp(4, 3)) / 3
    assert loss_function("sft").loss(model, batch).item() == pytest.approx(by_hand, rel=1e-12)
    assert loss_function("sft").weight(batch) == 3


def test_without_labels_everything_but_padding_counts():
    model = Bigram()
    batch = {
        "input_ids": torch.tensor([[1, 2, 3], [4, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    by_hand = -(model.logp(1, 2) + model.logp(2, 3) + model.logp(4, 3)) / 3
    assert loss_function("lm").loss(model, batch).item() == pytest.approx(by_hand, rel=1e-12)
    assert loss_function("lm").weight(batch) == 3
    batch["completion_mask"] = torch.tensor([[0, 0, 1], [0, 1, 0]])
    by_hand = -(model.logp(2, 3) + model.logp(4, 3)) / 2
    assert loss_function("sft").loss(model, batch).item() == pytest.approx(by_hand, rel=1e-12)


def test_dpo_sums_over_completion_tokens():
    model = Bigram()
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "completion_mask": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]]),
        "ref_chosen_logps": torch.tensor([-3.0], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([-1.0], dtype=torch.float64),
    }
    chosen, rejected = model.logp(2, 3) + model.logp(3, 4), model.logp(2, 0)
    for beta in (0.1, 0.5):
        by_hand = math.log1p(math.exp(-beta * ((chosen + 3) - (rejected + 1))))
        loss = loss_function("dpo", beta=beta).loss(model, batch)
        assert loss.item() == pytest.approx(by_hand, rel=1e-12)


def test_unshifted_labels_and_a_mask_off_by_one_would_be_seen():
    """The TRL comparisons above could not pass with either error: both move the loss far."""
    model = tiny.model()
    (batch,), _ = make_batches(
        PROMPT_COMPLETION, tiny.tokenizer(), "sft", batch_size=99, max_length=LENGTH, name="x"
    )
    (pairs,), _ = make_batches(
        PREFERENCE, tiny.tokenizer(), "dpo", batch_size=99, max_length=LENGTH, name="x"
    )
    (pairs,) = add_reference_logps(tiny.model(1), [pairs])
    sft, dpo = loss_function("sft"), loss_function("dpo")
    with torch.no_grad():
        right = sft.loss(model, batch)
        for step in (1, -1):
            wrong = {**batch, "labels": batch["labels"].roll(step, 1)}
            assert abs(sft.loss(model, wrong) - right) > 1e-3
            mask = batch["labels"].roll(step, 1) == -100
            wrong = {**batch, "labels": batch["input_ids"].masked_fill(mask, -100)}
            assert abs(sft.loss(model, wrong) - right) > 1e-3
            wrong = {**pairs, "completion_mask": pairs["completion_mask"].roll(step, 1)}
            assert abs(dpo.loss(model, wrong) - dpo.loss(model, pairs)) > 1e-3


def test_what_is_evaluated_again_and_again_is_the_same_loss():
    model = tiny.model()
    tokenizer = tiny.tokenizer()
    (rows,), _ = make_batches(
        PROMPT_COMPLETION, tokenizer, "sft", batch_size=99, max_length=LENGTH, name="x"
    )
    (pairs,), _ = make_batches(
        PREFERENCE, tokenizer, "dpo", batch_size=99, max_length=LENGTH, name="x"
    )
    (pairs,) = add_reference_logps(tiny.model(1), [pairs])
    unlabelled = {key: rows[key] for key in ("input_ids", "attention_mask")}
    on_the_left = {key: value.flip(1) for key, value in rows.items()}
    cases = {"sft": [rows, on_the_left, unlabelled, {"input_ids": rows["input_ids"]}]}
    for name, batches in (cases | {"dpo": [pairs]}).items():
        kind = loss_function(name)
        for batch in batches:
            ready = kind.ready(batch)
            with torch.no_grad():
                torch.testing.assert_close(
                    kind.loss(model, ready), kind.loss(model, batch), rtol=1e-6, atol=0
                )
    sft = loss_function("sft")
    assert not rows["attention_mask"].all() and "attention_mask" not in sft.ready(rows)
    assert "attention_mask" in sft.ready(on_the_left), "there a model would look at the padding"


# --- laws -----------------------------------------------------------------------------------------

SEQUENCE = st.lists(st.integers(0, 4), min_size=2, max_size=7)
ROWS = st.lists(st.tuples(SEQUENCE, st.integers(0, 5)), min_size=1, max_size=5)


def lm_batch(rows, width=0):
    width = max(width, *(len(ids) for ids, _ in rows))
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for ids, start in rows:
        pad = width - len(ids)
        batch["input_ids"].append([*ids, *[0] * pad])
        batch["attention_mask"].append([1] * len(ids) + [0] * pad)
        batch["labels"].append([*[-100] * start, *ids[start:], *[-100] * pad][:width])
    return {key: torch.tensor(value) for key, value in batch.items()}


def dpo_batch(rows, width=0):
    """Pairs (row, row reversed): chosen rows first."""
    both = [*rows, *((ids[::-1], start) for ids, start in rows)]
    batch = lm_batch(both, width)
    mask = (batch.pop("labels") != -100).long()
    chosen = torch.tensor([-float(len(ids)) for ids, _ in rows], dtype=torch.float64)
    return {**batch, "completion_mask": mask,
            "ref_chosen_logps": chosen, "ref_rejected_logps": -2 * chosen}  # fmt: skip


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, n=st.integers(1, 7), objective=st.sampled_from(["lm", "dpo"]))
def test_weighted_parts_add_up_to_the_batch(rows, n, objective):
    model, loss = Bigram(), loss_function(objective)
    batch = lm_batch(rows) if objective == "lm" else dpo_batch(rows)
    parts = loss.split(batch, n)
    assert len(parts) <= n
    weights = [loss.weight(part) for part in parts]
    assert sum(weights) == loss.weight(batch)
    total = sum(w * loss.loss(model, part) for w, part in zip(weights, parts, strict=True))
    close(loss.loss(model, batch) * loss.weight(batch), total)
    assert sum(len(part["input_ids"]) for part in parts) == len(batch["input_ids"])


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, extra=st.integers(0, 4), seed=st.integers(0, 99),
       objective=st.sampled_from(["lm", "dpo"]))  # fmt: skip
def test_padding_and_row_order_do_not_matter(rows, extra, seed, objective):
    import random

    model, loss = Bigram(), loss_function(objective)
    make = lm_batch if objective == "lm" else dpo_batch
    shuffled = random.Random(seed).sample(rows, len(rows))
    wider = max(len(ids) for ids, _ in rows) + extra
    close(loss.loss(model, make(rows)), loss.loss(model, make(shuffled, wider)))


def test_padding_does_not_matter_for_attention_either():
    model, loss = tiny.model().double(), loss_function("sft")
    rows = [([5, 6, 7, 8, 9], 2), ([5, 9], 1)]
    close(loss.loss(model, lm_batch(rows)), loss.loss(model, lm_batch(rows, 11)))


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, beta=st.floats(0.01, 2))
def test_dpo_loss_at_the_reference_is_log_2(rows, beta):
    batch = dpo_batch(rows)
    del batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    (batch,) = add_reference_logps(Bigram(), [batch])
    loss = loss_function("dpo", beta=beta).loss(Bigram(), batch)
    close(loss, torch.tensor(math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("objective", ["lm", "dpo"])
def test_second_derivatives_equal_those_of_finite_differences(objective):
    model, loss = Bigram(), loss_function(objective)
    rows = [([1, 2, 3, 4], 1), ([4, 3, 1], 2)]
    batch = lm_batch(rows) if objective == "lm" else dpo_batch(rows)
    assert torch.autograd.gradgradcheck(
        lambda table: loss.loss(lambda input_ids, **_: SimpleNamespace(logits=table[input_ids]),
                                batch),
        (model.table,),
    )  # fmt: skip


def test_a_batch_without_labels_weighs_nothing():
    batch = lm_batch([([1, 2, 3], 3)])
    loss = loss_function("lm")
    assert loss.weight(batch) == 0
    assert loss.loss(Bigram(), batch).item() == 0


def test_logits_of_chosen_columns_are_those_of_the_whole_sequence():
    """Llama computes logits where labels are; a model without that option must agree."""
    model, loss = tiny.model().double(), loss_function("sft")
    batch = lm_batch([([5, 6, 7, 8, 9], 3), ([5, 9, 3], 2)])
    hidden = []
    model.lm_head.register_forward_hook(lambda _m, args, _out: hidden.append(args[0].shape[1]))
    short = loss.loss(model, batch)
    whole = loss.loss(lambda **inputs: model(**inputs), batch)
    close(short, whole)
    assert hidden == [3, 5]


@pytest.mark.filterwarnings("ignore")  # of peft and its dependencies
def test_adapters_and_virtual_tokens():
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    batch, loss = lm_batch([([5, 6, 7, 8], 2), ([9, 8, 3, 4], 2)]), loss_function("sft")
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    plain = loss.loss(tiny.model(), batch)
    torch.testing.assert_close(loss.loss(get_peft_model(tiny.model(), lora), batch), plain)
    virtual = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(tiny.model(), virtual)
    theirs = model(**batch).loss  # transformers' own mean over the labels, shifted
    torch.testing.assert_close(loss.loss(model, batch), theirs)
    assert abs(theirs - plain) > 1e-3


def test_bfloat16_logits_are_summed_in_float32():
    loss = loss_function("lm").loss(tiny.model().bfloat16(), lm_batch([([5, 6, 7], 0)]))
    assert loss.dtype == torch.float32
    assert loss_function("lm").loss(Bigram(), lm_batch([([1, 2], 0)])).dtype == torch.float64


# --- the interface --------------------------------------------------------------------------------


def test_a_callable_weighs_rows_and_keeps_pairs_together():
    def mine(model, batch):
        return batch["input_ids"].double().mean()

    loss = loss_function(mine)
    batch = lm_batch([([1, 2, 3], 0), ([4, 4, 4], 0), ([0, 0, 0], 0)])
    assert (loss.name, loss.weight(batch)) == ("mine", 3)
    parts = loss.split(batch, 2)
    assert [len(part["labels"]) for part in parts] == [2, 1]
    total = sum(loss.weight(part) * loss.loss(None, part) for part in parts) / 3
    close(total, loss.loss(None, batch))
    assert loss_function(loss) is loss
    pairs = dpo_batch([([1, 2], 0), ([3, 4], 0)])
    first, second = loss.split(pairs, 2)
    assert first["input_ids"].tolist() == [[1, 2], [2, 1]]
    assert second["input_ids"].tolist() == [[3, 4], [4, 3]]
    assert first["ref_chosen_logps"].shape == (1,)


def test_reference_log_probabilities_carry_no_gradient_and_are_computed_once():
    model = tiny.model(attention_dropout=0.5).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    batch = dpo_batch([([5, 6, 7], 1), ([8, 9, 3, 4], 2)])
    del batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    first, again = add_reference_logps(model, [batch, batch])
    assert [module.training for module in model.modules()] == before
    assert "ref_chosen_logps" not in batch
    assert not first["ref_chosen_logps"].requires_grad
    torch.testing.assert_close(first["ref_chosen_logps"], again["ref_chosen_logps"])
    (kept,) = add_reference_logps(tiny.model(5), [first])
    assert kept["ref_rejected_logps"] is first["ref_rejected_logps"]


def test_a_reference_that_fails_leaves_the_mode_as_it_was():
    model = tiny.model().train()
    with pytest.raises(InputError):
        add_reference_logps(model, [{"input_ids": torch.ones(3, 4).long()}])
    assert model.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loss_function("kto"), "loss: expected one of 'lm', 'sft', 'dpo' .* found 'kto'"),
        (lambda: loss_function("dpo", beta=0), "beta: expected a positive number, found 0"),
        (lambda: loss_function("dpo", beta=math.nan), "beta: .* found nan"),
        (
            lambda: loss_function("dpo").loss(Bigram(), {"input_ids": torch.ones(2, 2).long()}),
            "Call add_reference_logps",
        ),
        (
            lambda: add_reference_logps(Bigram(), [{"input_ids": torch.ones(2, 2).long()}]),
            "found no completion_mask",
        ),
        (
            lambda: add_reference_logps(
                Bigram(),
                [{"input_ids": torch.ones(3, 2).long(), "completion_mask": torch.ones(3, 2)}],
            ),
            "found 3 rows",
        ),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
