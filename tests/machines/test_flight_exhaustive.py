"""The flight machine: every sequence of events up to length 7, against a model of plain lists; and seeded mutants."""

from __future__ import annotations

import pytest

from asyncguard._machines.circles import CircularWaitError
from asyncguard._machines.flight import Flights, State, Work

EVENTS = ("join a", "join b", "leave a", "leave b", "finish", "fail", "lose", "invalidate", "anew c", "die")
LENGTH = 7


class Who:
    def __init__(self):
        self.woken = 0

    def wake(self):
        self.woken += 1


class Handle:
    def __init__(self):
        self.dead = False
        self.cancelled = 0

    def alive(self):
        return not self.dead

    def cancel(self):
        self.cancelled += 1


class Model:
    """One key. `flights` are those begun, in order: [waiters, state, storable, dead]; `current` is in the table."""

    def __init__(self, kept):
        self.kept = kept
        self.flights = []
        self.current = None

    def join(self, who, anew):
        at = self.current
        if at is None or anew or self.flights[at][3]:
            if at is not None:
                self.flights[at][2] = False
            self.flights.append([[], State.RUNNING, True, False])
            self.current = len(self.flights) - 1
        self.flights[self.current][0].append(who)
        return self.current

    def end(self, at, state):
        flight = self.flights[at]
        if flight[1] is not State.RUNNING:
            return []
        flight[1] = state
        if self.current == at:
            self.current = None
        woken, flight[0] = flight[0], []
        return woken

    def leave(self, who, at):
        waiters, state = self.flights[at][:2]
        if who not in waiters:
            return False
        waiters.remove(who)
        if waiters or state is not State.RUNNING or self.kept:
            return False
        self.end(at, State.ABANDONED)
        self.flights[at][2] = False
        return True

    def invalidate(self):
        if self.current is not None:
            self.flights[self.current][2] = False
            self.current = None


class Run:
    """The machine and the model side by side, with the drivers' part: handles, waking, cancelling."""

    def __init__(self, kept):
        self.table = Flights()
        self.model = Model(kept)
        self.kept = kept
        self.people = {name: Who() for name in "abc"}
        self.where = {}  # who waits at which flight
        self.flights = []
        self.owed = set()  # the flights that failed while somebody waited

    def step(self, event):
        verb, _, name = event.partition(" ")
        if name:
            self.by_somebody(verb, name)
        elif verb == "invalidate":
            for lease in self.table.detach_key("k"):
                lease.void = True
            self.model.invalidate()
        elif self.flights:
            self.by_the_work(verb)

    def by_somebody(self, verb, name):
        if verb != "leave":
            if name in self.where:
                return
            anew = verb == "anew"
            flight, new = self.table.join("k", self.people[name], work=Work(kept=self.kept), anew=anew)
            at = self.model.join(name, anew)
            assert new == (at == len(self.flights))
            if new:
                flight.work.handle = Handle()
                self.flights.append(flight)
            assert flight is self.flights[at]
            self.where[name] = at
        elif name in self.where:
            at = self.where.pop(name)
            work = self.table.leave(self.flights[at], self.people[name])
            assert (work is not None) == self.model.leave(name, at)
            assert work is None or work is self.flights[at].work

    def by_the_work(self, verb):
        at = len(self.flights) - 1
        flight = self.flights[at]
        if verb == "die":
            flight.work.handle.dead = True
            self.model.flights[at][3] = True
            return
        if verb == "finish":
            woken, state = self.table.done(flight, 5), State.DONE
        elif verb == "fail":
            woken, state = self.table.failed(flight, ValueError("x")), State.FAILED
        else:
            woken, state = self.table.lost(flight), State.LOST
        expected = self.model.end(at, state)
        if expected and verb == "fail":
            self.owed.add(at)
        assert list(woken) == [self.people[name] for name in expected]
        for name in expected:
            self.where.pop(name)

    def check(self):
        current = self.model.current
        assert self.table.table == ({} if current is None else {"k": self.flights[current]})
        for flight, (waiters, state, storable, _) in zip(self.flights, self.model.flights, strict=True):
            assert flight.state is state
            assert list(flight.waiters) == [self.people[name] for name in waiters]
            assert flight.void != storable
            assert flight.work.running == (state is State.RUNNING)
            if state is State.DONE:
                assert Flights.result(flight) == 5
            assert (flight.error is not None) == (self.flights.index(flight) in self.owed)
            if flight.error is not None:
                with pytest.raises(ValueError, match="x"):
                    Flights.result(flight)


