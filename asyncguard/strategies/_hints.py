"""Validation rules from type hints; one that cannot be resolved yet (a forward reference) waits for the first call."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
import warnings
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any

from asyncguard._machines.rules_base import Rule
from asyncguard._machines.rules_basic import Every, Validates
from asyncguard._machines.rules_plan import parameters_of, short_name
from asyncguard.strategies._schema import Instance, Schema, adapt, plain

__all__ = ["rules_from_hints"]

VARIADIC = frozenset({Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD})


def rules_from_hints(fn: Callable[..., Any], *, final: bool) -> dict[str, Rule] | None:
    """Return the rule of each parameter that has a hint which says something.

    None if a hint cannot be resolved yet and this is not the `final` look; then it is left out, with a warning.
    """
    rules: dict[str, Rule] = {}
    for name, parameter in parameters_of(fn).items():
        if parameter.kind in VARIADIC or parameter.annotation is Parameter.empty:
            continue
        try:
            rule = _rule(_resolved(parameter.annotation, _function(fn)))
        except Exception as error:  # noqa: BLE001 - evaluating a hint may raise anything
            if not final:
                return None
            _warn(fn, name, error)
        else:
            rules |= {name: rule} if rule is not None else {}
    return _ready(fn, rules, final=final)


def _ready(fn: Callable[..., Any], rules: dict[str, Rule], *, final: bool) -> dict[str, Rule] | None:
    """Build the validators at the first call; one that cannot be built is left out, with a warning."""
    if not final:
        return None if any(_schemas(rule) for rule in rules.values()) else rules
    for name, rule in list(rules.items()):
        try:
            for schema in _schemas(rule):
                schema.build()
        except Exception as error:  # noqa: BLE001 - pydantic's errors about types it cannot handle
            _warn(fn, name, error)
            del rules[name]
    return rules


def _schemas(rule: Rule) -> list[Schema]:
    if isinstance(rule, Every):
        return [schema for each in rule.rules for schema in _schemas(each)]
    return [rule] if isinstance(rule, Schema) else []


def _rule(hint: Any) -> Rule | None:
    if hint in (Any, object) or isinstance(hint, typing.TypeVar | typing.ParamSpec):
        return None
    if typing.get_origin(hint) is not Annotated:
        return adapt(hint)
    base, others = hint.__origin__, hint.__metadata__
    own = [each for each in others if isinstance(each, Rule)]
    schemas = [Validates(each) for each in others if _is_schema(each)]
    if not own and not schemas:
        return adapt(hint)
    rest = tuple(each for each in others if type(each).__module__.partition(".")[0] in {"annotated_types", "pydantic"})
    return Every([*_base(base, rest), *own, *schemas])


def _base(base: Any, constraints: tuple[Any, ...]) -> list[Rule]:
    """Return what the hinted type itself asks for beside our own rules: its class, or what pydantic makes of it."""
    cls = typing.get_origin(base) or base
    if constraints:
        return [adapt(Annotated[(base, *constraints)])]
    if isinstance(cls, type) and plain(cls):
        return [Instance(cls)]
    return [] if base is Any else [adapt(base)]


def _is_schema(each: Any) -> bool:
    return callable(getattr(each, "validate", None)) and not isinstance(each, type | Rule)


def _resolved(annotation: Any, fn: Callable[..., Any]) -> Any:
    """Return the hint with names filled in from the function's module, its type parameters and its closure."""
    holder = type("Holder", (), {"__annotations__": {"it": annotation}})
    module = sys.modules.get(getattr(fn, "__module__", ""))
    names = dict(getattr(fn, "__globals__", None) or vars(module or typing))
    local = {each.__name__: each for each in getattr(fn, "__type_params__", ())}
    if inspect.isfunction(fn):
        local.update(inspect.getclosurevars(fn).nonlocals)
    return typing.get_type_hints(holder, names, local, include_extras=True)["it"]


def _function(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    return fn if inspect.isroutine(fn) else type(fn).__call__


def _warn(fn: Callable[..., Any], name: str, error: Exception) -> None:
    text = f"validate_input: the hint of {short_name(fn)}({name}) cannot be used ({type(error).__name__}: {error})"
    warnings.warn(f"{text}; it is not checked: give its rule by keyword", UserWarning, stacklevel=2)
