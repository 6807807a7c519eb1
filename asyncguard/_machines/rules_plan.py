"""Which rule looks at which argument of a function: positions are resolved once, at decoration.

`inspect.Signature.bind` on every call costs ten times a check of shape and dtype.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from asyncguard._machines.rules_base import Dims, Location, Passes, Report, Rule, Test

__all__ = ["Args", "Kwargs", "Passes", "Plan", "parameters_of", "short_name"]

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Converts = Callable[[Args, Kwargs, Dims], tuple[Args, Kwargs] | None]
MISSING = object()


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an argument is found: its position (-1: by keyword only) and its name ("" if positional only)."""

    position: int
    keyword: str
    kind: Any

    def get(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the argument, or MISSING: a default is the function's own and is not checked."""
        if self.kind is Parameter.VAR_POSITIONAL:
            return args[self.position :]
        if 0 <= self.position < len(args):
            return args[self.position]
        return kwargs.get(self.keyword, MISSING) if self.keyword else MISSING

    def put(self, args: Args, kwargs: Kwargs, value: Any) -> tuple[Args, Kwargs]:
        """Return the arguments with this one replaced."""
        if self.kind is Parameter.VAR_POSITIONAL:
            return (*args[: self.position], *value), kwargs
        if 0 <= self.position < len(args):
            return (*args[: self.position], value, *args[self.position + 1 :]), kwargs
        return args, {**kwargs, self.keyword: value}


def parameters_of(fn: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters of `fn`; TypeError if it hides them (some builtins)."""
    try:
        return dict(inspect.signature(fn).parameters)
    except ValueError:
        raise TypeError(
            f"{short_name(fn)} has no signature, so its arguments cannot be checked; wrap it in a function"
        ) from None


def short_name(fn: Callable[..., Any]) -> str:
    """Return the name of `fn` for messages: `Service.embed`."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rpartition("<locals>.")[2]


class Plan:
    """The rules of one function, ready to run.

    `passes(args, kwargs, dims)` is the happy path where no rule converts, else None. `converts` is the happy path where
    one does: it returns the new arguments, or None if they have to be examined. `binds` says whether named dimensions
    have to agree, so that each call needs a dict for them.
    """

    __slots__ = ("binds", "converts", "function", "passes", "result", "result_passes", "rules")

    def __init__(self, fn: Callable[..., Any], rules: Mapping[str, Rule], result: Rule | None) -> None:
        self.function = short_name(fn)
        parameters = parameters_of(fn)
        self.rules = tuple((_slot(name, parameters, self.function), name, rule) for name, rule in rules.items())
        self.result = result
        shared = _shared([*rules.values(), *([result] if result else [])])
        self.binds = bool(shared)
        tests = [(slot, rule.tester(shared), rule) for slot, _, rule in self.rules]
        self.passes: Passes | None = _together(tests)
        self.converts: Converts = _converting(tests) if self.passes is None else _examine
        self.result_passes: Test | None = result.tester(shared) if result else None

    def examine(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs, Report]:
        """Look at every argument and return what the function should receive, with the report."""
        report = Report(self.function)
        for slot, name, rule in self.rules:
            value = slot.get(args, kwargs)
            if value is MISSING:
                continue
            new = _examined(rule, value, Location(report, name))
            if new is not value:
                args, kwargs = slot.put(args, kwargs, new)
        return args, kwargs, report

    def examine_result(self, value: Any, dims: Dims) -> tuple[Any, Report]:
        """Look at the result; `dims` are the named dimensions of the arguments."""
        report = Report(self.function, dict(dims or {}))
        if self.result is not None:
            value = _examined(self.result, value, Location(report, "return"))
        return value, report


def _examined(rule: Rule, value: Any, at: Location) -> Any:
    try:
        return rule.examine(value, at)
    except Exception as error:  # noqa: BLE001 - a value that cannot even be looked at breaks every rule
        at.broken("look", "a value that can be looked at", type(error).__name__)
        return value


def _slot(name: str, parameters: dict[str, Parameter], function: str) -> Slot:
    if name not in parameters:
        known = ", ".join(parameters) or "none"
        raise TypeError(f"{function} has no parameter {name!r}; it has: {known}")
    found = parameters[name]
    if found.kind is Parameter.VAR_KEYWORD:
        raise TypeError(f"{function}: rules on **{name} are not supported; declare the parameters that matter")
    order = [each for each in parameters.values() if each.kind is not Parameter.KEYWORD_ONLY]
    position = -1 if found.kind is Parameter.KEYWORD_ONLY else order.index(found)
    named = found.kind in {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    return Slot(position, name if named else "", found.kind)


def _shared(rules: Iterable[Rule]) -> frozenset[str]:
    counts = Counter(name for rule in rules for name in rule.names())
    return frozenset(name for name, count in counts.items() if count > 1)


def _together(tests: list[tuple[Slot, Test | None, Rule]]) -> Passes | None:
    ready = tuple((slot, test) for slot, test, _ in tests if test is not None)
    if len(ready) < len(tests):
        return None
    single = len(ready) == 1 and ready[0][0].kind is Parameter.POSITIONAL_OR_KEYWORD
    return _one(*ready[0]) if single else _all(ready)


def _examine(args: Args, kwargs: Kwargs, dims: Dims) -> None:
    """Say that the arguments have to be examined."""


def _converting(tests: list[tuple[Slot, Test | None, Rule]]) -> Converts:
    """Return the happy path of rules that convert. Validators are built at the first call: pydantic loads then."""
    steps: list[tuple[Slot, Test | None, Callable[[Any], Any] | None]] = []

    def converts(args: Args, kwargs: Kwargs, dims: Dims) -> tuple[Args, Kwargs] | None:
        if not steps:
            steps[:] = [(slot, test, None if test else rule.converter()) for slot, test, rule in tests]
        for slot, test, convert in steps:
            value = slot.get(args, kwargs)
            if value is MISSING:
                continue
            if test is not None:
                if not test(value, dims):
                    return None
            elif convert is None:
                return None
            else:
                try:
                    new = convert(value)
                except Exception:  # noqa: BLE001 - examine says what is wrong
                    return None
                if new is not value:
                    args, kwargs = slot.put(args, kwargs, new)
        return args, kwargs

    return converts


def _one(slot: Slot, test: Test) -> Passes:
    position, keyword = slot.position, slot.keyword

    def passes(args: Args, kwargs: Kwargs, dims: Dims) -> bool:
        if len(args) > position:
            return test(args[position], dims)
        return keyword not in kwargs or test(kwargs[keyword], dims)

    return passes


def _all(tests: tuple[tuple[Slot, Test], ...]) -> Passes:
    if any(slot.kind is Parameter.VAR_POSITIONAL for slot, _ in tests):
        return _all_slots(tests)
    flat = tuple((slot.position if slot.position >= 0 else sys.maxsize, slot.keyword, test) for slot, test in tests)

    def passes(args: Args, kwargs: Kwargs, dims: Dims) -> bool:
        given = len(args)
        for position, keyword, test in flat:
            if position < given:
                if not test(args[position], dims):
                    return False
            elif keyword in kwargs and keyword and not test(kwargs[keyword], dims):
                return False
        return True

    return passes


def _all_slots(tests: tuple[tuple[Slot, Test], ...]) -> Passes:
    def passes(args: Args, kwargs: Kwargs, dims: Dims) -> bool:
        for slot, test in tests:
            value = slot.get(args, kwargs)
            if value is not MISSING and not test(value, dims):
                return False
        return True

    return passes
