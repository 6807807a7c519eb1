"""Deadlines: one absolute moment per scope, inherited by everything that is started inside while the scope is open.

A deadline that fires cancels its task and becomes a `CallTimeoutError`, by the rules of `asyncio.timeout`: only if our
timer fired, an outside cancellation in the same turn wins, `uncancel` exactly once. On the happy path it costs far
less: deadlines of one constant duration expire in the order in which they begin, so a dict and one timer per loop
serve all of them.
"""

from __future__ import annotations

import asyncio
import math
import sys
import weakref
from collections import deque
from contextvars import Context, ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from asyncguard._runtime import clock as clocks
from asyncguard._runtime.blocks import block
from asyncguard._runtime.contexts import bring_back

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Token

current_task = asyncio.current_task
"""With a loop, a dictionary's look; without one, Python 3.11 asks the kernel for the process's id each time."""

_current: ContextVar[Deadline | None] = ContextVar("asyncguard_deadline", default=None)


class Deadline:
    """An absolute moment on the monotonic clock: the earlier of its own and of the deadline around it.

    `seconds` is its own duration, `inherited` says that the deadline around it is earlier. It binds only while it is
    `open`: a task that outlives the scope is not bound by a deadline that is over.
    """

    __slots__ = ("_token", "inherited", "open", "outer", "seconds", "when")

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.when = now + seconds
        self.inherited = False
        self.open = True
        self.outer = outer = _current.get()
        if outer is not None:
            self._inherit()
        self._token: Token[Deadline | None] | None = None

    def _inherit(self) -> None:
        self.outer = outer = current()
        if outer is not None and outer.when < self.when:
            self.when = outer.when
            self.inherited = True

    def set(self) -> None:
        """Make it the current one in this context."""
        self._token = _current.set(self)

    def unset(self) -> None:
        """Bring back the one around it; it stays open."""
        token, self._token = self._token, None
        if token is not None:
            bring_back(_current, token)

    def close(self) -> None:
        """End it: nothing is bound by it any more."""
        self.open = False
        self.outer = _first_open(self.outer)
        self.unset()


def current() -> Deadline | None:
    """Return the innermost deadline that is still open, None if there is none."""
    return _first_open(_current.get())


def _first_open(deadline: Deadline | None) -> Deadline | None:
    while deadline is not None and not deadline.open:
        deadline = deadline.outer
    return deadline


def remaining() -> float | None:
    """Return the seconds left until the deadline that binds this call; None without one, 0.0 when it is over."""
    deadline = current()
    return None if deadline is None else max(0.0, deadline.when - clocks.current().now())


def forget() -> None:
    """Be bound by no deadline around us any more, for as long as the context lasts (`detached` ends with its block)."""
    if _current.get() is not None:
        _current.set(None)


@block
def detached() -> Generator[None]:
    """Run the block without the deadline around it: for clean-up, and for work that outlives the request.

    A timer that already runs for the task still fires; what is started inside does not inherit it.
    """
    token = _current.set(None)
    try:
        yield
    finally:
        bring_back(_current, token)


class TaskDeadline(Deadline):
    """A deadline that cancels its asyncio task when it is over; `Expiries.begin` sets and arms it.

    Building it and `close` are the hot path of every timeout: flat on purpose.
    """

    __slots__ = ("cancelling", "expired", "tasks")
    cancelling: int
    tasks: dict[TaskDeadline, asyncio.Task[Any]]
    expired: bool

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task it cancels, None when it is over: who started a task inside must not keep our task's result."""
        return self.tasks.get(self)

    def expire(self) -> None:
        """The moment has come: cancel the task."""
        task = self.tasks.pop(self, None)
        if task is not None:  # None: the collector has just ended its call, in another thread
            self.expired = True
            self.tasks = {self: task}  # its own, until it is unwound
            task.cancel()

    def close(self) -> None:
        """End it: no timer, nothing inherited any more."""
        self.open = False
        if not self.expired:
            del self.tasks[self]
        outer = self.outer
        if outer is not None and not outer.open:  # else each of a chain of tasks keeps all those before it
            outer = self.outer = _first_open(outer)
        if _current.get() is self:  # not where the garbage collector closes it, in some other context
            _current.set(outer)

    def take_back(self) -> None:
        """The function swallowed our cancellation and returned: the task is not being cancelled any more."""
        self.tasks.pop(self).uncancel()

    def uncancelled(self, error: BaseException | None) -> bool:
        """After the end of an expired one: take our cancellation back; tell whether `error` was only ours.

        Call it exactly once. False if somebody else cancelled the task as well: then the cancellation wins.
        """
        alone = self.tasks.pop(self).uncancel() <= self.cancelling
        return alone and type(error) is asyncio.CancelledError


