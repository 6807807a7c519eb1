"""The garbage collector ends an abandoned call in the middle of a decision: nothing waits for itself, nothing is lost.

A finalizer runs on whatever thread the collector happens to run, also on one that is inside of the very machine that
the finalizer gives a permit back to.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asyncguard._machines.adaptive import Adaptive, AdaptiveRules
from asyncguard._machines.bucket import Bucket
from asyncguard._machines.budget import Allowance, RetryBudget
from asyncguard._machines.gate import Request
from asyncguard._machines.parked import Parked
from asyncguard._machines.partitions import Partitions
from asyncguard._machines.rates import Rate
from asyncguard._machines.slots import Slots
from asyncguard._machines.weighted_slots import WeightedSlots
from asyncguard.errors import RejectedError

RULES = AdaptiveRules(initial=2, least=1, most=9, algorithm="vegas", max_queue=50)


class Cycle:
    """Garbage that only the collector finds; its finalizer does what the `finally` of an abandoned call would."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.me = self
        self.do = do

    def __del__(self) -> None:
        self.do()


class Hook:
    """What a machine calls under its lock: the clock, and whether a waiter is alive. There the collector runs."""

    def __init__(self) -> None:
        self.doing: list[Callable[[], object]] = []
        self.ran = 0
        self.ms = 10**6
        self.gate: Any = None  # the collector runs while somebody is inside of it

    def collect(self) -> None:
        while self.doing and (self.gate is None or inside(self.gate)):
            Cycle(self.doing.pop())
            self.ran += 1
            gc.collect(0)

    def seconds(self) -> float:
        self.collect()
        return self.ms / 1e3

    def nanoseconds(self) -> int:
        self.collect()
        return self.ms * 10**6

    def alive(self) -> bool:
        self.collect()
        return True

    def wake(self) -> None: ...


Make = Callable[[Hook], Any]
GATES: dict[str, Make] = {
    "slots": lambda hook: Slots(2, 50, name="gate", clock=hook.seconds),
    "weighted": lambda hook: WeightedSlots(2, 50, name="gate", clock=hook.seconds),
    "adaptive": lambda hook: Adaptive(RULES, name="gate", clock=hook.seconds, random=lambda: 0.5),
    "one rate": lambda hook: Bucket([Rate("2/s")], hook.nanoseconds, "gate"),
    "two rates": lambda hook: Bucket([Rate("2/s"), Rate("900/min burst 3")], hook.nanoseconds, "gate"),
}


