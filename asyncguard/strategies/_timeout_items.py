"""`timeout` around generators: the time of the whole iteration, of the first item, and between items."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from asyncguard._runtime import clock as clocks
from asyncguard._runtime.bounded import bounded
from asyncguard._runtime.deadlines import Deadline

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncguard._pipeline import Site
    from asyncguard.errors import CallTimeoutError
    from asyncguard.strategies.timeout import Timeout


class Iteration:
    """The time of one iteration: in all, and for each item. `started` is the time of the call that opened a stream."""

    __slots__ = ("_end", "_first", "_site", "_strategy")

    def __init__(self, strategy: Timeout, site: Site, started: float | None = None) -> None:
        self._strategy = strategy
        self._site = site
        self._first = True
        begun = clocks.current().now() if started is None else started
        self._end = begun + strategy.live().seconds
        if started is None and strategy.mode_at(site) == "enforce":
            strategy.started(site)

    @contextlib.contextmanager
    def step(self) -> Generator[None]:
        """Bound the computation of one item."""
        if self._strategy.special and self._strategy.mode_at(self._site) != "enforce":
            yield
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

    def _late(self, seconds: float) -> CallTimeoutError:
        return self._strategy.over(self._site, Deadline(seconds, -seconds))

    def _over(self, deadline: Deadline, text: str, seconds: float) -> CallTimeoutError:
        if text == "did not finish":
            deadline.seconds = seconds
        return self._strategy.over(self._site, deadline, text)

    def close(self, error: BaseException | None) -> None:
        """Nothing is left between items."""
