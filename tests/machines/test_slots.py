"""The slots of a bulkhead, explored exhaustively: no slot is lost, doubled, or passes the queue."""

from __future__ import annotations

import itertools
import math
import os
import threading

import pytest

from asyncguard._machines import slots as slots_module
from asyncguard._machines.gate import Request
from asyncguard._machines.line import Line
from asyncguard._machines.place import LOOK
from asyncguard._machines.slots import Place, Slots
from asyncguard.errors import BulkheadFullError

LENGTH = 7 if os.environ.get("HYPOTHESIS_PROFILE") == "ci" else 6
ACTIONS = ("call", "end", "claim", "cancel", "cancel offered", "loop stops", "loop goes on")


class Spot:
    """A parked caller whose loop the test can stop."""

    def __init__(self):
        self.running = True
        self.woken = 0
        self.told = 0  # while its loop stood still

    def wake(self):
        self.woken += 1
        self.told += not self.running
        assert self.told <= 1, "a loop that stands still is told again and again"

    def alive(self):
        return self.running


class World:
    """Callers of one bulkhead, driven step by step; checks what must hold after every step."""

    def __init__(self, kind=Slots, size=2, max_queue=3):
        self.slots = kind(size, max_queue, name="b", clock=lambda: 0.0)
        self.size = size
        self.held: list[int] = []
        self.waiting: list[Place] = []  # in the order of arrival
        self.stopped: set[Place] = set()

    def step(self, action):
        getattr(self, "_" + action.replace(" ", "_"))()
        self.check()

    def _call(self):
        try:
            self.held.append(self.slots.take())
        except LookupError:
            pass
        else:
            assert not self._patient(), "the fast path passed the queue"
            return
        try:
            answer = self.slots.admit(Request(spot=Spot()))
        except BulkheadFullError:
            assert self.slots.waiting == self.slots.max_queue
            return
        if isinstance(answer, Place):
            self.waiting.append(answer)
        else:
            assert not self._patient(), "passed the queue"
            self.held.append(answer)

    def _patient(self):
        """Who waits for an offer and was never skipped; a loop that stood still for a while may be passed."""
        return [place for place in self.waiting if place.offer is None and place not in self.stopped]

    def _end(self):
        if self.held:
            self._woken(self.slots.release(self.held.pop(0)))

    def _claim(self):
        for place in list(self.waiting):
            if place.alive() and place.spot.woken:  # nobody looks who was not woken
                place.spot.woken = 0
                permit = place.claim(0.0)
                if permit is not None:
                    self.waiting.remove(place)
                    self.held.append(permit)
                    return

    def _cancel(self):
        if self.waiting:
            self._woken(self.waiting.pop(0).withdraw())

    def _cancel_offered(self):
        for place in self.waiting:
            if place.offer is not None:
                self.waiting.remove(place)
                self._woken(place.withdraw())
                return

    def _loop_stops(self):
        for place in self.waiting:
            if place.alive():
                place.spot.running = False
                self.stopped.add(place)
                return

    def _loop_goes_on(self):
        for place in self.waiting:
            place.spot.running = True
            place.spot.told = 0

    def _woken(self, spots):
        for spot in spots:
            spot.wake()

    def check(self):
        offered = [place for place in self.waiting if place.offer is not None]
        assert len(self.held) <= self.size
        assert len(self.held) + len(offered) + len(self.slots.free) == self.size, "a slot was lost or doubled"
        assert self.slots.taken == len(self.held) + len(offered)
        assert self.slots.waiting == len(self.waiting)
        calm = [place.offer is not None for place in self.waiting if place not in self.stopped]
        assert calm == sorted(calm, reverse=True), "an offer passed somebody who came earlier"

    def drain(self):
        """Let everybody finish: nothing may stay behind."""
        self._loop_goes_on()
        left = 40
        while (self.waiting or self.held) and left:
            self._claim()
            self._end()
            left -= 1
        assert not self.waiting
        assert self.slots.idle()


def explore(kind, length, size=2):
    count = 0
    for sequence in itertools.product(ACTIONS, repeat=length):
        world = World(kind, size)
        try:
            for action in sequence:
                world.step(action)
            world.drain()
        except AssertionError as error:
            error.add_note(f"witness: {sequence}")
            raise
        count += 1
    return count


def test_every_sequence_of_events_keeps_every_slot(capsys):
    count = explore(Slots, LENGTH)
    with capsys.disabled():
        print(f"\nslots: {count} sequences of {LENGTH} events explored")
    assert count == len(ACTIONS) ** LENGTH


class NeverPassesOn(Slots):
    def withdraw(self, place):
        super_offer = place.offer
        if super_offer is not None:
            del self.offered[place]
            return ()
        return Slots.withdraw(self, place)


class BlindLine(Line):
    def first(self):
        return next(iter(self.places), None)

    def pop(self):
        del self._heap[:1]


