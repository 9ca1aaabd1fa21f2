import json
import socket
from pathlib import Path

import pytest
import torch

from lietoolkit import doctor as module
from lietoolkit.doctor import doctor, format_doctor, plan_memory
from lietoolkit.errors import InputError

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def no_network_and_empty_cache(monkeypatch, tmp_path):
    def refuse(*args, **options):
        raise AssertionError("the doctor must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("LIETOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=192, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def machine(monkeypatch, free):
    cpu = {"name": "cpu", "description": "2 cores", "total": 10**12, "free": free}
    monkeypatch.setattr(module, "_devices", lambda: [cpu])


def test_report_names_versions_devices_and_models():
    report = doctor()
    number = torch.__version__.split("+")[0]  # metadata may leave out the build
    assert report["versions"]["torch"].split("+")[0] == number
    assert report["devices"][0]["name"] == "cpu"
    assert 0 < report["devices"][0]["free"] <= report["devices"][0]["total"]
    assert report["models"]["smollm2-135m"] is None
    text = format_doctor(json.loads(json.dumps(report)))
    assert number in text and "lietoolkit models get smollm2-135m" in text


def test_missing_packages_and_course_model(monkeypatch):
    monkeypatch.setattr(module, "_version", lambda package: None)
    monkeypatch.setattr(module, "course_path", lambda: None)
    text = format_doctor(doctor())
    assert "pip install 'lietoolkit[llm]'" in text
    assert "not installed" in text and "reinstall" in text


def test_estimate_counts_the_parameters_of_a_folder(folder, model):
    (estimate,) = doctor(folder)["estimates"]
    count = sum(p.numel() for p in model.parameters())
    assert estimate["bytes"]["model"] == 4 * count
    assert estimate["bytes"]["sources"] == 24 * count
    assert estimate["total"] == sum(estimate["bytes"].values())


def test_activations_are_of_the_size_that_a_gradient_keeps(model):
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.randint(0, 512, (8, 64), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        for parameter in model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        measured = sum(kept.values())
    assert loss.isfinite()
    estimate = plan_memory(
        0, layers=4, hidden=64, intermediate=192, vocabulary=512, rows=8, tokens=64
    )["activations"]
    assert measured / 1.5 < estimate < measured * 2


@pytest.mark.parametrize(
    ("parts", "remedy"),
    [
        ({"model": 1, "vectors": 1, "sources": 1, "activations": 9}, "microbatch"),
        ({"model": 1, "vectors": 1, "sources": 9, "activations": 1}, "fewer sources"),
        ({"model": 1, "vectors": 9, "sources": 1, "activations": 1}, "adapters"),
    ],
)
def test_what_does_not_fit_says_what_to_lower(folder, monkeypatch, parts, remedy):
    scaled = {name: size * 10**9 for name, size in parts.items()}
    monkeypatch.setattr(module, "plan_memory", lambda *args, **options: scaled)
    machine(monkeypatch, free=13 * 10**9)
    assert doctor(folder)["estimates"][0]["fits"] == {"cpu": True}
    machine(monkeypatch, free=10 * 10**9)
    report = doctor(folder)
    assert report["estimates"][0]["fits"] == {"cpu": False}
    advice = [sentence for sentence in report["advice"] if "would not fit" in sentence]
    assert len(advice) == 1 and remedy in advice[0]
    assert "12.0 GB against 10.0 GB" in advice[0] and "does not fit" in format_doctor(report)


def test_unknown_memory_is_said(folder, monkeypatch):
    machine(monkeypatch, free=None)
    assert "unknown" in format_doctor(doctor(folder))


def test_container_limit_counts(monkeypatch):
    limits = {"/sys/fs/cgroup/memory.max": 1000, "/sys/fs/cgroup/memory.current": 400}
    monkeypatch.setattr(module, "_read_int", limits.get)
    assert module._memory() == (1000, 600)


def test_model_that_is_not_here(tmp_path):
    with pytest.raises(InputError, match="lietoolkit models get"):
        doctor("smollm2-135m")
    with pytest.raises(InputError, match=r"no config\.json"):
        doctor(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        doctor("./nowhere")


def test_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read"):
        doctor(folder)
