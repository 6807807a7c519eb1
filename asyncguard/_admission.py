"""Floor 2: what all admission strategies are: gates, one for each partition, and a driver for neighbouring ones.

Neighbouring gates of a pipeline form one block with one driver: each is asked in its place, those with two phases (the
breaker) only fail fast there and are asked for real right before the call; a refusal gives back what was taken.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from asyncguard._drivers import block_async, block_sync
from asyncguard._machines import checks
from asyncguard._machines.gate import Gate, Request
from asyncguard._machines.partition_keys import PartitionBy, check_partition, in_words, partition_key
from asyncguard._machines.partition_words import listed
from asyncguard._machines.partitions import Partitions
from asyncguard._machines.queued import Queued
from asyncguard._passage import open_async, open_sync
from asyncguard._permits import PermitBlock
from asyncguard._runtime import generators
from asyncguard._single_drivers import single_async, single_sync
from asyncguard._strategy import Options, Strategy, Transparent
from asyncguard.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind

    Call = Callable[..., Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]
    Block = Sequence["AdmissionStrategy[Any, Any]"]

GateT = TypeVar("GateT", bound=Gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionOptions(Options):
    """The options that every admission strategy has."""

    partition: PartitionBy | None = None
    max_wait: float = 10.0

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("max_wait", checks.duration("max_wait", self.max_wait))
        check_partition(self.partition)


AdmissionOptionsT = TypeVar("AdmissionOptionsT", bound=AdmissionOptions)


class Gates(Generic[GateT]):
    """The gate of a strategy, and one for each partition."""

    __slots__ = ("partitions", "single")

    def __init__(self, make: Callable[[str], GateT]) -> None:
        self.single = make("")
        self.partitions: Partitions[GateT] = Partitions(lambda key: make(in_words(key)))

    def __iter__(self) -> Iterator[GateT]:
        yield self.single
        yield from self.partitions

    def after_fork(self) -> None:
        """Renew every gate in a forked child."""
        self.partitions.after_fork()
        self.partitions.replace(_in_child)
        self.single = _in_child(self.single)


def _in_child(gate: GateT) -> GateT:
    """Renew a gate in a forked child; return the one to ask from now on.

    Calls that were in flight in the parent may come to an end here as well, at the latest when the garbage collector
    finds them. The slots that they give back go to a gate that nobody asks any more.
    """
    gate.after_fork()
    if not isinstance(gate, Queued):
        return gate
    gate = copy.copy(gate)
    gate.after_fork()
    return gate


class AdmissionStrategy(Transparent[AdmissionOptionsT, Gates[GateT]]):
    """A strategy that decides whether a call may start."""

    joins: ClassVar[bool] = True
    two_phase: ClassVar[bool] = False  # peek in its place, admission right before the call
    rejection: ClassVar[str] = "full"  # the reason in CallRejected

    def __init__(self, options: AdmissionOptionsT) -> None:
        super().__init__(options)
        self.gate: GateT = self.core.single  # one attribute away on the hot path
        self._own_site: Site | None = None

    # --- what a subclass provides ---

    def new_gate(self, clock: Clock, partition: str) -> GateT:
        """Build the gate of one partition ("" without partitions)."""
        raise NotImplementedError

    def fill(self, request: Request) -> None:
        """Put into the request what depends on the arguments: its cost, or an owner that knows more than the task."""

    def judge(self, error: Exception) -> bool:
        """Tell whether an error speaks about the dependency; otherwise the call counts as abandoned."""
        return not isinstance(error, RejectedError)

    def announce(self, site: Site, gate: GateT, partition: str) -> None:
        """Emit what is new about a gate (`gate.news`), and drain it."""

    # --- state ---

    def after_fork(self) -> None:
        """In a forked child: new locks and gates, which forget waiters and calls in flight."""
        super().after_fork()
        self.gate = self.core.single

    def new_core(self, clock: Clock) -> Gates[GateT]:
        """Build the gates."""
        return Gates(lambda partition: self.new_gate(clock, partition))

    @property
    def weighs(self) -> bool:
        """Whether a cost, weight or priority is computed from the arguments of each call."""
        return False

    @property
    def per_call(self) -> bool:
        """Whether the arguments of each call matter."""
        return self.options.partition is not None or self.weighs

    def gates(self) -> list[GateT]:
        """Return every gate there is now."""
        return list(self.core_here())

    def gate_for(self, site: Site, args: Args, kwargs: Kwargs) -> tuple[GateT, str]:
        """Return the gate for these arguments and the name of its partition."""
        by = self.live().partition or site.pipeline.partition
        core = self.core_here()
        if by is None:
            return core.single, ""
        return core.partitions.find(partition_key(by, args, kwargs))

    def each_gate(self, told: Callable[[GateT], str], rank: Callable[[GateT], Any]) -> list[str]:
        """Say what `told` says of the gate, or of the partitions: those of the smallest `rank`, and how many more."""
        gates = self.core_here()
        partitions = gates.partitions.items()
        if self.options.partition is not None and not partitions:
            return ["no partition in use"]
        single = self.options.partition is None and not (partitions and gates.single.idle())
        return [*([told(gates.single)] if single else []), *listed(partitions, told, rank)]

    # --- drivers ---

    def wrap_block(self, block: list[Strategy[Any, Any]], fn: Call, kind: Kind, site: Site) -> Call:
        """Wrap `fn` in the one driver of neighbouring gates."""
        gates = cast("Block", block)  # only neighbours with `joins` come together
        plain = len(gates) == 1 and not site.holds and site.pipeline.partition is None
        if kind == "async":
            return single_async(gates[0], fn, site) if plain else block_async(gates, fn, site)
        if kind == "sync":
            return single_sync(gates[0], fn, site) if plain else block_sync(gates, fn, site)
        if kind == "async generator":
            return generators.bracket_async(lambda args, kwargs: open_async(gates, site, args, kwargs), fn)
        return generators.bracket_sync(lambda args, kwargs: open_sync(gates, site, args, kwargs), fn)

    # --- block form ---

    def permit(self, *args: Any, cost: Any = None, **kwargs: Any) -> PermitBlock:
        """Guard a block: `async with limiter.permit(): ...`, sync `with limiter.permit(): ...`.

        The arguments are those that `partition=` and the like look at; `cost` overrides what they would say.
        """
        return PermitBlock(self, args, kwargs, cost)

    def own_site(self) -> Site:
        """Return the place of the block form: the strategy alone, under its own name."""
        if self._own_site is None:
            from asyncguard._pipeline import Pipeline, Site

            self._own_site = Site(Pipeline(self, name=self.name), self.permit)
        return self._own_site
