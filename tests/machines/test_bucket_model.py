"""Any history of arrivals, claims, cancellations, refunds and corrections against a slow model in fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import Request
from asyncguard._machines.rates import Rate
from asyncguard._machines.reservation import Reservation
from asyncguard.errors import RateLimitedError

RATES = ("3/s burst 4", "20/7s burst 9")
START = 10**12
COSTS = st.tuples(st.integers(0, 4), st.integers(0, 9))


class Spot:
    def wake(self) -> None:
        """Nobody sleeps here."""

    def alive(self) -> bool:
        return True


@dataclass(eq=False)
class Entry:
    costs: tuple[int, ...]
    slot: Fraction  # exact; a place shows it rounded up to whole nanoseconds
    state: str  # waiting, started, gone
    number: int


class Model:
    """The whole history from the last time that nobody waited, worked out anew at every step, without rounding."""

    def __init__(self, rates: list[Rate]) -> None:
        self.interval = [rate.period / rate.limit for rate in rates]
        self.burst = [rate.burst * interval for rate, interval in zip(rates, self.interval, strict=True)]
        self.base = [Fraction(START) for _ in rates]
        self.log: list[Entry] = []
        self.changed = math.inf  # who waits behind this number has to be timed anew
        self.arrivals = 0

    def conform(self, tats: list[Fraction], costs: tuple[int, ...]) -> Fraction:
        lines = zip(tats, costs, self.interval, self.burst, strict=True)
        opens = [tat + cost * interval - burst for tat, cost, interval, burst in lines if cost]
        return max(opens, default=Fraction(0))

    def after(self, tats: list[Fraction], entry: Entry) -> list[Fraction]:
        lines = zip(tats, entry.costs, self.interval, strict=True)
        return [max(tat, entry.slot) + cost * interval if cost else tat for tat, cost, interval in lines]

    def tidy(self, now: int) -> list[Fraction]:
        tats = list(self.base)
        first = True
        for entry in self.log:
            if entry.state == "gone":
                continue
            if entry.state == "waiting":
                if first and any(c and tat < now for c, tat in zip(entry.costs, self.after(tats, entry), strict=True)):
                    self.changed = min(self.changed, entry.number - 1)
                first = False
                if entry.number > self.changed:
                    entry.slot = max(self.conform(tats, entry.costs), Fraction(now))
            tats = self.after(tats, entry)
        self.changed = math.inf
        while self.log and self.log[0].state != "waiting":
            if self.log[0].state == "started":
                self.base = self.after(self.base, self.log[0])
            self.log.pop(0)
        return tats

    def arrive(self, now: int, costs: tuple[int, ...], until: float) -> Entry | None:
        slot = max(Fraction(now), self.conform(self.tidy(now), costs))
        if slot > now and math.ceil(slot) / 1e9 > until:
            return None
        self.arrivals += 1
        entry = Entry(costs, slot, "started" if slot <= now else "waiting", self.arrivals)
        self.log.append(entry)
        self.tidy(now)
        return entry

    def give(self, now: int, changes: list[float]) -> None:
        self.tidy(now)
        lines = zip(self.base, changes, self.interval, strict=True)
        self.base = [max(tat, Fraction(now)) + Fraction(change) * interval for tat, change, interval in lines]
        self.changed = 0


class Histories(RuleBasedStateMachine):
    corrections = True

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        rates = [Rate(RATES[0]), Rate(RATES[1], cost=len)]
        self.bucket = Bucket(rates, lambda: self.now)
        self.model = Model(rates)
        self.waiting: list[tuple[Reservation, Entry]] = []
        self.permits: list[tuple[list[float], Entry]] = []
        self.starts: list[tuple[int, tuple[int, ...]]] = []

    @rule(ms=st.sampled_from([0, 1, 7, 100, 333, 334, 1000, 5000, 60_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms * 10**6 + ms

    @rule(costs=COSTS, patience=st.sampled_from([0.0, 0.5, 2.0, 100.0, math.inf]))
    def somebody_arrives(self, costs: tuple[int, int], patience: float) -> None:
        until = self.now / 1e9 + patience
        expected = self.model.arrive(self.now, costs, until)
        try:
            answer: Any = self.bucket.admit(Request(spot=Spot(), until=until, cost=costs))
        except RateLimitedError:
            assert expected is None
            return
        assert expected is not None
        if isinstance(answer, Reservation):
            assert (expected.state, answer.slot) == ("waiting", math.ceil(expected.slot))
            self.waiting.append((answer, expected))
        else:
            assert expected.state == "started"
            self.began(answer, expected)

    def began(self, permit: list[float], entry: Entry) -> None:
        self.permits.append((permit, entry))
        self.starts.append((self.now, entry.costs))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_looks(self, data: st.DataObject) -> None:
        place, entry = data.draw(st.sampled_from(self.waiting))
        self.model.tidy(self.now)
        permit = place.claim(self.now / 1e9)
        assert (permit is not None) == (math.ceil(entry.slot) / 1e9 <= self.now / 1e9)
        if permit is not None:
            entry.state = "started"
            self.waiting.remove((place, entry))
            self.began(permit, entry)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_leaves(self, data: st.DataObject) -> None:
        place, entry = data.draw(st.sampled_from(self.waiting))
        place.withdraw()
        entry.state, self.model.changed = "gone", min(self.model.changed, entry.number)
        self.waiting.remove((place, entry))

    @precondition(lambda self: self.corrections and self.permits)
    @rule(data=st.data(), actual=st.integers(0, 20))
    def a_cost_is_corrected(self, data: st.DataObject, actual: int) -> None:
        permit, _ = data.draw(st.sampled_from(self.permits))
        self.model.give(self.now, [1 - permit[0], actual - permit[1]])
        self.bucket.reconcile(permit, actual)

    @precondition(lambda self: self.corrections and self.permits)
    @rule(data=st.data())
    def a_call_is_not_made_after_all(self, data: st.DataObject) -> None:
        permit, _ = data.draw(st.sampled_from(self.permits))
        self.model.give(self.now, [-cost for cost in permit])
        self.bucket.refund(permit)

    @invariant()
    def places_are_where_the_model_has_them(self) -> None:
        tats = self.model.tidy(self.now)
        for place, entry in self.waiting:
            assert place.due(0.0) == math.ceil(entry.slot) / 1e9
        assert self.bucket.wait((1, 1)) == (max(self.now, math.ceil(self.model.conform(tats, (1, 1)))) - self.now) / 1e9


class Conformity(Histories):
    """Without corrections, what started never exceeded a rate by more than a call, whatever interval one looks at."""

    corrections = False

    @invariant()
    def no_interval_holds_more_than_its_rate(self) -> None:
        for i, (limit, burst) in enumerate(zip(self.model.interval, self.model.burst, strict=True)):
            one_more = max((costs[i] for _, costs in self.starts), default=0) * limit
            for first in range(len(self.starts)):
                total = 0
                for when, costs in self.starts[first:]:
                    total += costs[i]
                    # A claim compares floats of seconds: a few hundred nanoseconds early at most.
                    assert total * limit <= burst + one_more + (when - self.starts[first][0]) + 1000


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=30, deadline=None)
TestConformity = Conformity.TestCase
TestConformity.settings = settings(stateful_step_count=30, deadline=None)
