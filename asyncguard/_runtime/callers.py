"""Who has called us: the frames of the running task, or of the thread where no task runs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def frames(owner: object) -> Iterator[FrameType]:
    """Yield the frames of our callers, innermost first, up to where the task `owner` began.

    Not further: what stands outside of a task is its event loop, or, where tasks start eagerly, the task that made it
    and does not wait for it.
    """
    outermost = _outermost(owner)
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = None if frame is outermost else frame.f_back


def stacklevel() -> int:
    """Return the `stacklevel` with which a warning of our caller points at the code that uses asyncguard."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "asyncguard":
        frame, level = frame.f_back, level + 1
    return max(1, level)


def _outermost(owner: Any) -> FrameType | None:
    """Return the outermost frame of a task: asyncio's gives its coroutine, trio's has it, a thread has none."""
    get = getattr(owner, "get_coro", None)
    coroutine = getattr(owner, "coro", None) if get is None else get()
    frame: FrameType | None = getattr(coroutine, "cr_frame", None)
    return frame
