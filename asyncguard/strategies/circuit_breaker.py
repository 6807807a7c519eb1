"""`circuit_breaker`: leave a dependency alone that fails too often. The circuit is in `_machines.circuit`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

from asyncguard._admission import AdmissionStrategy, Gates
from asyncguard._machines import checks
from asyncguard._machines.circuit import Circuit
from asyncguard._machines.circuit_words import CircuitState
from asyncguard._machines.partition_keys import canonical, in_words
from asyncguard._machines.partition_words import listed
from asyncguard.strategies._circuit_options import CircuitBreakerOptions, is_dependency_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from asyncguard._machines.checks import On
    from asyncguard._machines.partition_keys import PartitionBy
    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]

__all__ = ["CircuitBreaker", "CircuitBreakerOptions", "CircuitState", "circuit_breaker", "is_dependency_failure"]

F = TypeVar("F", bound="Callable[..., object]")

_WORST_FIRST = (CircuitState.FORCED_OPEN, CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED)


class CircuitBreaker(AdmissionStrategy[CircuitBreakerOptions, Circuit]):
    """The circuit of one dependency, or one for each partition."""

    kind: ClassVar[str] = "circuit_breaker"
    shared: ClassVar[frozenset[str]] = frozenset(
        {
            "failure_rate", "window", "minimum_calls", "open_for", "slow_call", "slow_call_rate",
            "consecutive_failures", "open_factor", "max_open_for", "half_open_calls",
        }
    )  # fmt: skip
    fixed: ClassVar[dict[str, str]] = {"max_wait": "nobody waits at a circuit"}
    two_phase: ClassVar[bool] = True
    rejection: ClassVar[str] = "open"

    def new_gate(self, clock: Clock, partition: str) -> Circuit:
        """Build the circuit of one partition."""
        label = f"{self.name}[{partition}]" if partition else self.name
        return Circuit(self.options.rules(), clock.now, label)

    def new_core(self, clock: Clock) -> Gates[Circuit]:
        """Build the circuits; if they are forced open as a whole, so are the partitions that come later."""
        made: list[Gates[Circuit]] = []

        def make(partition: str) -> Circuit:
            circuit = self.new_gate(clock, partition)
            if made and made[0].single.state is CircuitState.FORCED_OPEN:
                circuit.force_open()
                circuit.news.clear()
            return circuit

        made.append(Gates(make))
        return made[0]

    def judge(self, error: Exception) -> bool:
        """Tell whether an error counts as a failure."""
        return self.live().counts(error)

    def reconfigured(self) -> None:
        """Take the new options; the state of every circuit is kept."""
        for _, circuit in self._circuits(None):
            circuit.configure(self.options.rules())

    def announce(self, site: Site, gate: Circuit, partition: str) -> None:
        """Emit what became of a circuit."""
        while True:
            try:
                event, facts = gate.news.popleft()
            except IndexError:  # told, by us or by another thread
                return
            self.emit(site, event(**self.facts(site, partition), **facts))

    # --- the state, and changing it by hand ---

    @property
    def state(self) -> CircuitState:
        """Where the circuit is: closed, open, half_open or forced_open; with partitions, the worst of them."""
        found = {circuit.state for _, circuit in self._circuits(None)}
        return next(state for state in _WORST_FIRST if state in found)

    @property
    def states(self) -> dict[Hashable, CircuitState]:
        """Where the circuit of each partition is; empty without partitions."""
        return {key: circuit.state for key, circuit in self.core_here().partitions.items()}

    def open(self, *, partition: Hashable = None) -> None:
        """Open for `open_for` seconds, as if it had tripped; all partitions unless one is named."""
        self._by_hand(Circuit.open, partition)

    def force_open(self, *, partition: Hashable = None) -> None:
        """Open until `close` or `reset`; all partitions, those to come as well, unless one is named."""
        self._by_hand(Circuit.force_open, partition)

    def close(self, *, partition: Hashable = None) -> None:
        """Close, with an empty window; all partitions unless one is named."""
        self._by_hand(Circuit.close, partition)

    def reset(self, *, partition: Hashable = None) -> None:
        """Close and forget everything that was counted; all partitions unless one is named."""
        self._by_hand(Circuit.reset, partition)

    def _by_hand(self, change: Callable[[Circuit], None], partition: Hashable) -> None:
        for key, circuit in self._circuits(partition):
            change(circuit)
            self.announce(self.own_site(), circuit, "" if key is None else in_words(key))

    def _circuits(self, partition: Hashable) -> Iterator[tuple[Hashable, Circuit]]:
        gates = self.core_here()
        if partition is not None:
            yield canonical(partition), gates.partitions.get(partition)
            return
        yield None, gates.single
        yield from gates.partitions.items()

    def describe(self) -> list[str]:
        """Say where the circuit is and why; with partitions, of those that are not closed."""
        gates = self.core_here()
        if self.options.partition is None and not len(gates.partitions):
            return [gates.single.describe()]
        troubled = [(key, each) for key, each in gates.partitions.items() if each.state is not CircuitState.CLOSED]
        lines = listed(troubled, Circuit.describe, lambda circuit: _WORST_FIRST.index(circuit.state))
        return [*lines, f"{len(gates.partitions) - len(troubled)} of {len(gates.partitions)} circuits closed"]


@overload
def circuit_breaker(fn: F, /) -> F: ...
@overload
def circuit_breaker(
    *,
    failure_rate: float = ...,
    window: timedelta | int = ...,
    minimum_calls: int = ...,
    open_for: float | timedelta = ...,
    on: On = ...,
    slow_call: float | timedelta | None = ...,
    slow_call_rate: float = ...,
    consecutive_failures: int | None = ...,
    open_factor: float = ...,
    max_open_for: float | timedelta = ...,
    half_open_calls: int = ...,
    partition: PartitionBy | None = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> CircuitBreaker: ...
def circuit_breaker(
    fn: Any = None,
    /,
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
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
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
    strategy = CircuitBreaker(
        CircuitBreakerOptions(
            failure_rate=failure_rate,
            window=window,
            minimum_calls=minimum_calls,
            open_for=cast("float", open_for),
            on=on,
            slow_call=cast("float | None", slow_call),
            slow_call_rate=slow_call_rate,
            consecutive_failures=consecutive_failures,
            open_factor=open_factor,
            max_open_for=cast("float", max_open_for),
            half_open_calls=half_open_calls,
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
    if fn is None:
        return strategy
    checks.decorated("circuit_breaker", fn)
    return strategy(fn)
