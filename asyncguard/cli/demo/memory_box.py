"""A memory cgroup of our own, below the one that we run in: programs that are put into it may be killed by the kernel.

Version 1 and 2. Only groups made here are touched, and they are removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import uuid
from pathlib import Path

from asyncguard._runtime import cgroup

FILES = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
}
ENTER = 'echo $$ > "$0" && exec "$@"'
PATIENCE = 200  # looks, 10 ms apart: the kernel may need a moment for processes that have ended


class BoxError(Exception):
    """No group can be made here; the message says why."""


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
    return "" if ours[0].version == 1 else _given(ours[0].path)


def _given(path: Path) -> str:
    """Version 2 lets a group have children with a limit only if it gives them the controller."""
    given = (path / "cgroup.subtree_control").read_text().split()
    return "" if "memory" in given else f"{path} does not give the memory controller to groups below it"


class Box:
    """A group with a limit of so many bytes, and no swap. The folder is there after `make`, until `remove`."""

    def __init__(self, limit: int) -> None:
        reason = why_not()
        if reason:
            raise BoxError(reason)
        ours = cgroup.groups(Path("/"))[0]
        self.limit = limit
        self.path = ours.path / f"asyncguard-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.version = ours.version
        self._group = cgroup.Group(ours.version, self.path)
        self._limit, self._swap, self._peak, self._events = (self.path / name for name in FILES[ours.version])

    def make(self) -> None:
        """Make the group and give it its limit; raise BoxError where the system refuses that."""
        try:
            self.path.mkdir()
            self._limit.write_text(str(self.limit))
            if self._swap.exists():  # version 1 counts memory and swap together
                self._swap.write_text(str(self.limit) if self.version == 1 else "0")
        except OSError as error:
            self.remove()
            raise BoxError(str(error)) from error

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` inside of the group."""
        return ["/bin/sh", "-c", ENTER, str(self.path / "cgroup.procs"), *command]

    @property
    def used(self) -> int:
        """Bytes in use now, without page cache."""
        cache, floor = cgroup.parked_bytes(self._group, self._group.stat.read_bytes())
        return max(int(self._group.usage.read_bytes()) - cache, floor, 0)

    @property
    def peak(self) -> int:
        """The most bytes that were ever in use, page cache included; 0 where the kernel does not keep it."""
        try:
            return int(self._peak.read_text())
        except OSError:  # version 2 before Linux 5.19
            return 0

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel has killed."""
        found = re.search(r"^oom_kill (\d+)$", self._events.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def remove(self) -> None:
        """Remove the group, if it is there. Raises OSError if something still runs in it."""
        for _ in range(PATIENCE):
            with contextlib.suppress(OSError):
                self.path.rmdir()
            if not self.path.exists():
                return
            time.sleep(0.01)
        self.path.rmdir()
