"""What a retry says once, because a test would not show it."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from asyncguard._machines import classify
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from asyncguard._machines.classify import Classifier
    from asyncguard._pipeline import Site
    from asyncguard.strategies._retry_run import Run

__all__ = ["warn_of_blocking", "warn_of_status"]

_logger = logging.getLogger("asyncguard")
_blocking: weakref.WeakSet[Site] = weakref.WeakSet()


def warn_of_classifier(classifier: Classifier) -> None:
    """Say once that a classifier failed and was passed over."""
    _logger.exception(  # noqa: LOG004 - called while its error is being handled
        "asyncguard: classifier %r failed; this is logged once", classifier
    )


classify.complain = warn_of_classifier


def warn_of_status(site: Site, status: int) -> None:
    """Say once that a failing response was taken for a success."""
    _logger.warning(
        "%s returned a response with status %d and did not raise, so nothing was retried: give retry "
        "on_result=failing_status, or raise for it (raise_for_status)",
        site.name,
        status,
    )


def warn_of_blocking(run: Run) -> None:
    """Say once per place if a sleep blocks an event loop for real."""
    if run.clock is not clocks.REAL or run.site in _blocking or not clocks.thread_runs_loop():
        return
    _blocking.add(run.site)
    _logger.warning(
        "%s is a sync function and its retry sleeps on the thread of a running event loop, which stands still "
        "meanwhile: make it async, or call it in a worker thread",
        run.site.name,
    )
