"""How often the guard reads the kernel's files: at most every 10 ms, however many guards and calls there are."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncguard as ag
from asyncguard._runtime import memory_probe
from asyncguard._runtime.memory_probe import MemoryProbe
from tests.runtime.test_memory_probe import MIB, Tree

CALLS, TEN_MS = 20_000, 0.010
GROUPS = 2  # each with its own files


class Reads:
    """Counts what is opened, and read in place, by the name of the file."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self._root = str(root)
        self._names: dict[int, str] = {}
        self._open, self._pread = os.open, os.pread
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "pread", self.pread)

    def open(self, path: Any, *arguments: Any, **options: Any) -> int:
        fd = self._open(path, *arguments, **options)
        if str(path).startswith(self._root):
            self._names[fd] = Path(path).name
            self.opened[Path(path).name] += 1
        return fd

    def pread(self, fd: int, *arguments: Any) -> bytes:
        if fd in self._names:
            self.read[self._names[fd]] += 1
        return self._pread(fd, *arguments)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A container of 1 GiB of which little is in use."""
    made = Tree(tmp_path)
    made.v2("/pod/app")
    made.group2("/pod", limit=2048 * MIB, usage=100 * MIB)
    made.group2("/pod/app", limit=1024 * MIB, usage=100 * MIB)
    monkeypatch.setattr(
        memory_probe, "_shared", MemoryProbe(tmp_path, clock=time.monotonic, address_space=lambda: None)
    )
    module = importlib.import_module("asyncguard.strategies.memory_guard")
    monkeypatch.setattr(module, "_ledgers", weakref.WeakValueDictionary())
    return made


def call_again_and_again(decorate: list[Callable[[Any], Any]]) -> float:
    """Call the guarded functions in turn, on the real clock; how many seconds that took."""

    async def embed() -> None: ...

    async def main() -> None:
        guarded = [each(embed) for each in decorate]
        for _ in range(CALLS // len(guarded)):
            for call in guarded:
                await call()

    start = time.monotonic()
    asyncio.run(main())
    return time.monotonic() - start


def alone() -> Any:
    return ag.memory_guard(estimate=1, share="process")


def in_a_pipeline() -> Any:
    return ag.guard(ag.circuit_breaker(), ag.bulkhead(10), alone())


def sized_by_the_arguments() -> Any:
    return ag.memory_guard(estimate=lambda: 1, share="process")


@pytest.mark.parametrize("made", [[alone], [alone] * 5, [in_a_pipeline], [sized_by_the_arguments]])
def test_no_file_is_read_more_often_than_every_ten_milliseconds(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, made: list[Callable[[], Any]]
) -> None:
    reads = Reads(tree.root, monkeypatch)
    guarded = [each() for each in made]
    most = call_again_and_again(guarded) / TEN_MS + 2
    assert most < CALLS / 2, "too slow a machine to tell"
    assert set(reads.read) == {"memory.current", "memory.stat", "meminfo", "statm"}
    assert 1 <= reads.read["meminfo"] <= most
    assert reads.read["statm"] <= most
    assert reads.read["memory.current"] <= GROUPS * most
    assert reads.read["memory.stat"] <= GROUPS * most


def test_what_is_read_in_place_is_opened_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(tree.root, monkeypatch)
    call_again_and_again([ag.memory_guard(estimate=1, share="process")])
    assert reads.opened == {"memory.current": GROUPS, "memory.stat": GROUPS, "meminfo": 1, "statm": 1}
