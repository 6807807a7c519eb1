"""`memory_guard`: a call starts when the bytes it needs are free. The ledger is in `_machines.ledger`.

A check of the memory in use does not prevent an out-of-memory kill: sixty calls all look before any of them allocates.
What is counted here is what has been promised to running calls on top of what is used.
"""

from __future__ import annotations

import math
import numbers
import sys
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from asyncguard import events
from asyncguard._admission import AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.device_ledger import DeviceGate, DeviceLedger
from asyncguard._machines.durations import counted
from asyncguard._machines.estimate import ArgumentBytes, Learner
from asyncguard._machines.gate import wake
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.memory_gate import MemoryGate
from asyncguard._machines.memory_words import mebibytes
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import memory_probe, reclaim, shared_ledger
from asyncguard._runtime.peak import PeakMeter
from asyncguard._strategy import PER_CALL
from asyncguard.strategies import _memory_drivers
from asyncguard.strategies._argument_bytes import argument_bytes
from asyncguard.strategies._memory_options import MemoryGuardOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.levels import Reading
    from asyncguard._machines.memory_reservation import Reservation
    from asyncguard._machines.memory_words import Decision
    from asyncguard._machines.partition_keys import PartitionBy
    from asyncguard._modes import Mode
    from asyncguard._permits import PermitBlock
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind
    from asyncguard._runtime.gpu_memory import Gpu
    from asyncguard._runtime.reclaim import Reclaimer
    from asyncguard._strategy import Strategy
    from asyncguard.events import Event
    from asyncguard.strategies._memory_options import Estimate


class MemoryGuard(AdmissionStrategy[MemoryGuardOptions, MemoryGate]):
    """Lets a call start when the bytes it needs are free."""

    kind: ClassVar[str] = "memory_guard"
    rejection: ClassVar[str] = "memory"
    shared: ClassVar[frozenset[str]] = frozenset(
        {"threshold", "on_pressure", "resume", "initial_estimate", "limit", "min_free", "reclaim"}
    )
    fixed: ClassVar[dict[str, str]] = {
        "share": "with whom a guard counts is decided when it is made",
        "device": "each has a ledger of its own, and calls are in this one",
    }
    detour = 0  # why a call cannot take the fast path; `special` is never 0, since calls show their reservations

    def __init__(self, options: MemoryGuardOptions) -> None:
        self._gpu = _gpu(options.device)  # which it is does not change when torch changes its current device
        super().__init__(options)

    # --- the gate ---

    def new_gate(self, clock: Clock, partition: str) -> MemoryGate:
        """Build the gate of one partition; all share the ledger of the process."""
        real = clock is clocks.REAL
        gpu = self._gpu
        ledger = ledger_of(clock, gpu)
        self._share(ledger)
        return (MemoryGate if gpu is None else DeviceGate)(
            ledger,
            self.options.bounds,
            self._size(),
            meter=_METER if gpu is None else gpu,
            name=f"{self.name}[{partition}]" if partition else self.name,
            waits=self.options.on_pressure == "wait",
            pressure=self._reclaim if real else _nothing,
            tidy=self._tidy if real and gpu is None else _nothing,
        )

    def _size(self, learner: Learner | None = None) -> int | Learner | None:
        estimate = self.options.estimate
        if estimate == "auto":
            return learner or Learner(self.options.initial_estimate)
        return estimate if isinstance(estimate, int) else None

    def _share(self, ledger: Ledger) -> None:
        """Let all guards of the process count with the other processes, if one of them does."""
        if self.options.share == "auto" and ledger.clock == clocks.REAL.now and ledger.connect is None:
            ledger.share((shared_ledger.shared() if self._gpu is None else self._gpu.shared).connect)

    def _changed(self, changes: dict[str, Any]) -> MemoryGuardOptions:
        options = super()._changed(changes)
        if options.initial_estimate != self.options.initial_estimate and self.options.estimate == "auto":
            raise TypeError("initial_estimate of memory_guard cannot be changed: learning has begun with it")
        return options

    def reconfigured(self) -> None:
        """Put the options in force for calls that come from now on; what was learned stays."""
        for gate in self.gates():
            gate.configure(self.options.bounds, self._size(gate.learner), waits=self.options.on_pressure == "wait")

    def fill(self, request: Request) -> None:
        """Say who calls, and what the call needs: stated, or the size of its arguments as a hint."""
        estimate = self.live().estimate
        request.owner = _memory_drivers.caller(ledger_of(clocks.current(), self._gpu))
        if estimate == "auto":
            if self.options.reclaim is not False and clocks.current() is clocks.REAL:
                self._reclaimer.prepare()
            request.cost = ArgumentBytes(argument_bytes(request.args, request.kwargs))
        elif callable(estimate) and not request.stated:
            request.cost = _stated(estimate(*request.args, **request.kwargs))
        elif not request.stated:
            request.cost = estimate

    def permit(self, *args: Any, cost: float | None = None, **kwargs: Any) -> PermitBlock:
        """Guard a block: `async with guard.permit(): ...`, sync `with guard.permit(): ...`.

        The arguments are those that `estimate=` and `partition=` look at; `cost` is the bytes of the block, in place of
        what they would say. TypeError if that is no size.
        """
        return super().permit(*args, cost=None if cost is None else _stated(cost, "cost"), **kwargs)

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
        while True:
            try:
                news = gate.news.popleft()
            except IndexError:  # told, by us or by another thread
                return
            if not isinstance(news, int):
                self._tell(site, news, partition)
            elif self.heard(site):
                self._tell(site, gate.decided("admitted", news), partition)

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
            elsewhere=decision.elsewhere,
        )
        self.emit(site, event)

    def describe(self) -> list[str]:
        """Say what is used, promised and learned; with partitions, of the fullest."""
        return self.each_gate(_told, lambda gate: (-gate.waiting, -gate.running))

    # --- giving memory back ---

    async def aclose(self) -> None:
        """Wait until memory that is being given back has been."""
        while self._reclaimer.busy:
            await clocks.library_sleep(0.01)

    @property
    def _reclaimer(self) -> Reclaimer:
        return reclaim.shared() if self._gpu is None else self._gpu.reclaimer

    def _reclaim(self) -> None:
        if self.options.reclaim is not False:
            full = self.options.reclaim == "full"
            self._reclaimer.ask(self._reclaimed, self._relieved, full=full)

    def _tidy(self) -> None:
        ledger = self.gate.ledger
        if self.options.reclaim is not False and not ledger.standing()[1]:
            self._reclaimer.tidy(ledger.mark, ledger.trimmed)

    def _reclaimed(self, method: str, freed: int, seconds: float) -> None:
        site = self.own_site()
        facts = self.facts(site)
        self.emit(site, events.MemoryReclaimed(**facts, method=method, freed=freed, seconds=seconds))

    def _relieved(self, freed: int) -> None:
        # What the allocator of a GPU gives back did not count as used.
        wake(self.gate.ledger.relieve(freed if self._gpu is None else 0))


