"""`timeout` around generators: the time of the whole iteration, of the first item, and between items."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from asyncguard._runtime import clock as clocks
from asyncguard._runtime.bounded import bounded
from asyncguard._runtime.deadlines import Deadline
from asyncguard.events import CallTimedOut

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncguard._pipeline import Site
    from asyncguard.errors import CallTimeoutError
    from asyncguard.strategies.timeout import Timeout


class Iteration:
    """The time of one iteration: in all, and for each item. `started` is the time of the call that opened a stream."""

    __slots__ = ("_end", "_first", "_site", "_strategy", "_told")

    def __init__(self, strategy: Timeout, site: Site, started: float | None = None) -> None:
        self._strategy = strategy
        self._site = site
        self._first = True
        self._told = False
        begun = clocks.current().now() if started is None else started
        self._end = begun + strategy.live().seconds
        if started is None and strategy.mode_at(site) == "enforce":
            strategy.started(site)

    @contextlib.contextmanager
    def step(self) -> Generator[None]:
        """Bound the computation of one item."""
        if self._strategy.special and self._strategy.mode_at(self._site) != "enforce":
            start = clocks.current().now()
            try:
                yield
            finally:
                self._observed(start)
            return
        options = self._strategy.live()
        item, what = (options.first_item, "gave no first item") if self._first else (options.idle, "gave no item")
        left = self._end - clocks.current().now()
        if left <= 0:
            raise self._late(options.seconds)
        seconds, text = (left, "did not finish") if item is None or left <= item else (item, what)
        with bounded(seconds, lambda each: self._over(each, text, options.seconds)):
            yield
        self._first = False

    def _observed(self, start: float) -> None:
        """Tell, once, that the iteration or an item took longer than it may."""
        options, now = self._strategy.live(), clocks.current().now()
        item = options.first_item if self._first else options.idle
        self._first = False
        seconds = options.seconds if now >= self._end else item if item is not None and now - start >= item else None
        if seconds is not None and not self._told and self._strategy.mode_at(self._site) == "observe":
            self._told = True
            facts = self._strategy.facts(self._site)
            self._strategy.emit(self._site, CallTimedOut(**facts, seconds=seconds))

    def _late(self, seconds: float) -> CallTimeoutError:
        return self._strategy.over(self._site, Deadline(seconds, -seconds))

    def _over(self, deadline: Deadline, text: str, seconds: float) -> CallTimeoutError:
        if text == "did not finish":
            deadline.seconds = seconds
        return self._strategy.over(self._site, deadline, text)

    def close(self, error: BaseException | None) -> None:
        """Nothing is left between items."""
