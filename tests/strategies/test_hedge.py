"""`hedge` around coroutine functions: when a second copy starts, who wins, what leaves, what is learned."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import pickle
import sys
import weakref
from datetime import timedelta

import pytest

from asyncguard import (
    BulkheadFullError,
    CallTimeoutError,
    Pipeline,
    RetryBudget,
    bulkhead,
    current_attempt,
    deadline,
    events,
    guard,
    retry,
    testing,
    timeout,
)
from asyncguard._runtime import clock
from asyncguard.strategies.hedge import Hedge, HedgeOptions, hedge

NAN, INF = float("nan"), float("inf")
now = clock.library_sleep  # `await now(0)` gives the others a turn


def always(**options):
    """A hedge whose budget is never what decides."""
    return hedge(**{"delay": 1.0, "max_extra_load": 1.0, **options})


class Service:
    """Answers each call after the seconds and with the outcome that were planned for it."""

    def __init__(self, *plan):
        self.plan = plan
        self.started = []
        self.ended = {}
        self.running = 0

    async def __call__(self, *args, **kwargs):
        number = len(self.started) + 1
        seconds, outcome = self.plan[min(number, len(self.plan)) - 1]
        self.started.append(clock.current().now())
        self.running += 1
        try:
            await clock.library_sleep(seconds)
        except BaseException:
            self.ended[number] = "cancelled"
            raise
        finally:
            self.running -= 1
        self.ended[number] = "done"
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def times(self):
        return [started - self.started[0] for started in self.started]


def call(strategy, service, backend="asyncio"):
    """Call the hedged service once; return what it answered, after how many seconds, and the events."""

    async def main():
        guarded, before = strategy(service.__call__), clock.current().now()
        try:
            answer = await guarded()
        except Exception as error:  # noqa: BLE001 - what leaves is the answer
            answer = error
        return answer, clock.current().now() - before

    with testing.record_events() as recorded:
        answer, seconds = testing.run(main, backend=backend)
    assert service.running == 0, "an attempt was left behind"
    return answer, seconds, recorded


async def learn(guarded, calls=50):
    for _ in range(calls):
        await guarded()


# --- when a second copy starts ----------------------------------------------------------------------------------------


def test_a_slow_call_gets_a_second_copy_and_the_first_success_wins(backend):
    service = Service((10.0, "slow"), (0.5, "fast"))
    answer, seconds, recorded = call(always(), service, backend)
    assert answer == "fast"
    assert seconds == pytest.approx(1.5)
    assert service.times == pytest.approx([0.0, 1.0])
    assert service.ended == {1: "cancelled", 2: "done"}
    assert [type(event) for event in recorded] == [events.HedgeStarted, events.HedgeFinished]
    assert (recorded[0].attempt, recorded[0].delay) == (2, 1.0)
    assert (recorded[1].attempts, recorded[1].winner) == (2, 2)


def test_the_original_may_still_win(backend):
    service = Service((1.5, "original"), (5.0, "copy"))
    answer, seconds, recorded = call(always(), service, backend)
    assert answer == "original"
    assert seconds == pytest.approx(1.5)
    assert service.ended == {1: "done", 2: "cancelled"}
    assert recorded[-1].winner == 1


def test_a_quick_call_is_not_hedged_and_its_timer_is_cancelled():
    async def main():
        guarded = always(delay=60.0)(Service((0.5, "quick")).__call__)
        assert await guarded() == "quick"
        loop = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    with testing.record_events() as recorded:
        testing.run(main)
    assert recorded == []


def test_the_first_call_is_never_hedged_nor_any_before_fifty_samples(backend):
    async def main():
        strategy = hedge(max_extra_load=0.5)
        service = Service((0.1, "quick"))
        guarded = strategy(service.__call__)
        await learn(guarded, 49)
        service.plan = ((100.0, "slow"),)
        assert await guarded() == "slow"  # with this one there are fifty
        assert len(service.started) == 50
        slow = Service((100.0, "slow"), (0.1, "copy"))
        await learn(strategy(Service((0.1, "quick")).__call__))
        assert await strategy(slow.__call__)() == "copy"

    testing.run(main, backend=backend)


def test_the_delay_is_the_quantile_of_the_last_calls(backend):
    async def main():
        strategy = hedge(max_extra_load=0.05)
        quick = Service(*[(0.1, "quick")] * 95, *[(2.0, "slow")] * 5)
        await learn(strategy(quick.__call__), 94)
        service = Service((50.0, "slow"), (0.1, "copy"))
        assert await strategy(service.__call__)() == "copy"
        assert service.times[1] == pytest.approx(0.1, rel=0.021)

    testing.run(main, backend=backend)


def test_calls_quicker_than_a_millisecond_are_hedged_after_a_millisecond():
    async def main():
        strategy = hedge()
        await learn(strategy(Service((0.0, 1)).__call__))
        service = Service((50.0, "slow"), (0.0, "copy"))
        assert await strategy(service.__call__)() == "copy"
        assert service.times[1] == pytest.approx(0.001)

    testing.run(main)


def test_with_a_delay_of_zero_all_copies_start_at_once(backend):
    service = Service((3.0, 1), (2.0, 2), (1.0, 3))
    answer, seconds, _ = call(hedge(delay=0, max_extra_load=1.0, max_hedges=2, budget=None), service, backend)
    # One call earns one hedge: the third copy is not paid for.
    assert (answer, seconds) == (2, pytest.approx(2.0))
    assert service.times == [0.0, 0.0]


def test_several_hedges_start_one_delay_after_the_other(backend):
    async def main():
        strategy = always(max_hedges=3)
        await learn(strategy(Service((0.0, 1)).__call__), 5)
        service = Service((50.0, 1), (50.0, 2), (50.0, 3), (0.1, 4))
        assert await strategy(service.__call__)() == 4
        assert service.times == pytest.approx([0.0, 1.0, 2.0, 3.0])
        assert service.running == 0

    testing.run(main, backend=backend)


def test_a_timedelta_is_a_delay(backend):
    service = Service((10.0, "slow"), (0.5, "fast"))
    assert call(always(delay=timedelta(seconds=2)), service, backend)[1] == pytest.approx(2.5)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failing_primary_starts_the_next_at_once(backend):
    """asynchedging waits the whole delay, backon lets the first failure win."""
    service = Service((0.25, ConnectionError("down")), (0.5, "copy"))
    answer, seconds, recorded = call(always(delay=60.0), service, backend)
    assert (answer, seconds) == ("copy", pytest.approx(0.75))
    assert recorded[-1].winner == 2


def test_a_failing_copy_waits_for_the_original(backend):
    """Finagle: the first responder failed, so wait for the other one."""
    service = Service((3.0, "original"), (0.5, ConnectionError("down")))
    answer, seconds, _ = call(always(), service, backend)
    assert (answer, seconds) == ("original", pytest.approx(3.0))


def test_a_failing_original_waits_for_its_copy(backend):
    service = Service((1.2, ConnectionError("down")), (3.0, "copy"))
    answer, seconds, _ = call(always(), service, backend)
    assert (answer, seconds) == ("copy", pytest.approx(4.0))


def test_a_permanent_failure_of_the_original_leaves_at_once(backend):
    error = ValueError("bad request")
    service = Service((1.2, error), (3.0, "copy"))
    answer, seconds, _ = call(always(), service, backend)
    assert answer is error
    assert seconds == pytest.approx(1.2)
    assert service.ended == {1: "done", 2: "cancelled"}


def test_a_permanent_failure_before_the_delay_starts_nothing(backend):
    error = ValueError("bad request")
    service = Service((0.2, error), (0.1, "copy"))
    answer, _, recorded = call(always(), service, backend)
    assert answer is error
    assert len(service.started) == 1
    assert recorded == []
    assert not hasattr(error, "__notes__")


def test_a_copy_never_fails_a_call_that_the_original_brings_home(backend):
    service = Service((3.0, "original"), (0.1, ValueError("seen this request before")))
    assert call(always(max_hedges=3), service, backend)[0] == "original"
    assert len(service.started) == 2, "and it adds none"


def test_if_all_fail_the_error_of_the_original_leaves_with_a_note(backend):
    first, second = ConnectionError("first"), TimeoutError("second")
    service = Service((2.0, first), (0.5, second))
    answer, seconds, recorded = call(always(), service, backend)
    assert answer is first
    assert seconds == pytest.approx(2.0)
    assert first.__notes__ == ["asyncguard.hedge: 2 attempts in 2.00 s, none succeeded (attempt 2: TimeoutError)"]
    assert recorded[-1].winner == 0
    assert first.__context__ is None
    assert first.__cause__ is None


def test_one_error_instance_raised_two_hundred_times_does_not_grow(backend):
    error = ConnectionError("one instance")
    strategy = always()
    depths, notes = set(), set()

    async def main():
        guarded = strategy(Service((0.0, error)).__call__)
        for _ in range(200):
            error.__traceback__ = None
            with pytest.raises(ConnectionError):
                await guarded()
            notes.add(len(error.__notes__))
            depths.add(_depth(error))

    testing.run(main, backend=backend)
    assert notes == {1}
    assert max(depths) < 30


def _depth(error):
    depth, trace = 0, error.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    return depth


def test_all_copies_rejected_is_the_rejection_of_the_original(backend):
    """An ExceptionGroup of nothing was asynchedging's answer."""
    rejections = [BulkheadFullError("first"), BulkheadFullError("second")]
    service = Service((1.5, rejections[0]), (0.2, rejections[1]))
    answer, seconds, _ = call(always(), service, backend)
    assert answer is rejections[0]
    assert seconds == pytest.approx(1.5)