class LoneDeadline(TaskDeadline):
    """One with a timer of its own: of a duration that is used once, or of an earlier deadline around it.

    It needs no timer where an earlier deadline of the same task will cancel it anyway; an earlier one that was
    inherited from another task cancels that task, not this one.
    """

    __slots__ = ("_timer",)

    def __init__(self, seconds: float, now: float, task: asyncio.Task[Any]) -> None:
        super().__init__(seconds, now)
        self.expired = False
        self.cancelling = task.cancelling()
        self.tasks = {self: task}
        self._timer = None if self.inherited and self._outer_cancels(task) else self._armed(task.get_loop())
        _current.set(self)

    def _armed(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
        left = max(0.0, self.when - clocks.current().now())
        return loop.call_later(left, self.expire, context=Context())

    def _outer_cancels(self, task: asyncio.Task[Any]) -> bool:
        outer = self.outer
        while outer is not None:
            if outer.open and outer.when <= self.when and isinstance(outer, TaskDeadline) and outer.task is task:
                return True
            outer = outer.outer
        return False

    def close(self) -> None:
        """End it, and its timer."""
        super().close()
        if self._timer is not None:
            self._timer.cancel()


_blank = TaskDeadline.__new__


class Expiries:
    """The open deadlines of one constant duration, `seconds`, on one loop, in the order in which they expire.

    A deadline that is over is taken out of `tasks`; the timer stays and is armed anew only when it fires. Nobody but
    the timer, and so the loop, keeps it alive: it keeps tasks, and they keep the loop.
    """

    __slots__ = ("__weakref__", "_clock", "_first", "armed", "loop", "seconds", "tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: clocks.Clock, seconds: float) -> None:
        self.loop: Any = loop
        self._clock = clock
        self.seconds = seconds
        self.tasks: dict[TaskDeadline, asyncio.Task[Any]] = {}
        self._first: deque[TaskDeadline] = deque()  # the first of the tasks: each is copied once, not at every expiry
        self.armed = False

    def begin(self, task: asyncio.Task[Any]) -> TaskDeadline:
        """Start a deadline for a task of this loop: the one place that is called for each happy call.

        The attributes are set here: a Python `__init__` would cost a quarter more.
        """
        now = monotonic()
        outer = _current.get()
        if outer is not None:
            outer = current()
            if outer is not None and outer.when < now + self.seconds:
                return LoneDeadline(self.seconds, now, task)
        deadline = _blank(TaskDeadline)
        deadline.seconds = seconds = self.seconds
        deadline.when = now + seconds
        deadline.inherited = deadline.expired = False
        deadline.open = True
        deadline.outer = outer
        deadline.cancelling = task.cancelling()
        deadline.tasks = tasks = self.tasks
        tasks[deadline] = task
        if not self.armed:
            self.arm(seconds)
        _current.set(deadline)
        return deadline

    def arm(self, seconds: float) -> None:
        """Start the timer."""
        self.armed = True
        # An empty context: the timer must not keep the values of whoever came first alive.
        self.loop.call_later(max(0.0, seconds), self._fire, context=Context())

    def _fire(self) -> None:
        self.armed = False
        now, first = self._clock.now(), self._first
        while self.tasks:
            if not first:
                first.extend(self.tasks)
            deadline = first[0]
            if deadline.open and deadline.when > now:
                self.arm(deadline.when - now)
                return
            first.popleft()
            deadline.expire()
        first.clear()


def _none() -> None:
    """Stand for a weak reference to what is gone."""


class LoopTimers:
    """The expiries of one duration, for each event loop; a loop that is gone takes its own along.

    Another duration needs other timers: in one list of two durations the shorter would be late. `last` is a weak
    reference to the expiries asked for last: the hot path looks there first. Whether their loop runs here, and not
    just now in another thread, it tells by its `_thread_id`; uvloop does not tell, so it is never there.
    """

    __slots__ = ("__weakref__", "_by_loop", "_clock", "_recent", "last", "seconds")

    def __init__(self, clock: clocks.Clock, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds
        self.after_fork()

    def after_fork(self) -> None:
        """Forget all loops: those of the parent do not run here."""
        # By the identity of the loop, which lives as long as its expiries.
        self._by_loop: weakref.WeakValueDictionary[int, Expiries] = weakref.WeakValueDictionary()
        self._recent: Callable[[], Expiries | None] = _none
        self.last: Callable[[], Any] = _none  # Any: the hot path looks at None only once

    def of(self, loop: asyncio.AbstractEventLoop) -> Expiries:
        """Return the expiries of the loop that runs in this thread."""
        expiries = self._recent()
        if expiries is not None and expiries.loop is loop:
            return expiries
        expiries = self._by_loop.get(id(loop))
        if expiries is None:
            expiries = self._by_loop[id(loop)] = Expiries(loop, self._clock, self.seconds)
        self._recent = weakref.ref(expiries)
        self.last = self._recent if hasattr(loop, "_thread_id") else _none
        return expiries


def trio_scope(deadline: Deadline) -> Any:
    """Return a trio cancel scope for a deadline."""
    if not clocks.in_trio():
        message = "a time limit in async code needs a running asyncio or trio task, and there is none here"
        raise RuntimeError(message)
    trio: Any = sys.modules["trio"]
    left = deadline.when - clocks.current().now()
    return trio.CancelScope(deadline=trio.current_time() + left if left < math.inf else math.inf)


def running_task() -> asyncio.Task[Any] | None:
    """Return the running asyncio task; None on trio and in plain threads."""
    try:
        return current_task()
    except RuntimeError:
        return None
