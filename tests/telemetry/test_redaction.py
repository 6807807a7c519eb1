"""Planted secrets appear in the bytes of no exporter: neither of arguments, nor of keys, errors or notes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import opentelemetry._logs._internal
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

from asyncguard import monitor, subscribe
from asyncguard._machines.text import Redactor

if TYPE_CHECKING:
    from tests.telemetry.conftest import Lines, Metrics, Spans

EMAIL = "alice.secret@example.com"
KEY = "sk-live-abcdefghijklmnop123456"
SSN = "123-45-6789"
PLANTED = f"{EMAIL} {KEY} {SSN}\n2026-01-01 ERROR root: gone"
MARKS = (EMAIL, KEY, SSN, "hunter2", "private prompt")


class Exported:
    """The log records that an OpenTelemetry log exporter gets, as text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def export(self, batch: Any) -> None:
        self.texts += [each.to_json() if hasattr(each, "to_json") else each.log_record.to_json() for each in batch]

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    exporter = Exported()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))  # type: ignore[arg-type]
    monkeypatch.setattr(opentelemetry._logs._internal, "_LOGGER_PROVIDER", provider)
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "logs/dup")
    return exporter


@monitor(name="ask", record=("model", "options", "password"), output=lambda result: {"echo": result})
def ask(model: str, prompt: str, options: dict[str, Any], password: str, *rest: Any, **more: Any) -> str:
    if model.startswith("fail"):
        error = ValueError(f"could not ask: {PLANTED}, api_key=hunter2, password: 'hunter2'")
        error.add_note(PLANTED)
        raise error from KeyError(PLANTED)
    return PLANTED


def call(model: str) -> None:
    options = {EMAIL: 1, "token": "hunter2", "nested": [{"api_key": "hunter2", "text": KEY}]}
    ask(model, f"private prompt {PLANTED}", options, "hunter2", PLANTED, **{EMAIL: PLANTED})


def test_no_exporter_gets_a_planted_secret(
    spans: Spans, metrics: Metrics, lines: Lines, exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    end = subscribe(lambda event: heard.append(repr(event)))
    call(f"small {KEY}")
    with pytest.raises(ValueError, match="could not ask"):
        call("fail")
    end()
    plain = logging.Formatter("%(levelname)s %(name)s %(message)s")
    extras = [repr(vars(record)) for record in lines.records]
    everything = {
        "spans": spans.text(),
        "metrics": metrics.text(),
        "lines": lines.text(),
        "exception logs": "\n".join(exported.texts),
        "plain": "\n".join(plain.format(record) for record in lines.records),
        "extras": "\n".join(extras),
        "events": "\n".join(heard),
        "root": caplog.text,
    }
    for exporter, text in everything.items():
        assert text or exporter == "root", exporter
        for mark in MARKS:
            assert mark not in text, f"{mark} in {exporter}"
    assert len(lines.text().splitlines()) == 2
    assert len(everything["plain"].splitlines()) == 2


def test_what_was_named_is_there_all_the_same(lines: Lines) -> None:
    call("small")
    record = vars(lines.records[0])
    assert record["asyncguard.record.model"] == "small"
    assert record["asyncguard.record.password"] == "[redacted]"
    assert record["asyncguard.input.prompt.length"] > 50


@given(st.text(), st.text())
def test_an_address_is_found_in_any_surroundings_of_space(before: str, after: str) -> None:
    assert EMAIL not in Redactor().scrub(f"{before} {EMAIL} {after}", 10_000)
