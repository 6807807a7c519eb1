"""Drivers of `memory_guard` alone around a function: the shared ones, and the call knows what it has reserved.

A guarded call inside of another must neither reserve the same bytes again nor wait for its own caller, so a running
call shows its reservation to the calls inside it (with the permits that `_admission` shows). Whatever is unusual, a
call inside of a call included, goes the way of all blocks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from asyncguard import _admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.ledger import Ledger, Reservation
    from asyncguard._pipeline import Site
    from asyncguard.strategies.memory_guard import MemoryGuard

    Call = Callable[..., Any]

# pyright: reportPrivateUsage=false


def wrap_async(strategy: MemoryGuard, fn: Call, site: Site) -> Call:
    """Return the driver around a coroutine function."""
    block = (strategy,)

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        shown = _admission._permits  # noqa: SLF001
        if strategy.detour or shown.get():
            return await _admission._through_async(block, fn, site, args, kwargs)  # noqa: SLF001
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = await _admission._wait_async(strategy, gate, site, "", args, kwargs)  # noqa: SLF001
        else:
            if strategy.heard(site):
                strategy.admitted(site, gate, permit)
        token = shown.set((_admission.HeldPermit(strategy, gate, permit),))
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            _failed(strategy, gate, permit, site, token, error)
            raise
        shown.reset(token)
        if permit.measured:
            gate.succeeded(permit, 0.0)
        woken = gate.release(permit)
        if woken:
            _admission.wake(woken)
        return result

    return guarded


def wrap_sync(strategy: MemoryGuard, fn: Call, site: Site) -> Call:
    """Return the driver around a plain function."""
    block = (strategy,)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        shown = _admission._permits  # noqa: SLF001
        if strategy.detour or shown.get():
            return _admission._through_sync(block, fn, site, args, kwargs)  # noqa: SLF001
        gate = strategy.gate
        try:
            permit = gate.take()
        except LookupError:
            permit = _admission._wait_sync(strategy, gate, site, "", args, kwargs)  # noqa: SLF001
        else:
            if strategy.heard(site):
                strategy.admitted(site, gate, permit)
        token = shown.set((_admission.HeldPermit(strategy, gate, permit),))
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            _failed(strategy, gate, permit, site, token, error)
            raise
        shown.reset(token)
        if permit.measured:
            gate.succeeded(permit, 0.0)
        woken = gate.release(permit)
        if woken:
            _admission.wake(woken)
        return result

    return guarded


def _failed(  # noqa: PLR0913 - all facts of an outcome
    strategy: MemoryGuard, gate: Any, permit: Any, site: Site, token: Any, error: BaseException
) -> None:
    with contextlib.suppress(ValueError):  # a coroutine may be closed by the garbage collector, in another context
        _admission._permits.reset(token)  # noqa: SLF001
    _admission._settle(strategy, gate, permit, site, "", 0.0, error)  # noqa: SLF001


def caller(ledger: Ledger) -> Reservation | None:
    """Return the reservation of the innermost guarded call around us in this ledger, None if there is none."""
    for held in _admission._permits.get():  # noqa: SLF001
        gate, permit = held._gate, held._permit  # noqa: SLF001
        if getattr(gate, "ledger", None) is ledger and permit is not None and not permit.closed:
            found: Reservation = permit
            return found
    return None