def test_a_rejected_copy_ends_nothing(backend):
    service = Service((3.0, "original"), (0.0, BulkheadFullError("full")))
    assert call(always(), service, backend)[0] == "original"


@pytest.mark.parametrize("falsy", [None, 0, "", [], False, 0.0], ids=repr)
def test_a_falsy_result_is_a_result(falsy, backend):
    """backon takes it for a failure."""
    service = Service((0.5, falsy), (0.5, "copy"))
    answer, seconds, recorded = call(always(), service, backend)
    assert answer is falsy
    assert seconds == pytest.approx(0.5)
    assert recorded == []


def test_a_result_with_an_ambiguous_truth_value_is_a_result(backend):
    class Array:
        def __bool__(self):
            raise ValueError("the truth value of an array is ambiguous")

        def __eq__(self, other):
            raise ValueError("ambiguous as well")

        __hash__ = None

    array = Array()
    service = Service((10.0, Array()), (0.5, array))
    assert call(always(), service, backend)[0] is array


# --- what is learned --------------------------------------------------------------------------------------------------


def samples_of(strategy, *plan, backend="asyncio"):
    """How many samples one call with this plan leaves, and the longest of them."""

    async def main():
        with pytest.MonkeyPatch.context() as patch:
            taken = []
            sketch = strategy.core_here().single.sketch
            patch.setattr(type(sketch), "add", lambda _self, elapsed, _now: taken.append(round(elapsed, 6)))
            with contextlib.suppress(Exception):
                await strategy(Service(*plan).__call__)()
            return taken

    return testing.run(main, backend=backend)


