"""The memory of NVIDIA GPUs as their driver tells it (NVML), for processes in which torch does not use CUDA (yet).

Asking NVML makes no CUDA context; `torch.cuda.mem_get_info` would, and a context takes half a gigabyte of the GPU.

Through ctypes and not through `pynvml`: it is four functions whose ABI has not changed since NVML 1, the library comes
with the driver and not with a package, and nothing has to be installed or imported. Sources: NVML API reference,
"Initialization and Cleanup" and "Device Queries"; CUDA C++ programming guide, "CUDA Environment Variables".
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

__all__ = ["Nvml", "NvmlError", "visible"]

SUCCESS = 0
UUID_SIZE = 96
TRY_AGAIN = 5.0  # seconds
_NUMBER = re.compile(r"\+?\d+")


class NvmlError(Exception):
    """NVML does not answer; the message says why."""


class _Memory(ctypes.Structure):
    """nvmlMemory_t; `used` includes what the driver keeps for itself."""

    _fields_: ClassVar = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def load() -> Any:
    """Return the driver's library. Raises OSError where there is no driver."""
    return ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")


def visible(index: int, listed: str | None) -> int | str:
    """Return what CUDA's device `index` is for NVML, by number or by UUID, given CUDA_VISIBLE_DEVICES.

    As CUDA reads it: numbers up to the first that is none, or UUIDs (which may be cut short), and nothing at all if an
    entry is repeated. CUDA numbers the fastest GPU first unless CUDA_DEVICE_ORDER=PCI_BUS_ID; NVML always counts along
    the bus.
    """
    if listed is None:
        return index
    entries = _entries(listed)
    if index >= len(entries):
        raise NvmlError(f"CUDA_VISIBLE_DEVICES={listed!r} shows {len(entries)} GPUs, and so no cuda:{index}")
    return entries[index]


def _entries(listed: str) -> list[int | str]:
    entries: list[int | str] = []
    prefix = next((each for each in ("GPU-", "MIG-") if listed.startswith(each)), None)
    for text in (each.strip() for each in listed.split(",")):
        number = None if prefix else _NUMBER.match(text)
        if not (text.startswith(prefix) if prefix else number):
            break
        entry = text if number is None else int(number[0])
        if entry in entries:
            return []
        entries.append(entry)
    return entries


class Nvml:
    """Asks the driver. `loader` returns its library. One object serves all GPUs and threads of the process."""

    def __init__(self, loader: Callable[[], Any] = load, clock: Callable[[], float] = time.monotonic) -> None:
        self._loader = loader
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: start anew."""
        self._lock = threading.Lock()
        self._library: Any = None
        self._handles: dict[int | str, ctypes.c_void_p] = {}
        self._failed = NvmlError("not started")
        self._again = float("-inf")

    def memory(self, device: int | str) -> tuple[int, int]:
        """Return the bytes in use and in all of a GPU, by number or UUID. Raises NvmlError."""
        found = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", self._handle(device), ctypes.byref(found))
        return found.used, found.total

    def uuid(self, device: int | str) -> str:
        """Return the UUID of a GPU. Raises NvmlError."""
        return self._uuid(self._handle(device))

    def _uuid(self, handle: ctypes.c_void_p) -> str:
        text = ctypes.create_string_buffer(UUID_SIZE)
        self._call("nvmlDeviceGetUUID", handle, text, ctypes.c_uint(UUID_SIZE))
        return text.value.decode()

    def _handle(self, device: int | str) -> ctypes.c_void_p:
        known = self._handles.get(device)
        if known is None:
            known = self._handles[device] = self._find(device)
        return known

    def _find(self, device: int | str) -> ctypes.c_void_p:
        if isinstance(device, int):
            return self._at(device)
        handle = ctypes.c_void_p()
        try:
            self._call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(device.encode()), ctypes.byref(handle))
        except NvmlError:  # cut short?
            matching = [each for each in self._all() if self._uuid(each).startswith(device)]
            if len(matching) != 1:
                raise
            return matching[0]
        return handle

    def _at(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _all(self) -> list[ctypes.c_void_p]:
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return [self._at(index) for index in range(count.value)]

    def _call(self, name: str, *arguments: object) -> None:
        library = self._started()
        status = getattr(library, name)(*arguments)
        if status != SUCCESS:
            raise NvmlError(f"{name}: {_words(library, status)}")

    def _started(self) -> Any:
        """Load and start NVML at first, which may take a while once. What failed is tried again after five seconds."""
        with self._lock:
            if self._library is None:
                if self._clock() < self._again:
                    raise self._failed
                try:
                    self._library = self._start()
                except NvmlError as error:
                    self._failed, self._again = NvmlError(*error.args), self._clock() + TRY_AGAIN
                    raise
            return self._library

    def _start(self) -> Any:
        try:
            library = self._loader()
            library.nvmlErrorString.restype = ctypes.c_char_p
            status = library.nvmlInit_v2()
        except (OSError, AttributeError) as error:
            raise NvmlError(f"no NVIDIA driver: {error}") from error
        if status != SUCCESS:
            raise NvmlError(f"nvmlInit_v2: {_words(library, status)}")
        return library


def _words(library: Any, status: int) -> str:
    words: bytes | None = library.nvmlErrorString(ctypes.c_int(status))
    return (words or b"?").decode(errors="replace")
