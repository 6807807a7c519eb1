"""What all tests share."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from asyncguard._runtime import dispatch

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell starts what runs in the background with SIGINT ignored; tests of Ctrl-C need what a terminal gives.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Few examples while working, many in .ci/run. No deadlines: a slow machine is not a wrong answer.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=25, **PATIENT)
settings.register_profile("ci", max_examples=150, print_blob=True, **PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both async libraries, for `asyncguard.testing.run(main, backend=backend)`."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a subscriber or a working thread to the tests after it."""
    before = set(threading.enumerate())
    yield
    handlers, dispatch.handlers = dispatch.handlers, ()
    assert not handlers, "the test left its subscribers behind"
    for thread in set(threading.enumerate()) - before:
        thread.join(60.0)
        assert not thread.is_alive() or thread.daemon, f"the test left {thread.name} running"
