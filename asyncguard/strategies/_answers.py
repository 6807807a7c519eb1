"""Answers in place of a result: a value, or a sync or async handler of the error and the arguments."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from asyncguard._machines.checks import is_async
from asyncguard._runtime.colour import awaitable_from_sync, name_of

__all__ = ["NOTHING", "answer_async", "answer_sync", "refuse_async_handlers"]


class Nothing(enum.Enum):
    """Stands for an option that was not given, where None is a value. An enum survives pickling as itself."""

    NOTHING = "nothing"


NOTHING = Nothing.NOTHING


async def answer_async(answer: Any, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the answer to `error`. A handler's own failure is raised from `error`."""
    if not callable(answer):
        return answer
    try:
        result: Any = answer(error, *args, **kwargs)
        return await result if hasattr(result, "__await__") else result
    except Exception as failure:
        if failure is error:  # the handler gave up; an error is not its own cause
            raise
        raise failure from error


def answer_sync(answer: Any, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do the same for a sync function."""
    if not callable(answer):
        return answer
    try:
        result = answer(error, *args, **kwargs)
    except Exception as failure:
        if failure is error:  # the handler gave up; an error is not its own cause
            raise
        raise failure from error
    if hasattr(result, "__await__"):
        raise awaitable_from_sync(answer, result) from error
    return result


def refuse_async_handlers(answers: Iterable[Any], guarded: str, option: str) -> None:
    """Raise TypeError if a sync function is given an async handler: it could not await it."""
    for answer in answers:
        if is_async(answer):
            raise TypeError(
                f"{option} of {guarded}: {name_of(answer)} is async, but the function is sync and cannot await it"
            )