def test_a_success_is_a_sample(backend):
    assert samples_of(hedge(), (0.3, 1), backend=backend) == [0.3]
    assert samples_of(always(), (0.3, 1), backend=backend) == [0.3]


def test_a_timeout_is_a_sample(backend):
    assert samples_of(hedge(), (0.3, TimeoutError()), backend=backend) == [0.3]
    assert samples_of(always(), (0.3, TimeoutError()), (0.1, 1), backend=backend) == [0.3, 0.1]


def test_a_fast_failure_is_no_sample(backend):
    for error in (ConnectionError(), ValueError(), BulkheadFullError()):
        assert samples_of(hedge(), (0.3, error), backend=backend) == []
        assert samples_of(always(max_hedges=1), (0.3, error), (0.2, error), backend=backend) == []


def test_a_superseded_loser_is_a_sample_of_the_time_it_took_so_far(backend):
    assert samples_of(always(), (10.0, 1), (0.5, 2), backend=backend) == [0.5, 1.5]
    assert samples_of(always(), (1.2, 1), (10.0, 2), backend=backend) == [1.2, pytest.approx(0.2)]


def test_a_loser_of_a_failed_call_is_no_sample(backend):
    assert samples_of(always(), (1.2, ValueError()), (10.0, 2), backend=backend) == []


