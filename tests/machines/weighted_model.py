"""Weighted permits with priorities, written down slowly: lists, sorted anew for every question, and no locks."""

from __future__ import annotations

from asyncguard._machines.gate import Request
from asyncguard._machines.queued import Asker
from asyncguard._machines.weighted_slots import AGING, LOOKAHEAD, MOST_PASSES, WeightedSlots
from asyncguard.errors import BulkheadFullError


class Spot:
    """A parked caller whose loop the test can stop."""

    def __init__(self):
        self.running = True
        self.woken = False

    def wake(self):
        self.woken = True

    def alive(self):
        return self.running


class Important(Asker):
    def __init__(self, priority):
        self.priority = priority


class Waiter:
    """A caller in the model, and the place that the machine gave it."""

    def __init__(self, number, rank, weight):
        self.number, self.rank, self.weight = number, rank, weight
        self.spot = Spot()
        self.offered = self.aside = False
        self.passed = 0
        self.place = None


class Model:
    """What WeightedSlots should do."""

    def __init__(self, size, max_queue):
        self.size, self.max_queue = size, max_queue
        self.used = 0
        self.waiting: list[Waiter] = []
        self.number = 0

    def line(self):
        inside = [waiter for waiter in self.waiting if not waiter.offered and not waiter.aside]
        return sorted(inside, key=lambda waiter: (waiter.rank, waiter.number))

    def fits(self, weight):
        return self.used + weight <= self.size or self.used == 0

    def settle(self):
        head, others = None, 0
        for waiter in self.line():
            if (self.used >= self.size and self.used) or others > LOOKAHEAD:
                return
            if head is not None and head.passed >= MOST_PASSES:
                return
            if not waiter.spot.running:
                waiter.aside = True
            elif self.fits(waiter.weight):
                waiter.offered = True
                self.used += waiter.weight
                if head is not None:
                    head.passed += 1
            else:
                others += 1
                head = head or waiter

    def revoke(self):
        for waiter in self.waiting:
            if waiter.offered and not waiter.spot.running:
                waiter.offered, waiter.aside = False, True
                waiter.number = self.next()
                self.used -= waiter.weight
                self.settle()

    def next(self):
        self.number += 1
        return self.number

    def call(self, now, weight, priority):
        """Return "in", "queued" or "full", and the waiter if it queued."""
        self.revoke()
        while (line := self.line()) and not line[0].spot.running and self.fits(weight):
            line[0].aside = True
        if self.fits(weight) and not self.line():
            self.used += weight
            return "in", None
        waiter = Waiter(self.next(), now - AGING * priority, weight)
        self.waiting.append(waiter)
        self.settle()
        if waiter.offered:
            self.waiting.remove(waiter)
            return "in", None
        if len(self.waiting) > self.max_queue:
            self.waiting.remove(waiter)
            return "full", None
        return "queued", waiter

    def claim(self, waiter):
        if not waiter.offered:
            waiter.aside = False
            self.revoke()
            self.settle()
        if waiter.offered:
            self.waiting.remove(waiter)
            return True
        return False

    def cancel(self, waiter):
        self.waiting.remove(waiter)
        if waiter.offered:
            self.used -= waiter.weight
            self.settle()

    def end(self, weight):
        self.used -= weight
        self.settle()


class World:
    """The machine and the model, driven step by step; they must agree after every step."""

    def __init__(self, kind=WeightedSlots, size=3, max_queue=40):
        self.now = 0.0
        self.machine = kind(size, max_queue, name="b", clock=lambda: self.now)
        self.model = Model(size, max_queue)
        self.held = []

    def step(self, action, *given):
        getattr(self, action)(*given)
        self.check()

    def call(self, weight, priority=0.0):
        weight = min(weight, self.model.size)
        said, waiter = self.model.call(self.now, weight, priority)
        spot = waiter.spot if waiter else Spot()
        try:
            answer = self.machine.admit(Request(spot=spot, cost=weight, owner=Important(priority)))
        except BulkheadFullError:
            assert said == "full"
            return
        if hasattr(answer, "claim"):
            assert said == "queued", f"the machine lets it wait, the model says {said}"
            waiter.place = answer
        else:
            assert said == "in", f"the machine lets it in, the model says {said}"
            self.held.append(answer)

    def end(self, which=0):
        if self.held:
            share = self.held.pop(which % len(self.held))
            self.model.end(share.weight)
            self.wake(self.machine.release(share))

    def correct(self, which, weight):
        if self.held:
            share = self.held[which % len(self.held)]
            weight = min(weight, self.model.size)
            self.model.used += weight - share.weight
            self.model.settle()
            self.wake(self.machine.reconcile(share, weight))

    def claim(self, which=0):
        ready = [waiter for waiter in self.model.waiting if waiter.spot.running and waiter.spot.woken]
        if ready:
            waiter = ready[which % len(ready)]
            waiter.spot.woken = False
            share = waiter.place.claim(self.now)
            assert (share is not None) == self.model.claim(waiter)
            if share is not None:
                assert share.weight == waiter.weight
                self.held.append(share)

    def cancel(self, which=0):
        if self.model.waiting:
            waiter = self.model.waiting[which % len(self.model.waiting)]
            self.model.cancel(waiter)
            self.wake(waiter.place.withdraw())

    def stop(self, which=0):
        if self.model.waiting:
            self.model.waiting[which % len(self.model.waiting)].spot.running = False

    def go_on(self):
        for waiter in self.model.waiting:
            waiter.spot.running = True

    def later(self, seconds=1.0):
        self.now += seconds

    def resize(self, size):
        self.model.size = size
        self.model.settle()
        self.wake(self.machine.resize(size, self.model.max_queue))

    @staticmethod
    def wake(spots):
        for spot in spots:
            spot.wake()

    def check(self):
        assert self.machine.taken == self.model.used, "permits were lost or doubled"
        assert self.machine.waiting == len(self.model.waiting)
        for waiter in self.model.waiting:
            assert (waiter.place.offer is not None) == waiter.offered, "an offer went to somebody else"
            assert waiter.place.passed == waiter.passed <= MOST_PASSES
            told = waiter.spot.woken or not (waiter.offered or waiter.aside)
            assert told, "somebody has an offer, or was skipped, and was not told"
        assert len(self.machine.line._heap) <= 2 * len(self.machine.queue) + 70

    def drain(self):
        """Let everybody finish: nothing may stay behind."""
        self.go_on()
        for _ in range(2 * len(self.model.waiting) + len(self.held) + 4):
            for waiter in list(self.model.waiting):
                if waiter.spot.woken:
                    self.step("claim", [each for each in self.model.waiting if each.spot.woken].index(waiter))
            self.step("end")
        assert not self.model.waiting, "somebody waits for ever"
        assert self.machine.idle()
