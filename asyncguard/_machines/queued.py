"""A gate with a bounded queue: what the slots and the weighted permits of a bulkhead have in common.

While anybody waits, what is released is offered to the first waiter who can take it. An offer is claimed under the
lock: a waiter on a stopped loop is skipped, and one that was cancelled passes its offer on.

What is given back waits in `_back` until whoever is inside sees to it. Giving back must not wait: the garbage collector
may end an abandoned call in the middle of a decision, on its thread. A finalizer that asks for a permit there is
refused: nobody comes in a second time.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from asyncguard._machines.gate import NOBODY, wake
from asyncguard._machines.line import Line
from asyncguard._machines.place import Place
from asyncguard._machines.unjudged import Unjudged
from asyncguard.errors import BulkheadFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.gate import Request, Spot, Wake

PermitT = TypeVar("PermitT")
T = TypeVar("T")

_SWEEP: Final = 1.0  # seconds between two looks for waiters that are lost: a refusal must not cost one


class Asker:
    """Who asks, as the `owner` of a request; a strategy that knows more about its callers extends it."""

    priority: float = 0.0

    def inside(self, gate: Any) -> bool:
        """Tell whether it asks from inside of a call that holds a permit of `gate`. Called outside of the lock."""
        del gate
        return False


class Queued(Unjudged, Generic[PermitT]):
    """`size` permits and at most `max_queue` waiters."""

    outcomes: bool = False
    timed: bool = False
    news: tuple[()] = ()

    def __init__(self, size: int, max_queue: int, *, name: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._name = name
        self._swept = -math.inf
        self.size = size
        self.max_queue = max_queue
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()  # reentrant, so that who comes in a second time gets an answer
        self._inside = False
        self._woken: list[Spot] = []  # to be woken when the lock is free
        # What was released, places left, corrections; None: look again.
        self._back: deque[PermitT | Place | Callable[[], None] | None] = deque()
        self.offered: dict[Place, None] = {}  # were offered a permit and have not claimed it yet
        self.line = Line(self._woken)  # wait for an offer
        self.queue = self.line.places
        self.mixed = False  # callers of several loops (or threads) wait
        self._home = 0

    # --- what a subclass provides, under the lock (but `taken`) ---

    @property
    def taken(self) -> int:
        """How many permits are held or offered."""
        raise NotImplementedError

    def _enter(self, request: Request) -> PermitT | Place:
        """Return a permit or a place in the queue, or raise the refusal."""
        raise NotImplementedError

    def _pass_on(self, permit: PermitT) -> None:
        """Take back a permit that was held or offered, for the first who waits."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Offer what is free to the first who wait."""
        raise NotImplementedError

    # --- the gate ---

    def admit(self, request: Request) -> PermitT | Place:
        """Return a permit or a place in the queue; raise BulkheadFullError if the queue is full."""
        lost = self._forget_lost() if self.waiting >= self.max_queue else ()
        try:
            given = self._alone(self._enter, request)
        finally:
            wake(self._see_to_it())
            del lost  # not under the lock: calls may end with them
        if isinstance(given, Place):
            self._refuse_to_wait_for_itself(given, request.owner)
        return given

    def _refuse_to_wait_for_itself(self, place: Place, asker: object) -> None:
        if not isinstance(asker, Asker) or place.offer is not None:
            return
        inside = True
        try:
            inside = asker.inside(self)
        finally:
            if inside:
                wake(self.withdraw(place))
        if inside:
            raise BulkheadFullError(
                f"{self._name}: {self._how_full()}, and this call is made from inside of a call that holds one: it "
                "would wait for itself; call what it wraps there (fn.__wrapped__), or guard only the innermost function"
            )

    def idle(self) -> bool:
        """Tell whether no permit is taken and nobody waits."""
        return not self.taken and not self.waiting

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self.queue) + len(self.offered)

    # --- without the lock ---

    def _forget_lost(self) -> list[Place]:
        """Take out who waits past its time on a loop that stands still: if it was closed, they never leave."""
        now = self._clock()
        if now < self._swept + _SWEEP:
            return []
        self._swept = now
        return self._alone(self._lost, now)

    def _alone(self, do: Callable[..., T], *args: Any) -> T:
        """Do what only one may do at a time; refuse who comes in a second time, on the thread that is inside."""
        with self._lock:
            if self._inside:
                raise BulkheadFullError(
                    f"{self._name}: asked by a finalizer that ran while this gate decided about another call on the "
                    "same thread; make no guarded call in __del__, or make it in a task"
                )
            self._inside = True
            try:
                return do(*args)
            finally:
                self._inside = False

    def _see_to_it(self) -> Wake:
        """Do what was given back, and return whom to wake; not if somebody is inside: they do so after us."""
        if not (self._back or self._woken):
            return NOBODY
        woken: list[Spot] = []
        while (self._back or self._woken) and not self._inside:
            woken += self._alone(self._take_back)
        return woken

    # --- under the lock ---

    def _lost(self, now: float) -> list[Place]:
        lost = [place for place in self.queue if place.until <= now and not place.alive()]
        for place in lost:
            self.line.leave(place)
        return lost

    def _join(self, place: Place) -> None:
        """Come into the queue."""
        if not self.waiting:
            self.mixed, self._home = False, place.home
        elif place.home != self._home and not self.mixed:
            self.mixed = True
            self._woken.extend(each.spot for each in (*self.queue, *self.offered))  # from now on they look around
        self.line.join(place)

    def _take_back(self) -> list[Spot]:
        while self._back:
            self._do(self._back.popleft())
        woken = list(self._woken)
        self._woken.clear()
        return woken

    def _do(self, given: PermitT | Place | Callable[[], None] | None) -> None:
        if isinstance(given, Place):
            self._leave(given)
        elif given is None:
            self._settle()
        elif callable(given):
            given()
        else:
            self._pass_on(given)

    def _leave(self, place: Place) -> None:
        if place in self.offered:
            self._pass_on(self._accept(place))
        else:
            self.line.leave(place)

    def _offer(self, place: Place, permit: PermitT) -> None:
        """Offer a permit to the first of the line."""
        self.line.pop()
        self.line.leave(place)
        self.offered[place] = None
        place.offer = permit
        self._woken.append(place.spot)

    def _accept(self, place: Place) -> PermitT:
        """End an offer; return what was offered."""
        del self.offered[place]
        permit: PermitT = place.offer
        place.offer = None
        return permit

    def _revoke_dead(self) -> None:
        """Take back offers to waiters whose loop stopped before they could claim them; they keep a place."""
        for place in [place for place in self.offered if not place.alive()]:
            permit = self._accept(place)
            self.line.set_aside(place)
            self._pass_on(permit)

    def _how_full(self) -> str:
        return f"all {self.size} permits are taken"

    def _full(self) -> BulkheadFullError:
        wait = f"{self.waiting} of {self.max_queue} places wait{self._advice('max_queue')}"
        return BulkheadFullError(f"{self._name}: {self._how_full()} and {wait}")

    # --- what a place asks ---

    def claim(self, place: Place) -> PermitT | None:
        """Take what was offered to a place."""
        try:
            return self._alone(self._claim, place)
        finally:
            wake(self._see_to_it())

    def _claim(self, place: Place) -> PermitT | None:
        if place in self.queue:
            self.line.look(place)
            self._revoke_dead()  # nobody may have told us: the one in front died with its loop
            self._settle()
        return self._accept(place) if place in self.offered else None

    def withdraw(self, place: Place) -> Wake:
        """Leave the queue; an offer goes to the next."""
        self._back.append(place)
        return self._see_to_it()

    def late(self) -> BulkheadFullError:
        """Return the rejection of a caller who waited as long as it may."""
        return BulkheadFullError(
            f"{self._name}: no permit came free in time: {self._how_full()}, {self.waiting} of {self.max_queue} "
            f"places wait{self._advice('max_wait')}"
        )

    def _advice(self, option: str) -> str:
        return f"; start fewer calls at once, or raise {option}="
