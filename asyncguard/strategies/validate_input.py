"""`validate_input`: arguments (and with `returns=` the result) checked before the function runs.

All violations are named at once, with parameter, path, rule, expectation and place, never with the data itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, ParamSpec, TypeVar, overload

from asyncguard._machines.checks import wrong_type
from asyncguard._machines.rules import Array, Column, Columns, Keys
from asyncguard._machines.rules_base import Dims, Report, failure
from asyncguard._machines.rules_plan import Args, Kwargs, Plan
from asyncguard._modes import Mode
from asyncguard._runtime import dispatch
from asyncguard._strategy import Strategy, Transparent
from asyncguard.errors import InputValidationError
from asyncguard.events import Event, InputRejected
from asyncguard.strategies._answers import NOTHING, answer_async, answer_sync, refuse_async_handlers
from asyncguard.strategies._at_call import AsyncGeneratorAtCall, GeneratorAtCall
from asyncguard.strategies._input_checks import Checks, ValidateInputOptions, mapping, plan_for

if TYPE_CHECKING:
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock

    Call = Callable[..., Any]

__all__ = [
    "Array",
    "Column",
    "Columns",
    "Keys",
    "ValidateInput",
    "ValidateInputOptions",
    "ValidateInputOr",
    "validate_input",
]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
F = TypeVar("F", bound=Callable[..., object])


class ValidateInput(Strategy[ValidateInputOptions, None]):
    """Rules on the arguments and the result of a function."""

    kind: ClassVar[str] = "validate_input"
    fitted: ClassVar[frozenset[str]] = frozenset({"returns", "fallback"})

    def __init__(self, options: ValidateInputOptions) -> None:
        self.places: weakref.WeakSet[Checks] = weakref.WeakSet()
        super().__init__(options)

    def new_core(self, clock: Clock) -> None:
        """Keep no state."""

    def reconfigured(self) -> None:
        """Rebuild what runs at each place."""
        for checks in list(self.places):
            checks.use(self.options)

    def _set_special(self) -> None:
        super()._set_special()
        for checks in list(self.places):
            checks.expose()

    def _changed(self, changes: dict[str, Any]) -> ValidateInputOptions:
        options = super()._changed(changes)
        for checks in list(self.places):
            plan_for(checks.function, options)  # an unknown parameter raises before anything is changed
        return options

    # --- drivers ---

    def fits(self, options: ValidateInputOptions, site: Site) -> None:
        """Refuse a handler that a sync function could not await, and rules for the result of a generator."""
        if site.kind == "sync":
            refuse_async_handlers((options.fallback,), site.name, "fallback")
        items = site.kind in {"async generator", "generator"}
        if items and (options.returns is not NOTHING or options.fallback is not NOTHING):
            raise TypeError(f"validate_input on the generator {site.name} takes no returns= and no fallback=")

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Return the driver around a coroutine function."""
        strategy, checks = self, Checks(self, site.function)

        async def checked(*args: Any, **kwargs: Any) -> Any:
            passes = checks.passes
            if passes is not None and passes(args, kwargs, None):
                return await fn(*args, **kwargs)
            try:
                look = strategy.admit(site, checks, args, kwargs)
            except InputValidationError as error:
                if strategy.live().fallback is NOTHING:
                    raise
                return await answer_async(strategy.live().fallback, error, args, kwargs)
            result = await fn(*look.args, **look.kwargs)
            try:
                return strategy.release(site, look, result)
            except InputValidationError as error:
                if strategy.live().fallback is NOTHING:
                    raise
                return await answer_async(strategy.live().fallback, error, args, kwargs)

        return checked

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Return the driver around a plain function."""
        strategy, checks = self, Checks(self, site.function)

        def checked(*args: Any, **kwargs: Any) -> Any:
            passes = checks.passes
            if passes is not None and passes(args, kwargs, None):
                return fn(*args, **kwargs)
            try:
                look = strategy.admit(site, checks, args, kwargs)
            except InputValidationError as error:
                if strategy.live().fallback is NOTHING:
                    raise
                return answer_sync(strategy.live().fallback, error, args, kwargs)
            result = fn(*look.args, **look.kwargs)
            try:
                return strategy.release(site, look, result)
            except InputValidationError as error:
                if strategy.live().fallback is NOTHING:
                    raise
                return answer_sync(strategy.live().fallback, error, args, kwargs)

        return checked

    def wrap_async_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around an async generator function: the arguments are checked at the call."""
        return AsyncGeneratorAtCall(self._at_call(fn, site))

    def wrap_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around a generator function: the arguments are checked at the call."""
        return GeneratorAtCall(self._at_call(fn, site))

    def _at_call(self, fn: Call, site: Site) -> Call:
        strategy, checks = self, Checks(self, site.function)

        def checked(*args: Any, **kwargs: Any) -> Any:
            look = strategy.admit(site, checks, args, kwargs)
            return fn(*look.args, **look.kwargs)

        return checked

    # --- decisions ---

    def admit(self, site: Site, checks: Checks, args: Args, kwargs: Kwargs) -> Look:
        """Return what the function should receive; raises InputValidationError if it should not be called."""
        mode = self.mode_at(site) if self.special else "enforce"
        if mode == "off":
            return Look(None, args, kwargs, None, enforced=False)
        if mode == "observe":
            return self._observed(site, checks, args, kwargs)
        plan = checks.plan(self.live() if self.special else self.options)
        dims: Dims = {} if plan.binds else None
        if plan.passes is not None and plan.passes(args, kwargs, dims):
            return Look(plan, args, kwargs, dims, enforced=True)
        converted = plan.converts(args, kwargs, dims)
        if converted is not None:
            return Look(plan, *converted, dims, enforced=True)
        new_args, new_kwargs, report = plan.examine(args, kwargs)
        self.judge(site, report, mode)
        return Look(plan, new_args, new_kwargs, report.dims, enforced=True)

    def _observed(self, site: Site, checks: Checks, args: Args, kwargs: Kwargs) -> Look:
        """Tell of violations and pass the arguments on as they are, whatever the rules make of them."""
        try:
            plan = checks.plan(self.live())
            dims: Dims = {} if plan.binds else None
            if plan.passes is not None and plan.passes(args, kwargs, dims):
                return Look(plan, args, kwargs, dims, enforced=False)
            _, _, report = plan.examine(args, kwargs)
            self.judge(site, report, "observe")
        except Exception as error:  # noqa: BLE001 - observing never changes a call
            self._unobserved(site, error)
            return Look(None, args, kwargs, None, enforced=False)
        return Look(plan, args, kwargs, report.dims, enforced=False)

    def release(self, site: Site, look: Look, result: Any) -> Any:
        """Return the checked result; raises InputValidationError if it breaks `returns=`."""
        plan = look.plan
        if plan is None or plan.result is None:
            return result
        if look.enforced:
            return self._checked(site, plan, look, result)
        try:
            self._checked(site, plan, look, result)
        except Exception as error:  # noqa: BLE001 - observing never changes a call
            self._unobserved(site, error)
        return result

    def _checked(self, site: Site, plan: Plan, look: Look, result: Any) -> Any:
        passes = plan.result_passes
        if passes is not None and passes(result, dict(look.dims or {}) if plan.binds else None):
            return result
        new, report = plan.examine_result(result, look.dims)
        self.judge(site, report, "enforce" if look.enforced else "observe")
        return new

    def _unobserved(self, site: Site, error: Exception) -> None:
        dispatch.complain(self, error, "asyncguard: %s could not observe %s", self.name, site.name)

    def judge(self, site: Site, report: Report, mode: Mode) -> None:
        """Tell of violations; in mode enforce they are raised."""
        if not report.violations:
            return
        enforced = mode == "enforce"
        action = ("raise" if self.live().fallback is NOTHING else "fallback") if enforced else "observe"
        self.emit(site, InputRejected(**self.facts(site), rules=report.rules(), action=action))
        if enforced:
            raise failure(report, self.name)


class Look(NamedTuple):
    """What `admit` found: the arguments to call with, and what the result has to agree with."""

    plan: Plan | None
    args: Args
    kwargs: Kwargs
    dims: Dims
    enforced: bool


class ValidateInputOrRaise(ValidateInput, Transparent[ValidateInputOptions, None]):
    """`validate_input` without a fallback: the guarded function returns what it returned before."""


class ValidateInputOr(ValidateInput, Generic[D]):
    """`validate_input` with a fallback of type `D`: the guarded function may return that as well."""

    @overload  # type: ignore[override]
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T | D]]: ...
    @overload
    def __call__(self, fn: Callable[P, T]) -> Callable[P, T | D]: ...
    def __call__(self, fn: Any) -> Any:
        """Return `fn` guarded by this strategy; its result type is wider by that of the fallback."""
        return super().__call__(fn)


@overload
def validate_input(fn: F, /) -> F: ...
@overload
def validate_input(  # pyright: ignore[reportOverlappingOverload] # `fallback` is no parameter to be checked
    rules: Mapping[str, Any] = ...,
    /,
    *,
    fallback: Callable[..., Coroutine[Any, Any, D]],
    returns: Any = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
    **parameters: Any,
) -> ValidateInputOr[D]: ...
@overload
def validate_input(
    rules: Mapping[str, Any] = ...,
    /,
    *,
    fallback: Callable[..., D],
    returns: Any = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
    **parameters: Any,
) -> ValidateInputOr[D]: ...
@overload
def validate_input(
    rules: Mapping[str, Any] = ...,
    /,
    *,
    fallback: D,
    returns: Any = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
    **parameters: Any,
) -> ValidateInputOr[D]: ...
@overload
def validate_input(
    rules: Mapping[str, Any] = ...,
    /,
    *,
    returns: Any = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
    **parameters: Any,
) -> ValidateInputOrRaise: ...
def validate_input(
    rules: Any = None,
    /,
    *,
    fallback: Any = NOTHING,
    returns: Any = NOTHING,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
    **parameters: Any,
) -> Any:
    """Check the arguments of a function before it runs.

    `@validate_input(x=Array(("batch", 768), "float32", finite=True), meta=Keys("user_id"))` gives rules by parameter,
    `@validate_input({"name": ...})` for parameters that are called like an option, and `@validate_input` alone takes
    them from the type hints. A rule is an `Array`, `Keys` or `Columns`, a type or pydantic model (converted values are
    passed on), a constraint of annotated_types, an object with `.validate`, a sync function, or a tuple of them.

    `fallback`: a value, or a sync or async function of `(error, *args, **kwargs)`, that answers instead of raising.
    `returns`: the rule of the result. `mode="observe"` reports and changes nothing.

    Raises InputValidationError (a ValueError) with every violation; the data itself is never in it. At decoration:
    TypeError for a parameter that the function does not have or something that is no rule.
    """
    if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise wrong_type("name", name, 'a string; the rule of a parameter "name" goes into {"name": rule}')
    if rules is not None and not isinstance(rules, Mapping) and not parameters and fallback is returns is NOTHING:
        return ValidateInputOrRaise(ValidateInputOptions(name=name, mode=mode, on_event=on_event))(rules)
    given: dict[str, Any] = {**({} if rules is None else mapping("rules", rules)), **parameters}
    options = ValidateInputOptions(
        rules=given, returns=returns, fallback=fallback, name=name, mode=mode, on_event=on_event
    )
    return ValidateInputOrRaise(options) if fallback is NOTHING else ValidateInputOr[Any](options)
