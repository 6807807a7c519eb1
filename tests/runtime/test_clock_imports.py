"""What the clock asks of trio holds also while another thread is still importing it."""

from __future__ import annotations

import sys
import types

import pytest

import asyncguard as ag
from asyncguard._runtime import clock


def test_nobody_is_in_a_trio_that_is_still_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))
    assert not clock.in_trio()
    assert not clock.thread_runs_loop()
    assert ag.retry()(lambda: 1)() == 1
    assert ag.memory_guard(share="process", estimate=lambda: 1)(lambda: 1)() == 1
