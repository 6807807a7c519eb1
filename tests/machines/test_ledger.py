"""The ledger and its gates, without a loop: who is let in, who waits, what is given back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from asyncguard._machines.estimate import Learner
from asyncguard._machines.gate import Request
from asyncguard._machines.ledger import FRESH
from asyncguard._machines.levels import PROCESS, Level, Reading
from asyncguard._machines.memory_queue import MOST_PASSES
from asyncguard._machines.memory_shared import SLICE
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard.errors import MemoryPressureError
from tests.machines.memory_bench import LIMIT, Bench, Spot, empty

# --- the rule ---


def test_what_is_promised_counts_before_it_is_used() -> None:
    bench = Bench(used=100)
    gate = bench.gate(300)
    bench.enter(gate)
    bench.enter(gate)
    bench.wait(gate)  # 100 in use, 600 promised: 1000 is more than 900


def test_what_is_used_counts_if_it_is_more_than_was_promised() -> None:
    bench = Bench(used=100)
    gate = bench.gate(100)
    bench.enter(gate)
    bench.use(850)
    bench.wait(gate)


def test_a_call_that_has_allocated_what_it_promised_is_not_counted_twice() -> None:
    bench = Bench(used=100)
    gate = bench.gate(300)
    bench.enter(gate)
    bench.use(400)
    bench.enter(gate)
    assert bench.ledger.accounts["box"].base == 100


def test_growth_that_the_promises_do_not_explain_raises_the_base() -> None:
    bench = Bench(used=100)
    gate = bench.gate(100)
    bench.enter(gate)
    bench.use(600)  # a cache has grown: at most 100 of it are the call's
    bench.ledger.look(bench.now)
    assert bench.ledger.accounts["box"].base == 500


def test_the_base_is_exact_again_when_nothing_runs() -> None:
    bench = Bench(used=100)
    gate = bench.gate(100)
    permit = bench.enter(gate)
    bench.use(600)
    bench.ledger.look(bench.now)
    gate.release(permit)
    bench.use(150)
    bench.ledger.look(bench.now)
    assert bench.ledger.accounts["box"].base == 150


def test_what_was_given_back_lowers_the_base_although_calls_run() -> None:
    bench = Bench(used=500)
    gate = bench.gate(300)
    bench.enter(gate)
    bench.use(600)
    bench.ledger.look(bench.now)
    bench.use(400)
    bench.ledger.relieve(200)
    assert bench.ledger.accounts["box"].base == 300


def test_every_level_must_have_room() -> None:
    bench = Bench()
    bench.reading([Level("pod", 10_000, 9_500), Level("box", 1000, 0)])
    gate = bench.gate(10)
    bench.enter(gate)  # nothing runs: let in in any case
    ticket = bench.wait(gate)
    assert "(pod)" in str(ticket.late(bench.now))


def test_the_limit_option_bounds_the_process_only() -> None:
    bench = Bench()
    bench.reading([Level("box", 10_000, 5_000), Level(PROCESS, None, 100)])
    gate = bench.gate(300, limit=500)
    bench.enter(gate)
    assert "of 0.0 MiB may be used (process)" in str(bench.wait(gate).late(bench.now))


def test_min_free_stays_free_whatever_the_threshold_says() -> None:
    bench = Bench(used=0)
    gate = bench.gate(350, min_free=400)
    bench.enter(gate)
    bench.wait(gate)


def test_without_any_level_only_the_limit_option_counts() -> None:
    bench = Bench()
    bench.reading([Level(PROCESS, None, 0)])
    free, bound = bench.gate(10**12), bench.gate(300, limit=1000)
    bench.enter(free)
    assert math.isinf(free.ceiling())
    assert str(free.decided("admitted", 0)).startswith("nothing is limited, ")
    bench.wait(bound)


def test_readings_serve_ten_milliseconds() -> None:
    bench = Bench()
    gate = bench.gate(1)
    for _ in range(10):
        gate.release(gate.take())
    assert bench.reads == 1
    bench.now += FRESH
    gate.take()
    assert bench.reads == 2


# --- the fast path ---


def test_the_fast_path_and_the_slow_one_come_to_the_same() -> None:
    fast, slow = Bench(used=100), Bench(used=100)
    one, other = fast.gate(250), slow.gate(250)
    for _ in range(3):
        one.take()
        slow.enter(other)
    with pytest.raises(LookupError):
        one.take()
    slow.wait(other)
    assert (fast.ledger.reserved, fast.ledger.running) == (slow.ledger.reserved, slow.ledger.running)


def test_the_fast_path_does_not_pass_the_queue() -> None:
    bench = Bench()
    gate, small = bench.gate(500), bench.gate(1)
    bench.enter(gate)
    bench.wait(gate)
    with pytest.raises(LookupError):
        small.take()


# --- progress ---


def test_when_nothing_runs_a_call_is_let_in_although_it_does_not_fit() -> None:
    bench = Bench(used=890)
    permit = bench.enter(bench.gate(100))
    assert permit.forced


def test_only_one_call_is_forced_in_at_a_time() -> None:
    bench = Bench(used=890)
    gate = bench.gate(100)
    first = bench.enter(gate)
    second = bench.wait(gate)
    assert gate.release(first) == [second.spot]
    assert second.claim(bench.now).forced


def test_a_call_that_is_refused_lets_in_whom_its_reading_makes_room_for_and_wakes_them() -> None:
    bench = Bench(used=107)
    gate = bench.gate(None)
    bench.enter(gate, 205)
    ticket = bench.wait(gate, 589)
    bench.use(0)
    with pytest.raises(MemoryPressureError):
        bench.ask(gate, 901)  # its look shows that another program has given 107 back
    assert ticket.spot.woken == 1  # type: ignore[attr-defined]
    assert bench.ledger.standing() == (794, 2)
    assert ticket.claim(bench.now) is not None


@pytest.mark.parametrize("waits", [True, False])
def test_a_call_that_can_never_fit_is_refused_at_once(waits: bool) -> None:
    bench = Bench(used=100)
    with pytest.raises(MemoryPressureError) as caught:
        bench.ask(bench.gate(901, waits=waits))
    error = caught.value
    assert (error.permanent, error.need, error.limit, error.used, error.reserved) == (True, 901, 1000, 100, 0)
    assert empty(bench.ledger)


def test_a_limit_that_shrinks_refuses_those_who_wait_for_what_can_never_fit() -> None:
    bench = Bench()
    gate = bench.gate(None)
    bench.enter(gate, 500)
    request = Request(spot=Spot(), cost=600)
    ticket = gate.admit(request)
    assert isinstance(ticket, MemoryTicket)
    bench.use(0, limit=600)
    assert ticket.claim(bench.now) is None
    assert request.until == -math.inf, "the driver stops waiting"
    assert ticket.late(bench.now).permanent


def test_a_guard_that_does_not_wait_refuses_with_the_numbers() -> None:
    bench = Bench(used=100)
    gate = bench.gate(500, waits=False)
    bench.enter(gate)
    with pytest.raises(MemoryPressureError, match=r"^guard: no room for .*, promised .* to 1 running call,") as caught:
        bench.ask(gate)
    assert not caught.value.permanent
    assert (caught.value.reserved, caught.value.need) == (500, 500)
    assert not bench.ledger.queue


# --- the queue ---


def test_first_come_first_served() -> None:
    bench = Bench()
    gate = bench.gate(400)
    running = [bench.enter(gate), bench.enter(gate)]
    waiting = [bench.wait(gate) for _ in range(3)]
    for permit, ticket in zip(running, waiting, strict=False):
        assert gate.release(permit)[0] is ticket.spot


def test_a_small_call_passes_a_big_one_that_waits_sixteen_times() -> None:
    bench = Bench()
    big, small = bench.gate(800), bench.gate(100)
    bench.enter(small)
    bench.enter(small)
    head = bench.wait(big)
    for _ in range(MOST_PASSES):
        bench.end(small, bench.enter(small))
    held = bench.wait(small)
    assert head.passed == MOST_PASSES
    assert held.claim(bench.now) is None


def test_the_one_who_holds_the_door_gets_in_before_those_behind_it() -> None:
    bench = Bench()
    big, small = bench.gate(800), bench.gate(100)
    running = [bench.enter(small), bench.enter(small)]
    head = bench.wait(big)
    head.passed = MOST_PASSES
    behind = bench.wait(small)
    for permit in running:
        small.release(permit)
    assert head.claim(bench.now) is not None
    assert behind.claim(bench.now) is not None, "and then those who still fit"


def test_a_waiter_on_a_stopped_loop_keeps_its_place_and_blocks_nobody() -> None:
    bench = Bench()
    gate = bench.gate(500)
    first = bench.enter(gate)
    sleeping, awake = bench.wait(gate), bench.wait(gate)
    sleeping.spot.dead = True
    assert gate.release(first) == [awake.spot]


def test_what_was_granted_to_a_loop_that_stopped_goes_to_the_next_and_it_is_the_first_again() -> None:
    bench = Bench()
    gate = bench.gate(500)
    first = bench.enter(gate)
    stopped, behind = bench.wait(gate), bench.wait(gate)
    assert gate.release(first) == [stopped.spot, behind.spot]
    stopped.spot.dead = True
    reads = bench.reads
    served = behind.claim(bench.now)
    assert served is not None
    assert bench.reads == reads + 1, "the promise is taken back before a reading, as if the call had ended"
    assert list(bench.ledger.queue) == [stopped]
    last = bench.wait(gate)
    assert list(bench.ledger.queue) == [stopped, last]
    stopped.spot.dead = False
    gate.release(served)
    taken = stopped.claim(bench.now)
    assert taken is not None
    last.withdraw()
    gate.release(taken)
    assert empty(bench.ledger)
    assert gate.idle()


def test_several_that_stopped_keep_their_order() -> None:
    bench = Bench()
    gate = bench.gate(200)
    running = [bench.enter(gate) for _ in range(4)]
    stopped = [bench.wait(gate) for _ in range(3)]
    for permit in running:
        gate.release(permit)
    for ticket in stopped:
        ticket.spot.dead = True
    whole = bench.enter(gate, 800)
    assert list(bench.ledger.queue) == stopped
    gate.release(whole)
    for ticket in stopped:
        ticket.withdraw()
    assert empty(bench.ledger)


def test_a_first_call_granted_to_a_loop_that_stopped_makes_the_next_one_the_first() -> None:
    bench = Bench()
    gate, other = bench.gate(Learner()), bench.gate(800)
    running = bench.enter(other)
    ticket = bench.wait(gate)
    other.release(running)
    assert bench.ledger.measuring is not None
    ticket.spot.dead = True
    permit = bench.enter(gate)
    assert permit.measured
    bench.end(gate, permit)
    ticket.withdraw()
    assert empty(bench.ledger)


def test_a_call_inside_granted_to_a_loop_that_stopped_stalls_its_caller_again() -> None:
    bench = Bench()
    gate = bench.gate(400)
    caller, other = bench.enter(gate), bench.enter(gate)
    inside = bench.wait(gate, 900, inside=caller)
    gate.release(other)
    assert bench.ledger._stalled == 0, "it was let in"
    inside.spot.dead = True
    newcomer = bench.enter(gate, 100)
    assert bench.ledger._stalled == 1
    assert list(bench.ledger.queue) == [inside]
    inside.spot.dead = False
    gate.release(newcomer)
    permit = inside.claim(bench.now)
    assert permit is not None
    assert permit.lent == 400
    gate.release(permit)
    gate.release(caller)
    assert empty(bench.ledger)


def test_who_waits_past_its_time_on_a_loop_that_was_closed_is_forgotten() -> None:
    bench = Bench()
    gate = bench.gate(500)
    running = bench.enter(gate)
    lost = gate.admit(Request(spot=Spot(), cost=500, until=bench.now + 10.0))
    assert isinstance(lost, MemoryTicket)
    lost.spot.dead = True
    bench.now += 5.0
    bench.wait(gate).withdraw()
    assert list(bench.ledger.queue) == [lost]
    bench.now += 5.0
    bench.wait(gate).withdraw()
    assert not bench.ledger.queue
    assert gate.waiting == 0
    gate.release(running)
    assert empty(bench.ledger)
    assert gate.idle()


def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    bench = Bench()
    gate = bench.gate(500)
    first = bench.enter(gate)
    ticket = bench.wait(gate)
    ticket.withdraw()
    gate.release(first)
    assert empty(bench.ledger)
    assert gate.idle()


def test_a_waiter_cancelled_after_its_grant_passes_it_on() -> None:
    bench = Bench()
    gate = bench.gate(500)
    first = bench.enter(gate)
    one, other = bench.wait(gate), bench.wait(gate)
    gate.release(first)
    assert one.withdraw() == [other.spot]
    assert other.claim(bench.now) is not None


def test_when_the_big_one_at_the_head_leaves_those_behind_it_are_looked_at() -> None:
    bench = Bench()
    big, small = bench.gate(800), bench.gate(100)
    bench.enter(small)
    bench.enter(small)
    head = bench.wait(big)
    head.passed = MOST_PASSES
    behind = bench.wait(small)
    assert head.withdraw() == [behind.spot]


def test_a_waiter_looks_again_by_itself_in_growing_steps() -> None:
    bench = Bench(used=0)
    gate = bench.gate(600)
    bench.enter(gate)
    ticket = bench.wait(gate)
    start, dues = bench.now, []
    for _ in range(7):
        dues.append(ticket.due(bench.now) - bench.now)
        bench.now = ticket.due(bench.now)
    assert dues == pytest.approx([0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
    assert bench.now - start == pytest.approx(2.6)


def test_memory_that_another_program_gives_back_is_noticed_at_the_next_look() -> None:
    bench = Bench(used=0)
    gate = bench.gate(100)
    bench.enter(gate)
    bench.use(950)
    ticket = bench.wait(gate)
    bench.use(300)
    assert ticket.claim(bench.now) is not None


def test_somebody_who_waits_asks_for_memory_to_be_given_back() -> None:
    bench = Bench()
    gate = bench.gate(500)
    bench.enter(gate)
    assert bench.pressures == 0
    ticket = bench.wait(gate)
    ticket.claim(bench.now)
    assert bench.pressures == 2


def test_a_thousand_looks_without_any_change_search_the_queue_once() -> None:
    bench = Bench()
    gate = bench.gate(500)
    bench.enter(gate)
    tickets = [bench.wait(gate) for _ in range(5)]
    bench.ledger.settle()
    tickets[0].spot.alive = lambda: pytest.fail("looked at the queue again")  # type: ignore[method-assign]
    for ticket in tickets * 200:
        assert ticket.claim(bench.now) is None


# --- hysteresis ---


def test_after_a_refusal_nobody_gets_in_before_the_level_has_fallen_to_resume() -> None:
    bench = Bench()
    gate, small = bench.gate(440, threshold=0.9, resume=0.5), bench.gate(20, threshold=0.9, resume=0.5)
    running = [bench.enter(gate), bench.enter(gate)]
    tiny = bench.enter(small)
    first = bench.wait(small)
    small.release(tiny)  # 880: below the threshold, above resume
    assert first.claim(bench.now) is None
    assert "nothing is let in above 0.0 MiB (resume)" in str(first.late(bench.now))
    assert "(resume)" not in str(bench.wait(gate).late(bench.now)), "it does not fit at all"
    gate.release(running[0])
    assert first.claim(bench.now) is not None


# --- calls inside of calls ---


def test_a_call_inside_draws_on_what_its_caller_has_reserved() -> None:
    bench = Bench()
    gate = bench.gate(None)
    outer = bench.enter(gate, 400)
    inner = bench.enter(gate, 300, inside=outer)
    assert (bench.ledger.standing()[0], inner.lent) == (400, 300)
    second = bench.enter(gate, 300, inside=outer)
    assert (bench.ledger.standing()[0], second.lent) == (600, 100)
    for permit in (inner, second, outer):
        gate.release(permit)
    assert empty(bench.ledger)


def test_a_call_that_its_caller_has_paid_for_does_not_queue() -> None:
    bench = Bench()
    gate = bench.gate(None)
    outer = bench.enter(gate, 800)
    bench.wait(gate, 500)
    assert bench.enter(gate, 700, inside=outer).lent == 700


def test_a_caller_that_only_waits_for_the_call_inside_does_not_block_it() -> None:
    bench = Bench(used=150)
    gate = bench.gate(None)
    outer = bench.enter(gate, 700)
    inner = bench.enter(gate, 800, inside=outer)
    assert inner.forced


def test_a_call_inside_that_may_not_wait_does_not_make_its_caller_look_idle() -> None:
    bench = Bench()
    gate, refusing = bench.gate(None), bench.gate(500, waits=False)
    outer = bench.enter(gate, 450)
    ticket = bench.wait(gate, 500)  # does not fit, and is not forced in while the caller runs
    inner = bench.enter(refusing, inside=outer)
    assert (inner.lent, inner.forced, bench.ledger.standing()) == (450, False, (500, 2))
    assert ticket.claim(bench.now) is None
    refusing.release(inner)
    gate.release(outer)
    assert ticket.claim(bench.now) is not None


def test_two_callers_whose_calls_inside_wait_for_each_other_go_on() -> None:
    bench = Bench()
    gate = bench.gate(None)
    one, other = bench.enter(gate, 450), bench.enter(gate, 440)
    first = bench.wait(gate, 500, inside=one)
    second = bench.ask(gate, 500, inside=other)
    permit = first.claim(bench.now)
    assert permit is not None
    assert permit.forced
    assert isinstance(second, MemoryTicket)
    gate.release(permit)
    gate.release(one)
    other_permit = second.claim(bench.now)
    assert other_permit is not None
    gate.release(other_permit)
    gate.release(other)
    assert empty(bench.ledger)


@pytest.mark.parametrize("door_held", [False, True])
def test_a_call_inside_that_fits_goes_before_the_head_of_the_queue_is_forced_in(door_held: bool) -> None:
    bench = Bench()
    gate = bench.gate(None)
    outer = bench.enter(gate, 400)
    head = bench.wait(gate, 800)
    head.passed = MOST_PASSES * door_held
    inner = bench.enter(gate, 450, inside=outer)  # 400 of it are its caller's
    assert not inner.forced
    assert head.claim(bench.now) is None
    for permit in (inner, outer):
        gate.release(permit)
    assert head.claim(bench.now) is not None


def test_a_call_inside_is_forced_in_before_the_head_of_the_queue() -> None:
    bench = Bench()
    gate = bench.gate(None)
    outer = bench.enter(gate, 400)
    head = bench.wait(gate, 800)
    bench.use(450)
    inner = bench.enter(gate, 890, inside=outer)
    assert inner.forced, "what its caller holds is free only when it is done"
    assert head.claim(bench.now) is None


def test_a_caller_that_is_gone_leaves_its_bytes_until_the_calls_inside_have_ended() -> None:
    bench = Bench()
    gate = bench.gate(None)
    outer = bench.enter(gate, 400)
    inner = bench.enter(gate, 300, inside=outer)
    gate.release(outer)
    assert bench.ledger.standing()[0] == 400
    gate.release(inner)
    assert empty(bench.ledger)


def test_a_caller_cancelled_while_a_call_inside_waits_leaves_nothing_behind() -> None:
    bench = Bench(used=50)
    gate = bench.gate(None)
    bench.enter(gate, 100)
    outer = bench.enter(gate, 500)
    inner = bench.wait(gate, 800, inside=outer)
    gate.release(outer)
    inner.withdraw()
    assert (*bench.ledger.standing(), bench.ledger._stalled) == (100, 1, 0)


def test_a_wrong_size_can_be_corrected_while_the_call_runs() -> None:
    bench = Bench()
    gate = bench.gate(500)
    permit = bench.enter(gate)
    ticket = bench.wait(gate)
    assert gate.reconcile(permit, 100) == [ticket.spot]
    assert bench.ledger.standing()[0] == 600


# --- learning ---


def test_the_first_call_runs_alone_and_those_that_come_meanwhile_wait_for_it() -> None:
    bench = Bench()
    gate = bench.gate(Learner(), threshold=1.0)
    bench.use(0, limit=1 << 30)
    first = bench.enter(gate)
    waiting = [bench.wait(gate) for _ in range(3)]
    bench.meter.peak = 50 << 20
    assert bench.meter.running
    one, other, third = waiting
    assert bench.end(gate, first) == [one.spot, other.spot, third.spot]
    assert bench.ledger.standing() == (2 * 120 << 20, 2), "what one call has taken is trusted for two, with a margin"
    assert third.claim(bench.now) is None
    measured = one.claim(bench.now)
    assert measured is not None
    assert measured.measured
    bench.meter.peak = 2 * 50 << 20
    bench.end(gate, measured)
    assert third.claim(bench.now) is not None


def test_a_first_call_that_was_the_smallest_is_found_out_by_two_that_run_together() -> None:
    bench = Bench()
    gate = bench.gate(Learner(), threshold=1.0)
    bench.use(0, limit=1 << 30)
    bench.meter.level, bench.meter.peak = 1000, 100 << 20
    bench.end(gate, bench.enter(gate))
    one = bench.enter(gate)
    bench.enter(gate)
    assert gate.crowded
    assert (one.company, one.alone, one.strangers) == (2, False, False)
    bench.meter.peak = 600 << 20
    bench.end(gate, one)
    assert gate.learner.need == 330 << 20


def test_calls_of_another_guard_do_not_count_as_calls_of_the_one_that_is_measured() -> None:
    bench = Bench()
    gate, known = bench.gate(Learner(), threshold=1.0), bench.gate(1 << 20)
    bench.use(0, limit=1 << 30)
    bench.end(gate, bench.enter(gate))
    before = bench.enter(known)
    one = bench.enter(gate)
    assert (one.company, one.strangers) == (1, True)
    bench.end(gate, one)
    known.release(before)
    two = bench.enter(gate)
    assert not two.strangers
    bench.enter(known)
    assert (two.company, two.strangers) == (1, True)


def test_the_need_is_asked_for_at_admission_and_not_when_queueing() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner(), threshold=1.0, resume=1.0)
    first = bench.enter(gate)
    waiting = [bench.wait(gate) for _ in range(10)]
    bench.meter.peak = 200 << 20  # 240 MiB, and twice that as it is the first: two at once, not ten
    bench.end(gate, first)
    let_in = [ticket for ticket in waiting if ticket.claim(bench.now) is not None]
    assert len(let_in) == 2


def test_of_the_calls_inside_that_wait_one_that_fits_goes_first_when_nothing_else_runs() -> None:
    bench = Bench(used=100)
    gate = bench.gate(None)
    outer, stranger = bench.enter(gate, 400), bench.enter(gate, 200)
    head = bench.wait(gate, 700)
    head.passed = MOST_PASSES
    first, second = bench.wait(gate, 890, inside=outer), bench.wait(gate, 500, inside=outer)
    gate.release(stranger)
    assert first.claim(bench.now) is None
    permit = second.claim(bench.now)
    assert permit is not None
    assert not permit.forced


def test_who_is_late_for_a_size_that_is_still_being_measured_is_told_so() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    bench.enter(gate)
    ticket = bench.wait(gate)
    bench.now += 10.0
    error = ticket.late(bench.now)
    assert "the first call, which is measured alone, still runs after 10 s" in str(error)
    assert not error.permanent


def test_another_size_put_in_force_during_a_measurement_ends_the_learning() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    first = bench.enter(gate)
    gate.configure(gate.bounds, 100, waits=True)
    bench.end(gate, first)
    assert bench.enter(gate).need == 100
    assert not bench.meter.running


def test_calls_of_known_size_do_not_wait_for_the_measurement_of_another_function() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    learning, known = bench.gate(Learner()), bench.gate(1000)
    first = bench.enter(learning)
    waiter = bench.wait(learning)
    other = bench.enter(known)
    assert not first.alone
    bench.end(learning, first)
    assert waiter.claim(bench.now) is not None
    known.release(other)


def test_in_a_process_that_is_never_idle_nobody_waits_for_a_quiet_moment() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    known, learning = bench.gate(1000), bench.gate(Learner())
    bench.enter(known)
    permits = [bench.enter(learning), bench.ask(learning, arguments=4 << 20)]
    assert [permit.need >> 20 for permit in permits] == [16, 32]
    assert not any(permit.measured for permit in permits)


def test_a_call_is_measured_although_its_caller_waits_for_it() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    outer = bench.enter(bench.gate(1 << 20))
    assert bench.enter(bench.gate(Learner()), inside=outer).measured


def test_a_call_inside_of_one_that_is_measured_is_not_measured_and_leaves_the_measurement_good() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    outer = bench.enter(bench.gate(Learner()))
    assert not bench.enter(bench.gate(Learner()), inside=outer).measured
    assert outer.alone


def test_with_an_initial_estimate_nobody_waits() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner(initial=1 << 20))
    first = bench.enter(gate)
    assert first.measured
    assert bench.enter(gate).need == 1 << 20


def test_first_calls_that_fail_do_not_make_the_others_wait_for_ever() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    for _ in range(3):
        first = bench.enter(gate)
        gate.failed(first, 0.0, ValueError())
        gate.release(first)
    bench.enter(gate)
    bench.enter(gate)


def test_a_first_call_that_was_cancelled_makes_the_next_one_the_first() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    first, second = bench.enter(gate), bench.wait(gate)
    gate.abandoned(first)
    gate.release(first)
    permit = second.claim(bench.now)
    assert permit is not None
    assert permit.measured


def test_a_first_call_that_cannot_be_measured_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started, for one."""
    bench = Bench()
    gate = bench.gate(Learner())

    def fail() -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(bench.meter, "start", fail)
        permit = bench.enter(gate)
    bench.end(gate, permit)
    assert empty(bench.ledger)
    permit = bench.enter(gate)
    bench.end(gate, permit)
    assert gate.learner is not None
    assert gate.learner.estimator.measured == 1


