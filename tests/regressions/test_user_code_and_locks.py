"""No lock is held while code of the user runs: function, predicate, cost, key, hook. Another thread always gets in."""

from __future__ import annotations

import contextlib
import contextvars
import threading

import pytest

import asyncguard as ag
from asyncguard import testing

LONG = 60.0  # seconds: what a test waits for at most, if it is broken


class Probe:
    """Code of the user that, wherever it is called from, has another thread go through the same strategy."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0
        self.blocked = False
        self._inside = threading.Lock()  # the other thread calls the user's code too, which is not to go on for ever
        self.other = None

    def __call__(self, *_args, **_kwargs):
        self.calls += 1
        if self.other is not None and self._inside.acquire(blocking=False):
            try:
                thread = threading.Thread(target=self._in_another_thread, daemon=True)
                thread.start()
                thread.join(LONG)
                self.blocked |= thread.is_alive()
            finally:
                self._inside.release()
        return self.answer

    def _in_another_thread(self):
        with contextlib.suppress(ConnectionError, ag.RejectedError):
            self.other()


ROWS = [
    ("retry", lambda probe: ag.retry(on=probe, max_retries=1, initial_delay=0), True),
    ("retry", lambda probe: ag.retry(on_event=probe, max_retries=1, initial_delay=0), True),
    ("retry", lambda probe: ag.retry(partition=probe, max_retries=0), "p"),
    ("retry", lambda probe: ag.retry(jitter=probe, max_retries=1, initial_delay=0), 0.0),
    ("circuit_breaker", lambda probe: ag.circuit_breaker(on=probe, minimum_calls=1000), True),
    ("circuit_breaker", lambda probe: ag.circuit_breaker(on_event=probe, consecutive_failures=1), None),
    ("circuit_breaker", lambda probe: ag.circuit_breaker(partition=probe), "p"),
    ("bulkhead", lambda probe: ag.bulkhead(5, weight=probe), 1),
    ("bulkhead", lambda probe: ag.bulkhead(5, priority=probe), 1.0),
    ("bulkhead", lambda probe: ag.bulkhead(5, partition=probe), "p"),
    ("rate_limit", lambda probe: ag.rate_limit(ag.Rate("1000/s", cost=probe)), 1),
    ("rate_limit", lambda probe: ag.rate_limit("1000/s", partition=probe), "p"),
    ("rate_limit", lambda probe: ag.rate_limit("1/h", max_wait=0, on_event=probe), None),
    ("adaptive_concurrency", lambda probe: ag.adaptive_concurrency(partition=probe), "p"),
    ("memory_guard", lambda probe: ag.memory_guard(estimate=probe), 1024),
    ("hedge", lambda probe: ag.hedge(delay=LONG, max_extra_load=1.0, on_event=probe), None),
    ("hedge", lambda probe: ag.hedge(partition=probe), "p"),
    ("fallback", ag.fallback, "answer"),
    ("fallback", lambda probe: ag.fallback("answer", on=probe), True),
    ("cache_result", lambda probe: ag.cache_result(60, key=probe), "key"),
    ("cache_result", lambda probe: ag.cache_result(60, on_event=probe), None),
]


@pytest.mark.parametrize(("kind", "make", "answer"), ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)])
def test_code_of_the_user_is_called_without_a_lock(kind, make, answer):
    probe = Probe(answer)
    strategy = make(probe)

    @strategy
    def call(caller):
        if kind != "cache_result":
            raise ConnectionError
        return caller

    def other():
        strategy.describe()
        str(ag.status())
        call("other")  # of one key, callers wait for each other: that is no lock

    probe.other = other
    for _ in range(2):
        with contextlib.suppress(ConnectionError, ag.RejectedError):
            call("caller")
    assert probe.calls > 1, "the test asks nothing"
    assert not probe.blocked, "another thread could not get in"


@pytest.mark.parametrize(
    "make",
    [
        ag.circuit_breaker,
        lambda: ag.bulkhead(5),
        lambda: ag.bulkhead(5, weight=1),
        lambda: ag.rate_limit("1000/s"),
        ag.adaptive_concurrency,
        lambda: ag.memory_guard(estimate=1),
        lambda: ag.retry(budget=ag.RetryBudget()),
        lambda: ag.hedge(delay=LONG, max_extra_load=1.0),
        lambda: ag.timeout(LONG),
        lambda: ag.timeout(LONG, thread=True),
        lambda: ag.fallback("answer"),
        lambda: ag.monitor("locks"),
    ],
    ids=[
        "circuit_breaker",
        "bulkhead",
        "weighted",
        "rate_limit",
        "adaptive_concurrency",
        "memory_guard",
        "retry",
        "hedge",
        "timeout",
        "timeout in a thread",
        "fallback",
        "monitor",
    ],
)
def test_five_threads_are_in_the_guarded_function_at_once(make):
    """One lock around the call and ten calls of 50 ms take half a second."""
    strategy = make()
    together = threading.Barrier(5, timeout=LONG)
    call, passed = strategy(together.wait), []
    threads = [threading.Thread(target=lambda: passed.append(call())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(passed) == list(range(5))


def test_in_half_open_the_probes_are_in_the_function_at_once():
    breaker = ag.circuit_breaker(half_open_calls=3, open_for=10)
    together = threading.Barrier(3, timeout=LONG)
    call, passed = breaker(together.wait), []
    with testing.virtual_clock() as clock:
        breaker.open()
        clock.advance(11)
        contexts = [contextvars.copy_context() for _ in range(3)]
        threads = [threading.Thread(target=each.run, args=(lambda: passed.append(call()),)) for each in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert breaker.state == "closed"
    assert sorted(passed) == [0, 1, 2]
