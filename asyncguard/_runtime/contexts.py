"""Bringing back a context variable, also from a context in which it was never set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextvars import ContextVar, Token

__all__ = ["bring_back"]


def bring_back(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Reset a variable to what it was before `token`.

    A coroutine that nobody finished is closed by the garbage collector in some other context, and fixtures of tests
    may end in another one than they began in. There is nothing to bring back there, and whatever else has to be given
    back must not be lost over it.
    """
    try:
        variable.reset(token)
    except ValueError:
        return
