"""The memory of a GPU as torch sees it: what its caching allocator holds, how much of that is in use, and the peak.

Torch is never imported here and CUDA never started: that takes seconds, half a gigabyte of the GPU, and breaks forks.
A process in which torch does not use this GPU yet is asked about it through NVML instead.

Sources: PyTorch documentation, "CUDA semantics: memory management", `torch.cuda.memory_stats`, `mem_get_info`; pytorch
issues 103584 (mem_get_info makes a context), 25752 (so does empty_cache, on the current device), 32101 (what the driver
calls free does not count what the allocator holds and can use again).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["TorchGpu", "Use", "current_device", "torch_cuda"]

DRIVER_SHARE = 0.01
"""The driver is asked for at most this fraction of the time: it may have to wait for the GPU."""


def torch_cuda() -> Any:
    """Return `torch.cuda` if CUDA is in use in this process, else None. Forked children of such a process: None."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(cuda, "is_initialized", None)  # torch is being imported: half of it is there
    return cuda if is_initialized is not None and is_initialized() else None


def current_device() -> int | None:
    """Return the number of torch's current GPU, None if CUDA is not in use."""
    cuda = torch_cuda()
    return None if cuda is None else int(cuda.current_device())


@dataclass(frozen=True, slots=True)
class Use:
    """What is in use of a GPU, in bytes: `used` by all, `held` by this process, of `total`.

    `share` bounds this process, None if it may have all.
    """

    total: int
    used: int
    held: int
    share: int | None = None


class TorchGpu:
    """One GPU, by torch's number. `clock` gives seconds."""

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: CUDA cannot be used in it."""
        self._touched = False
        self._due = float("-inf")
        self._others = self._total = 0
        self._share: int | None = None

    def use(self) -> Use | None:
        """Return what is in use now; None if torch does not use this GPU in this process (yet).

        Of what others use only the driver knows, so it is asked seldom; what torch itself holds is exact at all times.
        """
        cuda = torch_cuda()
        if cuda is None:
            return None
        reserved, held, ever = self._statistics(cuda)
        self._touched = self._touched or ever > 0
        if not self._touched:  # asking the driver through torch would make a context on this GPU
            return None
        now = self._clock()
        if now >= self._due:
            self._ask_driver(cuda, reserved, now)
        return Use(self._total, self._others + held, held, self._share)

    def _ask_driver(self, cuda: Any, reserved: int, now: float) -> None:
        started = time.perf_counter()
        free, self._total = cuda.mem_get_info(self._index)
        self._others = max(0, self._total - free - reserved)
        self._share = self._own_share(cuda)
        self._due = now + (time.perf_counter() - started) / DRIVER_SHARE

    def _own_share(self, cuda: Any) -> int | None:
        """Return what set_per_process_memory_fraction leaves to this process, None if that is all."""
        fraction = getattr(cuda, "get_per_process_memory_fraction", None)  # since torch 2.8
        share = 1.0 if fraction is None else float(fraction(self._index))
        return int(share * self._total) if share < 1.0 else None

    def _statistics(self, cuda: Any) -> tuple[int, int, int]:
        """Return what the allocator holds, what of it is in use, and the most that it ever held.

        In use is `active`, not only `allocated`: a block whose tensor is gone may still be read by a kernel of another
        stream. (The backend cudaMallocAsync does not fill `active` in.)
        """
        found = cuda.memory_stats_as_nested_dict(self._index)
        reserved = found.get("reserved_bytes", {}).get("all", {})
        held = max(found.get(name, {}).get("all", {}).get("current", 0) for name in ("active_bytes", "allocated_bytes"))
        return int(reserved.get("current", 0)), int(held), int(max(reserved.values(), default=0))

    def reserved(self) -> int:
        """Return the bytes that the allocator holds, in use or not; 0 where torch is not in use."""
        cuda = torch_cuda()
        return 0 if cuda is None else self._statistics(cuda)[0]

    def uuid(self) -> str | None:
        """Return the UUID of the GPU as NVML writes it, None if torch does not know it."""
        cuda = torch_cuda()
        found = None if cuda is None else getattr(cuda.get_device_properties(self._index), "uuid", None)
        return None if found is None else f"GPU-{found}"

    # --- the peak of a call ---

    def start_peak(self) -> int | None:
        """Forget the peak so far; return the bytes of all tensors now, None if torch is not in use."""
        cuda = torch_cuda()
        if cuda is None:
            return None
        cuda.reset_peak_memory_stats(self._index)
        return int(cuda.memory_allocated(self._index))

    def peak(self) -> int | None:
        """Return the most bytes of all tensors since then, None if torch is not in use."""
        cuda = torch_cuda()
        return None if cuda is None else int(cuda.max_memory_allocated(self._index))

    def empty_cache(self) -> None:
        """Give what the allocator holds and does not use back to the driver, for others."""
        cuda = torch_cuda()
        if cuda is not None and self.reserved():
            with cuda.device(self._index):
                cuda.empty_cache()