class OffersToTheDead(Slots):
    def _renew(self):
        super()._renew()
        self.line = BlindLine(self._woken)
        self.queue = self.line.places


class TellsNobodyWhoIsSkipped(Slots):
    """Whoever is skipped must be told, to look when its loop goes on."""

    def _renew(self):
        super()._renew()
        self.line = Line([])
        self.queue = self.line.places


class PassesToTheLast(Slots):
    def _renew(self):
        super()._renew()
        self.line._numbers = itertools.count(1_000, -1)


class ReleasesPastTheQueue(Slots):
    def release(self, permit):
        self.free.append(permit)
        return ()


class NeverRevokes(Slots):
    def _revoke_dead(self):
        pass


MUTANTS = [NeverPassesOn, OffersToTheDead, ReleasesPastTheQueue, TellsNobodyWhoIsSkipped, PassesToTheLast]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant):
    with pytest.raises(AssertionError):
        explore(mutant, 5, size=1)


def test_an_offer_to_a_stopped_loop_is_taken_back_by_the_next_caller():
    slots = Slots(1, 5, name="b", clock=lambda: 0.0)
    held = slots.take()
    dead, heir = Spot(), Spot()
    first = slots.admit(Request(spot=dead))
    second = slots.admit(Request(spot=heir))
    assert slots.release(held) == [dead]
    dead.running = False
    assert second.claim(0.0) is not None, "the offer was swallowed by a loop that stopped"
    assert first.claim(0.0) is None


def test_the_same_with_a_mutant_is_caught():
    slots = NeverRevokes(1, 5, name="b", clock=lambda: 0.0)
    held = slots.take()
    dead = Spot()
    slots.admit(Request(spot=dead))
    second = slots.admit(Request(spot=Spot()))
    slots.release(held)
    dead.running = False
    assert second.claim(0.0) is None  # what the test above would have seen


def test_a_waiter_on_a_stopped_loop_is_woken_to_look_when_its_loop_goes_on():
    slots = Slots(1, 5, name="b", clock=lambda: 0.0)
    held = slots.take()
    spot = Spot()
    place = slots.admit(Request(spot=spot))
    spot.running = False
    assert slots.release(held) == [spot], "the slot is free, and nobody would ever tell it"
    spot.running = True
    assert place.claim(0.0) is not None


def test_waiters_whose_loop_was_closed_do_not_fill_the_queue_for_ever():
    now = [0.0]
    slots = Slots(1, 2, name="b", clock=lambda: now[0])
    held = slots.take()
    lost = [Spot(), Spot()]
    for spot in lost:
        slots.admit(Request(spot=spot, until=10.0))
        spot.running = False
    now[0] = 9.0  # a loop that stands still may go on
    with pytest.raises(BulkheadFullError):
        slots.admit(Request(spot=Spot(), until=19.0))
    now[0] = 10.0
    heir = Spot()
    assert slots.admit(Request(spot=heir, until=20.0)).ahead == 0
    assert slots.release(held) == [heir]


def test_what_the_collector_gives_back_while_the_lock_is_held_is_seen_to_afterwards():
    slots = Slots(2, 5, name="b", clock=lambda: 0.0)
    held = [slots.take(), slots.take()]
    collected = []

    class Collecting(Spot):
        """Asked under the lock, as the collector may run there: it ends calls that nobody refers to."""

        def alive(self):
            while collected:
                assert list(collected.pop()()) == []
            return True

    first = slots.admit(Request(spot=Collecting()))
    gone = slots.admit(Request(spot=Spot()))
    slots.release(held.pop())
    collected += [lambda: slots.release(held.pop()), lambda: slots.withdraw(gone)]
    answers = []
    asking = threading.Thread(target=lambda: answers.append(slots.admit(Request(spot=Spot()))), daemon=True)
    asking.start()
    asking.join(60.0)
    assert not asking.is_alive(), "the thread waits for its own lock"
    assert gone.claim(0.0) is None
    assert None not in (first.claim(0.0), answers[0].claim(0.0)), "both slots went to those who still wait"
    assert slots.waiting == 0


def test_a_look_for_waiters_that_are_lost_is_no_cost_of_each_refusal():
    looks = []

    class Asked(Spot):
        def alive(self):
            looks.append(1)
            return True

    slots = Slots(1, 50, name="b", clock=lambda: 5.0)
    slots.take()
    for _ in range(50):
        slots.admit(Request(spot=Asked(), until=6.0))
    slots._clock = lambda: 7.0
    looks.clear()
    for _ in range(10):
        with pytest.raises(BulkheadFullError):
            slots.admit(Request(spot=Spot(), until=9.0))
    assert len(looks) <= 50 + 10


