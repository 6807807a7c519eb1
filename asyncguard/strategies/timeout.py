"""`timeout`: a bound on the time of a call.

On asyncio the rules are those of `asyncio.timeout` (cpython Lib/asyncio/timeouts.py): a CallTimeoutError only if our
own timer fired, an outside cancellation in the same turn wins, `uncancel` exactly once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from asyncguard import events
from asyncguard._machines import checks
from asyncguard._machines.durations import in_words
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import generators
from asyncguard._runtime.bounded import bounded
from asyncguard._runtime.deadlines import Deadline, LoopTimers, TaskDeadline, current_task, running_task, trio_scope
from asyncguard._runtime.streams import Stream
from asyncguard._strategy import Options, Transparent
from asyncguard.errors import CallTimeoutError, DeadlineExceededError
from asyncguard.strategies._timeout_items import Iteration
from asyncguard.strategies._timeout_thread import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Call = Callable[..., Any]

Scope = Literal["total", "attempt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutOptions(Options):
    """The options of `timeout`, durations in seconds."""

    seconds: float
    scope: Scope = "total"
    first_item: float | None = None
    idle: float | None = None
    thread: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("seconds", checks.duration("seconds", self.seconds, above=0.0))
        checks.one_of("scope", self.scope, ("total", "attempt"))
        for option in ("first_item", "idle"):
            value = getattr(self, option)
            if value is not None:
                self.set(option, checks.duration(option, value, above=0.0))
        checks.boolean("thread", self.thread)


class Timeout(Transparent[TimeoutOptions, LoopTimers]):
    """A bound on the time of a call."""

    kind: ClassVar[str] = "timeout"
    shared: ClassVar[frozenset[str]] = frozenset({"scope", "thread"})
    fixed: ClassVar[dict[str, str]] = {
        "scope": "it says where guard() puts the timeout, which is decided when a function is decorated",
        "thread": "whether a function runs in a thread is decided when it is decorated, as is what holds its permits",
    }
    fitted: ClassVar[frozenset[str]] = frozenset({"first_item", "idle"})

    @property
    def role(self) -> str:
        """The scope says which of its two places in the canonical order it has."""
        return "timeout" if self.options.scope == "total" else "attempt_timeout"

    @property
    def holds(self) -> bool:
        """Whether a thread may go on after its caller has left."""
        return self.options.thread

    def new_core(self, clock: Clock) -> LoopTimers:
        """Build the timers: one per event loop serves all calls."""
        return LoopTimers(clock, self.options.seconds)

    def reconfigured(self) -> None:
        """Start new timers; calls in flight keep theirs."""
        self.core = self.new_core(clocks.REAL)

    # --- drivers ---

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Bound a coroutine function."""
        strategy = self
        if self.options.thread:
            message = f"thread=True runs a sync function in a thread; {site.name} is async and needs none"
            raise TypeError(message)

        async def timed(*args: Any, **kwargs: Any) -> Any:
            if strategy.special:
                return await _unusual(strategy, fn, site, args, kwargs)
            expiries = strategy.core.last()
            task = None
            if expiries is not None and expiries.loop._thread_id == get_ident():  # noqa: SLF001 - nothing else tells it
                task = current_task(expiries.loop)
            if task is None:
                task = running_task()
                if task is None:
                    return await _on_trio(strategy, fn, site, args, kwargs)
                expiries = strategy.core.of(task.get_loop())
            deadline = expiries.begin(task)  # pyright: ignore[reportOptionalMemberAccess] # where there is a task
            if deadline.inherited:
                strategy.refuse_late(site, deadline)
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                deadline.close()
                if deadline.expired and deadline.uncancelled(error):
                    raise strategy.over(site, deadline) from error
                raise
            deadline.close()
            if deadline.expired:
                strategy.swallowed(site, deadline)
            return result

        return _streaming(strategy, timed, site) if site.stream else timed

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Bound a plain function: the deadline is inherited by what it calls, and checked on return."""
        strategy = self
        run = in_thread if self.options.thread else _checked

        def timed(*args: Any, **kwargs: Any) -> Any:
            if strategy.special and strategy.mode_at(site) != "enforce":
                return _unbound_sync(strategy, fn, site, args, kwargs)
            return run(strategy, fn, site, args, kwargs)

        return timed

    def wrap_async_generator(self, fn: Call, site: Site) -> Call:
        """Bound an iteration: in all, its first item, and the time between items."""
        strategy = self

        async def opened(args: Any, kwargs: Any) -> Iteration:
            del args, kwargs
            return Iteration(strategy, site)

        return generators.bracket_async(opened, fn)

    def wrap_generator(self, fn: Call, site: Site) -> Call:
        """Bound an iteration: checked after each item."""
        strategy = self

        def opened(args: Any, kwargs: Any) -> Iteration:
            del args, kwargs
            return Iteration(strategy, site)

        return generators.bracket_sync(opened, fn)

    def fits(self, options: TimeoutOptions, site: Site) -> None:
        """Refuse bounds on items where there are none."""
        if site.stream or site.kind not in {"async", "sync"}:
            return
        for option in ("first_item", "idle"):
            if getattr(options, option) is not None:
                message = (
                    f"{option}= bounds the items of a generator or stream, and {site.name} returns one result; "
                    "for a coroutine that returns a stream use guard(..., stream=True)"
                )
                raise TypeError(message)

    # --- the moments of a call ---

    def refuse_late(self, site: Site, deadline: Deadline) -> None:
        """Raise DeadlineExceededError if the deadline around the call leaves no time at all."""
        if deadline.when <= clocks.current().now():
            deadline.close()
            raise self.too_late(site)

    def too_late(self, site: Site) -> DeadlineExceededError:
        """Report and return the error of a call that was not started."""
        self.emit(site, events.CallRejected(**self.facts(site), reason="deadline", retry_after=None))
        return DeadlineExceededError(f"{site.name} was not called: the deadline is over", strategy=self.name)

    def over(self, site: Site, deadline: Deadline, what: str = "did not finish") -> CallTimeoutError:
        """Report and return the error of a call that ran out of time."""
        self.emit(site, events.CallTimedOut(**self.facts(site), seconds=deadline.seconds))
        bound = "before the deadline around it" if deadline.inherited else f"within {in_words(deadline.seconds, 6)}"
        error = CallTimeoutError(f"{site.name} {what} {bound}", strategy=self.name)
        error.seconds = deadline.seconds
        return error

    def swallowed(self, site: Site, deadline: TaskDeadline) -> None:
        """Take the cancellation back and report a function that was cancelled and returned all the same."""
        deadline.take_back()
        self.emit(site, events.CancellationSwallowed(**self.facts(site), seconds=deadline.seconds))

    def started(self, site: Site) -> Deadline:
        """Start a deadline that no asyncio timer watches (trio, sync)."""
        now = clocks.current().now()
        deadline = Deadline(self.live().seconds, now)
        if deadline.when <= now:
            raise self.too_late(site)
        return deadline


# --- one result -------------------------------------------------------------------------------------------------------


def _streaming(strategy: Timeout, timed: Call, site: Site) -> Call:
    """Bound the items of a stream, too, by what is left of the time."""

    async def streaming(*args: Any, **kwargs: Any) -> Any:
        started = clocks.current().now()
        result = await timed(*args, **kwargs)
        if isinstance(result, Stream):
            result.surround(Iteration(strategy, site, started))
        return result

    return streaming


async def _on_trio(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    deadline = strategy.started(site)
    scope = trio_scope(deadline)
    result = None
    deadline.set()
    try:
        with scope:
            result = await fn(*args, **kwargs)
    finally:
        deadline.close()
    if scope.cancelled_caught:
        raise strategy.over(site, deadline)
    if scope.cancel_called:
        strategy.emit(site, events.CancellationSwallowed(**strategy.facts(site), seconds=deadline.seconds))
    return result


def _checked(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    deadline = strategy.started(site)
    deadline.set()
    try:
        result = fn(*args, **kwargs)
    finally:
        deadline.close()
    if clocks.current().now() >= deadline.when:
        raise strategy.over(site, deadline, "returned, but not")
    return result


async def _unusual(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    """Run a call under another mode, other options or a virtual clock."""
    if strategy.mode_at(site) != "enforce":
        return await _unbound_async(strategy, fn, site, args, kwargs)
    if running_task() is None:
        return await _on_trio(strategy, fn, site, args, kwargs)
    strategy.started(site)
    over, swallowed = functools.partial(strategy.over, site), functools.partial(strategy.swallowed, site)
    with bounded(strategy.live().seconds, over, swallowed):
        return await fn(*args, **kwargs)


async def _unbound_async(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    start = clocks.current().now()
    try:
        return await fn(*args, **kwargs)
    finally:
        _observed(strategy, site, start)


def _unbound_sync(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    start = clocks.current().now()
    try:
        return fn(*args, **kwargs)
    finally:
        _observed(strategy, site, start)


def _observed(strategy: Timeout, site: Site, start: float) -> None:
    seconds = strategy.live().seconds
    if strategy.mode_at(site) == "observe" and clocks.current().now() - start >= seconds:
        strategy.emit(site, events.CallTimedOut(**strategy.facts(site), seconds=seconds))


# --- the public names -------------------------------------------------------------------------------------------------


def timeout(
    seconds: float | timedelta,
    *,
    scope: Scope = "total",
    first_item: float | timedelta | None = None,
    idle: float | timedelta | None = None,
    thread: bool = False,
    name: str | None = None,
    mode: Literal["enforce", "observe", "off"] = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Timeout:
    """Bound the time of a call.

    :param seconds: how long the call may take, in seconds or as a `timedelta`; the deadline around it still binds.
    :param scope: which of its two places `guard` gives it: "total" is outside of the retries, "attempt" inside.
    :param first_item: generators and streams: how long until the first item.
    :param idle: generators and streams: how long between two items.
    :param thread: run a sync function in a thread, so that its caller can leave when the time is over. The work goes
        on to its end and keeps its permits until then.

    Raises CallTimeoutError if the call was started and ran out of time, DeadlineExceededError if it was not started
    because the deadline was over already. A sync function is checked on return (or use `thread=True`).
    """
    checks.bare("timeout", seconds, "@timeout(30)")
    return Timeout(
        TimeoutOptions(
            seconds=seconds,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # normalised by the options
            scope=scope,
            first_item=first_item,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            idle=idle,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
            thread=thread,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
