"""The handles to a cache: the whole of it, and one function of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

from asyncguard._machines import checks
from asyncguard._machines.binder import signature_of
from asyncguard._machines.flight import Work
from asyncguard._pipeline import Pipeline, Site, record_of
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import colour, flights, reclaim
from asyncguard._strategy import Transparent
from asyncguard.strategies import _cache_calls as calls
from asyncguard.strategies import _cache_core as cores
from asyncguard.strategies._cache_bound import Bound
from asyncguard.strategies._cache_calls import Call
from asyncguard.strategies._cache_core import Args, Core
from asyncguard.strategies._cache_options import CacheOptions
from asyncguard.strategies._cache_terms import Terms

if TYPE_CHECKING:
    from asyncguard._machines.entries import Entry
    from asyncguard._runtime.clock import Clock
    from asyncguard.strategies._cache_tier import Tier


@dataclass(frozen=True, slots=True)
class Cached:
    """A value found in the cache, its age in seconds, and whether it is past its time to live."""

    value: Any
    age: float
    stale: bool


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
    handle: ClassVar[type[CachedFunction]]  # what `of` returns

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
            held = list(cores.leases(core.cells()))
            for store in core.stores():
                store.clear(held)

        return self._everywhere(here, _cleared)

    def invalidate_tag(self, tag: str) -> Any:
        """Forget what carries a tag, also what is being computed for it; return how many values in memory that were.

        With a store it has to be awaited; other processes keep what they have in memory.
        """
        core = self.core_here()

        def here() -> int:
            held = list(cores.leases(core.cells(), tag))
            return sum(len(store.remove_tag(tag, held).gone) for store in core.stores())

        return self._everywhere(here, lambda tier: tier.forget_tag(tag))

    def _everywhere(self, here: Callable[[], Any], there: Callable[[Tier], Coroutine[Any, Any, None]]) -> Any:
        """Forget in memory, and in the store if there is one: then the answer has to be awaited."""
        answer, store = here(), self.live().store
        if store is None:
            return answer
        from asyncguard.strategies import _cache_stored

        tiers = [each for each in self.stored.values() if each.store is store]
        return _cache_stored.everywhere(tiers, here, there, answer)

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
        if not self.core_here().knows(cores.resolve(fn)[0]):
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


class CachedFunction:
    """The handle to one function of a cache."""

    def __init__(self, bound: Bound, prefix: Args) -> None:
        self._bound = bound
        self._prefix = prefix

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cache has for a call (a `Cached`), None if nothing; nothing is computed.

        To be awaited if there is a store.
        """
        call = self._call(args, kwargs)
        entry = call.cell.entries.get(call.key)
        found = None if entry is None else shown(entry, call.core.now())
        return found if call.terms.store is None else self._get_stored(call, found)

    async def _get_stored(self, call: Call, found: Cached | None) -> Cached | None:
        from asyncguard.strategies import _cache_stored

        entry = None if found is not None else await _cache_stored.entry_of(call)
        return found if entry is None else shown(entry, call.core.now())

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the value of a call; true if there was one. What is being computed for it now is not stored.

        To be awaited if there is a store.
        """
        call = self._call(args, kwargs)
        gone = cores.drop(call.cell, (call.key,))
        if call.terms.store is None:
            return gone
        from asyncguard.strategies import _cache_stored

        return _cache_stored.forget(call, there=gone)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the value of a call anew and store it; to be awaited for an async function."""
        call = self._call(args, kwargs)
        return calls.fetch(call) if self._bound.is_async else calls.fetch_sync(call)

    def _call(self, args: Args, kwargs: dict[str, Any]) -> Call:
        bound = self._bound
        core, terms, place = bound.forces()
        full = self._full(args, kwargs)
        return Call(bound, (*self._prefix, *args), kwargs, "anew").at(core, terms, *place.locate(full, kwargs))

    def _full(self, args: Args, kwargs: Mapping[str, Any]) -> Args:
        """Return all arguments, checked: for those that no call can have, "nothing is cached" would hide a mistake."""
        full = self._bound.full((*self._prefix, *args))
        signature = signature_of(self._bound.function)
        if signature is None:
            return full
        try:
            signature.bind(*full, **kwargs)
        except TypeError as error:
            message = f"{self._bound.name}: {error} (for a method its object comes first, or use .of(obj.method))"
            raise TypeError(message) from None
        return full


CacheStrategy.handle = CachedFunction


def shown(entry: Entry, now: float) -> Cached | None:
    """Return an entry as the handles show it, None if it is too old to answer."""
    return None if now >= entry.stale else Cached(entry.give(), now - entry.created, stale=now >= entry.fresh)


def _cleared(tier: Tier) -> Coroutine[Any, Any, None]:
    return tier.clear()
