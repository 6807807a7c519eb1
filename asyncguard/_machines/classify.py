"""What an error means for the next attempt: told by type and by shape, and nothing is imported to tell it.

The classes of gRPC, botocore, resilience4j and redress, folded into five words that retry, breaker, hedge and adaptive
concurrency share.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

from asyncguard._machines import checks, known_errors, shape
from asyncguard._machines.known_errors import Kind
from asyncguard.errors import RejectedError

__all__ = [
    "TRANSIENT",
    "TRANSIENT_KINDS",
    "Classifier",
    "Kind",
    "classify",
    "failing_status",
    "kind_of_status",
    "register_classifier",
]

Classifier = Callable[[Exception], "Kind | None"]

TRANSIENT_KINDS: frozenset[str] = frozenset({"transient", "timeout", "throttle"})
_FROM_BAD_TO_WORST: tuple[Kind, ...] = ("transient", "timeout", "throttle", "unknown", "permanent")
_DEEPEST = 8  # wrapped errors and groups inside one another

_TOO_MANY_REQUESTS = 429
_TRANSIENT_STATUSES = frozenset({408, 425})
_FIRST_FAILING, _FIRST_OF_SERVER = 400, 500

_PERMANENT_TYPES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FileExistsError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    LookupError,
    NameError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    SyntaxError,
    TypeError,
    ValueError,
)
_TRANSIENT_ERRNOS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENOTCONN}
)

_classifiers: tuple[Classifier, ...] = ()
_complained: set[int] = set()


def _say_nothing(_classifier: Classifier) -> None:
    """Stand in for `complain`."""


complain: Callable[[Classifier], None] = _say_nothing
"""Called once for a classifier that failed, while its error is being handled. Floor 0 writes no log: others set it."""


def classify(error: Exception) -> Kind:
    """Return what an error means: transient, timeout, throttle, permanent or unknown.

    Asked in turn: the registered classifiers, the status (408, 425, 5xx transient; 429 throttle unless it says
    `insufficient_quota`; other 4xx permanent; the header `x-should-retry` is obeyed), codes of services and databases,
    the class. An `ExceptionGroup` is as bad as its worst leaf. asyncguard's rejections are permanent: the function was
    not called, so they say nothing about it.
    """
    return _classify(error, 0)


def register_classifier(classifier: Classifier) -> Callable[[], None]:
    """Ask `classifier(error)` before everything else; it returns a kind, or None for "I do not know".

    The one registered last is asked first. The returned function takes it back. A classifier that raises, or returns
    what is no kind, counts as one that does not know, and is logged once.
    """
    global _classifiers  # noqa: PLW0603 - swapped whole, so that it can be read without a lock
    if not callable(classifier):
        raise TypeError(
            f"register_classifier needs a callable that takes an error and returns a kind, got {classifier!r}"
        )
    checks.plain("the classifier", classifier)
    _classifiers = (classifier, *_classifiers)

    def unregister() -> None:
        global _classifiers  # noqa: PLW0603
        _classifiers = tuple(each for each in _classifiers if each is not classifier)
        _complained.discard(id(classifier))  # the number may be another's next

    return unregister


class _Transient:
    """The predicate behind `TRANSIENT`: a class of its own, so that it says its name and pickles as it."""

    def __call__(self, error: Exception) -> bool:
        return classify(error) in TRANSIENT_KINDS

    def __repr__(self) -> str:
        return "TRANSIENT"

    def __reduce__(self) -> str:
        return "TRANSIENT"


TRANSIENT = _Transient()
"""The default of `on=`: errors that may be gone the next time. `classify` says transient, timeout or throttle."""


def failing_status(response: object) -> bool:
    """Tell whether a response carries a failing status that may be gone the next time: 408, 425, 429 or 5xx.

    For `retry(on_result=failing_status)`, with clients that return such responses instead of raising (requests, httpx,
    aiohttp).
    """
    return kind_of_status(shape.own_status(response)) in TRANSIENT_KINDS


def kind_of_status(status: int | None) -> Kind | None:
    """Return what an HTTP status means, None below 400."""
    if status is None or status < _FIRST_FAILING:
        return None
    if status == _TOO_MANY_REQUESTS:
        return "throttle"
    return "transient" if status >= _FIRST_OF_SERVER or status in _TRANSIENT_STATUSES else "permanent"


def _classify(error: Exception, depth: int) -> Kind:
    kind = _registered(error)
    if kind is not None:
        return kind
    if isinstance(error, BaseExceptionGroup):
        return _worst(cast("BaseExceptionGroup[Exception]", error), depth)
    if isinstance(error, RejectedError):
        return "permanent"
    return _by_service(error) or _by_class(error, depth)


def _registered(error: Exception) -> Kind | None:
    for classifier in _classifiers:
        try:
            kind = classifier(error)
            if kind is not None:
                checks.one_of("what a classifier returns", kind, _FROM_BAD_TO_WORST)
        except Exception:  # noqa: BLE001 - a hook must never change a call
            if id(classifier) not in _complained:
                _complained.add(id(classifier))
                complain(classifier)
            continue
        if kind is not None:
            return kind
    return None


def _worst(group: BaseExceptionGroup[Exception], depth: int) -> Kind:
    if depth >= _DEEPEST:
        return "unknown"
    kinds: set[Kind] = {_classify(cast("Exception", leaf), depth + 1) for leaf in group.exceptions}
    return max(kinds, key=_FROM_BAD_TO_WORST.index)


def _by_service(error: Exception) -> Kind | None:
    """Ask what the service said: its status and headers, its codes, the state of a database, the code of gRPC."""
    kind = kind_of_status(shape.status(error))
    words = shape.words(error)
    if kind == "throttle" and ("insufficient_quota" in words or "insufficient_quota" in shape.message(error)):
        return "permanent"
    advice = (shape.header(error, "x-should-retry") or "").lower()
    if advice == "false":
        return "permanent"
    if advice == "true":
        return "throttle" if kind == "throttle" else "transient"
    # AWS answers a throttled call with 400 or 503: the code knows better than the status.
    word: Kind | None = next((known_errors.BY_WORD[each] for each in words if each in known_errors.BY_WORD), None)
    if word is not None and (kind in {None, "permanent"} or word == "throttle"):
        return word
    return kind or _by_sqlstate(error) or _by_grpc(error)


def _by_sqlstate(error: Exception) -> Kind | None:
    state = shape.sqlstate(error)
    if state is None:
        return None
    return known_errors.BY_SQLSTATE.get(state) or known_errors.BY_SQLSTATE_CLASS.get(state[:2], "unknown")


def _by_grpc(error: Exception) -> Kind | None:
    code = shape.look(error, "status")  # grpclib
    if any(cls.__name__ == "RpcError" for cls in type(error).__mro__):  # grpc, and what derives from it
        method = shape.look(error, "code")
        code = _called(method) if callable(method) else code
    name = shape.look(code, "name")
    return known_errors.BY_GRPC.get(name) if isinstance(name, str) else None


def _called(method: Callable[[], Any]) -> Any:
    try:
        return method()
    except Exception:  # noqa: BLE001 - a foreign method
        return None


def _by_class(error: Exception, depth: int) -> Kind:
    for cls in type(error).__mro__:
        name = f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
        if name in known_errors.WRAPPERS:
            return _unwrapped(error, known_errors.WRAPPERS[name], depth)
        known = known_errors.BY_CLASS.get(name)
        if known is not None:
            return "timeout" if isinstance(error, TimeoutError) else known
        if cls.__name__ == "ValidationError":
            return "permanent"
    return _by_builtin(error)


def _unwrapped(error: Exception, attribute: str, depth: int) -> Kind:
    if shape.look(error, "connection_invalidated") is True:  # SQLAlchemy saw that the connection is gone
        return "transient"
    inner = shape.look(error, attribute)
    return _classify(inner, depth + 1) if isinstance(inner, Exception) and depth < _DEEPEST else "unknown"


def _by_builtin(error: Exception) -> Kind:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError):
        return "transient"
    if isinstance(error, _PERMANENT_TYPES):
        return "permanent"
    return "transient" if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS else "unknown"
