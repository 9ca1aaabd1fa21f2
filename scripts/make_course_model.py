"""Pretrain the course model from a seed, on text that any Python installation holds.

    python scripts/make_course_model.py            # about 25 minutes on two cores; resumes
    python scripts/course_model_card.py            # measures it and writes the model card

Half of every batch is domain text (every token counts), half is generated instruction text (only
the completion counts). Batches are a function of the seed and the step, so an interrupted run goes
on from its last checkpoint with the batches it would have had.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import preference_families, sft_families

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "lietoolkit" / "models" / "course"
WORK = ROOT / "out" / "course_model"
VOCABULARY, LENGTH = 2048, 256
SHAPES = {"text": (4, 256), "completion": (16, 64)}  # rows, tokens
SPECIAL = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Rows of each family in 50 steps. Families made of facts never show the words withheld here, so
# that every family leaves something for fine-tuning to teach.
SHARES = {"copy": 160, "reverse": 160, "uppercase": 160, "comparison": 160}
SHARES |= {"sort": 80, "addition": 80, "plural": 80, "antonym": 80, "category": 80, "yes_no": 80}
RARE, PREFERRED = 40, 24  # every other family; the chosen answers of a preference family
FACTS = {"plural", "past_tense", "antonym", "category", "yes_no", "code", "translation"}
FACTS |= {"sentiment", "right_plural", "right_fact", "in_french", "short"}
WITHHELD = set(
    re.findall(
        r"\w+",
        "plum goose gray axe zinc cocoa knee hawk hero wife brush tooth ask go sleep bring carry "
        "wide narrow quiet loud shallow deep queen garden moon snow eye lovely dreadful divide",
    )
)
PEAK, FLOOR, WARMUP = 3e-3, 1e-4, 100


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE vocabulary; digits are tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[2:],
        model_max_length=LENGTH,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def make_model() -> LlamaForCausalLM:
    """Build the model: 1.6 million parameters, tied embeddings, RMSNorm, rotary positions."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    config._attn_implementation = "eager"
    return LlamaForCausalLM(config).float()


def allowed(family: str, prompt: str) -> bool:
    """Whether pretraining may show the prompt."""
    return family not in FACTS or not WITHHELD & set(re.findall(r"\w+", prompt))