def test_a_first_call_that_was_never_made_leaves_the_next_one_to_be_measured() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    gate.refund(bench.enter(gate))
    assert bench.enter(gate).measured


def test_a_granted_first_call_that_withdraws_before_it_starts_is_not_measured() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    known, learning = bench.gate(None), bench.gate(Learner())
    other = bench.enter(known, 910 << 20)
    ticket = bench.wait(learning)
    known.release(other)
    ticket.withdraw()
    assert not bench.meter.running
    assert empty(bench.ledger)
    assert bench.enter(learning).measured


def test_what_was_learned_never_says_that_a_call_cannot_fit() -> None:
    bench = Bench()
    gate = bench.gate(Learner(initial=10**9))
    permit = bench.enter(gate)
    assert permit.need == 900
    ticket = bench.wait(gate)
    assert not ticket.late(bench.now).permanent


def test_a_memory_error_doubles_what_the_next_call_reserves() -> None:
    bench = Bench()
    gate = bench.gate(Learner(initial=100))
    permit = bench.enter(gate)
    gate.failed(permit, 0.0, MemoryError())
    gate.release(permit)
    assert bench.enter(gate).need == 200


def test_an_estimate_from_a_clean_heap_replaces_a_doubtful_one() -> None:
    bench = Bench()
    bench.use(0, limit=1 << 30)
    gate = bench.gate(Learner())
    bench.meter.peak = 1 << 20
    bench.end(gate, bench.enter(gate))
    assert gate.learner.need == 16 << 20, "the heap was not known to be clean: no less than the guess"
    assert bench.tidied == 1
    bench.ledger.trimmed(bench.ledger.mark())
    bench.now += 0.1
    bench.end(gate, bench.enter(gate))
    assert gate.learner.need == pytest.approx(1.2 * (1 << 20), abs=1)


