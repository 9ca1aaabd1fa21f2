"""The threats of SECURITY.md: each attack is made for real and must fail."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
import tiny
from chromium import CHROMIUM, NO_BROWSER
from example_plan import example_plan
from processes import together
from test_setup import dry

import lietoolkit as lt
from lietoolkit import report
from lietoolkit.errors import InputError
from lietoolkit.execution import execute_notebook
from lietoolkit.geometry import ranks
from lietoolkit.report import build
from lietoolkit.report.blocks import from_html
from lietoolkit.tasks.batches import make_batches
from lietoolkit.tasks.models import load_model

ROOT = Path(__file__).parent.parent
MARKUP = "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=2> $x_"


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """The file that every attack tries to make."""
    return tmp_path / "trap"


class Bomb:
    """Reading its pickle makes the file."""

    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.trap,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


# --- pickle --------------------------------------------------------------------------------------


def only_pickle(folder: Path, pickled: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled)


def named_by_index(folder: Path, pickled: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-1.bin").write_bytes(pickled)
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-1.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def disguised(folder: Path, pickled: bytes) -> None:
    (folder / "model.safetensors").write_bytes(pickled)


def of_an_adapter(folder: Path, pickled: bytes) -> None:
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"],
                "base_model_name_or_path": str(folder), "task_type": "CAUSAL_LM"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.bin").write_bytes(pickled)


def beside(folder: Path, pickled: bytes) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickled)


@pytest.mark.parametrize("attack", [only_pickle, named_by_index, disguised])
def test_pickles_are_not_opened(attack: Callable, folder: Path, trap: Path) -> None:
    pickled = pickle.dumps(Bomb(trap))
    pickle.loads(pickled)
    assert trap.exists()  # the bomb is no dud
    trap.unlink()
    attack(folder, pickled)
    with pytest.raises(InputError, match=r"^model: "):
        load_model(folder, device="cpu")
    assert not trap.exists()


@pytest.mark.parametrize("attack", [beside, of_an_adapter])
def test_pickle_beside_good_weights_is_not_opened(
    attack: Callable, folder: Path, trap: Path
) -> None:
    attack(folder, pickle.dumps(Bomb(trap)))
    with contextlib.suppress(InputError):  # with peft, for want of an adapter in safetensors
        load_model(folder, device="cpu")
    assert not trap.exists()


DOORS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "np.load", "numpy.load", "yaml.load",
         "yaml.unsafe_load", "yaml.full_load"}  # fmt: skip


def doors(source: str) -> Iterator[str]:
    """Ways in a module to run what a file or a text says."""
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
        yield from (f"import {n}" for n in names if n in CALLS or n.split(".")[0] in DOORS)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called in CALLS or called.endswith(".read_pickle"):
                yield called
            if called == "torch.load" and options.get("weights_only") != "True":
                yield called
            if options.get("shell") == "True" or options.get("allow_pickle") == "True":
                yield called
            if called.endswith("from_pretrained") and options.get("trust_remote_code") == "True":
                yield called


def test_package_has_no_door_for_code() -> None:
    planted = (
        "import dill\nfrom pickle import loads\neval(x)\ntorch.load(p)\nnp.load(p)\n"
        "run(c, shell=True)\nA.from_pretrained(p, trust_remote_code=True)\n"
        "from os import system\npd.read_pickle(p)\nyaml.unsafe_load(t)\n"
        "torch.load(p, weights_only=True)\nmodel.eval()\nyaml.safe_load(t)\n"
    )
    assert len(list(doors(planted))) == 10
    files = [*(ROOT / "lietoolkit").rglob("*.py"), *(ROOT / "scripts").glob("*.py"),
             *(ROOT / "examples").glob("*.py")]  # fmt: skip
    assert len(files) > 80
    found = {path: list(doors(path.read_text(encoding="utf-8"))) for path in files}
    assert not {path: ways for path, ways in found.items() if ways}


# --- other processes ----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_what_other_processes_send_is_data_and_never_code(tmp_path) -> None:
    made = tmp_path / "made"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(made),)

    for error in together(2, lambda: ranks.gather(Evil() if ranks.rank() else 1), tmp_path):
        assert isinstance(error, Exception) and "weights_only" in str(error).lower()
    assert not made.exists()


# --- remote code ---------------------------------------------------------------------------------


def own_model(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"})


def own_config(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Evil"}, model_type="evil")


def own_tokenizer(folder: Path) -> None:
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})


def code_from_a_hub(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "someone/else--evil.Evil"})


def kernel_from_a_hub(folder: Path) -> None:
    change(folder / "config.json", attn_implementation="someone/kernel")


def kernel_of_a_part(folder: Path) -> None:
    part = {"experts_implementation": {"": "kernels-community/moe@main:f"}}
    change(folder / "config.json", text_config=part)


@pytest.mark.parametrize(
    "attack",
    [own_model, own_config, own_tokenizer, code_from_a_hub, kernel_from_a_hub, kernel_of_a_part],
)
def test_code_of_a_model_is_not_run(
    attack: Callable, folder: Path, trap: Path, monkeypatch
) -> None:
    def connected(*arguments: Any, **options: Any) -> None:
        trap.touch()
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", connected)
    (folder / "evil.py").write_text(
        f"open({str(trap)!r}, 'w')\nfrom transformers import LlamaForCausalLM as Evil\n"
    )
    attack(folder)
    with pytest.raises(InputError, match=r"config\.json wants to .* trust_remote_code=True"):
        load_model(folder, device="cpu")
    assert not trap.exists()


def test_chat_template_stays_in_its_sandbox(folder: Path, trap: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        f"{{{{ cycler.__init__.__globals__.os.system('touch {trap}') }}}}"
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    _, tokenizer = load_model(folder, device="cpu")
    talk = [{"role": "user", "content": "say"}, {"role": "assistant", "content": "it"}]
    with pytest.raises(InputError, match="unsafe"):
        make_batches([{"messages": talk}], tokenizer, "sft", name="talk")
    assert not trap.exists()


def test_remote_code_is_off_by_default() -> None:
    from lietoolkit import cli
    from lietoolkit.planning import plan_order

    for function in (load_model, plan_order, cli.plan):
        assert inspect.signature(function).parameters["trust_remote_code"].default is False


# --- HTML in data --------------------------------------------------------------------------------

SECTIONS = (
    report.headline, report.against_reverse, report.pairs, report.explorer, report.tradeoff,
    report.geometry, report.verification, report.limits_section, report.settings,
)  # fmt: skip


class Tags(HTMLParser):
    """Scripts, pictures and event handlers of a piece of HTML."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        handlers = [name for name, _ in attrs if name.startswith("on")]
        if tag in ("script", "img") or handlers:
            self.found.append(f"{tag} {' '.join(handlers)}".strip())


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Figures become PNGs, whose alt text the page's template escapes; drawing them takes long."""
    empty = report.Block({"text/plain": ""})
    for module in ("sections", "checked"):
        monkeypatch.setattr(f"lietoolkit.report.{module}.figure", lambda *a, **k: empty)