def canonical_sequences(length):
    """Leave out what makes no difference: `b` before `a`, a leave of nobody, an end of nothing."""

    def extend(prefix, waiting, begun):
        if prefix:
            yield prefix
        if len(prefix) == length:
            return
        for event in EVENTS:
            verb, _, name = event.partition(" ")
            if verb in {"join", "anew"} and name in waiting:
                continue
            if name == "b" and verb == "join" and not any(each.startswith("join a") for each in prefix):
                continue
            if verb == "leave" and name not in waiting:
                continue
            if not name and not begun:
                continue
            after = waiting | {name} if verb in {"join", "anew"} else waiting - {name} if verb == "leave" else waiting
            if verb in {"finish", "fail", "lose"}:
                after = waiting  # who was woken may still try to leave, which must be harmless
            yield from extend((*prefix, event), after, begun or verb in {"join", "anew"})

    return extend((), frozenset(), begun=False)


def run_all(length, kept):
    count = 0
    for sequence in canonical_sequences(length):
        run = Run(kept)
        for event in sequence:
            run.step(event)
        run.check()
        count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_every_sequence_of_events_up_to_length_seven_agrees_with_the_model(kept, capsys):
    count = run_all(LENGTH, kept)
    with capsys.disabled():
        print(f"\nflight machine, kept={kept}: {count} sequences of up to {LENGTH} events")
    assert count > 100_000


@pytest.mark.parametrize("kept", [False, True])
def test_every_sequence_of_events_up_to_length_five_agrees_with_the_model(kept):
    assert run_all(5, kept) > 5_000


def swallow(self, flight, state, value, error):
    """A mutant: settles a flight that is over."""
    self._end(flight, state)
    waiters = tuple(flight.waiters)
    flight.waiters.clear()
    flight.value, flight.error, flight.owed = value, error if waiters else None, len(waiters)
    return waiters


def pops_by_key(self, flight, state):
    """A mutant: the end of an old flight removes the new one of the key."""
    flight.state = state
    flight.work.running -= 1
    self.table.pop(flight.key, None)


def forgets_the_table(self, flight, state):
    """A mutant: a flight that is over is joined by those who come later."""
    flight.state = state
    flight.work.running -= 1


def first_leaver_cancels(self, flight, waiter, inside=None):
    """A mutant: whoever began the flight takes it away when it leaves."""
    if flight.waiters.pop(waiter, flight) is flight or flight.state is not State.RUNNING or flight.work.kept:
        return None
    self._end(flight, State.ABANDONED)
    return flight.work


def nobody_cancels(self, flight, waiter, inside=None):
    """A mutant: work goes on for nobody."""
    flight.waiters.pop(waiter, None)


def kept_is_ignored(self, flight, waiter, inside=None):
    """A mutant: `on_abandon="finish"` means nothing."""
    if flight.waiters.pop(waiter, flight) is flight or flight.waiters or flight.state is not State.RUNNING:
        return None
    self._end(flight, State.ABANDONED)
    return flight.work


def keeps_the_flight(self, key):
    """A mutant: after an invalidation the next caller joins the flight from before it."""
    flight = self.table.get(key)
    return [] if flight is None else [flight]


def joins_the_dead(self, key, waiter, *, inside=None, work=None, tags=(), anew=False):
    """A mutant: a flight whose loop has stopped is joined."""
    flight, new = self.table.get(key), False
    if flight is None or anew:
        if flight is not None:
            flight.void = True
        flight, new = self._begin(key, work or Work(), tags), True
    flight.waiters[waiter] = None
    return flight, new


