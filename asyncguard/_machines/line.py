"""Who waits at a gate, in order. Coming, leaving and looking at the first cost O(log n), however many wait.

A waiter whose event loop stands still is skipped and set aside, so that nobody looks at it again and again; it is told
once, and comes back to its old place when its loop goes on and it looks for itself.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncguard._machines.gate import Spot
    from asyncguard._machines.place import Place

_FEW: Final = 64  # entries of places that were left may lie about


class Line:
    """Places by rank, smallest first; of equal rank, first come first served. Used under the lock of its gate.

    `places` are all who wait, each with its number; the spots of those that are skipped are added to `told`.
    """

    __slots__ = ("_aside", "_heap", "_numbers", "_told", "places")

    def __init__(self, told: list[Spot]) -> None:
        self.places: dict[Place, int] = {}
        self._heap: list[tuple[float, int, Place]] = []  # entries whose number is not that of the place are left over
        self._aside: dict[Place, None] = {}  # of the places, those that stand still: they have no entry
        self._numbers = itertools.count()
        self._told = told

    def join(self, place: Place) -> None:
        """Come into the line."""
        self.places[place] = next(self._numbers)
        self.push(place)

    def leave(self, place: Place) -> None:
        """Go out of the line, if there."""
        self._aside.pop(place, None)
        if self.places.pop(place, None) is not None and len(self._heap) > 2 * len(self.places) + _FEW:
            self._tidy()

    def first(self) -> Place | None:
        """Return the first that could take a permit, and skip those in front of it that could not."""
        while self._heap:
            _, number, place = self._heap[0]
            if self.places.get(place) == number:
                if place.alive():
                    return place
                self._aside[place] = None
                self._told.append(place.spot)
            heapq.heappop(self._heap)
        return None

    def pop(self) -> None:
        """Take the entry of the one that `first` returned, which goes out of the line or is pushed back."""
        heapq.heappop(self._heap)

    def push(self, place: Place) -> None:
        """Make an entry for a place in the line."""
        heapq.heappush(self._heap, (place.rank, self.places[place], place))

    def set_aside(self, place: Place) -> None:
        """Come into the line as one whose loop stands still."""
        self.places[place] = next(self._numbers)
        self._aside[place] = None

    def look(self, place: Place) -> None:
        """Bring one back that was set aside: it asks, so its loop goes on."""
        if place in self._aside:
            del self._aside[place]
            self.push(place)

    def _tidy(self) -> None:
        """Forget the entries that are left over, when they are more than the others."""
        self._heap = [(place.rank, number, place) for place, number in self.places.items() if place not in self._aside]
        heapq.heapify(self._heap)
