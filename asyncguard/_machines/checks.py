"""Checks of options, all at decoration: the message names the option, the value and what is allowed."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, cast

Errors = tuple[type[Exception], ...] | Callable[[Exception], Any]
"""An `on=` option once it is checked."""
On = type[Exception] | Errors
"""What `on=` takes: a class, a tuple of them, or a predicate."""


def fail(option: str, value: object, allowed: str) -> ValueError:
    """Return the error for an option that is out of range."""
    return ValueError(f"{option} must be {allowed}, got {value!r}")


def wrong_type(option: str, value: object, allowed: str) -> TypeError:
    """Return the error for an option of the wrong type."""
    return TypeError(f"{option} must be {allowed}, got {value!r} ({type(value).__name__})")


def number(
    option: str, value: object, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> float:
    """Return `value` as a finite float within `least`..`most` and greater than `above`."""
    found = _finite(value, least, most, above)
    if found is None:
        raise fail(option, value, _range("a number", least, most, above))
    return found


def integer(option: str, value: object, *, least: int = 0, most: int | None = None) -> int:
    """Return `value` as an int within `least`..`most`."""
    allowed = _range("an integer", least, math.inf if most is None else most, -math.inf)
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise fail(option, value, allowed)
    return value


def duration(option: str, value: object, *, above: float = -math.inf, least: float = 0.0) -> float:
    """Return a duration in seconds, from seconds or a `timedelta`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    found = _finite(value, least, math.inf, above)
    if found is None:
        raise fail(option, value, _range("a duration in seconds or a timedelta", least, math.inf, above))
    return found


def fraction(option: str, value: object, *, above: float = -math.inf) -> float:
    """Return a fraction, 0..1."""
    return number(option, value, least=0.0, most=1.0, above=above)


def one_of(option: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of the `allowed` words."""
    words = tuple(allowed)
    if not isinstance(value, str) or value not in words:
        raise fail(option, value, "one of " + ", ".join(repr(word) for word in words))
    return value


def boolean(option: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise fail(option, value, "True or False")
    return value


def function(option: str, value: object) -> Callable[..., Any]:
    """Return `value` if it can be called."""
    if not callable(value):
        raise wrong_type(option, value, "a callable")
    return plain(option, value)


def is_async(value: object) -> bool:
    """Tell whether a value is a coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004


def plain(option: str, value: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that is not async: nobody would await it, and a coroutine is true whatever it would return."""
    if is_async(value):
        raise wrong_type(option, value, "a plain function, it is not awaited")
    return value


def errors(option: str, value: object) -> Errors:
    """Return what an `on=` option means: a tuple of exception classes, or a predicate.

    Only `Exception` is ever handled, so `BaseException`, `KeyboardInterrupt` or `CancelledError` is a `TypeError`.
    """
    given: Any = value
    if isinstance(given, type | tuple):
        classes = tuple(cast("Iterable[Any]", given)) if isinstance(given, tuple) else (given,)
        if not classes:
            raise fail(option, classes, "at least one exception class")
        for each in classes:
            _exception_class(option, each)
        return classes
    if callable(given):
        return plain(option, cast("Callable[[Exception], Any]", given))
    raise wrong_type(option, given, "an exception class, a tuple of them, or a predicate on the exception")


def classes(on: Errors) -> tuple[type[Exception], ...]:
    """Return the classes that a checked `on=` option names, none if it is a predicate."""
    return tuple(cast("Iterable[type[Exception]]", on)) if isinstance(on, tuple) else ()


def covers(on: Errors, error: Exception) -> bool:
    """Tell whether a checked `on=` option names an error."""
    return isinstance(error, on) if isinstance(on, tuple) else bool(on(error))


def bare(kind: str, value: object, example: str) -> None:
    """Raise TypeError for a function where the first option of a decorator belongs: its parentheses are missing."""
    given: Any = value
    if inspect.isroutine(given) or isinstance(given, staticmethod | classmethod):
        name: str = getattr(cast("Any", given), "__name__", "it")
        raise TypeError(f"{kind} got the function {name!r} in place of its options: write {example}, with parentheses")


def decorated(kind: str, value: object) -> None:
    """Raise TypeError for an option given by position to a decorator that takes nothing but the function."""
    if not callable(value) and not isinstance(value, staticmethod | classmethod | property):
        raise TypeError(f"{kind} takes its options by keyword, such as {kind}(name=...), got {value!r}")


def _exception_class(option: str, value: Any) -> None:
    if not (isinstance(value, type) and issubclass(cast("type[object]", value), BaseException)):
        raise wrong_type(option, value, "an exception class, a tuple of them, or a predicate on the exception")
    if not issubclass(value, Exception):
        raise TypeError(
            f"{option} must not hold {value.__name__}: only subclasses of Exception are handled, so that "
            "cancellation and interrupts always pass"
        )


def _finite(value: object, least: float, most: float, above: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None  # an int may be longer than any float
    return float(value) if least <= value <= most and value > above else None


def _range(what: str, least: float, most: float, above: float) -> str:
    parts: list[str] = []
    if above > -math.inf:
        parts.append(f"greater than {above:g}")
    elif least > -math.inf:
        parts.append(f"at least {least:g}")
    if most < math.inf:
        parts.append(f"at most {most:g}")
    return what + (" " + " and ".join(parts) if parts else "")