def keeps_the_lease(self, key, waiter, *, inside=None, work=None, tags=(), anew=False):
    """A mutant: a superseded flight stores over the newer value."""
    flight, new = self.table.get(key), False
    if flight is None or anew or not flight.work.alive():
        flight, new = self._begin(key, work or Work(), tags), True
    flight.waiters[waiter] = None
    return flight, new


MUTANTS = [
    ("_settle", swallow),
    ("_end", pops_by_key),
    ("_end", forgets_the_table),
    ("leave", first_leaver_cancels),
    ("leave", nobody_cancels),
    ("leave", kept_is_ignored),
    ("detach_key", keeps_the_flight),
    ("join", joins_the_dead),
    ("join", keeps_the_lease),
]


@pytest.mark.parametrize(("method", "mutant"), MUTANTS, ids=[mutant.__name__ for _, mutant in MUTANTS])
def test_a_wrong_machine_is_caught(method, mutant, monkeypatch):
    monkeypatch.setattr(Flights, method, mutant)
    with pytest.raises(AssertionError):
        for kept in (False, True):
            run_all(4, kept)


# --- several flights of one work, and circles -------------------------------------------------------------------------


def test_a_work_of_several_flights_is_cancelled_when_the_last_of_them_is_left():
    table, work, who, other = Flights(), Work(), Who(), Who()
    first, _ = table.join("a", who, work=work)
    second, _ = table.join("b", other, work=work)
    assert table.leave(first, who) is None
    assert table.leave(second, other) is work


def test_a_work_whose_other_flights_are_done_is_cancelled_too():
    table, work, who = Flights(), Work(), Who()
    first, _ = table.join("a", who, work=work)
    second, _ = table.join("b", who, work=work)
    table.done(first, 1)
    assert table.leave(second, who) is work


def test_a_flight_that_would_wait_for_itself_is_refused_directly_or_round_a_corner():
    table, who = Flights(), Who()
    one, _ = table.join(1, who)
    with pytest.raises(CircularWaitError):
        table.join(1, who, inside=one.work)
    with pytest.raises(CircularWaitError):
        table.join(1, who, inside=one.work, anew=True)
    two, _ = table.join(2, who, inside=one.work)
    three, _ = table.join(3, who, inside=two.work)
    with pytest.raises(CircularWaitError):
        table.join(1, who, inside=three.work)
    table.leave(two, who, one.work)  # now nobody waits for two any more
    table.join(1, who, inside=three.work)


def test_a_flight_that_is_over_closes_no_circle():
    table, who = Flights(), Who()
    one, _ = table.join(1, who)
    two, _ = table.join(2, who, inside=one.work)
    table.done(two, 5)
    table.join(1, who, inside=two.work)


def test_all_waiters_raise_the_same_error_with_the_frames_of_the_function_only():
    table = Flights()
    for _ in range(50):
        flight, _ = table.join(1, Who())

    def fails():
        raise ValueError("x")

    try:
        fails()
    except ValueError as error:
        table.failed(flight, error)
    lengths = []
    for _ in range(50):
        with pytest.raises(ValueError, match="x") as caught:
            Flights.result(flight)
        lengths.append(len(caught.traceback))
    assert len(set(lengths)) == 1
    assert flight.error is None  # the last who waited has taken it away
    with pytest.raises(RuntimeError, match="no answer left"):
        Flights.result(flight)


def test_a_forked_child_has_no_flights():
    table, who = Flights(), Who()
    table.join(1, who)
    table._lock.acquire()
    table.after_fork()
    assert table.join(1, who)[1]


def test_flights_are_let_go_by_tag():
    table, who = Flights(), Who()
    one, _ = table.join(1, who, tags=("x",))
    two, _ = table.join(2, who, tags=("y",))
    assert table.detach(lambda flight: "x" in flight.tags) == [one]
    assert list(table.table.values()) == [two]
    assert list(table.done(one, 1)) == [who]
