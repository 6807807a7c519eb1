"""Does a call come from inside of a call that holds a permit of the same gate? Then it would wait for itself.

Nothing is written down for this while calls go well. Only a caller that has to wait looks at who has called it: a
driver that holds a permit stands among its callers, with the permit in its local variables. What goes on beside (a task
that was started inside, a stream that is still open) is no caller: it may come to its end while we wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard import _drivers, _passage, _permits, _single_drivers
from asyncguard._machines.queued import Asker
from asyncguard._permits import PermitBlock
from asyncguard._runtime import callers, generators, parking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncguard._admission import AdmissionStrategy
    from asyncguard._passage import Passage
    from asyncguard._permits import HeldPermit

_DRIVERS = frozenset(each.__name__ for each in (_drivers, _single_drivers, _passage, _permits, generators))

Blocks = dict["Block", object]
"""The permit blocks that are open, each with the task or thread that opened it."""


class BulkheadCaller(Asker):
    """A call that asks a bulkhead for a permit."""

    def __init__(self, owner: object, blocks: Blocks, priority: float) -> None:
        self._owner = owner
        self._blocks = blocks
        self.priority = priority

    def inside(self, gate: Any) -> bool:
        """Tell whether it comes from inside of a call, or a block of the same task, that holds a permit of `gate`."""
        if any(block.gate is gate and owner == self._owner for block, owner in list(self._blocks.items())):
            return True
        for frame in callers.frames(self._owner):
            if frame.f_globals.get("__name__") in _DRIVERS and _in(gate, frame.f_locals):
                return True
        return False


def _in(gate: Any, names: Mapping[str, Any]) -> bool:
    """Tell whether a driver with these local variables holds a permit of `gate`."""
    if names.get("permit") is not None:
        return names.get("gate") is gate
    if names.get("permits") is not None:
        return any(each is gate for each in names["gates"])
    if names.get("taken") is not None:
        return any(each is gate for _, each, _ in names["taken"])
    passage = names.get("passage", names.get("bracket"))
    return any(entry[1] is gate for entry in getattr(passage, "entries", ()))


class Block(PermitBlock):
    """The block form of a bulkhead: as long as it is open it says whose it is."""

    gate: object = None

    def __init__(
        self,
        strategy: AdmissionStrategy[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        cost: Any,
        blocks: Blocks,
    ) -> None:
        super().__init__(strategy, args, kwargs, cost)
        self._blocks = blocks

    def _entered(self, passage: Passage) -> HeldPermit:
        held = super()._entered(passage)
        if held.permit is not None:
            self.gate = held.gate
            self._blocks[self] = parking.current_owner()
        return held

    def _leave(self, error: BaseException | None) -> None:
        self._blocks.pop(self, None)
        super()._leave(error)
