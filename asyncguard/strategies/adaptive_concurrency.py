"""`adaptive_concurrency`: as many calls at once as the dependency can take. The slots are in `_machines.adaptive`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast, overload

from asyncguard._admission import AdmissionOptions, AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.adaptive import Adaptive, AdaptiveRules
from asyncguard._machines.classify import classify
from asyncguard._machines.durations import counted
from asyncguard._machines.gate import wake
from asyncguard._machines.partition_keys import in_words
from asyncguard._machines.partition_words import listed
from asyncguard._machines.slots import MOST_SLOTS
from asyncguard.errors import RejectedError
from asyncguard.events import LimitChanged
from asyncguard.strategies._reentry import Block, Blocks, BulkheadCaller

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.partition_keys import PartitionBy
    from asyncguard._modes import Mode
    from asyncguard._permits import PermitBlock
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

__all__ = ["AdaptiveConcurrency", "AdaptiveConcurrencyOptions", "adaptive_concurrency"]

F = TypeVar("F", bound="Callable[..., object]")

_DROPS = frozenset({"timeout", "throttle"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrencyOptions(AdmissionOptions):
    """The options of `adaptive_concurrency`."""

    initial: int = 20
    min_limit: int = 1
    max_limit: int = 200
    algorithm: Literal["vegas", "aimd"] = "vegas"
    max_queue: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        checks.integer("min_limit", self.min_limit, least=1)
        checks.integer("max_limit", self.max_limit, least=self.min_limit)
        checks.integer("initial", self.initial, least=self.min_limit, most=min(self.max_limit, MOST_SLOTS))
        checks.one_of("algorithm", self.algorithm, ("vegas", "aimd"))
        if self.max_queue is not None:
            checks.integer("max_queue", self.max_queue)

    def rules(self) -> AdaptiveRules:
        """Return what the machine needs."""
        return AdaptiveRules(self.initial, self.min_limit, self.max_limit, self.algorithm, self.max_queue)


class AdaptiveConcurrency(AdmissionStrategy[AdaptiveConcurrencyOptions, Adaptive]):
    """As many calls at once as the dependency can take; made by `adaptive_concurrency(...)`."""

    kind: ClassVar[str] = "adaptive_concurrency"
    shared: ClassVar[frozenset[str]] = frozenset({"initial", "min_limit", "max_limit", "algorithm", "max_queue"})

    def __init__(self, options: AdaptiveConcurrencyOptions) -> None:
        self._blocks: Blocks = {}
        super().__init__(options)

    def new_gate(self, clock: Clock, partition: str) -> Adaptive:
        """Build the slots of one partition."""
        name = f"{self.name}[{partition}]" if partition else self.name
        return Adaptive(self.options.rules(), name=name, clock=clock.now, random=clock.random)

    def fill(self, request: Request) -> None:
        """Say who asks: who holds a slot and asks for another may wait for itself."""
        request.owner = BulkheadCaller(request.owner, self._blocks, 0.0)

    def permit(self, *args: Any, cost: int | None = None, **kwargs: Any) -> PermitBlock:
        """Guard a block: `async with limiter.permit(): ...`, sync `with limiter.permit(): ...`.

        The arguments are those that `partition=` looks at; every call costs one slot.
        """
        if cost not in {None, 1}:
            raise TypeError(f"{self.name}: cost={cost!r} is of no use here, every call takes one slot")
        return Block(self, args, kwargs, None, self._blocks)

    def judge(self, error: Exception) -> bool:
        """Tell whether an error is a drop: a timeout or throttling. Other errors say nothing about load."""
        return not isinstance(error, RejectedError) and classify(error) in _DROPS

    def reconfigured(self) -> None:
        """Take the new options; what was learnt is kept as far as they allow, and calls that run keep their slots."""
        for _, gate in self._keyed():
            wake(gate.configure(self.options.rules()))

    def configure(self, **changes: Any) -> None:
        """Change options in place, what was learnt is kept; `Strategy.configure` says the rest."""
        super().configure(**changes)
        for key, gate in self._keyed():  # here, where no lock is held: whoever listens may do anything
            self.announce(self.own_site(), gate, "" if key is None else in_words(key))

    def announce(self, site: Site, gate: Adaptive, partition: str) -> None:
        """Emit how the limit moved."""
        while True:
            try:
                old, new = gate.news.popleft()
            except IndexError:  # told, by us or by another thread
                return
            self.emit(site, LimitChanged(**self.facts(site, partition), old=old, new=new))

    @property
    def limit(self) -> int:
        """How many calls may run at once now; with partitions see `limits`."""
        return self.core_here().single.limit

    @property
    def limits(self) -> dict[Hashable, int]:
        """How many calls may run at once in each partition; empty without partitions."""
        return {key: gate.limit for key, gate in self.core_here().partitions.items()}

    def _keyed(self) -> Iterator[tuple[Hashable, Adaptive]]:
        gates = self.core_here()
        yield None, gates.single
        yield from gates.partitions.items()

    def describe(self) -> list[str]:
        """Say what the limit is and how full it is; with partitions, of those with the lowest limits."""
        gates = self.core_here()
        if self.options.partition is None and not len(gates.partitions):
            return [_facts(gates.single)]
        partitions = gates.partitions.items()
        return [*listed(partitions, _facts, lambda gate: gate.limit), counted(len(partitions), "partition")]


def _facts(gate: Adaptive) -> str:
    return f"{gate.describe()}; {gate.taken} running, queue {gate.waiting}/{gate.max_queue}"


@overload
def adaptive_concurrency(fn: F, /) -> F: ...
@overload
def adaptive_concurrency(
    *,
    initial: int = ...,
    min_limit: int = ...,
    max_limit: int = ...,
    algorithm: Literal["vegas", "aimd"] = ...,
    max_queue: int | None = ...,
    max_wait: float | timedelta = ...,
    partition: PartitionBy | None = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> AdaptiveConcurrency: ...
def adaptive_concurrency(
    fn: Any = None,
    /,
    *,
    initial: int = 20,
    min_limit: int = 1,
    max_limit: int = 200,
    algorithm: Literal["vegas", "aimd"] = "vegas",
    max_queue: int | None = None,
    max_wait: float | timedelta = 10.0,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
    """Let as many calls run at once as the dependency can take; the others wait in a queue, first come first served.

    :param initial: calls that may run at once before anything is learnt, per partition and process.
    :param min_limit: the limit never falls below it.
    :param max_limit: the limit never rises above it.
    :param algorithm: "vegas" learns from latencies and from drops (timeouts and throttling), "aimd" from drops alone:
        for an API that answers 429 long before it becomes slow.
    :param max_queue: callers that may wait; ten times the limit by default, 0 to wait never.
    :param max_wait: seconds that a caller waits at most, never past its deadline.
    :param partition: a callable on the arguments or a ContextVar: each partition (host, model, tenant) has a limit of
        its own.

    Raises BulkheadFullError if the queue is full or the wait was too long; BlockingWaitError if a sync caller would
    have to wait on the thread of an event loop. After Netflix' concurrency-limits (VegasLimit, AIMDLimit), with a
    probe of the drained dependency; see the page for what differs.
    """
    strategy = AdaptiveConcurrency(
        AdaptiveConcurrencyOptions(
            initial=initial,
            min_limit=min_limit,
            max_limit=max_limit,
            algorithm=algorithm,
            max_queue=max_queue,
            max_wait=cast("float", max_wait),
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
    if fn is None:
        return strategy
    checks.decorated("adaptive_concurrency", fn)
    return strategy(fn)