def _nothing() -> None:
    """Do nothing: on a virtual clock no real memory is given back."""


def _told(gate: MemoryGate) -> str:
    need = gate.stated if gate.learner is None else gate.learner.need
    waiting = f", {gate.waiting} wait" if gate.waiting else ""
    told = f"{gate.decided('', need or 0)}{waiting}; source {gate.ledger.source}"
    if not gate.ledger.looks:  # not "nothing is limited": nobody has looked
        told = "no call has asked yet, so no limit was read"
    return f"{told}; a call takes {_size_in_words(gate, need)}"


def _size_in_words(gate: MemoryGate, need: int | None) -> str:
    """Return the size of a call in words, and how far it is known."""
    learner = gate.learner
    if learner is None:
        return "what it states" if need is None else mebibytes(need)
    if need is None:
        return "what is still to be learned"
    trusted = "" if learner.window == math.inf else f", trusted for {learner.window:.0f} calls at once so far"
    measured = learner.estimator.measured
    told = f"learned from {counted(measured, 'call')}{trusted}" if measured else "to be learned"
    return f"{mebibytes(need)}, {told}"


_REAL: Any = numbers.Real  # numpy's numbers are; for type checkers it has no arithmetic


def _stated(need: Any, what: str = "what estimate= returns") -> int:
    if isinstance(need, _REAL) and not isinstance(need, bool) and 0 <= need < math.inf:
        size: int = math.ceil(need)
        if size <= sys.float_info.max:
            return size
    raise checks.wrong_type(what, need, "bytes, a number of at least 0")


_METER = PeakMeter()
_ledgers: weakref.WeakValueDictionary[tuple[int, int | None], Ledger] = weakref.WeakValueDictionary()


def ledger_of(clock: Clock, gpu: Gpu | None = None) -> Ledger:
    """Return the ledger of this process for the machine or for a GPU: on the real clock, or on a virtual one."""
    # By id: the ledger keeps its clock alive, so the id cannot be used again while the ledger is there.
    key = id(clock), None if gpu is None else gpu.index
    ledger = _ledgers.get(key)
    if ledger is not None:
        return ledger
    return _ledgers.setdefault(key, Ledger(_read, clock.now) if gpu is None else DeviceLedger(gpu.read, clock.now))


def _gpu(device: str | None) -> Gpu | None:
    if device is None:
        return None
    from asyncguard._runtime import gpu_memory

    return gpu_memory.gpu(device)


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
    :param device: "cuda:0" or "cuda": guard the memory of this GPU instead of the machine's, as torch or the driver
        (NVML) tells it. What is learned is what torch allocates. "cuda" is torch's current GPU if CUDA is in use by
        now, else the first one.
    :param share: "auto": the processes of a container count with what each of them has promised; "process": every
        process for itself. A process counts with the others as soon as one of its guards does.
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
