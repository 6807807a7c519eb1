"""The file of the shared table: opened, checked, allocated, mapped, and locked byte by byte.

It is ours alone (mode 0600, no links followed, owner checked) and its pages are allocated before they are mapped: a
full file system says so there and then, not with a SIGBUS later. What fails raises OSError or NoTableError.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import time
from typing import TYPE_CHECKING, cast

from asyncguard._machines.neighbours import CELLS, MAGIC, ROWS, clear, in_use, owner_at, rows_in_use

if TYPE_CHECKING:
    from pathlib import Path

    from asyncguard._machines.neighbours import Cells

__all__ = ["DOOR", "SIZE", "NoTableError", "SharedMap", "ours"]

SIZE = 8 * CELLS
"""Bytes of the file."""

DOOR = ROWS
"""The byte whose lock is held for microseconds, by whoever takes a row or removes the file."""

KNOCKS = 20
"""So many tries, 10 ms, while a call may wait for them."""

KNOCK_EVERY = 0.0005
"""Seconds between two tries at the door."""


class NoTableError(Exception):
    """There can be no table; the message says why."""


class SharedMap:
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
            memory = mmap.mmap(self._fd, SIZE)
        except BaseException:
            os.close(self._fd)
            raise
        self.cells = cast("Cells", memoryview(memory).cast("Q"))

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
        return [row for row in rows_in_use(self.cells) if row != mine and self.cells[owner_at(row)]]

    def sweep(self, mine: int) -> None:
        """Clear the rows of the dead, and what a process wrote that did not know yet that its row was taken from it."""
        for row in rows_in_use(self.cells):
            if row != mine and in_use(self.cells, row) and self.lock(row):
                clear(self.cells, row)
                self.unlock(row)

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
        """Wait for our turn at the door, 0.5 ms for each of `times`: whoever is in there may have been stopped.

        Raises NoTableError when the time is over.
        """
        for _ in range(times):
            if self.lock(DOOR):
                return
            time.sleep(KNOCK_EVERY)
        raise NoTableError(f"{self.path} is held by another process")


def ours(found: os.stat_result) -> bool:
    """Tell whether a file is a plain one that belongs to this user."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _check(path: Path, found: os.stat_result) -> None:
    if not ours(found) or found.st_mode & 0o077 or found.st_nlink > 1:  # none: it was removed a moment ago
        kind = f"{stat.filemode(found.st_mode)}, user {found.st_uid}, {found.st_nlink} links"
        raise NoTableError(f"{path} is not a file of ours alone: {kind}")
