"""The course as static pages: every notebook, readable without a network, nothing lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nbconvert")

import nbformat
from bs4 import BeautifulSoup

from lietoolkit.course.formulas import formula
from lietoolkit.course.pages import build_pages
from lietoolkit.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    made = build_pages(folder)
    assert made[0] == folder / "index.html"
    assert sorted(made) == sorted(folder.rglob("*.html"))
    return folder


def sources(folder: Path) -> list[tuple[Path, str]]:
    """Every notebook of the course and of the exercises, with its page."""
    found = [
        (path, (folder / f"{path.stem}.html").read_text(encoding="utf-8"))
        for path in (ROOT / "notebooks").glob("*.ipynb")
        if path.stem != "report"  # a template without outputs
    ]
    for path in (ROOT / "exercises").glob("*.ipynb"):
        page = folder / "exercises" / f"{path.stem}.html"
        found.append((path, page.read_text(encoding="utf-8")))
    assert len(found) == len(list(folder.rglob("*.html"))) > 10
    return found


def test_pages_need_no_network_and_no_script(folder: Path) -> None:
    for _, page in sources(folder):
        soup = BeautifulSoup(page, "html.parser")
        assert "width=device-width" in soup.find("meta", attrs={"name": "viewport"})["content"]
        guard = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert guard["content"].startswith("default-src 'none'; img-src data:")
        assert not soup.find_all(["script", "link", "iframe", "object", "embed", "base"])
        assert all(tag["src"].startswith("data:") for tag in soup.find_all(src=True))
        assert not re.search(r"https?://|@import|url\(", page)


def test_links_lead_to_pages(folder: Path) -> None:
    for page in folder.rglob("*.html"):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        links = [tag["href"] for tag in soup.find_all("a")]
        assert links
        for link in links:
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_pictures_text_and_formulas_are_kept(folder: Path) -> None:
    pictures = formulas = 0
    for path, page in sources(folder):
        soup = BeautifulSoup(page, "html.parser")
        shown = {(tag["src"].split(",")[1], tag["alt"]) for tag in soup.find_all("img")}
        labels = [tag["aria-label"].replace("dfrac", "frac") for tag in soup.find_all("svg")]
        text = soup.get_text()
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                found = re.findall(r"\$\$?([^$]+)\$\$?", cell.source)
                assert all(" ".join(tex.split()) in labels for tex in found)
                formulas += len(found)
                continue
            assert cell.source.strip() in text
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    alt = output.metadata["image/png"]["alt"]
                    assert (output.data["image/png"].strip(), alt) in shown
                    pictures += 1
                elif output.output_type == "stream":
                    assert output.text.strip() in text
    assert pictures >= 10 and formulas >= 50


def test_formulas_are_drawn_at_the_height_of_the_text() -> None:
    flat, deep = formula("x"), formula(r"\dfrac{x}{y}")
    sink = [float(re.search(r"vertical-align:(-?[\d.]+)em", svg)[1]) for svg in (flat, deep)]
    assert -0.1 <= sink[0] <= 0 and sink[1] < -0.4
    assert formula("a < b").count('aria-label="a &lt; b"') == 1


def test_a_formula_that_cannot_be_drawn_is_named() -> None:
    with pytest.raises(InputError, match=r"formula '\\\\nonsense x'.*Unknown symbol"):
        formula(r"\nonsense x")


def test_the_notebook_is_named(tmp_path: Path, monkeypatch) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell(r"# Title" + "\n\n" + r"$\big( x$")]
    nbformat.write(notebook, tmp_path / "index.ipynb")
    monkeypatch.setenv("LIETOOLKIT_NOTEBOOKS", str(tmp_path))
    with pytest.raises(InputError, match=r"index.ipynb: formula"):
        build_pages(tmp_path / "out")
