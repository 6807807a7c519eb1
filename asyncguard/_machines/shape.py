"""What an error or a response carries, told by its shape: a status, headers, a code. Nothing is imported for it.

Attributes of foreign objects may be properties that raise, responses may be false (`requests.Response` of a 404), and
numbers may be anything: every look is guarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

__all__ = ["header", "look", "message", "own_status", "sqlstate", "status", "words"]

_FIRST_STATUS, _LAST_STATUS = 100, 599
_SQLSTATE = 5  # characters


def look(thing: object, name: str) -> Any:
    """Return an attribute, None if there is none or reading it fails."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of a foreign object may raise anything
        return None


def message(error: BaseException) -> str:
    """Return the text of an error, empty if its own `__str__` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a method of a foreign object may raise anything
        return ""


def own_status(thing: object) -> int | None:
    """Return the HTTP status that an error or response itself has."""
    return _first_status(_own_statuses(thing))


def status(thing: object) -> int | None:
    """Return the HTTP status of an error or response: its own, its response's, boto's, or an integer `code`."""
    return _first_status(_statuses(thing))


def _first_status(values: Iterable[Any]) -> int | None:
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool) and _FIRST_STATUS <= value <= _LAST_STATUS:
            return int(value)  # `http.HTTPStatus` is an int, too
    return None


def _own_statuses(thing: object) -> Iterator[Any]:
    yield look(thing, "status_code")  # openai, anthropic, httpx and requests responses, qdrant
    yield look(thing, "status")  # aiohttp, urllib3 responses


def _statuses(thing: object) -> Iterator[Any]:
    yield from _own_statuses(thing)
    response = look(thing, "response")
    if isinstance(response, Mapping):  # boto3: ClientError.response
        yield _inside(response, "ResponseMetadata", "HTTPStatusCode")
    elif response is not None:
        yield from _own_statuses(response)
    yield look(thing, "code")  # urllib, google.api_core


def header(thing: object, name: str) -> str | None:
    """Return a header of an error or response as text, whatever the case of its name; None if it has none."""
    for headers in _all_headers(thing):
        value = _find(headers, name)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            return value.strip()
    return None


def _all_headers(thing: object) -> Iterator[Any]:
    response = look(thing, "response")
    yield look(thing, "headers")
    yield look(response, "headers")
    yield _inside(response, "ResponseMetadata", "HTTPHeaders")


def _find(headers: Any, name: str) -> Any:
    # urllib's message and some clients' headers are no Mapping, but have `items`.
    if not callable(look(headers, "items")):
        return None
    try:
        for key, value in headers.items():
            text = key.decode("latin-1") if isinstance(key, bytes) else key
            if isinstance(text, str) and text.lower() == name:
                return value
    except Exception:  # noqa: BLE001 - see `look`
        return None
    return None


def _inside(value: Any, *path: str) -> Any:
    for name in path:
        if not isinstance(value, Mapping):
            return None
        try:
            value = cast("Mapping[object, Any]", value).get(name)
        except Exception:  # noqa: BLE001 - see `look`
            return None
    return value


def words(error: object) -> list[str]:
    """Return the codes by which a service names the error: `code`, `type`, those of a JSON body, boto's `Code`."""
    found = [_code(error), look(error, "type")]
    for body in (look(error, "body"), look(error, "response")):
        for part in (_inside(body, "error"), _inside(body, "Error"), body):
            found += [_inside(part, key) for key in ("code", "type", "Code")]
    return [word for word in found if isinstance(word, str)]


def _code(error: object) -> Any:
    # Beside a status, a property is the status again; aiohttp's is deprecated and warns whoever reads it.
    again = isinstance(look(type(error), "code"), property) and isinstance(look(error, "status"), int)
    return None if again else look(error, "code")


def sqlstate(error: object) -> str | None:
    """Return the five characters by which a database names the error (asyncpg, psycopg, psycopg2, SQLAlchemy)."""
    for name in ("sqlstate", "pgcode"):
        value = look(error, name)
        if isinstance(value, str) and len(value) == _SQLSTATE:
            return value
    return None