def markup_of(plan: dict) -> list[str]:
    """What the report's sections make of a plan, but the explorer's own script."""
    pieces = []
    for section in SECTIONS:
        html = "".join(block.bundle.get("text/html", "") for block in section(plan))
        found = Tags(html).found
        pieces += found[1:] if section is report.explorer else found
    return pieces


def test_a_tag_would_be_noticed(no_figures, monkeypatch) -> None:
    plan = example_plan(names=[MARKUP, "b", "c"])
    monkeypatch.setattr("lietoolkit.report.sections.safe", str)
    assert "script" in markup_of(plan)
    assert "img onerror" in markup_of(plan)


def test_markup_in_data_stays_text(no_figures, tmp_path: Path) -> None:
    """From rows to the report: names, texts and every free text of a plan.json."""
    rows = [{"prompt": f"{MARKUP} {n}", "completion": f" {MARKUP}"} for n in range(4)]
    (tmp_path / "rows <script>.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = lt.plan_order(
        tiny.model(), {MARKUP: str(tmp_path / "rows <script>.jsonl"), "b": rows[:2]},
        {f"target {MARKUP}": rows[2:]}, objective="sft", lr=1e-3, steps=1, optimizer="sgd",
        tokenizer=tiny.tokenizer(), constraints=[f"{MARKUP} before b"],
    )  # fmt: skip
    plan.save(tmp_path)
    made = report.read_plan(tmp_path / "plan.json")
    assert MARKUP in made["names"]
    assert markup_of(made) == []

    poisoned = poison(example_plan())
    (tmp_path / "plan.json").write_text(json.dumps(poisoned))
    made = report.read_plan(tmp_path / "plan.json")
    assert markup_of(made) == []
    shown = "".join(b.bundle.get("text/html", "") for s in SECTIONS for b in s(made))
    assert shown.count("&lt;script&gt;") > 20


def poison(plan: dict) -> dict:
    """Markup in every text but the names that must agree with each other."""
    fixed = ("names", "order", "scores", "constraints", "baselines", "verification", "confidence",
             "geometry")  # fmt: skip

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return value + MARKUP if isinstance(value, str) else value

    spoiled = {key: value if key in fixed else spoil(value) for key, value in plan.items()}
    for key in ("targets", "versions", "hardware"):
        spoiled[key] = {name + MARKUP: value for name, value in spoiled[key].items()}
    return spoiled


def test_page_runs_no_script_but_its_own(tmp_path: Path) -> None:
    """Where an escape is forgotten, the browser obeys the page's policy."""
    blocks = [*report.explorer(example_plan()), from_html(f"<p>{MARKUP}</p>")]
    outputs = [nbformat.v4.new_output("display_data", block.bundle) for block in blocks]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "report.ipynb")
    text = build._export(tmp_path / "report.ipynb", MARKUP)
    policy = re.search(r'<meta content="([^"]*)" http-equiv="Content-Security-Policy"', text)[1]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"].startswith("'sha256-")
    assert "unsafe" not in allowed["script-src"]
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    # Without the policy the attack works: the browser does meet it.
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    open_text = text.replace("Content-Security-Policy", "X")
    (tmp_path / "open.html").write_text(open_text, encoding="utf-8")
    policed, unpoliced = seen([tmp_path / "page.html", tmp_path / "open.html"])
    assert policed is None and unpoliced is not None


