"""Eight threads, half of them with event loops, on one cache that is always full, expiring, and being emptied.

`ASYNCGUARD_HAMMER=10 pytest tests/strategies/test_cache_hammer.py` does it for ten seconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time

import pytest

import asyncguard as ag

SECONDS = float(os.environ.get("ASYNCGUARD_HAMMER", "2"))
KEYS, MOST, BYTES = 200, 50, 40_000


class Hammer:
    """One cache of three functions, and what everybody found wrong with it."""

    def __init__(self):
        self.cache = ag.cache_result(
            0.01, max_entries=MOST, max_bytes=BYTES, tags=lambda x: (f"tag{x % 5}",), stale_while_revalidate=0.005
        )
        self.double, self.triple, self.text = (
            self.cache(each) for each in (self.make_double(), self.make_triple(), self.make_text())
        )
        self.errors = []
        self.calls = [0] * 8
        self.stop = threading.Event()

    @staticmethod
    def make_double():
        async def double(x: int) -> int:
            await asyncio.sleep(0)
            return 2 * x

        return double

    @staticmethod
    def make_triple():
        def triple(x: int) -> list[int]:
            return [3 * x]

        return triple

    @staticmethod
    def make_text():
        def text(x: int) -> str:
            return "x" * (20 * x)

        return text

    def until_stopped(self, at, step):
        dice = random.Random(at)
        try:
            while not self.stop.is_set():
                step(dice)
                self.calls[at] += 1
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            self.errors.append(error)

    def sync_calls(self, dice):
        x = dice.randrange(KEYS)
        assert self.triple(x) == [3 * x]
        assert self.text(x) == "x" * (20 * x)

    async def in_loop(self, at):
        dice = random.Random(at)
        try:
            while not self.stop.is_set():
                xs = [dice.randrange(KEYS) for _ in range(10)]
                assert await asyncio.gather(*[self.double(x) for x in xs]) == [2 * x for x in xs]
                self.calls[at] += 1
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            self.errors.append(error)

    def disturb(self, dice):
        """Look at the bounds, and take away what is there, in every way there is."""
        info = self.cache.info()
        assert info.entries <= MOST
        assert info.nbytes <= BYTES
        x, way = dice.randrange(KEYS), dice.randrange(200)
        if way == 0:
            self.cache.clear()
        elif way == 1:
            self.cache.trim(0.5)
        elif way < 5:
            self.cache.invalidate_tag(f"tag{x % 5}")
        else:
            self.cache.of(self.triple).invalidate(x)

    def check_books(self):
        """Whatever went on, the store's books agree with what is there."""
        (store,) = self.cache.core.stores()
        ring = list(store._entries())
        held = [entry for cell in self.cache.core.cells() for entry in cell.entries.values()]
        assert len(store) == len(ring) == len(held) <= MOST
        assert {id(entry) for entry in ring} == {id(entry) for entry in held}
        assert store.nbytes == sum(entry.size for entry in ring) <= BYTES
        assert {id(entry) for tagged in store._tagged.values() for entry in tagged} == {id(entry) for entry in ring}
        assert all(tagged for tagged in store._tagged.values())
        assert self.cache.info().in_flight == 0

    def run(self, seconds):
        threads = [
            *[threading.Thread(target=lambda at=at: asyncio.run(self.in_loop(at))) for at in range(4)],
            *[threading.Thread(target=self.until_stopped, args=(at, self.sync_calls)) for at in range(4, 7)],
            threading.Thread(target=self.until_stopped, args=(7, self.disturb)),
        ]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        late = time.monotonic() + 60
        while not min(self.calls) and not self.errors and time.monotonic() < late:  # the machine may have stood still
            time.sleep(0.01)
        self.stop.set()
        for thread in threads:
            thread.join(60)
        asyncio.run(self.cache.core.background.aclose())
        assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def eager_switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
def test_eight_threads_hammering_one_cache_neither_break_it_nor_exceed_its_bounds(eager_switching, capsys):
    hammer = Hammer()
    began = time.monotonic()
    hammer.run(SECONDS)
    assert hammer.errors == []
    assert min(hammer.calls) > 0
    hammer.check_books()
    with capsys.disabled():
        calls = sum(hammer.calls[4:7]) * 2 + sum(hammer.calls[:4]) * 10
        print(f"\nhammer: {calls:,} calls, {hammer.calls[7]:,} looks at the bounds in {time.monotonic() - began:.1f} s")


def test_eight_threads_for_a_moment(eager_switching):
    hammer = Hammer()
    hammer.run(0.2)
    assert hammer.errors == []
    hammer.check_books()
