"""What breaks cores like this one: collected coroutines, interrupted listeners, failing predicates, misused blocks."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import threading
import weakref

import pytest

import asyncguard as ag
from asyncguard import _strategy, testing
from asyncguard._passage import permits
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, holds


class Pause:
    """Suspends a coroutine that is driven by hand."""

    def __await__(self):
        yield


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt, which pytest takes for its own."""


@pytest.fixture
def unraisable(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda problem: seen.append(problem.exc_value))
    return seen


def weighed(**options):
    return ag.rate_limit(ag.Rate("100/s burst 100", cost=lambda *_, **__: 2), **options)


def dropped_elsewhere(call):
    """Begin a coroutine in a context of its own and let the collector end it in this one."""
    coroutine = call()
    contextvars.copy_context().run(coroutine.send, None)
    del coroutine
    gc.collect()


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(lambda: (ag.timeout(5),), id="a deadline"),
        pytest.param(lambda: (weighed(),), id="a permit that is shown"),
        pytest.param(lambda: (ag.timeout(5), ag.timeout(3, scope="attempt"), weighed()), id="all of them"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_collected_in_another_context_leaves_nothing(others, stream, unraisable):
    limit, breaker = ag.bulkhead(1), ag.circuit_breaker(consecutive_failures=1)

    @ag.guard(limit, breaker, *others(), stream=stream)
    async def work():
        await Pause()

    async def main():
        dropped_elsewhere(work)
        assert ag.remaining() is None
        assert permits.get() == ()
        assert holds.acquire() is None

    asyncio.run(main())
    assert limit.gate.idle(), "the slot is lost"
    assert "CLOSED" in breaker.describe()[0], "a collected call is no failure"
    assert not unraisable


def test_blocks_that_end_in_another_context_leave_nothing():
    limit = ag.bulkhead(1)

    def block():
        with limit.override(mode="off"), testing.virtual_clock(), deadlines.detached(), ag.deadline(5):
            yield

    generator = block()
    contextvars.copy_context().run(next, generator)
    assert limit.special
    generator.close()
    assert not limit.special
    assert not clocks.virtual_active()
    with limit.permit():
        assert limit.gate.taken == 1


def interrupted_by(name):
    def listen(event):
        if type(event).__name__ == name:
            raise Interrupt

    return listen


@pytest.mark.parametrize("event", ["CallQueued", "CallAdmitted"])
def test_a_listener_that_is_interrupted_loses_no_slot(event):
    limit = ag.bulkhead(1, on_event=interrupted_by(event))

    async def work():
        async with limit.permit():
            await asyncio.sleep(0)

    async def main():
        results = await asyncio.gather(work(), work(), work(), return_exceptions=True)
        assert [type(result) for result in results[1:]] == [Interrupt] * 2
        assert limit.core_here().single.idle()

    testing.run(main)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_what_is_told_right_after_an_admission_loses_no_probe_when_interrupted(colour):
    breaker = ag.circuit_breaker(open_for=1, half_open_calls=1, on_event=interrupted_by("CircuitHalfOpened"))
    guarded = breaker(_pause_not if colour == "async" else lambda: 1)

    def call():
        return asyncio.run(guarded()) if colour == "async" else guarded()

    with testing.virtual_clock() as clock:
        breaker.open()
        clock.advance(2)
        with pytest.raises(Interrupt):
            call()
        assert call() == 1


async def _pause_not():
    return 1


def test_a_listener_that_is_interrupted_when_a_circuit_closes_keeps_no_outcome_from_the_other():
    first = ag.circuit_breaker(open_for=1, half_open_calls=1, on_event=interrupted_by("CircuitClosed"))
    second, limit = ag.circuit_breaker(open_for=1, half_open_calls=1), ag.bulkhead(1)
    guarded = ag.Pipeline(first, second, limit)(lambda: 1)

    with testing.virtual_clock() as clock:
        first.open()
        second.open()
        clock.advance(2)
        with pytest.raises(Interrupt):
            guarded()
        assert limit.core_here().single.idle()
        assert (str(first.state), str(second.state)) == ("closed", "closed")


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_the_same_when_a_circuit_opens(colour):
    first = ag.circuit_breaker(consecutive_failures=1, on_event=interrupted_by("CircuitOpened"))
    second, limit = ag.circuit_breaker(consecutive_failures=1), ag.bulkhead(1)

    def fail():
        raise ConnectionError

    async def fail_async():
        fail()

    guarded = ag.Pipeline(first, second, limit)(fail if colour == "sync" else fail_async)
    with pytest.raises(Interrupt):
        asyncio.run(guarded()) if colour == "async" else guarded()
    assert limit.gate.idle()
    assert (str(first.state), str(second.state)) == ("open", "open")


@pytest.mark.parametrize("way", ["alone", "block", "partition", "stream"])
def test_a_predicate_that_fails_costs_neither_slot_nor_probe(way):
    mood = {"fail": False}

    def is_failure(error):
        del error
        if mood["fail"]:
            raise ZeroDivisionError
        return True

    breaker = ag.circuit_breaker(on=is_failure, consecutive_failures=1, open_for=1, half_open_calls=1)
    limit = ag.bulkhead(1, max_queue=0)
    options = {"partition": {"partition": lambda: "p"}, "stream": {"stream": True}}.get(way, {})

    @ag.guard(*([breaker] if way == "alone" else [breaker, limit]), **options)
    async def work():
        raise ConnectionError

    async def main():
        with pytest.raises(ConnectionError):
            await work()
        mood["fail"] = True
        await asyncio.sleep(1.5)
        for _ in range(3):  # each is the only probe
            with pytest.raises(ZeroDivisionError):
                await work()
        assert all(gate.idle() for gate in limit.gates())

    testing.run(main)


@pytest.mark.parametrize("colour", ["async", "sync"])
def test_a_generator_called_with_wrong_arguments_takes_no_slot_along(colour):
    limit = ag.bulkhead(1)

    if colour == "async":

        @limit
        async def items(one):
            yield one

        async def main():
            with pytest.raises(TypeError, match="argument"):
                async for _ in items():
                    """Never."""

        asyncio.run(main())
    else:

        @limit
        def items(one):
            yield one

        with pytest.raises(TypeError, match="argument"):
            list(items())
    assert limit.gate.idle()


def test_a_permit_block_used_twice_is_refused_and_loses_no_slot():
    limit = ag.bulkhead(2)
    block = limit.permit()

    async def use():
        async with block:
            await asyncio.sleep(1)

    async def main():
        results = await asyncio.gather(use(), use(), return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], RuntimeError)
        assert "used once" in str(results[1])
        assert limit.core_here().single.idle()

    testing.run(main)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_block_with_a_cost_obeys_the_mode_and_observe_reports(mode):
    limit = ag.rate_limit("1/s burst 5", mode=mode, max_wait=0)
    with testing.virtual_clock(), testing.record_events() as seen:
        for _ in range(3):
            with limit.permit(cost=4) as permit:
                permit.reconcile(2)
    assert bool(seen) == (mode == "observe")


