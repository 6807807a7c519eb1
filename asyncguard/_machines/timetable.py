"""Who may start when: the places reserved under several rates, first come first served, and timed anew when one moves.

A place is timed from where every rate stands before it. If a place in front is given back, or the rates themselves move
(a cost was corrected, a service said what is left), that is another time: it is worked out when somebody asks, from the
steps of those in front (`maxplus`), so that coming, leaving and asking cost O(log n) with n waiting. Nobody is timed
into the past: who moves forward may start from now on, not from before.

So it is if the first is not claimed in time: after an event loop has stood still for a second, the calls of that second
do not all start at once. What starts is never more than the burst, what grows back, and one call. All methods are
called under the lock of the bucket. Times are whole numbers of nanoseconds * `scale` but where it says nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from asyncguard._machines.gate import Spot
from asyncguard._machines.gcra import Line
from asyncguard._machines.maxplus import NEVER, Row, Segments, Step, apply

__all__ = ["Place", "Timetable"]


class Place:
    """A place for `costs`, one per rate. From `slot`, in nanoseconds, on it may be claimed, as of the last `update`."""

    __slots__ = ("claimed", "costs", "floor", "gone", "number", "slot", "spot", "start", "units")

    def __init__(self, costs: Sequence[float], spot: Spot) -> None:
        self.costs = costs
        self.spot = spot
        self.units: list[int] = []
        self.floor = 0  # nobody behind starts before
        self.start = 0  # the slot, unrounded
        self.slot = 0
        self.number = 0
        self.claimed = False
        self.gone = False


class Timetable:
    """The places of one set of rates. Those that were claimed stay in the queue while somebody waits before them."""

    __slots__ = ("_base", "_end", "_segments", "lines", "queue", "scale", "waiting")

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.scale = lines[0].scale
        self.queue: dict[int, Place] = {}
        self.waiting = 0
        self._base: list[float] = []  # where the rates stand before the first who waits, and the floor
        self._segments = Segments()
        self._end = 0  # the number of the next place

    # --- coming and leaving ---

    def earliest(self, costs: Sequence[float], now: int) -> int:
        """Return the time at which a newcomer may start, in nanoseconds."""
        return self._rounded(self._start(self._units(costs), now * self.scale, [*self._tats(), NEVER]))

    def meet(self, place: Place, now: int) -> None:
        """Work out the slot of a newcomer, who takes nothing yet."""
        place.units, place.floor = self._units(place.costs), now * self.scale
        self._time(place, [*self._tats(), NEVER])

    def add(self, place: Place, now: int) -> None:
        """Put a newcomer at the end; one that starts at once needs no place unless somebody waits."""
        place.claimed = place.slot <= now
        step = self._step(place)
        times = [*self._tats(), NEVER]
        if self.queue or not place.claimed:
            if not self.queue:
                self._base = list(times)
            place.number = self._end
            self._end += 1
            self.queue[place.number] = place
            self.waiting += not place.claimed
            self._segments.put(place.number, step)
        self._set(apply(step, times))

    def leave(self, place: Place, now: int) -> None:
        """Take back a place that was not claimed: those behind move forward, but not into the past."""
        place.gone = True
        self.waiting -= 1
        number = self._segments.following(place.number)
        behind = None if number is None else self.queue[number]
        if behind is None:
            self._forget(place)
        else:
            behind.floor = max(behind.floor, now * self.scale)
            self._forget(place, {behind.number: self._step(behind)})
        self._pass_claimed()
        self._refresh()

    def claim(self, place: Place) -> None:
        """Let a place start at its slot. Nobody else moves."""
        place.claimed = True
        self.waiting -= 1
        if self.first() is not place:
            self._segments.put(place.number, self._step(place))
        self._pass_claimed()
        if not self.queue:
            self._refresh()

    def _pass_claimed(self) -> None:
        """Forget who was claimed and has nobody before it."""
        place = self.first()
        while place is not None and place.claimed:
            self._base = apply(self._step(place), self._base)
            self._forget(place)
            place = self.first()

    def _forget(self, place: Place, changed: dict[int, Step] | None = None) -> None:
        del self.queue[place.number]
        self._segments.drop(place.number, changed)

    # --- looking ---

    def first(self) -> Place | None:
        """Return the first who waits."""
        number = self._segments.first()
        return None if number is None else self.queue[number]

    def update(self, place: Place) -> None:
        """Work out the slot of a place as it is now."""
        if place.claimed or place.gone:
            return
        times = self._base
        for step in self._segments.before(place.number):
            times = apply(step, times)
        self._time(place, times)

    def front(self) -> list[int]:
        """Return where the rates stand without those who wait."""
        return cast("list[int]", self._base[:-1]) if self.queue else self._tats()

    # --- moving everybody ---

    def move(self, tats: list[int], now: int) -> None:
        """Let the rates stand elsewhere, and everybody who waits behind."""
        if self.queue:
            self._base = [*tats, now * self.scale]
            self._refresh()
        else:
            self._set(tats)

    def tidy(self, now: int) -> None:
        """Bring everything up to date: the clock may have gone back, an event loop be gone, or the first be late."""
        back = max(line.seen // line.scale for line in self.lines) - now
        if back > 0:
            self._turn_back(back * self.scale)
        for line in self.lines:
            line.seen = now * line.scale
        first = self.first()
        while first is not None and not first.spot.alive():
            self.leave(first, now)
            first = self.first()
        if first is not None and self._overdue(first, now * self.scale):
            self._base[-1] = now * self.scale
            self._refresh()

    def _overdue(self, first: Place, now: int) -> bool:
        """Tell whether what it takes would have grown back since its slot."""
        after = apply(self._step(first), self._base)
        return any(units and tat < now for tat, units in zip(after, first.units, strict=False))

    def _turn_back(self, back: int) -> None:
        """The clock went back: so does all we remember, and nobody waits for the time to come again. Only here O(n)."""
        for line in self.lines:
            line.tat -= back
        self._base = [each - back for each in self._base]
        for number, place in self.queue.items():
            place.floor -= back
            place.start -= back
            place.slot = self._rounded(place.start)
            self._segments.put(number, self._step(place))

    # --- arithmetic ---

    def _time(self, place: Place, times: list[float]) -> None:
        place.start = self._start(place.units, place.floor, times)
        place.slot = self._rounded(place.start)

    def _start(self, units: list[int], floor: int, times: list[float]) -> int:
        """Return the slot of a call behind `times`. A cost of nothing is never limited."""
        opens = [tat + each - line.burst for line, tat, each in zip(self.lines, times, units, strict=False) if each]
        return cast("int", max(floor, times[-1], *opens))

    def _step(self, place: Place) -> Step:
        """Return what a place does to the rates and to the floor of those behind."""
        if len(place.units) == 1:  # the common case: what it costs is never more than the burst
            (each,) = place.units
            if place.claimed or not each:
                return ((each, NEVER, place.start + each if each else NEVER),), place.floor
            return ((each, each, place.floor + each),), place.floor
        return tuple(self._rows(place)), place.floor

    def _rows(self, place: Place) -> Iterator[Row]:
        offsets = [each - line.burst if each else NEVER for line, each in zip(self.lines, place.units, strict=True)]
        for i, each in enumerate(place.units):
            if place.claimed or not each:
                own = [NEVER] * len(offsets)
                own[i] = each
                yield (*own, NEVER, place.start + each if each else NEVER)
            else:
                own = [offset + each for offset in offsets]
                own[i] = each
                yield (*own, each, place.floor + each)

    def _units(self, costs: Sequence[float]) -> list[int]:
        return [line.units(cost) for line, cost in zip(self.lines, costs, strict=True)]

    def _rounded(self, time: int) -> int:
        return -(-time // self.scale)

    def _tats(self) -> list[int]:
        return [line.tat for line in self.lines]

    def _refresh(self) -> None:
        """Let the lines stand behind everybody who waits."""
        whole = self._segments.whole()
        if whole is not None:
            self._set(apply(whole, self._base))
        elif self._base:
            self._set(self._base)
            self._base, self._segments, self._end = [], Segments(), 0

    def _set(self, times: Sequence[float]) -> None:
        for line, tat in zip(self.lines, times, strict=False):
            line.tat = cast("int", tat)
