"""Attempts of one sync call that run beside one another, each in a thread of its own.

A thread cannot be cancelled: a loser is left behind and works on. It keeps the permits around the call until it ends,
its result is closed and nobody waits for it.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncguard._machines import shape
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import forks, holds
from asyncguard._runtime.race import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from asyncguard._runtime.holds import Hold
    from asyncguard._runtime.race import Referee

Call: TypeAlias = "Callable[[], Any]"
Outcome: TypeAlias = "tuple[int, Any, BaseException | None]"

_CLOSERS = ("release", "close")
_LOOK = 0.01  # seconds between two looks at a virtual clock, which moves without waking anybody

_abandoned = 0
_abandoned_lock = threading.Lock()
forks.renew_lock(globals(), "_abandoned_lock")


def discard(result: object) -> None:
    """Close a result that nobody gets: its `release` or `close`. What that raises is of no interest."""
    if isinstance(result, type):
        return
    for name in _CLOSERS:
        close = shape.look(result, name)
        if callable(close) and not inspect.iscoroutinefunction(close):
            with contextlib.suppress(Exception):
                close()
            return


def run(referee: Referee, call: Call, name: str) -> int:
    """Let attempts at `call()` run in threads of this name until the referee says that it is over.

    Returns how many threads of all calls were left behind and still work, 0 if this call left none.
    """
    race = _ThreadRace(referee, call, name)
    try:
        race.watch()
    except BaseException:
        discard(referee.drop())
        race.leave()
        raise
    return race.leave()


def _count_abandoned(step: int) -> int:
    global _abandoned  # noqa: PLW0603 - a count for the process
    with _abandoned_lock:
        _abandoned += step
        return _abandoned


class _ThreadRace:
    """What came out of the attempts, told to the referee in the caller's thread."""

    __slots__ = ("_call", "_left", "_lock", "_name", "_news", "_outcomes", "_referee", "_running", "_won")

    def __init__(self, referee: Referee, call: Call, name: str) -> None:
        self._referee = referee
        self._call = call
        self._name = name
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._outcomes: list[Outcome] = []
        self._left = False
        self._running = 0
        self._won = 0  # the identity of the result: attempts may share one, which must stay open

    def watch(self) -> None:
        """Wait until it is decided."""
        referee = self._referee
        self._start()
        while not referee.over:
            if self._settle():
                continue
            pause = referee.pause()
            if pause > 0.0:
                self._wait(pause)
            elif referee.granted():
                self._start()

    def leave(self) -> int:
        """Go, whatever still runs; see `run`."""
        with self._lock:
            self._left = True
            outcomes, self._outcomes = self._outcomes, []
            left = _count_abandoned(self._running) if self._running else 0
        for _, result, _ in outcomes:
            self._discard(result)
        return left

    # --- in the thread of an attempt ---

    def _attempt(self, number: int, hold: Hold | None) -> None:
        attempt = Attempt()
        result, failure = None, None
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - for the caller, who decides
            failure = error
        finally:
            attempt.open = False
            if hold is not None:
                hold.close()
        if not self._deliver(number, result, failure):
            self._discard(result)
        del failure  # else its traceback holds this frame, and the frame the error

    def _deliver(self, number: int, result: Any, error: BaseException | None) -> bool:
        with self._lock:
            self._running -= 1
            if not self._left:
                self._outcomes.append((number, result, error))
                self._news.set()
                return True
        _count_abandoned(-1)
        return False

    def _discard(self, result: object) -> None:
        if id(result) != self._won:
            discard(result)

    # --- in the caller's thread ---

    def _start(self) -> None:
        number = self._referee.begin()
        hold = holds.acquire()
        context = copy_context()
        thread = threading.Thread(target=context.run, args=(self._attempt, number, hold), daemon=True, name=self._name)
        with self._lock:
            self._running += 1
        try:
            thread.start()
        except RuntimeError as error:
            self._without_thread(number, hold, context, error)

    def _without_thread(self, number: int, hold: Hold | None, context: Context, error: RuntimeError) -> None:
        """There is no thread to be had: the original runs here, as without us, a copy does not."""
        if number == 1:
            context.run(self._attempt, number, hold)
            return
        with self._lock:
            self._running -= 1
        if hold is not None:
            hold.close()
        self._referee.failed(number, error)

    def _settle(self) -> bool:
        """Tell the referee what came out since; true if anything did."""
        with self._lock:
            self._news.clear()
            outcomes, self._outcomes = self._outcomes, []
        for number, result, error in outcomes:
            if error is not None:
                self._referee.failed(number, error)
            elif self._referee.succeeded(number, result):
                self._won = id(result)
            else:
                self._discard(result)
        return bool(outcomes)

    def _wait(self, seconds: float) -> None:
        if clocks.current() is not clocks.REAL:
            seconds = min(seconds, _LOOK) if seconds < math.inf else seconds
        self._news.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
