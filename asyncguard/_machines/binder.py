"""Which value each parameter gets, resolved from the signature once and not at every call.

`inspect.Signature.bind` costs more than the call that it would save; here the positions, the defaults and the keyword
names are laid out when the function is decorated, so that a call is a tuple concatenation in the usual case.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class MismatchError(TypeError):
    """The arguments do not fit the signature: the function will say so, or the signature does not tell the truth."""


class Binder:
    """Turns `(args, kwargs)` into one tuple with a value for each parameter, in the order of `names`.

    Keyword order and defaults are normalised: `f(1)`, `f(a=1)` and, if the default is 2, `f(1, 2)` give the same
    tuple. `*args` is one value (a tuple), `**kwargs` too (a dict).
    """

    __slots__ = ("_parameters", "_plain", "_tail", "names", "var_keyword")

    def __init__(self, signature: inspect.Signature) -> None:
        self._parameters = tuple(signature.parameters.values())
        self.names = tuple(signature.parameters)
        self.var_keyword = next((p.name for p in self._parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
        by_position = [p for p in self._parameters if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self._plain = len(by_position) if len(by_position) == len(self._parameters) else -1
        self._tail = tuple(p.default for p in by_position if p.default is not p.empty) if self._plain >= 0 else ()

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the value of each parameter.

        Raises MismatchError if the arguments do not fit.
        """
        if not kwargs:
            missing = self._plain - len(args)
            if missing == 0:
                return args
            if 0 < missing <= len(self._tail):
                return args + self._tail[-missing:]
        return self._in_full(args, dict(kwargs))

    def takes_one(self) -> bool:
        """Tell whether a single positional argument is all that a call needs to have."""
        return self._plain == 1

    def default(self, name: str) -> object:
        """Return the default of a parameter, `inspect.Parameter.empty` if it has none."""
        return self._parameters[self.names.index(name)].default

    def _in_full(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        left = list(reversed(args))
        values = [self._value(parameter, left, kwargs) for parameter in self._parameters]
        if left or kwargs:
            raise MismatchError
        return tuple(values)

    def _value(self, parameter: inspect.Parameter, left: list[Any], kwargs: dict[str, Any]) -> Any:
        kind = parameter.kind
        if kind in _VARIADIC:
            return _rest(parameter, left, kwargs)
        if left and kind is not inspect.Parameter.KEYWORD_ONLY:
            if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and parameter.name in kwargs:
                raise MismatchError  # given twice
            return left.pop()
        if parameter.name in kwargs and kind is not inspect.Parameter.POSITIONAL_ONLY:
            return kwargs.pop(parameter.name)
        if parameter.default is parameter.empty:
            raise MismatchError
        return parameter.default


def _rest(parameter: inspect.Parameter, left: list[Any], kwargs: dict[str, Any]) -> Any:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        rest: Any = tuple(reversed(left))
        left.clear()
    else:
        rest = dict(kwargs)
        kwargs.clear()
    return rest


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a callable, None where it has none that can be read (some builtins)."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None
