"""Keys of objects: by their own `__cache_key__`, by class and fields, or by their own equality and hash."""

from __future__ import annotations

import dataclasses
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable
from typing import Any

from asyncguard._machines import equals
from asyncguard._machines.keys_base import Digest, Freeze, Freezer
from asyncguard._machines.owners import state_of


class _Missing:
    """Stands for a field that was never set."""


_EXACTLY: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes.__bytes__,
    list: list,
    tuple: tuple,
}


def own_key(kind: type[Any], freeze: Freeze, _function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of a class with `__cache_key__()`, which says itself what its objects are equal by."""
    if issubclass(kind, type) or not hasattr(kind, "__cache_key__"):
        return None
    return lambda value: (kind, freeze(value.__cache_key__()))


def fields(kind: type, freeze: Freeze, _function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of a class with declared fields: pydantic, dataclass, attrs, msgspec."""
    modelled = _pydantic(kind, freeze)
    if modelled is not None:
        return modelled
    declared = _declared(kind)
    if declared is None:
        return None
    names, complete = declared

    def freezer(value: Any) -> Hashable:
        content = tuple([freeze(getattr(value, name, _Missing)) for name in names])
        return (kind, content) if complete else (kind, content, freeze(state_of(value)))

    return freezer


def _pydantic(kind: type, freeze: Freeze) -> Freezer | None:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not hasattr(pydantic, "BaseModel"):
        return None
    if issubclass(kind, pydantic.BaseModel):
        return lambda value: _model(kind, value, freeze)
    if issubclass(kind, pydantic.SecretStr | pydantic.SecretBytes):
        return lambda value: (kind, value.get_secret_value())
    if isinstance(pydantic.AnyUrl, type) and issubclass(kind, pydantic.AnyUrl):
        return lambda value: (kind, str(value))
    return None


def _model(kind: type[Any], value: Any, freeze: Freeze) -> Hashable:
    """Freeze a pydantic model by its fields, not by its JSON: there NaN equals None, and all secrets are equal.

    Private attributes are part of it, as they are part of its equality.
    """
    values = value.__dict__
    content = tuple([freeze(values.get(name, _Missing)) for name in kind.model_fields])
    extra, private = value.__pydantic_extra__, value.__pydantic_private__
    return (kind, content, freeze(extra) if extra else None, freeze(private) if private else None)


def _declared(kind: Any) -> tuple[tuple[str, ...], bool] | None:
    """Return the names of the fields, and whether they are all that the objects have (the class declared them)."""
    if dataclasses.is_dataclass(kind):
        return tuple([each.name for each in dataclasses.fields(kind)]), "__dataclass_fields__" in vars(kind)
    attributes: Any = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple([each.name for each in attributes]), "__attrs_attrs__" in vars(kind)
    members: Any = getattr(kind, "__struct_fields__", None)
    return None if members is None else (tuple(members), True)


def subclass(kind: type[Any], base: type, freezer: Freezer, freeze: Freeze) -> Freezer:
    """Return the freezer of a subclass of a builtin: its class, its content, and what else the object holds."""
    ordered, factory = issubclass(kind, OrderedDict), issubclass(kind, defaultdict)
    if ordered:
        return lambda value: (kind, freeze(tuple(value.items())), freeze(state_of(value)))
    exactly = _EXACTLY.get(base, _itself)

    def freeze_subclass(value: Any) -> Hashable:
        state = state_of(value)
        return (kind, freezer(exactly(value)), freeze((value.default_factory, state) if factory else state))

    return freeze_subclass


def _itself(value: Any) -> Any:
    return value


def by_value(kind: type, _freeze: Freeze, _function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of a class that defines both equality and hash: equal objects have one stand-in."""
    has: Any = kind
    if has.__hash__ in {None, object.__hash__} or has.__eq__ is object.__eq__:
        return None
    return lambda value: (kind, equals.stand_in(kind, value))
