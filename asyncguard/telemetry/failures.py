"""An exception as fields of a record: its type, its message without secrets, and now and then its stack."""

from __future__ import annotations

import traceback

from asyncguard._machines import shape
from asyncguard._machines.text import Redactor, escape

__all__ = ["error_type", "failure"]

_MESSAGE = 1024
_STACK = 16 * 1024
_FRAMES = 24
_MOST_CAUSES = 4


def error_type(error: BaseException) -> str:
    """Return the name of an error's class as OpenTelemetry's `error.type` wants it: qualified, builtins bare."""
    kind = type(error)
    return escape(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def failure(error: BaseException, redactor: Redactor, *, stack: bool) -> dict[str, str]:
    """Return `exception.type`, `exception.message` and, with `stack`, `exception.stacktrace`.

    Messages quote data more often than not (`KeyError`, validators, HTTP clients): they are scrubbed, cut to 1 KiB and
    escaped. The lines of a stack are ours, so they stay lines; the messages of its causes are left out.
    """
    fields = {"exception.type": error_type(error), "exception.message": _message(error, redactor)}
    if stack:
        fields["exception.stacktrace"] = _stack(error, redactor)
    return fields


def _message(error: BaseException, redactor: Redactor) -> str:
    return redactor.scrub(shape.message(error), _MESSAGE)


def _stack(error: BaseException, redactor: Redactor) -> str:
    lines: list[str] = []
    for each in reversed(_causes(error)):
        frames = traceback.extract_tb(each.__traceback__)[-_FRAMES:]
        lines += [f'File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames]
        lines.append(error_type(each))
    lines[-1] += f": {_message(error, redactor)}"
    return "\n".join(lines)[-_STACK:]


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while len(chain) <= _MOST_CAUSES:
        last = chain[-1]
        cause = last.__context__ if last.__cause__ is None and not last.__suppress_context__ else last.__cause__
        if cause is None or any(cause is each for each in chain):  # an exception may be false, or refuse to be compared
            break
        chain.append(cause)
    return chain
