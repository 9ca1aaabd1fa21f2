import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from lietoolkit.errors import InputError
from lietoolkit.tasks import models
from lietoolkit.tasks.models import load_model, model_info, resolve_device

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A tiny Llama with tied embeddings and a word tokenizer without a padding token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("saved")
    words = {word: i for i, word in enumerate(["<unk>", "<end>", "a", "b", "c", "d"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=True, attention_dropout=0.1, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(name, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_model(name, device="cpu", **options)
    return str(caught.value)


def test_model_is_ready_to_be_differentiated(folder, caplog, capfd):
    with caplog.at_level(logging.INFO, logger="lietoolkit"):
        model, tokenizer = load_model(folder, device="cpu")
    assert not model.training
    assert model.config.use_cache is False
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight
    batch = tokenizer(["a b c", "d"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[2, 3, 4], [5, 1, 1]]
    first = model(**batch).logits
    assert torch.equal(first, model(**batch).logits)  # no dropout
    first.sum().backward()
    assert model.lm_head.weight.grad is not None
    assert any("padding" in note for note in model.lietoolkit_notes)
    assert "padding" in caplog.text
    assert capfd.readouterr() == ("", "")  # no bars, no chatter


def test_weights_arrive_unchanged_and_settings_are_restored(folder):
    from safetensors.torch import load_file
    from transformers.utils import logging as settings

    before = settings.get_verbosity(), settings.is_progress_bar_enabled()
    model, _ = load_model(str(folder), dtype="float64")
    assert (settings.get_verbosity(), settings.is_progress_bar_enabled()) == before
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor.double()), name


def test_model_info(folder):
    model, _ = load_model(folder, device="cpu")
    layer = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16 + 2 * 8
    assert model_info(model) == {
        "type": "llama", "parameters": 6 * 8 + 2 * layer + 8, "trainable": 6 * 8 + 2 * layer + 8,
        "dtype": "float32", "device": "cpu", "context_length": 32, "vocabulary": 6,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_computed_in_float32_and_said(folder, dtype):
    from transformers import AutoModelForCausalLM

    half = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    half.save_pretrained(folder)
    model, _ = load_model(folder, device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.lm_head.weight, half.lm_head.weight.float())
    assert any(str(dtype)[6:] in note and "float32" in note for note in model.lietoolkit_notes)


def test_half_precision_is_no_dtype_to_compute_in(folder):
    assert "float32" in refusal(folder, dtype=torch.bfloat16)


def test_short_name_course(folder, monkeypatch):
    monkeypatch.setattr(models, "course_path", lambda: folder)
    model, _ = load_model("course", device="cpu")
    assert model_info(model)["vocabulary"] == 6
    monkeypatch.setattr(models, "course_path", lambda: None)
    assert "Reinstall" in refusal("course")


def test_absent_smollm2_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LIETOOLKIT_CACHE", str(tmp_path))
    assert "lietoolkit models get smollm2-135m" in refusal("smollm2-135m", fetch=False)


def test_unknown_name_without_network(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    message = refusal("smollm3")
    for expected in ("smollm3", "course", "smollm2-135m", "folder", "name resolution failed"):
        assert expected in message


def test_hub_never_asks_for_pickles_or_code(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot(name, allow_patterns, **options):
        asked.append((name, allow_patterns, options["local_files_only"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load_model("someone/tiny", device="cpu", fetch=False)
    (name, patterns, offline) = asked[0]
    assert name == "someone/tiny" and offline
    assert not any(p.endswith((".py", ".bin", ".pt", "*")) for p in patterns)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "", Path("nowhere")])
def test_missing_folder(name):
    assert "no folder" in refusal(name) or "no config.json" in refusal(name)


def test_file_instead_of_folder(folder):
    assert "is a file" in refusal(folder / "model.safetensors")


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    message = refusal(folder)
    assert str(folder) in message and "config.json" in message and "model.safetensors" in message


def test_adapter_folder(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "adapter" in refusal(folder)


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    assert f"{folder / 'config.json'} is not readable JSON" in refusal(folder)


def test_truncated_weights_name_the_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal(folder)
    assert str(path) in message and "truncated" in message


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 4000, (9).to_bytes(8, "little") + b"x" * 99]
)
def test_corrupt_weights_name_the_file(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(content)
    message = refusal(folder)
    assert str(path) in message and "safetensors" in message


def test_missing_shard(folder):
    index = {"metadata": {}, "weight_map": {"x": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors" in refusal(folder)


def test_missing_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refusal(folder)


def test_wrong_shapes(folder):
    edit(folder / "config.json", intermediate_size=24)
    message = refusal(folder)
    assert str(folder / "config.json") in message
    assert "mlp.down_proj.weight of shape [8, 24], the weights hold [8, 16]" in message
    assert "copy both from one model" in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_weights_are_refused_and_not_opened(folder, tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Bomb()}, folder / name)
    message = refusal(folder)
    assert name in message and "safetensors" in message
    assert not (tmp_path / "exploded").exists()


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)


CODE = """
from pathlib import Path
Path(__file__).parent.joinpath("ran").touch()
from transformers import LlamaForCausalLM
class Mine(LlamaForCausalLM): pass
"""


def test_remote_code_is_refused_unless_allowed(folder, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "mine.py").write_text(CODE)
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "mine.Mine"})
    message = refusal(folder)
    assert "config.json" in message and "trust_remote_code=True" in message
    assert not list(tmp_path.rglob("ran"))
    model, _ = load_model(folder, device="cpu", trust_remote_code=True)
    assert type(model).__name__ == "Mine"


def test_remote_code_of_the_tokenizer_is_refused(folder):
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Tok", None]})
    assert "tokenizer_config.json" in refusal(folder)


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in refusal(folder)


def test_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    message = refusal(folder)
    assert f"the tokenizer in {folder} could not be loaded" in message
    assert "tokenizer.save_pretrained" in message and "\n" not in message


def test_what_a_library_says_of_a_model_is_put_in_one_line(folder, monkeypatch):
    from transformers import AutoModelForCausalLM

    def failed(*args, **options):
        raise RuntimeError("first\n  second")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", failed)
    message = refusal(folder)
    assert "could not be loaded (RuntimeError: first second). Write it again" in message


def test_tokenizer_of_another_model(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"].update({f"w{i}": 6 + i for i in range(5)})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    message = refusal(folder)
    assert "11 tokens" in message and "6" in message


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("t5", "T5ForConditionalGeneration"), ("bert", "BertForSequenceClassification")],
)
def test_not_a_causal_language_model(folder, kind, architecture):
    edit(folder / "config.json", model_type=kind, architectures=[architecture])
    message = refusal(folder)
    assert architecture in message and "causal" in message


def test_quantized_model(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantized" in refusal(folder)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device().type in ("cpu", "cuda")
    with pytest.raises(InputError, match="tpu0"):
        resolve_device("tpu0")
    with pytest.raises(InputError, match="CUDA device"):
        resolve_device("cuda:99")
