"""What the storms share: threads that run loops of every kind, jobs that are cancelled at random, what is left over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading

import trio
import uvloop

PATIENCE = 200.0  # seconds until a thread that has not ended is taken for one that hangs
DONE, CANCELLED = "done", "cancelled"


def in_threads(*mains):
    """Run each of `mains` in a thread of its own, all at once; return what they return, raise what one raises."""
    results, errors, gate = [None] * len(mains), [], threading.Barrier(len(mains))

    def run(at):
        try:
            gate.wait(PATIENCE)
            results[at] = mains[at]()
        except BaseException as error:  # noqa: BLE001 - raised where the threads were started
            errors.append(error)

    threads = [threading.Thread(target=run, args=(at,), daemon=True) for at in range(len(mains))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "somebody waits for ever"
    if errors:
        raise errors[0]
    return results


class Meter:
    """How many are inside at once, in all threads together."""

    def __init__(self):
        self._lock = threading.Lock()
        self.inside = self.peak = self.entered = 0

    @contextlib.contextmanager
    def measured(self, weight=1):
        with self._lock:
            self.entered += 1
            self.inside += weight
            self.peak = max(self.peak, self.inside)
        try:
            yield
        finally:
            with self._lock:
                self.inside -= weight


# --- a loop full of jobs, some of which are cancelled -----------------------------------------------------------------


def victims(jobs, share, seed):
    """Yield the numbers of the jobs to cancel in the order in which it happens, None where others come in between."""
    rng = random.Random(seed)
    for number in rng.sample(range(jobs), round(jobs * share)):
        yield number
        while rng.random() < 0.6:
            yield None


async def tasks_cancelled(job, jobs, share, seed):
    """Start `job(number)` as tasks, cancel a share of them at random moments; return how each ended."""
    tasks = [asyncio.create_task(job(number)) for number in range(jobs)]
    await asyncio.sleep(0)
    for number in victims(jobs, share, seed):
        if number is None:
            await asyncio.sleep(0)
        else:
            tasks[number].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
    assert not live_timers(), "a timer was left behind"
    return [CANCELLED if isinstance(each, asyncio.CancelledError) else each for each in ended]


async def children_cancelled(job, jobs, share, seed):
    """The same on trio: each job in a cancel scope of its own."""
    scopes, ended = [trio.CancelScope() for _ in range(jobs)], [CANCELLED] * jobs

    async def child(number):
        with scopes[number]:
            try:
                ended[number] = await job(number)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                ended[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(jobs):
            nursery.start_soon(child, number)
        await trio.lowlevel.checkpoint()
        for number in victims(jobs, share, seed):
            if number is None:
                await trio.lowlevel.checkpoint()
            else:
                scopes[number].cancel()
    return ended


def on_asyncio(job, jobs, share, seed):
    return lambda: asyncio.run(tasks_cancelled(job, jobs, share, seed))


def on_uvloop(job, jobs, share, seed):
    return lambda: uvloop.run(tasks_cancelled(job, jobs, share, seed))


def on_trio(job, jobs, share, seed):
    return lambda: trio.run(children_cancelled, job, jobs, share, seed)


async def step():
    """Let the others of this loop go on."""
    if trio.lowlevel.in_trio_task():
        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)


# --- what is left over ------------------------------------------------------------------------------------------------


def live_timers(loop=None):
    """Return the timers of a loop that are still to fire, but those that one loop keeps for all its deadlines."""
    scheduled = getattr(loop or asyncio.get_running_loop(), "_scheduled", ())  # uvloop shows nobody its own
    return [timer for timer in scheduled if not timer.cancelled() and "Expiries._fire" not in repr(timer)]


# --- loops that stop --------------------------------------------------------------------------------------------------


def stopped(coroutine, *, turns=5, loop=None):
    """Run a coroutine for some turns on a loop of its own, in a thread of its own, and stop the loop; return both."""
    loop = loop or asyncio.new_event_loop()

    def run():
        task = loop.create_task(coroutine)
        _after(loop, turns, loop.stop)
        loop.run_forever()
        return task

    return loop, in_threads(run)[0]


def _after(loop, turns, function):
    loop.call_soon(function) if turns == 0 else loop.call_soon(_after, loop, turns - 1, function)


def finish(loop, task):
    """Cancel what a stopped loop still has and close it in an orderly way."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