def test_a_cancelled_call_is_no_sample(backend):
    async def main():
        strategy = always()
        guarded = strategy(Service((10.0, 1)).__call__)
        with pytest.raises(CallTimeoutError):
            await timeout(3.0)(guarded)()
        assert strategy.core_here().single.sketch.count(clock.current().now()) == 0

    testing.run(main, backend=backend)


# --- what it costs the dependency -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra_load", [0.02, 0.05, 0.1])
def test_no_more_hedges_are_sent_than_the_extra_load_allows(extra_load):
    async def main():
        strategy = hedge(max_extra_load=extra_load)
        everything_slow = Service(*[(0.1, 1)] * 60, (1.0, 1))  # the dependency slows down as a whole
        guarded = strategy(everything_slow.__call__)
        for _ in range(1000):
            await guarded()
            if strategy.core_here().single.sent:
                assert strategy.core_here().single.sent <= extra_load * 1000
        return len(everything_slow.started) - 1000

    assert testing.run(main) <= extra_load * 1000


def test_an_empty_budget_refuses_the_hedge_and_kills_nothing_in_flight(backend):
    """failsafe-go#139: exceeding the budget cancelled the hedges that were running."""

    async def main():
        strategy = hedge(delay=1.0, max_extra_load=0.5)
        await learn(strategy(Service((0.0, 1)).__call__), 1)
        guarded = strategy(service := Service((10.0, "a"), (10.0, "b"), (3.0, "copy"), (0.1, "never")))
        async with _together() as start:
            first = start(guarded)
            second = start(guarded)
        assert sorted((first.result, second.result)) == ["b", "copy"] or sorted((first.result, second.result)) == [
            "a",
            "copy",
        ]
        assert len(service.started) == 3
        target = strategy.core_here().single
        assert (target.sent, target.won, target.refused) == (1, 1, 1)

    testing.run(main, backend=backend)


class _together:  # noqa: N801 - reads as what it does
    """Start async functions side by side; their results are there after the block."""

    class Job:
        result = None

    async def __aenter__(self):
        self._jobs = []
        return self._start

    def _start(self, fn):
        job = self.Job()
        self._jobs.append((job, fn))
        return job

    async def __aexit__(self, *_):
        async def work(job, fn):
            job.result = await fn()

        if clock.in_trio():
            async with sys.modules["trio"].open_nursery() as nursery:
                for pair in self._jobs:
                    nursery.start_soon(work, *pair)
        else:
            await asyncio.gather(*(work(*pair) for pair in self._jobs))


def test_hedges_are_counted_as_sent_and_won(backend):
    async def main():
        strategy = always()
        await strategy(Service((10.0, 1), (0.1, 2)).__call__)()
        target = strategy.core_here().single
        assert (target.sent, target.won) == (1, 1)
        await strategy(Service((1.5, 1), (9.0, 2)).__call__)()
        assert (target.sent, target.won) == (2, 1)

    testing.run(main, backend=backend)


