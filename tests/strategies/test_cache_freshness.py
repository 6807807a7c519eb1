"""The freshness of one value against a slow model: docs/explanation/cache-freshness.md, every phase written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
from hypothesis import given
from hypothesis import strategies as st

import asyncguard as ag
from asyncguard import testing
from asyncguard.strategies.cache_result import CacheResult

TICK = 1 / 64  # seconds between two steps; all times are multiples of half of it, so that sums are exact
TOOK = 16.5 * TICK  # seconds of each computation, which so never ends when something else happens
PAUSE = 5.0


class Old:
    """A value of the model: when it was computed, and before when nothing is tried again."""

    def __init__(self, value: int, created: float) -> None:
        self.value, self.created, self.retry_at = value, created, -math.inf


class Model:
    """What the page says. `behind` is the refresh under way: its end, what it is to replace, whether it counts."""

    def __init__(self, ttl: int, refresh_at: float, revalidate: int, error: int) -> None:
        self.soft, self.ttl, self.stale = refresh_at * ttl, ttl, ttl + revalidate
        self.bridges, self.dead = bool(error), ttl + max(revalidate, error)
        self.now = 0.0
        self.broken = False
        self.calls = 0
        self.old: Old | None = None
        self.behind: tuple[float, Old, bool] | None = None

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        if self.behind is not None and self.behind[0] <= end:
            self.end_behind()
        self.now = end

    def compute(self) -> int | None:
        """Call the function, whose answer comes now."""
        self.calls += 1
        return None if self.broken else self.calls

    def store(self, value: int | None) -> None:
        if value is not None:
            self.old = Old(value, self.now)

    def bridged(self, spare: Old | None) -> int | None:
        """Fail: take note of that in the value that may stand in, and return it if it is still good for that."""
        if spare is None:
            return None
        spare.retry_at = self.now + PAUSE
        return spare.value if self.bridges and self.now - spare.created < self.dead else None

    def end_behind(self) -> int | None:
        assert self.behind is not None
        self.now, spare, counts = self.behind
        self.behind = None
        value = self.compute()
        if counts:
            self.store(value)
        return self.bridged(spare) if value is None else value

    def get(self) -> int | None:
        """Return what a caller gets, None: the error."""
        old, age = self.old, math.inf if self.old is None else self.now - self.old.created
        if old is not None and age < self.stale:
            if age >= self.soft and self.now >= old.retry_at and not self.counted():
                self.behind = (self.now + TOOK, old, True)
            return old.value
        if old is not None and age < self.dead and self.now < old.retry_at:
            return old.value
        if self.counted():
            return self.end_behind()
        self.sleep(TOOK)
        value = self.compute()
        self.store(value)
        return self.bridged(old if age < self.dead else None) if value is None else value

    def counted(self) -> bool:
        return self.behind is not None and self.behind[2]

    def refresh(self) -> int | None:
        self.set_aside()
        self.sleep(TOOK)
        value = self.compute()
        self.store(value)
        return value

    def invalidate(self) -> None:
        self.set_aside()
        self.old = None

    def set_aside(self) -> None:
        """What is being refreshed now is not stored."""
        if self.behind is not None:
            self.behind = (*self.behind[:2], False)


class Real:
    """The cache, with the same questions."""

    def __init__(self, ttl: int, refresh_at: float, revalidate: int, error: int) -> None:
        self.broken, self.calls = False, 0
        cache = ag.cache_result(
            ttl, refresh_at=refresh_at, stale_while_revalidate=revalidate, stale_if_error=error, name="model"
        )

        @cache
        async def fn(x: int) -> int:
            await anyio.sleep(TOOK)
            self.calls += 1
            if self.broken:
                raise ConnectionError
            return self.calls

        self.fn = fn
        self.cache = ag.pipeline_of(fn)[CacheResult]

    async def answer(self, call: Callable[..., object]) -> object:
        try:
            return await call(1)  # type: ignore[misc]
        except ConnectionError:
            return None


step = st.sampled_from(["get", "get", "get", "get", 1, 2, 4, 7, "break", "break", "mend", "refresh", "invalidate"])


@given(
    backend=st.sampled_from(["asyncio", "trio"]),
    terms=st.tuples(
        st.sampled_from([2, 6]), st.sampled_from([0.5, 1.0]), st.sampled_from([0, 3, 9]), st.sampled_from([0, 5, 20])
    ),
    steps=st.lists(step, min_size=10, max_size=60),
)
def test_what_a_caller_gets_and_what_is_computed_is_what_the_page_says(backend, terms, steps):
    async def main():
        real, model = Real(*terms), Model(*terms)
        for each in ["get", *steps]:
            if isinstance(each, int):
                await anyio.sleep(each)
                model.sleep(each)
            elif each in {"break", "mend"}:
                real.broken = model.broken = each == "break"
            elif each == "invalidate":
                real.cache.invalidate(1)
                model.invalidate()
            elif each == "refresh":
                assert await real.answer(real.cache.refresh) == model.refresh()
            else:
                assert await real.answer(real.fn) == model.get()
            assert real.calls == model.calls
            await anyio.sleep(TICK)
            model.sleep(TICK)

    testing.run(main, backend=backend)
