"""`circuit_breaker`: leave a dependency alone that fails too often. The circuit is in `_machines.circuit`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from asyncguard._admission import AdmissionOptions, AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.circuit import Circuit, CircuitState
from asyncguard._machines.circuit_rules import CircuitRules
from asyncguard._machines.classify import classify
from asyncguard._machines.partitions import partition_key
from asyncguard.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from asyncguard._machines.partitions import PartitionBy
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]
    On = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], object]
    Errors = tuple[type[Exception], ...] | Callable[[Exception], object]

__all__ = ["CircuitBreaker", "CircuitBreakerOptions", "CircuitState", "circuit_breaker", "is_dependency_failure"]

_WORST_FIRST = (CircuitState.FORCED_OPEN, CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED)
_FAILURES = frozenset({"transient", "timeout", "unknown"})
_MOST_LINES = 20


def is_dependency_failure(error: Exception) -> bool:
    """Tell whether an error says that the dependency is in trouble: transient, timeout or unknown.

    Throttling, the caller's own mistakes (4xx, `ValueError`) and asyncguard's rejections do not: they would let one
    tenant's bad requests open the circuit for all.
    """
    return not isinstance(error, RejectedError) and classify(error) in _FAILURES


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions(AdmissionOptions):
    """The options of `circuit_breaker`; durations are in seconds once they are checked."""

    failure_rate: float = 0.5
    window: timedelta | int = timedelta(seconds=60)
    minimum_calls: int = 20
    open_for: float = 30.0
    on: On = is_dependency_failure
    slow_call: float | None = None
    slow_call_rate: float = 1.0
    consecutive_failures: int | None = None
    open_factor: float = 2.0
    max_open_for: float = 300.0
    half_open_calls: int = 3

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        for rate in ("failure_rate", "slow_call_rate"):
            self.set(rate, checks.fraction(rate, getattr(self, rate), above=0.0))
        for count in ("minimum_calls", "half_open_calls"):
            checks.integer(count, getattr(self, count), least=1)
        if self.consecutive_failures is not None:
            checks.integer("consecutive_failures", self.consecutive_failures, least=1)
        self.set("on", checks.errors("on", self.on))
        _check_window(self.window)
        self._check_durations()

    def _check_durations(self) -> None:
        self.set("open_for", checks.duration("open_for", self.open_for, above=0.0))
        if self.slow_call is not None:
            self.set("slow_call", checks.duration("slow_call", self.slow_call, above=0.0))
        checks.number("open_factor", self.open_factor, least=1.0)
        self.set("max_open_for", checks.duration("max_open_for", self.max_open_for, above=0.0))
        if self.max_open_for < self.open_for:
            raise checks.fail("max_open_for", self.max_open_for, f"at least open_for, which is {self.open_for:g}")

    def rules(self) -> CircuitRules:
        """Return what the machine needs."""
        seconds, calls = (self.window.total_seconds(), 0) if isinstance(self.window, timedelta) else (0.0, self.window)
        return CircuitRules(
            failure_rate=self.failure_rate,
            window_seconds=seconds,
            window_calls=calls,
            minimum_calls=self.minimum_calls,
            open_for=self.open_for,
            slow_call=math.inf if self.slow_call is None else self.slow_call,
            slow_call_rate=self.slow_call_rate,
            consecutive_failures=self.consecutive_failures or 0,
            open_factor=self.open_factor,
            max_open_for=self.max_open_for,
            half_open_calls=self.half_open_calls,
        )

    def counts(self, error: Exception) -> bool:
        """Tell whether an error is a failure of the dependency; a rejection never is, whatever `on` says."""
        if isinstance(error, RejectedError):
            return False
        on = cast("Errors", self.on)
        return isinstance(error, on) if isinstance(on, tuple) else bool(on(error))


def _check_window(window: object) -> None:
    if isinstance(window, timedelta):
        if window <= timedelta(0):
            raise checks.fail("window", window, "a timedelta greater than 0, or a number of calls")
    elif isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise checks.fail("window", window, "a timedelta, or an integer (the last so many calls) of at least 1")


class CircuitBreaker(AdmissionStrategy[CircuitBreakerOptions, Circuit]):
    """The circuit of one dependency, or one for each partition."""

    kind: ClassVar[str] = "circuit_breaker"
    two_phase: ClassVar[bool] = True
    rejection: ClassVar[str] = "open"
    _forced: bool = False  # forced open as a whole: partitions that come later are, too

    def new_gate(self, clock: Clock, partition: str) -> Circuit:
        """Build the circuit of one partition."""
        label = f"{self.name}[{partition}]" if partition else self.name
        circuit = Circuit(self.options.rules(), clock.now, label)
        if self._forced:
            circuit.force_open()
            circuit.news.clear()
        return circuit

    def judge(self, error: Exception) -> bool:
        """Tell whether an error counts as a failure."""
        return self.live().counts(error)

    def reconfigured(self) -> None:
        """Take the new options; the state of every circuit is kept."""
        for _, circuit in self._circuits(None):
            circuit.configure(self.options.rules())

    def announce(self, site: Site, gate: Circuit, partition: str) -> None:
        """Emit what became of a circuit."""
        while gate.news:
            try:
                event, facts = gate.news.popleft()
            except IndexError:  # another thread was faster
                return
            self.emit(site, event(**self.facts(site, partition), **facts))

    # --- the state, and changing it by hand ---

    @property
    def state(self) -> CircuitState:  # type: ignore[override] # the page's word; our own state is `super().state()`
        """Where the circuit is: closed, open, half_open or forced_open; with partitions, the worst of them."""
        found = {circuit.state for _, circuit in self._circuits(None)}
        return next(state for state in _WORST_FIRST if state in found)

    @property
    def states(self) -> dict[Hashable, CircuitState]:
        """Where the circuit of each partition is; empty without partitions."""
        return {key: circuit.state for key, circuit in super().state().partitions.items()}

    def open(self, *, partition: Hashable = None) -> None:
        """Open for `open_for` seconds, as if it had tripped; all partitions unless one is named."""
        self._by_hand(Circuit.open, partition, forced=False)

    def force_open(self, *, partition: Hashable = None) -> None:
        """Open until `close` or `reset`; all partitions, those to come as well, unless one is named."""
        self._by_hand(Circuit.force_open, partition, forced=True)

    def close(self, *, partition: Hashable = None) -> None:
        """Close, with an empty window; all partitions unless one is named."""
        self._by_hand(Circuit.close, partition, forced=False)

    def reset(self, *, partition: Hashable = None) -> None:
        """Close and forget everything that was counted; all partitions unless one is named."""
        self._by_hand(Circuit.reset, partition, forced=False)

    def _by_hand(self, change: Callable[[Circuit], None], partition: Hashable, *, forced: bool) -> None:
        if partition is None:
            self._forced = forced
        for key, circuit in self._circuits(partition):
            change(circuit)
            self.announce(self.own_site(), circuit, "" if key is None else str(key))

    def _circuits(self, partition: Hashable) -> Iterator[tuple[Hashable, Circuit]]:
        gates = super().state()
        if partition is not None:
            yield partition, gates.partitions.get(partition)
            return
        yield None, gates.single
        yield from gates.partitions.items()

    # The two methods of the base class that ask for `state()`.

    def gates(self) -> list[Circuit]:
        """Return every circuit there is now."""
        return list(super().state())

    def gate_for(self, site: Site, args: Args, kwargs: Kwargs) -> tuple[Circuit, str]:
        """Return the circuit for these arguments and the name of its partition."""
        by = self.live().partition or site.pipeline.partition
        gates = super().state()
        if by is None:
            return gates.single, ""
        key = partition_key(by, args, kwargs)
        return gates.partitions.get(key), str(key)

    def describe(self) -> list[str]:
        """Say where the circuit is and why; with partitions, of those that are not closed."""
        gates = super().state()
        if self.options.partition is None and not len(gates.partitions):
            return [gates.single.describe()]
        troubled = [(key, each) for key, each in gates.partitions.items() if each.state is not CircuitState.CLOSED]
        lines = [f"[{key}] {circuit.describe()}" for key, circuit in troubled[:_MOST_LINES]]
        return [*lines, f"{len(gates.partitions) - len(troubled)} of {len(gates.partitions)} circuits closed"]


def circuit_breaker(
    *,
    failure_rate: float = 0.5,
    window: timedelta | int = timedelta(seconds=60),
    minimum_calls: int = 20,
    open_for: float | timedelta = 30.0,
    on: On = is_dependency_failure,
    slow_call: float | timedelta | None = None,
    slow_call_rate: float = 1.0,
    consecutive_failures: int | None = None,
    open_factor: float = 2.0,
    max_open_for: float | timedelta = 300.0,
    half_open_calls: int = 3,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Literal["enforce", "observe", "off"] = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> CircuitBreaker:
    """Reject calls at once while the dependency fails too often; let a few probes find out when it is back.

    :param failure_rate: the share of failed calls, 0..1, at which the circuit opens.
    :param window: the time that is looked at (a `timedelta`, in ten sub-buckets), or the last so many calls (an int).
    :param minimum_calls: it does not open before the window holds so many calls (or is full).
    :param open_for: seconds that it stays open before probes are let through.
    :param on: which errors are failures, as a class, a tuple or a predicate; the others, cancellations and rejections
        are neutral.
    :param slow_call: seconds from which on a call is slow; None: slowness does not matter.
    :param slow_call_rate: the share of slow calls at which it opens.
    :param consecutive_failures: opens after so many failures in a row, whatever the rate.
    :param open_factor: each opening without a closing in between lasts so many times longer.
    :param max_open_for: seconds that it stays open at most.
    :param half_open_calls: probes that are let through at once, and decide.
    :param partition: a callable on the arguments or a ContextVar: each partition (host, model, tenant) has its own
        circuit.

    The decorator raises CircuitOpenError for a call that is refused. After resilience4j, Polly and Envoy; see the page
    for what differs.
    """
    return CircuitBreaker(
        CircuitBreakerOptions(
            failure_rate=failure_rate,
            window=window,
            minimum_calls=minimum_calls,
            open_for=open_for,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # normalised by the options
            on=on,
            slow_call=slow_call,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # the same
            slow_call_rate=slow_call_rate,
            consecutive_failures=consecutive_failures,
            open_factor=open_factor,
            max_open_for=max_open_for,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # the same
            half_open_calls=half_open_calls,
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