class Stream:
    """Batches as a function of (seed, step)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        domains = text_domains(seed=seed, rows=10**6, split="train")
        self.domains = {
            name: tokenizer([row["text"] for row in rows], truncation=True)["input_ids"]
            for name, rows in domains.items()
        }
        self.instructions = lru_cache(maxsize=1)(self._instructions)

    def _instructions(self, block: int) -> list[tuple[list[int], int]]:
        """(token ids, prompt length) of the rows of 50 steps."""
        rng = random.Random(f"instructions {self.seed} {block}")
        seed = self.seed + 1000 + block
        rows = []
        for name, family in sft_families(seed=seed, rows=160).items():
            shown = family[: SHARES.get(name, RARE)]
            rows += [(r["prompt"], r["completion"]) for r in shown if allowed(name, r["prompt"])]
        for name, family in preference_families(seed=seed, rows=PREFERRED).items():
            rows += [(r["prompt"], r["chosen"]) for r in family if allowed(name, r["prompt"])]
        rng.shuffle(rows)
        rows = [
            (f"<|user|>{prompt}<|end|><|assistant|>" if rng.random() < 0.2 else prompt, answer)
            for prompt, answer in rows
        ]
        prompts = self.tokenizer([prompt for prompt, _ in rows])["input_ids"]
        answers = self.tokenizer([f"{answer}<|end|>" for _, answer in rows])["input_ids"]
        return [(p + a, len(p)) for p, a in zip(prompts, answers, strict=True)]

    def _documents(self, step: int, kind: str) -> Iterator[tuple[list[int], int]]:
        rng = random.Random(f"{kind} {self.seed} {step}")
        pool = self.instructions(step // 50) if kind == "completion" else []
        while True:
            if kind == "completion":
                yield rng.choice(pool)
            else:
                domain = self.domains[rng.choice(sorted(self.domains))]
                yield [*rng.choice(domain), 0], 0

    def batch(self, step: int, kind: str) -> dict[str, torch.Tensor]:
        """Pack documents ("text" or "completion") into rows; positions restart at each."""
        shape = SHAPES[kind]
        length = shape[1]
        ids, labels = torch.full(shape, 1), torch.full(shape, -100)
        positions = torch.zeros(shape, dtype=torch.long)
        documents = self._documents(step, kind)
        for row in range(shape[0]):
            start = 0
            while start < length:
                document, hidden = next(documents)
                if kind == "text":
                    document = document[: length - start]
                elif len(document) > length - start:
                    break
                end = start + len(document)
                ids[row, start:end] = torch.tensor(document)
                labels[row, start + hidden : end] = ids[row, start + hidden : end]
                labels[row, start] = -100  # the first token of a document has no context
                positions[row, start:end] = torch.arange(len(document))
                start = end
            # the padded tail is a document of its own, which nothing looks at
            positions[row, start:] = torch.arange(length - start)
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def loss_and_gradients(model: LlamaForCausalLM, batch: dict) -> tuple[float, tuple]:
    """Loss and gradients in one thread; bfloat16 products, float32 weights."""
    torch.set_num_threads(1)
    target = batch["labels"][:, 1:]
    counted = target != -100
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            use_cache=False,  # without a cache, restarting positions separate the documents
        ).last_hidden_state
        logits = model.lm_head(hidden[:, :-1][counted])
    loss = torch.nn.functional.cross_entropy(logits.float(), target[counted])
    return loss.item(), torch.autograd.grad(loss, list(model.parameters()))


def backward(model: LlamaForCausalLM, batches: list, pool: ThreadPoolExecutor) -> list[float]:
    """Set the gradients of half the text loss plus half the completion loss: neither drowns.

    One thread for each: on two busy cores this is faster than two threads in every product.
    """
    (text, first), (completion, second) = pool.map(partial(loss_and_gradients, model), batches)
    for parameter, a, b in zip(model.parameters(), first, second, strict=True):
        parameter.grad = (a + b) / 2
    return [text, completion]


def learning_rate(step: int, steps: int) -> float:
    """Linear warmup, then cosine down to a small floor."""
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return FLOOR + (PEAK - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int
) -> dict[str, dict]:
    """Held-out loss per domain and exact match per family, on ``n`` rows each."""
    import course_model_card as card

    return {
        "domains": {
            name: round(card.token_loss(model, tokenizer, rows), 3)
            for name, rows in text_domains(seed=1, rows=n, split="eval").items()
        },
        "families": {
            name: round(card.exact_match(model, tokenizer, rows), 3)
            for name, rows in sft_families(seed=1, rows=n, split="eval").items()
        },
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write config, weights (safetensors) and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(steps: int, seed: int, work: Path, assets: Path, every: int, fresh: bool) -> None:
    """Run, or go on with, the pretraining."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    log = work / "log.jsonl"
    if fresh:
        checkpoint.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
    torch.manual_seed(seed)
    texts = [r["text"] for rows in text_domains(seed, 300).values() for r in rows]
    texts += [
        r["prompt"] + r["completion"] for rows in sft_families(seed, 300).values() for r in rows
    ]
    tokenizer = make_tokenizer(texts)
    model = make_model()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    start, seconds, tokens = 0, 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds, tokens = state["step"], state["seconds"], state["tokens"]
    stream = Stream(tokenizer, seed)
    began, running = time.perf_counter() - seconds, [0.0, 0.0]
    pool = ThreadPoolExecutor(2)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batches = [stream.batch(step, kind) for kind in SHAPES]
        losses = backward(model, batches, pool)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tokens += sum(int((batch["input_ids"] != 1).sum()) for batch in batches)
        running = [
            new if step == start else 0.95 * old + 0.05 * new
            for old, new in zip(running, losses, strict=True)
        ]
        done = step + 1
        if done % 50 and done != steps:
            continue
        seconds = time.perf_counter() - began
        line = {"step": done, "text_loss": round(running[0], 4)}
        line |= {"completion_loss": round(running[1], 4), "lr": optimizer.param_groups[0]["lr"]}
        line |= {"tokens": tokens, "seconds": round(seconds, 1)}
        if done % every == 0 or done == steps:
            model.eval()
            line |= evaluate(model, tokenizer, 16)
            model.train()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": done, "seconds": seconds, "tokens": tokens}
            torch.save(state, work / "checkpoint.tmp")
            (work / "checkpoint.tmp").replace(checkpoint)
            save(model, tokenizer, work / "latest")
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    save(model.eval(), tokenizer, assets)
    facts = {"seed": seed, "steps": steps, "tokens": tokens, "seconds": round(seconds)}
    (assets / "training.json").write_text(json.dumps(facts) + "\n")
    (assets / "training_log.jsonl").write_text(log.read_text())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--fresh", action="store_true", help="throw the checkpoint away")
    options = parser.parse_args()
    torch.set_num_threads(1)  # two halves of a batch, one thread each
    train(options.steps, options.seed, options.work, options.assets, options.every, options.fresh)


if __name__ == "__main__":
    main()
