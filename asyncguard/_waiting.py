"""Floor 2: a caller that a gate could not let in at once: it asks, waits on its ticket, is let in or refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.gate import Request, wake
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, parking
from asyncguard.errors import BlockingWaitError, RejectedError

if TYPE_CHECKING:
    from asyncguard._admission import AdmissionStrategy
    from asyncguard._pipeline import Site


class _Nobody:
    """The spot of a caller that does not wait."""

    home = 0

    def wake(self) -> None:
        """Nobody is there."""

    def alive(self) -> bool:
        """Nobody is there, so nothing is granted."""
        return False


NOBODY = _Nobody()


@dataclass(slots=True)
class Caller:
    """One caller at one gate: whom it asks, from where, with which arguments."""

    strategy: AdmissionStrategy[Any, Any]
    gate: Any
    site: Site
    partition: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cost: Any = None

    async def wait_async(self) -> Any:
        """Return a permit, or raise the rejection when the time of the caller is over."""
        clock, spot = clocks.current(), parking.async_spot()
        start = clock.now()
        request = self.request(spot, self._until(start))
        ticket = self.admit(request)
        if not hasattr(ticket, "claim"):
            return ticket
        try:
            while (permit := self._claim(ticket, request, clock.now())) is None:
                await spot.wait(min(ticket.due(clock.now()), request.until) - clock.now())
        except BaseException:
            wake(ticket.withdraw())
            raise
        return self._let_in(permit, clock.now() - start)

    def wait_sync(self) -> Any:
        """Return a permit, or raise the rejection when the time of the caller is over."""
        clock, spot = clocks.current(), parking.ThreadSpot()
        start = clock.now()
        request = self.request(spot, self._until(start))
        ticket = self.admit(request)
        if not hasattr(ticket, "claim"):
            return ticket
        try:
            if request.until > start:  # else it is refused, and blocks nobody
                self._refuse_to_block()
            while (permit := self._claim(ticket, request, clock.now())) is None:
                spot.wait(min(ticket.due(clock.now()), request.until) - clock.now())
        except BaseException:
            wake(ticket.withdraw())
            raise
        return self._let_in(permit, clock.now() - start)

    def bind(self) -> Any:
        """Return a permit of a gate that never queues, or raise its rejection."""
        return self.admit(self.request(NOBODY, math.inf))

    def request(self, spot: Any, until: float) -> Request:
        """Build what the gate may want to know."""
        owner = parking.current_owner()
        stated = self.cost is not None
        request = Request(spot, until, owner=owner, args=self.args, kwargs=self.kwargs, home=spot.home, stated=stated)
        self.strategy.fill(request)
        if stated:
            request.cost = self.cost
        return request

    def admit(self, request: Request) -> Any:
        """Return a permit or a ticket, or raise the rejection."""
        try:
            given = self.gate.admit(request)
        except RejectedError as error:
            try:
                raise self.rejected(error) from None
            finally:
                self._announce()
        queued = hasattr(given, "claim")
        try:
            self._announce()
            if queued and self.strategy.heard(self.site):
                self._emit(events.CallQueued, ahead=getattr(given, "ahead", 0))
        except BaseException:  # whoever listens was interrupted
            wake(given.withdraw() if queued else self.gate.refund(given))
            raise
        return given

    def rejected(self, error: RejectedError) -> RejectedError:
        """Report a rejection and return it with the name of who refused."""
        error.strategy, error.partition = self.strategy.name, self.partition
        self._emit(events.CallRejected, reason=self.strategy.rejection, retry_after=error.retry_after)
        return error

    def _until(self, now: float) -> float:
        deadline = deadlines.current()
        latest: float = now + self.strategy.live().max_wait
        return latest if deadline is None else min(latest, deadline.when)

    def _claim(self, ticket: Any, request: Request, now: float) -> Any:
        """Return the permit, None to go on waiting; raise when the time is over."""
        permit = ticket.claim(now)
        if permit is None and now >= request.until:
            raise self.rejected(ticket.late(now)) from None  # that no slot was free at first says nothing new
        return permit

    def _let_in(self, permit: Any, waited: float) -> Any:
        """Report a caller that waited, and return its permit."""
        try:
            if self.strategy.heard(self.site):
                self._emit(events.CallAdmitted, waited=waited)
            self._announce()
        except BaseException:  # whoever listens was interrupted
            wake(self.gate.refund(permit))
            raise
        return permit

    def _announce(self) -> None:
        if self.gate.news:
            self.strategy.announce(self.site, self.gate, self.partition)

    def _refuse_to_block(self) -> None:
        if clocks.current() is clocks.REAL and clocks.thread_runs_loop():
            message = (
                f"{self.strategy.name}: no permit is free, and waiting here would block the event loop that runs on "
                "this thread; make the function async, or call it in a worker thread (asyncio.to_thread, "
                "anyio.to_thread.run_sync)"
            )
            raise BlockingWaitError(message, strategy=self.strategy.name) from None

    def _emit(self, kind: Any, **facts: Any) -> None:
        self.strategy.emit(self.site, kind(**self.strategy.facts(self.site, self.partition), **facts))