@pytest.mark.parametrize("mode", ["off", "observe", "enforce"])
def test_a_function_that_corrects_its_cost_does_not_notice_the_mode(mode):
    limit = weighed(mode=mode)

    @limit
    def work():
        ag.current_permit(limit).reconcile(90)
        return 1

    with testing.virtual_clock():
        assert [work() for _ in range(4 if mode != "enforce" else 1)]


def _broken(*args, **kwargs):
    raise LookupError(args, kwargs)


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: ag.bulkhead(1, partition=_broken, mode="observe"),
        lambda: ag.circuit_breaker(partition=_broken, mode="observe"),
        lambda: ag.rate_limit(ag.Rate("1/s", cost=_broken), mode="observe"),
    ],
    ids=["bulkhead", "circuit_breaker", "rate_limit"],
)
def test_observing_a_call_that_cannot_be_looked_at_does_not_change_it(strategy, caplog):
    guarded = strategy()(lambda: 1)
    assert guarded() == 1
    assert guarded() == 1
    assert caplog.text.count("could not observe") == 1
    with pytest.raises(LookupError):
        _again(strategy, mode="enforce")


def _again(strategy, mode):
    enforced = strategy()
    enforced.configure(mode=mode)
    enforced(lambda: 1)()


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_generator_under_another_mode_does_not_look_at_the_deadline_around_it(mode):
    @ag.timeout(5, mode=mode)
    def items():
        yield 1

    def late(clock):
        with ag.deadline(1):
            clock.advance(2)
            return list(items())

    with testing.virtual_clock() as clock, pytest.raises(ag.CallTimeoutError, match="the block"):
        late(clock)


# --- override and configure ---


