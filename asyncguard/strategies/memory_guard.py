"""`memory_guard`: a call starts when the bytes it needs are free. The ledger is in `_machines.ledger`.

A check of the memory in use does not prevent an out-of-memory kill: sixty calls all look before any of them allocates.
What is counted here is what has been promised to running calls on top of what is used.
"""

from __future__ import annotations

import math
import sys
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from asyncguard import events
from asyncguard._admission import AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.estimate import ArgumentBytes, Learner
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.memory_gate import MemoryGate
from asyncguard._machines.memory_words import mebibytes
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import memory_probe, reclaim
from asyncguard._runtime.peak import PeakMeter
from asyncguard._strategy import PER_CALL
from asyncguard._waiting import wake
from asyncguard.strategies import _memory_drivers
from asyncguard.strategies._argument_bytes import argument_bytes
from asyncguard.strategies._memory_options import MemoryGuardOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.ledger import Reservation
    from asyncguard._machines.levels import Reading
    from asyncguard._machines.memory_words import Decision
    from asyncguard._machines.partitions import PartitionBy
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind
    from asyncguard._strategy import Mode, Strategy
    from asyncguard.events import Event
    from asyncguard.strategies._memory_options import Estimate


class MemoryGuard(AdmissionStrategy[MemoryGuardOptions, MemoryGate]):
    """Lets a call start when the bytes it needs are free."""

    kind: ClassVar[str] = "memory_guard"
    rejection: ClassVar[str] = "memory"
    detour = 0  # why a call cannot take the fast path; `special` is never 0, since calls show their reservations

    # --- the gate ---

    def new_gate(self, clock: Clock, partition: str) -> MemoryGate:
        """Build the gate of one partition; all share the ledger of the process."""
        real = clock is clocks.REAL
        return MemoryGate(
            ledger_of(clock),
            self.options.bounds,
            self._size(),
            meter=_METER,
            name=f"{self.name}[{partition}]" if partition else self.name,
            waits=self.options.on_pressure == "wait",
            pressure=self._reclaim if real else _nothing,
            tidy=self._tidy if real else _nothing,
        )

    def _size(self, learner: Learner | None = None) -> int | Learner | None:
        estimate = self.options.estimate
        if estimate == "auto":
            return learner or Learner(self.options.initial_estimate)
        return estimate if isinstance(estimate, int) else None

    def reconfigured(self) -> None:
        """Put the options in force for calls that come from now on; what was learned stays."""
        for gate in self.gates():
            gate.configure(self.options.bounds, self._size(gate.learner), waits=self.options.on_pressure == "wait")

    def fill(self, request: Request) -> None:
        """Say who calls, and what the call needs: stated, or the size of its arguments as a hint."""
        estimate = self.live().estimate
        request.owner = _memory_drivers.caller(ledger_of(clocks.current()))
        if estimate == "auto":
            request.cost = ArgumentBytes(argument_bytes(request.args, request.kwargs))
        elif callable(estimate):
            request.cost = _stated(estimate(*request.args, **request.kwargs))
        else:
            request.cost = estimate

    @property
    def weighs(self) -> bool:
        """The bytes of a call depend on the call."""
        return True

    def _set_special(self) -> None:
        super()._set_special()
        by_arguments = self.options.partition is not None or callable(self.options.estimate)
        self.detour = self.special & ~PER_CALL | (PER_CALL if by_arguments else 0)

    # --- drivers ---

    def wrap_block(self, block: list[Strategy[Any, Any]], fn: Callable[..., Any], kind: Kind, site: Site) -> Any:
        """Wrap `fn`: in our own driver if nothing else is to be asked."""
        if len(block) == 1 and not site.holds and site.pipeline.partition is None and kind in {"async", "sync"}:
            wrap = _memory_drivers.wrap_async if kind == "async" else _memory_drivers.wrap_sync
            return wrap(self, fn, site)
        return super().wrap_block(block, fn, kind, site)

    # --- what happened ---

    def announce(self, site: Site, gate: MemoryGate, partition: str) -> None:
        """Tell what was decided."""
        while gate.news:
            self._tell(site, gate.news.popleft(), partition)

    def admitted(self, site: Site, gate: MemoryGate, permit: Reservation) -> None:
        """Tell that a call was let in at once."""
        self._tell(site, gate.decided("admitted", permit.need), "")

    def emit(self, site: Site, event: Event) -> None:
        """Give an event to everybody; a rejection is told with its numbers too."""
        super().emit(site, event)
        if isinstance(event, events.CallRejected):
            for gate in self.gates():
                self.announce(site, gate, event.partition)

    def _tell(self, site: Site, decision: Decision, partition: str) -> None:
        if not self.heard(site) and decision.decision == "admitted":
            return
        event = events.MemoryDecided(
            **self.facts(site, partition),
            decision=decision.decision,
            used=decision.used,
            limit=decision.limit,
            reserved=decision.reserved,
            need=decision.need,
            waited=decision.waited,
        )
        self.emit(site, event)

    def describe(self) -> list[str]:
        """Say what is used, promised and learned."""
        lines: list[str] = []
        for gate in self.gates():
            need = gate.stated if gate.learner is None else gate.learner.need
            size = "what it states" if gate.learner is None and need is None else _size_in_words(need)
            waiting = f", {gate.waiting} wait" if gate.waiting else ""
            lines.append(f"{gate.decided('', need or 0)}{waiting}; a call takes {size}")
        return lines

    # --- giving memory back ---

    async def aclose(self) -> None:
        """Wait until memory that is being given back has been."""
        while reclaim.shared().busy:
            await clocks.library_sleep(0.01)

    def _reclaim(self) -> None:
        if self.options.reclaim is not False:
            full = self.options.reclaim == "full"
            reclaim.shared().ask(self._reclaimed, self._relieved, full=full)

    def _tidy(self) -> None:
        ledger = self.gate.ledger
        if self.options.reclaim is not False and not ledger.standing()[1]:
            reclaim.shared().tidy(ledger.mark, ledger.trimmed)

    def _reclaimed(self, method: str, freed: int, seconds: float) -> None:
        site = self.own_site()
        facts = self.facts(site)
        self.emit(site, events.MemoryReclaimed(**facts, method=method, freed=freed, seconds=seconds))

    def _relieved(self, freed: int) -> None:
        wake(self.gate.ledger.relieve(freed))


