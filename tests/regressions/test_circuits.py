"""Circuit breakers: what others count, forget, keep for ever or put in place of the user's error."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest

import asyncguard as ag
from asyncguard import testing


def breaker(**options):
    return ag.circuit_breaker(**{"consecutive_failures": 1, "open_for": 30.0, "half_open_calls": 2, **options})


async def fail(seconds=0.0, error=ConnectionError):
    await anyio.sleep(seconds)
    raise error


async def ignore(call, *args):
    """Call, whatever becomes of it."""
    with contextlib.suppress(Exception):
        await call(*args)


@pytest.mark.parametrize("late", ["success", "failure"])
def test_a_call_from_before_the_opening_decides_nothing_in_half_open(late, backend):
    """It began before the outage and ends between two probes."""
    circuit = breaker()
    answer, failing = circuit(anyio.sleep), circuit(fail)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(ignore, answer if late == "success" else failing, 32)
            await anyio.lowlevel.checkpoint()
            await ignore(failing)
            assert circuit.state == "open"
            await anyio.sleep(31)
            await answer(0)  # the first of two probes
            assert circuit.state == "half_open"
        assert circuit.state == "half_open", "the late result decided"
        await answer(0)
        assert circuit.state == "closed"

    testing.run(main, backend=backend)


@pytest.mark.parametrize("late", ["success", "failure"])
def test_calls_that_end_while_it_is_open_neither_close_nor_prolong_it(late, backend):
    circuit = breaker()
    answer, failing = circuit(anyio.sleep), circuit(fail)

    async def main():
        async with anyio.create_task_group() as group:
            for seconds in range(1, 21):
                group.start_soon(ignore, answer if late == "success" else failing, seconds)
            await anyio.lowlevel.checkpoint()
            await ignore(failing)
            await anyio.sleep(20.5)
            with pytest.raises(ag.CircuitOpenError) as caught:
                await answer(0)
            assert caught.value.retry_after == pytest.approx(9.5)

    testing.run(main, backend=backend)


def test_a_late_result_does_not_decide_when_it_has_opened_and_closed_meanwhile(backend):
    circuit = breaker(half_open_calls=1)
    answer, failing = circuit(anyio.sleep), circuit(fail)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(ignore, failing, 40)
            await anyio.lowlevel.checkpoint()
            await ignore(failing)
            await anyio.sleep(31)
            await answer(0)
            assert circuit.state == "closed"
        assert circuit.state == "closed", "a failure of long ago opened it"

    testing.run(main, backend=backend)


def test_an_error_that_is_no_failure_closes_nothing_and_gives_the_probe_back(backend):
    """Taken for a success, it closes the circuit on an outage."""
    circuit = breaker(half_open_calls=1, on=ConnectionError)
    answer, failing = circuit(anyio.sleep), circuit(fail)

    async def main():
        await ignore(failing)
        await anyio.sleep(31)
        for _ in range(3):
            with pytest.raises(KeyError):
                await failing(0, KeyError)
            assert circuit.state == "half_open"
        await answer(0)
        assert circuit.state == "closed"

    testing.run(main, backend=backend)


def test_errors_that_are_no_failures_do_not_end_a_row_of_failures():
    """In a closed circuit as well: others reset their count."""
    circuit = breaker(consecutive_failures=3, on=ConnectionError)

    @circuit
    def call(error):
        raise error

    for error in (ConnectionError, ConnectionError, KeyError, ConnectionError):
        with pytest.raises(error):
            call(error)
    assert circuit.state == "open"


def test_the_call_that_opens_it_gets_its_own_error(backend):
    circuit, error = breaker(), ConnectionError("the user's")

    async def call():
        raise error

    async def main():
        with pytest.raises(ConnectionError) as caught:
            await circuit(call)()
        assert caught.value is error
        assert caught.value.__cause__ is None
        assert circuit.state == "open"

    testing.run(main, backend=backend)


class Service:
    async def __call__(self):
        raise ConnectionError

    async def method(self):
        raise ConnectionError


@pytest.mark.parametrize(
    "function",
    [fail, functools.partial(fail, 0.0), Service(), Service().method],
    ids=["function", "partial", "object", "method"],
)
def test_failures_of_async_functions_of_every_kind_are_counted(function, backend):
    """The coroutine is made without an error; who looks no further never opens."""
    circuit = breaker()
    guarded = circuit(function)

    async def main():
        with pytest.raises(ConnectionError):
            await guarded()
        with pytest.raises(ag.CircuitOpenError):
            await guarded()

    testing.run(main, backend=backend)


def test_a_probe_that_never_ends_keeps_it_half_open_for_no_more_than_its_time(backend):
    """Others wait for it: six days in one case."""
    circuit = breaker(half_open_calls=1, open_factor=1)
    answer = circuit(anyio.sleep)

    async def main():
        circuit.open()
        await anyio.sleep(31)
        async with anyio.create_task_group() as group:
            group.start_soon(answer, 10**9)
            await anyio.sleep(31)
            with pytest.raises(ag.CircuitOpenError):
                await answer(0)
            assert circuit.state == "open"
            await anyio.sleep(31)
            await answer(0)
            assert circuit.state == "closed"
            group.cancel_scope.cancel()

    testing.run(main, backend=backend)


def test_200_threads_at_once_get_exactly_the_probes():
    circuit = breaker(half_open_calls=3, open_for=60.0)
    together, go_on, calls, refused = threading.Barrier(200, timeout=60), threading.Event(), [], []

    @circuit
    def probe():
        calls.append(1)
        go_on.wait(60)

    def caller():
        together.wait()
        try:
            probe()
        except ag.CircuitOpenError:
            refused.append(1)
            if len(refused) == 197:
                go_on.set()

    with testing.virtual_clock() as clock:
        circuit.open()
        clock.advance(61)
        contexts = [contextvars.copy_context() for _ in range(200)]
        threads = [threading.Thread(target=context.run, args=(caller,)) for context in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (len(calls), len(refused)) == (3, 197)


def test_no_time_to_stay_open_is_refused_instead_of_replaced():
    """Zero is false: somewhere it becomes thirty seconds."""
    for nothing in (0, 0.0, timedelta(0)):
        with pytest.raises(ValueError, match="open_for"):
            ag.circuit_breaker(open_for=nothing)


def test_it_tells_of_every_change_and_how_long_it_lasts(backend):
    circuit = breaker(half_open_calls=1)
    answer, failing = circuit(anyio.sleep), circuit(fail)

    async def main():
        with testing.record_events() as seen:
            await ignore(failing)
            await ignore(answer, 0)
            await anyio.sleep(31)
            await answer(0)
        return [type(event).__name__ for event in seen]

    assert testing.run(main, backend=backend) == [
        "CircuitOpened",
        "CallRejected",
        "CircuitHalfOpened",
        "CircuitClosed",
    ]
