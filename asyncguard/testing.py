"""What tests of guarded code need: virtual time, instant sleeps, seeded jitter.

`run(main)` runs an async function on a loop whose time jumps to the next timer when nothing else is left to do, so
that a test of a thirty-second back-off takes a millisecond. `virtual_clock()` does the same for sync code, and makes
asyncguard's own sleeps instant inside a test that already has a loop. Under a virtual clock every strategy has a state
of its own, so that a breaker never sees two clocks and parallel tests do not disturb each other.

`record_events()` collects what happened, and can be asked about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from asyncguard import events
from asyncguard._machines import checks
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import dispatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")

__all__ = ["Recorded", "VirtualClock", "forced_open", "record_events", "run", "virtual_clock"]


class VirtualClock:
    """A clock that moves only when somebody sleeps on it or advances it. Jitter comes from `seed`."""

    def __init__(self, *, start: float = 1_000.0, seed: int = 0) -> None:
        self.cores: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._now = start
        self._lock = threading.Lock()
        self._random = random.Random(seed)

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def random(self) -> float:
        """Return the next number of the seeded sequence."""
        return self._random.random()

    def advance(self, seconds: float) -> None:
        """Move the time."""
        with self._lock:
            self._now += seconds

    async def sleep(self, seconds: float) -> None:
        """Sleep: under `run` the loop moves the clock, in a foreign loop the sleep itself does."""
        if self._moved_by_the_loop():
            await clocks.library_sleep(seconds)
            return
        await clocks.library_sleep(0)
        self.advance(seconds)

    def sleep_sync(self, seconds: float) -> None:
        """Sleep without waiting."""
        self.advance(seconds)

    def _moved_by_the_loop(self) -> bool:
        return getattr(asyncio._get_running_loop(), "virtual", None) is self  # noqa: SLF001 - none may be running


class TrioVirtualClock(VirtualClock):
    """The same on trio: time is that of trio's own mock clock."""

    def __init__(self, mock: Any, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._mock = mock

    def now(self) -> float:
        """Return trio's virtual time in seconds."""
        return float(self._mock.current_time())

    def advance(self, seconds: float) -> None:
        """Move the time."""
        self._mock.jump(seconds)

    def _moved_by_the_loop(self) -> bool:
        return clocks.in_trio()


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, move the clock to it; wait for real only when there is no timer."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # only threads and sockets can go on
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self._clock.advance(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self.virtual = clock

    @property
    def _clock_resolution(self) -> float:
        """How far ahead a timer is due: never land a hair before it, a clock that moves in floats may miss it for ever.

        After some months on the clock, its floats are further apart than a nanosecond.
        """
        return max(1e-9, math.ulp(self.virtual.now()))

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """Ignore what asyncio knows of the real clock."""

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.virtual.now()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's own
        """Wait for worker threads as long as it takes: the clock would jump to the end of a `timeout`."""
        del timeout
        await super().shutdown_default_executor()


def run(
    main: Callable[[], Awaitable[T]],
    *,
    backend: Literal["asyncio", "trio"] = "asyncio",
    seed: int = 0,
    clock: VirtualClock | None = None,
) -> T:
    """Run `await main()` on virtual time and return its result. Every sleep in it is instant, the user's own too.

    `clock` is one from `virtual_clock()`, to go on with the time and the state of the block around; trio has its own.

    Raises RuntimeError inside of a running loop, where nothing can wait for `main`.
    """
    checks.one_of("backend", backend, ("asyncio", "trio"))
    if backend == "asyncio" and asyncio._get_running_loop() is not None:  # noqa: SLF001 - none may be running
        raise RuntimeError(
            "testing.run runs a loop of its own, and a loop runs here already: call it from a plain function, "
            "or await the function inside of `with testing.virtual_clock():`"
        )
    if backend == "trio":
        if clock is not None:
            raise TypeError('clock= is for asyncio; on trio, run(main, backend="trio") makes a clock of its own')
        return _run_trio(main, seed)
    own = VirtualClock(seed=seed) if clock is None else clock
    with _in_force(own), asyncio.Runner(loop_factory=lambda: VirtualLoop(own)) as runner:
        return runner.run(_coroutine(main))


def _run_trio(main: Callable[[], Awaitable[T]], seed: int) -> T:
    import trio
    import trio.testing

    mock = trio.testing.MockClock(autojump_threshold=0)
    with _in_force(TrioVirtualClock(mock, seed=seed)):
        return trio.run(_coroutine, main, clock=mock)


async def _coroutine(main: Callable[[], Awaitable[T]]) -> T:
    return await main()


@contextlib.contextmanager
def virtual_clock(*, seed: int = 0) -> Generator[VirtualClock]:
    """Put a virtual clock in force for the block: asyncguard's sleeps and waits move it and take no time.

    For sync code, and for async tests that already have a loop; there the loop's own timers stay real.
    """
    clock = VirtualClock(seed=seed)
    with _in_force(clock):
        yield clock


@contextlib.contextmanager
def _in_force(clock: VirtualClock) -> Generator[None]:
    token = clocks.activate(clock)
    try:
        yield
    finally:
        clocks.deactivate(token)


class Recorded(list[Any]):
    """Events in the order in which they came."""

    def of(self, kind: type[T], **facts: object) -> list[T]:
        """Return the events of one class, with these facts."""
        return [event for event in self if isinstance(event, kind) and _has(event, facts)]

    def assert_happened(self, kind: type[Any], *, times: int | None = None, **facts: object) -> None:
        """Assert that events of a class, with these facts, happened: exactly `times`, or at least once."""
        found = len(self.of(kind, **facts))
        if found == times or (times is None and found):
            return
        wanted = "at least 1" if times is None else str(times)
        given = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise AssertionError(f"expected {wanted} {kind.__name__}({given}), got {found}; {self._in_words()}")

    def assert_attempts(self, attempts: int, **facts: object) -> None:
        """Assert how often the call was tried, 1 without a retry; of several calls, the one that was most often."""
        found = max((event.attempt for event in self.of(events.AttemptStarted, **facts)), default=1)
        if found != attempts:
            raise AssertionError(f"expected {attempts} attempts, got {found}; {self._in_words()}")

    def assert_opened(self, times: int | None = None, **facts: object) -> None:
        """Assert that a circuit opened: exactly `times`, or at least once."""
        self.assert_happened(events.CircuitOpened, times=times, **facts)

    def _in_words(self) -> str:
        return "what happened:" + "".join(f"\n  {event}" for event in self) if self else "nothing happened"


def _has(event: object, facts: dict[str, object]) -> bool:
    missing = object()
    return all(getattr(event, name, missing) == value for name, value in facts.items())


@contextlib.contextmanager
def record_events() -> Generator[Recorded]:
    """Collect every event that is emitted in the process during the block."""
    recorded = Recorded()
    end = dispatch.subscribe(recorded.append)
    try:
        yield recorded
    finally:
        end()


class _Breaker(Protocol):
    def force_open(self) -> None: ...
    def reset(self) -> None: ...


@contextlib.contextmanager
def forced_open(*breakers: _Breaker) -> Generator[None]:
    """Keep circuit breakers open for the block; after it they are closed and have forgotten what they counted."""
    try:
        for breaker in breakers:
            breaker.force_open()
        yield
    finally:
        for breaker in breakers:
            breaker.reset()
