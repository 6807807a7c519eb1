"""The block form of a retry: a loop over attempts, each a context manager that keeps an error to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from asyncguard.strategies._retry_drivers import sleep_sync
from asyncguard.strategies._retry_run import Run

if TYPE_CHECKING:
    from types import TracebackType

    from asyncguard._pipeline import Site
    from asyncguard.strategies.retry import Retry

__all__ = ["Attempt", "AttemptLoop"]


class AttemptLoop:
    """What `retry(...).attempts()` returns. Each `async for` or `for` over it begins anew."""

    def __init__(self, strategy: Retry, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._strategy = strategy
        self._site = site
        self._args = args
        self._kwargs = kwargs

    def __aiter__(self) -> AsyncAttempts:
        return AsyncAttempts(self._first())

    def __iter__(self) -> SyncAttempts:
        return SyncAttempts(self._first())

    def _first(self) -> Attempt:
        if self._strategy.mode_at(self._site) == "off":
            return Attempt(None)
        return Attempt(Run.start(self._strategy, self._site, self._args, self._kwargs))


class Attempt:
    """One attempt: `async with attempt: ...` or `with attempt: ...`; `number` counts from 1."""

    def __init__(self, run: Run | None) -> None:
        self.run = run  # None if the retry is switched off
        self.over = False
        self.number = 1
        self._entered = True  # of the attempt before, and there is none before the first

    def enter(self) -> Self:
        """Start the attempt."""
        self._entered = True
        if self.run is not None:
            self.run.begin(scoped=False)  # the block knows its number, and may be left by a `yield`
        return self

    def exit(self, error: BaseException | None) -> bool:
        """End it; True: there will be another one."""
        again = isinstance(error, Exception) and self.run is not None and not self.run.failed(error)
        self.over = not again
        return again

    def next(self) -> Attempt:
        """Return the attempt that comes now."""
        if self.run is not None:
            self.number = self.run.number
        self._entered = False
        return self

    def more(self) -> bool:
        """Tell whether another attempt comes; raise RuntimeError if the one before was never entered."""
        if not self.over and not self._entered:
            raise RuntimeError(
                "the attempt was not entered: `async for attempt in retry(...).attempts():` needs "
                "`async with attempt:` around what is tried (without `async` in sync code)"
            )
        return not self.over

    __enter__ = enter

    async def __aenter__(self) -> Self:
        return self.enter()

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        return self.exit(error)

    async def __aexit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        return self.exit(error)


class AsyncAttempts:
    """The attempts of one `async for`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __aiter__(self) -> AsyncAttempts:
        return self

    async def __anext__(self) -> Attempt:
        if not self._attempt.more():
            raise StopAsyncIteration
        run = self._attempt.run
        while run is not None and (seconds := run.pause()) > 0.0:
            await run.clock.sleep(seconds)
        return self._attempt.next()


class SyncAttempts:
    """The attempts of one `for`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __iter__(self) -> SyncAttempts:
        return self

    def __next__(self) -> Attempt:
        if not self._attempt.more():
            raise StopIteration
        if self._attempt.run is not None:
            sleep_sync(self._attempt.run)
        return self._attempt.next()
