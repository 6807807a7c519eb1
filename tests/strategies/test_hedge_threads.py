"""`hedge` around plain functions: attempts in threads, losers left behind."""

from __future__ import annotations

import contextvars
import itertools
import signal
import threading

import pytest

import asyncguard
from asyncguard import Pipeline, bulkhead, events, testing, timeout
from asyncguard._runtime import clock, race_threads
from asyncguard.strategies.hedge import hedge

LONG = 60.0  # seconds: what a test waits for at most, if it is broken


def always(**options):
    """A hedge whose budget is never what decides; the copy starts soon, on real time."""
    return hedge(**{"delay": 0.001, "max_extra_load": 1.0, **options})


class Blocked:
    """The first attempt blocks until it is let go, later ones answer at once."""

    def __init__(self, answer="copy", late="late"):
        self.calls = itertools.count()
        self.answer = answer
        self.late = late
        self.go = threading.Event()
        self.gone = threading.Event()
        self.thread = None

    def __call__(self):
        if next(self.calls):  # atomic: the copy may overtake the original on its way here
            return self.answer
        self.thread = threading.current_thread()
        try:
            assert self.go.wait(LONG)
            if isinstance(self.late, BaseException):
                raise self.late
            return self.late
        finally:
            self.gone.set()

    def end(self):
        self.go.set()
        self.thread.join(LONG)
        assert not self.thread.is_alive()


def test_the_copy_wins_and_nobody_waits_for_the_loser():
    """backon waits for every thread."""
    service = Blocked()
    with testing.record_events() as recorded:
        assert always()(service.__call__)() == "copy"
        assert not service.gone.is_set()
    assert [type(event) for event in recorded] == [events.HedgeStarted, events.WorkAbandoned, events.HedgeFinished]
    assert recorded[1].running == race_threads._abandoned == 1
    service.end()
    assert race_threads._abandoned == 0


def test_a_quick_call_starts_no_copy():
    calls = []
    assert always(delay=LONG)(lambda: calls.append(1))() is None
    assert calls == [1]


def test_a_failure_that_may_pass_starts_the_next_at_once():
    calls = []

    @always(delay=LONG)
    def fn():
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return "copy"

    assert fn() == "copy"


def test_if_all_fail_the_error_of_the_original_leaves_with_a_note():
    calls = []

    @always(delay=LONG)
    def fn():
        calls.append(1)
        raise ConnectionError(len(calls))

    with pytest.raises(ConnectionError) as caught:
        fn()
    assert caught.value.args == (1,)
    assert "2 attempts" in caught.value.__notes__[0]


def test_a_permanent_failure_leaves_as_it_is():
    error = ValueError("bad")

    @always()
    def fn():
        raise error

    with pytest.raises(ValueError, match="bad") as caught:
        fn()
    assert caught.value is error
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("falsy", [None, 0, "", []], ids=repr)
def test_a_falsy_result_is_a_result(falsy):
    assert always(delay=LONG)(lambda: falsy)() is falsy


def test_the_result_of_a_loser_is_closed():
    class Response:
        def __init__(self):
            self.closed = threading.Event()

        def close(self):
            self.closed.set()

    service = Blocked(answer=Response(), late=Response())
    assert always()(service.__call__)() is service.answer
    service.end()
    assert service.late.closed.is_set()
    assert not service.answer.closed.is_set()


def test_the_result_that_all_attempts_share_stays_open():
    class Client:
        closed = False

        def close(self):
            self.closed = True

    shared = Client()
    service = Blocked(answer=shared, late=shared)
    assert always()(service.__call__)() is shared
    service.end()
    assert not shared.closed


def test_the_failure_of_a_loser_goes_nowhere():
    service = Blocked(late=OSError("late"))
    assert always()(service.__call__)() == "copy"
    service.end()


def test_a_loser_that_is_left_behind_keeps_the_permits_around_the_hedge():
    service, slots = Blocked(), bulkhead(1, max_queue=0)
    with pytest.warns(UserWarning, match="both copies share one slot"):
        fn = slots(always()(service))
    assert fn() == "copy"
    (gate,) = slots.gates()
    assert gate.taken == 1
    service.end()
    assert gate.taken == 0