def test_callers_of_several_loops_look_around_unasked_and_those_of_one_do_not():
    slots = Slots(1, 10, name="b", clock=lambda: 0.0)
    held = slots.take()
    here = [slots.admit(Request(spot=Spot(), home=1)) for _ in range(2)]
    assert [place.due(5.0) for place in here] == [math.inf] * 2
    there = slots.admit(Request(spot=Spot(), home=2))
    assert [place.spot.woken for place in (*here, there)] == [1, 1, 0], "they must learn that they have to look"
    assert [place.due(5.0) for place in (*here, there)] == [5.0 + LOOK] * 3
    slots.admit(Request(spot=Spot(), home=2)).withdraw()
    assert [place.spot.woken for place in (*here, there)] == [1, 1, 0], "once is enough"
    for place in (*here, there):
        assert slots.release(held) == [place.spot]
        held = place.claim(0.0)
    assert slots.admit(Request(spot=Spot(), home=2)).due(5.0) == math.inf, "alone again"


@pytest.mark.parametrize("waiters", [10, 10_000])
def test_the_work_of_a_release_does_not_depend_on_how_many_wait(waiters):
    looks = [0]

    class Counted(Spot):
        def alive(self):
            looks[0] += 1
            return self.running

    slots = Slots(1, waiters, name="b", clock=lambda: 0.0)
    held = slots.take()
    places = [slots.admit(Request(spot=Counted())) for _ in range(waiters)]
    for place in places[: waiters // 2]:
        place.withdraw()
    for place in places[waiters // 2 : waiters - 3]:
        place.spot.running = False
    looks[0] = 0
    for place in places[-3:]:
        assert place.spot in slots.release(held)
        held = place.claim(0.0)
    assert looks[0] <= waiters // 2 + 6, "those who stand still are looked at once"
    assert len(slots.line._heap) <= 2 * len(slots.queue) + 64


def test_waiters_are_served_in_the_order_of_arrival():
    slots = Slots(1, 10, name="b", clock=lambda: 0.0)
    held = slots.take()
    places = [slots.admit(Request(spot=Spot())) for _ in range(5)]
    assert [place.ahead for place in places] == [0, 1, 2, 3, 4]
    for place in places:
        assert slots.release(held) == [place.spot]
        held = place.claim(0.0)
        assert held is not None


def test_a_full_queue_is_refused_with_the_numbers():
    slots = Slots(1, 0, name="embedder", clock=lambda: 0.0)
    slots.take()
    with pytest.raises(BulkheadFullError, match="embedder: all 1 permits are taken and 0 of 0 places wait"):
        slots.admit(Request(spot=Spot()))


def test_a_caller_without_time_is_refused_at_once():
    slots = Slots(1, 5, name="b", clock=lambda: 7.0)
    slots.take()
    with pytest.raises(BulkheadFullError):
        slots.admit(Request(spot=Spot(), until=7.0))
    assert slots.waiting == 0


def test_growing_lets_waiters_in_and_shrinking_waits_for_running_calls():
    slots = Slots(1, 5, name="b", clock=lambda: 0.0)
    first = slots.take()
    place = slots.admit(Request(spot=Spot()))
    assert slots.resize(2, 5) == [place.spot]
    second = place.claim(0.0)
    assert second is not None
    slots.resize(1, 5)
    assert slots.taken == 2
    slots.release(first)
    with pytest.raises(LookupError):
        slots.take()
    slots.release(second)
    assert slots.idle()
    assert slots.take() is not None


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2, 4], repeat=3)))
def test_resizing_never_loses_a_slot(sizes):
    slots = Slots(3, 9, name="b", clock=lambda: 0.0)
    held = [slots.take(), slots.take()]
    for size in sizes:
        slots.resize(size, 9)
    for permit in held:
        slots.release(permit)
    assert slots.idle()
    assert len(slots.free) == sizes[-1]


def test_a_forked_child_starts_empty():
    slots = Slots(2, 5, name="b", clock=lambda: 0.0)
    slots.take()
    slots.take()
    slots.admit(Request(spot=Spot()))
    slots.after_fork()
    assert slots.idle()
    assert slots.take() is not None


def test_threads_never_exceed_the_size():
    slots = Slots(3, 100, name="b", clock=lambda: 0.0)
    running, peak, lock = 0, 0, threading.Lock()

    def work():
        nonlocal running, peak
        for _ in range(2_000):
            try:
                permit = slots.take()
            except LookupError:
                continue
            with lock:
                running += 1
                peak = max(peak, running)
            with lock:
                running -= 1
            slots.release(permit)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= peak <= 3
    assert slots.idle()


def test_it_ignores_outcomes():
    slots = Slots(1, 1, name="b", clock=lambda: 0.0)
    assert not slots.outcomes
    assert not slots.timed
    assert slots.succeeded(0, 0.0) == slots.failed(0, 0.0, ValueError()) == slots.abandoned(0) == ()
    assert slots_module.__doc__