def test_a_heap_emptied_while_calls_ran_is_not_clean() -> None:
    bench = Bench()
    gate = bench.gate(10)
    ended = bench.ledger.mark()
    bench.end(gate, bench.enter(gate))
    bench.ledger.trimmed(ended)
    learning = bench.gate(Learner())
    assert not bench.enter(learning).clean


def test_quiet_moments_are_measured_ever_more_seldom() -> None:
    bench = Bench()
    gate = bench.gate(Learner(initial=100))
    measured = []
    for _ in range(40_000):
        bench.ledger.trimmed(bench.ledger.mark())
        permit = bench.enter(gate)
        if permit.measured:
            measured.append(round(bench.now - 100.0))
        bench.end(gate, permit)
        bench.now += 0.01
    assert measured == [0, 0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]


# --- fork, news, options in place ---


def test_a_forked_child_starts_empty_and_what_its_parent_promised_is_not_its_own() -> None:
    bench = Bench()
    gate = bench.gate(400)
    inherited = bench.enter(gate)
    bench.enter(gate)
    bench.wait(gate)
    gate.after_fork()
    assert empty(bench.ledger)
    assert gate.idle()
    gate.release(inherited)
    assert bench.ledger.standing() == (0, 0)
    assert gate.idle()
    gate.release(gate.take())
    assert empty(bench.ledger)


