"""What a careful engineer writes inline for one function: minimal, but each does its job.

No events, names, options or second event loop, but a window, a limit, a slot given back in `finally`. This is what the
strategies are measured against; the async and the sync form of each say the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

logger = logging.getLogger("benchmarks.hand_written")
MAX_RETRIES, WINDOW, SLOTS, SECONDS = 3, 100, 10, 30.0


def passthrough_async(fn: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


def passthrough_sync(fn: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def retry_async(fn: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        failures = 0
        while True:
            try:
                return await fn(*args, **kwargs)
            except ConnectionError:
                failures += 1
                if failures > MAX_RETRIES:
                    raise
            await asyncio.sleep(0.1 * 2**failures)

    return wrapper


def retry_sync(fn: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        failures = 0
        while True:
            try:
                return fn(*args, **kwargs)
            except ConnectionError:
                failures += 1
                if failures > MAX_RETRIES:
                    raise
            time.sleep(0.1 * 2**failures)

    return wrapper


class Outcomes:
    """The last calls, 1 for a failure: `failures` is their sum, negative while the circuit is open."""

    def __init__(self) -> None:
        self.window = deque([0] * WINDOW, maxlen=WINDOW)
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1 - self.window[0]
        self.window.append(1)
        if self.failures > WINDOW // 2:
            self.failures = -1


def breaker_async(fn: Any) -> Any:
    outcomes = Outcomes()
    window = outcomes.window

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if outcomes.failures < 0:
            raise ConnectionRefusedError
        try:
            result = await fn(*args, **kwargs)
        except Exception:
            outcomes.failed()
            raise
        if outcomes.failures:
            outcomes.failures -= window[0]
        window.append(0)
        return result

    return wrapper


def breaker_sync(fn: Any) -> Any:
    outcomes = Outcomes()
    window = outcomes.window

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if outcomes.failures < 0:
            raise ConnectionRefusedError
        try:
            result = fn(*args, **kwargs)
        except Exception:
            outcomes.failed()
            raise
        if outcomes.failures:
            outcomes.failures -= window[0]
        window.append(0)
        return result

    return wrapper


def bulkhead_async(fn: Any) -> Any:
    free = SLOTS

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal free
        if not free:
            raise BlockingIOError
        free -= 1
        try:
            return await fn(*args, **kwargs)
        finally:
            free += 1

    return wrapper


def bulkhead_sync(fn: Any) -> Any:
    # A plain counter would lose updates between threads; a deque of permits is atomic without a lock.
    free = deque([None] * SLOTS)
    take, give = free.pop, free.append

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        take()
        try:
            return fn(*args, **kwargs)
        finally:
            give(None)

    return wrapper


def rate_limit_async(fn: Any) -> Any:
    earliest, interval, burst = 0, 100, 10**9
    clock = time.monotonic_ns

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal earliest
        now = clock()
        at = earliest if earliest > now else now
        if at - now > burst:
            raise BlockingIOError
        earliest = at + interval
        return await fn(*args, **kwargs)

    return wrapper


def rate_limit_sync(fn: Any) -> Any:
    earliest, interval, burst = 0, 100, 10**9
    clock = time.monotonic_ns

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal earliest
        now = clock()
        at = earliest if earliest > now else now
        if at - now > burst:
            raise BlockingIOError
        earliest = at + interval
        return fn(*args, **kwargs)

    return wrapper


def timeout_async(fn: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await fn(*args, **kwargs)

    return wrapper


def timeout_sync(fn: Any) -> Any:
    """A sync function cannot be interrupted: being late is found on return."""
    clock = time.monotonic

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        end = clock() + SECONDS
        result = fn(*args, **kwargs)
        if clock() > end:
            raise TimeoutError
        return result

    return wrapper


def fallback_async(fn: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it is what a fallback is
            return None

    return wrapper


def fallback_sync(fn: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it is what a fallback is
            return None

    return wrapper


def cache_async(fn: Any) -> Any:
    entries: dict[Any, tuple[float, Any]] = {}
    clock = time.monotonic

    async def wrapper(*args: Any) -> Any:
        entry = entries.get(args)
        now = clock()
        if entry is not None and entry[0] > now:
            return entry[1]
        result = await fn(*args)
        entries[args] = (now + 600.0, result)
        return result

    return wrapper


def cache_sync(fn: Any) -> Any:
    entries: dict[Any, tuple[float, Any]] = {}
    clock = time.monotonic

    def wrapper(*args: Any) -> Any:
        entry = entries.get(args)
        now = clock()
        if entry is not None and entry[0] > now:
            return entry[1]
        result = fn(*args)
        entries[args] = (now + 600.0, result)
        return result

    return wrapper


def monitor_async(fn: Any) -> Any:
    clock = time.perf_counter

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        try:
            result = await fn(*args, **kwargs)
        except Exception:
            logger.exception("failed after %.3f s", clock() - start)
            raise
        logger.info("took %.3f s", clock() - start)
        return result

    return wrapper


def monitor_sync(fn: Any) -> Any:
    clock = time.perf_counter

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        try:
            result = fn(*args, **kwargs)
        except Exception:
            logger.exception("failed after %.3f s", clock() - start)
            raise
        logger.info("took %.3f s", clock() - start)
        return result

    return wrapper


def validate_async(fn: Any) -> Any:
    async def wrapper(x: Any) -> Any:
        if type(x) is not int:
            raise TypeError
        return await fn(x)

    return wrapper


def validate_sync(fn: Any) -> Any:
    def wrapper(x: Any) -> Any:
        if type(x) is not int:
            raise TypeError
        return fn(x)

    return wrapper


def stack_async(fn: Any) -> Any:
    """Retry around breaker, bulkhead and timeout, in one function."""
    outcomes = Outcomes()
    window, free = outcomes.window, SLOTS

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal free
        failures = 0
        while True:
            if outcomes.failures < 0 or not free:
                raise BlockingIOError
            free -= 1
            try:
                async with asyncio.timeout(SECONDS):
                    result = await fn(*args, **kwargs)
            except ConnectionError:
                outcomes.failed()
                failures += 1
                if failures > MAX_RETRIES:
                    raise
            else:
                if outcomes.failures:
                    outcomes.failures -= window[0]
                window.append(0)
                return result
            finally:
                free += 1
            await asyncio.sleep(0.1 * 2**failures)

    return wrapper


def stack_sync(fn: Any) -> Any:
    """Retry around breaker, bulkhead and timeout, in one function."""
    outcomes = Outcomes()
    window, clock = outcomes.window, time.monotonic
    free = deque([None] * SLOTS)
    take, give = free.pop, free.append

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        failures = 0
        while True:
            if outcomes.failures < 0:
                raise BlockingIOError
            take()
            try:
                end = clock() + SECONDS
                result = fn(*args, **kwargs)
                if clock() > end:
                    raise TimeoutError
            except ConnectionError:
                outcomes.failed()
                failures += 1
                if failures > MAX_RETRIES:
                    raise
            else:
                if outcomes.failures:
                    outcomes.failures -= window[0]
                window.append(0)
                return result
            finally:
                give(None)
            time.sleep(0.1 * 2**failures)

    return wrapper
