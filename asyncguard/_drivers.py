"""Floor 2: the drivers of all admission strategies. A driver has no opinion: it asks, waits, calls, reports.

While a call goes well a driver knows its gates and nothing else; those of one gate alone are in `_single_drivers`.
Whatever is unusual (a gate that is not free in a block, partitions, costs, other modes, streams) goes the long way,
through a `Passage`.

The local variables of drivers are read, too: `strategies/_reentry` finds what a caller holds in the `gate` and
`permit`, `gates` and `permits`, `taken` or `passage` of the frames around it. Who renames them renames them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard._machines.gate import wake
from asyncguard._passage import judge, open_async, open_sync
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncguard._admission import AdmissionStrategy
    from asyncguard._pipeline import Site

    Call = Callable[..., Any]
    Gated = AdmissionStrategy[Any, Any]
    Block = Sequence[Gated]
    Held = Iterator[tuple[Gated, Any, Any]]  # strategy, gate, permit
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]


# --- how a call ended -------------------------------------------------------------------------------------------------


def settle(  # noqa: PLR0913 - all facts of an outcome
    strategy: Gated, gate: Any, permit: Any, site: Site, start: float, error: BaseException
) -> None:
    """Report how a call ended that did not return, and release its permit."""
    woken: Sequence[Any] = ()
    try:
        if gate.outcomes:
            woken = judge(strategy, gate, permit, clocks.REAL.now() - start if start else 0.0, error)
    finally:
        tell(strategy, gate, site, woken, gate.release(permit))


def tell(strategy: Gated, gate: Any, site: Site, woken: Sequence[Any], freed: Sequence[Any]) -> None:
    """Wake who may go on, and say what is new."""
    wake(woken)
    wake(freed)
    if gate.news:
        strategy.announce(site, gate, "")


# --- two gates, as a breaker over a bulkhead: the happy path, too -----------------------------------------------------


def pair_async(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of two gates around a coroutine function."""
    order = first, second = _binding_order(block)

    async def admitted(*args: Any, **kwargs: Any) -> Any:
        gates = one, other = first.gate, second.gate
        permits = None if first.special or second.special else _take_two(one, other)
        if permits is None:
            return await through_async(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if one.timed or other.timed else 0.0
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(zip(order, gates, permits, strict=True), site, start, error)
            raise
        elapsed = clocks.REAL.now() - start if start else 0.0
        try:
            _succeeded(first, one, permits[0], site, elapsed)
        finally:
            _succeeded(second, other, permits[1], site, elapsed)
        return result

    return admitted


def pair_sync(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of two gates around a plain function."""
    order = first, second = _binding_order(block)

    def admitted(*args: Any, **kwargs: Any) -> Any:
        gates = one, other = first.gate, second.gate
        permits = None if first.special or second.special else _take_two(one, other)
        if permits is None:
            return through_sync(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if one.timed or other.timed else 0.0
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(zip(order, gates, permits, strict=True), site, start, error)
            raise
        elapsed = clocks.REAL.now() - start if start else 0.0
        try:
            _succeeded(first, one, permits[0], site, elapsed)
        finally:
            _succeeded(second, other, permits[1], site, elapsed)
        return result

    return admitted


def _take_two(one: Any, other: Any) -> tuple[Any, Any] | None:
    """Return a permit of each gate; None if one is to be asked in its long way."""
    try:
        permit = one.take()
    except LookupError:
        return None
    try:
        return permit, other.take()
    except LookupError:
        wake(one.refund(permit))
        return None


# --- any block of gates -----------------------------------------------------------------------------------------------


def block_async(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of a block around a coroutine function."""
    order = _binding_order(block)
    usual = not site.holds and site.pipeline.partition is None
    if usual and len(block) == 2:  # noqa: PLR2004
        return pair_async(block, fn, site)

    async def admitted(*args: Any, **kwargs: Any) -> Any:
        taken = _take_all(order) if usual else None
        if taken is None:
            return await through_async(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if taken.pop() else 0.0
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(iter(taken), site, start, error)
            raise
        _succeeded_all(iter(taken), site, start)
        return result

    return admitted


def block_sync(block: Block, fn: Call, site: Site) -> Call:
    """Return the driver of a block around a plain function."""
    order = _binding_order(block)
    usual = not site.holds and site.pipeline.partition is None
    if usual and len(block) == 2:  # noqa: PLR2004
        return pair_sync(block, fn, site)

    def admitted(*args: Any, **kwargs: Any) -> Any:
        taken = _take_all(order) if usual else None
        if taken is None:
            return through_sync(block, fn, site, args, kwargs)
        start = clocks.REAL.now() if taken.pop() else 0.0
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _settle_all(iter(taken), site, start, error)
            raise
        _succeeded_all(iter(taken), site, start)
        return result

    return admitted


def _binding_order(block: Block) -> Block:
    """Return the gates as they bind: those with two phases last. If nobody has to wait, the first phase is no phase."""
    return (*(each for each in block if not each.two_phase), *(each for each in block if each.two_phase))


def _take_all(order: Block) -> list[Any] | None:
    """Return each strategy with its gate and a permit, and last whether any is timed; None if one is to be asked."""
    taken: list[Any] = []
    timed = False
    try:
        for strategy in order:
            if strategy.special:
                raise LookupError  # noqa: TRY301 - the same way out as a gate that is not free
            gate = strategy.gate
            taken.append((strategy, gate, gate.take()))
            if gate.timed:
                timed = True
    except LookupError:
        for _, gate, permit in taken:
            wake(gate.refund(permit))
        return None
    taken.append(timed)
    return taken


def _succeeded_all(held: Held, site: Site, start: float) -> None:
    elapsed = clocks.REAL.now() - start if start else 0.0
    for strategy, gate, permit in held:
        try:
            _succeeded(strategy, gate, permit, site, elapsed)
        except BaseException:  # whoever listens was interrupted: the others get theirs back all the same
            _succeeded_all(held, site, start)
            raise


def _succeeded(strategy: Gated, gate: Any, permit: Any, site: Site, elapsed: float) -> None:
    """Report a call that returned, and release its permit."""
    woken = gate.succeeded(permit, elapsed) if gate.outcomes else ()
    freed = gate.release(permit)
    if woken or freed or gate.news:
        tell(strategy, gate, site, woken, freed)


def _settle_all(held: Held, site: Site, start: float, error: BaseException) -> None:
    for strategy, gate, permit in held:
        try:
            settle(strategy, gate, permit, site, start, error)
        except BaseException:  # a predicate of the user failed: the others get theirs back all the same
            _settle_all(held, site, start, error)
            raise


# --- everything unusual -----------------------------------------------------------------------------------------------


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
