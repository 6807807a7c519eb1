"""Which attempt runs: a number in the context, set from the second attempt on, so that the first one costs nothing."""

from __future__ import annotations

from contextvars import ContextVar, Token

from asyncguard._runtime.contexts import bring_back

__all__ = ["current_attempt", "enter", "leave"]

_number: ContextVar[int] = ContextVar("asyncguard_attempt", default=1)

running: set[object] = set()
"""The further attempts that run anywhere in the process; while there are any, first attempts say that they are it."""

Entered = tuple[object, Token[int]]


def current_attempt() -> int:
    """Return the number of the attempt in which this code runs, from 1; 1 outside of any retry, too.

    In a generator it is known until the first item.
    """
    return _number.get()


def enter(number: int) -> Entered | None:
    """Say that attempt `number` runs in this context; None if there is nothing to say."""
    if number == _number.get():
        return None
    key = object()
    running.add(key)
    return key, _number.set(number)


def leave(entered: Entered | None) -> None:
    """End what `enter` began, in the same context."""
    if entered is not None:
        key, token = entered
        running.discard(key)
        bring_back(_number, token)
