"""Floor 2: the drivers of one gate. The rules of `_drivers` hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard._drivers import settle, tell, through_async, through_sync
from asyncguard._machines.gate import wake
from asyncguard._machines.slots import Slots
from asyncguard._runtime import clock as clocks
from asyncguard._waiting import Caller

if TYPE_CHECKING:
    from asyncguard._drivers import Call, Gated
    from asyncguard._pipeline import Site


def single_async(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of one gate around a coroutine function."""
    if strategy.gate.outcomes:
        return _judged_async(strategy, fn, site)
    if isinstance(strategy.gate, Slots):
        return _slotted_async(strategy, fn, site)
    return _admitted_async(strategy, fn, site)


def single_sync(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of one gate around a plain function."""
    if strategy.gate.outcomes:
        return _judged_sync(strategy, fn, site)
    if isinstance(strategy.gate, Slots):
        return _slotted_sync(strategy, fn, site)
    return _admitted_sync(strategy, fn, site)


def _slotted_async(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of `Slots`, with the machine's methods inline: they cost as much as everything else here."""
    block = (strategy,)

    async def slotted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return await through_async(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.free.pop()
        except LookupError:
            permit = await Caller(strategy, gate, site, "", args, kwargs).wait_async()
        try:
            return await fn(*args, **kwargs)
        finally:
            if gate.queue or gate.surplus:
                wake(gate.release(permit))
            else:
                gate.free.append(permit)
                if gate.queue:
                    wake(gate.look())

    return slotted


def _slotted_sync(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of `Slots`, with the machine's methods inline: they cost as much as everything else here."""
    block = (strategy,)

    def slotted(*args: Any, **kwargs: Any) -> Any:
        if strategy.special:
            return through_sync(block, fn, site, args, kwargs)
        gate = strategy.gate
        try:
            permit = gate.free.pop()
        except LookupError:
            permit = Caller(strategy, gate, site, "", args, kwargs).wait_sync()
        try:
            return fn(*args, **kwargs)
        finally:
            if gate.queue or gate.surplus:
                wake(gate.release(permit))
            else:
                gate.free.append(permit)
                if gate.queue:
                    wake(gate.look())

    return slotted


def _admitted_async(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of a gate that does not look at outcomes."""
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

    return admitted


def _admitted_sync(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of a gate that does not look at outcomes."""
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

    return admitted


def _judged_async(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of a gate that looks at outcomes."""
    block = (strategy,)

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
            tell(strategy, gate, site, woken, freed)
        return result

    return judged


def _judged_sync(strategy: Gated, fn: Call, site: Site) -> Call:
    """Return the driver of a gate that looks at outcomes."""
    block = (strategy,)

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
            tell(strategy, gate, site, woken, freed)
        return result

    return judged
