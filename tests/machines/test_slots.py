"""The slots of a bulkhead, explored exhaustively: no slot is lost, doubled, or passes the queue."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from asyncguard._machines import slots as slots_module
from asyncguard._machines.gate import Request
from asyncguard._machines.slots import Place, Slots
from asyncguard.errors import BulkheadFullError

LENGTH = 7 if os.environ.get("HYPOTHESIS_PROFILE") == "ci" else 6
ACTIONS = ("call", "end", "claim", "cancel", "cancel offered", "loop stops", "loop goes on")


class Spot:
    """A parked caller whose loop the test can stop."""

    def __init__(self):
        self.running = True
        self.woken = 0

    def wake(self):
        self.woken += 1

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

    def _woken(self, spots):
        for spot in spots:
            assert spot.alive() or self.slots.free, "somebody was woken whose loop has stopped, for nothing"
            spot.wake()

    def check(self):
        offered = [place for place in self.waiting if place.offer is not None]
        assert len(self.held) <= self.size
        assert len(self.held) + len(offered) + len(self.slots.free) == self.size, "a slot was lost or doubled"
        assert self.slots.taken == len(self.held) + len(offered)
        assert self.slots.waiting == len(self.waiting)

    def drain(self):
        """Let everybody finish: nothing may stay behind."""
        self._loop_goes_on()
        for _ in range(40):
            self._claim()
            self._end()
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


class OffersToTheDead(Slots):
    def _first(self):
        return next(iter(self.queue), None)


class ReleasesPastTheQueue(Slots):
    def release(self, permit):
        self.free.append(permit)
        return ()


class NeverRevokes(Slots):
    def _revoke_dead(self):
        pass


@pytest.mark.parametrize("mutant", [NeverPassesOn, OffersToTheDead, ReleasesPastTheQueue])
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
