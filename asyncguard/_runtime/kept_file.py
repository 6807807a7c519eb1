"""A small file of the kernel that is read again and again: opened once, read in place (1 us instead of 20)."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

__all__ = ["KeptFile"]

_NOT_OURS = (errno.EBADF, errno.ESPIPE)
_MOST = 16_384


class KeptFile:
    """Keeps a descriptor and reads from its start. It is closed with the last reference to this object.

    Not closed by hand: another thread may be reading. Descriptors closed behind our back (daemons do it) are noticed,
    at the latest by `check`, and opened anew, and never closed again: the number may belong to another file by now.
    """

    __slots__ = ("_fd", "_id", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._id = 0, 0

    def read(self) -> bytes:
        """Return the content, at most 16 KiB. Raises OSError if it cannot be read."""
        if self._fd >= 0:
            try:
                return os.pread(self._fd, _MOST, 0)
            except OSError as error:
                if error.errno in _NOT_OURS:
                    self._fd = -1
        self._close()
        self._fd = os.open(self.path, os.O_RDONLY)
        self._id = _identity(self._fd)
        return os.pread(self._fd, _MOST, 0)

    def check(self) -> None:
        """Let go of the descriptor if it is that of another file by now."""
        if self._fd >= 0 and _identity(self._fd) != self._id:
            self._fd = -1

    def _close(self) -> None:
        self.check()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self._close()


def _identity(fd: int) -> tuple[int, int]:
    """Return what tells a file from all others, zeros for a descriptor that is closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
