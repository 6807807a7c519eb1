"""The peak of this process' resident memory during one call.

Linux keeps it (VmHWM) and resets it on request (proc_pid_clear_refs(5)); elsewhere, and where that is not allowed, a
thread looks every five milliseconds. Resetting changes what other tools read as VmHWM of this process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from asyncguard._machines.levels import PROCESS
from asyncguard._runtime import memory_probe

__all__ = ["PeakMeter"]

_HIGH_WATER = re.compile(rb"^VmHWM:\s+(\d+) kB", re.MULTILINE)
_STEP = 0.005


class PeakMeter:
    """Implements the meter of the memory gate. One measurement at a time: the mark belongs to the whole process."""

    def __init__(self, proc: str = "/proc/self") -> None:
        self._proc = proc
        self._start: int | None = None
        self._sampler: _Sampler | None = None

    def start(self) -> int | None:
        """Begin: forget the peak so far. Returns the bytes held now, None if they cannot be read."""
        self._start = self._high_water() if self._reset() else None
        self._sampler = None if self._start is not None else _Sampler(process_bytes)
        return self._start if self._sampler is None else self._sampler.level

    def stop(self) -> int | None:
        """Return the bytes between start and peak, None if they could not be measured."""
        start, self._start = self._start, None
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            return sampler.stop()
        peak = self._high_water()
        return None if start is None or peak is None else max(0, peak - start)

    def _reset(self) -> bool:
        try:
            with open(f"{self._proc}/clear_refs", "wb", buffering=0) as file:  # noqa: PTH123 - quick, in a call
                file.write(b"5")
        except OSError:
            return False
        return True

    def _high_water(self) -> int | None:
        try:
            with open(f"{self._proc}/status", "rb", buffering=0) as file:  # noqa: PTH123 - quick, in a call
                found = _HIGH_WATER.search(file.read())
        except OSError:
            return None
        return None if found is None else int(found[1]) * 1024


def process_bytes() -> int:
    """Return what this process holds, without files, in bytes; 0 if that cannot be read."""
    return next((level.used for level in memory_probe.shared().read().levels if level.name == PROCESS), 0)


class _Sampler:
    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._start = self._peak = read()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asyncguard-peak", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_STEP):
            self._peak = max(self._peak, self._read())

    @property
    def level(self) -> int | None:
        """What was held at the start, None if that could not be read."""
        return self._start or None

    def stop(self) -> int | None:
        self._over.set()
        self._peak = max(self._peak, self._read())
        return self._peak - self._start if self._start else None
