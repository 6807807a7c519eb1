"""Giving memory back: in which order, on which thread, how often."""

from __future__ import annotations

import ctypes
import gc
import logging
import subprocess
import sys
import threading

import pytest

from asyncguard._runtime import reclaim
from asyncguard._runtime.reclaim import LONGEST_PAUSE, SHARE, SHORTEST_PAUSE, Reclaimer

GLIBC = hasattr(ctypes.CDLL(None), "malloc_trim")


class Cache:
    def __init__(self, bench: Bench, frees: int = 0) -> None:
        self.bench = bench
        self.frees = frees
        self.asked: list[tuple[float, int]] = []

    def trim(self, fraction: float) -> None:
        self.asked.append((fraction, threading.get_ident()))
        self.bench.held -= self.frees


class Bench:
    """A process that holds `held` bytes; a run takes no time unless the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.held = 1000
        self.steps: list[tuple[str, int]] = []
        self.freed: list[int] = []
        self.reclaimer = Reclaimer(lambda: self.held, lambda: self.now)

    def ask(self, *, full: bool = False) -> bool:
        started = self.reclaimer.ask(self.report, self.freed.append, full=full)
        self.wait()
        return started

    def wait(self) -> None:
        thread = self.reclaimer._thread
        if thread is not None:
            thread.join(60)

    def report(self, method: str, freed: int, seconds: float) -> None:
        self.steps.append((method, freed))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(reclaim, "_caches", [])
    monkeypatch.setattr(reclaim, "trim_allocator", lambda: True)
    monkeypatch.setattr(reclaim, "release_big_blocks", lambda: True)  # it would last for the whole test run
    return Bench()


def use(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, frees: int = 0) -> Cache:
    cache = Cache(bench, frees)
    monkeypatch.setattr(reclaim, "_caches", [cache])
    return cache


@pytest.mark.skipif(not GLIBC, reason="malloc_trim is glibc")
def test_caches_go_first_then_young_garbage_then_the_allocator(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    use(bench, monkeypatch, frees=300)
    assert bench.ask()
    assert bench.steps == [("cache", 300), ("gc", 0), ("malloc_trim", 0)]
    assert bench.freed == [300]


def test_nothing_runs_on_the_thread_that_asks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use(bench, monkeypatch)
    bench.ask()
    [(fraction, thread)] = cache.asked
    assert 0 < fraction < 1
    assert thread != threading.get_ident()


@pytest.mark.parametrize(("full", "generation"), [(False, 1), (True, 2)])
def test_all_garbage_is_collected_only_on_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, full: bool, generation: int
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", collected.append)
    bench.ask(full=full)
    assert collected == [generation]


@pytest.mark.parametrize(
    ("count", "collects"), [((20_000, 0, 0), True), ((700, 10, 3), True), ((700_000, 0, 0), False)]
)
def test_a_young_generation_that_is_the_whole_heap_is_not_collected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, count: tuple[int, int, int], collects: bool
) -> None:
    monkeypatch.setattr(gc, "get_count", lambda: count)
    monkeypatch.setattr(gc, "collect", lambda generation: 0)
    bench.ask()
    assert ("gc" in [method for method, _ in bench.steps]) is collects
    bench.steps.clear()
    bench.now = 1000.0
    bench.ask(full=True)
    assert "gc" in [method for method, _ in bench.steps]


def test_objects_that_wait_for_a_rare_collector_count_as_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "get_count", lambda: (100, 9, 0))
    monkeypatch.setattr(gc, "get_threshold", lambda: (50_000, 20, 20))
    assert reclaim.young_objects() == 450_100


def test_at_most_a_twentieth_of_the_time_goes_into_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use(bench, monkeypatch, frees=100)
    slow = cache.trim

    def trim(fraction: float) -> None:
        slow(fraction)
        bench.now += 2.0

    monkeypatch.setattr(cache, "trim", trim)
    assert bench.ask()
    bench.now += 2.0 / SHARE - 0.1
    assert not bench.ask()
    bench.now += 0.1
    assert bench.ask()


def test_while_it_is_useless_it_comes_ever_more_seldom_and_a_useful_run_ends_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    for _ in range(9):
        assert bench.ask()
        pauses.append(bench.reclaimer._next - bench.now)
        bench.now = bench.reclaimer._next
    assert pauses == [min(SHORTEST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(1, 10)]
    use(bench, monkeypatch, frees=100)
    bench.ask()
    assert bench.reclaimer._next - bench.now == SHORTEST_PAUSE


def test_one_run_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, go_on = use(bench, monkeypatch), threading.Event()
    monkeypatch.setattr(cache, "trim", lambda fraction: go_on.wait(60))
    assert bench.reclaimer.ask(bench.report, bench.freed.append)
    assert bench.reclaimer.busy
    assert not bench.reclaimer.ask(bench.report, bench.freed.append)
    go_on.set()
    bench.wait()
    assert not bench.reclaimer.busy


def test_a_broken_cache_does_not_keep_the_others_from_being_trimmed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = Cache(bench), Cache(bench, 200)
    monkeypatch.setattr(broken, "trim", lambda fraction: 1 / 0)
    monkeypatch.setattr(reclaim, "_caches", [broken, good])
    bench.ask()
    assert bench.freed == [200]
    assert "ZeroDivisionError" in caplog.text


def test_a_run_that_breaks_is_logged_and_not_repeated_soon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gc, "collect", lambda generation: 1 / 0)
    bench.ask()
    assert caplog.records[0].levelno == logging.ERROR
    assert bench.reclaimer._next == LONGEST_PAUSE
    assert not bench.reclaimer.busy


def test_where_no_thread_can_be_started_nothing_happens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert not bench.reclaimer.ask(bench.report, bench.freed.append)
    assert not bench.reclaimer.busy


def test_caches_are_held_weakly() -> None:
    cache = Cache(Bench())
    reclaim.register_cache(cache)
    assert cache in reclaim._caches
    del cache
    gc.collect()
    assert not [each for each in reclaim._caches if isinstance(each, Cache)]


@pytest.mark.skipif(not GLIBC, reason="malloc_trim is glibc")
def test_tidying_says_what_was_marked_right_before(bench: Bench) -> None:
    seen: list[int] = []
    assert bench.reclaimer.tidy(lambda: 7, seen.append)
    bench.wait()
    assert seen == [7]


def test_without_malloc_trim_there_is_nothing_to_tidy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim, "_malloc_trim", lambda: None)
    assert not bench.reclaimer.tidy(lambda: 7, lambda marked: None)
    monkeypatch.undo()
    monkeypatch.setattr(reclaim, "_malloc_trim", lambda: None)
    assert not reclaim.trim_allocator()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_libraries_have_no_malloc_trim(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def cdll(name: object) -> object:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", cdll)
    assert reclaim._from_glibc("malloc_trim") is None


@pytest.mark.skipif(not GLIBC, reason="malloc_trim is glibc")
def test_big_blocks_go_back_when_they_are_freed_also_after_the_allocator_has_learned_to_keep_them() -> None:
    program = (
        "from asyncguard._runtime.peak import process_bytes\n"
        "from asyncguard._runtime.reclaim import release_big_blocks\n"
        "assert release_big_blocks()\n"
        "teacher = bytearray(30 << 20)\n"
        "del teacher\n"
        "blocks = [bytearray(20 << 20) for _ in range(5)]\n"
        "wall = bytearray(1000)\n"
        "before = process_bytes()\n"
        "del blocks\n"
        "assert before - process_bytes() > 90 << 20\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    "variable", [("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536")]
)
def test_a_threshold_from_the_environment_is_kept(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable)
    assert not reclaim.release_big_blocks.__wrapped__()


@pytest.mark.skipif(not GLIBC, reason="malloc_trim is glibc")
def test_small_arrays_that_were_freed_go_back_to_the_system() -> None:
    program = (
        "from asyncguard._runtime.peak import process_bytes\n"
        "from asyncguard._runtime.reclaim import trim_allocator\n"
        "kept = [bytearray(16 << 10) for _ in range(4000)]\n"
        "wall = bytearray(1 << 10)\n"
        "kept = None\n"
        "before = process_bytes()\n"
        "assert trim_allocator()\n"
        "assert process_bytes() <= before\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_a_forked_child_has_a_reclaimer_that_is_not_busy(bench: Bench) -> None:
    bench.reclaimer._thread = threading.current_thread()
    bench.reclaimer.after_fork()
    assert not bench.reclaimer.busy
    assert bench.ask()