def test_each_attempt_runs_in_a_copy_of_the_context():
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("caller")
    seen = []

    @always(delay=LONG)
    def fn():
        seen.append(variable.get())
        variable.set("attempt")
        if len(seen) == 1:
            raise ConnectionError

    fn()
    assert seen == ["caller", "caller"]
    assert variable.get() == "caller"


def test_attempts_run_in_other_threads_from_the_first_call_on():
    """What depends on its thread fails in the first test, not on the fifty-first call."""
    assert hedge()(threading.current_thread)() is not threading.current_thread()


def test_nested_hedges_do_not_multiply():
    calls = []

    def fn():
        calls.append(threading.current_thread())
        raise ConnectionError

    guarded = Pipeline(always(delay=LONG, name="outer"), always(delay=LONG, name="inner"))(fn)
    with pytest.raises(ConnectionError):
        guarded()
    assert len(calls) == 2


def test_no_hedge_before_fifty_samples():
    calls = []

    def failing():
        calls.append(1)
        raise ConnectionError

    strategy = hedge(max_extra_load=1.0)
    with pytest.raises(ConnectionError):
        strategy(failing)()
    assert len(calls) == 1


def test_the_delay_counts_on_a_virtual_clock_that_somebody_moves():
    service, calls = Blocked(), itertools.count()

    def fn():
        if not next(calls):
            clock.current().sleep_sync(2.0)  # later than the delay by the only clock there is
        return service()

    with testing.virtual_clock():
        assert always(delay=1.0)(fn)() == "copy"
        service.end()
        assert always(delay=LONG)(lambda: "original")() == "original"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_an_interrupt_in_an_attempt_leaves_through_the_caller(interrupt):
    @always()
    def fn():
        raise interrupt

    with pytest.raises(interrupt):
        fn()


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_control_c_leaves_the_caller_at_once():
    service = Blocked()
    calls = []

    @always(delay=LONG)
    def fn():
        calls.append(1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return service()

    with pytest.raises(KeyboardInterrupt):
        fn()
    assert calls == [1]
    service.go.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "asyncguard" in thread.name:
            thread.join(LONG)
    assert race_threads._abandoned == 0


def test_without_a_thread_to_be_had_the_original_runs_in_the_callers(monkeypatch):
    def none(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert always()(threading.current_thread)() is threading.current_thread()


def test_without_a_thread_to_be_had_there_is_no_copy(monkeypatch):
    service, start = Blocked(late="original"), threading.Thread.start
    slots = bulkhead(1)

    def only_once(thread):
        if service.thread is not None:
            service.go.set()
            raise RuntimeError("can't start new thread")
        start(thread)
        while service.thread is None:
            clock.REAL.sleep_sync(0)

    monkeypatch.setattr(threading.Thread, "start", only_once)
    with pytest.warns(UserWarning, match="both copies share one slot"):
        fn = slots(always()(service))
    assert fn() == "original"
    assert slots.gates()[0].taken == 0


def test_observe_and_off_run_in_the_callers_thread():
    for mode in ("observe", "off"):
        assert always(mode=mode)(threading.current_thread)() is threading.current_thread()


def test_a_timeout_around_it_starts_no_copy_after_the_deadline():
    calls = []

    def fn():
        calls.append(1)
        clock.current().sleep_sync(5.0)
        raise ConnectionError

    with testing.virtual_clock(), pytest.raises((ConnectionError, TimeoutError)):
        Pipeline(timeout(3.0), always(delay=60.0))(fn)()
    assert calls == [1]


def test_many_callers_at_once_get_what_they_asked_for():
    strategy = always(delay=0.0)
    guarded = strategy(lambda number: number)
    got = []

    def caller(number):
        for _ in range(20):
            got.append(guarded(number) == number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 160
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "asyncguard" in thread.name:
            thread.join(LONG)
    assert race_threads._abandoned == 0


def test_status_says_what_it_does_now():
    fn = Pipeline(always(delay=0.25), name="threads.hedged")(lambda: 1)
    fn()
    assert "threads.hedged hedge: after 0.25 s; hedges: 1 left, 0 sent, 0 won" in str(asyncguard.status())
