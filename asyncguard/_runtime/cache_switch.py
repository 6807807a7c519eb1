"""Leaving caches aside for a block: the two switches that a context has.

`used` stays true from the first use on: until then a hit does not even look at the context.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from asyncguard._runtime.contexts import bring_back

if TYPE_CHECKING:
    from collections.abc import Generator

Switch = Literal["bypass", "refresh"]

used = False
_switch: ContextVar[Switch | None] = ContextVar("asyncguard_cache_switch", default=None)


def current() -> Switch | None:
    """Return the switch of this context."""
    return _switch.get() if used else None


@contextlib.contextmanager
def switched(switch: Switch) -> Generator[None]:
    """Set the switch for the block, and for what is started from it."""
    global used  # noqa: PLW0603 - a module attribute is what a hit can read for nothing
    used = True
    token = _switch.set(switch)
    try:
        yield
    finally:
        bring_back(_switch, token)