def test_calls_earn_in_our_own_budget_only_and_hedges_are_paid_from_both():
    """Finagle: the local budget goes from 300 to 301 while the client's stays at 50."""

    async def main():
        shared = RetryBudget(ratio=1.0, min_per_second=5)
        strategy = always(budget=shared)
        target, both = strategy.core_here().single, shared.at(clock.current())
        await learn(strategy(Service((0.0, 1)).__call__), 300)
        moment = clock.current().now()
        assert (target.allowance.left(moment), both.left(moment)) == (pytest.approx(300), 50)
        await learn(strategy(Service((0.0, 1)).__call__), 1)
        assert (target.allowance.left(moment), both.left(moment)) == (pytest.approx(301), 50)
        await strategy(Service((10.0, 1), (0.1, 2)).__call__)()
        moment = clock.current().now()
        assert (target.allowance.left(moment), both.left(moment)) == (pytest.approx(301), 49)

    testing.run(main)


def test_an_empty_shared_budget_stops_hedging_and_costs_our_own_nothing(backend):
    async def main():
        shared = RetryBudget(ratio=0.0, min_per_second=0)
        strategy = always(budget=shared)
        service = Service((10.0, "original"), (0.1, "copy"))
        assert await strategy(service.__call__)() == "original"
        target = strategy.core_here().single
        assert target.allowance.left(clock.current().now()) == pytest.approx(1.0)
        assert target.refused == 1

    testing.run(main, backend=backend)


def test_a_hedge_that_our_own_budget_refuses_costs_the_shared_one_nothing(backend):
    async def main():
        shared = RetryBudget(ratio=0.0, min_per_second=5)
        service = Service((10.0, "original"), (0.1, "copy"))
        assert await hedge(delay=1.0, max_extra_load=0.1, budget=shared)(service.__call__)() == "original"
        assert shared.at(clock.current()).left(clock.current().now()) == 50

    testing.run(main, backend=backend)


def test_a_budget_is_shared_with_the_retry_of_the_same_dependency():
    async def main():
        shared = RetryBudget(ratio=0.0, min_per_second=0.2)  # two within the window
        fails = retry(on=ConnectionError, budget=shared, jitter="none")(Service((0.0, ConnectionError())).__call__)
        with pytest.raises(ConnectionError):
            await fails()
        service = Service((10.0, "original"), (0.1, "copy"))
        assert await always(budget=shared)(service.__call__)() == "original"

    testing.run(main)


def test_nested_hedges_do_not_multiply(backend):
    service = Service((50.0, 1), (50.0, 2), (50.0, 3), (50.0, 4))
    inner, outer = always(delay=0.5, name="inner"), always(delay=1.0, name="outer")
    call(Pipeline(outer, inner), service, backend)
    assert len(service.started) == 2


def test_a_nested_hedge_hedges_while_the_outer_one_cannot(backend):
    service = Service((50.0, 1), (0.5, 2))
    answer, _, _ = call(Pipeline(hedge(name="outer"), always(name="inner")), service, backend)
    assert answer == 2


def test_a_task_that_outlives_the_attempt_may_hedge_again():
    async def main():
        service = Service((50.0, 1), (0.5, 2))
        inner = always()(service.__call__)
        tasks = []

        @always()
        async def outer():
            tasks.append(asyncio.create_task(late()))

        async def late():
            await asyncio.sleep(1)
            return await inner()

        await outer()
        assert await tasks[0] == 2

    testing.run(main)


def test_partitions_have_latencies_and_budgets_of_their_own(backend):
    async def main():
        strategy = hedge(max_extra_load=0.5, partition=lambda model: model)
        service = Service((0.1, 1))
        guarded = strategy(service.__call__)
        for _ in range(60):
            await guarded("small")
        service.plan = ((5.0, 1),)
        await guarded("large")  # not known yet: not hedged
        assert len(service.started) == 61
        await guarded("small")
        assert len(service.started) == 63
        assert {line.split()[0] for line in strategy.describe()} == {"[small]", "[large]"}

    testing.run(main, backend=backend)


