"""How much memory there is and how much is used, level by level: containers, the machine, this process.

It never raises: what cannot be read is left out, and with nothing left the source is "none", with one warning.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from asyncguard._machines.levels import PROCESS, Level, Reading
from asyncguard._runtime import cgroup, forks
from asyncguard._runtime.dispatch import logger
from asyncguard._runtime.kept_file import KeptFile

__all__ = ["MemoryProbe", "shared"]

LOOK_AGAIN = 5.0
"""Seconds after which limits are read again: pods are resized in place, processes are moved to other groups."""

STAT_SHARE = 0.01
"""memory.stat is read for at most this fraction of the time: on machines with many groups it takes milliseconds."""

_KIB = 1024
_MEMINFO = re.compile(rb"^(MemTotal|MemAvailable|MemFree|Buffers|Cached):\s+(\d+) kB", re.MULTILINE)


class MemoryProbe:
    """Reads the memory of this machine, or of a tree of files that looks like one (`root`, for tests).

    `clock` gives monotonic seconds; `address_space` the limit on this process' virtual memory in bytes, or None.
    Reads take about 30 us: whoever asks often keeps the answer for a while (the ledger does, for 10 ms).
    """

    def __init__(
        self,
        root: str | Path = "/",
        *,
        clock: Callable[[], float] = time.monotonic,
        address_space: Callable[[], int | None] | None = None,
    ) -> None:
        self._root = Path(root)
        self._clock = clock
        self._address_space = address_space or _address_space
        # Reentrant: the garbage collector may end a guarded call, which looks again, on the thread that reads.
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._until = -1.0
        self._groups: list[_Group] = []
        self._meminfo = KeptFile(self._root / "proc/meminfo")
        self._statm = KeptFile(self._root / "proc/self/statm")

    def after_fork(self) -> None:
        """In a forked child: /proc/self means another process, and the lock may have been held."""
        self._lock = threading.RLock()
        self._forget()

    def read(self) -> Reading:
        """Return what every level says now. Never raises."""
        with self._lock:  # not a strategy's lock: only those who read wait here, for microseconds
            try:
                return self._read()
            except Exception as error:  # noqa: BLE001 - whatever it is, a call must not fail for it
                return self._nothing(f"{type(error).__name__}: {error}")

    def _read(self) -> Reading:
        now = self._clock()
        if now >= self._until:
            self._until = now + LOOK_AGAIN
            self._look_again()
        levels = [level for level in (group.level(now) for group in self._groups) if level is not None]
        machine = self._machine()
        if machine is None and not levels:
            return _from_psutil() or self._nothing("neither /proc/meminfo nor psutil can be read")
        source = "cgroup" if levels else "system"
        return Reading((*levels, *([machine] if machine else []), *self._process()), source)

    def _look_again(self) -> None:
        """Find our groups and their limits again; files of the groups that stay are kept."""
        known = {group.group: group for group in self._groups}
        found = [known.get(group) or _Group(group) for group in cgroup.groups(self._root)]
        for file in (self._meminfo, self._statm):
            file.check()
        for group in found:
            group.look_again()
        self._groups = found
        if any(group.group.guessed for group in self._groups):
            self._say(
                "asyncguard: the memory cgroup of this process is outside of what is mounted here; "
                "only the limits of %s and above are known",
                self._groups[0].group.path,
            )

    def _machine(self) -> Level | None:
        try:
            found = {name: int(kib) * _KIB for name, kib in _MEMINFO.findall(self._meminfo.read())}
        except OSError:
            return None
        total = found.get(b"MemTotal", 0)
        free = found.get(b"MemAvailable")
        if free is None:  # gVisor and old kernels
            free = sum(found.get(name, 0) for name in (b"MemFree", b"Buffers", b"Cached"))
        return Level("machine", total, max(0, total - free)) if total else None

    def _process(self) -> list[Level]:
        """Return what this process holds (without files), and its address space if that is limited."""
        try:
            virtual, resident, files = (int(pages) * _page() for pages in self._statm.read().split()[:3])
        except (OSError, ValueError):
            return [Level(PROCESS, None, 0, own=True)]
        levels = [Level(PROCESS, None, resident - files, own=True)]
        limit = self._address_space()
        return levels if limit is None else [*levels, Level("address space", limit, virtual, own=True)]

    def _nothing(self, why: str) -> Reading:
        self._say("asyncguard: the memory in use cannot be read (%s); only reservations are counted", why)
        return Reading((Level(PROCESS, None, 0, own=True),), "none")

    def _say(self, message: str, *facts: object) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *facts)

    def container(self) -> Path | None:
        """Return the group that this process shares with others: the innermost with a limit, else its own.

        None before the first reading, and where there are no groups.
        """
        groups = self._groups
        bound = next((group for group in groups if group.limit is not None), groups[0] if groups else None)
        return None if bound is None else bound.group.path

    def describe(self) -> dict[str, object]:
        """Return where the limit comes from: source, level, limit, used, cgroup version and path, for `doctor`."""
        reading = self.read()
        level = reading.binding()
        group = next((each.group for each in self._groups), None)
        return {
            "source": reading.source,
            "level": level.name if level else None,
            "limit": level.limit if level else None,
            "used": level.used if level else None,
            "cgroup": str(group.path) if group else None,
            "cgroup_version": group.version if group else None,
            "levels": {each.name: (each.used, each.limit) for each in reading.levels},
        }


class _Group:
    """A group with its files kept open, and what its memory.stat said last."""

    __slots__ = ("_parked", "_stat", "_stat_due", "_usage", "group", "limit")

    def __init__(self, group: cgroup.Group) -> None:
        self.group = group
        self.limit: int | None = None
        self._usage = KeptFile(group.usage)
        self._stat = KeptFile(group.stat)
        self._stat_due = 0.0
        self._parked = (0, 0)

    def look_again(self) -> None:
        """Read the limit again, and see whether the files are still ours."""
        self.limit = cgroup.limit_of(self.group)
        self._usage.check()
        self._stat.check()

    def level(self, now: float) -> Level | None:
        """Return the level, None if it has no limit or its usage cannot be read."""
        if self.limit is None:
            return None
        try:
            usage = int(self._usage.read())
        except (OSError, ValueError):
            return None
        self._look_into(now)
        cache, floor = self._parked
        return Level(f"cgroup {self.group.path}", self.limit, max(usage - cache, floor, 0))

    def _look_into(self, now: float) -> None:
        if now < self._stat_due:
            return
        started = time.perf_counter()
        try:
            self._parked = cgroup.parked_bytes(self.group, self._stat.read())
        except OSError:
            self._parked = (0, 0)  # all of the usage counts: too much rather than too little
        self._stat_due = now + (time.perf_counter() - started) / STAT_SHARE


def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft in (resource.RLIM_INFINITY, -1) else soft


def _from_psutil() -> Reading | None:
    """Return the reading of systems without /proc (macOS, Windows), None if psutil cannot give one either."""
    try:
        import psutil

        machine = psutil.virtual_memory()
        held = psutil.Process().memory_info().rss
    except Exception:  # noqa: BLE001 - psutil raises all sorts of things in containers (psutil issues 313, 1010, 2319)
        return None
    used = machine.total - machine.available
    return Reading((Level("machine", machine.total, used), Level(PROCESS, None, held, own=True)), "psutil")


_shared: MemoryProbe | None = None
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")


def shared() -> MemoryProbe:
    """Return the probe of this process, made on first use."""
    global _shared  # noqa: PLW0603 - one probe for the process, so that files are kept once
    with _lock:
        if _shared is None:
            _shared = MemoryProbe()
        return _shared


def _renew_after_fork() -> None:
    if _shared is not None:
        _shared.after_fork()


forks.in_child(_renew_after_fork)
