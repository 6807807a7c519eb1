"""Programs of this folder in a memory cgroup of their own (as `asyncguard demo memory` makes it)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncguard.cli.demo import memory_box
from asyncguard.cli.demo.memory_box import BoxError, why_not

MIB = 1 << 20
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KILLED = -9
LONGEST = 240.0  # seconds; what hangs is a failure, with its output


@dataclass(frozen=True)
class Ended:
    """How a program ended: the exit status (-9: killed) and what it wrote."""

    status: int
    text: str


class Box(memory_box.Box):
    """A group with a limit and no swap, in which programs of this folder run."""

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program of this folder inside of the group."""
        # As it comes: what the guard does about the allocator has to be enough.
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for name in ("ASYNCGUARD_MODE", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
            env.pop(name, None)
        arguments = self.inside(sys.executable, str(HERE / command[0]), *command[1:])
        return subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=ROOT,
        )

    def run(self, *commands: Sequence[str]) -> list[Ended]:
        """Start programs, let them go at the same moment when all have loaded, and wait for all of them."""
        running = [self.start(*command) for command in commands]
        try:
            for each in running:
                assert each.stdout is not None
                assert each.stdout.readline() == "ready\n", each.communicate()
            for each in running:
                assert each.stdin is not None
                each.stdin.write("go\n")
                each.stdin.flush()
            return [Ended(each.wait(), text) for each, text in [(each, _output(each)) for each in running]]
        finally:
            for each in running:
                each.kill()
                each.wait()


def _output(program: subprocess.Popen[str]) -> str:
    try:
        return program.communicate(timeout=LONGEST)[0]
    except subprocess.TimeoutExpired:
        program.kill()
        return program.communicate()[0] + f"\n(still running after {LONGEST} s)"


@contextlib.contextmanager
def made(limit: int) -> Iterator[Box]:
    """Make a group with `limit` bytes below our own; BoxError if that is not possible."""
    group = Box(limit)
    group.make()
    try:
        yield group
    finally:
        group.remove()


@contextlib.contextmanager
def box(limit: int) -> Iterator[Box]:
    """Make a group for a test; skip the test where there can be none."""
    import pytest  # the benchmark goes without

    reason = why_not()
    if reason:
        pytest.skip(f"needs a memory cgroup: {reason}")
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(made(limit))
        except BoxError as error:
            if os.environ.get("CI") == "true":
                raise  # all that could be asked beforehand said that it can be done
            pytest.skip(f"needs a memory cgroup: {error}")
        yield group
