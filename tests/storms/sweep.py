"""Cancelling one call at its k-th suspension, between two others, and looking at what is left of it.

A scene is three calls of one guarded function: one that was there before, one that is swept, and one that comes behind.
The swept one is cancelled at one moment; whatever moment it is, the two others end as if nobody had been there.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import functools
import itertools

import trio

from asyncguard._runtime import clock as clocks
from tests.drivers.cases import TransientError
from tests.storms.arena import CANCELLED, live_timers

WHO = contextvars.ContextVar("who")
MOST = 80  # no call here has so many suspensions


class FlakyError(TransientError, ConnectionError):
    """What the function raises once where it fails; every strategy that looks at errors takes it for transient."""


class Stage:
    """A guarded function whose calls take `unit` / 5 seconds, and fail once for the swept caller if `fails`.

    The three callers of a scene ask for the same, or `apart` for something of their own.
    """

    def __init__(self, guard, unit, *, fails, apart=False):
        self.unit, self.fails, self.apart = unit, fails, apart
        self.begun = []
        self.running = collections.Counter()
        self.asked = False  # whether the swept call was still under way at the moment in which it was to be cancelled
        self._failed = False
        self.guarded = guard(self._work)

    def new_scene(self):
        self.begun.clear()
        self._failed = False

    async def _work(self, key):
        who = WHO.get()
        self.begun.append((who, clocks.current().now()))
        self.running[who] += 1
        try:
            await clocks.library_sleep(0)
            await clocks.library_sleep(0.1 * self.unit)
            if self.fails and who == "swept" and not self._failed:
                self._failed = True
                raise FlakyError
            await clocks.library_sleep(0.1 * self.unit)
            return key
        finally:
            self.running[who] -= 1

    async def call(self, who, key):
        """Return how a call ended: its result, or the class of what it raised."""
        WHO.set(who)
        try:
            return await self.guarded((key, who) if self.apart else key)
        except Exception as error:  # noqa: BLE001 - it is compared with that of a scene in which nobody is cancelled
            return type(error)


# --- asyncio ----------------------------------------------------------------------------------------------------------


class Tapped:
    """Awaits a coroutine in the same task and calls `tap(k, what)` at its k-th suspension, from 0."""

    def __init__(self, coroutine, tap):
        self._coroutine, self._tap = coroutine, tap

    def __await__(self):
        resume, number = functools.partial(self._coroutine.send, None), 0
        while True:
            try:
                waited_for = resume()
            except StopIteration as stop:
                return stop.value
            self._tap(number, waited_for)
            number += 1
            try:
                resume = functools.partial(self._coroutine.send, (yield waited_for))
            except BaseException as error:  # noqa: BLE001 - it goes where it would have gone
                resume = functools.partial(self._coroutine.throw, error)


def canceller(when, at):
    """Return a tap that cancels its task at suspension `at`: as soon as it is `suspended`, or as it is `woken`."""

    def tap(number, waited_for):
        if number != at:
            return
        task = asyncio.current_task()
        if when == "suspended":
            task.cancel()
        elif waited_for is None:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            waited_for.add_done_callback(lambda _: task.cancel())

    return tap


async def swept(stage, key, when, at):
    """Make the swept call and check what the task itself can see."""
    task, asked = asyncio.current_task(), []
    if when == "turn":
        _in_turns(at, lambda: asked.append(task.cancel()))
        tap = _none
    else:
        cancel = canceller(when, at)

        def tap(number, waited_for):
            cancel(number, waited_for)
            if number == at:
                asked.append(True)

    before = _variables()
    try:
        ended = await Tapped(stage.call("swept", key), tap)
        assert not task.cancelling(), "the cancellation was swallowed"
    except asyncio.CancelledError:
        assert asked, "cancelled by whom?"
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        ended = CANCELLED
    assert not stage.running["swept"], "what the caller had started goes on without it"
    assert _variables() == before, "a context variable stayed set"
    stage.asked = bool(asked)
    return ended


def _none(number, waited_for):
    """Nothing is done at a suspension."""


def _in_turns(turns, function):
    """Call a function after so many turns of the loop, unless the task is done; nothing else changes in a turn."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    run_once, numbers = loop._run_once, itertools.count()

    def counted():
        run_once()
        number = next(numbers)
        if number == turns and not task.done():
            function()
        if number == turns or task.done():
            loop._run_once = run_once

    loop._run_once = counted


def _variables():
    """Return our context variables that differ from what they are by default."""
    here = contextvars.copy_context()
    ours = [var for var in here if var.name.startswith("asyncguard") and var.name != "asyncguard_clock"]
    empty = contextvars.Context()
    return {var.name: here[var] for var in ours if here[var] != empty.run(var.get, None)}


async def scene_on_asyncio(stage, key, when=None, at=-1):
    """Play a scene; return how the three calls ended."""
    stage.new_scene()
    tasks = [asyncio.create_task(stage.call("before", key))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(swept(stage, key, when, at)))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(stage.call("behind", key)))
    ended = await asyncio.gather(*tasks)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
    assert not live_timers(), "a timer was left behind"
    return ended


# --- trio -------------------------------------------------------------------------------------------------------------


class TrioTap(trio.abc.Instrument):
    """Cancels a scope when its task is suspended for the `at`-th time, or when it is woken from that."""

    def __init__(self, when, at):
        self.when, self.at = when, at
        self.task, self.scope = None, trio.CancelScope()
        self._steps = self._wakes = 0

    def after_task_step(self, task):
        if task is self.task:
            self._steps += 1
            if self.when == "suspended" and self._steps == self.at + 1:
                self.scope.cancel()

    def task_scheduled(self, task):
        if task is self.task:
            self._wakes += 1
            if self.when == "woken" and self._wakes == self.at + 1:
                self.scope.cancel()


async def scene_on_trio(stage, key, when=None, at=-1):
    """Play a scene; return how the three calls ended."""
    stage.new_scene()
    ended, tap = {}, TrioTap(when, at)

    async def call(who):
        ended[who] = await stage.call(who, key)

    async def swept_call():
        tap.task = trio.lowlevel.current_task()
        before = _variables()
        with tap.scope:
            await call("swept")
        tap.task, stage.asked = None, tap.scope.cancel_called
        assert not stage.running["swept"], "what the caller had started goes on without it"
        assert _variables() == before, "a context variable stayed set"
        assert ("swept" not in ended) is tap.scope.cancelled_caught

    trio.lowlevel.add_instrument(tap)
    try:
        async with trio.open_nursery() as nursery:
            for start in (functools.partial(call, "before"), swept_call, functools.partial(call, "behind")):
                nursery.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
    finally:
        trio.lowlevel.remove_instrument(tap)
    return [ended["before"], ended.get("swept", CANCELLED), ended["behind"]]
