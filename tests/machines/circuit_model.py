"""A slow breaker that keeps every outcome it has heard of, and the search that runs it beside the real machine."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from operator import length_hint
from typing import TYPE_CHECKING, Any

from asyncguard._machines.circuit import Circuit
from asyncguard.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.circuit_rules import CircuitRules

EVENTS = (
    "admit",
    "peek",
    "ok oldest",
    "ok newest",
    "fail oldest",
    "fail newest",
    "slow oldest",
    "cancel oldest",
    "tick",
)


@dataclass
class Model:
    """What the page says, written down plainly: lists instead of counters, no epochs but the admitted calls."""

    rules: CircuitRules
    now: float = 0.0
    state: str = "closed"
    era: int = 0  # a call of an older era says nothing
    heard: list[tuple[bool, bool]] = field(default_factory=list)  # (failed, slow) in this era
    running: int = 0
    until: float = 0.0
    pause: float = 0.0
    last_probe: float = 0.0

    def peek(self) -> bool:
        free = self.running + len(self.heard) < self.rules.half_open_calls
        if self.state == "half_open" and not free and self.now - self.last_probe >= self.rules.open_for:
            self.enter("open")
        if self.state == "open":
            return self.now >= self.until
        return self.state == "closed" or (self.state == "half_open" and free)

    def admit(self) -> int | None:
        if not self.peek():
            return None
        if self.state == "open":
            self.enter("half_open")
        if self.state == "half_open":
            self.running += 1
            self.last_probe = self.now
        return self.era

    def outcome(self, era: int, outcome: str) -> None:
        if era != self.era:
            return
        self.running -= 1
        if outcome != "cancel":
            self.heard.append((outcome == "fail", outcome == "slow" and self.rules.slow_call < math.inf))
            self.decide()

    def decide(self) -> None:
        if self.state == "closed":
            if self.must_open():
                self.enter("open")
        elif self.certainly(bad=True):
            self.enter("open")
        elif self.certainly(bad=False):
            self.enter("closed")

    def must_open(self) -> bool:
        limit = self.rules.window_calls
        window = self.heard[-limit:] if limit else self.heard
        enough = len(window) >= min(self.rules.minimum_calls, limit or math.inf)
        return self.row(window) or (enough and self.rates(window, len(window)))

    def certainly(self, *, bad: bool) -> bool:
        """Whether all that the missing probes may say leads to the same end."""
        missing = self.rules.half_open_calls - len(self.heard)
        worst = (True, self.rules.slow_call < math.inf)
        rest = [(False, False) if bad else worst] * missing
        now = self.rates(self.heard + rest, self.rules.half_open_calls)
        return (now or self.row(self.heard)) if bad else not now

    def row(self, window: list[tuple[bool, bool]]) -> bool:
        count = self.rules.consecutive_failures
        return bool(count) and len(window) >= count and all(failed for failed, _ in window[-count:])

    def rates(self, window: list[tuple[bool, bool]], calls: int) -> bool:
        failed, slow = sum(failed for failed, _ in window), sum(slow for _, slow in window)
        return failed >= self.rules.failure_rate * calls or slow >= self.rules.slow_call_rate * calls

    def enter(self, state: str) -> None:
        if state == "open":
            longer = min(self.rules.max_open_for, self.pause * self.rules.open_factor)
            self.pause = self.rules.open_for if self.state == "closed" else longer
            self.until = self.now + self.pause
        self.state = state
        self.era += 1
        self.heard, self.running = [], 0


class Pair:
    """The machine and the model side by side on one clock; `step` compares all that can be seen from outside."""

    def __init__(self, make: Callable[..., Circuit], rules: CircuitRules, tick: float) -> None:
        self.now, self.tick = 0.0, tick
        self.machine = make(rules, lambda: self.now)
        self.model = Model(rules)
        self.flying: list[tuple[Any, int]] = []

    def enabled(self, event: str) -> bool:
        return event in {"admit", "peek", "tick"} or bool(self.flying)

    def step(self, event: str) -> None:
        kind, _, which = event.partition(" ")
        if kind == "tick":
            self.now = self.model.now = self.now + self.tick
        elif kind == "peek":
            assert self.machine_peeks() == self.model.peek(), "peek"
        elif kind == "admit":
            self.admit()
        else:
            permit, era = self.flying.pop(0 if which == "oldest" else -1)
            self.report(kind, permit)
            self.model.outcome(era, kind)
        assert self.machine.state == self.model.state, f"state {self.machine.state}, expected {self.model.state}"

    def admit(self) -> None:
        era = self.model.admit()
        try:
            permit = self.machine_admits()
        except CircuitOpenError as error:
            self.refused(era, error.retry_after)
        else:
            assert era is not None, "admitted a call that has to be refused"
            self.flying.append((permit, era))

    def refused(self, era: int | None, retry_after: float | None) -> None:
        assert era is None, "refused a call that has to be admitted"
        expected = self.model.until - self.now if self.model.state == "open" else None
        assert retry_after == expected, f"retry_after {retry_after}, expected {expected}"

    def machine_admits(self) -> Any:
        try:
            return self.machine.take()
        except LookupError:
            return self.machine.admit()

    def machine_peeks(self) -> bool:
        try:
            self.machine.peek()
        except CircuitOpenError:
            return False
        return True

    def report(self, kind: str, permit: Any) -> None:
        if kind == "cancel":
            self.machine.abandoned(permit)
        elif kind == "fail":
            self.machine.failed(permit, 0.0, ConnectionError())
        else:
            self.machine.succeeded(permit, 9.0 if kind == "slow" else 0.0)
        self.machine.release(permit)

    def snapshot(self) -> Any:
        """Everything that the machine and its permits know: equal snapshots behave alike."""
        seen: dict[int, int] = {}
        permits = [photo(permit, seen) for permit, _ in self.flying]
        return self.now, photo(self.machine, seen), *permits, tuple(era for _, era in self.flying), str(self.model)


SKIPPED = {
    "_lock",
    "_clock",
    "_label",
    "_rules",
    "news",
    "tick",
    "_last_error",
    "_last_failure",
    "_tripped",
    "_facts",
}  # said, not acted on


def photo(value: Any, seen: dict[int, int]) -> Any:
    if isinstance(value, int | float | str | None):
        return value
    if hasattr(value, "__length_hint__"):
        return length_hint(value)
    if isinstance(value, tuple | list | deque):
        return tuple(photo(each, seen) for each in value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    names = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())] or vars(value)
    return tuple(photo(getattr(value, name), seen) for name in names if name not in SKIPPED)


@dataclass
class Search:
    """The result: how many sequences were covered, by how many distinct states, and the first that went wrong."""

    sequences: int = 0
    states: int = 0
    witness: tuple[str, ...] = ()
    reason: str = ""


def search(make: Callable[..., Circuit], rules: CircuitRules, tick: float, length: int) -> Search:
    """Run every sequence of enabled events up to `length`, shortest first; stop at the first difference.

    Sequences that lead to the same state are continued once and counted as often as they are many.
    """
    found = Search()
    layer: dict[Any, tuple[tuple[str, ...], int]] = {None: ((), 1)}
    for _ in range(length):
        following: dict[Any, tuple[tuple[str, ...], int]] = {}
        for path, count in layer.values():
            for event in EVENTS:
                pair = replay(make, rules, tick, path)
                if not pair.enabled(event):
                    continue
                try:
                    pair.step(event)
                except AssertionError as error:
                    found.witness, found.reason = (*path, event), str(error)
                    return found
                found.sequences += count
                key = pair.snapshot()
                first, many = following.get(key, ((*path, event), 0))
                following[key] = first, many + count
        layer = following
        found.states += len(layer)
    return found


def replay(make: Callable[..., Circuit], rules: CircuitRules, tick: float, path: tuple[str, ...]) -> Pair:
    pair = Pair(make, rules, tick)
    for event in path:
        pair.step(event)
    return pair