def test_a_size_corrected_after_the_call_or_in_another_process_changes_nothing() -> None:
    bench = Bench()
    gate = bench.gate(500)
    over, inherited = bench.enter(gate), bench.enter(bench.gate(1))
    gate.release(over)
    gate.reconcile(over, 100)
    gate.after_fork()
    gate.reconcile(inherited, 100)
    assert empty(bench.ledger)


def test_growth_of_a_call_that_began_long_ago_and_of_a_new_one_are_counted_alike() -> None:
    bench = Bench()
    gate = bench.gate(100)
    old = bench.enter(gate)
    bench.use(50)
    new = bench.enter(gate)
    for permit in (old, new):
        gate.reconcile(permit, 250)
        gate.release(permit)
    assert empty(bench.ledger)


def test_a_call_that_has_just_begun_does_not_explain_what_is_in_use() -> None:
    bench = Bench()
    gate = bench.gate(300)
    running = [bench.enter(gate), bench.enter(gate)]
    bench.use(600)
    gate.release(running[0])  # what it had allocated stays in the allocator: 600 are in use as before
    bench.enter(gate)
    ticket = bench.wait(gate)
    gate.release(running[1])
    account = bench.ledger.accounts["box"]
    assert (account.base, account.held) == (300, 600)
    assert ticket.claim(bench.now) is None
    assert ticket.due(bench.now) == bench.now + SLICE
    bench.use(600)  # now it had the time: some of what is in use is its own
    assert ticket.claim(bench.now) is not None


