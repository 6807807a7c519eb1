"""Give memory back under pressure: caches first, then young garbage, then what the allocator keeps.

From the first time on, or the first measurement of a call, big blocks do not stay in the allocator at all.

Never on the caller's thread: `malloc_trim` of a gigabyte takes 100 ms, but releases the GIL; only who asks the C
allocator for more than a kilobyte meanwhile may wait for the heap that is being gone through. A full `gc.collect()`
holds the GIL however it is called, stalls every thread for just as long, and frees nothing of an array; it is run only
on request. At most 5 % of the time goes into this (as dask does with its collections), and it backs off while it is
useless (as the OpenTelemetry collector does).
"""

from __future__ import annotations

import functools
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from asyncguard._runtime import forks
from asyncguard._runtime.dispatch import logger
from asyncguard._runtime.peak import process_bytes

__all__ = ["Reclaimer", "Trimmable", "collections", "register_cache", "release_big_blocks", "shared", "trim_allocator"]

SHARE = 0.05
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
USEFUL = 0.05
"""A run that frees less than this fraction of what the process holds was useless: the next pause is twice as long."""

CACHE_FRACTION = 0.5
YOUNG, ALL = 1, 2
MOST_YOUNG = 30_000
"""A young collection of more objects than this would hold the GIL for more than 10 ms."""

M_MMAP_THRESHOLD = -3
BIG_BLOCK = 1 << 20

Report = Callable[[str, int, float], None]
"""Told after each step: the method (cache, gc, malloc_trim), the bytes freed, the seconds it took."""


class Steps(Protocol):
    """What a run does, in order: the name of each step and the step."""

    def __call__(self, *, full: bool) -> Iterator[tuple[str, Callable[[], object]]]:
        """`full`: whatever it costs."""
        ...


class Trimmable(Protocol):
    """A cache that can let go of a fraction of its content, called from another thread."""

    def trim(self, fraction: float) -> object:
        """Give back about `fraction` (0..1) of what is held."""
        ...


_caches: weakref.WeakSet[Trimmable] = weakref.WeakSet()


def register_cache(cache: Trimmable) -> None:
    """Let a cache be trimmed under memory pressure. It is held weakly."""
    _caches.add(cache)


class Reclaimer:
    """Runs the steps on a thread of its own, one run at a time, as seldom as its results deserve.

    `held` returns what the process holds in bytes, `clock` monotonic seconds, `steps` what is to be done.
    """

    def __init__(
        self,
        held: Callable[[], int] = process_bytes,
        clock: Callable[[], float] = time.monotonic,
        steps: Steps | None = None,
    ) -> None:
        self._held = held
        self._clock = clock
        self._steps = steps or _steps
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the thread is not there."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next = float("-inf")
        self._pause = SHORTEST_PAUSE

    def ask(self, report: Report, done: Callable[[int], object], *, full: bool = False) -> bool:
        """Start a run if one is allowed now; never waits. `done` gets the bytes freed in all, on the other thread."""
        if self._clock() < self._next or self._thread is not None:
            return False
        return self._launch(functools.partial(self._run, report, done, full=full))

    def tidy(self, mark: Callable[[], int], done: Callable[[int], object]) -> bool:
        """Empty the allocator if that is allowed now: the next measurement starts clean.

        `done` gets what `mark` returned right before, so that it can tell whether anything ran meanwhile.
        """
        if self._clock() < self._next or self._thread is not None or _malloc_trim() is None:
            return False
        return self._launch(functools.partial(_tidy, mark, done))

    def prepare(self) -> None:
        """Make measurements of calls worth something: what stays in the allocator looks like calls that take more."""
        release_big_blocks()

    @property
    def busy(self) -> bool:
        """Whether a run is in progress."""
        return self._thread is not None

    def _launch(self, work: Callable[[], None]) -> bool:
        thread = threading.Thread(target=self._guarded, args=(work,), name="asyncguard-reclaim", daemon=True)
        with self._lock:  # nothing is made in here: the garbage collector may come back in on this thread
            if self._thread is not None:
                return False
            self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down
            self._thread = None
            return False
        return True

    def _guarded(self, work: Callable[[], None]) -> None:
        start = self._clock()
        try:
            work()
        except Exception:  # noqa: BLE001 - nobody waits for this thread, so nobody would see it
            logger.exception("asyncguard: giving memory back failed")
            self._pause = LONGEST_PAUSE
        finally:
            now = self._clock()
            self._next = now + max(self._pause, (now - start) / SHARE)
            self._thread = None

    def _run(self, report: Report, done: Callable[[int], object], *, full: bool) -> None:
        before = held = self._held()
        for method, step in self._steps(full=full):
            start = self._clock()
            step()
            now_held = self._held()
            report(method, max(0, held - now_held), self._clock() - start)
            held = now_held
        freed = max(0, before - held)
        useful = freed >= USEFUL * before
        self._pause = SHORTEST_PAUSE if useful else min(2 * self._pause, LONGEST_PAUSE)
        done(freed)


def _tidy(mark: Callable[[], int], done: Callable[[int], object]) -> None:
    marked = mark()
    trim_allocator()
    done(marked)


def _steps(*, full: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    release_big_blocks()
    if _caches:
        yield "cache", _trim_caches
    yield from collections(full=full)
    if _malloc_trim() is not None:
        yield "malloc_trim", trim_allocator


def collections(*, full: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the collection of garbage: all of it, or the young if there is not too much of it.

    Where the collector is off, or was told to come seldom, everything that was ever made may count as young.
    """
    if full:
        yield "gc", functools.partial(gc.collect, ALL)
    elif young_objects() <= MOST_YOUNG:
        yield "gc", functools.partial(gc.collect, YOUNG)


def young_objects() -> int:
    """Return about how many objects a young collection would go through."""
    newest, collections_, _ = gc.get_count()
    return newest + collections_ * gc.get_threshold()[0]


def _trim_caches() -> None:
    for cache in list(_caches):
        try:
            cache.trim(CACHE_FRACTION)
        except Exception:  # noqa: BLE001 - one broken cache must not keep the others from being trimmed
            logger.exception("asyncguard: trimming %r failed", cache)


def trim_allocator() -> bool:
    """Give free pages of the allocator back to the system (glibc only); tell whether that was possible."""
    trim = _malloc_trim()
    if trim is None:
        return False
    trim(0)
    return True


@functools.cache
def release_big_blocks() -> bool:
    """Let freed blocks of 1 MiB and more go back to the system at once, from now on (glibc only).

    glibc learns from each big block that is freed to keep the next one, up to 32 MiB, in the heap of each thread:
    memory that no call uses and no other call can have. See mallopt(3), M_MMAP_THRESHOLD. Whoever has chosen a
    threshold in the environment keeps it.
    """
    chosen = "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    mallopt = None if chosen else _from_glibc("mallopt")
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, BIG_BLOCK) == 1


@functools.cache
def _malloc_trim() -> Callable[..., int] | None:
    return _from_glibc("malloc_trim")


def _from_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of the allocator; musl, macOS and Windows have none of them."""
    try:
        import ctypes

        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    return function


_shared = Reclaimer()


def shared() -> Reclaimer:
    """Return the reclaimer of this process."""
    return _shared


forks.in_child(_shared.after_fork)
