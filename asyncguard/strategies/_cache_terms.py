"""What follows from the options of a cache, worked out once and not at every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncguard._machines.entries import Lifetime
    from asyncguard.strategies._cache_core import Args, Kwargs
    from asyncguard.strategies._cache_options import CacheOptions


class Terms:
    """The options, and of those that are the same for all calls what they come to.

    `kept`: the work goes on when nobody waits for it any more.
    """

    __slots__ = ("_life", "_tags", "bounds", "isolation", "kept", "max_bytes", "options", "store")

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        self.bounds = options.bounds
        self.max_bytes = options.max_bytes
        self.store = options.store
        self.isolation = options.isolation
        self.kept = options.on_abandon == "finish"
        self._tags = None if callable(options.tags) else options.tags_of((), {})
        asks = callable(options.ttl) or options.cache_if is not None or options.negative_ttl is not None
        self._life = None if asks else options.lifetime(None)

    def lifetime(self, value: Any) -> Lifetime | None:
        """Return how long a value lives, None if it is not to be stored."""
        return self.options.lifetime(value) if self._life is None else self._life

    def tags_of(self, args: Args, kwargs: Kwargs) -> tuple[str, ...]:
        """Return the tags of a call."""
        return self.options.tags_of(args, kwargs) if self._tags is None else self._tags
