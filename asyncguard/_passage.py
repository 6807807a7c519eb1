"""Floor 2: a call's way through a block of neighbouring gates.

Each gate is asked in its place. A gate with two phases (the breaker) only fails fast there and is asked for real right
before the call, then the clock starts, so that queueing counts neither as a slow call nor as latency. A refusal gives
back what the gates before it gave.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.gate import wake
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import dispatch
from asyncguard._runtime.contexts import bring_back
from asyncguard._runtime.holds import Holds
from asyncguard._waiting import NOBODY, Caller
from asyncguard.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from contextvars import Token

    from asyncguard._admission import AdmissionStrategy
    from asyncguard._pipeline import Site

    Gatekeeper = AdmissionStrategy[Any, Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]
    Held = tuple[Gatekeeper, Any, Any]  # strategy, gate, permit: plain, since it is made at each call

permits: ContextVar[tuple[Held, ...]] = ContextVar("asyncguard_permits", default=())


async def open_async(block: Sequence[Gatekeeper], site: Site, args: Args, kwargs: Kwargs, cost: Any = None) -> Passage:
    """Go through the gates of a block, waiting where it is needed; `cost` overrides what the arguments would say."""
    passage = Passage(site, cost)
    try:
        for strategy in block:
            caller = passage.arrive(strategy, args, kwargs)
            if caller is not None:
                passage.took(caller.strategy, caller.gate, caller.partition, await caller.wait_async())
        passage.bind(args, kwargs)
    except BaseException:
        passage.refund()
        raise
    return passage


def open_sync(block: Sequence[Gatekeeper], site: Site, args: Args, kwargs: Kwargs, cost: Any = None) -> Passage:
    """Go through the gates of a block, waiting where it is needed; `cost` overrides what the arguments would say."""
    passage = Passage(site, cost)
    try:
        for strategy in block:
            caller = passage.arrive(strategy, args, kwargs)
            if caller is not None:
                passage.took(caller.strategy, caller.gate, caller.partition, caller.wait_sync())
        passage.bind(args, kwargs)
    except BaseException:
        passage.refund()
        raise
    return passage


def choose(strategy: Gatekeeper, site: Site, args: Args, kwargs: Kwargs) -> tuple[Any, str, str]:
    """Return the gate, the partition and the mode for a call."""
    if not strategy.special and site.pipeline.partition is None:
        return strategy.gate, "", "enforce"
    mode = strategy.mode_at(site)
    if mode == "off":
        return None, "", mode
    try:
        return *strategy.gate_for(site, args, kwargs), mode
    except Exception as error:
        if mode == "enforce":
            raise
        unobserved(strategy, site, error)
        return None, "", "off"


def unobserved(strategy: Gatekeeper, site: Site, error: Exception) -> None:
    """Log that a call could not be looked at: observing never changes it."""
    text = "asyncguard: %s could not observe %s (partition=, cost= or the like failed)"
    dispatch.complain(strategy, error, text, strategy.name, site.name)


def judge(strategy: Gatekeeper, gate: Any, permit: Any, elapsed: float, error: BaseException | None) -> Sequence[Any]:
    """Report the outcome of a call to its gate; return whom to wake."""
    woken: Sequence[Any]
    if error is None:
        woken = gate.succeeded(permit, elapsed)
    elif isinstance(error, Exception) and _speaks(strategy, gate, permit, error):
        woken = gate.failed(permit, elapsed, error)
    else:
        woken = gate.abandoned(permit)
    return woken


def _speaks(strategy: Gatekeeper, gate: Any, permit: Any, error: Exception) -> bool:
    """Tell whether an error speaks about the dependency. A predicate of the user that fails costs no probe."""
    try:
        return strategy.judge(error)
    except BaseException:
        wake(gate.abandoned(permit))
        raise


class Passage:
    """What one call took from a block of gates, and how it ends."""

    __slots__ = ("_binders", "_cost", "_holds", "_start", "_token", "_unheld", "entries", "site")

    def __init__(self, site: Site, cost: Any = None) -> None:
        self.site = site
        self._cost = cost
        self._unheld: list[Held] = []
        self.entries: list[tuple[Gatekeeper, Any, str, Any]] = []
        self._binders: list[tuple[Gatekeeper, Any, str, str]] | None = None
        self._holds: Holds | None = None
        self._token: Token[tuple[Held, ...]] | None = None
        self._start: float | None = None

    # --- in ---

    def arrive(self, strategy: Gatekeeper, args: Args, kwargs: Kwargs) -> Caller | None:
        """Pass a gate if that is possible at once; return the caller that has to wait otherwise."""
        gate, partition, mode = choose(strategy, self.site, args, kwargs)
        if mode == "off":
            self._without(strategy, gate)
            return None
        if strategy.two_phase:
            self._peek(strategy, gate, partition, mode)
            return None
        if mode == "observe":
            self._observe(strategy, gate, partition, args, kwargs)
            return None
        if self._cost is None and not strategy.weighs:
            with contextlib.suppress(LookupError):
                self.entries.append((strategy, gate, partition, gate.take()))
                return None
        return Caller(strategy, gate, self.site, partition, args, kwargs, self._cost)

    def _without(self, strategy: Gatekeeper, gate: Any) -> None:
        """Go on without a permit; a function that corrects its cost must not notice."""
        if strategy.weighs:
            self._unheld.append((strategy, gate, None))

    def took(self, strategy: Gatekeeper, gate: Any, partition: str, permit: Any) -> None:
        """Remember a permit, to settle it when the call is over."""
        self.entries.append((strategy, gate, partition, permit))

    def _peek(self, strategy: Gatekeeper, gate: Any, partition: str, mode: str) -> None:
        """First phase: fail fast, take nothing."""
        if self._binders is None:
            self._binders = []
        self._binders.append((strategy, gate, partition, mode))
        if mode == "enforce":
            try:
                gate.peek()
            except RejectedError as error:
                raise Caller(strategy, gate, self.site, partition, (), {}).rejected(error) from None
            finally:
                if gate.news:
                    strategy.announce(self.site, gate, partition)

    def bind(self, args: Args, kwargs: Kwargs) -> None:
        """Second phase, right before the call; then the clock starts."""
        for strategy, gate, partition, mode in self._binders or ():
            if mode == "observe":
                self._observe(strategy, gate, partition, args, kwargs)
                continue
            try:
                permit = gate.take()
            except LookupError:
                permit = Caller(strategy, gate, self.site, partition, args, kwargs).bind()
            self.entries.append((strategy, gate, partition, permit))
        for _, gate, _, _ in self.entries:
            if gate.timed:
                self._start = clocks.current().now()
                return

    def begin(self) -> None:
        """The call starts now: offer holds to it, and show it the permits that it may correct."""
        if self.site.holds:
            self._holds = Holds()
            self._holds.enter()
        self._token = self._show()

    def _show(self) -> Token[tuple[Held, ...]] | None:
        held = [(strategy, gate, permit) for strategy, gate, _, permit in self.entries if strategy.weighs]
        return permits.set((*held, *self._unheld, *permits.get())) if held or self._unheld else None

    def _observe(self, strategy: Gatekeeper, gate: Any, partition: str, args: Args, kwargs: Kwargs) -> None:
        """Ask without waiting and without refusing: report what would have happened."""
        caller = Caller(strategy, gate, self.site, partition, args, kwargs, self._cost)
        permit: Any = None
        try:
            permit = caller.admit(caller.request(NOBODY, clocks.current().now()))
        except RejectedError:
            """It would have been refused; that was told."""
        except Exception as error:  # noqa: BLE001 - whatever the user's cost= raised
            unobserved(strategy, self.site, error)
        if permit is not None and not hasattr(permit, "claim"):
            self.took(strategy, gate, partition, permit)
            return
        self._without(strategy, gate)
        if permit is not None:
            wake(permit.withdraw())
            strategy.emit(self.site, events.CallQueued(**strategy.facts(self.site, partition), ahead=0))

    # --- out ---

    def refund(self) -> None:
        """A gate refused: give back what the others gave, as if nobody had asked."""
        for _, gate, _, permit in self.entries:
            wake(gate.refund(permit))

    def close(self, error: BaseException | None) -> None:
        """Report the outcome now; the slots are released now, or with the last hold."""
        if self._token is not None:
            bring_back(permits, self._token)
        try:
            self._report(iter(self.entries), error)
        finally:
            if self._holds is not None:
                self._holds.leave(self._release)
            else:
                self._release()

    def _report(self, entries: Iterator[tuple[Gatekeeper, Any, str, Any]], error: BaseException | None) -> None:
        for strategy, gate, partition, permit in entries:
            try:
                if gate.outcomes:
                    elapsed = 0.0 if self._start is None else clocks.current().now() - self._start
                    wake(judge(strategy, gate, permit, elapsed, error))
                if gate.news:
                    strategy.announce(self.site, gate, partition)
            except BaseException:  # a predicate or a listener of the user failed: the others are told all the same
                self._report(entries, error)
                raise

    def _release(self) -> None:
        for _, gate, _, permit in self.entries:
            woken = gate.release(permit)
            if woken:
                wake(woken)

    @contextlib.contextmanager
    def step(self) -> Generator[None]:
        """Around each item of a generator only what the function may ask for is set."""
        token = self._show()
        try:
            yield
        finally:
            if token is not None:
                bring_back(permits, token)
