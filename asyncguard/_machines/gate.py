"""The admission protocol: what a gate is asked and what it answers. The drivers are in `_drivers`.

Shaped after resilience4j's permits and Netflix' three-valued outcome (success, dropped, ignored).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Permit = Any
"""What a gate gives for one call: an epoch, a slot, a number of bytes; only the gate that gave it understands it."""


class Spot(Protocol):
    """Where a caller is parked; the gate keeps it and says when to wake it."""

    def wake(self) -> None: ...
    def alive(self) -> bool: ...


Wake = Sequence[Spot]
"""The spots to wake: the driver does it, outside the gate's lock."""

NOBODY: Wake = ()


def wake(spots: Wake) -> None:
    """Wake parked callers, outside of every lock."""
    for spot in spots:
        spot.wake()


@dataclass(slots=True)
class Request:
    """What a gate may want to know about a caller that could not be let in at once.

    `until` is the absolute monotonic time at which the caller stops waiting: its `max_wait`, or its deadline if that
    is earlier. `cost` is the weight, the tokens or the bytes of the call; `owner` identifies who asks (a task), for
    gates that know their callers; `home` tells one event loop from another, 0 for a thread without one.
    """

    spot: Spot
    until: float = math.inf
    cost: Any = 1
    owner: object = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    home: int = 0
    stated: bool = False  # the caller says what it costs: that is not asked of the arguments


class Ticket(Protocol):
    """A place in the queue that stays ours until it is claimed or withdrawn."""

    def claim(self, now: float) -> Permit | None:
        """Take what was granted; None if it is not our turn yet."""
        ...

    def due(self, now: float) -> float:
        """Return the absolute time at which to look again even if nobody wakes us; infinity if never."""
        ...

    def withdraw(self) -> Wake:
        """Leave: give back the place and whatever was granted."""
        ...

    def late(self, now: float) -> Exception:
        """Return the rejection for a caller whose time is over."""
        ...


class Gate(Protocol):
    """May this call start? All methods are thread-safe and O(1) or O(log n), and run no code of the user."""

    @property
    def outcomes(self) -> bool:
        """Whether it wants to know how calls end; otherwise only `release` matters."""
        ...

    @property
    def timed(self) -> bool:
        """Whether it wants the elapsed seconds with the outcome."""
        ...

    @property
    def news(self) -> Sequence[Any]:
        """What changed and should be told (a circuit opened); drained by the strategy's `announce`."""
        ...

    def take(self) -> Permit:
        """Return a permit at once or raise LookupError: the fast path."""
        ...

    def admit(self, request: Request) -> Permit | Ticket:
        """Return a permit or a ticket, or raise a RejectedError with the numbers."""
        ...

    def succeeded(self, permit: Permit, elapsed: float) -> Wake:
        """The call returned. Exactly one of the three outcomes is reported, if `outcomes`."""
        ...

    def failed(self, permit: Permit, elapsed: float, error: Exception) -> Wake:
        """The call failed in a way that speaks about the dependency."""
        ...

    def abandoned(self, permit: Permit) -> Wake:
        """The call was cancelled or ended in a way that says nothing about the dependency."""
        ...

    def release(self, permit: Permit) -> Wake:
        """The slot is free again: the call and all its holds are over."""
        ...

    def refund(self, permit: Permit) -> Wake:
        """The call was never made (a later gate refused): as if it had not asked."""
        ...

    def after_fork(self) -> None:
        """In a forked child: a new lock, no waiters, nothing in flight."""
        ...

    def idle(self) -> bool:
        """Tell whether nothing would be lost by forgetting this gate."""
        ...
