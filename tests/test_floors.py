"""The architecture as a test: imports only point down, machines are pure, and nothing heavy is loaded at import.

An import for types alone counts as well: who has to name a higher floor to describe itself stands on the wrong one.
"""

from __future__ import annotations

import ast
import sys
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1] / "asyncguard"
FILES = sorted(ROOT.rglob("*.py"))

# The first row that a module's name starts with says on which floor it is. The names themselves are on top, together
# with the command line, which uses them as anybody does.
NAMES = "asyncguard"
FLOORS = {
    "asyncguard.errors": 0,
    "asyncguard.events": 0,
    "asyncguard._machines": 0,
    "asyncguard._runtime": 1,
    "asyncguard.testing": 2,
    "asyncguard.strategies": 3,
    "asyncguard.telemetry": 3,
    "asyncguard.stores": 3,
    "asyncguard.integrations": 4,
    "asyncguard.batch": 4,
    "asyncguard.pytest_plugin": 4,
    "asyncguard.cli": 5,
    "asyncguard.__main__": 5,
    "asyncguard._": 2,  # how strategies wrap functions: _pipeline, _admission, ...
    NAMES: 5,
}

# What a pure machine may not even name: it waits for nothing, reads no clock, rolls no dice and does no I/O.
IMPURE = {
    "asyncio", "concurrent", "http", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "sched",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "time", "urllib", "warnings",
}  # fmt: skip
# Parts that wait for nobody: a lock around arithmetic, its renewal after a fork, a path as a value.
ALLOWED_PARTS = {"os": {"register_at_fork"}, "pathlib": {"PurePath"}, "threading": {"Lock", "RLock"}}
PURE_LIBRARIES = {"xxhash"}

# Where an event loop may be named. Everything else leaves waiting to `_runtime`.
EDGES = ("_runtime", "testing", "stores", "integrations", "batch", "cli", "__main__")
KNOWS_LOOPS = tuple(f"asyncguard.{name}" for name in EDGES)
LOOPS = {"asyncio", "trio", "anyio", "uvloop", "concurrent"}

# What no module of ours loads: programs that run in processes of their own, and what pytest loads.
PROGRAMS = ("asyncguard.cli.demo.", "asyncguard.pytest_plugin")


class Import(NamedTuple):
    """One imported module: `name` may be a module or a name in one. `late`: not loaded when the file is."""

    file: str
    line: int
    name: str
    late: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(file: str) -> str:
    return ".".join(Path(file).parent.parts)


def imports_in(tree: ast.AST, file: str, *, late: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package_of(file))
            yield from (Import(file, node.lineno, f"{base}.{alias.name}", late) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for part in node.body:
                yield from imports_in(ast.Module([part], []), file, late=True)
            for part in node.orelse:
                yield from imports_in(ast.Module([part], []), file, late=late)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ALLOWED_PARTS:
            yield Import(file, node.lineno, f"{node.value.id}.{node.attr}", late)
        else:
            inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports_in(node, file, late=inside)


def imports_of(path: Path) -> list[Import]:
    return list(imports_in(ast.parse(path.read_text(encoding="utf-8")), str(path.relative_to(ROOT.parent))))


def row_of(name: str) -> str:
    found = (row for row in FLOORS if name == row or name.startswith(row if row.endswith("_") else row + "."))
    return next(found)


def floor_of(name: str) -> int:
    return FLOORS[row_of(name)]


def top_of(name: str) -> str:
    return name.partition(".")[0]


def upward(module: str, imports: list[Import]) -> list[Import]:
    return [
        each for each in imports if each.name.split(".")[0] == "asyncguard" and floor_of(each.name) > floor_of(module)
    ]


def foreign(name: str) -> bool:
    top = top_of(name)
    return top != "asyncguard" and top not in sys.stdlib_module_names


def impure(imports: list[Import]) -> list[Import]:
    return [each for each in imports if is_impure(each.name)]


def is_impure(name: str) -> bool:
    top, _, part = name.partition(".")
    if top in ALLOWED_PARTS:
        return bool(part) and part not in ALLOWED_PARTS[top]
    return top in IMPURE or (foreign(name) and top not in PURE_LIBRARIES)


def heavy(imports: list[Import]) -> list[Import]:
    """Whatever is not in the standard library is loaded by a function, or named for types."""
    return [each for each in imports if foreign(each.name) and not each.late]


def loops(module: str, imports: list[Import]) -> list[Import]:
    if module.startswith(KNOWS_LOOPS):
        return []
    return [each for each in imports if top_of(each.name) in LOOPS]


def show(found: list[Import]) -> str:
    return "\n" + "\n".join(map(str, found))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_only_point_down(path: Path) -> None:
    found = upward(module_of(path), imports_of(path))
    assert not found, show(found)


@pytest.mark.parametrize("path", [f for f in FILES if not module_of(f).startswith(PROGRAMS)], ids=module_of)
def test_nothing_outside_the_standard_library_is_loaded_at_import(path: Path) -> None:
    found = heavy(imports_of(path))
    assert not found, show(found)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_the_runtime_and_the_edges_know_event_loops(path: Path) -> None:
    found = loops(module_of(path), imports_of(path))
    assert not found, show(found)


@pytest.mark.parametrize("path", [path for path in FILES if floor_of(module_of(path)) == 0], ids=module_of)
def test_machines_are_pure(path: Path) -> None:
    found = impure(imports_of(path))
    assert not found, show(found)


def test_every_file_stands_on_a_floor() -> None:
    modules = {module_of(path) for path in FILES} - {NAMES}
    assert not {module for module in modules if row_of(module) == NAMES}


def read(source: str) -> list[Import]:
    return list(imports_in(ast.parse(source), "here.py"))


def test_the_check_finds_an_import_that_points_up() -> None:
    assert upward("asyncguard._machines.circuit", read("from asyncguard._runtime import clock"))
    assert upward("asyncguard._pipeline", read("def late():\n    from asyncguard.strategies.retry import Retry"))
    assert upward("asyncguard.strategies.retry", read("from asyncguard import guard"))
    assert not upward("asyncguard.strategies.retry", read("from asyncguard.errors import GuardError"))


def test_the_check_finds_impure_machines() -> None:
    for source in ("import time", "from time import monotonic", "from threading import Event", "import numpy"):
        assert impure(read(source)), source
    assert impure(read("import threading\ndef f(): return threading.Event()"))
    assert not impure(read("import math, threading\nlock = threading.Lock()"))


def test_the_check_finds_heavy_imports_but_not_lazy_ones() -> None:
    assert heavy(read("import pydantic"))
    assert heavy(read("try:\n    import numpy\nexcept ImportError:\n    numpy = None"))
    assert heavy(read("class A:\n    import anyio"))
    assert not heavy(read("def f():\n    import pydantic"))
    assert not heavy(read("if TYPE_CHECKING:\n    import numpy as np"))


def test_the_check_finds_loops_above_the_runtime() -> None:
    assert loops("asyncguard.strategies.hedge", read("def f():\n    import asyncio"))
    assert not loops("asyncguard._runtime.clock", read("import asyncio"))
