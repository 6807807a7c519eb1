"""Who waits for whom among nested flights: a circle would wait for ever, so it is refused."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncguard._machines.flight import Flight, Work


class CircularWaitError(RecursionError):
    """The computation of a key would wait for itself."""


_edges = threading.Lock()  # of all caches: a circle may go through several


def _renew() -> None:
    global _edges  # noqa: PLW0603 - another thread may have held it when the process forked
    _edges = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def link(inside: Work, flight: Flight) -> None:
    """Note that a work waits for a flight."""
    with _edges:
        if inside.waits_for is None:
            inside.waits_for = []
        inside.waits_for.append(flight)


def refuse(inside: Work, flight: Flight) -> None:
    """Raise CircularWaitError if the flight waits, directly or not, for the work that wants to wait for it."""
    with _edges:
        if inside.running and any(work is inside for work in _chain(flight.work)):
            raise CircularWaitError("waits for itself")


def unlink(inside: Work, flight: Flight) -> None:
    """Note that it does no longer."""
    with _edges:
        if inside.waits_for and flight in inside.waits_for:
            inside.waits_for.remove(flight)


def _chain(first: Work) -> Iterator[Work]:
    """Yield a work and all that it waits for, directly or not."""
    seen, ahead = {id(first)}, [first]
    while ahead:
        work = ahead.pop()
        yield work
        for flight in work.waits_for or ():
            if flight.state.value == "running" and id(flight.work) not in seen:
                seen.add(id(flight.work))
                ahead.append(flight.work)
