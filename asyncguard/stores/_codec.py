"""From values to bytes and back, without ever executing what a store holds: no pickle, no names of classes.

numpy arrays go as dtype, shape and buffer, plain values and containers as msgpack, and everything that pydantic knows
(models, dataclasses, enums, `NewType`s) by the return annotation of the function, which is what is validated against
when it comes back. What cannot be written so that it comes back equal is not written.
"""

from __future__ import annotations

import importlib.util
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from asyncguard.stores import _arrays, _packed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_ATOMS = frozenset({int, float, bool, str, bytes, type(None)})
PACKED, ARRAY, TYPED, TYPED_JSON, OWN = range(1, 6)


@runtime_checkable
class Codec(Protocol):
    """A way of your own to write values: `codec=MyCodec()`. `decode` gets what `encode` has made, or a store's garbage.

    Either may raise any `Exception`: a value that cannot be encoded is kept in the process only, bytes that cannot be
    decoded are a miss. `decode` must not execute what it reads (no pickle): others may write to a store.
    """

    def encode(self, value: Any, /) -> bytes: ...
    def decode(self, data: bytes, /) -> Any: ...


class UnencodableError(TypeError):
    """A value that the codec cannot write; the message names its class and never its content."""


class SafeCodec:
    """The codec of one function. `annotation` is what it says to return, None if it says nothing."""

    def __init__(self, annotation: Any = None) -> None:
        self._annotation = annotation
        self._adapter: TypeAdapter[Any] | None = None

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Return how a value is written, and its bytes.

        Raises UnencodableError.
        """
        if _arrays.is_array(value):
            return ARRAY, _arrays.pack(value)
        try:
            return PACKED, _packed.pack(value)
        except Exception as error:  # noqa: BLE001 - msgpack, and the classes that we refuse
            if self._annotation is None:
                raise UnencodableError(_why(value, error, "and it has no return annotation")) from None
        return self._typed(value)

    def decode(self, codec: int, payload: memoryview) -> Any:
        """Return the value; raises any Exception for bytes that are none of ours."""
        if codec == PACKED:
            return _packed.unpack(payload)
        if codec == ARRAY:
            return _arrays.unpack(payload)
        if codec in {TYPED, TYPED_JSON}:
            return self._validated(_packed.unpack(payload))
        raise ValueError(f"unknown codec {codec}")

    def _typed(self, value: Any) -> tuple[int, bytes]:
        reasons: list[Exception] = []
        for codec in (TYPED, TYPED_JSON):
            try:
                payload = self._dumped(codec, value)
                if _alike(self._validated(_packed.unpack(payload)), value):
                    return codec, payload
            except Exception as error:  # noqa: BLE001 - pydantic, and code of the user's
                reasons.append(error)
        what = reasons[-1] if reasons else ValueError("it does not come back equal")
        raise UnencodableError(_why(value, what, "nor by the return annotation"))

    def _dumped(self, codec: int, value: Any) -> bytes:
        mode: Literal["python", "json"] = "python" if codec == TYPED else "json"
        return _packed.pack(self._by_type().dump_python(value, mode=mode, warnings="error"))

    def _validated(self, plain: Any) -> Any:
        return self._by_type().validate_python(plain)

    def _by_type(self) -> TypeAdapter[Any]:
        if self._adapter is None:
            if self._annotation is None:
                raise ValueError("there is no return annotation")
            from pydantic import TypeAdapter

            self._adapter = TypeAdapter(self._annotation)
        return self._adapter


class OwnCodec:
    """A codec of the user's."""

    def __init__(self, codec: Codec) -> None:
        self.own = codec

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Return how a value is written, and its bytes."""
        data: Any = self.own.encode(value)
        if not isinstance(data, bytes):
            raise UnencodableError(f"{type(self.own).__name__}.encode returned {type(data).__name__}, not bytes")
        return OWN, data

    def decode(self, codec: int, payload: memoryview) -> Any:
        """Return the value; raises any Exception for bytes that are none of ours."""
        if codec != OWN:
            raise ValueError(f"written by another codec ({codec})")
        return self.own.decode(bytes(payload))


def _alike(back: Any, value: Any) -> bool:
    """Tell whether what came back equals the value, in classes too: a tuple equals a `NamedTuple`, 1 an `IntEnum`."""
    return bool(back == value) and _same_classes(back, value)


def _same_classes(back: Any, value: Any) -> bool:
    kind = value.__class__
    if back.__class__ is not kind:
        return False
    if kind in _ATOMS:
        return True
    if issubclass(kind, dict):
        members = all(_same_classes(back[key], each) for key, each in value.items() if key in back)
        return members and _same_classes(set(back), set(value))
    if issubclass(kind, list | tuple):
        return all(map(_same_classes, back, value))
    if issubclass(kind, set | frozenset):
        return {(each.__class__, each) for each in back} == {(each.__class__, each) for each in value}
    return issubclass(kind, Enum) or _same_classes(_fields(back), _fields(value))


def _fields(value: Any) -> dict[str, Any]:
    names = getattr(value, "__dataclass_fields__", ())
    return getattr(value, "__dict__", None) or {name: getattr(value, name, None) for name in names}


def _why(value: Any, error: Exception, addition: str) -> str:
    return f"a {type(value).__name__} cannot be written safely ({type(error).__name__}) {addition}"


def annotation_of(function: Any, *, items: bool = False) -> Any:
    """Return what a function says to return (`items`: what it says that each row is), None if that cannot be told."""
    import inspect
    import typing

    target = inspect.unwrap(function)
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating annotations may raise anything
        return None
    annotation = hints.get("return")
    if not items:
        return annotation
    given = [each for each in typing.get_args(annotation) if each is not Ellipsis]
    return given[0] if len(given) == 1 else None


def require_msgpack() -> None:
    """Raise ImportError, saying what to install, where msgpack is missing."""
    if importlib.util.find_spec("msgpack") is None:
        raise ImportError(
            'codec="safe" needs msgpack, which is not installed: pip install "asyncguard[redis]" (or [memcached]), or '
            "give a codec of your own"
        )