def test_bytes_given_back_serve_nobody_before_a_reading_shows_that_they_are_free() -> None:
    bench = Bench()
    gate = bench.gate(500)
    first = bench.enter(gate)
    waiting = bench.wait(gate)
    bench.reading([Level("box", LIMIT, 500)])
    assert gate.release(first)[0] is waiting.spot, "forced: nothing else runs"
    second = waiting.claim(bench.now)
    assert second is not None
    assert second.forced
    assert bench.reads == 2


def test_every_decision_of_the_slow_path_is_news() -> None:
    bench = Bench(used=890)
    gate = bench.gate(100)
    first = bench.enter(gate)
    ticket = bench.wait(gate)
    bench.now += 2.0
    ticket.late(bench.now)
    bench.use(100)
    ticket.claim(bench.now)
    assert [(each.decision, round(each.waited)) for each in gate.news] == [
        ("forced", 0),
        ("rejected", 2),
        ("waited", 2),
    ]
    gate.release(first)


def test_other_options_hold_for_calls_that_come_from_now_on() -> None:
    bench = Bench()
    gate = bench.gate(500)
    permit = bench.enter(gate)
    gate.configure(gate.bounds, 100, waits=True)
    assert bench.enter(gate).need == 100
    gate.release(permit)
    assert bench.ledger.standing()[0] == 100


