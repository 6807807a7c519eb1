"""The options of cache_result and cache_items, checked when a cache is made, and what follows from them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from asyncguard._machines import checks
from asyncguard._machines.entries import Lifetime
from asyncguard._machines.store import Bounds
from asyncguard._strategy import Options

if TYPE_CHECKING:
    from asyncguard.stores import AiocacheStore

Duration: TypeAlias = float | timedelta
Ttl: TypeAlias = Duration | Callable[[Any], Duration | None]
Key: TypeAlias = Callable[..., Any]
Tags: TypeAlias = str | Iterable[str] | Callable[..., Iterable[str]]
Isolation: TypeAlias = Literal["auto", "share", "copy"]
OnAbandon: TypeAlias = Literal["cancel", "finish"]


class KeyRules(NamedTuple):
    """What makes up the keys; entries made under other rules are never looked at."""

    key: Key | None
    ignore: tuple[str, ...]
    vary_on: tuple[ContextVar[Any], ...]
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions(Options):
    """Durations are seconds after the check, also where a `timedelta` was given."""

    ttl: Ttl
    max_entries: int = 1024
    key: Key | None = None
    stale_while_revalidate: Duration = 0
    stale_if_error: Duration = 0
    max_bytes: int | None = None
    negative_ttl: Duration | None = None
    cache_if: Callable[[Any], object] | None = None
    refresh_at: float | None = None
    ignore: str | Iterable[str] = ()
    vary_on: ContextVar[Any] | Iterable[ContextVar[Any]] = ()
    version: str | None = None
    tags: Tags = ()
    isolation: Isolation = "auto"
    on_abandon: OnAbandon = "cancel"
    store: AiocacheStore | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self._check_durations()
        self._check_bounds()
        self._check_keys()
        self._check_rest()

    @property
    def rules(self) -> KeyRules:
        """What makes up the keys."""
        return KeyRules(self.key, _as_tuple(self.ignore), _as_tuple(self.vary_on), self.version)

    @property
    def bounds(self) -> Bounds:
        """How much may be held."""
        return Bounds(self.max_entries, self.max_bytes)

    def lifetime(self, value: Any) -> Lifetime | None:
        """Return how long a value lives, None if it is not to be stored."""
        if self.cache_if is not None and not self.cache_if(value):
            return None
        ttl = self._ttl_of(value)
        if ttl is None or ttl <= 0:
            return None
        refresh_at = 1.0 if self.refresh_at is None else self.refresh_at
        return Lifetime(ttl, cast("float", self.stale_while_revalidate), cast("float", self.stale_if_error), refresh_at)

    def _ttl_of(self, value: Any) -> float | None:
        if self.negative_ttl is not None and is_negative(value):
            return cast("float", self.negative_ttl)
        if not callable(self.ttl):
            return cast("float", self.ttl)
        ttl = self.ttl(value)
        return None if ttl is None else checks.duration("the result of ttl", ttl, least=-math.inf)

    def tags_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags of a call."""
        return _tags_given(self.tags(*args, **kwargs)) if callable(self.tags) else _as_tuple(self.tags)

    def _check_durations(self) -> None:
        if callable(self.ttl):
            _check_ttl(self.ttl, "cache_items" if isinstance(self, CacheItemsOptions) else "cache_result")
        else:
            if self.ttl is None:  # pyright: ignore[reportUnnecessaryComparison]
                raise checks.wrong_type("ttl", self.ttl, "a duration or a function of the result; a cache has an end")
            self.set("ttl", checks.duration("ttl", self.ttl, above=0.0))
        for option in ("stale_while_revalidate", "stale_if_error", "negative_ttl"):
            value = getattr(self, option)
            if value is not None:
                self.set(option, checks.duration(option, value))

    def _check_bounds(self) -> None:
        checks.integer("max_entries", self.max_entries, least=1)
        if self.max_bytes is not None:
            checks.integer("max_bytes", self.max_bytes, least=1)
        if self.refresh_at is not None:
            checks.fraction("refresh_at", self.refresh_at, above=0.0)

    def _check_keys(self) -> None:
        for option in ("key", "cache_if"):
            if getattr(self, option) is not None:
                checks.function(option, getattr(self, option))
        self.set("ignore", _names("ignore", self.ignore))
        given: Any = self.vary_on
        one = isinstance(given, ContextVar)
        variables: Any = (given,) if one else given
        if not _all_are(ContextVar, variables, (tuple, list)):
            raise checks.wrong_type("vary_on", given, "a ContextVar or a tuple of them")
        self.set("vary_on", tuple(variables))
        version: Any = self.version
        if version is not None and not isinstance(version, str):
            raise checks.wrong_type("version", self.version, "a string")

    def _check_rest(self) -> None:
        if callable(self.tags):
            checks.plain("tags", self.tags)
        else:
            self.set("tags", _names("tags", self.tags))
        checks.one_of("isolation", self.isolation, ("auto", "share", "copy"))
        checks.one_of("on_abandon", self.on_abandon, ("cancel", "finish"))
        if self.store is not None:
            _check_store(self.store)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheItemsOptions(CacheOptions):
    """The options of cache_items; `key` and a callable `tags` are functions of one item there."""

    over: str
    max_batch: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        CacheOptions.__post_init__(self)
        over: Any = self.over
        if not isinstance(over, str) or not over:
            raise checks.wrong_type("over", over, "the name of the parameter that holds the items")
        if self.max_batch is not None:
            checks.integer("max_batch", self.max_batch, least=1)

    @property
    def rules(self) -> KeyRules:
        """What makes up the keys: the items are no part of what their keys have in common."""
        return KeyRules(self.key, (*_as_tuple(self.ignore), self.over), _as_tuple(self.vary_on), self.version)


