"""`timeout(thread=True)`: a sync call in a thread of its own, so that its caller can leave in time."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import forks, holds

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._pipeline import Site
    from asyncguard._runtime.deadlines import Deadline
    from asyncguard.strategies.timeout import Timeout

    Call = Callable[..., Any]

_abandoned = 0
_abandoned_lock = threading.Lock()
forks.renew_lock(globals(), "_abandoned_lock")


class _Work:
    """A sync call in a thread of its own. When its caller leaves, it keeps the permits until it really ends.

    The deadline stays open in its context: it starts no further attempt and waits in no queue. No exception is
    injected into the thread.
    """

    __slots__ = ("_call", "_deadline", "_hold", "_left", "_lock", "done", "error", "result")

    def __init__(self, call: Callable[[], Any], deadline: Deadline) -> None:
        self._call = call
        self._deadline = deadline
        self._hold = holds.acquire()
        self._left = False
        self._lock = threading.Lock()
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def start(self, name: str) -> None:
        """Start the thread; where there is none to be had, nothing is held."""
        try:
            threading.Thread(target=self._run, daemon=True, name=name).start()
        except BaseException:
            self._end()
            raise

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            self.error = error
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self.done.set()
            left = self._left
        if left:
            _count_abandoned(-1)
        self._deadline.open = False
        if self._hold is not None:
            self._hold.close()

    def leave(self) -> int:
        """Go without the result; return how many works were left in all, 0 if this one has ended after all."""
        with self._lock:
            self._left = not self.done.is_set()
            return _count_abandoned(1) if self._left else 0

    def answer(self) -> Any:
        """Return the result or raise the error, which must not keep its own frames alive through us."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.result
        finally:
            del error


def _count_abandoned(step: int) -> int:
    global _abandoned  # noqa: PLW0603 - a count for the process
    with _abandoned_lock:
        _abandoned += step
        return _abandoned


def in_thread(strategy: Timeout, fn: Call, site: Site, args: Any, kwargs: Any) -> Any:
    """Call `fn` in a thread and wait for it as long as the deadline allows."""
    deadline = strategy.started(site)
    deadline.set()
    context = contextvars.copy_context()
    deadline.unset()
    work = _Work(lambda: context.run(fn, *args, **kwargs), deadline)
    work.start(f"asyncguard {site.name}")
    try:
        _wait_for(work, deadline)
    except BaseException:
        work.leave()
        raise
    left = 0 if work.done.is_set() else work.leave()
    if left:
        strategy.emit(site, events.WorkAbandoned(**strategy.facts(site), running=left))
        raise strategy.over(site, deadline)
    return work.answer()


def _wait_for(work: _Work, deadline: Deadline) -> None:
    clock = clocks.current()
    if clock is clocks.REAL:
        work.done.wait(max(0.0, min(deadline.when - clock.now(), threading.TIMEOUT_MAX)))
    else:  # virtual time does not pass for a thread
        work.done.wait()