# --- the garbage collector ends abandoned calls on whatever thread it runs ---


def without_hanging(work: Callable[[], object]) -> None:
    """Run it on a thread, and fail if it waits for itself."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive(), "it waits for a lock that it holds"


def test_a_call_that_ends_while_its_own_thread_is_in_the_ledger_hangs_nobody() -> None:
    bench = Bench()
    gate = bench.gate(500)
    running = bench.enter(gate)
    ticket = bench.wait(gate)

    def collect() -> None:
        with bench.ledger.lock:
            assert gate.release(running) == ()

    without_hanging(collect)
    assert ticket.claim(bench.now) is not None, "at its next look"


def test_a_call_that_ends_while_its_own_thread_reads_hangs_nobody() -> None:
    bench = Bench()
    gate = bench.gate(500)
    abandoned = [bench.enter(gate)]
    ticket = bench.wait(gate)
    read = bench.read

    def read_and_collect() -> Reading:
        while abandoned:
            gate.release(abandoned.pop())
        return read()

    bench.ledger._read = read_and_collect
    bench.now += FRESH
    without_hanging(lambda: bench.ledger.look(bench.now))
    assert ticket.claim(bench.now) is not None


def test_a_waiter_that_ends_while_another_is_being_let_in_is_not_let_in_any_more() -> None:
    bench = Bench()
    gate = bench.gate(400)
    running = [bench.enter(gate), bench.enter(gate)]
    first, abandoned = bench.wait(gate), bench.wait(gate)
    size = gate.size

    def size_and_collect(ticket: MemoryTicket) -> tuple[int | None, bool]:
        if ticket is abandoned:
            assert abandoned.withdraw() == ()
        return size(ticket)

    gate.size = size_and_collect  # type: ignore[method-assign]
    without_hanging(lambda: [gate.release(each) for each in running])
    assert first.claim(bench.now) is not None
    assert bench.ledger.standing() == (400, 1)
    assert not bench.ledger.queue
    assert gate.waiting == 0


def test_nobody_is_let_in_at_once_while_another_thread_takes_the_first_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    gate = bench.gate(10)
    taken: list[object] = []

    def read() -> Reading:
        for _ in range(LIMIT):  # as another thread would, between the two locks
            try:
                taken.append(gate.take())
            except LookupError:
                break
        return Bench.read(bench)

    monkeypatch.setattr(bench.ledger, "_read", read)
    bench.ledger.look(bench.now)
    assert taken == []
    gate.release(gate.take())
