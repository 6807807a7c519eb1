"""A block that is cut off when a deadline is over, in whatever runs it: an asyncio task, a trio task, or sync code."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from asyncguard._runtime import clock as clocks
from asyncguard._runtime.deadlines import Deadline, LoneDeadline, TaskDeadline, running_task, trio_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncguard.errors import CallTimeoutError


@contextlib.contextmanager
def bounded(
    seconds: float,
    over: Callable[[Deadline], CallTimeoutError],
    swallowed: Callable[[TaskDeadline], None] = TaskDeadline.take_back,
) -> Generator[Deadline]:
    """Bound a block in whatever runs it: an asyncio task, a trio task, or plain sync code (checked at the end)."""
    task = running_task()
    now = clocks.current().now()
    if task is not None:
        with _bounded_task(LoneDeadline(seconds, now, task), over, swallowed) as bound:
            yield bound
        return
    deadline = Deadline(seconds, now)
    deadline.set()
    scope: Any = trio_scope(deadline) if clocks.in_trio() else contextlib.nullcontext()
    try:
        with scope:
            yield deadline
    finally:
        deadline.close()
    if getattr(scope, "cancelled_caught", False) or (not clocks.in_trio() and clocks.current().now() >= deadline.when):
        raise over(deadline)


@contextlib.contextmanager
def _bounded_task(
    deadline: TaskDeadline, over: Callable[[Deadline], CallTimeoutError], swallowed: Callable[[TaskDeadline], None]
) -> Generator[TaskDeadline]:
    try:
        yield deadline
    except BaseException as error:
        deadline.close()
        if deadline.expired and deadline.uncancelled(error):
            raise over(deadline) from error
        raise
    deadline.close()
    if deadline.expired:
        swallowed(deadline)
