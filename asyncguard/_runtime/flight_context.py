"""The context in which the work of a flight runs: that of its starter, without the starter's deadline and permits."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

from asyncguard._runtime import deadlines, holds

if TYPE_CHECKING:
    from asyncguard._machines.flight import Work

_inside: ContextVar[Work | None] = ContextVar("asyncguard_flight", default=None)

inside = _inside.get
"""Return the work of the flight in which this code runs."""


def own(work: Work) -> Context:
    """Return a context for the work: a copy of the current one."""
    context = copy_context()
    context.run(enter, work)
    return context


def enter(work: Work) -> None:
    """Make the current context, a copy that nobody else has, the one of the work, for as long as it lasts."""
    _inside.set(work)
    deadlines.forget()
    holds.forget()
