"""The JSON formatter writes one line of valid ASCII whatever is in the record; structlog shows the same fields."""

from __future__ import annotations

import json
import logging
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard.telemetry.logs import JSONFormatter, structlog_processor


def line(formatter: JSONFormatter | None = None, message: object = "hello", **extra: Any) -> str:
    record = logging.getLogger("x.y").makeRecord("x.y", logging.WARNING, "f.py", 1, "%s", (message,), None, extra=extra)
    record.created = 1767225600.25
    return (formatter or JSONFormatter()).format(record)


def test_a_record_is_one_line_of_json() -> None:
    assert json.loads(line(**{"asyncguard.outcome": "ok", "shape": (2, 3)})) == {
        "time": "2026-01-01T00:00:00.250000Z",
        "level": "WARNING",
        "logger": "x.y",
        "message": "hello",
        "asyncguard.outcome": "ok",
        "shape": [2, 3],
    }


def test_fields_of_the_service_are_on_each_line() -> None:
    assert json.loads(line(JSONFormatter(fields={"service": "embedder"})))["service"] == "embedder"


@given(
    st.text(), st.dictionaries(st.text(min_size=1).map("f.".__add__), st.text() | st.floats() | st.binary() | st.none())
)
def test_anything_is_one_line_of_ascii(message: str, extra: dict[str, Any]) -> None:
    text = line(None, message, **extra)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text, parse_constant=pytest.fail)["message"] == message


def test_a_planted_line_stays_inside_its_field() -> None:
    planted = "x\n2026-01-01 ERROR root: gone\u2028\x85\x7f"
    text = line(None, planted, field=planted, nested={"deep": [planted]})
    assert len(text.splitlines()) == 1
    assert json.loads(text)["field"] == planted


def test_numbers_that_json_does_not_know_become_text() -> None:
    assert json.loads(line(None, "m", a=math.nan, b=[math.inf, 1.0], c={"d": -math.inf}))["b"] == ["inf", 1.0]


def test_what_json_cannot_hold_becomes_text() -> None:
    assert (
        json.loads(
            line(
                None,
                "m",
                a=object,
                b={
                    1,
                },
            )
        )["b"]
        == "{1}"
    )


@pytest.mark.parametrize("name", ["password", "user_api_key", "customer"])
def test_fields_with_a_secret_name_lose_their_value(name: str) -> None:
    formatter = JSONFormatter(redact=["^customer$"])
    for _ in range(2):  # the second time the name is known
        assert json.loads(line(formatter, "m", **{name: "hunter2"}))[name] == "[redacted]"


def test_a_stack_is_scrubbed_line_by_line() -> None:
    try:
        int("alice@example.com")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f.py", 1, "m", (), sys.exc_info())
    stack = json.loads(JSONFormatter().format(record))["exception.stacktrace"]
    assert "alice" not in stack
    assert "ValueError" in stack


def test_a_stack_that_another_formatter_has_cached_is_shown_too() -> None:
    record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f.py", 1, "m", (), None)
    record.exc_text = "Traceback: api_key=hunter2"
    assert "hunter2" not in JSONFormatter().format(record)


def test_structlog_shows_the_fields_of_a_foreign_record() -> None:
    record = logging.getLogger("x").makeRecord(
        "x", logging.INFO, "f.py", 1, "m", (), None, extra={"asyncguard.outcome": "ok", "error.type": "E", "other": 1}
    )
    event = structlog_processor(None, "info", {"event": "m", "_record": record})
    assert event["asyncguard.outcome"] == "ok"
    assert event["error.type"] == "E"
    assert "other" not in event


def test_structlog_events_are_escaped_and_secrets_hidden() -> None:
    event = structlog_processor(None, "info", {"event": "a\nb", "password": "hunter2", "n": 1})
    assert event == {"event": "a\\nb", "password": "[redacted]", "n": 1}


def test_with_structlog_itself() -> None:
    structlog = pytest.importorskip("structlog")
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        foreign_pre_chain=[structlog_processor],
    )
    record = logging.getLogger("x").makeRecord(
        "x", logging.INFO, "f.py", 1, "%s", ("a\nb",), None, extra={"asyncguard.outcome": "ok"}
    )
    assert json.loads(formatter.format(record)) == {"event": "a\\nb", "asyncguard.outcome": "ok"}
