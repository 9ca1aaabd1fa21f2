"""A model and data of any kind in, objectives out; and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lietoolkit.errors import InputError
from lietoolkit.geometry.objective import Objective
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.tasks.batches import whole_number
from lietoolkit.tasks.models import context_length, text_config
from lietoolkit.tasks.objective import ModelObjective
from lietoolkit.tasks.options import check_seed

# Up to so many parameters, float64 on the CPU costs little.
SMALL = 10_000_000


def resolve_model(
    model: str | nn.Module,
    tokenizer: Any,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    notes: list[str],
    shard: bool = False,
) -> tuple[nn.Module, Any, str]:
    """The model, its tokenizer, and what to call it; adds what is to be said to ``notes``."""
    if isinstance(model, nn.Module):
        if shard:
            raise InputError(
                "shard: expected the model by name, found a model; shard it with fully_shard "
                "(torch.distributed.fsdp) before the call, and leave shard out"
            )
        floats = {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}
        if floats:
            notes.append("the model is in half precision; everything was computed in float32")
        adapters = [p for name, p in model.named_parameters() if "lora_B" in name]
        if adapters and not any(p.detach().any() for p in adapters):
            notes.append(
                "the adapters' B matrices are zero, as before training: scores come from B alone; "
                "plan again after some steps"
            )
        config = getattr(model, "config", None)
        return model, tokenizer, getattr(config, "name_or_path", "") or type(model).__name__
    from lietoolkit.tasks.models import load_model, resolve_device, shard_model

    place = resolve_device(device)
    loaded, own_tokenizer = load_model(
        model,
        device="cpu" if shard else place,  # it may not fit there as a whole
        dtype="float32" if dtype == "auto" else dtype,
        trust_remote_code=trust_remote_code,
    )
    small = sum(p.numel() for p in loaded.parameters()) <= SMALL
    if dtype == "auto" and small and place.type == "cpu":
        loaded = loaded.double()
    if shard:
        shard_model(loaded, place)
    notes += getattr(loaded, "lietoolkit_notes", [])
    return loaded, tokenizer or own_tokenizer, str(model)


class Builder:
    """Data of any kind in, objectives out; keeps what is to be said about each."""

    def __init__(
        self, space: ParameterSpace, tokenizer: Any, objective: str, batch_size: int, batches: int,
        max_length: int | None, microbatch: int | None, reference: nn.Module | None, seed: int,
    ):  # fmt: skip
        check_seed(seed)
        whole_number("batches", batches, 1)
        self.space, self.tokenizer, self.objective = space, tokenizer, objective
        self.batch_size, self.batches, self.max_length = batch_size, batches, max_length
        self.microbatch, self.reference, self.seed = microbatch, reference, seed
        self.context = context_length(text_config(getattr(space.model, "config", None)))
        self.reports: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def __call__(self, data: Any, name: str, objective: str | None = None) -> Objective:
        """An objective from an objective, batches, rows, or whatever ``load_rows`` reads.

        Args:
            data, name: the data, and what errors call it.
            objective: the loss, where it is not the builder's own.
        """
        objective = objective or self.objective
        if isinstance(data, Objective):
            return data
        ready = isinstance(data, list) and bool(data) and isinstance(data[0], Mapping)
        if ready and "input_ids" in data[0]:
            return self._objective(data, name, objective)
        if self.tokenizer is None:
            raise InputError(
                "tokenizer: expected the model's tokenizer, found None; give it, or give batches"
            )
        from lietoolkit.tasks.batches import make_batches
        from lietoolkit.tasks.sources import load_rows

        made, report = make_batches(
            load_rows(data, objective, name=name),
            self.tokenizer,
            objective,
            batch_size=self.batch_size,
            max_length=self.max_length,
            context=self.context,
            name=name,
            limit_batches=self.batches,
            seed=self.seed,
        )
        self.reports.setdefault(name, report.to_dict())
        self.notes += [f"{name}: {note}" for note in report.notes]
        return self._objective(made, name, objective)

    def _objective(self, made: list[dict[str, Any]], name: str, objective: str) -> ModelObjective:
        return ModelObjective(
            self.space.model, made, objective, space=self.space, name=name,
            microbatch=self.microbatch, reference=self.reference,
        )  # fmt: skip


def overlaps(sources: Mapping[str, Objective], targets: Mapping[str, Objective]) -> list[str]:
    """Sentences about targets that are the same data as a source."""

    def content(objective: Objective) -> str:
        return objective.fingerprint().rsplit(":", 1)[1]

    return [
        f"target {aim!r} is the same data as source {name!r}: allowed, but the plan then favours it"
        for aim, target in targets.items()
        for name, source in sources.items()
        if target is source
        or (isinstance(source, ModelObjective) and content(target) == content(source))
    ]


@contextmanager
def differentiable_attention(model: nn.Module, notes: list[str]) -> Iterator[None]:
    """Replace attention kernels that only half precision or first derivatives know."""
    config = getattr(model, "config", None)
    kind = getattr(config, "_attn_implementation", None)
    switch: Any = getattr(model, "set_attn_implementation", None)
    if kind in (None, "sdpa", "eager") or switch is None:
        yield
        return
    notes.append(f"attention {kind!r} has no second derivative in float32: 'sdpa' was used instead")
    switch("sdpa")
    try:
        yield
    finally:
        switch(kind)
