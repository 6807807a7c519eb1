"""Work that goes on after the call has returned: an open stream, a thread whose caller left.

The slot and the deadline of a call end with its last hold. A scope of holds lives in the context while the call runs;
whoever keeps something open (`acquire`) closes it when it is done.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from asyncguard._runtime import forks
from asyncguard._runtime.contexts import bring_back

if TYPE_CHECKING:
    from collections.abc import Callable

_current: ContextVar[Holds | None] = ContextVar("asyncguard_holds", default=None)
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")


class Holds:
    """The holds of one call, and what to do when the last one is closed."""

    __slots__ = ("_finish", "_open", "_outer", "_token")

    def __init__(self) -> None:
        self._open = 0
        self._finish: Callable[[], None] | None = None
        self._outer = _current.get()
        self._token: Token[Holds | None] | None = None

    def enter(self) -> None:
        """Make this the scope to which holds are added in this context."""
        self._token = _current.set(self)

    def leave(self, finish: Callable[[], None]) -> None:
        """End the call: run `finish` now, or when the last hold is closed."""
        if self._token is not None:
            bring_back(_current, self._token)
        with _lock:
            if self._open:
                self._finish = finish
                return
        finish()

    def add(self, step: int) -> None:
        """Count a hold opened (+1) or closed (-1) here and in the calls around this one."""
        finish = None
        with _lock:
            self._open += step
            if not self._open:
                finish, self._finish = self._finish, None
        if finish is not None:
            finish()
        if self._outer is not None:
            self._outer.add(step)


class Hold:
    """Something that is still open. Closing it twice does nothing."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Holds) -> None:
        self._scope: Holds | None = scope
        scope.add(1)

    def close(self) -> None:
        """Say that it is over."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.add(-1)


def acquire() -> Hold | None:
    """Keep the permits of the calls around us until the hold is closed; None if nobody offers to."""
    scope = _current.get()
    return None if scope is None else Hold(scope)


def forget() -> None:
    """Hold nothing of the calls around us any more, for as long as the context lasts."""
    if _current.get() is not None:
        _current.set(None)
