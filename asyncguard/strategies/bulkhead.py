"""`bulkhead`: at most so many calls at once, the others queue. Its machines: `_machines.slots`, `.weighted_slots`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from asyncguard._admission import AdmissionOptions, AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.gate import wake
from asyncguard._machines.slots import MOST_SLOTS, Slots
from asyncguard._machines.weighted_slots import WeightedSlots
from asyncguard.strategies._reentry import Block, Blocks, BulkheadCaller

if TYPE_CHECKING:
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.partition_keys import PartitionBy
    from asyncguard._modes import Mode
    from asyncguard._permits import PermitBlock
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

Priority = Callable[..., float]
Weight = int | Callable[..., int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadOptions(AdmissionOptions):
    """The options of `bulkhead`."""

    max_concurrent: int
    max_queue: int | None = None
    priority: Priority | None = None
    weight: Weight | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        checks.integer("max_concurrent", self.max_concurrent, least=1)
        if not self.weighs:
            checks.integer("max_concurrent", self.max_concurrent, least=1, most=MOST_SLOTS)
        if self.max_queue is not None:
            checks.integer("max_queue", self.max_queue)
        if self.priority is not None:
            checks.function("priority", self.priority)
        if callable(self.weight):
            checks.plain("weight", self.weight)
        elif self.weight is not None:
            checks.integer("weight", self.weight, least=1, most=self.max_concurrent)

    @property
    def places(self) -> int:
        """How many callers may wait."""
        return 10 * self.max_concurrent if self.max_queue is None else self.max_queue

    @property
    def weighs(self) -> bool:
        """Whether calls differ."""
        return self.weight is not None or self.priority is not None


class Bulkhead(AdmissionStrategy[BulkheadOptions, Slots | WeightedSlots]):
    """At most `max_concurrent` calls at once."""

    kind: ClassVar[str] = "bulkhead"
    shared: ClassVar[frozenset[str]] = frozenset({"max_concurrent", "max_queue"})

    def __init__(self, options: BulkheadOptions) -> None:
        self._blocks: Blocks = {}
        super().__init__(options)

    def new_gate(self, clock: Clock, partition: str) -> Slots | WeightedSlots:
        """Build the slots of one partition; weighted ones cost a lock on each call, so only where calls differ."""
        name = f"{self.name}[{partition}]" if partition else self.name
        machine = WeightedSlots if self.options.weighs else Slots
        return machine(self.options.max_concurrent, self.options.places, name=name, clock=clock.now)

    @property
    def weighs(self) -> bool:
        """Whether the arguments of each call matter."""
        return self.options.weighs

    def fill(self, request: Request) -> None:
        """Say who asks, and what its arguments say."""
        options = self.live()
        priority = 0.0 if options.priority is None else _priority(options.priority(*request.args, **request.kwargs))
        request.owner = BulkheadCaller(request.owner, self._blocks, priority)
        if options.weight is not None and not request.stated:
            weight = options.weight
            request.cost = weight(*request.args, **request.kwargs) if callable(weight) else weight

    def permit(self, *args: Any, cost: int | None = None, **kwargs: Any) -> PermitBlock:
        """Guard a block: `async with limiter.permit(): ...`, sync `with limiter.permit(): ...`.

        The arguments are those that `partition=`, `priority=` and `weight=` look at; `cost` overrides the weight.
        """
        if cost not in {None, 1} and not self.weighs:
            raise TypeError(f"{self.name}: cost={cost!r} needs weighted permits: bulkhead(..., weight=1)")
        return Block(self, args, kwargs, cost, self._blocks)

    def reconfigured(self) -> None:
        """Resize; calls that run keep their slots."""
        for gate in self.gates():
            wake(gate.resize(self.options.max_concurrent, self.options.places))

    def _changed(self, changes: dict[str, Any]) -> BulkheadOptions:
        options = super()._changed(changes)
        if options.weighs != self.options.weighs:
            raise ValueError(
                f"{self.name}: a bulkhead with weight= or priority= has a machine of its own, which calls in flight "
                "cannot change; give one of them from the start (weight=1 is neutral)"
            )
        return options

    def describe(self) -> list[str]:
        """Say how full it is; with partitions, the fullest."""
        what = "permits taken" if self.weighs else "running"
        return self.each_gate(
            lambda gate: f"{gate.taken} of {gate.size} {what}, queue {gate.waiting}/{gate.max_queue}",
            lambda gate: (-gate.waiting, -gate.taken),
        )


def _priority(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise checks.wrong_type("what priority= returns", value, "a finite number")
    return float(value)


def bulkhead(
    max_concurrent: int,
    *,
    max_queue: int | None = None,
    max_wait: float | timedelta = 10.0,
    priority: Priority | None = None,
    weight: Weight | None = None,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Bulkhead:
    """Let at most `max_concurrent` calls run at once; the others wait in a queue, first come first served.

    :param max_concurrent: calls that may run at once (with `weight`: permits), per partition and process.
    :param max_queue: callers that may wait; 10 * `max_concurrent` by default, 0 to wait never.
    :param max_wait: seconds that a caller waits at most, never past its deadline.

    Advanced:

    :param priority: a callable on the arguments that returns a number: the higher goes first. A level is worth one
        second of waiting, so that nobody waits for ever.
    :param weight: permits that a call takes, or a callable on its arguments. Lighter calls may pass a heavy one that
        does not fit yet, 16 of them; then the permits are kept for it.
    :param partition: a callable on the arguments or a ContextVar: each partition (host, model, tenant) has its own
        slots.

    Raises BulkheadFullError if the queue is full, if the wait was too long, or at once if the call comes from inside of
    a call that holds a permit and would wait for itself; ValueError for a weight above `max_concurrent`;
    BlockingWaitError if a sync caller would have to wait on the thread of an event loop.
    """
    checks.bare("bulkhead", max_concurrent, "@bulkhead(8)")
    return Bulkhead(
        BulkheadOptions(
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            max_wait=cast("float", max_wait),
            priority=priority,
            weight=weight,
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