# --- context and results ----------------------------------------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="outside")


@pytest.mark.parametrize("make", [hedge, always], ids=["alone", "raced"])
def test_each_attempt_runs_in_a_copy_of_the_context(make, backend):
    seen = []

    async def main():
        variable.set("caller")

        @make()
        async def fn():
            seen.append(variable.get())
            variable.set("attempt")
            await now(0)
            assert variable.get() == "attempt"
            await now(3.0 if len(seen) == 1 else 0.1)

        await fn()
        assert variable.get() == "caller"

    testing.run(main, backend=backend)
    assert set(seen) == {"caller"}
    assert len(seen) == (2 if make is always else 1)


def test_the_attempt_of_a_retry_around_is_known_inside(backend):
    seen = []

    async def main():
        @guard(retry(on=LookupError, jitter="none"), always())
        async def fn():
            seen.append(current_attempt())
            await now(0.1)
            if len(seen) < 3:
                raise LookupError

        await fn()

    testing.run(main, backend=backend)
    assert seen == [1, 2, 3]


class Response:
    def __init__(self, *closers):
        self.closed = []
        for closer in closers:
            setattr(self, closer, functools.partial(self._close, closer))

    def _close(self, how):
        self.closed.append(how)
        if how == "aclose":
            return now(0)
        return None


@pytest.mark.parametrize(
    ("closers", "used"),
    [(("close",), ["close"]), (("release", "close"), ["release"]), (("aclose", "close"), ["aclose"]), ((), [])],
)
def test_a_discarded_result_is_closed(closers, used, backend):
    winner, loser = Response("aclose", "release", "close"), Response(*closers)

    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            if len(calls) == 2:
                return winner
            try:
                await now(10)
            except BaseException as error:
                if not clock.in_trio() or isinstance(error, sys.modules["trio"].Cancelled):
                    return loser  # it swallows the cancellation: its result came all the same
                raise

        assert await fn() is winner

    testing.run(main, backend=backend)
    assert loser.closed == used
    assert winner.closed == []


def test_a_result_that_fails_to_close_changes_nothing():
    class Bad:
        def close(self):
            raise OSError("already gone")

    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            if len(calls) == 2:
                return "winner"
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                return Bad()

        assert await fn() == "winner"

    testing.run(main)


def test_the_result_that_all_attempts_share_stays_open():
    shared = Response("close")

    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            if len(calls) == 1:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    return shared
            return shared

        assert await fn() is shared

    testing.run(main)
    assert shared.closed == []


@pytest.mark.parametrize("colour", ["asyncio", "trio", "sync"])
def test_the_error_that_leaves_keeps_nothing_alive(colour):
    """Frames pin tensors: those of the copy are gone when the error leaves, all of them when it was handled."""

    class Tensor:
        pass

    tensors = []

    def attempt():
        tensor = Tensor()
        tensors.append(weakref.ref(tensor))
        raise ConnectionError(len(tensors))

    @always(delay=60.0)
    async def fn():
        await now(0.1)
        attempt()

    async def main():
        try:
            await fn() if colour != "sync" else always(delay=60.0)(attempt)()
        except ConnectionError as error:
            assert error.args == (1,)  # noqa: PT017 - pytest.raises would keep it
            assert tensors[1]() is None, "the frames of the copy are kept alive"
        assert tensors[0]() is None, "the frames of the original are kept alive"

    gc.disable()
    try:
        testing.run(main, backend="trio" if colour == "trio" else "asyncio")
    finally:
        gc.enable()


# --- with others ------------------------------------------------------------------------------------------------------


