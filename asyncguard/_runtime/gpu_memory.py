"""A GPU in the same words as the machine: a probe for the ledger, a meter of peaks, what can be given back.

Torch answers where it uses the GPU in this process, else the driver (NVML), else nobody: then there is one warning and
only reservations are counted. Nothing here raises, imports torch, or starts CUDA.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator

from asyncguard._machines.levels import PROCESS, Level, Reading
from asyncguard._runtime import forks, gpu_torch, reclaim
from asyncguard._runtime.dispatch import logger
from asyncguard._runtime.gpu_nvml import Nvml, NvmlError, visible
from asyncguard._runtime.gpu_torch import TorchGpu
from asyncguard._runtime.reclaim import Reclaimer
from asyncguard._runtime.shared_ledger import SharedLedger

__all__ = ["Gpu", "gpu"]


class Gpu:
    """One GPU, `index` as CUDA numbers it in this process. Implements the meter of the memory gate, too.

    `clock` gives monotonic seconds; `assumed`: nobody has said the number. One object for the process (`gpu`), so that
    all guards share one reading.
    """

    def __init__(
        self,
        index: int,
        *,
        assumed: bool = False,
        nvml: Nvml | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = index
        self._assumed = assumed
        self.name = f"cuda:{index}"
        self.torch = TorchGpu(index, clock)
        self.reclaimer = Reclaimer(self.torch.reserved, clock, self._steps)
        self.shared = SharedLedger(self._key)
        self._nvml = nvml or _nvml
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._start: int | None = None

    def after_fork(self) -> None:
        """In a forked child: nothing of CUDA is left."""
        self._lock = threading.RLock()
        self._start = None
        self.torch.after_fork()
        self.reclaimer.after_fork()
        self.shared.after_fork()

    # --- the probe ---

    def read(self) -> Reading:
        """Return what is used of the GPU, by all and by this process. Never raises."""
        with self._lock:
            try:
                return self._from_torch() or self._from_driver()
            except Exception as error:  # noqa: BLE001 - whatever it is, a call must not fail for it
                return self._nothing(f"{type(error).__name__}: {error}" if not isinstance(error, NvmlError) else error)

    def _from_torch(self) -> Reading | None:
        use = self.torch.use()
        if use is None:
            self._check_assumption()
            return None
        levels = [Level(self.name, use.total, use.used), Level(PROCESS, None, use.held, own=True)]
        if use.share is not None:
            levels.append(Level(f"{self.name}, share of this process", use.share, use.held, own=True))
        return Reading(tuple(levels), "torch")

    def _check_assumption(self) -> None:
        current = gpu_torch.current_device() if self._assumed else None
        if current not in {None, self.index}:
            self.say(
                "asyncguard: device='cuda' was taken for %s, but torch now uses cuda:%d: say the number",
                self.name,
                current,
            )

    def _from_driver(self) -> Reading:
        used, total = self._nvml.memory(self._number())
        return Reading((Level(self.name, total, used), Level(PROCESS, None, 0, own=True)), "nvml")

    def _number(self) -> int | str:
        return visible(self.index, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def _nothing(self, why: object) -> Reading:
        self.say(
            "asyncguard: the memory in use of %s cannot be read as long as torch has nothing on it (%s); "
            "only reservations are counted until then",
            self.name,
            why,
        )
        return Reading((Level(PROCESS, None, 0, own=True),), "none")

    def say(self, message: str, *facts: object) -> None:
        """Warn once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *facts)

    def _key(self) -> str | None:
        """Return a name for the GPU that all processes agree on, None if it is not known (yet)."""
        try:
            uuid = self.torch.uuid() or self._nvml.uuid(self._number())
        except Exception:  # noqa: BLE001 - no driver, no permission: then each process counts for itself
            return None
        return f"gpu-{uuid.partition('-')[2].lower()}"

    # --- the meter ---

    def start(self) -> int | None:
        """Begin to measure a call: forget the peak so far. Returns the bytes of all tensors now, None without torch."""
        self._start = _quietly(self.torch.start_peak)
        return self._start

    def stop(self) -> int | None:
        """Return the bytes between start and peak, None if they are not known. Before torch there was nothing."""
        start, self._start = self._start, None
        peak = _quietly(self.torch.peak)
        return None if peak is None else max(0, peak - (start or 0))

    # --- giving back ---

    def _steps(self, *, full: bool) -> Iterator[tuple[str, Callable[[], object]]]:
        yield from reclaim.collections(full=full)  # tensors in cycles
        yield "empty_cache", self.torch.empty_cache


def _quietly(ask: Callable[[], int | None]) -> int | None:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - a GPU that has crashed answers nothing any more; the call's own error says it
        return None


_nvml = Nvml()
_gpus: dict[int, Gpu] = {}
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")


def gpu(device: str) -> Gpu:
    """Return the GPU that a name means: "cuda:1", or "cuda".

    "cuda" is torch's current GPU if CUDA is in use in this process by now, else the first that is visible.
    """
    _, colon, number = device.partition(":")
    index = int(number) if colon else gpu_torch.current_device() or 0
    with _lock:
        found = _gpus.get(index)
        if found is None:
            found = _gpus[index] = Gpu(index, assumed=not colon)
            atexit.register(found.shared.close)
        return found


def _renew_after_fork() -> None:
    _nvml.after_fork()
    for each in _gpus.values():
        each.after_fork()


forks.in_child(_renew_after_fork)
