"""Who may start when: the places reserved under several rates, first come first served, and timed anew when one moves.

A place knows where every rate stood before it. If a place in front is given back, or the rates themselves move (a cost
was corrected, a service said what is left), those behind are timed anew from there: once, at the next look, however
many have changed. So they are if the first is not claimed in time: after an event loop has stood still for a second,
the calls of that second do not all start at once. What starts is never more than the burst, what grows back, and one
call. All methods are called under the lock of the bucket; times are whole nanoseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from asyncguard._machines.gate import Spot
from asyncguard._machines.gcra import Line

__all__ = ["Place", "Timetable"]

Tats = list[int]


class Place:
    """A place for `costs`, one per rate. From `slot` on it may be claimed; `before` is where the rates stood."""

    __slots__ = ("before", "claimed", "costs", "gone", "mark", "number", "slot", "spot")

    def __init__(self, costs: Sequence[float], spot: Spot) -> None:
        self.costs = costs
        self.spot = spot
        self.before: Tats = []
        self.mark = 0  # how much of `Timetable._late` is in `before` and `slot` already
        self.slot = 0
        self.number = 0
        self.claimed = False
        self.gone = False

    def waits(self) -> bool:
        """Tell whether it is still to be claimed."""
        return not (self.claimed or self.gone)


class Timetable:
    """The places of one set of rates. Those that were claimed stay in the queue while somebody waits before them."""

    __slots__ = ("_arrivals", "_base", "_from", "_later", "lines", "queue")

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.queue: deque[Place] = deque()
        self._arrivals = 0
        self._base: Tats | None = None  # what is behind number `_from` has to be timed anew, from here on
        self._from = 0
        self._later = 0  # by how much everybody who waited was put off so far, in the units of the only line

    def earliest(self, costs: Sequence[float], now: int) -> int:
        """Return the time at which a newcomer may start."""
        return max(now, self._opens(self._tats(), costs))

    def add(self, place: Place, slot: int) -> None:
        """Put a newcomer at the end; one that starts at once needs no place unless somebody waits."""
        self._arrivals += 1
        place.number, place.slot, place.before, place.mark = self._arrivals, slot, self._tats(), self._later
        self._set(self._after(place.before, place.costs, slot))
        if self.queue or not place.claimed:
            self.queue.append(place)

    def leave(self, place: Place) -> None:
        """Take back a place that was not claimed."""
        self.update(place)
        place.gone = True
        if self._base is None or place.number < self._from:
            self._base, self._from = place.before, place.number

    def first(self) -> Place | None:
        """Return the first who waits."""
        return next(self._waiting(), None)

    def waiting(self) -> int:
        """Return how many wait."""
        return sum(1 for _ in self._waiting())

    def front(self) -> Tats:
        """Return where the rates stand without those who wait."""
        first = self.first()
        if first is None:
            return self._tats()
        self.update(first)
        return first.before

    def update(self, place: Place) -> None:
        """Take over by how much everybody was put off since the last look at this place."""
        later, place.mark = self._later - place.mark, self._later
        if later:
            place.before = [tat + later for tat in place.before]
            if not place.claimed:
                place.slot = max(place.slot, self._opens(place.before, place.costs))

    def move(self, tats: Tats) -> None:
        """Let the rates stand elsewhere, and everybody who waits behind."""
        first = self.first()
        if first is None:
            self._set(tats)
        else:
            self._base, self._from = tats, first.number - 1

    def tidy(self, now: int) -> None:
        """Bring every place up to date, and forget those that are not needed any more."""
        back = max(line.seen // line.scale for line in self.lines) - now
        if back > 0:
            self._turn_back(back)
        for line in self.lines:
            line.seen = now * line.scale
        first = self.first()
        while first is not None and not first.spot.alive():  # its event loop is gone
            self.leave(first)
            first = self.first()
        if first is not None and (self._base is None or first.number < self._from):
            self.update(first)
            if self._overdue(first, now):
                self._late(first, now)
        if self._base is not None:
            self._time_anew(self._base, now)
            self._base = None
        while self.queue and not self.queue[0].waits():
            self.queue.popleft()

    def _late(self, first: Place, now: int) -> None:
        """Time everybody anew from the first on, who did not come in time."""
        if len(self.lines) > 1 or self._base is not None:
            self._base, self._from = first.before, first.number - 1
            return
        # With one line that puts everybody off by the same: noted here, and taken over when they look.
        before = self._after(first.before, first.costs, first.slot)
        first.slot = now
        later = self._after(first.before, first.costs, now)[0] - before[0]
        self._later += later
        first.mark = self._later
        self._set([tat + later for tat in self._tats()])

    def _time_anew(self, tats: Tats, now: int) -> None:
        for place in self.queue:
            if place.number > self._from and not place.gone:
                place.before, place.mark = tats, self._later
                if not place.claimed:
                    place.slot = max(now, self._opens(tats, place.costs))
                tats = self._after(tats, place.costs, place.slot)
        self._set(tats)

    def _overdue(self, place: Place, now: int) -> bool:
        """Tell whether what it takes would have grown back since its slot."""
        after = self._after(place.before, place.costs, place.slot)
        return any(cost and tat < now * line.scale for line, tat, cost in self._each(after, place.costs))

    def _turn_back(self, back: int) -> None:
        """The clock went back: so does everything we remember, and nobody waits for the time to come again."""
        for line in self.lines:
            line.tat -= back * line.scale
        for place in self.queue:
            place.slot -= back
            place.before = self._earlier(place.before, back)
        self._base = None if self._base is None else self._earlier(self._base, back)

    def _earlier(self, tats: Tats, back: int) -> Tats:
        return [tat - back * line.scale for line, tat in zip(self.lines, tats, strict=True)]

    def _waiting(self) -> Iterator[Place]:
        return (place for place in self.queue if place.waits())

    def _opens(self, tats: Tats, costs: Sequence[float]) -> int:
        # A cost of nothing is never limited.
        slots = [line.opens(tat, line.units(cost)) for line, tat, cost in self._each(tats, costs) if cost]
        return max(slots, default=0)

    def _after(self, tats: Tats, costs: Sequence[float], slot: int) -> Tats:
        return [line.after(tat, line.units(cost), slot) if cost else tat for line, tat, cost in self._each(tats, costs)]

    def _each(self, tats: Tats, costs: Sequence[float]) -> Iterable[tuple[Line, int, float]]:
        return zip(self.lines, tats, costs, strict=True)

    def _tats(self) -> Tats:
        return [line.tat for line in self.lines]

    def _set(self, tats: Tats) -> None:
        for line, tat in zip(self.lines, tats, strict=True):
            line.tat = tat
