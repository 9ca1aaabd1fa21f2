"""A real browser opens JupyterLab, runs notebooks, and moves every control from the keyboard."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, needs_chromium

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out" / "browser"
# Toy figures, a matrix, a language model, and whole schedules.
NOTEBOOKS = sorted(
    path.stem
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")
    if path.name[:2] in {"01", "05", "07", "10"}
)

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]

# The page shows "idle" before the kernel has answered for the first time.
READY = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
FINISHED = r"""() => {
  const all = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  return all.length > 5 && all.every((p) => /\[\d+\]/.test(p.textContent))
    && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]');
}"""

# Press a key on a handle, or click it, and wait for the changed picture to be loaded; milliseconds,
# or null where nothing changed, as when the slider was at its end already.
PRESS = """([handle, image, key]) => new Promise((resolve) => {
  const began = performance.now();
  const place = handle.parentElement.style.transform;
  const before = image.src;
  const done = () => {
    if (image.src === before) return;
    image.removeEventListener("load", done);
    requestAnimationFrame(() => resolve(performance.now() - began));
  };
  image.addEventListener("load", done);
  setTimeout(() => resolve(null), 8000);
  handle.focus();
  if (key === "click") handle.click();
  else {
    handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    if (handle.parentElement.style.transform === place) resolve(null);
  }
})"""


def settings(folder: Path) -> None:
    """JupyterLab's settings: all cells rendered, no questions asked."""
    for plugin, values in {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }.items():
        path = folder / f"lab/user-settings/@jupyterlab/{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """The address of a running JupyterLab."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        # Without the kept outputs, or the notebook would look finished before it has begun.
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    settings(folder / "config")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "LIETOOLKIT_HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
         "--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}",
         "--LabApp.expose_app_in_browser=True"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"{address}/api", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        opened = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_control_moves_its_figure(lab: str, browser, name: str) -> None:
    """The notebook runs once; its figures are moved in the light theme and then in the dark one."""
    OUT.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1300, "height": 1100})
    page.set_default_timeout(120_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    # A workspace of its own: the default one would reopen the notebook of the test before.
    page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb")
    page.wait_for_function(READY)
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells >> nth=0")
    if unfinished(page):  # JupyterLab can lose a kernel's answers on a busy machine: once more
        page.click("text=Run >> nth=0")
        page.click("text=Restart Kernel and Run All Cells >> nth=0")
        page.click(".jp-Dialog .jp-mod-accept")
        left = unfinished(page)
        page.screenshot(path=OUT / f"{name}-run.png")
        assert not left, left
    assert page.locator(".jp-RenderedText[data-mime-type*=error]").count() == 0
    figures = page.locator(".jp-OutputArea-output:has(img.lietoolkit-canvas)")
    assert figures.count() >= 1
    for theme in ("Light", "Dark"):
        choose_theme(page, theme)
        waits: list[float] = []
        for n in range(figures.count()):
            figure = figures.nth(n)
            figure.scroll_into_view_if_needed()
            image = figure.locator("img.lietoolkit-canvas")
            assert len(image.get_attribute("alt")) > 40
            assert image.evaluate("image => image.complete && image.naturalWidth > 300")
            waits += move_all(page, figure, image)
            assert figure.locator('[role="alert"]').count() == 0
            figure.screenshot(path=OUT / f"{name}-{n}-{theme.lower()}.png")
        record = {
            "median_ms": round(statistics.median(waits)),
            "p95_ms": round(sorted(waits)[int(0.95 * (len(waits) - 1))]),
            "moves": len(waits),
        }
        (OUT / f"{name}-{theme.lower()}.json").write_text(json.dumps(record) + "\n")
    assert errors == []
    page.close()


def unfinished(page) -> str:
    """Wait until every cell has run; what has not, in words, where it takes too long."""
    from playwright.sync_api import TimeoutError

    try:
        page.wait_for_function(FINISHED, timeout=240_000)
    except TimeoutError:
        kernel = page.locator(".jp-Notebook-ExecutionIndicator").get_attribute("data-status")
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        return f"after 240 s: kernel {kernel}, cells {prompts}"
    return ""


def choose_theme(page, theme: str) -> None:
    """By the menu, as a hand would; the page keeps its kernel and figures."""
    page.click("text=Settings >> nth=0")
    page.hover('.lm-Menu-itemLabel:text-is("Theme")')
    page.click(f'.lm-Menu-itemLabel:text-is("JupyterLab {theme}")')
    light = str(theme == "Light").lower()
    page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")


def move_all(page, figure, image) -> list[float]:
    """Move every control: sliders by the keyboard, lists and ticks by choice, points by the mouse.

    Returns:
        How long each slider and tick took to change the picture, in ms.
    """
    waits = []
    picture = image.element_handle()

    def changed(before: str) -> None:
        page.wait_for_function("([image, old]) => image.src !== old", arg=[picture, before])

    lists = figure.locator("select")
    for n in range(lists.count()):
        at = lists.nth(n).evaluate("list => list.selectedIndex")
        options = lists.nth(n).locator("option").all_text_contents()
        for option in (options[at - 1], options[at]):
            before = image.get_attribute("src")
            lists.nth(n).select_option(option)
            changed(before)
    handles = figure.locator(".noUi-handle")
    for n in range(handles.count()):
        handle = handles.nth(n).element_handle()
        moved = []
        for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowLeft"):
            moved.append(page.evaluate(PRESS, [handle, picture, key]))
        assert any(wait is not None for wait in moved), "a slider does nothing"
        waits += [wait for wait in moved if wait is not None]
    ticks = figure.locator("input[type=checkbox]")
    for n in range(ticks.count()):
        for _ in range(2):  # off and on again, or the other way round
            wait = page.evaluate(PRESS, [ticks.nth(n).element_handle(), picture, "click"])
            assert wait is not None, "a tick does nothing"
            waits.append(wait)
    if "lietoolkit-draggable" in image.get_attribute("class"):
        box = image.bounding_box()
        before = image.get_attribute("src")
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        changed(before)
    return waits
