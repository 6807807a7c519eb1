"""`bulkhead`: at most so many calls at once, the others queue. The slots are in `_machines.slots`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from asyncguard._admission import AdmissionOptions, AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.slots import Slots
from asyncguard._waiting import wake

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._machines.partitions import PartitionBy
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadOptions(AdmissionOptions):
    """The options of `bulkhead`."""

    max_concurrent: int
    max_queue: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        checks.integer("max_concurrent", self.max_concurrent, least=1)
        if self.max_queue is not None:
            checks.integer("max_queue", self.max_queue)

    @property
    def places(self) -> int:
        """How many callers may wait."""
        return 10 * self.max_concurrent if self.max_queue is None else self.max_queue


class Bulkhead(AdmissionStrategy[BulkheadOptions, Slots]):
    """At most `max_concurrent` calls at once."""

    kind: ClassVar[str] = "bulkhead"
    shared: ClassVar[frozenset[str]] = frozenset({"max_concurrent", "max_queue"})

    def new_gate(self, clock: Clock, partition: str) -> Slots:
        """Build the slots of one partition."""
        name = f"{self.name}[{partition}]" if partition else self.name
        return Slots(self.options.max_concurrent, self.options.places, name=name, clock=clock.now)

    def reconfigured(self) -> None:
        """Resize; calls that run keep their slots."""
        for gate in self.gates():
            wake(gate.resize(self.options.max_concurrent, self.options.places))

    def describe(self) -> list[str]:
        """Say how full it is."""
        return [f"{gate.taken} of {gate.size} running, queue {gate.waiting}/{gate.max_queue}" for gate in self.gates()]


def bulkhead(
    max_concurrent: int,
    *,
    max_queue: int | None = None,
    max_wait: float | timedelta = 10.0,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Literal["enforce", "observe", "off"] = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Bulkhead:
    """Let at most `max_concurrent` calls run at once; the others wait in a queue, first come first served.

    :param max_concurrent: calls that may run at once, per partition and process.
    :param max_queue: callers that may wait; 10 * `max_concurrent` by default, 0 to wait never.
    :param max_wait: seconds that a caller waits at most, never past its deadline.
    :param partition: a callable on the arguments or a ContextVar: each partition (host, model, tenant) has its own
        slots.

    Raises BulkheadFullError if the queue is full or the wait was too long; BlockingWaitError if a sync caller would
    have to wait on the thread of an event loop.
    """
    return Bulkhead(
        BulkheadOptions(
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            max_wait=max_wait,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # normalised by the options
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
