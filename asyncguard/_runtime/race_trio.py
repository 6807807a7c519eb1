"""Attempts of one call as children of a trio nursery; see `race`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from asyncguard._runtime.race import CLOSING, INTERRUPTS, Attempt, discard

if TYPE_CHECKING:
    from asyncguard._runtime.race import Call, Referee


class TrioRace:
    """Attempts as children of a trio nursery."""

    __slots__ = ("_call", "_interrupt", "_news", "_referee", "_trio")

    def __init__(self, referee: Referee, call: Call) -> None:
        self._trio: Any = sys.modules["trio"]
        self._referee = referee
        self._call = call
        self._news = self._trio.Event()
        self._interrupt: BaseException | None = None

    async def run(self) -> BaseException | None:
        """Run to the end; return what the caller leaves with, None if it is decided."""
        left: BaseException | None = None
        dropped: list[object] = []
        try:
            async with self._trio.open_nursery() as nursery:
                try:
                    await self._watch(nursery)
                except BaseException as error:  # noqa: BLE001 - the nursery would put it into a group
                    left = error
                    dropped.append(self._referee.drop())
                nursery.cancel_scope.cancel()
        except BaseException as error:  # noqa: BLE001 - cancelled or interrupted while waiting for the losers
            left = leaf(error)
            dropped.append(self._referee.drop())
        if self._interrupt is not None:
            left, self._interrupt = self._interrupt, None
            dropped.append(self._referee.drop())
        for result in dropped:
            await self._discard(result)
        return left

    async def _watch(self, nursery: Any) -> None:
        referee = self._referee
        nursery.start_soon(self._run, referee.begin())
        while not referee.over:
            pause = referee.pause()
            if pause > 0.0:
                await self._wait(pause)
            elif referee.granted():
                nursery.start_soon(self._run, referee.begin())

    async def _run(self, number: int) -> None:
        attempt = Attempt()
        try:
            result = await self._call()
        except BaseException as error:  # noqa: BLE001 - for the caller, who is cancelled with us if it is that
            if isinstance(error, INTERRUPTS):
                self._interrupt = error
            self._referee.failed(number, error)
        else:
            if not self._referee.succeeded(number, result):
                await self._discard(result)
        finally:
            attempt.open = False
            self._news.set()

    async def _wait(self, seconds: float) -> None:
        with self._trio.move_on_after(seconds) as scope:
            await self._news.wait()
        if self._news.is_set():
            self._news = self._trio.Event()
        elif scope.cancelled_caught:
            self._referee.late()

    async def _discard(self, result: object) -> None:
        with self._trio.move_on_after(CLOSING) as scope:
            scope.shield = True
            await discard(result)


def leaf(error: BaseException) -> BaseException:
    """Return what is in a nursery's group: an interrupt rather than a cancellation."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(each) for each in cast("BaseExceptionGroup[BaseException]", error).exceptions]
    interrupts = [each for each in leaves if isinstance(each, INTERRUPTS)]
    return (interrupts or leaves)[0]
