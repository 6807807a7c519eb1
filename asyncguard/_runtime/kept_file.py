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

    Not closed by hand: another thread may be reading. Descriptors closed behind our back (daemons do it) are noticed
    and opened anew, and never closed again: the number may belong to somebody else by now.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

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
        return os.pread(self._fd, _MOST, 0)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self._close()
