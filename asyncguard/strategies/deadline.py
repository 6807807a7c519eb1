"""`deadline`: a bound on the time of a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Never

from asyncguard._machines import checks
from asyncguard._machines.durations import in_words
from asyncguard._runtime import clock as clocks
from asyncguard._runtime.blocks import Block
from asyncguard._runtime.bounded import bounded
from asyncguard._runtime.deadlines import Deadline
from asyncguard.errors import CallTimeoutError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import timedelta


class DeadlineBlock(Block[Deadline]):
    """The block that `deadline` bounds. Not a decorator: around an `async def` it would bound nothing."""

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        super().__init__("deadline", _bounded_block(seconds))

    def __call__(self, fn: object) -> Never:
        """Refuse to decorate."""
        message = f"deadline bounds a block (with deadline(...):), got {fn!r}; to bound a function use timeout(...)"
        raise TypeError(message)


def deadline(seconds: float | timedelta) -> DeadlineBlock:
    """Bound the time of a block, the same in async and in sync code.

    `with deadline(2.0): ...`

    Everything inside inherits it: retries and waits stop in time, nested timeouts are cut to it, tasks started inside
    are bound as long as the block is open. In async code the block is cancelled when the time is over; in sync code it
    is checked at its end.

    Raises CallTimeoutError if the time ran out, DeadlineExceededError if a deadline around it is already over.
    """
    return DeadlineBlock(checks.duration("seconds", seconds, above=0.0))


@contextlib.contextmanager
def _bounded_block(allowed: float) -> Generator[Deadline]:
    now = clocks.current().now()
    if Deadline(allowed, now).when <= now:
        message = "the block was not entered: the deadline around it is over"
        raise DeadlineExceededError(message, strategy="deadline")
    with bounded(allowed, _block_over) as current:
        yield current


def _block_over(deadline: Deadline) -> CallTimeoutError:
    bound = "before the deadline around it" if deadline.inherited else f"within {in_words(deadline.seconds, 6)}"
    error = CallTimeoutError(f"the block did not finish {bound}", strategy="deadline")
    error.seconds = deadline.seconds
    return error
