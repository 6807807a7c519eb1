"""Cancelling the running task, as its caller would."""

from __future__ import annotations

import asyncio

from asyncguard._runtime.clock import in_trio


async def cancel_here(message: str) -> None:
    """Cancel the task that runs, and let the cancellation come in.

    Raises TypeError where there is no asyncio task: trio cancels scopes, and only who opened one may do that.
    """
    task = None if in_trio() else asyncio.current_task()
    if task is None:
        raise TypeError("only an asyncio task can be cancelled from inside; in trio, cancel a scope around the call")
    task.cancel(message)
    await asyncio.sleep(0)