def test_each_copy_takes_its_own_permits(backend):
    async def main():
        slots = bulkhead(1, max_queue=0)
        service = Service((3.0, "original"), (0.1, "copy"))
        assert await guard(always(), slots)(service.__call__)() == "original"
        assert len(service.started) == 1, "the copy was refused: there is one slot"
        assert all(gate.idle() for gate in slots.gates())

    testing.run(main, backend=backend)


def test_no_copy_starts_when_the_deadline_is_over(backend):
    async def main():
        service = Service((1.0, ConnectionError("late")), (0.1, "copy"))
        guarded = always(delay=60.0)(service.__call__)
        with pytest.raises((ConnectionError, CallTimeoutError)), deadline(1.0):
            await guarded()
        assert len(service.started) == 1

    testing.run(main, backend=backend)


def test_a_total_timeout_cancels_all_copies(backend):
    service = Service((50.0, 1), (50.0, 2))
    answer, seconds, _ = call(Pipeline(timeout(3.0), always()), service, backend)
    assert isinstance(answer, CallTimeoutError)
    assert seconds == pytest.approx(3.0)
    assert service.ended == {1: "cancelled", 2: "cancelled"}


def test_an_attempt_timeout_bounds_each_copy_and_starts_the_next(backend):
    service = Service((50.0, 1), (0.1, 2))
    answer, seconds, _ = call(guard(always(delay=30.0), timeout(2.0, scope="attempt")), service, backend)
    assert (answer, seconds) == (2, pytest.approx(2.1))


# --- modes and options ------------------------------------------------------------------------------------------------


def test_observe_tells_of_the_hedge_and_starts_none(backend):
    service = Service((10.0, "slow"), (0.1, "copy"))
    answer, seconds, recorded = call(always(mode="observe"), service, backend)
    assert (answer, seconds, len(service.started)) == ("slow", pytest.approx(10.0), 1)
    assert [(type(event), event.observed) for event in recorded] == [(events.HedgeStarted, True)]


def test_observe_tells_of_a_failure_that_would_have_been_hedged(backend):
    error = ConnectionError()
    answer, _, recorded = call(always(mode="observe"), Service((0.1, error)), backend)
    assert answer is error
    assert [type(event) for event in recorded] == [events.HedgeStarted]
    assert not hasattr(error, "__notes__")


def test_observe_says_nothing_of_a_quick_call(backend):
    assert call(always(mode="observe"), Service((0.1, 1)), backend)[2] == []
    assert call(hedge(mode="observe"), Service((0.1, ConnectionError())), backend)[2] == []


def test_observe_survives_a_partition_that_fails(caplog):
    strategy = always(mode="observe", partition=lambda: 1 / 0)
    assert call(strategy, Service((0.1, "answer")))[0] == "answer"
    assert "could not observe" in caplog.text


def test_off_does_nothing(backend):
    answer, seconds, recorded = call(always(mode="off"), Service((10.0, "slow"), (0.1, 2)), backend)
    assert (answer, seconds, recorded) == ("slow", pytest.approx(10.0), [])


@pytest.mark.parametrize(
    ("option", "values"),
    {
        "max_extra_load": (0, -0.1, 1.1, NAN, INF, True, "5%", None),
        "delay": (-1, NAN, INF, True, "1", timedelta(seconds=-1)),
        "max_hedges": (0, -1, 1.5, True, NAN, "1", None),
        "budget": ("default", 3, True),
        "partition": (3, "model"),
        "mode": ("maybe", None),
        "name": ("", 3),
        "on_event": (3,),
    }.items(),
)
def test_options_are_checked_and_the_message_names_them(option, values):
    for value in values:
        with pytest.raises((ValueError, TypeError), match=option):
            hedge(**{option: value})


