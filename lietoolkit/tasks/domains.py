"""Code and prose domains, read from the running Python environment.

Nothing is downloaded: the standard library and torch alone give seven domains, and an environment
with JupyterLab gives more. Files, never passages, are divided between the training and the held-out
split, by the checksum of their name, so that copies of a file stay together.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path

from lietoolkit.errors import InputError

SHORTEST, LONGEST = 200, 600  # characters of a passage
MINIMUM_FILES = 12
Document = tuple[str, Callable[[], str]]  # (stable name, reader)


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)  # finds the folder without importing the package
    return Path(spec.origin).parent if spec and spec.origin else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _files(root: Path | None, *patterns: str, skip: str = r"(?!)") -> Iterator[Document]:
    """Readers of the files under ``root``, named by package-relative path."""
    if root is None or not root.is_dir():
        return
    for path in {path for pattern in patterns for path in root.glob(pattern)}:
        name = f"{root.name}/{path.relative_to(root).as_posix()}"
        if not re.search(skip, name):
            yield name, partial(_read, path)


def _python() -> Iterable[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = r"site-packages|pydoc_data|idlelib|/test/|encodings|_sysconfigdata|lib2to3|tests?/"
    return _files(root, "*.py", "*/*.py", skip=skip)


def _pytorch() -> Iterable[Document]:
    parts = ("nn", "optim", "distributions", "autograd", "utils", "fx", "distributed")
    return _files(_package("torch"), *(f"{part}/**/*.py" for part in parts), skip="test|_vendor")


def _cpp() -> Iterable[Document]:
    root = _package("torch")
    patterns = ("c10/**/*.h", "ATen/*.h", "ATen/native/**/*.h", "torch/csrc/**/*.h")
    skip = "Generated|RegistrationDeclarations|cutlass"
    return _files(root and root / "include", *patterns, skip=skip)


def _c() -> Iterable[Document]:
    yield from _files(Path(sysconfig.get_paths()["include"]), "**/*.h", skip="pyconfig")
    yield from _files(_package("numpy"), "_core/include/**/*.h", skip="__multiarray_api|__ufunc")


def _docstrings_of(read: Callable[[], str]) -> str:
    try:
        tree = ast.parse(read())
    except (SyntaxError, ValueError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return "\n\n".join(text for text in found if text and len(text) >= SHORTEST)


def _docstrings() -> Iterable[Document]:
    torch = _files(_package("torch"), "nn/modules/*.py", "optim/*.py", "distributions/*.py")
    for name, read in (*_python(), *torch):
        yield name, partial(_docstrings_of, read)


def _body(topic: str) -> str:
    return topic.strip().partition("\n\n")[2]


def _manual() -> Iterable[Document]:
    from pydoc_data.topics import topics

    bodies = sorted({text for text in topics.values()}, key=len)
    whole = [  # a topic printed inside a longer one is left out
        text
        for i, text in enumerate(bodies)
        if not any(_body(text) in longer for longer in bodies[i + 1 :])
    ]
    return ((f"topics/{text.splitlines()[0]}", partial(str, text)) for text in whole)


def _description(package: metadata.Distribution) -> str:
    return str(package.metadata.get_payload() or "")  # type: ignore[attr-defined]


def _readme() -> Iterable[Document]:
    for found in metadata.distributions():
        name = found.metadata["Name"]
        yield f"readme/{name}", partial(_description, found)


def _stubs() -> Iterable[Document]:
    for package in ("torch", "numpy", "pandas", "scipy"):
        yield from _files(_package(package), "**/*.pyi", skip="/tests?/")


def _javascript() -> Iterable[Document]:
    folders = ["backends/web_backend", "server_extensions/formgrader/static", "static"]
    folders += ["staging", "tests/ui-tests", "utils/model_dump"]
    patterns = ("*.js", "js/*.js", "node_modules/*/*.js", "*.ts")
    for package in ("matplotlib", "nbgrader", "jupyterlab", "anywidget", "torch"):
        root = _package(package)
        for folder in folders if root else []:
            yield from _files(root and root / folder, *patterns, skip=r"\.min\.|vendors")


def _json() -> Iterable[Document]:
    skip = "licenses|build_log|/tests?/|/galata/|static/"
    for package in ("jupyterlab", "jupyter_lsp", "jsonschema_specifications"):
        yield from _files(_package(package), "**/*.json", skip=skip)


DOMAINS: dict[str, Callable[[], Iterable[Document]]] = {
    "python": _python,
    "pytorch": _pytorch,
    "cpp": _cpp,
    "stubs": _stubs,
    "manual": _manual,
    "docstrings": _docstrings,
    "readme": _readme,
    "c": _c,
    "javascript": _javascript,
    "json": _json,
}


@lru_cache
def _documents(domain: str) -> tuple[Document, ...]:
    return tuple(sorted(dict(DOMAINS[domain]()).items()))


def _passages(text: str) -> list[str]:
    """Cut a text at line ends into passages of ``SHORTEST`` to ``LONGEST`` characters."""
    text = re.sub(r"\A\s*(?:/\*(?s:.*?)\*/|(?:(?:#|//).*\n)+)", "", text)  # the licence header
    made, current = [], ""
    for line in re.sub(r"\n{3,}", "\n\n", text).splitlines(keepends=True):
        if len(line) > LONGEST:  # minified code, tables: not a text to learn from
            current = ""
            continue
        if len(current) + len(line) > LONGEST:
            made.append(current)
            current = ""
        current += line
    made = [passage.strip("\n") for passage in (*made, current)]
    return [passage for passage in made if len(passage) >= SHORTEST]


def _rows(domain: str, seed: int, rows: int, split: str) -> list[dict[str, str]]:
    wanted = [
        document
        for document in _documents(domain)
        if (zlib.crc32(document[0].rpartition("/")[2].encode()) % 4 == 0) == (split == "eval")
    ]
    rng = random.Random(f"{domain} {seed}")
    rng.shuffle(wanted)
    each = max(2, -(-2 * rows // max(1, len(wanted))))  # a few passages of many files
    taken: dict[str, None] = {}
    spare: dict[str, None] = {}
    for _, read in wanted:
        passages = _passages(read())
        rng.shuffle(passages)
        taken.update(dict.fromkeys(passages[:each]))
        spare.update(dict.fromkeys(passages[each:]))
        if len(taken) >= rows:
            break
    unique = dict.fromkeys((*taken, *spare))
    return [{"text": text} for text in list(unique)[:rows]]


def text_domains(
    seed: int = 0, rows: int = 64, split: str = "train"
) -> dict[str, list[dict[str, str]]]:
    """Read passages of code and prose from the installed packages.

    Args:
        seed: same seed and same environment, same rows.
        rows: passages of each domain, unique; a small domain gives as many as it has.
        split: ``"train"`` or ``"eval"``: no file is in both.

    Returns:
        ``{domain: [{"text": ...}, ...]}``: python, pytorch, cpp, stubs, manual, docstrings and
        readme wherever torch is installed; c, javascript and json where enough files are.

    Raises:
        InputError: ``rows`` below 1 or an unknown split.

    Example:
        >>> domains = text_domains(seed=0, rows=2)
        >>> [name for name in domains][:3], 200 <= len(domains["python"][0]["text"]) <= 600
        (['python', 'pytorch', 'cpp'], True)
    """
    if rows < 1:
        raise InputError(
            f"rows: expected at least 1, got {rows}; ask for one or more rows a domain"
        )
    if split not in ("train", "eval"):
        raise InputError(f'split: expected "train" or "eval", got {split!r}')
    present = [name for name in DOMAINS if len(_documents(name)) >= MINIMUM_FILES]
    made = {name: _rows(name, seed, rows, split) for name in present}
    return {name: found for name, found in made.items() if found}
