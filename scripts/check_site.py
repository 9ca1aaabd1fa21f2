"""Check a folder of HTML pages: links inside it lead somewhere, and no page fetches anything.

    python scripts/check_site.py out/docs

Says what is wrong, one line each, and exits with 1. Links to other sites are not followed.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes whose address a browser fetches by itself.
FETCHED = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "track": ("src",), "embed": ("src",),
    "object": ("data",), "input": ("src",), "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"), "base": ("href",), "frame": ("src",),
}  # fmt: skip
# Links of a page's head that a browser only offers.
OFFERED = {"canonical", "alternate", "next", "prev", "search", "index", "author", "license", "help"}
STYLE_URL = re.compile(r"""url\(\s*["']?([^"')]+?)\s*["')]|@import\s+["']([^"']+)""")
# An address ends at white space, not at its commas; what stands behind it is a size.
SIZED = re.compile(r"[\s,]*(\S*[^\s,])(?:\s+[^,]*)?(?:,|$)")


@dataclass
class Page:
    """What one page holds: names that can be linked to, links, and what is fetched."""

    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        self.page.names |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag in ("a", "area") and "href" in found:
            self.page.links.append(found["href"])
        if tag == "link":
            offered = set(found.get("rel", "").lower().split()) <= OFFERED
            (self.page.links if offered else self.page.fetched).append(found.get("href", ""))
        for name in FETCHED.get(tag, ()):
            text = found.get(name, "").strip()
            self.page.fetched += SIZED.findall(text) if name == "srcset" else [text] if text else []
        if tag == "meta" and found.get("http-equiv", "").lower() == "refresh":
            self.page.fetched.append(found.get("content", "").partition("=")[2].strip())
        self.page.fetched += style_addresses(found.get("style", ""))

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            self.page.fetched += style_addresses(data)


def style_addresses(text: str) -> list[str]:
    """Every address that a style sheet fetches.

    >>> style_addresses("@import 'a.css'; b { background: url(c.png) }")
    ['a.css', 'c.png']
    """
    return [one or other for one, other in STYLE_URL.findall(text)]


def check_site(folder: Path) -> list[str]:
    """What is wrong with the pages and style sheets of a folder, sorted; empty when all is well."""
    folder = folder.resolve()
    # What lies under _static is material, among it a theme's templates.
    paths = [p for p in folder.rglob("*.html") if "_static" not in p.parts]
    pages = {path: read_page(path) for path in paths}
    found = [] if pages else [f"{folder}: expected pages, found none"]

    def leads_to(place: Path, address: str) -> Path | None:
        """The file an address leads to, if it is there and inside the folder."""
        path = unquote(urlsplit(address).path)
        if path.startswith("/"):
            return None
        target = (place.parent / path).resolve() if path else place
        return target if target.is_file() and target.is_relative_to(folder) else None

    def check_fetched(place: Path, address: str) -> None:
        where = place.relative_to(folder)
        if address.startswith(("data:", "#")):
            return
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            found.append(f"{where}: fetches {address}")
        elif leads_to(place, address) is None:
            found.append(f"{where}: fetches {address}, which is not there")

    for place, page in pages.items():
        where = place.relative_to(folder)
        for address in page.fetched:
            check_fetched(place, address)
        for address in page.links:
            parts = urlsplit(address)
            if (parts.scheme or parts.netloc) and parts.scheme != "file":
                continue
            target = leads_to(place, address)
            anchor = unquote(parts.fragment)
            if target is None:
                found.append(f"{where}: {address} leads nowhere")
            elif anchor and target in pages and anchor not in pages[target].names:
                found.append(f"{where}: {address} leads to a page without that anchor")
    for sheet in folder.rglob("*.css"):
        for address in style_addresses(sheet.read_text(encoding="utf-8")):
            check_fetched(sheet, address)
    return sorted(set(found))


def read_page(path: Path) -> Page:
    """Names, links and fetched addresses of a page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def main() -> None:
    problems = check_site(Path(sys.argv[1] if len(sys.argv) > 1 else "out/docs"))
    print("\n".join(problems) or "All links lead somewhere, and nothing is fetched.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
