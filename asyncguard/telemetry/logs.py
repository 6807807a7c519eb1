"""Structured records for the standard library's logging: a JSON formatter, and a processor for structlog."""

from __future__ import annotations

import functools
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast

from asyncguard._machines.text import REDACTED, Redactor, escape

__all__ = ["JSONFormatter", "structlog_processor"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MOST_NAMES = 1024
_OURS = ("asyncguard.", "code.", "error.", "exception.", "span_id", "trace_id")


class JSONFormatter(logging.Formatter):
    """Formats every record as one line of JSON: time (UTC), level, logger, message, and its `extra` fields.

    `fields` are added to each line (service, version). Fields whose name looks secret lose their value; `redact` adds
    patterns to those of asyncguard. Whatever is in a message, the line stays one line of ASCII.
    """

    def __init__(self, *, fields: Mapping[str, object] | None = None, redact: Iterable[str] = ()) -> None:
        super().__init__()
        self._fields = dict(fields or {})
        self._redactor = Redactor(redact)
        self._known: dict[str, bool] = {}
        self._encode = json.JSONEncoder(default=str, allow_nan=False, skipkeys=True).encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                hidden = self._known.get(name)
                line[name] = REDACTED if (self._secret(name) if hidden is None else hidden) else value
        if record.exc_info or record.exc_text:
            line["exception.stacktrace"] = self._stack(record)
        return self._json(line)

    def _secret(self, name: str) -> bool:
        secret = self._redactor.secret(name)
        if len(self._known) < _MOST_NAMES:  # the names of fields are few, unless somebody makes them up
            self._known[name] = secret
        return secret

    def _stack(self, record: logging.LogRecord) -> str:
        text = record.exc_text
        if not text and record.exc_info:
            text = self.formatException(record.exc_info)
        return "\n".join(self._redactor.scrub(line) for line in (text or "").splitlines())

    def _json(self, line: dict[str, Any]) -> str:
        try:
            text = self._encode(line)
        except ValueError:  # NaN is no JSON
            text = self._encode(_finite(line))
        return text.replace("\x7f", "\\u007f")  # the one control character that JSON lets pass


def _utc(seconds: float) -> str:
    whole = math.floor(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1e6):06d}Z"


@functools.lru_cache(maxsize=4)  # many records have the same second
def _second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in cast("list[Any]", value)]
    return value


@functools.cache  # its patterns are compiled on first use
def _redactor() -> Redactor:
    return Redactor()


def structlog_processor(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let structlog show asyncguard's records: add the fields of a foreign record, hide secrets, escape text.

    Put it in the `foreign_pre_chain` of `structlog.stdlib.ProcessorFormatter` (there it finds the record under
    `_record`), and in the chain of your own loggers if you want the same names hidden there.
    """
    del logger, method
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event.update({name: value for name, value in vars(record).items() if name.startswith(_OURS)})
    for name, value in event.items():
        if isinstance(value, str) and not name.startswith("_") and name != "exception.stacktrace":
            event[name] = REDACTED if _redactor().secret(name) else escape(value)
    return event
