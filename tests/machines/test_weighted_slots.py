"""Weighted permits with priorities against their slow model: every short sequence, long ones by hypothesis."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines import weighted_slots
from asyncguard._machines.gate import Request
from asyncguard._machines.queued import Asker
from asyncguard._machines.weighted_slots import MOST_PASSES, Share, WeightedSlots
from asyncguard.errors import BulkheadFullError
from tests.machines.weighted_model import Important, Spot, World

LENGTH = 5
ACTIONS = (
    ("call", 1),
    ("call", 2),
    ("call", 3, 2.0),
    ("end",),
    ("end", -1),
    ("claim",),
    ("claim", 1),
    ("cancel",),
    ("stop",),
    ("go_on",),
)
whole = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 4), st.sampled_from([0.0, 0.0, 1.0, 5.0])),
    st.tuples(st.just("call"), st.just(1)),
    st.tuples(st.sampled_from(["end", "claim", "claim", "end", "cancel", "stop"]), whole),
    st.tuples(st.just("go_on")),
    st.tuples(st.just("later"), st.sampled_from([0.5, 1.0, 10.0])),
    st.tuples(st.just("resize"), st.integers(1, 5)),
    st.tuples(st.just("correct"), whole, st.integers(1, 4)),
)


def explore(kind, length):
    count = 0
    for sequence in itertools.product(ACTIONS, repeat=length):
        world = World(kind, max_queue=2)
        try:
            for action, *rest in sequence:
                world.step(action, *rest)
            world.drain()
        except AssertionError as error:
            error.add_note(f"witness: {sequence}")
            raise
        count += 1
    return count


def test_every_short_sequence_does_what_the_model_does(capsys):
    count = explore(WeightedSlots, LENGTH)
    with capsys.disabled():
        print(f"\nweighted slots: {count} sequences of {LENGTH} events explored")
    assert count == len(ACTIONS) ** LENGTH


@given(st.lists(STEPS, max_size=120))
def test_long_sequences_do_what_the_model_does(steps):
    follow(WeightedSlots, steps)


def follow(kind, steps):
    world = World(kind)
    for action, *rest in steps:
        world.step(action, *rest)
    world.drain()


class Starves(WeightedSlots):
    def _settle(self):
        for place in [*self.queue, *self.offered]:
            place.passed = 0
        super()._settle()


class IgnoresPriority(WeightedSlots):
    def _enter(self, request):
        request.owner = Asker()
        return super()._enter(request)


class LosesOffersOfTheCancelled(WeightedSlots):
    def _leave(self, place):
        if place in self.offered:
            self._accept(place)
        else:
            self.line.leave(place)


class NeverRevokes(WeightedSlots):
    def _revoke_dead(self):
        """Nobody looks."""


class TakesOne(WeightedSlots):
    def _share(self, weight):
        self._used += 1
        return Share(weight, self._generation)


class LetsNobodyPass(WeightedSlots):
    def _settle(self):
        while (place := self.line.first()) is not None and self._fits(place.weight):
            self._offer(place, self._share(place.weight))


class NeverRunsAlone(WeightedSlots):
    def _fits(self, weight):
        return self._used + weight <= self.size


@pytest.mark.parametrize("mutant", [LosesOffersOfTheCancelled, NeverRevokes, TakesOne, LetsNobodyPass, IgnoresPriority])
def test_mutants_are_caught_by_short_sequences(mutant):
    with pytest.raises(AssertionError):
        explore(mutant, 5)


ONE_HEAVY = [("call", 1), ("call", 1), ("call", 3), *[("call", 1), ("end",), ("claim",)] * 30]


@pytest.mark.parametrize(
    ("mutant", "steps"),
    [(Starves, ONE_HEAVY), (NeverRunsAlone, [("call", 3), ("call", 3), ("resize", 1), ("end",)])],
)
def test_mutants_are_caught_by_long_sequences(mutant, steps):
    follow(WeightedSlots, steps)
    with pytest.raises(AssertionError):
        follow(mutant, steps)


# --- what the page promises -------------------------------------------------------------------------------------------


def made(size=4, max_queue=100, now=None):
    clock = (lambda: 0.0) if now is None else lambda: now[0]
    return WeightedSlots(size, max_queue, name="b", clock=clock)


def ask(slots, weight=1, priority=0.0, until=float("inf")):
    return slots.admit(Request(spot=Spot(), cost=weight, owner=Important(priority), until=until))


def served(slots, share, places):
    """Release one after the other; return the places in the order in which they get in."""
    order, places = [], list(places)
    while places:
        slots.release(share)
        place = next(place for place in places if place.offer is not None)
        places.remove(place)
        order.append(place)
        share = place.claim(0.0)
    return order


def test_the_important_go_first_and_equals_in_the_order_of_arrival():
    slots = made(1)
    held = ask(slots)
    places = [ask(slots, priority=priority) for priority in (0, 1, 5, 1, 0)]
    assert served(slots, held, places) == [places[i] for i in (2, 1, 3, 0, 4)]


def test_a_second_of_waiting_is_worth_a_level_of_priority():
    now = [0.0]
    slots = made(1, now=now)
    held = ask(slots)
    patient = ask(slots)
    now[0] = 4.0
    early = ask(slots, priority=5)
    now[0] = 6.0
    late = ask(slots, priority=5)
    assert served(slots, held, [patient, early, late]) == [early, patient, late]


def test_nobody_starves_under_a_stream_of_important_calls():
    now = [0.0]
    slots = made(1, now=now)
    held = ask(slots)
    patient = ask(slots)
    for second in range(1, 100):
        now[0] = second / 2
        place = ask(slots, priority=10)
        slots.release(held)
        if patient.offer is not None:
            break
        held = place.claim(0.0)
    assert 10 <= now[0] <= 11


def test_light_calls_pass_a_heavy_one_for_a_while_and_never_starve_it():
    slots = made(4)
    held = [ask(slots) for _ in range(4)]
    heavy = ask(slots, weight=4)
    passed = 0
    while heavy.offer is None:
        slots.release(held.pop(0))
        answer = ask(slots)
        if isinstance(answer, Share):
            passed += 1
            held.append(answer)
    assert passed == MOST_PASSES
    assert not held


def test_a_light_call_passes_at_once_if_it_fits():
    slots = made(4)
    ask(slots, weight=3)
    ask(slots, weight=2)
    assert isinstance(ask(slots), Share)


@pytest.mark.parametrize("weight", [0, 5, -1, True, 1.5, "2", None])
def test_a_weight_that_never_fits_is_an_error_at_once(weight):
    slots = made(4)
    with pytest.raises(ValueError, match=r"b: the weight of a call must be an integer of 1\.\.4 .* got"):
        ask(slots, weight)
    assert slots.idle()


def test_a_full_queue_is_refused_with_the_numbers():
    slots = made(4, max_queue=1)
    ask(slots, weight=3)
    ask(slots, weight=3)
    with pytest.raises(BulkheadFullError, match="b: 3 of 4 permits are taken and 1 of 1 places wait"):
        ask(slots, weight=2)
    assert isinstance(ask(slots), Share), "it fits, and needs no place"


def test_a_caller_without_time_takes_what_is_free_and_waits_for_nothing():
    slots = made(1)
    ask(slots, until=0.0)
    with pytest.raises(BulkheadFullError):
        ask(slots, until=0.0)
    assert slots.waiting == 0


def test_a_heavy_call_gets_in_alone_after_the_bulkhead_was_made_smaller():
    slots = made(4)
    held = ask(slots, weight=4)
    heavy = ask(slots, weight=4)
    slots.resize(2, 10)
    with pytest.raises(ValueError, match=r"1\.\.2"):
        ask(slots, weight=3)
    slots.release(held)
    assert heavy.offer is not None
    assert not isinstance(ask(slots), Share)


def test_a_weight_can_be_corrected_while_the_call_runs():
    slots = made(4)
    share = ask(slots, weight=4)
    place = ask(slots, weight=2)
    assert slots.reconcile(share, 2) == [place.spot]
    slots.release(place.claim(0.0))
    slots.release(share)
    assert slots.idle()


def test_a_forked_child_starts_empty_and_does_not_count_the_calls_of_its_parent():
    slots = made(2)
    share = ask(slots, weight=2)
    ask(slots)
    slots.after_fork()
    assert slots.idle()
    slots.reconcile(share, 1)
    slots.release(share)
    assert slots.taken == 0


def test_it_is_never_taken_without_asking_what_the_call_weighs():
    with pytest.raises(LookupError):
        made().take()


@pytest.mark.parametrize("waiters", [10, 10_000])
def test_the_work_of_a_release_does_not_depend_on_how_many_wait(waiters):
    looks = [0]

    class Counted(Spot):
        def alive(self):
            looks[0] += 1
            return True

    slots = made(4, max_queue=waiters)
    held = [ask(slots) for _ in range(4)]
    for _ in range(waiters):
        slots.admit(Request(spot=Counted(), cost=4))
    looks[0] = 0
    slots.release(held.pop())
    assert looks[0] <= weighted_slots.LOOKAHEAD + 1
