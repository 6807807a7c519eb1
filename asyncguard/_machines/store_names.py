"""Names that mean the same in every process: those of functions and classes that a module has under their name.

Two closures of one factory share their name, and so do two lambdas, and the `__main__` of two programs: in a store one
would get the results of the other.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

__all__ = ["NamelessError", "known_name", "store_name"]

_PROGRAMS = frozenset({"__main__", "__mp_main__"})
_MOVED = {"pathlib._local": "pathlib"}  # Python 3.13 only
# What `types` calls otherwise than the class does itself; no module has it under its own name.
_BUILT_IN = frozenset(each for each in vars(types).values() if isinstance(each, type) and each.__module__ == "builtins")


class NamelessError(TypeError):
    """A function or class has no name that other processes know; the text says why and what to do."""


def store_name(function: Callable[..., Any]) -> str:
    """Return the name under which a store keeps the results of a function: its module and qualified name.

    Raises NamelessError (a TypeError) for lambdas, local functions, functions of `__main__`, `functools.partial`,
    methods bound to an object and objects with `__call__`.
    """
    if isinstance(function, functools.partial):
        raise _refusal("a functools.partial has no name", "define a function with `def` that makes the call")
    if isinstance(function, types.MethodType):
        return _of_method(function)
    owner = getattr(function, "__self__", None)
    if isinstance(owner, types.ModuleType | None) and isinstance(getattr(function, "__qualname__", None), str):
        return _name(function)
    raise _refusal(f"an object of class {type(function).__qualname__} has no name of its own", "decorate a function")


def known_name(value: Any) -> str:
    """Return the name of a function or class that its module has under that name.

    Raises NamelessError where it has not: whoever looks for the name in another process finds something else.
    """
    if value in _BUILT_IN:
        return f"builtins.{value.__qualname__}"
    name = _name(value)
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is value:
        return name
    raise _refusal(f"{name} is not what its module has under that name", "define it at the top level of a module, once")


def _of_method(method: types.MethodType) -> str:
    owner = method.__self__
    if isinstance(owner, type) or hasattr(type(owner), "__cache_key__"):
        return _name(method.__func__)  # the owner is part of the key
    raise _refusal(
        f"{method.__qualname__} is bound to one {type(owner).__qualname__}, which other processes do not know",
        f"give {type(owner).__qualname__} a method __cache_key__() that tells its objects apart",
    )


def _name(value: Any) -> str:
    name: str = value.__qualname__
    module: str = getattr(value, "__module__", None) or ""
    if name.rpartition(".")[2] == "<lambda>":
        raise _refusal(
            f"a lambda (of {module}) has no name", "define a function with `def` at the top level of a module"
        )
    if "<locals>" in name:
        raise _refusal(
            f"{module}.{name} is local: each call of {name.partition('.<locals>')[0]}() makes another one of this name",
            "define it at the top level of a module and pass what it takes from around it as arguments",
        )
    if not module:
        raise _refusal(f"{name} belongs to no module", "define a function with `def` at the top level of a module")
    return f"{_program(value, module) if module in _PROGRAMS else _MOVED.get(module, module)}.{name}"


def _program(value: Any, module: str) -> str:
    """Return the name of the module that runs as the program (`python -m name`)."""
    running = sys.modules.get(module)
    spec = getattr(running, "__spec__", None)
    names = getattr(value, "__globals__", None)
    if spec is None or not (names is None or names is vars(running)):  # a profiler runs the program in its own module
        raise _refusal(
            f"{value.__qualname__} is defined in __main__, which is another module in every program",
            "move it into a module and import it, or run the program with `python -m`",
        )
    return str(spec.name)


def _refusal(what: str, remedy: str) -> NamelessError:
    return NamelessError(f"{what}, so a store could not tell it from another one: {remedy}")