def _nothing() -> None:
    """Do nothing: on a virtual clock no real memory is given back."""


def _size_in_words(need: int | None) -> str:
    """Return a size in words, or that it is not known."""
    return "what is still to be learned" if need is None else mebibytes(need)


def _stated(need: object) -> int:
    if isinstance(need, bool) or not isinstance(need, int | float) or not 0 <= need <= sys.float_info.max:
        raise checks.wrong_type("what estimate= returns", need, "bytes, a number of at least 0")
    return math.ceil(need)


_METER = PeakMeter()
_ledgers: weakref.WeakValueDictionary[int, Ledger] = weakref.WeakValueDictionary()


def ledger_of(clock: Clock) -> Ledger:
    """Return the ledger of this process: one on the real clock, and one for each virtual clock."""
    # By id: the ledger keeps its clock alive, so the id cannot be used again while the ledger is there.
    ledger = _ledgers.get(id(clock))
    return ledger if ledger is not None else _ledgers.setdefault(id(clock), Ledger(_read, clock.now))


def _read() -> Reading:
    return memory_probe.shared().read()


def memory_guard(
    threshold: float = 0.85,
    *,
    estimate: Estimate = "auto",
    on_pressure: Literal["wait", "raise"] = "wait",
    max_wait: float | timedelta = 10.0,
    resume: float | None = None,
    initial_estimate: int | None = None,
    limit: int | None = None,
    min_free: int | None = None,
    reclaim: bool | Literal["full"] = True,
    device: str | None = None,
    share: Literal["auto", "process"] = "auto",
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> MemoryGuard:
    """Let a call start when the bytes it needs are free, so that the kernel has nobody to kill.

    :param threshold: fraction of the limit that calls may fill; the limit is that of the container, of any container
        around it, of the machine or of the address space: whichever has the least room.
    :param estimate: bytes of a call; or a callable on its arguments that returns them; or "auto": learned, from the
        first call, which runs alone, and from quiet moments later on.
    :param on_pressure: "wait" for up to `max_wait` seconds, or "raise" at once.

    Advanced:

    :param resume: fraction to which the level has to fall after a refusal before calls are let in again; `threshold`
        - 0.05 by default.
    :param initial_estimate: bytes of a call until "auto" has measured one; then nobody waits for the first call.
    :param limit: bytes that this process may hold, as one more limit.
    :param min_free: bytes that stay free below every limit, whatever the threshold says.
    :param reclaim: give memory back under pressure, on a thread: trim caches, collect young garbage, empty the
        allocator. "full" collects all garbage, which stalls every thread.
    :param device: None; GPUs are to come.
    :param share: "auto" or "process": today both mean one ledger for all guards of this process.
    :param partition: a callable on the arguments or a ContextVar: each partition (model, tenant) learns its own size.

    Raises MemoryPressureError, with `permanent` true if the call can never fit; BlockingWaitError if a sync caller
    would have to wait on the thread of an event loop.
    """
    return MemoryGuard(
        MemoryGuardOptions(
            threshold=threshold,
            estimate=estimate,
            on_pressure=on_pressure,
            max_wait=cast("float", max_wait),
            resume=resume,
            initial_estimate=initial_estimate,
            limit=limit,
            min_free=min_free,
            reclaim=reclaim,
            device=device,
            share=share,
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
