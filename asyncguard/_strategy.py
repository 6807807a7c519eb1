"""Floor 2: what every strategy is: immutable options, a small core of state, and drivers that wrap a function."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import weakref
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from asyncguard._machines import checks
from asyncguard._modes import FORCED, MODES, Mode, forced_mode
from asyncguard._order import PLACES
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import dispatch, forks, notices, record
from asyncguard._runtime.blocks import block
from asyncguard._runtime.contexts import bring_back

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncguard._pipeline import Pipeline, Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind
    from asyncguard.events import Event

    Call = Callable[..., Any]

# Why a driver must leave its fast path: bits of `Strategy.special`.
MODE, OVERRIDE, VIRTUAL, PER_CALL = 1, 2, 4, 8

_all: weakref.WeakSet[Strategy[Any, Any]] = weakref.WeakSet()
_overrides: ContextVar[dict[Strategy[Any, Any], _Override] | None] = ContextVar("asyncguard_overrides", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that every strategy has; those of each strategy derive from it and are checked when built."""

    name: str | None = None
    mode: Mode = "enforce"
    on_event: Callable[[Event], object] | None = None

    def __post_init__(self) -> None:
        """Check the options; subclasses extend it."""
        checks.one_of("mode", self.mode, MODES)
        if self.name is not None and (not isinstance(self.name, str) or not self.name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise checks.wrong_type("name", self.name, "a non-empty string")
        if self.on_event is not None:
            checks.function("on_event", self.on_event)

    def set(self, option: str, value: object) -> None:
        """Replace an option by its normalised form, from `__post_init__` only."""
        object.__setattr__(self, option, value)


class _Override:
    """The options of one `override` block, as long as it is open: a task started inside may outlive it."""

    __slots__ = ("open", "options", "outer")

    def __init__(self, options: Options, outer: _Override | None) -> None:
        self.open = True
        self.options = options
        self.outer = outer


OptionsT = TypeVar("OptionsT", bound=Options)
CoreT = TypeVar("CoreT")
F = TypeVar("F", bound="Callable[..., object]")
T = TypeVar("T")


class Strategy(Generic[OptionsT, CoreT]):
    """One concern around a function. The object is the decorator and the handle to its state.

    Sharing the object shares the state. It pickles as its options; the state stays behind.
    """

    kind: ClassVar[str]
    joins: ClassVar[bool] = False  # neighbours of the same family share one driver
    monitors: ClassVar[bool] = False
    shared: ClassVar[frozenset[str]] = frozenset()  # options of the state that all calls share: no block has its own
    fixed: ClassVar[dict[str, str]] = {}  # options that nothing can change any more, and why
    fitted: ClassVar[frozenset[str]] = frozenset()  # options that `fits` looks at

    def __init__(self, options: OptionsT) -> None:
        self.options = options
        self.name = options.name or self.kind
        self.special = 0
        self._lock = threading.Lock()
        self._special_lock = threading.RLock()
        self._overridden = 0
        self.core = self.new_core(clocks.REAL)
        _all.add(self)
        self.reconsider()

    # --- what a subclass says about itself ---

    @property
    def role(self) -> str:
        """The kind by which it is ordered."""
        return self.kind

    @property
    def place(self) -> int:
        """The position in the canonical order, outermost smallest."""
        return PLACES[self.role][0]

    @property
    def reason(self) -> str:
        """Why it has that place, in a sentence."""
        return PLACES[self.role][1]

    @property
    def holds(self) -> bool:
        """Whether work may go on after the call has returned, so that the permits around it must be held."""
        return False

    @property
    def per_call(self) -> bool:
        """Whether something (a partition, a weight) has to be computed from the arguments of each call."""
        return False

    def new_core(self, clock: Clock) -> CoreT:
        """Build the state: once for the real clock and once for each virtual clock."""
        raise NotImplementedError

    def reconfigured(self) -> None:
        """Bring the state in line with new options; subclasses with state extend it."""

    # --- drivers ---

    def wrap_block(self, block: list[Strategy[Any, Any]], fn: Call, kind: Kind, site: Site) -> Call:
        """Wrap `fn` in the driver of this strategy (a block of one, unless the family shares drivers)."""
        del block
        self.fits(self.options, site)
        if kind == "async":
            return self.wrap_async(fn, site)
        if kind == "sync":
            return self.wrap_sync(fn, site)
        return self.wrap_async_generator(fn, site) if kind == "async generator" else self.wrap_generator(fn, site)

    def fits(self, options: OptionsT, site: Site) -> None:
        """Raise TypeError if a function cannot have these options; asked at decoration and before they change."""

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Return the driver around a coroutine function."""
        raise NotImplementedError

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Return the driver around a plain function."""
        raise NotImplementedError

    def wrap_async_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around an async generator function; refused unless the strategy can be right about it."""
        del fn
        raise self.refuse(site, "an async generator")

    def wrap_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around a generator function; refused unless the strategy can be right about it."""
        del fn
        raise self.refuse(site, "a generator")

    def refuse(self, site: Site, what: str) -> TypeError:
        """Return the error for a kind of function that this strategy cannot be right about."""
        return TypeError(
            f"{self.kind} cannot guard {site.name}: it is {what} function, and {self.kind} is about one result; "
            "guard the function that is called for each item, or collect the items into a list"
        )

    def __call__(self, fn: F) -> F:
        """Return `fn` guarded by this strategy, outside of the strategies it may already have."""
        from asyncguard._pipeline import Pipeline

        return cast("F", Pipeline(self)(fn))

    # --- state, options and modes ---

    def core_here(self) -> CoreT:
        """Return the state: the real one, or that of the virtual clock in force here."""
        clock = clocks.current()
        if clock is clocks.REAL:
            return self.core
        with self._lock:
            core: CoreT | None = clock.cores.get(self)
            if core is None:
                core = clock.cores[self] = self.new_core(clock)
            return core

    def live(self) -> OptionsT:
        """Return the options in force here: the strategy's own, or what `override` put in their place."""
        if self._overridden:
            override = (_overrides.get() or {}).get(self)
            while override is not None and not override.open:
                override = override.outer
            if override is not None:
                return cast("OptionsT", override.options)
        return self.options

    def mode_at(self, site: Site) -> Mode:
        """Return the mode in force at a place: ASYNCGUARD_MODE wins over the option."""
        return forced_mode(site.name, self.name, self.kind) or self.live().mode

    def configure(self, **changes: Any) -> None:
        """Change options in place, state kept. Calls in flight finish as they began.

        An invalid change changes nothing.

        Raises TypeError for an option that is unknown, or built in, or not for the functions that are guarded already,
        and ValueError for a value out of range.
        """
        while not self._put_in_force(changes):
            """Another thread has changed something meanwhile: of two changes at once none may undo the other."""

    def _put_in_force(self, changes: dict[str, Any]) -> bool:
        before = self.options
        options = self._changed(changes)  # outside of the lock: checks may show a value of the user, in an error
        with self._special_lock:
            if self.options is not before:
                return False
            self.options = options
            self.reconfigured()
            if clocks.current() is not clocks.REAL:
                Context().run(self.reconfigured)  # the state on the real clock, too
            self.reconsider()
        return True

    @block
    def override(self, **changes: Any) -> Generator[None]:
        """Use other options within the block, in this context and what is started from it, until the block ends."""
        for option in changes:
            if option in self.shared or option == "on_event":
                raise TypeError(f"{option} is the same for all calls, it cannot be overridden for a block of them")
        options = self._changed(changes)
        with self._lock:
            self._overridden += 1
        self.reconsider()
        inside = _overrides.get() or {}
        override = _Override(options, inside.get(self))
        token = _overrides.set({**inside, self: override})
        try:
            yield
        finally:
            override.open = False
            bring_back(_overrides, token)
            with self._lock:
                self._overridden -= 1
            self.reconsider()

    def _changed(self, changes: dict[str, Any]) -> OptionsT:
        self._check_known(changes)
        now = self.options
        options = dataclasses.replace(now, **changes)
        for option in changes:
            if option in self.fixed and getattr(options, option) != getattr(now, option):
                raise TypeError(f"{option} of {self.kind} cannot be changed: {self.fixed[option]}")
        if not self.fitted.isdisjoint(changes):
            for site in self.sites():
                self.fits(options, site)
        return options

    def _check_known(self, changes: dict[str, Any]) -> None:
        known = {field.name for field in dataclasses.fields(self.options)} - {"name"}
        for option in changes:
            if option not in known:
                has = ", ".join(sorted(known))
                raise TypeError(f"{self.kind} has no option {option!r} that can be changed; it has: {has}")

    def sites(self) -> list[Site]:
        """Return the functions that it guards."""
        from asyncguard._pipeline import sites_of

        return sites_of(self)

    def _set_special(self) -> None:
        self.special = (
            (MODE if self.options.mode != "enforce" or FORCED else 0)
            | (OVERRIDE if self._overridden else 0)
            | (VIRTUAL if clocks.virtual_active() else 0)
            | (PER_CALL if self.per_call else 0)
        )

    def reconsider(self) -> None:
        """Find out anew whether anything unusual is in force."""
        with self._special_lock:
            self._set_special()

    # --- telling what happened ---

    def heard(self, site: Site) -> bool:
        """Tell whether anybody listens, before an event is built on a hot path."""
        return bool(dispatch.handlers) or site.monitored or self.options.on_event is not None

    def facts(self, site: Site, partition: str = "") -> dict[str, Any]:
        """Return the fields that every event has, for `emit(site, Something(**facts, ...))`; `partition` in words."""
        return {
            "pipeline": site.name,
            "strategy": self.name,
            "partition": partition,
            "observed": self.mode_at(site) == "observe",
        }

    def emit(self, site: Site, event: Event) -> None:
        """Give an event to the hook, the subscribers, the record of the monitored call and the logger."""
        if self.options.on_event is not None:
            dispatch.deliver(event, self.options.on_event)
        for handler in dispatch.handlers:
            dispatch.deliver(event, handler)
        current = record.current()
        if current is not None and current.pipeline is site.pipeline:
            dispatch.deliver(event, current.add)
        dispatch.deliver(event, notices.notice)

    def in_pipeline(self, pipeline: Pipeline[Any]) -> Strategy[Any, Any]:
        """Return the handle that `pipeline[Class]` gives: the strategy, unless it has one for each function."""
        del pipeline
        return self

    def describe(self) -> list[str]:
        """Say what the strategy does now, one short phrase per fact, for `status()`."""
        return []

    # --- life cycle ---

    async def aclose(self) -> None:
        """End what runs beside calls; strategies that have something extend it."""

    def after_fork(self) -> None:
        """In a forked child: a new lock here and in the state, which forgets waiters and calls in flight."""
        self._lock, self._special_lock = threading.Lock(), threading.RLock()
        renew = getattr(self.core, "after_fork", None)
        if renew is not None:
            renew()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.options,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Transparent(Strategy[OptionsT, CoreT]):
    """A strategy whose function keeps its type; one that may answer with something else (fallback) is none."""


def everything(found: weakref.WeakSet[T]) -> list[T]:
    """Return what is in a weak set; another thread that adds to it meanwhile stops the iteration, so we begin anew."""
    while True:
        with contextlib.suppress(RuntimeError):
            return list(found)


def strategies() -> list[Strategy[Any, Any]]:
    """Return every strategy there is."""
    return everything(_all)


def _refresh_special() -> None:
    for strategy in strategies():
        strategy.reconsider()


def _renew_after_fork() -> None:
    for strategy in strategies():
        strategy.after_fork()


clocks.watch(_refresh_special)
forks.in_child(_renew_after_fork)
