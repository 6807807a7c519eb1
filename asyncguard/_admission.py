"""Floor 2: the drivers of all admission strategies. A driver has no opinion: it asks, waits, calls, reports.

Neighbouring gates of a pipeline form one block with one driver: each is asked in its place, those with two phases (the
breaker) only fail fast there and are asked for real right before the call; a refusal gives back what was taken.
"""

from __future__ import annotations

import contextlib
import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from asyncguard import events
from asyncguard._machines import checks
from asyncguard._machines.gate import Gate, Request
from asyncguard._machines.partitions import PartitionBy, Partitions, check_partition, partition_key
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, generators, parking
from asyncguard._runtime.holds import Holds
from asyncguard._strategy import PER_CALL, Options, Strategy
from asyncguard.errors import BlockingWaitError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind

    Call = Callable[..., Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]
    Block = Sequence["AdmissionStrategy[Any, Any]"]

GateT = TypeVar("GateT", bound=Gate)

_permits: ContextVar[tuple[HeldPermit, ...]] = ContextVar("asyncguard_permits", default=())


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
        self.partitions: Partitions[GateT] = Partitions(lambda key: make(str(key)))

    def __iter__(self) -> Iterator[GateT]:
        yield self.single
        yield from self.partitions

    def after_fork(self) -> None:
        """Renew every gate in a forked child."""
        self.partitions.after_fork()
        for gate in self:
            gate.after_fork()


class AdmissionStrategy(Strategy[AdmissionOptionsT, Gates[GateT]]):
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
        return list(self.state())

    def gate_for(self, site: Site, args: Args, kwargs: Kwargs) -> tuple[GateT, str]:
        """Return the gate for these arguments and the name of its partition."""
        by = self.live().partition or site.pipeline.partition
        core = self.state()
        if by is None:
            return core.single, ""
        key = partition_key(by, args, kwargs)
        return core.partitions.get(key), str(key)

    # --- drivers ---

    def wrap_block(self, block: list[Strategy[Any, Any]], fn: Call, kind: Kind, site: Site) -> Call:
        """Wrap `fn` in the one driver of neighbouring gates."""
        gates: Block = [each for each in block if isinstance(each, AdmissionStrategy)]
        plain = len(gates) == 1 and not site.holds and site.pipeline.partition is None
        if kind == "async":
            return _single_async(gates[0], fn, site) if plain else _block_async(gates, fn, site)
        if kind == "sync":
            return _single_sync(gates[0], fn, site) if plain else _block_sync(gates, fn, site)
        if kind == "async generator":
            return generators.bracket_async(lambda args, kwargs: _open_async(gates, site, args, kwargs), fn)
        return generators.bracket_sync(lambda args, kwargs: _open_sync(gates, site, args, kwargs), fn)

    # --- block form ---

    def permit(self, *args: Any, cost: Any = None, **kwargs: Any) -> PermitBlock:
        """Guard a block: `async with limiter.permit(): ...`, sync `with limiter.permit(): ...`.

        The arguments are those that `partition=` and the like look at; `cost` overrides what they would say.
        """
        return PermitBlock(self, args, kwargs, cost)

    def own_site(self) -> Site:
        """Return the place of the block form: the strategy alone, under its own name."""
        if self._own_site is None:
            from asyncguard._pipeline import Pipeline, Site  # noqa: PLC0415 - pipelines are made of strategies

            self._own_site = Site(Pipeline(self, name=self.name), self.permit)
        return self._own_site


# --- one gate, nothing unusual: the happy path ------------------------------------------------------------------------


