"""The table in which the processes of a container write what they have promised: a file in shared memory, mapped.

A row belongs to the process that holds the kernel's lock on the byte of its number (fcntl(2), advisory record locks).
The kernel gives that lock up when the process dies, however it dies, and does not hand it to children: there are no
process ids to compare, so containers with process namespaces of their own and recycled ids do no harm. Rows whose lock
is free are cleared by whoever sees them.

The file is that of `shared_map`. Nothing here raises: without a table each process counts for itself, with one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from asyncguard._machines.neighbours import MAGIC, ROWS, ROWS_IN_USE, Neighbours, clear, owner_at, sound
from asyncguard._runtime import forks, memory_probe
from asyncguard._runtime.dispatch import logger
from asyncguard._runtime.shared_map import DOOR, SIZE, NoTableError, SharedMap, ours

__all__ = ["SharedLedger", "shared"]

FOLDER = Path("/dev/shm")  # noqa: S108 - shared memory, and the file is checked
LOOK_AROUND = 0.25
"""Seconds between looks for rows of the dead, and at the file itself."""

TRY_AGAIN = 5.0
"""Seconds until the next try where there is no table."""

PATIENCE = 3
"""So many times a table is looked for in a row: its file may be removed before we are in it."""

KNOCKS_AT_THE_END = 1000
"""So many tries at the door, half a second, when the process ends."""


class SharedLedger:
    """Finds the table of the container and a row in it. `key` names the container, None as long as it is not known.

    Called with every reading, so that nearly always it only looks at the clock.
    """

    def __init__(
        self, key: Callable[[], str | None], folder: Path = FOLDER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._key = key
        self._folder = folder
        self._clock = clock
        self._said: set[str] = set()
        self._maps: list[SharedMap] = []  # kept for good, see there
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the row is the parent's; what is mapped is still good."""
        self._lock = threading.RLock()
        self._map: SharedMap | None = None
        self._near: Neighbours | None = None
        self._row = self._nonce = 0
        self._due = float("-inf")

    def connect(self) -> Neighbours | None:
        """Return the table with our row in it, None if there is none. Never raises."""
        if self._clock() < self._due or not self._lock.acquire(blocking=False):
            return self._near
        try:
            self._due = self._clock() + LOOK_AROUND
            self._near = self._look_around()
        except Exception as error:  # noqa: BLE001 - whatever it is, a call must not fail for it
            self._leave()
            self._due = self._clock() + TRY_AGAIN
            self._say("the promises of other processes cannot be seen (%s); each process counts for itself", str(error))
        finally:
            self._lock.release()
        return self._near

    def _look_around(self) -> Neighbours | None:
        key = self._key()
        if key is None or sys.platform != "linux":
            return None
        path = self._folder / f"asyncguard-memory-1-{os.geteuid()}-{key}"
        for _ in range(PATIENCE):
            here = self._open(path)
            if self._at_home(here) or self._move_in(here):
                here.sweep(self._row)
                return self._near
        raise NoTableError(f"{path} is removed again and again")

    def _at_home(self, here: SharedMap) -> bool:
        if not sound(here.cells) and not here.fresh():
            self._say("%s holds something else than it should; begun anew", str(here.path))
            here.empty()
        return here is self._map and here.cells[owner_at(self._row)] == self._nonce

    def _open(self, path: Path) -> SharedMap:
        """Return the table at a path. One that is known is not opened again: closing it would give up our lock."""
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            for known in self._maps:
                if known.id == (found.st_dev, found.st_ino) and known.whole():
                    return known
            if ours(found) and found.st_size not in {0, SIZE}:
                self._say("%s holds something else than it should; begun anew", str(path))
                path.unlink()
        made = SharedMap(path)
        self._maps.append(made)
        return made

    def _move_in(self, here: SharedMap) -> bool:
        """Take a row; False if the file was removed meanwhile."""
        self._leave()
        here.knock()
        try:
            if not here.in_place():
                return False
            self._take_row(here)
        finally:
            here.unlock(DOOR)
        return True

    def _take_row(self, here: SharedMap) -> None:
        row = next((row for row in range(ROWS) if here.lock(row)), None)
        if row is None:
            raise NoTableError(f"all {ROWS} rows of {here.path} are taken")
        clear(here.cells, row)
        here.cells[0] = MAGIC
        here.cells[ROWS_IN_USE] = max(here.cells[ROWS_IN_USE], row + 1)
        self._map, self._row, self._nonce = here, row, random.SystemRandom().getrandbits(63) | 1
        here.cells[owner_at(row)] = self._nonce
        self._near = Neighbours(here.cells, row)

    def _leave(self) -> None:
        here, self._map, self._near = self._map, None, None
        if here is None:
            return
        if here.cells[owner_at(self._row)] == self._nonce:
            clear(here.cells, self._row)
        if here.whole():  # else the descriptor may be that of another file by now, with locks of its own
            here.unlock(self._row)

    def processes(self) -> int:
        """Return how many other processes are in the table."""
        return 0 if self._map is None else len(self._map.owned(self._row))

    def close(self) -> None:
        """Give the row back, and remove the file if nobody else is in it: at the end of the process."""
        with contextlib.suppress(Exception):
            here = self._map
            if here is not None and here.whole():
                here.knock(KNOCKS_AT_THE_END)
                self._leave()
                here.sweep(ROWS)
                if here.in_place() and not here.owned(ROWS):
                    here.path.unlink()
                here.unlock(DOOR)

    def _say(self, message: str, *facts: object) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(f"asyncguard: {message}", *facts)


def container() -> str | None:
    """Return a name for the memory cgroup that we share with others: its inode is the same in every namespace."""
    path = memory_probe.shared().container()
    if path is None:
        return None
    found = path.stat()
    return f"{found.st_dev:x}-{found.st_ino:x}"


_shared = SharedLedger(container)


def shared() -> SharedLedger:
    """Return the place of this process."""
    return _shared


def _renew_after_fork() -> None:
    _shared.after_fork()


forks.in_child(_renew_after_fork)
atexit.register(_shared.close)
