"""The loops of a retry: each asks the run, sleeps, calls and reports, in its colour."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from asyncguard._machines import giveup, shape
from asyncguard._runtime import clock as clocks
from asyncguard.strategies import _retry_scope as scope
from asyncguard.strategies._retry_run import Run
from asyncguard.strategies._retry_targets import place_of
from asyncguard.strategies._retry_warnings import warn_of_blocking

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from asyncguard._pipeline import Site
    from asyncguard.strategies.retry import Retry

    Call = Callable[..., Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]

TIMED = 64
"""A bit of `Strategy.special` that only retry has: calls are timed, because one has failed."""
_NOTHING: Any = object()


# --- async ------------------------------------------------------------------------------------------------------------


async def through_async(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    """Call with everything looked at: a pause of the target, the partition, the result."""
    if strategy.special == TIMED and not scope.running:
        return await _timed_async(strategy, fn, site, args, kwargs)
    if strategy.mode_at(site) == "off":
        return await fn(*args, **kwargs)
    return await loop_async(Run.start(strategy, site, args, kwargs), fn, args, kwargs)


async def _timed_async(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    strategy.tally.calls += 1.0
    mark, started = giveup.given, clocks.REAL.now()
    try:
        return await fn(*args, **kwargs)
    except Exception as error:
        run = Run(place_of(strategy, site, args, kwargs), started, mark)
        if run.failed(error):
            raise
    return await loop_async(run, fn, args, kwargs)


async def loop_async(run: Run, fn: Call, args: Args, kwargs: Kwargs) -> Any:
    """Attempt until it succeeds or the run gives up."""
    while True:
        while (seconds := run.pause()) > 0.0:
            await run.clock.sleep(seconds)
        run.begin()
        try:
            result = await fn(*args, **kwargs)
        except Exception as error:
            if run.failed(error):
                raise
            continue
        finally:
            run.end()
        if not run.unwanted(result):
            return result
        await _dispose_async(result)
        del result


async def _dispose_async(result: object) -> None:
    """Give back the connection of a response that nobody will read."""
    close = shape.look(result, "release") or shape.look(result, "aclose")
    if callable(close) and (shape.status(result) is not None):
        closing = _quietly(close)
        if inspect.isawaitable(closing):
            try:
                await closing
            except Exception:  # noqa: BLE001 - it is thrown away anyway
                return


# --- sync -------------------------------------------------------------------------------------------------------------


def through_sync(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    """Call with everything looked at: a pause of the target, the partition, the result."""
    if strategy.special == TIMED and not scope.running:
        return _timed_sync(strategy, fn, site, args, kwargs)
    if strategy.mode_at(site) == "off":
        return fn(*args, **kwargs)
    return loop_sync(Run.start(strategy, site, args, kwargs), fn, args, kwargs)


def _timed_sync(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    strategy.tally.calls += 1.0
    mark, started = giveup.given, clocks.REAL.now()
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        run = Run(place_of(strategy, site, args, kwargs), started, mark)
        if run.failed(error):
            raise
    return loop_sync(run, fn, args, kwargs)


def loop_sync(run: Run, fn: Call, args: Args, kwargs: Kwargs) -> Any:
    """Attempt until it succeeds or the run gives up."""
    while True:
        sleep_sync(run)
        run.begin()
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            if run.failed(error):
                raise
            continue
        finally:
            run.end()
        if not run.unwanted(result):
            return result
        if shape.status(result) is not None:
            _quietly(shape.look(result, "close"))
        del result


def sleep_sync(run: Run) -> None:
    """Sleep as long as the run says."""
    while (seconds := run.pause()) > 0.0:
        warn_of_blocking(run)
        run.clock.sleep_sync(seconds)


def _quietly(close: Any) -> Any:
    try:
        return close() if callable(close) else None
    except Exception:  # noqa: BLE001 - it is thrown away anyway
        return None


# --- generators -------------------------------------------------------------------------------------------------------


def retrying_async_generator(strategy: Retry, fn: Call, site: Site) -> Call:
    """Return an async generator function that is retried until its first item; then errors pass."""

    async def retrying(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        items, item = await _first_async(strategy, fn, site, args, kwargs)
        try:
            while item is not _NOTHING:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on to the user's generator
                    item = await items.athrow(error)
                else:
                    item = await (items.__anext__() if sent is None else items.asend(sent))
        except StopAsyncIteration:
            return
        finally:
            await items.aclose()

    return retrying


async def _first_async(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> tuple[Any, Any]:
    """Return the generator that gave an item, and the item; no item if it ended without one."""
    if strategy.mode_at(site) == "off":
        items = fn(*args, **kwargs)
        return items, await _next_async(items)
    run = Run.start(strategy, site, args, kwargs)
    while True:
        while (seconds := run.pause()) > 0.0:
            await run.clock.sleep(seconds)
        items = fn(*args, **kwargs)
        run.begin()
        try:
            return items, await _next_async(items)
        except Exception as error:
            if run.failed(error):
                raise
        finally:
            run.end()


async def _next_async(items: AsyncGenerator[Any, Any]) -> Any:
    try:
        return await items.__anext__()
    except StopAsyncIteration:
        return _NOTHING


def retrying_generator(strategy: Retry, fn: Call, site: Site) -> Call:
    """Return a generator function that is retried until its first item; then errors pass."""

    def retrying(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        items, item, ended = _first_sync(strategy, fn, site, args, kwargs)
        if ended:
            return item
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on to the user's generator
                    item = items.throw(error)
                else:
                    item = next(items) if sent is None else items.send(sent)
        except StopIteration as stop:
            return stop.value
        finally:
            items.close()

    return retrying


def _first_sync(strategy: Retry, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> tuple[Any, Any, bool]:
    """Return the generator, its first item (or, at its end, its result), and whether it has ended."""
    if strategy.mode_at(site) == "off":
        return _next_sync(fn(*args, **kwargs))
    run = Run.start(strategy, site, args, kwargs)
    while True:
        sleep_sync(run)
        run.begin()
        try:
            return _next_sync(fn(*args, **kwargs))
        except Exception as error:
            if run.failed(error):
                raise
        finally:
            run.end()


def _next_sync(items: Generator[Any, Any, Any]) -> tuple[Any, Any, bool]:
    try:
        return items, next(items), False
    except StopIteration as stop:
        return items, stop.value, True
