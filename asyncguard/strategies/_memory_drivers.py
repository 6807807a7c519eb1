"""Drivers of `memory_guard` alone around a function: like the shared ones, and the call shows what it has reserved.

A guarded call inside of another must neither reserve the same bytes again nor wait for its own caller, so a running
call shows its reservation to the calls inside it, as every block of gates does with permits that have a cost. That way
costs three times as much, so the plain case has drivers of its own; a call inside of a call goes the way of all blocks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from asyncguard import _passage
from asyncguard._drivers import block_async, block_sync
from asyncguard._machines.gate import wake
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._runtime import dispatch
from asyncguard._waiting import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.ledger import Ledger
    from asyncguard._pipeline import Site
    from asyncguard.strategies.memory_guard import MemoryGuard

    Call = Callable[..., Any]


def wrap_async(strategy: MemoryGuard, fn: Call, site: Site) -> Call:
    """Return the driver around a coroutine function."""
    unusual = block_async((strategy,), fn, site)

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if strategy.detour or _passage.permits.get():
            return await unusual(*args, **kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await Caller(strategy, gate, site, "", args, kwargs).wait_async()
        else:
            if dispatch.handlers or site.monitored or strategy.options.on_event is not None:  # `heard` inline
                _tell(strategy, gate, site, permit)
        token = _passage.permits.set(((strategy, gate, permit),))
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _failed(strategy, gate, permit, token, error)
            raise
        try:
            _passage.permits.reset(token)
        except ValueError:
            """It began in another context: `bring_back` inline."""
        if permit.plain:  # `release` inline
            ledger = gate.ledger
            ledger.abandon(permit)
            if ledger.queue or not permit.plain:
                wake(ledger.hand_on(permit))
        else:
            gate.succeeded(permit, 0.0)
            wake(gate.release(permit))
        return result

    return guarded


def wrap_sync(strategy: MemoryGuard, fn: Call, site: Site) -> Call:
    """Return the driver around a plain function."""
    unusual = block_sync((strategy,), fn, site)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if strategy.detour or _passage.permits.get():
            return unusual(*args, **kwargs)
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = Caller(strategy, gate, site, "", args, kwargs).wait_sync()
        else:
            if dispatch.handlers or site.monitored or strategy.options.on_event is not None:  # `heard` inline
                _tell(strategy, gate, site, permit)
        token = _passage.permits.set(((strategy, gate, permit),))
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _failed(strategy, gate, permit, token, error)
            raise
        try:
            _passage.permits.reset(token)
        except ValueError:
            """It began in another context: `bring_back` inline."""
        if permit.plain:  # `release` inline
            ledger = gate.ledger
            ledger.abandon(permit)
            if ledger.queue or not permit.plain:
                wake(ledger.hand_on(permit))
        else:
            gate.succeeded(permit, 0.0)
            wake(gate.release(permit))
        return result

    return guarded


def _tell(strategy: MemoryGuard, gate: Any, site: Site, permit: Any) -> None:
    try:
        strategy.admitted(site, gate, permit)
    except BaseException:  # whoever listens was interrupted
        wake(gate.refund(permit))
        raise


def _failed(strategy: MemoryGuard, gate: Any, permit: Any, token: Any, error: BaseException) -> None:
    with contextlib.suppress(ValueError):  # a coroutine may be closed by the garbage collector, in another context
        _passage.permits.reset(token)
    try:
        _passage.judge(strategy, gate, permit, 0.0, error)
    finally:
        wake(gate.release(permit))


def caller(ledger: Ledger) -> Reservation | None:
    """Return the reservation of the innermost guarded call around us in this ledger, None if there is none.

    What the parent of a forked process has reserved serves its own calls: there may be many children.
    """
    for _, gate, permit in _passage.permits.get():
        if getattr(gate, "ledger", None) is not ledger or not isinstance(permit, Reservation):
            continue
        if not permit.closed and permit.generation == ledger.generation:
            return permit
    return None
