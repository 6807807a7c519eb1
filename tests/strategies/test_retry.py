"""`retry` around functions: what is tried again, how often, when, and what leaves in the end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import pickle
import random
import threading
from datetime import timedelta

import cloudpickle
import pytest

from asyncguard import (
    TRANSIENT,
    Pipeline,
    RetryBudget,
    as_async,
    current_attempt,
    events,
    failing_status,
    guard,
    pipeline_of,
    retry,
    testing,
)
from asyncguard._runtime import clock
from asyncguard.strategies.retry import Retry


class Flaky:
    """Fails a number of times, then returns the number of the call; remembers when it was called."""

    def __init__(self, failures, error=ConnectionError):
        self.failures = failures
        self.error = error
        self.times = []
        self.attempts = []

    def __call__(self, *_args, **_kwargs):
        self.times.append(clock.current().now())
        self.attempts.append(current_attempt())
        if len(self.times) <= self.failures:
            raise self.error() if isinstance(self.error, type) else self.error
        return len(self.times)

    async def call(self, *_args, **_kwargs):
        return self()

    @property
    def pauses(self):
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def run_both(strategy, flaky, backend):
    """Call the function guarded in its colour; backend "sync" is the sync one."""
    if backend == "sync":
        with testing.virtual_clock():
            return strategy(flaky)()
    return testing.run(strategy(flaky.call), backend=backend)


@pytest.fixture(params=["asyncio", "trio", "sync"])
def colour(request):
    return request.param


# --- how often and when -----------------------------------------------------------------------------------------------


def test_without_options_five_retries_make_six_calls(colour):
    assert run_both(retry(), Flaky(5), colour) == 6
    flaky = Flaky(6)
    with pytest.raises(ConnectionError):
        run_both(retry(), flaky, colour)
    assert len(flaky.times) == 6


def test_it_decorates_without_parentheses():
    @retry
    async def fetch(x):
        """Fetch."""
        return x

    @retry
    def fetch_sync(x):
        return x

    assert inspect.iscoroutinefunction(fetch)
    assert fetch.__doc__ == "Fetch."
    assert testing.run(lambda: fetch(3)) == fetch_sync(3) == 3
    assert isinstance(pipeline_of(fetch)[Retry], Retry)


def test_no_retries_is_one_call(colour):
    flaky = Flaky(1)
    with pytest.raises(ConnectionError) as raised:
        run_both(retry(max_retries=0), flaky, colour)
    assert len(flaky.times) == 1
    assert raised.value.__notes__ == ["asyncguard.retry: 1 attempt in 0.00 s, gave up: max_retries"]


def test_the_delays_are_those_of_the_backoff(colour):
    flaky = Flaky(4)
    run_both(retry(initial_delay=1, backoff_factor=3, max_delay=timedelta(seconds=20), jitter="none"), flaky, colour)
    assert flaky.pauses == pytest.approx([1, 3, 9, 20])


def test_the_jitter_can_be_a_function_of_the_delay(colour):
    flaky = Flaky(3)
    run_both(retry(initial_delay=1, jitter=lambda delay: delay + 0.5), flaky, colour)
    assert flaky.pauses == pytest.approx([1.5, 2.5, 4.5])


def test_jitter_comes_from_the_clock_so_tests_can_seed_it():
    def pauses(seed):
        flaky = Flaky(4)
        testing.run(retry()(flaky.call), seed=seed)
        return flaky.pauses

    assert pauses(1) == pauses(1) != pauses(2)


def test_on_decides_by_class_or_by_predicate(colour):
    assert run_both(retry(on=KeyError), Flaky(2, KeyError), colour) == 3
    assert run_both(retry(on=(KeyError, ValueError)), Flaky(2, ValueError), colour) == 3
    assert run_both(retry(on=lambda error: isinstance(error, KeyError)), Flaky(2, KeyError), colour) == 3
    with pytest.raises(KeyError):
        run_both(retry(on=TRANSIENT), Flaky(1, KeyError), colour)


def test_a_number_from_on_is_the_delay(colour):
    flaky = Flaky(2)
    run_both(retry(on=lambda _error: 7.0), flaky, colour)
    assert flaky.pauses == pytest.approx([7.0, 7.0])


def test_arguments_reach_every_attempt():
    seen = []

    @retry
    async def call(*args, **kwargs):
        seen.append((args, kwargs))
        if len(seen) < 3:
            raise ConnectionError
        return kwargs

    assert testing.run(lambda: call(1, self="me", fn=2, args=3, kwargs=4)) == {
        "self": "me",
        "fn": 2,
        "args": 3,
        "kwargs": 4,
    }
    assert seen == [((1,), {"self": "me", "fn": 2, "args": 3, "kwargs": 4})] * 3


@pytest.mark.parametrize("falsy", [None, 0, "", [], False])
def test_a_falsy_result_is_a_result(falsy):
    calls = []

    @retry
    async def call():
        calls.append(1)
        return falsy

    assert testing.run(call) == falsy
    assert calls == [1]


# --- what is never handled --------------------------------------------------------------------------------------------


class Stop(BaseException):
    """As KeyboardInterrupt is, without stopping pytest."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Stop])