class Terms:
    """The options, and what those come to that are the same for all calls, worked out once and not at every call.

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

    def tags_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags of a call."""
        return self.options.tags_of(args, kwargs) if self._tags is None else self._tags


def _check_ttl(ttl: Callable[[Any], object], decorator: str) -> None:
    """Refuse a coroutine function: most likely the one to be cached, under a decorator without its parentheses."""
    if inspect.iscoroutinefunction(ttl):
        expected = f"a duration, or a plain function of the result (write @{decorator}(60), with parentheses)"
        raise checks.wrong_type("ttl", ttl, expected)
    checks.plain("ttl", ttl)


def _check_store(store: Any) -> None:
    from asyncguard.stores import AiocacheStore

    if not isinstance(store, AiocacheStore):
        expected = "an AiocacheStore"  # without what it prints itself, which may hold a password
        raise TypeError(
            f"store must be {expected} (AiocacheStore(backend, namespace=...)), got a {type(store).__qualname__}"
        )


def is_negative(value: Any) -> bool:
    """Tell whether a result says that there is nothing: None, or an empty container."""
    if value is None:
        return True
    try:
        return bool(len(value) == 0)
    except Exception:  # noqa: BLE001 - what has no length, or refuses to tell it, is not nothing
        return False


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _names(option: str, value: Any) -> tuple[str, ...]:
    names: Any = (value,) if isinstance(value, str) else value
    if not _all_are(str, names, (tuple, list, set, frozenset)):
        raise checks.wrong_type(option, value, "a name or a tuple of names")
    return tuple(names)


def _tags_given(value: Any) -> tuple[str, ...]:
    """Check what a function has returned: a tag that cannot be hashed would break the cache that holds it."""
    iterable = hasattr(value, "__iter__") and not isinstance(value, str)
    return _names("the result of tags", tuple(value) if iterable else value)


def _all_are(kind: Any, members: Any, containers: tuple[Any, ...]) -> bool:
    return isinstance(members, containers) and all(isinstance(each, kind) for each in members)
