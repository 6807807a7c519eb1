"""One guarded function in its cache: where its values are, and how it waits and tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.flight import Flight, Flights
from asyncguard._machines.store import Change
from asyncguard._runtime import dispatch, flights_sync, parking
from asyncguard._runtime.colour import name_of
from asyncguard.errors import CallTimeoutError
from asyncguard.strategies._cache.core import Cell, Core
from asyncguard.strategies._cache.options import KeyRules, Terms
from asyncguard.strategies._cache.place import Args, Place, own_parameter, unbound

if TYPE_CHECKING:
    from asyncguard._pipeline import Site
    from asyncguard.strategies._cache.store_tier import Tier
    from asyncguard.strategies._cache.strategy import CacheStrategy

_MOST_TIERS = 8  # a program that overrides key rules for every call must not fill the memory
_REPORTED = frozenset({"size", "bytes", "expired"})


class Bound:
    """One guarded function in its cache. It pickles without the cache, which is found again at the first call."""

    __slots__ = (
        "__weakref__", "fn", "function", "is_async", "name", "place", "prefix", "quick", "site", "strategy", "terms",
        "tiers",
    )  # fmt: skip

    def __init__(self, strategy: CacheStrategy, fn: Callable[..., Any], site: Site, *, is_async: bool) -> None:
        self.__setstate__((strategy, fn, site, is_async))
        self.resolve()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.strategy, self.fn, self.site, self.is_async

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.strategy, self.fn, self.site, self.is_async = state
        self.place: Place | None = None
        self.quick: Cell | None = None
        self.tiers: dict[Hashable, Tier] = {}

    def resolve(self) -> Place:
        """Find the place of the function in the cache, and whether the driver's short cut is right for it."""
        strategy = self.strategy
        self.terms = Terms(strategy.options)
        self.function, self.prefix = unbound(self.site.function)
        self.name = name_of(self.site.function)
        place = self.place = self.at(strategy.core, strategy.options.rules)
        short_cut = place.quick and not self.site.monitored and strategy.short_cut
        self.quick = place.cell if short_cut else None
        if self.terms.store is not None:
            self.tier(self.terms)  # refuses what has no name in a store
        strategy.serve(self)
        return place

    def tier(self, terms: Terms) -> Tier:
        """Return what the function has in the store."""
        store: Any = terms.store
        rules = terms.options.rules
        tier = self.tiers.get((store, rules))
        if tier is None:
            from asyncguard.strategies._cache.store_tier import Tier

            if len(self.tiers) >= _MOST_TIERS:
                self.tiers.clear()
            tier = self.tiers[store, rules] = Tier(self, self.at(self.strategy.core, rules), store, terms.options)
            self.strategy.stored[tier.name] = tier
        return tier

    def at(self, core: Core, rules: KeyRules) -> Place:
        """Return the place of the function in some state, under some rules."""
        own = own_parameter(self.function, self.prefix, rules)
        return core.place(self.function, self.name, rules, own)

    def forces(self) -> tuple[Core, Terms, Place]:
        """Return the state, the options and the place that are in force here."""
        strategy, place = self.strategy, self.place or self.resolve()
        terms = self.terms
        if not strategy.special:
            return strategy.core, terms, place
        core, options = strategy.core_here(), strategy.live()
        if options is not terms.options:
            terms = Terms(options)
        if core is not strategy.core or options is not strategy.options:
            place = self.at(core, options.rules)
        return core, terms, place

    def full(self, args: Args) -> Args:
        """Return the arguments with the object of a bound method in front."""
        return (*self.prefix, *args) if self.prefix else args

    # --- waiting of plain functions ---

    def wait(self, table: Flights, flights: Sequence[Flight], spot: parking.ThreadSpot) -> None:
        """Wait for other threads; raises CallTimeoutError when the deadline of the call comes first."""
        if not flights_sync.wait(table, flights, spot):
            raise CallTimeoutError(
                f"{self.name}: the deadline came while waiting for the thread that computes the value",
                strategy=self.strategy.name,
            )

    # --- telling ---

    def heard(self) -> bool:
        """Tell whether anybody listens (`Strategy.heard`, without its calls: every hit asks)."""
        return bool(dispatch.handlers) or self.site.monitored or self.strategy.options.on_event is not None

    def emit(self, event: type[events.Event], **facts: Any) -> None:
        """Tell what happened."""
        self.strategy.emit(self.site, event(**self.strategy.facts(self.site), **facts))

    def told(self, event: type[events.Event], **facts: Any) -> None:
        """Tell what happened, unless nobody listens."""
        if self.heard():
            self.emit(event, **facts)

    def told_items(self, event: type[events.Event], items: int) -> None:
        """Tell what became of some items, unless there are none or nobody listens."""
        if items:
            self.told(event, items=items)

    def report(self, change: Change, nbytes: int = 0) -> None:
        """Tell what a write did, to those who listen."""
        if change.stored:
            self.emit(events.CacheStored, nbytes=nbytes)
        for reason, count in Counter(reason for _, reason in change.gone).items():
            if reason in _REPORTED:
                self.emit(events.CacheEvicted, items=count, reason=reason)
