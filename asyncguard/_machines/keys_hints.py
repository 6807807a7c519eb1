"""Parameters whose annotation already tells that no argument for them can be a key."""

from __future__ import annotations

import abc
import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asyncguard._machines.keys import keyable

_NEVER = (collections.abc.Iterator, collections.abc.AsyncIterator, collections.abc.Awaitable, typing.IO)
_HOLDERS = (list, tuple, set, frozenset, dict)


def unkeyable(function: Callable[..., Any], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (parameter, class) for each of the `names` whose annotation names only classes that cannot be keys."""
    target = inspect.unwrap(function)
    annotations = getattr(target, "__annotations__", {})
    for name in names:
        culprit = _culprit(_resolved(name, annotations.get(name), target))
        if culprit is not None:
            yield name, culprit


def _resolved(name: str, annotation: Any, target: Any) -> Any:
    """Return the annotation as an object, None where it cannot be had (a name imported for type checkers only)."""
    holder = types.SimpleNamespace(__annotations__={name: annotation})
    try:
        return typing.get_type_hints(holder, globalns=getattr(target, "__globals__", {})).get(name)
    except Exception:  # noqa: BLE001 - evaluating an annotation may raise anything; the call will tell
        return None


def _culprit(annotation: Any) -> str | None:
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        members = [each for each in typing.get_args(annotation) if each is not type(None)]
        culprits = [_culprit(each) for each in members]
        return culprits[0] if all(culprits) else None
    if origin in _HOLDERS:
        return next(filter(None, map(_culprit, typing.get_args(annotation))), None)
    kind: Any = annotation if origin is None else origin
    if not isinstance(kind, type):
        return None
    return kind.__qualname__ if _never(kind) else None


def _never(kind: type) -> bool:
    if _is_kind_of(kind, _NEVER):
        return not hasattr(kind, "__cache_key__")
    open_ended = kind in {object, Any} or abc.ABC in kind.__mro__ or inspect.isabstract(kind) or _is_protocol(kind)
    return not open_ended and not keyable(kind)


def _is_kind_of(kind: type, bases: tuple[Any, ...]) -> bool:
    return issubclass(kind, bases)


def _is_protocol(kind: Any) -> bool:
    return bool(getattr(kind, "_is_protocol", False))