def _single_async(strategy: AdmissionStrategy[Any, Any], fn: Call, site: Site) -> Call:
    block = (strategy,)

    async def admitted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return await _through_async(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await _wait_async(strategy, gate, site, "", args, kwargs)
        try:
            return await fn(*args, **kwargs)
        finally:
            woken = gate.release(permit)
            if woken:
                wake(woken)

    async def judged(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return await _through_async(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await _wait_async(strategy, gate, site, "", args, kwargs)
        start = clocks.REAL.now() if gate.timed else 0.0
        try:
            result = await fn(*args, **kwargs)
        except Exception as error:
            _settle(strategy, gate, permit, site, "", start, error)
            raise
        except BaseException as error:
            _settle(strategy, gate, permit, site, "", start, error)
            raise
        woken = gate.succeeded(permit, clocks.REAL.now() - start if gate.timed else 0.0)
        freed = gate.release(permit)
        if woken or freed or gate.news:
            _tell(strategy, gate, site, "", woken, freed)
        return result

    return judged if strategy.gate.outcomes else admitted


def _single_sync(strategy: AdmissionStrategy[Any, Any], fn: Call, site: Site) -> Call:
    block = (strategy,)

    def admitted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return _through_sync(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = _wait_sync(strategy, gate, site, "", args, kwargs)
        try:
            return fn(*args, **kwargs)
        finally:
            woken = gate.release(permit)
            if woken:
                wake(woken)

    def judged(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return _through_sync(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = _wait_sync(strategy, gate, site, "", args, kwargs)
        start = clocks.REAL.now() if gate.timed else 0.0
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            _settle(strategy, gate, permit, site, "", start, error)
            raise
        except BaseException as error:
            _settle(strategy, gate, permit, site, "", start, error)
            raise
        woken = gate.succeeded(permit, clocks.REAL.now() - start if gate.timed else 0.0)
        freed = gate.release(permit)
        if woken or freed or gate.news:
            _tell(strategy, gate, site, "", woken, freed)
        return result

    return judged if strategy.gate.outcomes else admitted


# --- any block of gates, everything unusual ---------------------------------------------------------------------------


def _block_async(block: Block, fn: Call, site: Site) -> Call:
    async def admitted(*args: Any, **kwargs: Any) -> Any:
        return await _through_async(block, fn, site, args, kwargs)

    return admitted


def _block_sync(block: Block, fn: Call, site: Site) -> Call:
    def admitted(*args: Any, **kwargs: Any) -> Any:
        return _through_sync(block, fn, site, args, kwargs)

    return admitted


async def _through_async(block: Block, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    passage = await _open_async(block, site, args, kwargs)
    try:
        result = await fn(*args, **kwargs)
    except BaseException as error:
        passage.close(error)
        raise
    passage.close(None)
    return result


def _through_sync(block: Block, fn: Call, site: Site, args: Args, kwargs: Kwargs) -> Any:
    passage = _open_sync(block, site, args, kwargs)
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        passage.close(error)
        raise
    passage.close(None)
    return result


async def _open_async(block: Block, site: Site, args: Args, kwargs: Kwargs) -> Passage:
    passage = Passage(site)
    try:
        for strategy in block:
            if strategy.two_phase:
                passage.peek(strategy, args, kwargs)
            elif strategy.special or site.pipeline.partition is not None:
                gate, partition, mode = _choose(strategy, site, args, kwargs)
                if mode == "enforce":
                    passage.took(strategy, gate, partition, await _ask_async(strategy, gate, site, partition, args, kwargs))
                elif mode == "observe":
                    passage.observe(strategy, gate, partition, args, kwargs)
            else:
                gate = strategy.gate
                try:
                    permit = gate.take()
                except LookupError:
                    permit = await _wait_async(strategy, gate, site, "", args, kwargs)
                passage.entries.append((strategy, gate, "", permit))
        passage.bind(args, kwargs)
    except BaseException:
        passage.refund()
        raise
    return passage


def _open_sync(block: Block, site: Site, args: Args, kwargs: Kwargs) -> Passage:
    passage = Passage(site)
    try:
        for strategy in block:
            if strategy.two_phase:
                passage.peek(strategy, args, kwargs)
            elif strategy.special or site.pipeline.partition is not None:
                gate, partition, mode = _choose(strategy, site, args, kwargs)
                if mode == "enforce":
                    passage.took(strategy, gate, partition, _ask_sync(strategy, gate, site, partition, args, kwargs))
                elif mode == "observe":
                    passage.observe(strategy, gate, partition, args, kwargs)
            else:
                gate = strategy.gate
                try:
                    permit = gate.take()
                except LookupError:
                    permit = _wait_sync(strategy, gate, site, "", args, kwargs)
                passage.entries.append((strategy, gate, "", permit))
        passage.bind(args, kwargs)
    except BaseException:
        passage.refund()
        raise
    return passage


def _choose(strategy: AdmissionStrategy[Any, Any], site: Site, args: Args, kwargs: Kwargs) -> tuple[Any, str, str]:
    mode = strategy.mode_at(site)
    if mode == "off":
        return None, "", mode
    return *strategy.gate_for(site, args, kwargs), mode


class Passage:
    """One call's way through a block of gates: what it took, and how it ends."""

    __slots__ = ("_binders", "_holds", "_start", "_token", "entries", "site")

    def __init__(self, site: Site) -> None:
        self.site = site
        self.entries: list[tuple[AdmissionStrategy[Any, Any], Any, str, Any]] = []
        self._binders: list[tuple[AdmissionStrategy[Any, Any], Any, str, str]] | None = None
        self._holds: Holds | None = None
        self._token: Any = None
        self._start = 0.0

    def took(self, strategy: AdmissionStrategy[Any, Any], gate: Any, partition: str, permit: Any) -> None:
        """Remember a permit, to settle it when the call is over."""
        self.entries.append((strategy, gate, partition, permit))

    def peek(self, strategy: AdmissionStrategy[Any, Any], args: Args, kwargs: Kwargs) -> None:
        """First phase: fail fast, take nothing."""
        if strategy.special or self.site.pipeline.partition is not None:
            gate, partition, mode = _choose(strategy, self.site, args, kwargs)
        else:
            gate, partition, mode = strategy.gate, "", "enforce"
        if mode == "off":
            return
        if self._binders is None:
            self._binders = []
        self._binders.append((strategy, gate, partition, mode))
        if mode == "enforce":
            try:
                gate.peek()
            except RejectedError as error:
                raise _rejected(strategy, self.site, partition, error) from None

    def bind(self, args: Args, kwargs: Kwargs) -> None:
        """Second phase, right before the call; then the clock starts, so that queueing counts as no latency."""
        if self._binders is not None:
            for strategy, gate, partition, mode in self._binders:
                if mode == "observe":
                    self.observe(strategy, gate, partition, args, kwargs)
                    continue
                try:
                    permit = gate.take()
                except LookupError:
                    permit = _bind(strategy, gate, self.site, partition, args, kwargs)
                self.entries.append((strategy, gate, partition, permit))
        self._start = clocks.current().now() if self._timed() else 0.0
        if self.site.holds:
            self._holds = Holds()
            self._holds.enter()
        self._expose()

    def _timed(self) -> bool:
        for _, gate, _, _ in self.entries:
            if gate.timed:
                return True
        return False

    def _expose(self) -> None:
        exposed = [entry for entry in self.entries if entry[0].special & PER_CALL]
        if exposed:
            held = tuple(HeldPermit(strategy, gate, permit) for strategy, gate, _, permit in exposed)
            self._token = _permits.set((*held, *_permits.get()))

    def observe(self, strategy: AdmissionStrategy[Any, Any], gate: Any, partition: str, args: Args, kwargs: Kwargs) -> None:
        """Ask without waiting and without refusing: report what would have happened."""
        now = clocks.current().now()
        request = _request(strategy, _NOBODY, now, args, kwargs)
        try:
            permit = gate.admit(request)
        except RejectedError as error:
            _emit_rejection(strategy, self.site, partition, error)
            return
        if hasattr(permit, "claim"):
            wake(permit.withdraw())
            strategy.emit(self.site, events.CallQueued(**strategy.facts(self.site, partition), ahead=0))
            return
        self.took(strategy, gate, partition, permit)

    def refund(self) -> None:
        """A gate refused: give back what the others gave, as if nobody had asked."""
        for _, gate, _, permit in self.entries:
            wake(gate.refund(permit))

    # the bracket of generators

    def step(self) -> contextlib.AbstractContextManager[object]:
        """Items are not guarded one by one."""
        return _NOTHING

    def close(self, error: BaseException | None) -> None:
        """Report the outcome now; the slots are released now, or with the last hold."""
        if self._token is not None:
            with contextlib.suppress(ValueError):  # a generator may be closed in another context
                _permits.reset(self._token)
        for strategy, gate, partition, permit in self.entries:
            if gate.outcomes:
                _judge(strategy, gate, permit, self.site, partition, self._start, error)
        if self._holds is not None:
            self._holds.leave(self._release)
        else:
            self._release()

    def _release(self) -> None:
        for _, gate, _, permit in self.entries:
            woken = gate.release(permit)
            if woken:
                wake(woken)


_NOTHING = contextlib.nullcontext()


# --- outcomes ---------------------------------------------------------------------------------------------------------


def wake(spots: Sequence[Any]) -> None:
    """Wake parked callers, outside of every lock."""
    for spot in spots:
        spot.wake()


def _judge(  # noqa: PLR0913 - all facts of an outcome
    strategy: AdmissionStrategy[Any, Any],
    gate: Any,
    permit: Any,
    site: Site,
    partition: str,
    start: float,
    error: BaseException | None,
) -> None:
    elapsed = clocks.current().now() - start if gate.timed else 0.0
    if error is None:
        woken = gate.succeeded(permit, elapsed)
    elif isinstance(error, Exception) and strategy.judge(error):
        woken = gate.failed(permit, elapsed, error)
    else:
        woken = gate.abandoned(permit)
    if woken or gate.news:
        _tell(strategy, gate, site, partition, woken, ())


def _settle(  # noqa: PLR0913 - all facts of an outcome
    strategy: AdmissionStrategy[Any, Any],
    gate: Any,
    permit: Any,
    site: Site,
    partition: str,
    start: float,
    error: BaseException,
) -> None:
    try:
        _judge(strategy, gate, permit, site, partition, start, error)
    finally:
        wake(gate.release(permit))


def _tell(  # noqa: PLR0913 - two lists of whom to wake, and where
    strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, woken: Any, freed: Any
) -> None:
    wake(woken)
    wake(freed)
    if gate.news:
        strategy.announce(site, gate, partition)


# --- asking and waiting -----------------------------------------------------------------------------------------------


class _Nobody:
    """The spot of a caller that does not wait."""

    def wake(self) -> None:
        """Nobody is there."""

    def alive(self) -> bool:
        """Nobody is there, so nothing is granted."""
        return False


_NOBODY = _Nobody()


def _request(  # noqa: PLR0913 - what a gate may want to know
    strategy: AdmissionStrategy[Any, Any], spot: Any, until: float, args: Args, kwargs: Kwargs, cost: Any = None
) -> Request:
    request = Request(spot=spot, until=until, owner=parking.current_owner(), args=args, kwargs=kwargs)
    strategy.fill(request)
    if cost is not None:
        request.cost = cost
    return request


def _until(strategy: AdmissionStrategy[Any, Any], now: float) -> float:
    deadline = deadlines.current()
    latest = now + strategy.live().max_wait
    return latest if deadline is None else min(latest, deadline.when)


async def _ask_async(
    strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, args: Args, kwargs: Kwargs
) -> Any:
    if not strategy.weighs:
        with contextlib.suppress(LookupError):
            return gate.take()
    return await _wait_async(strategy, gate, site, partition, args, kwargs)


def _ask_sync(
    strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, args: Args, kwargs: Kwargs
) -> Any:
    if not strategy.weighs:
        with contextlib.suppress(LookupError):
            return gate.take()
    return _wait_sync(strategy, gate, site, partition, args, kwargs)


async def _wait_async(  # noqa: PLR0913 - where, for whom, with which arguments
    strategy: AdmissionStrategy[Any, Any],
    gate: Any,
    site: Site,
    partition: str,
    args: Args,
    kwargs: Kwargs,
    cost: Any = None,
) -> Any:
    clock = clocks.current()
    start = clock.now()
    spot = parking.async_spot()
    request = _request(strategy, spot, _until(strategy, start), args, kwargs, cost)
    ticket = _admit(strategy, gate, site, partition, request)
    if not hasattr(ticket, "claim"):
        return ticket
    try:
        while True:
            now = clock.now()
            permit = ticket.claim(now)
            if permit is not None:
                break
            if now >= request.until:
                raise _rejected(strategy, site, partition, ticket.late(now))
            await spot.wait(min(ticket.due(now), request.until) - now)
    except BaseException:
        wake(ticket.withdraw())
        raise
    _waited(strategy, gate, site, partition, clock.now() - start)
    return permit


def _wait_sync(  # noqa: PLR0913 - where, for whom, with which arguments
    strategy: AdmissionStrategy[Any, Any],
    gate: Any,
    site: Site,
    partition: str,
    args: Args,
    kwargs: Kwargs,
    cost: Any = None,
) -> Any:
    clock = clocks.current()
    start = clock.now()
    spot = parking.ThreadSpot()
    request = _request(strategy, spot, _until(strategy, start), args, kwargs, cost)
    ticket = _admit(strategy, gate, site, partition, request)
    if not hasattr(ticket, "claim"):
        return ticket
    try:
        _refuse_to_block(strategy)
        while True:
            now = clock.now()
            permit = ticket.claim(now)
            if permit is not None:
                break
            if now >= request.until:
                raise _rejected(strategy, site, partition, ticket.late(now))
            spot.wait(min(ticket.due(now), request.until) - now)
    except BaseException:
        wake(ticket.withdraw())
        raise
    _waited(strategy, gate, site, partition, clock.now() - start)
    return permit


def _bind(
    strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, args: Args, kwargs: Kwargs
) -> Any:
    """Second phase of a gate that cannot let the call in by its fast path; such gates never queue."""
    return _admit(strategy, gate, site, partition, _request(strategy, _NOBODY, math.inf, args, kwargs))


def _admit(strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, request: Request) -> Any:
    try:
        ticket = gate.admit(request)
    except RejectedError as error:
        raise _rejected(strategy, site, partition, error) from None
    finally:
        if gate.news:
            strategy.announce(site, gate, partition)
    if hasattr(ticket, "claim") and strategy.heard(site):
        ahead = getattr(ticket, "ahead", 0)
        strategy.emit(site, events.CallQueued(**strategy.facts(site, partition), ahead=ahead))
    return ticket


def _waited(strategy: AdmissionStrategy[Any, Any], gate: Any, site: Site, partition: str, waited: float) -> None:
    if strategy.heard(site):
        strategy.emit(site, events.CallAdmitted(**strategy.facts(site, partition), waited=waited))
    if gate.news:
        strategy.announce(site, gate, partition)


def _rejected(strategy: AdmissionStrategy[Any, Any], site: Site, partition: str, error: Exception) -> Exception:
    if isinstance(error, RejectedError):
        error.strategy, error.partition = strategy.name, partition
        _emit_rejection(strategy, site, partition, error)
    return error


def _emit_rejection(strategy: AdmissionStrategy[Any, Any], site: Site, partition: str, error: RejectedError) -> None:
    facts = strategy.facts(site, partition)
    strategy.emit(site, events.CallRejected(**facts, reason=strategy.rejection, retry_after=error.retry_after))


def _refuse_to_block(strategy: AdmissionStrategy[Any, Any]) -> None:
    if clocks.current() is clocks.REAL and clocks.thread_runs_loop():
        message = (
            f"{strategy.name}: no permit is free, and waiting here would block the event loop that runs on this thread; "
            "make the function async, or call it in a worker thread (asyncio.to_thread, anyio.to_thread.run_sync)"
        )
        raise BlockingWaitError(message, strategy=strategy.name)


# --- permits in the hands of the user ---------------------------------------------------------------------------------

class HeldPermit:
    """A permit while it is held: what a decorated function may correct about it."""

    __slots__ = ("_gate", "_permit", "_strategy")

    def __init__(self, strategy: AdmissionStrategy[Any, Any], gate: Any, permit: Any) -> None:
        self._strategy = strategy
        self._gate = gate
        self._permit = permit

    def belongs_to(self, strategy: AdmissionStrategy[Any, Any]) -> bool:
        """Tell whether this permit was given by `strategy`."""
        return self._strategy is strategy

    def reconcile(self, actual: float) -> None:
        """Correct the cost that was estimated before the call by what it really was (tokens used)."""
        wake(self._gate.reconcile(self._permit, actual))


def current_permit(strategy: AdmissionStrategy[Any, Any]) -> HeldPermit:
    """Return the permit that the running call holds of `strategy`; LookupError if it holds none.

    Only strategies that look at the arguments (`cost=`, `weight=`, `partition=`) expose their permits.
    """
    for held in _permits.get():
        if held.belongs_to(strategy):
            return held
    message = f"no permit of {strategy.name} is held here; it must have a cost= (or weight=, partition=) and be around this call"
    raise LookupError(message)


class PermitBlock:
    """The block form of an admission strategy; use it once."""

    def __init__(self, strategy: AdmissionStrategy[Any, Any], args: Args, kwargs: Kwargs, cost: Any) -> None:
        self._strategy = strategy
        self._args = args
        self._kwargs = kwargs
        self._cost = cost
        self._passage: Passage | None = None

    async def __aenter__(self) -> HeldPermit:
        strategy, site, args, kwargs = self._strategy, self._strategy.own_site(), self._args, self._kwargs
        if self._cost is None:
            return self._entered(await _open_async((strategy,), site, args, kwargs))
        gate, partition = strategy.gate_for(site, args, kwargs)
        permit = await _wait_async(strategy, gate, site, partition, args, kwargs, self._cost)
        return self._bought(gate, partition, permit)

    def __enter__(self) -> HeldPermit:
        strategy, site, args, kwargs = self._strategy, self._strategy.own_site(), self._args, self._kwargs
        if self._cost is None:
            return self._entered(_open_sync((strategy,), site, args, kwargs))
        gate, partition = strategy.gate_for(site, args, kwargs)
        permit = _wait_sync(strategy, gate, site, partition, args, kwargs, self._cost)
        return self._bought(gate, partition, permit)

    def _bought(self, gate: Any, partition: str, permit: Any) -> HeldPermit:
        passage = Passage(self._strategy.own_site())
        passage.took(self._strategy, gate, partition, permit)
        passage.bind(self._args, self._kwargs)
        return self._entered(passage)

    def _entered(self, passage: Passage) -> HeldPermit:
        self._passage = passage
        for strategy, gate, _, permit in passage.entries:
            return HeldPermit(strategy, gate, permit)
        return HeldPermit(self._strategy, self._strategy.gate, None)  # mode off or observe: there is nothing to hold

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave(error)

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.close(error)
