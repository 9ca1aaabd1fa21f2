"""Measure the course model on held-out rows and write its model card.

python scripts/course_model_card.py [--rows 200] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections import Counter
from importlib import metadata
from pathlib import Path

import torch

from lietoolkit.tasks.domains import text_domains
from lietoolkit.tasks.generated import sft_families

ASSETS = Path(__file__).resolve().parents[1] / "lietoolkit" / "models" / "course"
Rows = list[dict[str, str]]


def _padded(sequences: list[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, sequences))
    return torch.tensor([ids + [value] * (width - len(ids)) for ids in sequences])


@torch.no_grad()
def exact_match(model, tokenizer, rows: Rows) -> float:
    """Share of rows whose greedy completion is exactly right, end token included.

    Greedy decoding gives the completion if and only if every one of its tokens is the most likely
    one after the right tokens before it, so one forward pass decides.
    """
    right = 0
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        prompts = tokenizer([row["prompt"] for row in part])["input_ids"]
        answers = tokenizer([row["completion"] + tokenizer.eos_token for row in part])["input_ids"]
        pairs = list(zip(prompts, answers, strict=True))
        ids = _padded([p + a for p, a in pairs], tokenizer.pad_token_id)
        guess = model(input_ids=ids).logits.argmax(-1)
        for i, (prompt, answer) in enumerate(pairs):
            begin = len(prompt) - 1
            right += guess[i, begin : begin + len(answer)].tolist() == answer
    return right / len(rows)


@torch.no_grad()
def completion_loss(model, tokenizer, rows: Rows) -> float:
    """Mean loss of a completion token (end token included), in nats."""
    total, count = 0.0, 0
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = tokenizer(row["completion"] + tokenizer.eos_token)["input_ids"]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        total, count = total + loss.item(), count + len(answer)
    return total / count


@torch.no_grad()
def token_loss(model, tokenizer, rows: Rows) -> float:
    """Mean next-token loss of passages cut at the model's length, in nats per token."""
    total, count = 0.0, 0
    texts = tokenizer([row["text"] for row in rows], truncation=True)["input_ids"]
    for start in range(0, len(texts), 16):
        ids = _padded(texts[start : start + 16], -100)
        logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1]
        target = ids[:, 1:]
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), reduction="sum"
        ).item()
        count += int((target != -100).sum())
    return total / count


def unigram_loss(tokenizer, train: Rows, held_out: Rows) -> float:
    """Loss of the same tokens under the domain's own token frequencies, add-one smoothed."""
    counts = Counter(
        token for ids in tokenizer([row["text"] for row in train])["input_ids"] for token in ids
    )
    total = sum(counts.values()) + len(tokenizer)
    texts = tokenizer([row["text"] for row in held_out], truncation=True)["input_ids"]
    tokens = [token for ids in texts for token in ids[1:]]
    return -sum(math.log((counts[token] + 1) / total) for token in tokens) / len(tokens)


def measure(folder: Path, rows: int) -> dict:
    """All figures of the card."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    families = {}
    for name, made in sft_families(seed=1, rows=rows, split="eval").items():
        unique = list({row["prompt"]: row for row in made}.values())
        families[name] = {
            "n": len(unique),
            "exact": exact_match(model, tokenizer, unique),
            "loss": completion_loss(model, tokenizer, unique),
        }
    held_out = text_domains(seed=1, rows=rows, split="eval")
    train = text_domains(seed=1, rows=2000, split="train")
    domains = {
        name: {
            "n": len(made),
            "model": token_loss(model, tokenizer, made),
            "unigram": unigram_loss(tokenizer, train[name], made),
        }
        for name, made in held_out.items()
    }
    parameters = sum(p.numel() for p in model.parameters())
    return {"families": families, "domains": domains, "parameters": parameters}


def card(figures: dict, training: dict, rows: int) -> str:
    """The model card as Markdown."""
    packages = ("torch", "transformers", "tokenizers")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    families = "\n".join(
        f"| {name} | {100 * row['exact']:.0f} % | {row['loss']:.3f} | {row['n']} |"
        for name, row in figures["families"].items()
    )
    domains = "\n".join(
        f"| {name} | {row['model']:.2f} | {row['unigram']:.2f} | {row['n']} |"
        for name, row in figures["domains"].items()
    )
    shares = [row["exact"] for row in figures["families"].values()]
    good, mean = sum(share > 0.5 for share in shares), 100 * sum(shares) / len(shares)
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# Course model

A small causal language model to learn with: Llama architecture, {figures["parameters"]:,}
parameters (float32), context of 256 tokens, byte-level BPE vocabulary of 2048, tied embeddings. It
is the default of the package and needs no network. It is made to be fine-tuned in lessons: it gets
most prompts of the generated instruction families right, and leaves something to learn.

Written by `python scripts/course_model_card.py --rows {rows}`; figures are measured on held-out
rows (seed 1, split "eval"; no prompt and no file of them is in the training split).

## Instruction families
Greedy completion exactly right, end token included; loss in nats per completion token.
{good} of {len(shares)} families have more than half right; the mean is {mean:.0f} %.

| family | right | loss | n |
|---|---|---|---|
{families}

## Code and prose domains
Next-token loss in nats per token, beside a unigram model fitted to up to 2,000 passages of the same
domain's training split.

| domain | model | unigram | n |
|---|---|---|---|
{domains}

## Training
`python scripts/make_course_model.py --steps {training["steps"]} --seed {training["seed"]}`:
{training["tokens"]:,} tokens in {training["seconds"]:,} seconds on two shared CPU cores (AdamW,
warmup and cosine, about 2,000 tokens a step). Half of each step is text of the domains, half is
instruction text, of which a fifth in chat format and a small part the chosen answers of the
preference families; rejected answers were never shown. To leave something to learn, about thirty
words were withheld from the families made of facts (`WITHHELD` in the script), and some families
were shown less than others. `training_log.jsonl` holds the losses. Python
{platform.python_version()}, {versions}.

Batches depend only on the seed and the step, but the domain text depends on the installed
versions, so another environment gives a similar model, not the same bits.

## Limits
It knows a few hundred words and short templates. It is no assistant, knows no facts beyond its
families, and writes plausible-looking nonsense in every domain. Do not use it for anything but
lessons and tests. Domain losses are for passages of up to 600 characters; files are disjoint
between the splits, but code copied between files exists.

## Licence
The weights are ours, under Apache-2.0. They were trained on text that a Python environment holds
(the standard library, package sources, headers, documentation), which stays under its own licences
and is not part of this folder.
"""


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200, help="held-out rows of each")
    parser.add_argument("--model", type=Path, default=ASSETS)
    options = parser.parse_args()
    figures = measure(options.model, options.rows)
    training = json.loads((options.model / "training.json").read_text())
    text = card(figures, training, options.rows)
    (options.model / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
