"""The table in which the processes of a container write what they have promised: a file in shared memory, mapped.

A row belongs to the process that holds the kernel's lock on the byte of its number (fcntl(2), advisory record locks).
The kernel gives that lock up when the process dies, however it dies, and does not hand it to children: there are no
process ids to compare, so containers with process namespaces of their own and recycled ids do no harm. Rows whose lock
is free are cleared by whoever sees them.

The file is ours alone (mode 0600, no links followed, owner checked) and its pages are allocated before they are mapped:
a full file system says so there and then, not with a SIGBUS later. It never raises: without a table each process counts
for itself, with one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from asyncguard._machines.neighbours import CELLS, MAGIC, ROWS, ROWS_IN_USE, Neighbours, clear, in_use, owner_at, sound
from asyncguard._runtime import memory_probe
from asyncguard._runtime.dispatch import logger

if TYPE_CHECKING:
    from asyncguard._machines.neighbours import Cells

__all__ = ["SharedLedger", "shared"]

FOLDER = Path("/dev/shm")  # noqa: S108 - shared memory, and the file is checked
SIZE = 8 * CELLS
LOOK_AROUND = 0.25
"""Seconds between looks for rows of the dead, and at the file itself."""

TRY_AGAIN = 5.0
"""Seconds until the next try where there is no table."""

DOOR = ROWS
"""The byte whose lock is held for microseconds, by whoever takes a row or removes the file."""

PATIENCE = 3
KNOCKS, KNOCKS_AT_THE_END = 20, 1000
KNOCK_EVERY = 0.0005


class NoTableError(Exception):
    """There can be no table; the message says why."""


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
        self._maps: list[_Map] = []  # kept for good, see there
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the row is the parent's; what is mapped is still good."""
        self._lock = threading.RLock()
        self._map: _Map | None = None
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
                _sweep(here, self._row)
                return self._near
        raise NoTableError(f"{path} is removed again and again")

    def _at_home(self, here: _Map) -> bool:
        if not sound(here.cells) and not here.fresh():
            self._say("%s holds something else than it should; begun anew", str(here.path))
            here.empty()
        return here is self._map and here.cells[owner_at(self._row)] == self._nonce

    def _open(self, path: Path) -> _Map:
        """Return the table at a path. One that is known is not opened again: closing it would give up our lock."""
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            for known in self._maps:
                if known.id == (found.st_dev, found.st_ino) and known.whole():
                    return known
            if _ours(found) and found.st_size not in {0, SIZE}:
                self._say("%s holds something else than it should; begun anew", str(path))
                path.unlink()
        made = _Map(path)
        self._maps.append(made)
        return made

    def _move_in(self, here: _Map) -> bool:
        """Take a row; False if the file was removed meanwhile."""
        self._leave()
        here.knock()
        try:
            if not here.in_place():
                return False
            row = next((row for row in range(ROWS) if here.lock(row)), None)
            if row is None:
                raise NoTableError(f"all {ROWS} rows of {here.path} are taken")
            clear(here.cells, row)
            here.cells[0] = MAGIC
            here.cells[ROWS_IN_USE] = max(here.cells[ROWS_IN_USE], row + 1)
            self._map, self._row, self._nonce = here, row, random.SystemRandom().getrandbits(63) | 1
            here.cells[owner_at(row)] = self._nonce
            self._near = Neighbours(here.cells, row)
        finally:
            here.unlock(DOOR)
        return True

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
                _sweep(here, ROWS)
                if here.in_place() and not here.owned(ROWS):
                    here.path.unlink()
                here.unlock(DOOR)

    def _say(self, message: str, *facts: object) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(f"asyncguard: {message}", *facts)


class _Map:
    """The file, opened, checked, allocated and mapped. Kept for good: closing any descriptor of it frees our lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(path, flags, 0o600)
        try:
            found = os.fstat(self._fd)
            self.id = found.st_dev, found.st_ino
            _check(path, found)
            os.posix_fallocate(self._fd, 0, SIZE)
            self._memory = mmap.mmap(self._fd, SIZE)
        except BaseException:
            os.close(self._fd)
            raise
        self.cells = cast("Cells", memoryview(self._memory).cast("Q"))

    def whole(self) -> bool:
        """Tell whether the descriptor is still ours: daemons close what they do not know."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.id and found.st_size >= SIZE

    def in_place(self) -> bool:
        """Tell whether this is what is found at the path."""
        with contextlib.suppress(OSError):
            found = self.path.lstat()
            return (found.st_dev, found.st_ino) == self.id
        return False

    def fresh(self) -> bool:
        """Tell whether nobody has written anything yet."""
        return not any(self.cells[0:CELLS])

    def empty(self) -> None:
        """Empty the table: all who are in it notice that their rows are gone, and take new ones."""
        for cell in range(CELLS):
            self.cells[cell] = 0
        self.cells[0] = MAGIC

    def owned(self, mine: int) -> list[int]:
        """Return the rows that say that they belong to somebody else."""
        rows = range(min(ROWS, self.cells[ROWS_IN_USE]))
        return [row for row in rows if row != mine and self.cells[owner_at(row)]]

    def used(self, mine: int) -> list[int]:
        """Return the rows, but for ours, in which something is said."""
        rows = range(min(ROWS, self.cells[ROWS_IN_USE]))
        return [row for row in rows if row != mine and in_use(self.cells, row)]

    def lock(self, byte: int) -> bool:
        """Take the lock on a byte; False if another process holds it."""
        import fcntl

        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, byte: int) -> None:
        """Give the lock on a byte up."""
        import fcntl

        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def knock(self, times: int = KNOCKS) -> None:
        """Wait for our turn at the door, for at most 10 ms: whoever is in there may have been stopped."""
        for _ in range(times):
            if self.lock(DOOR):
                return
            time.sleep(KNOCK_EVERY)
        raise NoTableError(f"{self.path} is held by another process")


def _sweep(here: _Map, mine: int) -> None:
    """Clear the rows of the dead, and what a process wrote that did not know yet that its row was taken from it."""
    for row in here.used(mine):
        if here.lock(row):
            clear(here.cells, row)
            here.unlock(row)


def _ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _check(path: Path, found: os.stat_result) -> None:
    if not _ours(found) or found.st_mode & 0o077 or found.st_nlink > 1:  # none: it was removed a moment ago
        kind = f"{stat.filemode(found.st_mode)}, user {found.st_uid}, {found.st_nlink} links"
        raise NoTableError(f"{path} is not a file of ours alone: {kind}")


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
atexit.register(_shared.close)
