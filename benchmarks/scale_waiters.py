"""Cases of `scale.py`: gates for which N callers wait. The machines are asked as their drivers ask them, without tasks.

A thousand tasks would cost the event loop more than the gate; how many a loop can hold is not ours to measure.
"""

from __future__ import annotations

import math
import random
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncguard._machines.adaptive import Adaptive, AdaptiveRules
from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import Request
from asyncguard._machines.queued import Asker
from asyncguard._machines.rates import Rate
from asyncguard._machines.slots import Slots
from asyncguard._machines.weighted_slots import WeightedSlots
from asyncguard.errors import BulkheadFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Operation = Callable[[], object]

MANY = 10**9


class Spot:
    """Where a caller is parked; nobody sleeps here."""

    __slots__ = ("place",)
    place: Any

    def wake(self) -> None: ...

    def alive(self) -> bool:
        return True


class Important(Asker):
    """A caller with a priority."""

    def __init__(self, priority: float) -> None:
        self.priority = priority


class Crowd:
    """A gate for which `size` callers wait."""

    weights = (1,)
    priorities = (0.0,)

    def __init__(self, size: int) -> None:
        self.ns = 10**12
        self.random = random.Random(1)
        self.gate = self.make(size)
        self.held: deque[Any] = deque()
        self.places: list[Any] = []
        while len(self.places) < size:
            self.places.append(self.come())

    def make(self, size: int) -> Any:
        raise NotImplementedError

    def seconds(self) -> float:
        return self.ns / 1e9

    def come(self) -> Any:
        """Ask until somebody has to wait; return its place."""
        while True:
            spot = Spot()
            owner = Important(self.random.choice(self.priorities))
            place = self.gate.admit(Request(spot, cost=self.random.choice(self.weights), owner=owner))
            if hasattr(place, "claim"):
                spot.place = place
                return place
            self.held.append(place)

    def come_and_leave(self) -> None:
        self.come().withdraw()

    def replace_any(self) -> None:
        number = self.random.randrange(len(self.places))
        self.places[number].withdraw()
        self.places[number] = self.come()

    def grant(self) -> None:
        """Let one call end: whoever gets its permit goes in, and somebody else comes."""
        permit = self.held.popleft()
        self.gate.succeeded(permit, 0.01)
        for spot in self.gate.release(permit):
            self.held.append(spot.place.claim(self.seconds()))
            self.come()
        self.ns += 10**6

    def look(self) -> None:
        """Let a waiter look whether it is its turn, as each does that is woken for nothing."""
        self.places[self.random.randrange(len(self.places))].claim(self.seconds())


class Plain(Crowd):
    def make(self, size: int) -> Any:
        del size
        return Slots(5, MANY, name="gate", clock=self.seconds)


class Prioritised(Crowd):
    priorities = (0.0, 1.0, 5.0)

    def make(self, size: int) -> Any:
        del size
        return WeightedSlots(5, MANY, name="gate", clock=self.seconds)


class Weighted(Prioritised):
    priorities = (0.0,)
    weights = (1, 2, 5)  # type: ignore[assignment]


class Learning(Crowd):
    def make(self, size: int) -> Any:
        del size
        rules = AdaptiveRules(initial=20, least=20, most=20, algorithm="vegas", max_queue=MANY)
        return Adaptive(rules, name="gate", clock=self.seconds, random=lambda: 0.5)


class Rated(Crowd):
    rates = ("100/s burst 5",)

    def make(self, size: int) -> Any:
        del size
        return Bucket([Rate(rate) for rate in self.rates], lambda: self.ns)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.queue = deque(self.places)

    def grant(self) -> None:
        first = self.queue.popleft()
        self.ns = max(self.ns, math.ceil(first.due(0.0) * 1e9) + 1000)
        assert first.claim(self.seconds()) is not None
        self.queue.append(self.come())

    def look(self) -> None:
        self.places[self.random.randrange(len(self.places))].due(self.seconds())


class TwiceRated(Rated):
    rates = ("100/s burst 1", "5000/min burst 50")


class ThriceRated(Rated):
    rates = ("100/s burst 1", "5000/min burst 50", "200000/h burst 500")


class Refused(Plain):
    """The queue is full, so that everybody who comes is refused."""

    def make(self, size: int) -> Any:
        return Slots(5, size, name="gate", clock=self.seconds)

    def refuse(self) -> None:
        self.ns += 10**6  # a thousand refusals a second
        with suppress(BulkheadFullError):
            self.gate.admit(Request(Spot(), until=self.seconds() + 10))


CROWDS: dict[str, type[Crowd]] = {
    "bulkhead": Plain,
    "bulkhead, priority": Prioritised,
    "bulkhead, weights": Weighted,
    "adaptive_concurrency": Learning,
    "rate_limit": Rated,
    "rate_limit, two rates": TwiceRated,
    "rate_limit, three rates": ThriceRated,
}


def waiter_cases() -> Iterator[tuple[str, bool, Callable[[int], Operation]]]:
    for name, kind in CROWDS.items():
        yield f"{name}: come and leave", True, lambda size, kind=kind: kind(size).come_and_leave
        yield f"{name}: any of N leaves, another comes", True, lambda size, kind=kind: kind(size).replace_any
        yield f"{name}: a permit goes to the next, another comes", True, lambda size, kind=kind: kind(size).grant
        yield f"{name}: any of N looks", True, lambda size, kind=kind: kind(size).look
    yield "bulkhead, queue full: a refusal", False, lambda size: Refused(size).refuse
