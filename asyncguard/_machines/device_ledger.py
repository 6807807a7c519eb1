"""The ledger and the gate of a GPU's memory: where they differ from those of the machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncguard._machines.ledger import Ledger
from asyncguard._machines.memory_gate import MemoryGate

if TYPE_CHECKING:
    from asyncguard._machines.gate import Wake
    from asyncguard._machines.memory_reservation import Reservation

__all__ = ["DeviceGate", "DeviceLedger", "out_of_device_memory"]

OUT_OF_MEMORY = frozenset({"torch.OutOfMemoryError", "cupy.OutOfMemoryError"})


def out_of_device_memory(error: BaseException) -> bool:
    """Tell whether an error says that a GPU has no memory left. By name: neither library is imported."""
    return any(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" in OUT_OF_MEMORY for kind in type(error).__mro__)


class DeviceLedger(Ledger):
    """The allocator of a GPU counts what is in use, not what it keeps: every measurement begins on a clean heap."""

    def open(self, reservation: Reservation) -> None:
        """Enter a call that was let in, under the lock."""
        super().open(reservation)
        reservation.clean = True


class DeviceGate(MemoryGate):
    """Learns from the errors of GPUs, and not from those of the machine."""

    def failed(self, permit: Reservation, elapsed: float, error: Exception) -> Wake:
        """Learn from an error that says that the GPU has no memory left."""
        del elapsed
        if self.learner is not None and out_of_device_memory(error):
            with self.ledger.lock:
                self.learner.ran_out(permit.need)
        return self.abandoned(permit)