@pytest.fixture(params=GATES)
def make(request: pytest.FixtureRequest) -> Make:
    return GATES[request.param]


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    gc.freeze()  # it has only ours to look at, which makes it quick
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def within(seconds: float, do: Callable[[], object]) -> None:
    """Run something on a thread of its own: should it wait for itself, only the test fails."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the thread waits for itself"
    if failed:
        raise failed[0]


def ask(gate: Any, hook: Hook) -> Any:
    return gate.admit(Request(spot=hook, until=1e9))


def inside(gate: Any) -> bool:
    return bool(getattr(gate, "inside", False) or getattr(gate, "_inside", False))


def test_a_permit_that_is_given_back_in_the_middle_of_a_decision_reaches_who_waits(make: Make) -> None:
    def story() -> None:
        hook, seen = Hook(), list[bool]()
        gate = hook.gate = make(hook)
        held = [ask(gate, hook), ask(gate, hook)]
        first, second = ask(gate, hook), ask(gate, hook)

        def give_back() -> None:
            seen.append(inside(gate))
            gate.refund(held.pop())
            second.withdraw()

        hook.doing.append(give_back)
        third = ask(gate, hook)
        assert seen == [True], "the collector was meant to run under the lock"
        assert first.claim(hook.seconds()) is not None
        assert gate.waiting == 1 if hasattr(gate, "waiting") else "1 waiting" in gate.describe()
        third.withdraw()
        assert not gate.queue

    within(60.0, story)


def test_who_asks_in_the_middle_of_a_decision_is_refused(make: Make) -> None:
    def story() -> None:
        hook, said = Hook(), list[str]()
        gate = hook.gate = make(hook)
        held = [ask(gate, hook), ask(gate, hook)]

        def call_again() -> None:
            try:
                ask(gate, hook)
            except RejectedError as error:
                said.append(str(error))

        hook.doing.append(call_again)
        waiter = ask(gate, hook)
        assert len(said) == 1
        assert "gate: asked by a finalizer" in said[0]
        for permit in held:
            gate.refund(permit)
        assert waiter.claim(hook.seconds()) is not None

    within(60.0, story)


@pytest.mark.usefixtures("eager_collector")
def test_nothing_is_lost_however_often_the_collector_runs(make: Make) -> None:
    def story() -> None:
        hook = Hook()
        gate = hook.gate = make(hook)
        waiting: list[Any] = []
        for turn in range(200):
            hook.ms += 40
            drop(gate, hook)
            gc.collect()  # also those that were old before they were dropped
            waiting.append(ask(gate, hook))
            hook.doing.append(lambda: drop(gate, hook))
            if turn % 3:
                waiting = [each for each in waiting if not end(gate, each, hook.ms / 1e3)]
            if len(waiting) > 20:
                Cycle(waiting.pop(turn % 20).withdraw)
        hook.doing.clear()
        while waiting:
            hook.ms += 1000
            waiting = [each for each in waiting if not end(gate, each, hook.ms / 1e3)]
        gc.collect()
        hook.ms += 100_000
        assert gate.idle()

    within(60.0, story)


def drop(gate: Any, hook: Hook) -> None:
    """Make a call and forget it, so that the collector ends it some time later."""
    try:
        given = ask(gate, hook)
    except RejectedError:
        return
    Cycle(given.withdraw if hasattr(given, "claim") else lambda: gate.refund(given))


def end(gate: Any, given: Any, now: float) -> bool:
    permit = given.claim(now) if hasattr(given, "claim") else given
    if permit is None:
        return False
    gate.refund(permit)
    return True


class Moment(float):
    """A time in whose arithmetic the collector runs."""

    __slots__ = ("hook",)
    hook: Hook

    def __sub__(self, other: float) -> float:
        self.hook.collect()
        return float(self) - other

    def __ge__(self, other: float) -> bool:
        self.hook.collect()
        return float(self) >= other

    def __lt__(self, other: float) -> bool:
        self.hook.collect()
        return float(self) < other


def moment(hook: Hook, time: float) -> Moment:
    now = Moment(time)
    now.hook = hook
    return now


def test_a_budget_is_spent_in_the_middle_of_spending_it() -> None:
    def story() -> None:
        hook = Hook()
        allowance = Allowance(0.2, 10, 5.0)
        hook.doing.append(lambda: allowance.withdraw(5.0))
        assert allowance.withdraw(moment(hook, 5.0))
        assert hook.ran == 1
        assert allowance.left(5.0) == 98

    within(60.0, story)


def test_a_budget_is_asked_for_in_the_middle_of_being_asked_for() -> None:
    class Clock:
        def __init__(self, hook: Hook) -> None:
            self.hook = hook

        def now(self) -> float:
            return self.hook.seconds()

    def story() -> None:
        hook, budget = Hook(), RetryBudget()
        clock, found = Clock(hook), list[Allowance]()
        hook.doing.append(lambda: found.append(budget.at(clock)))
        assert budget.at(clock) is budget.at(clock)
        assert found == [budget.at(clock)]

    within(60.0, story)


def test_a_target_is_parked_in_the_middle_of_being_parked() -> None:
    def story() -> None:
        hook, parked = Hook(), Parked()
        hook.doing.append(lambda: parked.park(5.0, 3.0, 60.0))
        parked.park(moment(hook, 5.0), 1.0, 60.0)
        assert (hook.ran, parked.until) == (1, 8.0)
        hook.doing.append(lambda: parked.over(9.0))
        assert parked.over(moment(hook, 9.0))

    within(60.0, story)


def test_a_finalizer_may_ask_for_a_partition_while_one_is_made() -> None:
    asked: list[object] = []

    class Gate:
        def idle(self) -> bool:
            if "from a finalizer, during the sweep" not in asked:
                partitions.get("from a finalizer, during the sweep")
            return True

    def make(key: object) -> Gate:
        asked.append(key)
        if key == "a":
            partitions.get("from a finalizer, while a gate is made")
        return Gate()

    partitions: Partitions[Gate] = Partitions(make, limit=2)
    for key in ("a", "b", "c", "d", "e"):
        assert partitions.get(key) is not None
    assert "from a finalizer, while a gate is made" in asked
    assert "from a finalizer, during the sweep" in asked
