"""Types, pydantic models and constraints as validation rules, through pydantic's `TypeAdapter`, loaded when needed."""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from asyncguard._machines.checks import wrong_type
from asyncguard._machines.rules_base import Dims, Location, Rule, Test
from asyncguard._machines.rules_basic import ALLOWED

__all__ = ["Instance", "Schema", "adapt"]

TYPING = frozenset({"typing", "types", "typing_extensions"})
PYDANTIC_HOOKS = ("__get_pydantic_core_schema__", "__pydantic_core_schema__", "__dataclass_fields__")
TYPING_HOOKS = ("__total__", "_is_protocol")  # TypedDict and Protocol
# Messages of these errors quote the value, or what somebody else's code said about it.
QUOTING = frozenset({"union_tag_invalid", "get_attribute_error", "iteration_error", "mapping_type"}) | frozenset(
    {"uuid_parsing", "bytes_invalid_encoding"}
)


class Instance(Rule):
    """An instance of a class that pydantic knows nothing about (numpy.ndarray, torch.Tensor): nothing is converted."""

    __slots__ = ("cls",)

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def tester(self, shared: frozenset[str]) -> Test:  # noqa: ARG002 - binds nothing
        """Return the happy path."""
        cls = self.cls

        def test(value: object, dims: Dims) -> bool:  # noqa: ARG001
            return isinstance(value, cls)

        return test

    def examine(self, value: object, at: Location) -> object:
        """Report a value of another class."""
        if not isinstance(value, self.cls):
            at.broken("type", self.cls.__qualname__, type(value).__qualname__)
        return value


class Schema(Rule):
    """What a pydantic type accepts; the converted value is passed on.

    pydantic's message says what was expected. Of the value only the type is reported, and of a path only the names
    that stand in the schema: keys of a dict are the caller's data.
    """

    __slots__ = ("_adapter", "_names", "spec")

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        self._adapter: Any = spec if hasattr(spec, "validate_python") else None
        self._names: frozenset[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spec,)

    def build(self) -> None:
        """Load pydantic and build the validator; raises what pydantic raises about a type it cannot handle."""
        if self._adapter is None:
            self._adapter = _adapter(self.spec)

    def converter(self) -> Callable[[Any], Any]:
        """Return pydantic's own validation."""
        self.build()
        convert: Callable[[Any], Any] = self._adapter.validator.validate_python
        return convert

    def examine(self, value: object, at: Location) -> object:
        """Validate and convert."""
        self.build()
        try:
            return self._adapter.validator.validate_python(value)
        except Exception as error:  # noqa: BLE001 - a validator of the user may raise anything; its text may hold data
            found, kind = _details(error), type(error).__name__
        if not found:
            at.broken("schema", "no error", kind)
        for each in found:
            self._report(each, at.inside(self._path(each["loc"])))
        return value

    def _report(self, error: dict[str, Any], at: Location) -> None:
        kind: str = error["type"]
        if kind == "missing":
            at.broken(kind, "a value", "none")
            return
        text: str = error["msg"] if kind in _own_errors() and kind not in QUOTING else ""
        _subject, _should, expected = text.partition(" should ")
        expected = expected.removeprefix("be ").removeprefix("have ") or text or "what its validator accepts"
        at.broken(kind, expected, type(error["input"]).__name__)

    def _path(self, loc: tuple[int | str, ...]) -> str:
        if self._names is None:
            self._names = frozenset(_names_in(self._adapter.core_schema))
        names = self._names
        return "".join(f"[{each!r}]" if isinstance(each, int) or each in names else "[...]" for each in loc)


def adapt(spec: Any) -> Rule:
    """Return the rule that a type, a typing construct or a constraint of annotated_types means, or raise TypeError."""
    if hasattr(spec, "validate_python"):
        return Schema(spec)
    if isinstance(spec, type):
        return Instance(spec) if plain(spec) else Schema(spec)
    if type(spec).__module__ in TYPING or typing.get_origin(spec) is not None:
        return Schema(spec)
    if type(spec).__module__.partition(".")[0] in {"annotated_types", "pydantic"}:
        return Schema(typing.Annotated[Any, spec])
    raise wrong_type("a rule", spec, ALLOWED)


def plain(cls: type[Any]) -> bool:
    """Return whether only `isinstance` can say something about `cls`: a class of a library, with no pydantic hooks."""
    if issubclass(cls, enum.Enum) or any(hasattr(cls, hook) for hook in PYDANTIC_HOOKS + TYPING_HOOKS):
        return False
    return not any(base.__module__.partition(".")[0] in sys.stdlib_module_names for base in cls.__mro__[:-1])


def _adapter(spec: Any) -> Any:
    import pydantic

    try:
        adapter = pydantic.TypeAdapter[Any](spec, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
    except pydantic.PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        adapter = pydantic.TypeAdapter[Any](spec)  # a model has a configuration of its own
    adapter.rebuild(raise_errors=True)
    return adapter


def _details(error: Any) -> list[dict[str, Any]]:
    return error.errors(include_url=False) if hasattr(error, "errors") else []


def _own_errors() -> frozenset[str]:
    """Return the kinds of error whose text pydantic writes; texts of the user's validators may quote the value."""
    import pydantic_core

    own: tuple[str, ...] = typing.get_args(pydantic_core.core_schema.ErrorType)
    return frozenset(own) - {"value_error", "assertion_error"}


def _names_in(schema: Any) -> Iterator[str]:
    """Yield the names that a core schema may put into a path: fields, aliases, tags and kinds of its parts."""
    if isinstance(schema, dict):
        for key, value in typing.cast("dict[object, Any]", schema).items():
            if isinstance(key, str):
                yield key
            yield from _names_in(value)
    elif isinstance(schema, list | tuple):
        for value in typing.cast("list[Any]", schema):
            yield from _names_in(value)
    elif isinstance(schema, str):
        yield schema
    elif isinstance(schema, types.FunctionType):
        yield schema.__name__