def test_what_is_no_exception_passes_before_any_predicate_sees_it(error):
    flaky = Flaky(9, error)

    def predicate(_error):
        raise AssertionError("it must not be asked")

    for on in (predicate, Exception):
        with testing.virtual_clock(), pytest.raises(error):
            retry(on=on)(flaky)()
    assert len(flaky.times) == 2


def test_cancelling_an_attempt_ends_the_call_and_cancels_nothing_twice():
    calls = []

    @retry(on=Exception)
    async def call():
        calls.append(1)
        await asyncio.sleep(100)

    async def main():
        task = asyncio.create_task(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelling()

    assert testing.run(main) == 1
    assert calls == [1]


def test_cancelling_the_backoff_leaves_at_once_and_starts_nothing():
    flaky = Flaky(9)

    async def main():
        task = asyncio.create_task(retry(initial_delay=10, jitter="none")(flaky.call)())
        start = clock.current().now()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return clock.current().now() - start

    assert testing.run(main) == pytest.approx(1.0)
    assert len(flaky.times) == 1
    assert current_attempt() == 1


def test_a_timeout_around_it_ends_the_backoff(backend):
    import anyio

    flaky = Flaky(9)

    async def main():
        with anyio.move_on_after(1) as scope:
            await retry(initial_delay=10, jitter="none")(flaky.call)()
        return scope.cancelled_caught

    assert testing.run(main, backend=backend)
    assert len(flaky.times) == 1


# --- state is per call ------------------------------------------------------------------------------------------------


def test_five_tasks_that_share_one_object_have_attempts_of_their_own():
    strategy = retry(max_retries=2, budget=None)

    async def one(name):
        tried = []

        @strategy
        async def call():
            tried.append(current_attempt())
            await asyncio.sleep(0.1)
            raise ConnectionError(name)

        with pytest.raises(ConnectionError, match=name):
            await call()
        return tried

    async def main():
        return await asyncio.gather(*(one(f"task {number}") for number in range(5)))

    assert testing.run(main) == [[1, 2, 3]] * 5


def test_threads_that_share_one_object_have_attempts_of_their_own():
    strategy = retry(max_retries=2, budget=None, initial_delay=0, max_delay=0)
    tried = {}

    def call():
        name = threading.current_thread().name
        tried.setdefault(name, []).append(current_attempt())
        if len(tried[name]) % 3:
            raise ConnectionError(name)
        return name

    guarded = strategy(call)
    wrong = []

    def work():
        for _ in range(20):
            if guarded() != threading.current_thread().name:
                wrong.append(1)

    threads = [threading.Thread(target=work, name=f"t{number}") for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [attempts == [1, 2, 3] * 20 for attempts in tried.values()] == [True] * 8


def test_it_is_made_without_a_loop_and_serves_several():
    flaky = Flaky(1)
    guarded = retry(flaky.call)
    assert testing.run(guarded) == 2
    assert testing.run(guarded, backend="trio") == 3


def test_forked_workers_do_not_share_their_jitter():
    """The numbers are the module's, which Python reseeds after a fork; a generator of our own would not be."""
    assert clock.REAL.random is random.random


# --- the number of the attempt ----------------------------------------------------------------------------------------


def test_the_number_of_the_attempt_is_known_inside_and_gone_afterwards(colour):
    flaky = Flaky(3)
    run_both(retry(), flaky, colour)
    assert flaky.attempts == [1, 2, 3, 4]
    assert current_attempt() == 1


def test_the_first_attempt_of_an_inner_retry_is_its_first():
    seen = []
    outer_flaky = Flaky(2)

    @retry
    async def inner():
        seen.append(current_attempt())
        return 1

    @retry
    async def outer():
        await inner()
        await inner()
        outer_flaky()

    testing.run(outer)
    assert seen == [1] * 6
    assert outer_flaky.attempts == [1, 2, 3]


def test_on_real_time_too_the_first_attempt_of_an_inner_retry_is_its_first():
    """Off the virtual clock the happy path is another one."""
    seen = []

    @retry
    def inner():
        seen.append(current_attempt())

    @retry(initial_delay=0, max_delay=0)
    def outer():
        inner()
        if len(seen) < 4:
            raise ConnectionError
        return current_attempt()

    assert outer() == 4
    assert seen == [1] * 4


# --- methods and other callables --------------------------------------------------------------------------------------


class Client:
    def __init__(self):
        self.calls = 0

    @retry
    async def fetch(self, x):
        self.calls += 1
        if self.calls < 2:
            raise ConnectionError
        return self, x

    @retry
    @classmethod
    def make(cls):
        return cls

    @staticmethod
    @retry
    def add(a, b):
        return a + b


def test_methods_class_methods_and_static_methods():
    client = Client()
    assert testing.run(lambda: client.fetch(5)) == (client, 5)
    assert Client.make() is Client
    assert client.make() is Client
    assert Client.add(1, 2) == client.add(1, 2) == 3


def test_partials_and_objects_that_can_be_called():
    flaky = Flaky(1)
    with testing.virtual_clock():
        assert retry()(functools.partial(flaky, 1, a=2))() == 2
        assert retry()(flaky)() == 3


def test_a_plain_function_that_returns_an_awaitable_is_refused_and_as_async_helps():
    flaky = Flaky(1)

    def hidden():
        return flaky.call()

    with pytest.raises(TypeError, match="as_async"):
        retry(hidden)()
    assert testing.run(retry()(as_async(hidden))) == 2


def test_calling_through_a_pipeline():
    flaky = Flaky(2)
    pipeline = guard(retry())
    assert testing.run(lambda: pipeline.call(flaky.call)) == 3
    flaky = Flaky(2)
    with testing.virtual_clock():
        assert Pipeline(retry()).call_sync(flaky) == 3


# --- events -----------------------------------------------------------------------------------------------------------


def test_what_happens_is_told_in_order(colour):
    heard = []
    flaky = Flaky(9)
    strategy = retry(max_retries=2, initial_delay=1, jitter="none", on_event=heard.append, name="embedder")
    with pytest.raises(ConnectionError):
        run_both(strategy, flaky, colour)
    assert [type(event) for event in heard] == [
        events.RetryScheduled, events.AttemptStarted, events.RetryScheduled, events.AttemptStarted, events.RetryGaveUp,
    ]  # fmt: skip
    assert [(each.attempt, each.delay, each.kind) for each in heard if isinstance(each, events.RetryScheduled)] == [
        (1, 1.0, "transient"),
        (2, 2.0, "transient"),
    ]
    assert [each.attempt for each in heard if isinstance(each, events.AttemptStarted)] == [2, 3]
    last = heard[-1]
    assert (last.attempts, last.reason, last.elapsed, last.strategy) == (
        3,
        "max_retries",
        pytest.approx(3.0),
        "embedder",
    )
    assert isinstance(last.error, ConnectionError)


def test_success_on_the_first_attempt_tells_nothing():
    with testing.record_events() as heard:
        testing.run(retry(Flaky(0).call))
    assert heard == []


def test_an_error_that_is_not_retried_tells_nothing_and_gets_no_note(colour):
    with testing.record_events() as heard, pytest.raises(KeyError) as raised:
        run_both(retry(), Flaky(1, KeyError), colour)
    assert heard == []
    assert not hasattr(raised.value, "__notes__")


def test_an_error_that_ends_the_retrying_says_why():
    class Turning:
        calls = 0

        async def call(self):
            self.calls += 1
            raise ConnectionError if self.calls == 1 else KeyError("gone")

    with testing.record_events() as heard, pytest.raises(KeyError) as raised:
        testing.run(retry(jitter="none")(Turning().call))
    note = "asyncguard.retry: 2 attempts in 0.20 s, gave up: not_retryable (permanent)"
    assert raised.value.__notes__ == [note]
    assert heard[-1].reason == "not_retryable"


def test_a_failing_hook_changes_nothing(colour):
    def hook(_event):
        raise ZeroDivisionError

    assert run_both(retry(on_event=hook), Flaky(2), colour) == 3


def test_giving_up_is_logged_without_any_telemetry(caplog):
    with caplog.at_level(logging.WARNING, "asyncguard"), pytest.raises(ConnectionError):
        testing.run(retry(max_retries=1, name="my client")(Flaky(9).call))
    assert "gave up after 2 attempts" in caplog.text


# --- modes, options at run time, pickling -----------------------------------------------------------------------------


def test_off_calls_once_and_says_nothing(colour):
    flaky = Flaky(1)
    with testing.record_events() as heard, pytest.raises(ConnectionError):
        run_both(retry(mode="off"), flaky, colour)
    assert (len(flaky.times), heard) == (1, [])


def test_observe_calls_once_and_reports_what_it_would_have_done(colour):
    flaky = Flaky(1)
    with testing.record_events() as heard, pytest.raises(ConnectionError) as raised:
        run_both(retry(mode="observe"), flaky, colour)
    assert len(flaky.times) == 1
    assert [(type(event), event.observed) for event in heard] == [(events.RetryScheduled, True)]
    assert not hasattr(raised.value, "__notes__")


def test_observe_reports_that_it_would_have_given_up_and_spends_nothing():
    budget = RetryBudget(0.0, 0.1)
    for max_retries, kind in ((0, events.RetryGaveUp), (5, events.RetryScheduled), (5, events.RetryScheduled)):
        with testing.record_events() as heard, pytest.raises(ConnectionError):
            testing.run(retry(max_retries=max_retries, mode="observe", budget=budget)(Flaky(1).call))
        assert [type(event) for event in heard] == [kind]


def test_a_predicate_that_fails_does_not_change_an_observed_call(colour):
    def broken(_anything):
        raise ZeroDivisionError

    with pytest.raises(ConnectionError):
        run_both(retry(mode="observe", on=broken), Flaky(1), colour)
    assert run_both(retry(mode="observe", on_result=broken), Flaky(0), colour) == 1
    with pytest.raises(ZeroDivisionError) as raised:
        run_both(retry(on=broken), Flaky(1), colour)
    assert isinstance(raised.value.__context__, ConnectionError)


def test_options_can_be_changed_while_it_is_in_use():
    strategy = retry(max_retries=0)
    flaky = Flaky(2)
    guarded = strategy(flaky.call)
    with pytest.raises(ConnectionError):
        testing.run(guarded)
    strategy.configure(max_retries=3, budget=RetryBudget(1, 1))
    assert testing.run(guarded) == 3
    with pytest.raises(ValueError, match="max_retries"):
        strategy.configure(max_retries=-1)
    assert strategy.options.max_retries == 3


def test_options_can_be_other_ones_for_a_block():
    strategy = retry(max_retries=0)
    flaky = Flaky(2)
    with strategy.override(max_retries=5):
        assert testing.run(strategy(flaky.call)) == 3
    with pytest.raises(ConnectionError):
        testing.run(strategy(Flaky(1).call))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_it_pickles_as_its_options(pickler):
    strategy = retry(max_retries=3, budget=RetryBudget(0.5), on=(KeyError,), name="client")
    again = pickle.loads(pickler.dumps(strategy))
    assert (again.options.max_retries, again.options.budget.ratio, again.options.on) == (3, 0.5, (KeyError,))
    assert again.name == "client"
    assert pickle.loads(pickler.dumps(retry())).options.on is TRANSIENT


def test_a_guarded_function_survives_cloudpickle():
    flaky_calls = []

    @retry
    def double(x):
        flaky_calls.append(1)
        if len(flaky_calls) < 2:
            raise ConnectionError
        return 2 * x

    again = pickle.loads(cloudpickle.dumps(double))
    with testing.virtual_clock():
        assert again(4) == 8
    assert flaky_calls == [], "the copy has a list of its own"


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("on", BaseException, TypeError),
        ("on", (KeyError, KeyboardInterrupt), TypeError),
        ("on", asyncio.CancelledError, TypeError),
        ("on", (), ValueError),
        ("on", "ConnectionError", TypeError),
        ("on", None, TypeError),
        *[("max_retries", bad, ValueError) for bad in (-1, 1.0, True, "3", float("nan"), float("inf"))],
        *[
            (option, bad, ValueError)
            for option in ("initial_delay", "max_delay", "max_retry_after")
            for bad in (-1, float("nan"), float("inf"), True, "1", None, timedelta(seconds=-1))
        ],
        *[("backoff_factor", bad, ValueError) for bad in (0, 0.5, -2, float("nan"), float("inf"), True, None)],
        *[("jitter", bad, ValueError) for bad in (-0.1, 1.5, float("nan"), True, "Full", None)],
        ("max_delay", 0.1, ValueError),
        ("on_result", 5, TypeError),
        *[("budget", bad, TypeError) for bad in (0.2, "none", True, RetryBudget)],
        *[(option, bad, ValueError) for option in ("retry_rejected", "retry_exhausted") for bad in (1, None, "yes")],
        ("partition", "host", TypeError),
        ("mode", "disabled", ValueError),
        ("name", "", TypeError),
        ("on_event", 3, TypeError),
    ],
    ids=repr,
)
def test_a_bad_option_is_refused_at_once_by_name(option, value, error):
    with pytest.raises(error, match=option):
        retry(**{option: value})


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="max_attempts"):
        retry(max_attempts=3)


def test_the_options_that_people_set_come_first():
    names = list(inspect.signature(retry).parameters)
    assert names[:5] == ["fn", "on", "max_retries", "initial_delay", "max_delay"]


# --- without a limit --------------------------------------------------------------------------------------------------


def test_without_a_maximum_it_needs_a_deadline(colour):
    flaky = Flaky(1)
    with pytest.raises(ValueError, match=r"max_retries=None retries until the deadline, and there is none"):
        run_both(retry(max_retries=None), flaky, colour)
    assert flaky.times == []


def test_everything_public_says_what_it_is():
    assert isinstance(retry(), Retry)
    assert failing_status.__doc__
    assert repr(retry(name="client")) == "<Retry client>"
