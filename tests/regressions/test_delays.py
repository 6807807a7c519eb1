"""How long a retry waits: what others overflow, cut short, misread or never stop."""

from __future__ import annotations

import pickle
from email.utils import formatdate
from itertools import pairwise

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing

NOW = 1_767_000_000  # by the clock of the server: in its `Date`
DAY = 86_400


class Throttled(Exception):  # noqa: N818 - stands for the errors of clients
    status = 429

    def __init__(self, asked):
        super().__init__(asked)
        self.headers = {"Retry-After": asked, "Date": formatdate(NOW, usegmt=True)}


def pauses_of(asked, backend, **options):
    """Return how long the second attempt was waited for, [] if there was none."""
    times = []

    @ag.retry(**{"max_retries": 1, "jitter": "none", "max_delay": 10, **options})
    async def call():
        times.append(anyio.current_time())
        if len(times) == 1:
            raise Throttled(asked)

    async def main():
        try:
            await call()
        except Throttled:
            assert len(times) == 1

    testing.run(main, backend=backend)
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize(
    "asked",
    ["300", "61", formatdate(NOW + 2 * DAY + 30, usegmt=True), "9" * 400],
    ids=["300", "61", "two days and thirty seconds", "absurd"],
)
def test_asked_for_longer_than_it_waits_it_gives_up_and_does_not_come_back_early(asked, backend):
    """Elsewhere 300 s become 1 s, and two days and thirty seconds become 29 s."""
    assert pauses_of(asked, backend) == []


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("60", 60), ("11", 11), (formatdate(NOW + 30, usegmt=True), 30)],
    ids=["60", "11", "date"],
)
def test_asked_for_longer_than_the_longest_delay_it_waits_as_long_as_asked(asked, seconds, backend):
    """`max_delay` is 10 here, and is for our own delays: cut to it, 60 s become 10 s."""
    (pause,) = pauses_of(asked, backend)
    assert seconds <= pause <= seconds * 1.1


@pytest.mark.parametrize("asked", ["nan", "inf", "-inf", "1e3", "-1", "1.5", "+5", "", "soon", "0x10", "\uff11"])
def test_what_is_no_retry_after_leaves_the_delay_to_us(asked, backend):
    assert pauses_of(asked, backend) == pytest.approx([1.0]), "who is throttled starts at one second"


@pytest.mark.parametrize("asked", ["0", formatdate(NOW - DAY, usegmt=True), formatdate(0, usegmt=True)])
def test_a_date_that_is_over_is_now(asked, backend):
    (pause,) = pauses_of(asked, backend, max_delay=0.5, initial_delay=0.5)
    assert 0 <= pause <= 0.55


@pytest.mark.parametrize("colour", ["asyncio", "trio", "sync"])
@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated", "none", 0.5])
def test_1200_attempts_neither_overflow_nor_leave_their_cap(colour, jitter):
    """2 ** 1100 is no float: OverflowError, in the middle of the outage."""
    calls, delays = [], []
    strategy = ag.retry(
        max_retries=1200,
        jitter=jitter,
        budget=None,
        on_event=lambda event: delays.append(getattr(event, "delay", 0.0)),
    )

    def call():
        calls.append(1)
        raise ConnectionError

    async def call_async():
        call()

    with pytest.raises(ConnectionError):
        if colour == "sync":
            with testing.virtual_clock():
                strategy(call)()
        else:
            testing.run(strategy(call_async), backend=colour)
    assert len(calls) == 1201
    assert min(delays) >= 0.0
    assert max(delays) <= 30.0


@pytest.mark.parametrize(
    "options",
    [{"initial_delay": 0}, {"initial_delay": 0, "max_delay": 0}, {"backoff_factor": 1}, {"initial_delay": 20}],
    ids=repr,
)
@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated", "none", 0.5])
def test_options_at_their_ends_make_delays(options, jitter):
    times = []

    @ag.retry(max_retries=20, jitter=jitter, budget=None, **options)
    async def call():
        times.append(anyio.current_time())
        raise ConnectionError

    with pytest.raises(ConnectionError):
        testing.run(call)
    assert len(times) == 21
    assert all(0 <= later - earlier <= 30 for earlier, later in pairwise(times))


@pytest.mark.parametrize("max_retries", [0, 1, 2, 5])
def test_so_many_retries_are_one_call_more(max_retries, backend):
    calls = []

    @ag.retry(max_retries=max_retries, budget=None)
    async def call():
        calls.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        testing.run(call, backend=backend)
    assert len(calls) == max_retries + 1


def test_the_first_delay_is_not_skipped(backend):
    times = []

    @ag.retry(max_retries=2, initial_delay=3, backoff_factor=2, jitter="none")
    async def call():
        times.append(anyio.current_time())
        raise ConnectionError

    with pytest.raises(ConnectionError):
        testing.run(call, backend=backend)
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([3, 6])


# --- which errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaves", "calls"),
    [
        ([ConnectionError(), TimeoutError()], 3),
        ([ConnectionError(), ValueError()], 1),
        ([ExceptionGroup("inner", [ConnectionError()])], 3),
        ([ExceptionGroup("inner", [ConnectionError(), KeyError()])], 1),
    ],
    ids=["transient", "one is not", "nested", "nested and one is not"],
)
def test_a_group_of_errors_is_retried_if_each_of_them_would_be(leaves, calls, backend):
    made = []

    @ag.retry(max_retries=2)
    async def call():
        made.append(1)
        raise ExceptionGroup("several", leaves)

    with pytest.raises(ExceptionGroup):
        testing.run(call, backend=backend)
    assert len(made) == calls


def test_a_group_with_an_interrupt_in_it_is_never_retried():
    made = []

    @ag.retry(on=lambda _error: True)
    def call():
        made.append(1)
        raise BaseExceptionGroup("several", [ConnectionError(), KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup):
        call()
    assert made == [1]


class ApiError(Exception):
    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code = code


def test_what_leaves_is_the_users_error_and_pickles_with_its_facts():
    """No RetryError to unpack, which forgets its cause on the way through a queue."""
    error = ApiError(503, "busy")

    @ag.retry(on=ApiError, max_retries=1)
    def call():
        raise error

    with testing.virtual_clock(), pytest.raises(ApiError) as raised:
        call()
    assert raised.value is error
    again = pickle.loads(pickle.dumps(error))
    assert (again.args, again.code, len(again.__notes__)) == ((503, "busy"), 503, 1)


def test_without_options_the_errors_that_may_pass_are_retried_and_no_others():
    """Documented as all errors, and none was."""
    made = []

    @ag.retry(max_retries=1)
    def call(error):
        made.append(1)
        raise error

    for error, calls in [(ConnectionError, 2), (TimeoutError, 2), (ValueError, 1), (RuntimeError, 1)]:
        made.clear()
        with testing.virtual_clock(), pytest.raises(error):
            call(error)
        assert len(made) == calls
