"""`fallback`: another answer when everything inside has failed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from asyncguard._machines import checks
from asyncguard._machines.checks import On
from asyncguard._modes import Mode
from asyncguard._strategy import Options, Strategy
from asyncguard.events import Event, FallbackUsed
from asyncguard.strategies._answers import answer_async, answer_sync, refuse_async_handlers

if TYPE_CHECKING:
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock

    Call = Callable[..., Any]

__all__ = ["Fallback", "FallbackOptions", "fallback"]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions(Options):
    """The options of `fallback`: the answers in the order in which they are tried, and the errors they answer."""

    answers: tuple[Any, ...]
    on: On = Exception

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        if not self.answers:
            raise checks.fail("fallback", self.answers, "given at least one value or handler")
        self.set("on", checks.errors("on", self.on))

    def cover(self, error: Exception) -> bool:
        """Return whether `on` names this error."""
        return checks.covers(cast("checks.Errors", self.on), error)


class Fallback(Strategy[FallbackOptions, None], Generic[D]):
    """Another answer, of type `D`, when the call fails. Rejections are failures too; a cancellation is not."""

    kind: ClassVar[str] = "fallback"
    fitted: ClassVar[frozenset[str]] = frozenset({"answers"})

    def new_core(self, clock: Clock) -> None:
        """Keep no state."""

    @overload  # type: ignore[override]
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T | D]]: ...
    @overload
    def __call__(self, fn: Callable[P, T]) -> Callable[P, T | D]: ...
    def __call__(self, fn: Any) -> Any:
        """Return `fn` guarded by this strategy; its result type is wider by that of the fallback."""
        return super().__call__(fn)

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Return the driver around a coroutine function."""
        strategy = self

        async def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                return await fn(*args, **kwargs)
            except Exception as error:
                answers = strategy.answers_to(site, error)
                if not answers:
                    raise
                return await strategy.first_async(site, answers, error, args, kwargs)

        return answered

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Return the driver around a plain function."""
        strategy = self

        def answered(*args: Any, **kwargs: Any) -> Any:
            try:
                return fn(*args, **kwargs)
            except Exception as error:
                answers = strategy.answers_to(site, error)
                if not answers:
                    raise
                return strategy.first_sync(site, answers, error, args, kwargs)

        return answered

    def fits(self, options: FallbackOptions, site: Site) -> None:
        """Refuse handlers that a sync function could not await."""
        if site.kind == "sync":
            refuse_async_handlers(options.answers, site.name, "fallback")

    def answers_to(self, site: Site, error: Exception) -> tuple[Any, ...]:
        """Return the answers to try; none if the error has to leave. In mode observe only tell of it."""
        options = self.live()
        mode = self.mode_at(site) if self.special else "enforce"
        if mode == "off" or not options.cover(error):
            return ()
        if mode == "observe":
            self.told(site, 1, error)
            return ()
        return options.answers

    async def first_async(
        self, site: Site, answers: tuple[Any, ...], error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the first answer that does not fail itself."""
        for position, answer in enumerate(answers[:-1], 1):
            try:
                result = await answer_async(answer, error, args, kwargs)
            except Exception:  # noqa: BLE001, S112 - the next one is tried; the last one may raise
                continue
            self.told(site, position, error)
            return result
        result = await answer_async(answers[-1], error, args, kwargs)
        self.told(site, len(answers), error)
        return result

    def first_sync(
        self, site: Site, answers: tuple[Any, ...], error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Do the same for a sync function."""
        for position, answer in enumerate(answers[:-1], 1):
            try:
                result = answer_sync(answer, error, args, kwargs)
            except Exception:  # noqa: BLE001, S112 - the next one is tried; the last one may raise
                continue
            self.told(site, position, error)
            return result
        result = answer_sync(answers[-1], error, args, kwargs)
        self.told(site, len(answers), error)
        return result

    def told(self, site: Site, position: int, error: Exception) -> None:
        """Emit the event."""
        self.emit(site, FallbackUsed(**self.facts(site), position=position, error=error))


@overload
def fallback(
    handler: Callable[..., Coroutine[Any, Any, D]],
    /,
    *,
    on: On = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Fallback[D]: ...
@overload
def fallback(
    handler: Callable[..., D],
    /,
    *,
    on: On = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Fallback[D]: ...
@overload
def fallback(
    value: D,
    /,
    *,
    on: On = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Fallback[D]: ...
@overload
def fallback(
    value_or_handler: Any,
    /,
    *more: Any,
    on: On = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Fallback[Any]: ...
def fallback(
    value_or_handler: Any,
    /,
    *more: Any,
    on: On = Exception,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
    """Answer with something else when the call fails.

    `value_or_handler` and `more` are tried in turn: a value is returned as it is (always the same object), a handler,
    sync or async, is called with `(error, *args, **kwargs)`. The first that does not fail is the result; the failure
    of the last is raised from the original error. `on`: which errors, as a class, a tuple or a predicate.

    Rejections (open circuit, full queue) are answered too; cancellation and interrupts never. The result counts as
    degraded in telemetry. Generators are refused at decoration: items that were yielded cannot be taken back.
    """
    options = FallbackOptions(answers=(value_or_handler, *more), on=on, name=name, mode=mode, on_event=on_event)
    return Fallback[Any](options)
