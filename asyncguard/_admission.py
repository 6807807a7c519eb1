"""Floor 2: the drivers of all admission strategies. A driver has no opinion: it asks, waits, calls, reports.

Neighbouring gates of a pipeline form one block with one driver: each is asked in its place, those with two phases (the
breaker) only fail fast there and are asked for real right before the call; a refusal gives back what was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from asyncguard._machines import checks
from asyncguard._machines.gate import Gate, Request
from asyncguard._machines.partition_keys import PartitionBy, check_partition, in_words, partition_key
from asyncguard._machines.partitions import Partitions
from asyncguard._passage import PermitBlock, judge, open_async, open_sync
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import generators
from asyncguard._strategy import Options, Strategy, Transparent
from asyncguard._waiting import Caller, wake
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
    Pairs = Iterator[tuple["AdmissionStrategy[Any, Any]", Any]]

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
        for gate in self:
            gate.after_fork()


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
        """Put into the request what depends on the arguments (cost, priority)."""

    def judge(self, error: Exception) -> bool:
        """Tell whether an error speaks about the dependency; otherwise the call counts as abandoned."""
        return not isinstance(error, RejectedError)

    def announce(self, site: Site, gate: GateT, partition: str) -> None:
        """Emit what is new about a gate (`gate.news`), and drain it."""

    # --- state ---

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


# --- one gate, nothing unusual: the happy path ------------------------------------------------------------------------


def single_async(strategy: AdmissionStrategy[Any, Any], fn: Call, site: Site) -> Call:
    """Return the driver of one gate around a coroutine function."""
    block = (strategy,)

    async def admitted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return await through_async(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await Caller(strategy, gate, site, "", args, kwargs).wait_async()
        try:
            return await fn(*args, **kwargs)
        finally:
            woken = gate.release(permit)
            if woken:
                wake(woken)

    async def judged(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return await through_async(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await Caller(strategy, gate, site, "", args, kwargs).wait_async()
        start = clocks.REAL.now() if gate.timed else 0.0
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            settle(strategy, gate, permit, site, start, error)
            raise
        woken = gate.succeeded(permit, clocks.REAL.now() - start if start else 0.0)
        freed = gate.release(permit)
        if woken or freed or gate.news:
            _tell(strategy, gate, site, woken, freed)
        return result

    return judged if strategy.gate.outcomes else admitted


def single_sync(strategy: AdmissionStrategy[Any, Any], fn: Call, site: Site) -> Call:
    """Return the driver of one gate around a plain function."""
    block = (strategy,)

    def admitted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return through_sync(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = Caller(strategy, gate, site, "", args, kwargs).wait_sync()
        try:
            return fn(*args, **kwargs)
        finally:
            woken = gate.release(permit)
            if woken:
                wake(woken)

    def judged(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return through_sync(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = Caller(strategy, gate, site, "", args, kwargs).wait_sync()
        start = clocks.REAL.now() if gate.timed else 0.0
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            settle(strategy, gate, permit, site, start, error)
            raise
        woken = gate.succeeded(permit, clocks.REAL.now() - start if start else 0.0)
        freed = gate.release(permit)
        if woken or freed or gate.news:
            _tell(strategy, gate, site, woken, freed)
        return result

    return judged if strategy.gate.outcomes else admitted


def settle(  # noqa: PLR0913 - all facts of an outcome
    strategy: AdmissionStrategy[Any, Any], gate: Any, permit: Any, site: Site, start: float, error: BaseException
) -> None:
    """Report how a call ended that did not return, and release its permit."""
    woken: Sequence[Any] = ()
    try:
        if gate.outcomes:
            woken = judge(strategy, gate, permit, clocks.REAL.now() - start if start else 0.0, error)
    finally:
        _tell(strategy, gate, site, woken, gate.release(permit))


def _tell(
    strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, woken: Sequence[Any], freed: Sequence[Any]
) -> None:
    wake(woken)
    wake(freed)
    if gate.news:
        strategy.announce(site, gate, "")


# --- any block of gates, everything unusual ---------------------------------------------------------------------------


def block_async(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of a block around a coroutine function."""
    order = _binding_order(block)
    usual = not site.holds and site.pipeline.partition is None

    async def admitted(*args: Any, **kwargs: Any) -> Any:
        permits = _take_all(order) if usual else None
        if permits is None:
            return await through_async(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if permits.pop() else 0.0
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(zip(order, permits, strict=True), site, start, error)
            raise
        _succeeded_all(zip(order, permits, strict=True), site, start)
        return result

    return admitted


def block_sync(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of a block around a plain function."""
    order = _binding_order(block)
    usual = not site.holds and site.pipeline.partition is None

    def admitted(*args: Any, **kwargs: Any) -> Any:
        permits = _take_all(order) if usual else None
        if permits is None:
            return through_sync(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if permits.pop() else 0.0
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(zip(order, permits, strict=True), site, start, error)
            raise
        _succeeded_all(zip(order, permits, strict=True), site, start)
        return result

    return admitted


def _binding_order(block: Block) -> Block:
    """Return the gates as they bind: those with two phases last. If nobody has to wait, the first phase is no phase."""
    return (*(each for each in block if not each.two_phase), *(each for each in block if each.two_phase))


def _take_all(order: Block) -> list[Any] | None:
    """Return a permit of each gate, and last whether any is timed; None if one is to be asked in its long way."""
    permits: list[Any] = []
    timed = False
    try:
        for strategy in order:
            if strategy.special:
                raise LookupError  # noqa: TRY301 - the same way out as a gate that is not free
            gate = strategy.gate
            permits.append(gate.take())
            if gate.timed:
                timed = True
    except LookupError:
        for strategy, permit in zip(order, permits, strict=False):
            wake(strategy.gate.refund(permit))
        return None
    permits.append(timed)
    return permits


def _succeeded_all(pairs: Pairs, site: Site, start: float) -> None:
    elapsed = clocks.REAL.now() - start if start else 0.0
    for strategy, permit in pairs:
        gate = strategy.gate
        woken = gate.succeeded(permit, elapsed) if gate.outcomes else ()
        freed = gate.release(permit)
        if woken or freed or gate.news:
            try:
                _tell(strategy, gate, site, woken, freed)
            except BaseException:  # whoever listens was interrupted: the others get theirs back all the same
                _succeeded_all(pairs, site, start)
                raise


def _settle_all(pairs: Pairs, site: Site, start: float, error: BaseException) -> None:
    for strategy, permit in pairs:
        try:
            settle(strategy, strategy.gate, permit, site, start, error)
        except BaseException:  # a predicate of the user failed: the others get theirs back all the same
            _settle_all(pairs, site, start, error)
            raise


async def through_async(block: Block, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    """Call a coroutine function behind a block of gates."""
    passage = await open_async(block, site, args, kwargs)
    passage.begin()
    try:
        result = await fn(*args, **kwargs)
    except BaseException as error:
        passage.close(error)
        raise
    passage.close(None)
    return result


def through_sync(block: Block, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    """Call a plain function behind a block of gates."""
    passage = open_sync(block, site, args, kwargs)
    passage.begin()
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        passage.close(error)
        raise
    passage.close(None)
    return result
