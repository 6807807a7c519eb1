"""Cases of `scale.py`: breakers that look at the last N calls, or at the N calls of the last hour."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import cycle
from typing import TYPE_CHECKING

import asyncguard as ag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Operation = Callable[[], object]


def window_cases() -> Iterator[tuple[str, Callable[[int], Operation]]]:
    yield "breaker, last N calls: a good call", lambda size: calls(size, size, mixed=False)
    yield "breaker, last N calls, half failed: a call", lambda size: calls(size, size, mixed=True)
    hour = timedelta(hours=1)
    yield "breaker, N calls within its time: a good call", lambda size: calls(size, hour, mixed=False)
    yield "breaker, N calls within its time, half failed: a call", lambda size: calls(size, hour, mixed=True)


def calls(size: int, window: int | timedelta, *, mixed: bool) -> Operation:
    """Fill a window with `size` calls, and return the next."""
    fails = cycle([False, True] if mixed else [False])

    @ag.circuit_breaker(window=window, failure_rate=1.0, minimum_calls=2)
    def answer(*, fail: bool) -> int:
        if fail:
            raise ConnectionError
        return 1

    def call() -> None:
        with suppress(ConnectionError):
            answer(fail=next(fails))

    for _ in range(size):
        call()
    return call