def test_an_override_ends_for_the_tasks_that_outlive_it():
    limit = ag.bulkhead(1, max_wait=1)
    seen = []

    async def outlives(over):
        await over.wait()
        seen.append(limit.live().max_wait)

    async def main():
        over = asyncio.Event()
        with limit.override(max_wait=2):
            with limit.override(max_wait=3):
                task = asyncio.create_task(outlives(over))
                await asyncio.sleep(0)
            second = asyncio.create_task(outlives(over))
        with limit.override(max_wait=4):  # that anybody overrides anything must not bring the first ones back
            over.set()
            await asyncio.gather(task, second)

    asyncio.run(main())
    assert seen == [1, 1]


def test_an_option_of_the_state_of_all_calls_is_not_overridden_for_some():
    limit = ag.bulkhead(1)
    with pytest.raises(TypeError, match="max_concurrent is the same for all calls"), limit.override(max_concurrent=5):
        """Never."""
    assert not limit.special


def test_a_call_that_began_while_it_was_untimed_is_not_slow():
    breaker = ag.circuit_breaker(minimum_calls=1)

    async def main():
        over = asyncio.Event()
        call = asyncio.create_task(breaker(over.wait)())
        await asyncio.sleep(0)
        breaker.configure(slow_call=5)
        over.set()
        await call

    asyncio.run(main())
    assert "CLOSED" in breaker.describe()[0]


def test_calls_in_flight_and_later_ones_have_the_duration_they_began_with():
    limit = ag.timeout(10)
    timers = limit.core
    limit.configure(seconds=1)
    assert (timers.seconds, limit.core.seconds) == (10, 1)


@pytest.mark.parametrize("where", ["option", "subscribe"])
def test_an_async_listener_is_refused(where):
    async def listen(event):
        """Nobody would await it."""

    with pytest.raises(TypeError, match="plain function"):
        ag.bulkhead(1, on_event=listen) if where == "option" else ag.subscribe(listen)


def test_a_deadline_is_no_decorator():
    with pytest.raises(TypeError, match=r"use timeout\(\.\.\.\)"):

        @ag.deadline(1)
        async def work():
            """It would be bound by nothing."""

    with pytest.raises(ValueError, match="seconds"):
        ag.deadline(-1)


# --- threads ---


def test_what_is_made_while_others_look_at_everything_disturbs_nobody():
    class Changing(weakref.WeakSet):
        """A set to which another thread adds in the middle of the first look at it."""

        looks = 0

        def __iter__(self):
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    class Thing:
        pass

    thing = Thing()
    assert _strategy.everything(Changing([thing])) == [thing]


def test_the_state_on_a_virtual_clock_goes_with_the_clock():
    limit = ag.bulkhead(1)
    seen = []
    for _ in range(3):
        with testing.virtual_clock() as clock, limit.permit():
            seen.append(weakref.ref(clock))
    del clock
    gc.collect()
    assert [clock() for clock in seen] == [None] * 3


