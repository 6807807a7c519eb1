"""A memory cgroup of our own, below the one that we run in: programs that are put into it may be killed by the kernel.

Version 1 and 2. Only groups made here are touched, and they are removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncguard._runtime import cgroup

MIB = 1 << 20
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KILLED = -9
LONGEST = 120.0  # seconds; what hangs is a failure, with its output

FILES = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
}


@dataclass(frozen=True)
class Ended:
    """How a program ended: the exit status (-9: killed) and what it wrote."""

    status: int
    text: str


class Box:
    """A group with a limit and no swap."""

    def __init__(self, version: int, path: Path) -> None:
        self.path = path
        self._limit, self._swap, self._peak, self._events = (path / name for name in FILES[version])
        self._version = version
        self.limit = 0

    def bound(self, limit: int) -> None:
        """Set the limit in bytes; it bounds swap too, where the kernel counts it."""
        self.limit = limit
        self._limit.write_text(str(limit))
        if self._swap.exists():
            self._swap.write_text(str(limit) if self._version == 1 else "0")

    @property
    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed."""
        found = re.search(r"^oom_kill (\d+)$", self._events.read_text(), re.MULTILINE)
        assert found, f"{self._events} has no line oom_kill"
        return int(found[1])

    @property
    def peak(self) -> int:
        """The most bytes that were ever in use, page cache included."""
        return int(self._peak.read_text())

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program of this folder inside of the group."""
        shell = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs")]
        # As it comes: what the guard does about the allocator has to be enough.
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for name in ("ASYNCGUARD_MODE", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
            env.pop(name, None)
        arguments = [*shell, sys.executable, str(HERE / command[0]), *command[1:]]
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

    def remove(self) -> None:
        """Remove the group; the kernel may need a moment for processes that have ended."""
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.01)
        self.path.rmdir()


def _output(program: subprocess.Popen[str]) -> str:
    try:
        return program.communicate(timeout=LONGEST)[0]
    except subprocess.TimeoutExpired:
        program.kill()
        return program.communicate()[0] + f"\n(still running after {LONGEST} s)"


def why_not() -> str:
    """Say why no group can be made here, "" if it should be possible."""
    if sys.platform != "linux":
        return "cgroups are a thing of Linux"
    if os.geteuid() != 0:
        return "only root may make a memory cgroup"
    ours = cgroup.groups(Path("/"))
    if not ours or ours[0].guessed:
        return "the memory cgroup of this process is not mounted here"
    if not os.access(ours[0].path, os.W_OK) or os.statvfs(ours[0].path).f_flag & os.ST_RDONLY:
        return f"{ours[0].path} is not writable"
    if ours[0].version == 2:
        given = (ours[0].path / "cgroup.subtree_control").read_text().split()
        return "" if "memory" in given else f"{ours[0].path} does not give the memory controller to groups below it"
    return ""


@contextlib.contextmanager
def made(limit: int) -> Iterator[Box]:
    """Make a group with `limit` bytes below our own; OSError if that is not possible."""
    ours = cgroup.groups(Path("/"))[0]
    path = ours.path / f"asyncguard-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    group = Box(ours.version, path)
    try:
        group.bound(limit)
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
        except OSError as error:
            if os.environ.get("CI") == "true":
                raise  # all that could be asked beforehand said that it can be done
            pytest.skip(f"needs a memory cgroup: {error}")
        yield group
