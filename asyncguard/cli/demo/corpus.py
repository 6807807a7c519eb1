"""The documents: the docstrings of the standard library of the running interpreter, read with `ast`.

Nothing is imported, downloaded or shipped. The order is always the same: one document of each module in turn, the
modules that people ask about first, so that a small run has something of everything. About one document in ten is
delivered a second time under a new number, as at-least-once feeds do; item by item caching earns its place there.
"""

from __future__ import annotations

import ast
import sysconfig
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

ASKED_ABOUT = (
    "asyncio", "collections", "concurrent", "contextlib", "csv", "dataclasses", "datetime", "difflib", "email",
    "fractions", "functools", "gzip", "heapq", "http", "itertools", "json", "logging", "multiprocessing", "pathlib",
    "pickle", "queue", "random", "re", "shutil", "socket", "sqlite3", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "unittest", "urllib", "zipfile",
)  # fmt: skip
SKIPPED = {
    "__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "turtledemo",
}  # fmt: skip
REPEAT_EVERY = 10  # every tenth document is an earlier one, delivered again
SHORTEST = 5  # words; less says nothing
QUESTIONS = (  # users ask them while the job runs; the first three are answered in the report
    "How do I read a CSV file row by row?",
    "How can I run a coroutine with a timeout?",
    "How do I compress data with gzip?",
    "How do I parse JSON from a string?",
    "How do I copy a whole directory tree?",
    "How do I run another program and read its output?",
    "How do I pick random elements from a list?",
    "How do I compute the median of some numbers?",
    "How do I make a temporary file that deletes itself?",
    "How do I share a queue between threads?",
    "How do I parse command line dates?",
    "How do I compare two sequences and show the difference?",
    "How do I send an email message with an attachment?",
    "How do I cache the results of a function?",
    "How do I open a zip archive and list its members?",
    "How do I query an SQLite database?",
    "How do I keep the n smallest items of a stream?",
    "How do I write a log record to a file?",
    "How do I split a URL into its components?",
    "How do I wrap long lines of text?",
    "How do I lock a resource that coroutines share?",
    "How do I pickle an object?",
    "How do I serve files over HTTP?",
    "How do I add fractions exactly?",
)


@dataclass(frozen=True, slots=True)
class Document:
    """One text to embed. `number` is unique, `text` need not be."""

    number: int
    title: str
    text: str


def documents(count: int) -> list[Document]:
    """The first `count` documents; fewer if the standard library has no more."""
    return list(islice(_numbered(_in_turn(_modules())), count))


def _modules() -> Iterator[list[tuple[str, Path]]]:
    """Files by top-level module: those that people ask about, then the rest."""
    root = Path(sysconfig.get_path("stdlib"))
    names = {path.stem for path in root.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - SKIPPED
    first = [name for name in ASKED_ABOUT if name in names]
    yield [entry for name in first for entry in [*_files(root, name)]]
    yield [entry for name in sorted(names.difference(first)) for entry in [*_files(root, name)]]


def _files(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / f"{name}.py"]
    for path in found:
        relative = path.relative_to(root)
        if not SKIPPED.intersection(relative.parts):
            yield ".".join(relative.with_suffix("").parts).removesuffix(".__init__"), path


def _in_turn(groups: Iterable[list[tuple[str, Path]]]) -> Iterator[tuple[str, str]]:
    """One docstring of each module of the group, then the second of each, and so on."""
    for group in groups:
        rounds = zip_longest(*[_docstrings(module, path) for module, path in group])
        yield from filter(None, chain.from_iterable(rounds))


def _docstrings(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, docstring) of the module, its classes, functions and methods, in source order."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # samples of broken code live in the standard library too
        return
    yield from _documented(tree, module)


def _documented(node: Documented, name: str) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text and len(text.split()) >= SHORTEST:
        yield name, text
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _documented(child, f"{name}.{child.name}")


def _numbered(source: Iterator[tuple[str, str]]) -> Iterator[Document]:
    delivered: list[tuple[str, str]] = []
    for title, text in source:
        if len(delivered) % REPEAT_EVERY == REPEAT_EVERY - 1:
            delivered.append(delivered[len(delivered) // 2 - 1])
            yield Document(len(delivered) - 1, *delivered[-1])
        delivered.append((title, text))
        yield Document(len(delivered) - 1, title, text)