def seen(pages: list[Path]) -> list[Any]:
    """What the attack left in each page, once the explorer has run there."""
    playwright = pytest.importorskip("playwright.sync_api")
    hacked = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        for page in pages:
            opened.goto(page.as_uri())
            opened.wait_for_selector(".lt-explorer[data-ready=yes]", timeout=30_000)
            hacked.append(opened.evaluate("window.hacked ?? null"))
        browser.close()
    return hacked


# --- papermill parameters ------------------------------------------------------------------------


def test_parameters_are_data_not_code(tmp_path: Path, trap: Path) -> None:
    code = f"'\"\\\n\"\"\"'''\nopen({str(trap)!r}, 'w')\n#"
    values = {"text": code, "listed": [code], "table": {code: code}}
    cells = [
        nbformat.v4.new_code_cell("text = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import json\nprint(json.dumps([text, listed, table]))"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "in.ipynb")
    execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", values)
    said = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    assert json.loads("".join(o["text"] for o in said)) == list(values.values())
    assert not trap.exists()
    for name in (f"text = open({str(trap)!r}, 'w')\ntext", "a b", "class", ""):
        with pytest.raises(InputError, match="expected a name"):
            execute_notebook(tmp_path / "in.ipynb", tmp_path / "never.ipynb", {name: 1})
    assert not trap.exists()
    assert not (tmp_path / "never.ipynb").exists()


def test_parameters_of_the_course_are_checked_first(
    tmp_path: Path, trap: Path, monkeypatch
) -> None:
    from lietoolkit import cli

    def started(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("lietoolkit.course.runner.execute_notebook", started)
    monkeypatch.setattr("lietoolkit.report.build.execute_notebook", started)
    code = f"0\nopen({str(trap)!r}, 'w')"
    for given in (f"seed={code}", f"{code}=1", f"profile=ci'\n{code}", f"device={code}"):
        monkeypatch.setattr(sys, "argv", ["lietoolkit", "course", "run", "01", "-p", given])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2, given
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(example_plan()))
    for parameters in ({"dpi": code}, {code: 1}, {"title": [code]}):
        with pytest.raises(InputError, match=r"^parameter "):
            report.build_report(plan, tmp_path / "out", **parameters)
    assert not trap.exists()


# --- an open Jupyter -----------------------------------------------------------------------------

OPEN = re.compile(
    r"--ip|0\.0\.0\.0|token|password|allow[_-](origin|remote|root)|disable_check_xsrf|--config"
)


def test_course_opens_no_door() -> None:
    command = dry("course")
    assert "jupyter lab notebooks/index.ipynb" in command
    for line in (command, "jupyter lab --ip=0.0.0.0", "jupyter lab --NotebookApp.token=''",
                 "jupyter lab --ServerApp.allow_remote_access=True"):  # fmt: skip
        assert bool(OPEN.search(line)) == (line != command), line
    starts = re.compile(r"jupyter[- _]?lab\b.*--|ServerApp|NotebookApp")
    for path in (ROOT / "lietoolkit").rglob("*.py"):
        assert not starts.search(path.read_text(encoding="utf-8")), path


@pytest.mark.slow
def test_course_wants_a_token_on_this_machine_only(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    words = re.search(r"jupyter lab (\S.*)", dry("course"))[1].split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Settings of whoever runs this test are left out. Root is refused by default, so allow it here.
    places = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTER_NO_CONFIG": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")} | places
    command = [sys.executable, "-m", "jupyterlab", *words, "--no-browser", f"--port={port}"]
    server = subprocess.Popen(
        [*command, "--allow-root"], cwd=ROOT, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (found := list((tmp_path / "RUNTIME").glob("jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        token = json.loads(found[0].read_text())["token"]
        assert len(token) >= 32
        assert answer(port, "/api/contents") == 403
        assert answer(port, "/api/kernels", method="POST") == 403
        assert answer(port, "/api/contents", token="0" * len(token)) == 403
        assert answer(port, "/api/contents", token=token) == 200
        heard = psutil.Process(server.pid).net_connections()
        listening = {c.laddr.ip for c in heard if c.status == psutil.CONN_LISTEN}
        assert listening and listening <= {"127.0.0.1", "::1"}
    finally:
        server.terminate()
        server.wait(30)


def answer(port: int, path: str, token: str = "", method: str = "GET") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if token:
        request.add_header("Authorization", f"token {token}")
    for _ in range(50):
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.2)
    raise AssertionError("no answer")


# --- the document --------------------------------------------------------------------------------


def test_every_threat_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    threats = text.split("## Threats")[1].split("\n## ")[0].split("\n### ")[1:]
    assert len(threats) == 6
    for threat in threats:
        named = re.findall(r"`(test_\w+)`", threat)
        assert named, threat.splitlines()[0]
        for name in named:
            assert callable(globals().get(name)), name
