"""What CacheResult and CacheItems have in common: the whole cache, its contents, its functions, its end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

from asyncguard._machines import checks
from asyncguard._machines.flight import Work
from asyncguard._pipeline import Pipeline, Site, record_of
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import colour, flights, reclaim
from asyncguard._strategy import Transparent
from asyncguard.strategies._cache.bound import Bound
from asyncguard.strategies._cache.core import Core
from asyncguard.strategies._cache.handles import CachedFunction
from asyncguard.strategies._cache.options import CacheOptions, Terms
from asyncguard.strategies._cache.place import unbound

if TYPE_CHECKING:
    from asyncguard._runtime.clock import Clock
    from asyncguard.strategies._cache.store_tier import Tier


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache holds and how often it answered. `nbytes` is 0 unless `max_bytes` is set."""

    entries: int
    nbytes: int
    hits: int
    misses: int
    joined: int
    in_flight: int


class CacheStrategy(Transparent[CacheOptions, Core]):
    """A cache: the handle to everything that it holds, for all functions that it serves.

    `pipeline_of(fn)[CacheResult]` (and `of(fn)`) is the handle to one function.
    """

    __slots__ = ("_chosen",)  # the pipeline whose function the handle is about, None: all of them

    short_cut: ClassVar[bool] = False  # whether the driver has one for hits on an int or a str
    handle: ClassVar[type[CachedFunction]] = CachedFunction  # what `of` returns

    def __init__(self, options: CacheOptions) -> None:
        super().__init__(options)
        self._chosen: Pipeline[Any] | None = None
        self._bounds: weakref.WeakSet[Bound] = weakref.WeakSet()
        self._running: weakref.WeakSet[Work] = weakref.WeakSet()
        self.stored: dict[str, Tier] = {}  # what functions have in stores
        reclaim.register_cache(self)

    def serve(self, bound: Bound) -> None:
        """Remember a function that this cache serves."""
        with self._lock:
            self._bounds.add(bound)

    @property
    def bounds(self) -> list[Bound]:
        """The functions that this cache serves."""
        with self._lock:
            return list(self._bounds)

    def new_core(self, clock: Clock) -> Core:
        """Build an empty cache."""
        return Core(clock)

    @property
    def per_call(self) -> bool:
        """Whether a hit has to be told: then the short cut, which tells nobody, must not be taken."""
        return self.options.on_event is not None

    def _changed(self, changes: dict[str, Any]) -> CacheOptions:
        options = super()._changed(changes)
        if options.rules != self.options.rules:
            for bound in self.bounds:
                bound.at(self.core, options.rules)  # refuses rules that its function cannot have
        if options.store is not None and options.store is not self.options.store:
            for bound in self.bounds:
                bound.tier(Terms(options))  # refuses what has no name in a store, before anything has changed
        return options

    def reconfigured(self) -> None:
        """Find the places anew: other key rules make other places."""
        for bound in self.bounds:
            bound.resolve()

    # --- the whole cache ---

    def clear(self) -> Any:
        """Forget everything. What is being computed now is given to those who wait and not stored.

        With a store it has to be awaited; other processes keep what they have in memory.
        """
        core = self.core_here()

        def here() -> None:
            held = core.let_go()
            for store in core.stores():
                store.clear(held)

        return self._everywhere(here, lambda tier: tier.clear())

    def invalidate_tag(self, tag: str) -> Any:
        """Forget what carries a tag, also what is being computed for it; return how many values in memory that were.

        With a store it has to be awaited; other processes keep what they have in memory.
        """
        core = self.core_here()

        def here() -> int:
            held = core.let_go(tag)
            return sum(len(store.remove_tag(tag, held).gone) for store in core.stores())

        return self._everywhere(here, lambda tier: tier.forget_tag(tag))

    def _everywhere(self, here: Callable[[], Any], there: Callable[[Tier], Coroutine[Any, Any, None]]) -> Any:
        """Forget in memory, and in the store if there is one: then the answer has to be awaited."""
        answer, store = here(), self.live().store
        if store is None:
            return answer
        from asyncguard.strategies._cache import store_handles

        tiers = [each for each in self.stored.values() if each.store is store]
        return store_handles.everywhere(tiers, here, there, answer)

    def trim(self, fraction: float) -> int:
        """Give up a fraction (0..1) of the values, those least worth keeping; return how many those were."""
        checks.fraction("fraction", fraction)
        core = self.core_here()
        return sum(len(store.trim(fraction, core.now()).gone) for store in core.stores())

    def info(self) -> CacheInfo:
        """Return what the cache holds and how often it answered."""
        core = self.core_here()
        cells, stores = core.cells(), core.stores()
        return CacheInfo(
            entries=sum(len(store) for store in stores),
            nbytes=sum(store.nbytes for store in stores),
            hits=sum(cell.hits for cell in cells),
            misses=sum(cell.misses for cell in cells),
            joined=sum(cell.joined for cell in cells),
            in_flight=sum(len(cell.flights.table) for cell in cells),
        )

    def describe(self) -> list[str]:
        """Say how full the cache is and how often it answers."""
        info = self.info()
        asked = info.hits + info.misses + info.joined
        rate = f", {100 * info.hits / asked:.0f} % of {asked} calls were hits" if asked else ""
        flying = f", {info.in_flight} being computed" if info.in_flight else ""
        store = self.options.store
        stored = "" if store is None else f", store {store.namespace} {store.describe()}"
        return [f"{info.entries} of {self.options.max_entries} entries{rate}{flying}{stored}"]

    # --- one function ---

    def of(self, fn: Callable[..., Any]) -> CachedFunction:
        """Return the handle to one of the functions that this cache serves."""
        record = record_of(fn)
        if record is None:
            return self._called_through(fn)
        for bound in self.bounds:
            if bound.site is record.site:
                return self.handle(bound, (fn.__self__,) if isinstance(fn, MethodType) else ())
        raise TypeError(f"{colour.name_of(fn)} is not guarded by this {self.kind}")

    def _called_through(self, fn: Callable[..., Any]) -> CachedFunction:
        """Return the handle to a function that is called through a pipeline: `pipeline.call(fn, ...)`."""
        if not self.core_here().knows(unbound(fn)[0]):
            raise TypeError(f"{colour.name_of(fn)} is not guarded by this {self.kind}, nor was it called through it")
        is_async = colour.kind_of(fn) == "async"
        return self.handle(Bound(self, fn, Site(Pipeline(self), fn), is_async=is_async), ())

    def in_pipeline(self, pipeline: Pipeline[Any]) -> CacheStrategy:
        """Return what `pipeline[CacheResult]` is: this cache, its `get`, `invalidate`, `refresh` for that pipeline."""
        if all(bound.site.pipeline is pipeline for bound in self.bounds):
            return self
        view = object.__new__(type(self))
        view.__dict__ = self.__dict__  # one state: only what has a slot differs
        view._chosen = pipeline
        return view

    def _only(self) -> CachedFunction:
        chosen = self._chosen
        found = {id(b.function): b for b in self.bounds if chosen is None or b.site.pipeline is chosen}
        if len(found) != 1:
            names = ", ".join(sorted(bound.name for bound in found.values())) or "none"
            raise TypeError(f"this {self.kind} serves {len(found)} functions ({names}): say which one, with .of(fn)")
        return self.handle(next(iter(found.values())), ())

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cache has for a call (a `Cached`), None if nothing; nothing is computed.

        To be awaited if there is a store.
        """
        return self._only().get(*args, **kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the value of a call; true if there was one. What is being computed for it now is not stored.

        To be awaited if there is a store.
        """
        return self._only().invalidate(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the value of a call anew and store it; to be awaited for an async function."""
        return self._only().refresh(*args, **kwargs)

    # --- life cycle ---

    def remember(self, work: Work) -> None:
        """Keep track of work in the background, for `aclose`."""
        self._running.add(work)

    async def aclose(self) -> None:
        """Cancel the refreshes that run in the background and wait for their end."""
        for work in list(self._running):
            await flights.stop(work)
        for store in {id(tier.store): tier.store for tier in self.stored.values()}.values():
            if not clocks.in_trio():
                await store.aclose()
        await self.core_here().background.aclose()

    def after_fork(self) -> None:
        """Forget what is in flight in the parent."""
        super().after_fork()
        self._running = weakref.WeakSet()
