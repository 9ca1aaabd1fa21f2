"""The documentation site: it builds without a warning, its links hold, no page needs a network."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from chromium import CHROMIUM, needs_chromium

import lietoolkit

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not p.is_relative_to(DOCS / "course"))
# What reaches beyond the right edge without a box of its own that scrolls.
CUT_OFF = """[...document.querySelectorAll("article img, article table, article pre, article svg")]
  .filter((x) => x.getBoundingClientRect().right > innerWidth + 1)
  .filter((x) => {
    for (let y = x; y.tagName !== "ARTICLE"; y = y.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(y).overflowX)
          && y.getBoundingClientRect().right <= innerWidth + 1) return false;
    return true;
  })
  .map((x) => x.outerHTML.slice(0, 80))"""

GOOD = {
    "index.html": """<link rel="stylesheet" href="style.css"><link rel="canonical" href="https://a.b">
        <h1 id="top">Top</h1> <a href="more/page.html#part">part</a> <a href="#top">up</a>
        <a href="https://example.org">elsewhere</a> <img src="data:image/png;base64,AA" alt="">""",
    "more/page.html": '<h2 id="part">Part</h2> <a href="../index.html">back</a>',
    "style.css": "b { background: url('more/page.html') } i { background: url( more/page.html ) }",
}
PLANTED = {
    "page gone": ('"more/page.html#part"', '"more/pag.html#part"', "leads nowhere"),
    "anchor gone": ("#part", "#prat", "without that anchor"),
    "anchor on the same page": ('"#top"', '"#pot"', "without that anchor"),
    "outside the folder": ('"more/page.html#part"', '"../secret.html"', "leads nowhere"),
    "from the root": ('"more/page.html#part"', '"/more/page.html"', "leads nowhere"),
    "style from elsewhere": ('"style.css"', '"https://cdn.org/a.css"', "fetches https://cdn.org"),
    "picture from elsewhere": ('"data:image/png;base64,AA"', '"//cdn.org/a.png"', "fetches //cdn"),
    "picture gone": ('"data:image/png;base64,AA"', '"a.png"', "fetches a.png, which is not there"),
    "script": ("<h1", '<script src="http://cdn.org/a.js"></script><h1', "fetches http://cdn.org"),
    "import in a style": ("<h1", '<style>@import "//f.org/a"</style><h1', "fetches //f.org/a"),
    "font in a style": ("<h1", "<p style='src: url(https://f.org/a)'><h1", "fetches https://f.org"),
    "large picture": ("<img", '<img srcset="//c.org/a.png 2x"', "fetches //c.org/a.png"),
    "moved": ("<h1", '<meta http-equiv="refresh" content="0; url=//c.org"><h1', "fetches //c.org"),
    "frame": ("<h1", '<iframe src="https://c.org"></iframe><h1', "fetches https://c.org"),
    "picture gone, of several sizes": (
        "<img",
        '<img srcset="data:image/png;base64,AA 1x, a.png 2x"',
        "fetches a.png, which is not",
    ),
    "a file of this machine": ('"https://example.org"', '"file:///a.html"', "leads nowhere"),
    "asked ahead": ("<h1", '<link rel="preconnect" href="https://c.org"><h1', "fetches https://c"),
}


@pytest.fixture(scope="module")
def checker():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module("check_site")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def write(folder: Path, pages: dict[str, str]) -> None:
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_checker_passes_a_good_site(checker, tmp_path) -> None:
    write(tmp_path, GOOD)
    assert checker.check_site(tmp_path) == []


@pytest.mark.parametrize("mistake", PLANTED)
def test_checker_notices(checker, tmp_path, mistake) -> None:
    old, new, expected = PLANTED[mistake]
    assert GOOD["index.html"].count(old) == 1
    write(tmp_path, GOOD | {"index.html": GOOD["index.html"].replace(old, new)})
    (tmp_path.parent / "secret.html").touch()
    (found,) = checker.check_site(tmp_path)
    assert found.startswith("index.html: ")
    assert expected in found


def test_checker_notices_a_style_sheet_and_an_empty_folder(checker, tmp_path) -> None:
    assert "found none" in checker.check_site(tmp_path)[0]
    write(tmp_path, GOOD | {"style.css": "@font-face { src: url(https://f.org/a.woff2) }"})
    assert checker.check_site(tmp_path) == ["style.css: fetches https://f.org/a.woff2"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_examples_give_what_the_page_says(page) -> None:
    examples = page.read_text(encoding="utf-8").count(">>> ")
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.attempted == examples
    assert not found.failed


def test_examples_were_found() -> None:
    with_examples = [p.name for p in PAGES if ">>> " in p.read_text(encoding="utf-8")]
    assert {"own-data.md", "pairs.md"} <= set(with_examples)


def test_every_public_name_has_its_place_in_the_reference() -> None:
    import lietoolkit as lt

    text = "\n".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.md"))
    described = re.findall(r"\.\. auto(?:class|function|exception):: (\w+)$", text, re.MULTILINE)
    assert set(lt.__all__) <= set(described)
    listed = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^   (\w+)$", listed, re.MULTILINE)) == sorted(lt.__all__)


@pytest.fixture
def extensions(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("generated_parts")


def test_commands_with_options_have_their_table(extensions) -> None:
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    asked = set(extensions.MARKED.findall(page))
    assert asked - {"commands"} == {n for n in extensions.tables(DOCS) if n.startswith("options_")}
    commands = re.findall(r"^\| `lietoolkit ([\w ]+)`", extensions.tables(DOCS)["commands"](), re.M)
    alone = [name for name in commands if " " not in name]
    assert len(alone) == 4 and set(alone) <= set(re.findall(r"^## lietoolkit (\w+)$", page, re.M))


def test_pages_are_read_again_when_an_option_changes(extensions) -> None:
    noted: set[str] = set()
    app = SimpleNamespace(srcdir=DOCS, env=SimpleNamespace(note_dependency=noted.add))
    page = ["<!-- table:options_plan -->\n<!-- /table -->"]
    extensions.fill_page(app, "page", page)
    assert "| `--steps` | `20` |" in page[0]
    package = Path(lietoolkit.__file__).parent
    made_of = {str(package / name) for name in ("cli.py", "shared_options.py")}
    assert made_of | {str(ROOT / "benchmarks" / "frontier.py")} <= noted


# --- the built site ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    run = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    return folder / "html"


@pytest.mark.slow
def test_links_hold_and_nothing_is_fetched(site, checker, tmp_path) -> None:
    assert checker.check_site(site) == []
    # The same check, of the same pages, with one link of one page broken.
    broken = shutil.copytree(site, tmp_path / "broken")
    page = broken / "theory" / "pairs.html"
    text = page.read_text(encoding="utf-8")
    assert "#lietoolkit.lie_bracket" in text
    page.write_text(text.replace("#lietoolkit.lie_bracket", "#lietoolkit.lie_brackets"))
    found = checker.check_site(broken)
    assert len(found) == 1
    assert "lie_brackets leads to a page without that anchor" in found[0]


@pytest.mark.slow
def test_public_names_are_described(site) -> None:
    from sphinx.util.inventory import InventoryFile

    import lietoolkit as lt

    with (site / "objects.inv").open("rb") as file:
        kinds = InventoryFile.load(file, "", lambda base, target: target)
    names = {name for kind, items in kinds.items() if kind.startswith("py:") for name in items}
    assert {f"lietoolkit.{name}" for name in lt.__all__} <= names


@pytest.mark.slow
def test_notebooks_are_there_with_their_pictures(site) -> None:
    import nbformat
    from bs4 import BeautifulSoup

    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    assert len(paths) == 10
    for path in paths:
        page = site / "course" / "notebooks" / f"{path.stem}.html"
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        outputs = [
            output
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", [])
        ]
        expected = [
            o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})
        ]
        assert expected
        assert [image["alt"] for image in soup.select(".cell_output img")] == expected
        printed = [o.text.strip() for o in outputs if o.output_type == "stream"]
        text = soup.get_text()
        assert all(line in text for out in printed for line in out.splitlines())


@pytest.mark.slow
def test_numbers_come_from_the_results(site, checker) -> None:
    tables = importlib.import_module("frontier_tables")
    from bs4 import BeautifulSoup

    soup = BeautifulSoup((site / "which-planner.html").read_text("utf-8"), "html.parser")
    cells = {cell.get_text() for cell in soup.find_all("td")}
    results = tables.results()
    assert len(soup.select("details table")) == len(results) > 3
    for result in results:
        for row in tables.numbers_rows(result):
            assert set(row) <= cells


@pytest.mark.slow
def test_quickstart_can_be_followed(tmp_path) -> None:
    """Every command of the page but those that install, download or open a program."""
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    left_out = ("make ", "lietoolkit doctor --model smollm2", ". .venv")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    ran = []
    for kind, code in blocks:
        if code.startswith(left_out):
            continue
        (tmp_path / "rows.py").exists() or (tmp_path / "rows.py").write_text(code)
        code = code.replace("lietoolkit plan", f"{sys.executable} -m lietoolkit.cli plan")
        command = ["bash", "-ec", code] if kind == "sh" else [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert run.returncode == 0, (code, run.stderr[-2000:])
        ran.append(code)
    assert len(ran) == 5
    for made in ("mine/report.html", "mine/plan.json", "long/report.html", "python/plan.json"):
        assert (tmp_path / "out" / made).stat().st_size > 1000


@pytest.mark.slow
@needs_chromium
def test_a_browser_asks_for_nothing_and_phones_see_everything(site) -> None:
    from playwright.sync_api import sync_playwright

    pages = [p for p in site.rglob("*.html") if "_static" not in p.parts]
    assert len(pages) > 40
    asked: list[str] = []
    errors: list[str] = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path in pages:
            page.goto(f"file://{path}")
            wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, f"{path.name} is {wide} pixels wider than a phone"
            assert page.evaluate(CUT_OFF) == [], path.name
        page.goto(f"file://{site}/search.html?q=bracket")
        page.wait_for_selector("#search-results li a")
        browser.close()
    assert errors == []
    assert len(asked) > len(pages)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
