"""The gate of adaptive concurrency against a slow model that follows the page word by word."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines import adaptive
from asyncguard._machines.adaptive import Adaptive, AdaptiveRules
from asyncguard._machines.gate import Request
from asyncguard.errors import BulkheadFullError

SMALL = {"WINDOW_CALLS": 4, "WINDOW_LEAST": 2, "PROBE_CALLS": 3, "PROBE_FIRST": 2, "PROBE_EVERY": 4}
OUTCOMES = ("ok", "drop", "cancelled")


class Spot:
    """A parked caller."""

    def wake(self):
        """Looked at after each step."""

    def alive(self):
        return True


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


def gate(clock=None, *, initial=4, least=1, most=12, algorithm="vegas", max_queue=None, kind=Adaptive):
    rules = AdaptiveRules(initial, least, most, algorithm, max_queue)
    return kind(rules, name="a", clock=clock or Clock(), random=lambda: 0.5)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(adaptive, name, value)


# --- the slow model ---------------------------------------------------------------------------------------------------


class Model:
    """All calls in lists; every rule written out as it is explained."""

    def __init__(self, algorithm, initial, least, most):
        self.algorithm, self.least, self.most = algorithm, least, most
        self.now = self.epoch = 1_000.0
        self.estimate = float(initial)
        self.base = None
        self.running, self.waiting = [], 0  # the starts of those that run
        self.probe_in, self.gap, self.highest = 2, 4, initial
        self.size = initial
        self.window(probing=False)

    @property
    def limit(self):
        return math.floor(self.estimate + 1e-9)

    def window(self, *, probing):
        self.probing, self.samples, self.used = probing, [], 0
        self.closes = self.now + (max(30.0, 4 * self.latency) if probing else 30.0)

    latency = 0.0

    def call(self):
        if len(self.running) >= self.size:
            self.look()
        if len(self.running) < self.size:
            self.running.append(self.now)
        elif self.waiting < 10 * self.limit:
            self.waiting += 1
        self.fill()

    def end(self, index, outcome):
        start = self.running[index]
        if outcome == "ok":
            self.used = max(self.used, len(self.running))
            if start >= self.epoch and self.now - start >= 1e-4:
                self.samples.append(self.now - start)
            self.look()
        elif outcome == "drop" and start >= self.epoch:
            self.move(0.9 * self.estimate)
            self.next_window(new_epoch=True)
        elif outcome == "cancelled":
            self.look()
        self.fill()
        del self.running[index]
        self.fill()

    def fill(self):
        while self.waiting and len(self.running) < self.size:
            self.waiting -= 1
            self.running.append(self.now)

    def look(self):
        enough, least = (3, 0) if self.probing else (4, 2)
        late = self.now >= self.closes and len(self.samples) >= least
        if len(self.samples) < enough and not late:
            return
        if self.probing:
            self.end_of_probe()
        else:
            self.latency = self.median()
            self.learn()
            self.highest = max(self.highest, self.limit)
            self.probe_in = 0 if self.limit < self.highest * 2 / 3 else self.probe_in - 1
        self.next_window(new_epoch=False)

    def median(self):
        return sorted(self.samples)[len(self.samples) // 2]

    def end_of_probe(self):
        if len(self.samples) >= 1.5:
            self.base = self.median()
        self.probe_in, self.gap, self.highest = self.gap, min(4, 2 * self.gap), self.limit

    def next_window(self, *, new_epoch):
        probing = self.algorithm == "vegas" and self.probe_in <= 0
        size = max(self.least, self.limit // 4) if probing else self.limit
        if new_epoch or size != self.size:
            self.epoch = self.now
        self.size = size
        self.window(probing=probing)

    def learn(self):
        if self.algorithm == "aimd":
            if self.used >= self.estimate / 2:
                self.move(self.estimate + 1)
            return
        if self.base is None:
            self.base = self.latency
            return
        if self.latency < self.base:
            self.base -= (self.base - self.latency) / 8
        if self.used < self.estimate / 2:
            return
        queueing = math.ceil(self.estimate - self.estimate * self.base / self.latency - 1e-9)
        if queueing <= 1:
            self.move(self.estimate + 6)
        elif queueing == 2:
            self.move(self.estimate + 1)
        elif queueing > 6:
            self.move(self.estimate - 1)

    def move(self, estimate):
        self.estimate = min(self.most, max(self.least, estimate))


class Pair:
    """The gate and the model, driven alike."""

    def __init__(self, algorithm, initial, least, most, kind=Adaptive):
        self.clock = Clock()
        self.gate = gate(self.clock, initial=initial, least=least, most=most, algorithm=algorithm, kind=kind)
        self.model = Model(algorithm, initial, least, most)
        self.running, self.places = [], []  # (permit, start) in the order of the model
        self.told = [initial]

    def step(self, action):
        getattr(self, action[0])(*action[1:])
        self.claim()
        self.check()

    def wait(self, eighths):
        self.clock.now = self.model.now = self.clock.now + eighths / 8

    def call(self):
        try:
            permit = self.gate.take()
        except LookupError:
            try:
                permit = self.gate.admit(Request(spot=Spot()))
            except BulkheadFullError:
                permit = None
        if hasattr(permit, "claim"):
            self.places.append(permit)
        elif permit is not None:
            self.claim()  # whoever waits was let in before
            self.running.append((permit, self.clock.now))
        self.model.call()

    def end(self, number, outcome):
        if not self.running:
            return
        index = number % len(self.running)
        permit, start = self.running[index]
        elapsed = self.clock.now - start
        if outcome == "ok":
            self.gate.succeeded(permit, elapsed)
        elif outcome == "drop":
            self.gate.failed(permit, elapsed, TimeoutError())
        else:
            self.gate.abandoned(permit)
        self.claim()
        del self.running[index]
        self.gate.release(permit)
        self.model.end(index, outcome)

    def claim(self):
        for place in list(self.places):
            permit = place.claim(self.clock.now)
            if permit is not None:
                self.places.remove(place)
                self.running.append((permit, self.clock.now))

    def check(self):
        gate, model = self.gate, self.model
        self.told += [new for _, new in gate.news]
        gate.news.clear()
        assert [start for _, start in self.running] == model.running
        assert (gate.limit, gate.size, gate.probing) == (model.limit, model.size, model.probing)
        assert (gate.taken, gate.waiting) == (len(model.running), model.waiting)
        assert len(gate.free) == max(0, gate.size - gate.taken), "a slot was lost or doubled"
        assert self.told[-1] == model.limit, "a change of the limit was not told"

    def drain(self):
        for _ in range(400):
            self.step(("end", 0, "cancelled"))
        assert not self.running
        assert gate_is_empty(self.gate)


def gate_is_empty(slots):
    return not slots.taken and not slots.waiting and len(slots.free) == slots.size


def run(actions, bounds=(4, 1, 12), algorithm="vegas", kind=Adaptive):
    pair = Pair(algorithm, *bounds, kind=kind)
    for action in actions:
        pair.step(action)
    pair.drain()
    return pair


actions = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 3, 8, 80, 250])),
    st.tuples(st.just("call")),
    st.tuples(st.just("call")),
    st.tuples(st.just("end"), st.integers(0, 50), st.sampled_from(["ok", "ok", "ok", *OUTCOMES])),
    st.tuples(st.just("end"), st.integers(0, 50), st.just("ok")),
)
bounds = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 30)).map(
    lambda each: (each[0] + each[1], each[0], each[0] + each[1] + each[2])
)


@given(actions=st.lists(actions, max_size=250), bounds=bounds, algorithm=st.sampled_from(["vegas", "aimd"]))
def test_it_does_what_the_slow_model_does(actions, bounds, algorithm):
    run(actions, bounds, algorithm)


def long_runs(count, length=600, seed=5):
    rng = random.Random(seed)
    for _ in range(count):
        busy = rng.random()
        yield [one_action(rng, busy) for _ in range(length)], rng.choice(["vegas", "vegas", "aimd"])


def one_action(rng, busy):
    what = rng.random()
    if what < 0.2:
        return ("wait", rng.choice([1, 2, 3, 8, 8, 40, 250]))
    if what < 0.3 + 0.4 * busy:
        return ("call",)
    return ("end", rng.randrange(50), "ok" if rng.random() < 0.93 else rng.choice(OUTCOMES))


def test_long_random_runs_do_what_the_slow_model_does():
    probed, moved = 0, set()
    for actions, algorithm in long_runs(30):
        pair = run(actions, (6, 5, 16), algorithm)
        probed += pair.model.highest != 6
        moved.update(pair.told)
    assert probed > 5, "the runs never get to a probe"
    assert {5, 16} <= moved, "the runs never get to the bounds"


class NoEpochs(Adaptive):
    def succeeded(self, permit, elapsed):
        self._epoch = -math.inf
        return super().succeeded(permit, elapsed)


class EveryDropCounts(Adaptive):
    def failed(self, permit, elapsed, error):
        self._epoch = -math.inf
        return super().failed(permit, elapsed, error)


class GrowsUnused(Adaptive):
    def succeeded(self, permit, elapsed):
        self._window.used = self.size
        return super().succeeded(permit, elapsed)


class CancelledCallsAreSamples(Adaptive):
    def abandoned(self, permit):
        return self.succeeded(permit, 1.0)


class NeverProbes(Adaptive):
    def _plan_probe(self):
        self._windows = math.inf


class LosesSlots(Adaptive):
    def _fit(self, size):
        self.free.clear()
        super()._fit(size)


class SaysNothing(Adaptive):
    def _open(self, now, old, *, epoch=False):
        super()._open(now, self.limit, epoch=epoch)


@pytest.mark.parametrize(
    "mutant",
    [NoEpochs, EveryDropCounts, GrowsUnused, CancelledCallsAreSamples, NeverProbes, LosesSlots, SaysNothing],
)
def test_mutants_are_caught(mutant):
    with pytest.raises(AssertionError):
        for actions, algorithm in long_runs(30):
            run(actions, (6, 5, 16), algorithm, mutant)


# --- single rules, in words -------------------------------------------------------------------------------------------


def load(slots, clock, seconds, *, rounds=1, calls=None, outcome="ok"):
    """Take what is there (or so many), let it run, and end it."""
    for _ in range(rounds):
        permits = [slots.take() for _ in range(calls or len(slots.free))]
        clock.now += seconds
        for permit in permits:
            if outcome == "ok":
                slots.succeeded(permit, seconds)
            elif outcome == "drop":
                slots.failed(permit, seconds, TimeoutError())
            else:
                slots.abandoned(permit)
        for permit in permits:
            slots.release(permit)


def test_a_full_limit_without_queueing_grows():
    clock = Clock()
    slots = gate(clock, initial=4, most=100)
    load(slots, clock, 0.05, rounds=2)
    assert slots.limit == 10
    assert list(slots.news) == [(4, 10)]


def test_calls_that_were_under_way_together_count_as_one_drop():
    clock = Clock()
    slots = gate(clock, initial=10, most=100)
    load(slots, clock, 5.0, outcome="drop")
    assert slots.limit == 9
    load(slots, clock, 5.0, outcome="drop")
    assert slots.limit == 8


def test_cancelled_calls_leave_no_sample():
    clock = Clock()
    slots = gate(clock, initial=4, most=100)
    load(slots, clock, 0.05, rounds=50, outcome="cancelled")
    assert slots.limit == 4
    assert not slots._window.samples
    assert math.isnan(slots.latency)


def test_a_call_that_started_before_the_limit_changed_is_ignored():
    clock = Clock()
    slots = gate(clock, initial=4, most=100)
    old = slots.take()
    dropped = slots.take()
    clock.now += 1.0
    slots.failed(dropped, 1.0, TimeoutError())
    slots.succeeded(old, 1.0)
    assert not slots._window.samples
    new = slots.take()
    clock.now += 0.5
    slots.succeeded(new, 0.5)
    assert list(slots._window.samples) == [0.5]


def test_who_answers_without_working_is_no_sample():
    clock = Clock()
    slots = gate(clock)
    for elapsed in (0.0, 5e-5, -1.0):
        slots.succeeded(slots.take(), elapsed)
    assert not slots._window.samples


def test_a_probe_drains_measures_and_gives_the_limit_back():
    clock = Clock()
    slots = gate(clock, initial=8, most=8)
    load(slots, clock, 0.2)  # two windows of four calls
    assert slots.probing
    assert (slots.limit, slots.size, len(slots.free)) == (8, 2, 2)
    assert "limit 8 (1..8, probing with 2), 200 ms latency, 200 ms unloaded" in slots.describe()
    load(slots, clock, 0.05, rounds=2)
    assert not slots.probing
    assert (slots.limit, slots.size, len(slots.free)) == (8, 8, 8)
    assert slots.rule.base == 0.05
    assert not slots.news, "draining is no change of the limit"


def test_a_probe_that_sees_no_call_end_gives_up_after_a_while():
    clock = Clock()
    slots = gate(clock, initial=8, most=8)
    load(slots, clock, 0.2)
    assert slots.probing
    held = [slots.take(), slots.take()]
    clock.now += 31.0
    assert not hasattr(slots.admit(Request(spot=Spot())), "claim")
    assert not slots.probing
    assert slots.rule.base == 0.2, "nothing was measured"
    assert len(held) + 1 == slots.taken


def test_a_limit_that_fell_by_a_third_is_probed_at_once():
    clock = Clock()
    slots = gate(clock, initial=30, most=30)
    slots._windows = 1_000
    load(slots, clock, 0.05)
    load(slots, clock, 1.0, rounds=10, outcome="drop")
    assert slots.limit < 20
    load(slots, clock, 0.05)
    assert slots.probing


def test_aimd_never_probes():
    clock = Clock()
    slots = gate(clock, initial=8, most=8, algorithm="aimd")
    for _ in range(40):
        load(slots, clock, 0.2)
        assert not slots.probing


def test_a_higher_limit_lets_waiters_in():
    clock = Clock()
    slots = gate(clock, initial=4, most=100, kind=NeverProbes)
    load(slots, clock, 0.05)
    permits = [slots.take() for _ in range(4)]
    places = [slots.admit(Request(spot=Spot())) for _ in range(5)]
    clock.now += 0.05
    for permit in permits:
        slots.succeeded(permit, 0.05)
    assert slots.limit == 10
    assert None not in [place.claim(clock.now) for place in places]
    assert slots.taken == 9


def test_a_lower_limit_waits_for_running_calls():
    clock = Clock()
    slots = gate(clock, initial=10)
    permits = [slots.take() for _ in range(10)]
    clock.now += 1.0
    slots.failed(permits[0], 1.0, TimeoutError())
    slots.release(permits[0])
    assert (slots.limit, slots.taken, len(slots.free)) == (9, 9, 0)
    slots.release(permits[1])
    assert slots.take() is not None


def test_refusals_say_what_the_limit_is_and_why():
    clock = Clock()
    slots = gate(clock, initial=2, max_queue=1)
    load(slots, clock, 0.05, rounds=2, calls=1)
    held = [slots.take(), slots.take()]
    place = slots.admit(Request(spot=Spot()))
    with pytest.raises(BulkheadFullError, match=r"1 of 1 places wait; limit 2 \(1.*; start fewer calls"):
        slots.admit(Request(spot=Spot()))
    assert "no permit came free in time" in str(place.late(clock.now))
    assert "limit 2 (1..12)" in str(place.late(clock.now))
    assert len(held) == 2


def test_the_queue_is_ten_times_the_limit_unless_it_is_given():
    clock = Clock()
    slots = gate(clock, initial=4, most=100)
    assert slots.max_queue == 40
    load(slots, clock, 0.05, rounds=2)
    assert slots.max_queue == 100
    assert gate(initial=4, max_queue=0).max_queue == 0


def test_other_rules_keep_what_was_learnt_as_far_as_they_allow():
    clock = Clock()
    slots = gate(clock, initial=10, most=100, kind=NeverProbes)
    load(slots, clock, 0.05)
    assert slots.rule.base == 0.05
    slots.configure(AdaptiveRules(5, 1, 100, "vegas", None))
    assert (slots.limit, slots.rule.base, list(slots.news)) == (16, 0.05, [(10, 16)])
    slots.configure(AdaptiveRules(5, 1, 6, "vegas", 7))
    assert (slots.limit, len(slots.free), slots.max_queue) == (6, 6, 7)
    slots.configure(AdaptiveRules(5, 8, 20, "aimd", 7))
    assert (slots.limit, len(slots.free), slots.rule.drained()) == (8, 8, None)
    slots.configure(AdaptiveRules(5, 1, 20, "vegas", 7))
    assert (slots.limit, slots.rule.base) == (8, math.inf)


def test_a_lowered_limit_is_not_forgotten_before_a_minute_is_over():
    clock = Clock()
    slots = gate(clock, initial=10)
    assert slots.idle()
    permit = slots.take()
    assert not slots.idle()
    clock.now += 1.0
    slots.failed(permit, 1.0, TimeoutError())
    slots.release(permit)
    assert not slots.idle()
    clock.now += 60.0
    assert slots.idle()


def test_a_forked_child_keeps_the_limit_and_forgets_the_calls():
    clock = Clock()
    slots = gate(clock, initial=8, most=8)
    load(slots, clock, 0.2)
    assert slots.probing
    slots.take()
    slots.after_fork()
    assert not slots.probing
    assert (slots.limit, slots.size, slots.taken, len(slots.free)) == (8, 8, 0, 8)
    assert slots.rule.base == 0.2


def test_an_outcome_that_the_collector_reports_under_the_lock_is_seen_to_afterwards():
    """A generator that is collected may end with an error; its thread may hold the lock at that moment."""
    clock = Clock()
    slots = gate(clock, initial=10)
    permit = slots.take()
    clock.now += 1.0
    assert slots._alone(lambda: list(slots.failed(permit, 1.0, TimeoutError()))) == []
    assert slots.limit == 10
    slots.release(permit)
    slots.admit(Request(spot=Spot()))
    assert slots.limit == 9