def test_configure_keeps_what_is_known_and_begins_a_new_budget():
    async def main():
        strategy = hedge(max_extra_load=0.5)
        await learn(strategy(Service((0.1, 1)).__call__), 60)
        target = strategy.core_here().single
        moment = clock.current().now()
        strategy.configure(mode="enforce")
        assert target.allowance.left(moment) == pytest.approx(30)
        strategy.configure(max_extra_load=0.1)
        assert target.allowance.left(moment) == 0
        assert target.delay() == pytest.approx(0.1, rel=0.021)
        with (
            pytest.raises(TypeError, match="max_extra_load is the same for all calls"),
            strategy.override(max_extra_load=0.2),
        ):
            pass
        service = Service((10.0, "original"), (0.1, "copy"))
        with strategy.override(delay=2.0, mode="off"):
            assert await strategy(service.__call__)() == "original"

    testing.run(main)


def test_it_says_what_it_does_now():
    async def main():
        strategy = hedge(max_extra_load=0.1)
        guarded = strategy(Service((0.1, 1)).__call__)
        await learn(guarded, 20)
        assert strategy.describe() == ["learning, 20 of 50 samples; hedges: 2 left, 0 sent, 0 won"]
        await learn(guarded, 40)
        assert strategy.describe()[0].startswith("after 0.1")

    testing.run(main)


def test_it_pickles_as_its_options():
    again = pickle.loads(pickle.dumps(hedge(delay=3, budget=RetryBudget(0.5), name="pickled")))
    assert isinstance(again, Hedge)
    assert again.options.delay == 3.0
    assert again.name == "pickled"
    assert HedgeOptions(delay=timedelta(seconds=3)).delay == 3.0  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_generators_are_refused(kind):
    async def items():
        yield 1

    def more_items():
        yield 1

    with pytest.raises(TypeError, match=f"hedge cannot guard .* {kind} function"):
        hedge()(items if kind == "async generator" else more_items)


def test_it_stands_in_its_place():
    strategies = guard(timeout(1, scope="attempt"), bulkhead(3), hedge(), retry(), timeout(9))
    assert [each.role for each in strategies] == ["timeout", "retry", "hedge", "bulkhead", "attempt_timeout"]


def test_five_tasks_share_one_hedged_function(backend):
    async def main():
        strategy = always()
        await learn(strategy(Service((0.0, 0)).__call__), 5)
        service = Service(*[(10.0, "slow")] * 5, (0.5, "copy"))
        guarded = strategy(service.__call__)
        async with _together() as start:
            jobs = [start(guarded) for _ in range(5)]
        assert [job.result for job in jobs] == ["copy"] * 5
        assert len(service.started) == 10
        assert service.running == 0

    testing.run(main, backend=backend)


def test_a_call_that_cannot_be_hedged_any_more_waits_without_a_timer(backend):
    """Refused by the budget, it waits for the original, however long that takes."""
    service = Service((5000.0, "slow"))
    answer, seconds, _ = call(hedge(delay=1.0, max_extra_load=0.01), service, backend)
    assert (answer, seconds) == ("slow", pytest.approx(5000.0))


def test_a_stream_is_hedged_until_it_opens_and_the_loser_is_closed():
    class Stream:
        def __init__(self):
            self.closed = False
            self.items = iter("ab")

        def __aiter__(self):
            return self

        async def __anext__(self):
            for item in self.items:
                return item
            raise StopAsyncIteration

        async def aclose(self):
            self.closed = True

    async def main():
        slots, opened = bulkhead(2), []

        @guard(always(), slots, stream=True)
        async def stream():
            opened.append(Stream())
            mine = opened[-1]
            try:
                await asyncio.sleep(10 if len(opened) == 1 else 0.1)
            except asyncio.CancelledError:
                """Returns all the same."""
            return mine

        found = await stream()
        assert [each.closed for each in opened] == [True, False]
        assert slots.gates()[0].taken == 1, "the winner keeps its permit until it is closed"
        assert [item async for item in found] == ["a", "b"]
        await found.aclose()
        assert slots.gates()[0].taken == 0

    testing.run(main)
