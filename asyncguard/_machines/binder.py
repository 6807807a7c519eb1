"""Which value each parameter gets, resolved from the signature once and not at every call.

`inspect.Signature.bind` costs more than the call that it would save (1.7 us). Here a function with the same parameters,
which returns them as a tuple, is compiled when the function is decorated: Python itself binds, in 0.1 us.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class MismatchError(TypeError):
    """The arguments do not fit the signature: the function will say so, or the signature does not tell the truth."""


class Binder:
    """Turns `(args, kwargs)` into one tuple with a value for each parameter, in the order of `names`.

    Keyword order and defaults are normalised: `f(1)`, `f(a=1)` and, if the default is 2, `f(1, 2)` give the same
    tuple. `*args` is one value (a tuple), `**kwargs` too (a dict).
    """

    __slots__ = ("_bound", "_parameters", "_plain", "_tail", "names", "var_keyword")

    def __init__(self, signature: inspect.Signature) -> None:
        self._parameters = tuple(signature.parameters.values())
        self.names = tuple(signature.parameters)
        self.var_keyword = next((p.name for p in self._parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
        by_position = [p for p in self._parameters if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self._plain = len(by_position) if len(by_position) == len(self._parameters) else -1
        self._tail = tuple(p.default for p in by_position if p.default is not p.empty) if self._plain >= 0 else ()
        self._bound = _compiled(self._parameters)

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
        try:
            return self._bound(*args, **kwargs)
        except TypeError:
            raise MismatchError from None

    def takes_one(self) -> bool:
        """Tell whether a single positional argument is all that a call needs to have."""
        return self._plain == 1

    def default(self, name: str) -> object:
        """Return the default of a parameter, `inspect.Parameter.empty` if it has none."""
        return self._parameters[self.names.index(name)].default


class _Expression:
    """A default that stands in a written signature as the name of a variable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _compiled(parameters: tuple[inspect.Parameter, ...]) -> Callable[..., tuple[Any, ...]]:
    """Return a function of these parameters that returns their values."""
    bare: list[inspect.Parameter] = []
    defaults: dict[str, Any] = {}
    for at, each in enumerate(parameters):
        default: Any = each.empty
        if each.default is not each.empty:
            defaults[f"_{at}"], default = each.default, _Expression(f"_{at}")
        bare.append(each.replace(default=default, annotation=each.empty))
    values = "".join(f"{each.name}, " for each in parameters)
    source = f"lambda {str(inspect.Signature(bare))[1:-1]}: ({values})"
    made: Callable[..., tuple[Any, ...]] = eval(source, defaults)  # noqa: S307 - names of parameters, nothing else
    return made


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of a callable, None where it has none that can be read (some builtins)."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None
