"""Events go to handlers: a failing handler is logged once and never changes a call."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from asyncguard._machines import checks
from asyncguard._runtime import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard.events import Event

    Handler = Callable[[Event], object]

logger = logging.getLogger("asyncguard")
handlers: tuple[Handler, ...] = ()
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")
_complained: set[tuple[int, type]] = set()


def subscribe(handler: Handler) -> Callable[[], None]:
    """Call `handler` with every event of every strategy; the returned function ends it.

    Handlers run in the call, in order, and must be quick: anything slow belongs into a queue.
    """
    global handlers  # noqa: PLW0603 - swapped whole under the lock, read without it
    if not callable(handler):
        message = f"subscribe needs a callable that takes an event, got {handler!r}"
        raise TypeError(message)
    checks.plain("the handler", handler)
    with _lock:
        handlers = (*handlers, handler)

    def unsubscribe() -> None:
        global handlers  # noqa: PLW0603
        identity = _identity(handler)
        with _lock:  # by identity, here and above: a handler's own `==` or `__getattr__` must not run inside
            at = next((at for at, each in enumerate(handlers) if each is handler), None)
            if at is not None:
                handlers = (*handlers[:at], *handlers[at + 1 :])
            _complained.difference_update([each for each in _complained if each[0] == identity])

    return unsubscribe


def deliver(event: Event, handler: Handler) -> None:
    """Call one handler; its failure is logged once per handler and kind of error."""
    try:
        handler(event)
    except Exception as error:  # noqa: BLE001 - the user's
        complain(handler, error, "asyncguard: an event handler failed on %s", type(event).__name__)


def _identity(thing: object) -> int:
    """Return what stays the same for a bound method, which is another object each time."""
    return id(getattr(thing, "__func__", thing))


def complain(about: object, error: Exception, text: str, *facts: object) -> None:
    """Log a failure that changes no call, once for each thing that fails and kind of error."""
    key = (_identity(about), type(error))
    with _lock:
        known = key in _complained
        _complained.add(key)
    if not known:
        logger.error(f"{text}; this is logged once", *facts, exc_info=error)  # noqa: G004 - the text is ours
