"""A machine whose memory the test decides, in place of the probe, of the meter of peaks and of the reclaimer."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

import pytest

from asyncguard._machines.levels import Level, Reading
from asyncguard._runtime import memory_probe, reclaim, shared_ledger

LIMIT = 1000


class Machine:
    """Has `limit` bytes, of which `used` are in use; or the levels that the test gives it."""

    def __init__(self) -> None:
        self.limit = LIMIT
        self.used = 0
        self.peak = 0  # the most that was ever in use
        self.levels: list[Level] | None = None
        self.measured: int | None = 100
        self.measuring = False

    def read(self) -> Reading:
        levels = self.levels if self.levels is not None else [Level("box", self.limit, self.used)]
        return Reading(tuple(levels), "system")

    def allocate(self, size: int) -> None:
        self.used += size
        self.peak = max(self.peak, self.used)

    # the meter

    def start(self) -> int | None:
        assert not self.measuring
        self.measuring = True
        return None

    def stop(self) -> int | None:
        assert self.measuring
        self.measuring = False
        return self.measured


class NoReclaimer:
    """Gives nothing back."""

    busy = False

    def prepare(self) -> None:
        """Leave the allocator of the tests alone."""

    def ask(self, report: Any, done: Any, *, full: bool) -> bool:
        return False

    def tidy(self, mark: Any, done: Any) -> bool:
        return False


def install(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put a machine in place of this one, and start with an empty ledger."""
    made = Machine()
    module = importlib.import_module("asyncguard.strategies.memory_guard")
    monkeypatch.setattr(memory_probe, "_shared", made)
    monkeypatch.setattr(reclaim, "_shared", NoReclaimer())
    monkeypatch.setattr(shared_ledger, "_shared", shared_ledger.SharedLedger(lambda: None))
    monkeypatch.setattr(module, "_METER", made)
    monkeypatch.setattr(module, "_ledgers", weakref.WeakValueDictionary())
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put a machine in place of this one."""
    return install(monkeypatch)