def test_a_thread_that_cannot_be_started_keeps_no_permit(monkeypatch):
    limit = ag.bulkhead(1)

    @ag.Pipeline(limit, ag.timeout(1, thread=True))
    def work():
        """Never."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        work()
    assert limit.gate.idle()


def test_an_error_from_a_thread_keeps_nothing_alive():
    class Tensor:
        pass

    seen = []

    @ag.timeout(60, thread=True)
    def work():
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        raise ConnectionError

    def call():
        with pytest.raises(ConnectionError):
            work()

    gc.collect()
    gc.disable()
    try:
        call()
        assert seen[0]() is None, "a cycle of the error and its frames waits for the collector"
    finally:
        gc.enable()


def test_an_interrupted_caller_of_a_thread_counts_as_one_that_left(monkeypatch):
    go_on, ended = threading.Event(), threading.Event()
    running = []

    @ag.timeout(60, thread=True)
    def work():
        go_on.wait(60)

    def interrupted(work, deadline):
        raise Interrupt

    from asyncguard.strategies import _timeout_thread

    before = _timeout_thread._abandoned
    end = _timeout_thread._Work._end
    monkeypatch.setattr(_timeout_thread, "_wait_for", interrupted)
    monkeypatch.setattr(_timeout_thread._Work, "_end", lambda each: (end(each), ended.set()))
    with pytest.raises(Interrupt):
        work()
    running.append(_timeout_thread._abandoned)
    go_on.set()
    assert ended.wait(60)
    assert [*running, _timeout_thread._abandoned] == [before + 1, before]


# --- errors that say what happened ---


def test_a_rejection_after_a_wait_does_not_tell_of_our_empty_deque():
    limit = ag.bulkhead(1, max_wait=1)

    async def main():
        limit.core_here().single.take()  # somebody else's
        with pytest.raises(ag.BulkheadFullError, match="in time") as caught:
            await limit(asyncio.sleep)(0)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    testing.run(main)


def test_a_timeout_without_a_running_task_says_so():
    coroutine = ag.timeout(1)(_pause)()
    with pytest.raises(RuntimeError, match="needs a running asyncio or trio task"):
        coroutine.send(None)


async def _pause():
    await Pause()


def test_a_key_of_a_partition_that_is_a_whole_prompt_is_shown_short():
    limit = ag.bulkhead(1, max_queue=0, partition=lambda prompt: prompt)

    @limit
    def work(prompt):
        return work(prompt)

    with testing.record_events() as seen, pytest.raises(ag.BulkheadFullError) as caught:
        work("word " * 100_000)
    assert len(str(caught.value)) < 400
    assert len(seen[0].partition) == 200


def test_a_broken_logging_setup_changes_no_call(caplog):
    def refuse(record):
        if "circuit opened" in record.getMessage():
            raise ZeroDivisionError
        return True

    breaker = ag.circuit_breaker(consecutive_failures=1)

    @breaker
    def work():
        raise ConnectionError

    logger = logging.getLogger("asyncguard")
    logger.addFilter(refuse)
    try:
        with pytest.raises(ConnectionError):
            work()
    finally:
        logger.removeFilter(refuse)
    assert "an event handler failed" in caplog.text


def test_a_task_that_outlives_a_call_does_not_keep_its_result_alive():
    class Tensor:
        """Stands for something big."""

    made = []

    @ag.timeout(5)
    async def handle(stop):
        return asyncio.create_task(stop.wait()), Tensor()

    async def request(stop):
        background, tensor = await handle(stop)
        made.append(weakref.ref(tensor))
        return background, tensor

    async def main():
        stop = asyncio.Event()
        background = (await asyncio.create_task(request(stop)))[0]
        await asyncio.sleep(0)
        gc.collect()
        assert made[0]() is None
        stop.set()
        await background

    asyncio.run(main())


def test_a_deadline_that_is_closed_while_others_fire_is_left_alone():
    """The collector may end a call while the timer goes through the deadlines."""
    fired = []

    class Task:
        """Ends, when it is cancelled, the call of another one."""

        def cancelling(self):
            return 0

        def cancel(self):
            fired.append(self)
            if len(fired) == 1:
                others[0].close()

    async def main():
        expiries = deadlines.LoopTimers(clocks.REAL, 1.0).of(asyncio.get_running_loop())
        first, second, third = (contextvars.Context().run(expiries.begin, Task()) for _ in range(3))
        first.when = second.when = third.when = 0.0
        others.append(second)
        expiries._fire()
        assert [first.expired, second.expired, third.expired] == [True, False, True]
        first.close()
        third.close()

    others = []
    asyncio.run(main())


def test_two_changes_at_once_do_not_undo_each_other(monkeypatch):
    limit = ag.bulkhead(1)
    replace, others = dataclasses.replace, [{"max_wait": 5}, {"max_queue": 7}]

    def slow(options, **changes):
        """Another thread changes something while the new options are made."""
        if others:
            thread = threading.Thread(target=limit.configure, kwargs=others.pop())
            thread.start()
            thread.join(30)
        return replace(options, **changes)

    monkeypatch.setattr(dataclasses, "replace", slow)
    limit.configure(max_concurrent=2)
    assert (limit.options.max_concurrent, limit.options.max_wait, limit.options.max_queue) == (2, 5, 7)
    assert (limit.gate.size, limit.gate.max_queue) == (2, 7)


def test_one_strategy_that_cannot_be_closed_keeps_no_other_open(monkeypatch, backend):
    closed = []

    class Broken(type(ag.bulkhead(1))):
        async def aclose(self):
            closed.append(self)
            raise ConnectionError

    some = [Broken(ag.bulkhead(1).options) for _ in range(3)]
    monkeypatch.setattr("asyncguard._status.strategies", lambda: some)
    with pytest.raises(ExceptionGroup) as caught:
        testing.run(ag.aclose, backend=backend)
    assert closed == some
    assert len(caught.value.exceptions) == 3
