"""`timeout(thread=True)`: the work of a caller who left goes on, and disturbs nobody."""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

import asyncguard as ag

LONG = 60.0  # seconds: what a test waits for at most, if it is broken


@pytest.fixture
def zombies():
    """Works that block until the test is over, and what became of them."""
    go_on, ended = threading.Event(), []

    class Works:
        started = 0

        def __call__(self):
            self.started += 1
            try:
                assert go_on.wait(LONG)
            except BaseException as error:
                ended.append(error)
                raise
            ended.append("to its end")

        def wait_for(self, started):
            """A caller may be gone before its thread has come to call."""
            late = time.monotonic() + LONG
            while self.started < started and time.monotonic() < late:
                time.sleep(0.001)
            assert self.started == started

        def end(self):
            go_on.set()
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and thread.name.startswith("asyncguard "):
                    thread.join(LONG)
            return ended

    works = Works()
    yield works
    works.end()


def test_works_that_hang_do_not_delay_the_next_call(zombies):
    """A pool of four is full after four of them: the next call waits for a thread, and times out as well."""
    hang = ag.timeout(0.001, thread=True)(zombies)
    for _ in range(12):
        with pytest.raises(ag.CallTimeoutError):
            hang()
    zombies.wait_for(12)
    assert ag.timeout(LONG, thread=True)(lambda: "at once")() == "at once"


def test_works_that_hang_end_by_themselves_and_no_exception_is_thrown_into_them(zombies):
    """Thrown into a thread of a pool it may meet the next job, which is innocent."""
    hang = ag.timeout(0.001, thread=True)(zombies)
    for _ in range(3):
        with pytest.raises(ag.CallTimeoutError):
            hang()
    assert zombies.end() == ["to its end"] * 3


def test_no_thread_serves_two_calls():
    """What one leaves in its thread (a local, an exception on its way) is not there for the next."""
    local, seen = threading.local(), []

    @ag.timeout(LONG, thread=True)
    def call(value):
        seen.append(getattr(local, "value", None))
        local.value = value

    call(1)
    call(2)
    assert seen == [None, None]


def test_context_variables_of_the_caller_are_there_and_those_of_the_work_stay_there():
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @ag.timeout(LONG, thread=True)
    def call():
        seen = tenant.get()
        tenant.set("the work's")
        return seen

    token = tenant.set("acme")
    try:
        assert call() == "acme"
        assert tenant.get() == "acme"
    finally:
        tenant.reset(token)


def test_a_work_that_hangs_is_tried_again_by_no_retry_when_the_deadline_is_over(zombies):
    calls = ag.guard(ag.timeout(0.001, thread=True), ag.retry(initial_delay=0, max_delay=0))(zombies)
    with pytest.raises(ag.CallTimeoutError):
        calls()
    zombies.end()
    assert zombies.started == 1
