"""A process that forks inside of a guarded call: the child owes nothing, and draws on nothing of its parent's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ROOT = Path(__file__).parents[2]
START = """
import os
import asyncguard as ag
from asyncguard._machines.levels import Level, Reading
from asyncguard._runtime import memory_probe

class Machine:
    def read(self):
        return Reading((Level("box", 1000, 0),), "system")

    def after_fork(self):
        pass

memory_probe._shared = Machine()
guard = ag.memory_guard(0.9, estimate=lambda size, *_: size, share="process", max_wait=0.0, reclaim=False)
promised = guard(lambda size: guard.gate.ledger.standing())

def end(fact):
    os._exit(0 if fact else 1)

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(program: str) -> int:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START + textwrap.dedent(program)]
    return subprocess.run(command, env=env, check=False, timeout=60).returncode


def test_a_call_in_the_child_reserves_its_own_bytes_and_not_its_parents() -> None:
    assert (
        run(
            """
        @guard
        def parent(size):
            pid = os.fork()
            if pid == 0:
                end(promised(300) == (300, 1))
            assert promised(300) == (600, 2)  # it draws on the 600 of its caller
            return wait(pid)

        raise SystemExit(parent(600))
        """
        )
        == 0
    )


def test_a_child_in_which_nothing_runs_lets_a_call_in_that_does_not_fit() -> None:
    """Its parent's call neither runs here nor waits for what is called here."""
    assert (
        run(
            """
        Machine.read = lambda self: Reading((Level("box", 1000, 950),), "system")

        @guard
        def parent(size):
            pid = os.fork()
            if pid == 0:
                end(promised(200) == (200, 1))
            return wait(pid)

        raise SystemExit(parent(100))
        """
        )
        == 0
    )


def test_a_call_that_returns_in_the_child_too_leaves_nothing_there() -> None:
    assert (
        run(
            """
        pid = guard(lambda size: os.fork())(600)
        if pid == 0:
            end(guard.gate.ledger.standing() == (0, 0) and guard.gate.idle() and promised(900) == (900, 1))
        raise SystemExit(wait(pid))
        """
        )
        == 0
    )
