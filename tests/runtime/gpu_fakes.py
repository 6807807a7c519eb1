"""A GPU that the test decides: torch.cuda with its caching allocator, and the driver's library behind its C ABI."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from asyncguard._runtime.gpu_nvml import _Memory

UUID = "a0b1c2d3-0000-1111-2222-333344445555"


class OutOfMemoryError(RuntimeError):
    """torch.OutOfMemoryError."""


OutOfMemoryError.__module__ = "torch"


class Allocator:
    """What torch holds on one GPU: tensors, blocks that a stream still reads, and what is kept for later."""

    def __init__(self) -> None:
        self.allocated = self.pending = self.cached = 0
        self.peak = self.most_reserved = 0
        self.fraction = 1.0

    @property
    def reserved(self) -> int:
        return self.allocated + self.pending + self.cached

    def alloc(self, size: int, free: int) -> None:
        """Take from what is kept first, then from the device, then fail."""
        from_cache = min(size, self.cached)
        if size - from_cache > free:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        self.cached -= from_cache
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def free(self, size: int) -> None:
        self.allocated -= size
        self.cached += size


class FakeCuda(ModuleType):
    """The part of torch.cuda that we use, with torch's names, parameters and results."""

    def __init__(self, total: int = 1000, devices: int = 2) -> None:
        super().__init__("torch.cuda")
        self.total = total
        self.others = 0  # what other processes use, the context of this one included
        self.initialized = True
        self.current = 0
        self.allocators = [Allocator() for _ in range(devices)]
        self.contexts: set[int] = set()
        self.asked_driver = 0
        self.emptied: list[int] = []
        self.uuid: str | None = None
        self.native = True  # the allocator, as opposed to cudaMallocAsync
        self.OutOfMemoryError = OutOfMemoryError

    # --- what the test does ---

    def alloc(self, size: int, device: int = 0) -> None:
        self.contexts.add(device)
        self.allocators[device].alloc(size, self.free_bytes(device))

    def free(self, size: int, device: int = 0) -> None:
        self.allocators[device].free(size)

    def free_bytes(self, device: int) -> int:
        return self.total - self.others - self.allocators[device].reserved

    # --- torch.cuda ---

    def is_initialized(self) -> bool:
        return self.initialized

    def current_device(self) -> int:
        assert self.initialized, "torch would start CUDA here"
        return self.current

    def mem_get_info(self, device: int) -> tuple[int, int]:
        assert device in self.contexts, "this makes a context"
        self.asked_driver += 1
        return self.free_bytes(device), self.total

    def memory_stats_as_nested_dict(self, device: int) -> dict[str, Any]:
        if not self.initialized:
            return {}
        here = self.allocators[device]
        active = here.allocated + here.pending if self.native else 0
        return {
            "allocated_bytes": {"all": {"current": here.allocated, "peak": here.peak}},
            "active_bytes": {"all": {"current": active}},
            "reserved_bytes": {"all": {"current": here.reserved, "peak": here.most_reserved}},
            "num_ooms": 0,
        }

    def memory_allocated(self, device: int) -> int:
        return self.allocators[device].allocated

    def max_memory_allocated(self, device: int) -> int:
        return self.allocators[device].peak

    def reset_peak_memory_stats(self, device: int) -> None:
        here = self.allocators[device]
        here.peak, here.most_reserved = here.allocated, here.reserved

    def get_per_process_memory_fraction(self, device: int) -> float:
        return self.allocators[device].fraction

    def get_device_properties(self, device: int) -> Any:
        assert device < len(self.allocators)
        return SimpleNamespace(name="Fake", uuid=self.uuid) if self.uuid else SimpleNamespace(name="Fake")

    def empty_cache(self) -> None:
        assert self.current in self.contexts, "this makes a context on the current device"
        self.emptied.append(self.current)
        for here in self.allocators:
            here.cached = 0

    def device(self, device: int) -> Any:
        cuda = self

        class Current:
            def __enter__(self) -> None:
                self.before, cuda.current = cuda.current, device

            def __exit__(self, *_: object) -> None:
                cuda.current = self.before

        return Current()


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCuda:
    """Put a fake torch where torch would be if it had been imported."""
    torch: Any = ModuleType("torch")
    torch.cuda = cuda
    torch.OutOfMemoryError = OutOfMemoryError
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.cuda", cuda)
    return cuda


class FakeDriver:
    """libnvidia-ml.so.1: C functions, so that types, pointers and the layout of structures are those of the real one.

    GPUs are (UUID, used, total); handles are addresses that do not fit into 32 bits.
    """

    BASE = 0x7F00_0000_0000

    def __init__(self, *gpus: tuple[str, int, int], forbidden: bool = False, started: int = 0) -> None:
        self.gpus = list(gpus)
        self.inits = 0
        handle, status = ctypes.c_void_p, ctypes.c_int
        words = {0: b"Success", 2: b"Invalid Argument", 4: b"Insufficient Permissions", 6: b"Not Found"}
        words[9] = b"Driver Not Loaded"
        self._buffers = {number: ctypes.create_string_buffer(text) for number, text in words.items()}

        def init() -> int:
            self.inits += 1
            return started

        def count(to: Any) -> int:
            to[0] = len(self.gpus)
            return 0

        def by_index(index: int, to: Any) -> int:
            if index >= len(self.gpus):
                return 2
            to[0] = self.BASE + index
            return 0

        def by_uuid(uuid: bytes, to: Any) -> int:
            for index, gpu in enumerate(self.gpus):
                if gpu[0] == uuid.decode():
                    to[0] = self.BASE + index
                    return 0
            return 6

        def memory(device: int, to: Any) -> int:
            if forbidden:
                return 4
            _, used, total = self.gpus[device - self.BASE]
            to[0].total, to[0].free, to[0].used = total, total - used, used
            return 0

        def uuid(device: int, to: Any, size: int) -> int:
            text = self.gpus[device - self.BASE][0].encode() + b"\0"
            assert len(text) <= size
            ctypes.memmove(to, text, len(text))
            return 0

        def error(number: int) -> int:
            return ctypes.addressof(self._buffers[number])

        pointer = ctypes.POINTER
        self.nvmlInit_v2 = ctypes.CFUNCTYPE(status)(init)
        self.nvmlDeviceGetCount_v2 = ctypes.CFUNCTYPE(status, pointer(ctypes.c_uint))(count)
        self.nvmlDeviceGetHandleByIndex_v2 = ctypes.CFUNCTYPE(status, ctypes.c_uint, pointer(handle))(by_index)
        self.nvmlDeviceGetHandleByUUID = ctypes.CFUNCTYPE(status, ctypes.c_char_p, pointer(handle))(by_uuid)
        self.nvmlDeviceGetMemoryInfo = ctypes.CFUNCTYPE(status, handle, pointer(_Memory))(memory)
        self.nvmlDeviceGetUUID = ctypes.CFUNCTYPE(status, handle, ctypes.c_void_p, ctypes.c_uint)(uuid)
        self.nvmlErrorString = ctypes.CFUNCTYPE(ctypes.c_void_p, status)(error)
