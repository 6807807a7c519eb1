"""One span per call, with the real SDK: what is on it, what is current when, and that nothing fails."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import opentelemetry._logs
import opentelemetry._logs._internal
import opentelemetry.trace
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv.attributes import code_attributes, error_attributes, exception_attributes
from opentelemetry.trace import StatusCode

from asyncguard import events, guard, monitor, testing
from asyncguard._strategy import Options, Strategy
from asyncguard.errors import BulkheadFullError
from asyncguard.telemetry import otel

if TYPE_CHECKING:
    from tests.telemetry.conftest import Lines, Metrics, Spans


class Attempts(Strategy[Options, None]):
    """Tries again until the function succeeds, and reports it as `retry` does."""

    kind = "retry"

    def __init__(self, most: int) -> None:
        super().__init__(Options())
        self.most = most
        self.between: list[int] = []

    def new_core(self, clock: Any) -> None:
        return None

    def wrap_async(self, fn: Any, site: Any) -> Any:
        async def trying(*args: Any, **kwargs: Any) -> Any:
            for attempt in range(1, self.most + 1):
                if attempt > 1:
                    self.emit(site, events.AttemptStarted(attempt=attempt))
                try:
                    return await fn(*args, **kwargs)
                except ConnectionError as error:
                    if attempt == self.most:
                        self.emit(
                            site,
                            events.RetryGaveUp(
                                attempts=attempt, elapsed=0.0, reason="max_retries", kind="x", error=error
                            ),
                        )
                        raise
                    self.emit(site, events.RetryScheduled(attempt=attempt, delay=0.0, kind="x", error=error))
                    self.between.append(trace.get_current_span().get_span_context().span_id)
            return None

        return trying


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    return testing.run(lambda: function(*args, **kwargs))


async def embed(texts: list[str]) -> list[float]:
    await asyncio.sleep(0.25)
    return [0.0] * 768


def test_a_call_is_one_span(spans: Spans) -> None:
    run(monitor(embed), ["a", "b"])
    span = spans.one()
    assert span.name.endswith("test_spans.embed")
    assert span.kind is trace.SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["asyncguard.outcome"] == "ok"
    assert span.attributes["asyncguard.input.texts.length"] == 2
    assert span.attributes["asyncguard.output.length"] == 768
    assert "asyncguard.decorators" not in span.attributes
    assert span.instrumentation_scope.name == "asyncguard"
    assert not span.events


def test_the_names_are_those_of_the_semantic_conventions(spans: Spans) -> None:
    @monitor
    def failing() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        failing()
    attributes = spans.one().attributes
    assert attributes[code_attributes.CODE_FUNCTION_NAME].endswith("failing")
    assert attributes[code_attributes.CODE_FILE_PATH] == __file__
    assert attributes[code_attributes.CODE_LINE_NUMBER] > 1
    assert attributes[error_attributes.ERROR_TYPE] == "OSError"
    (event,) = spans.one().events
    assert event.attributes[exception_attributes.EXCEPTION_TYPE] == "OSError"
    assert event.attributes[exception_attributes.EXCEPTION_MESSAGE] == "gone"
    assert "in failing" in event.attributes[exception_attributes.EXCEPTION_STACKTRACE]


def test_the_span_is_current_in_the_function_and_not_after(spans: Spans) -> None:
    @monitor
    async def inside() -> int:
        return trace.get_current_span().get_span_context().span_id

    async def main() -> None:
        seen = await inside()
        assert seen == spans.one().context.span_id
        assert trace.get_current_span() is trace.INVALID_SPAN

    run(main)


def test_monitored_calls_inside_each_other_are_parent_and_child(spans: Spans) -> None:
    @monitor("outer")
    async def outer() -> None:
        await monitor("inner")(embed)([])

    run(outer)
    inner, outer_span = spans.all()
    assert inner.parent.span_id == outer_span.context.span_id


def test_an_error_is_an_error_of_the_span(spans: Spans) -> None:
    @monitor
    async def failing() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        run(failing)
    span = spans.one()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "bad"
    assert len(span.events) == 1


def test_a_rejection_is_an_error_without_a_stack(spans: Spans) -> None:
    @monitor
    def full() -> None:
        raise BulkheadFullError("10 of 10 running")

    with pytest.raises(BulkheadFullError):
        full()
    (event,) = spans.one().events
    assert spans.one().attributes["asyncguard.outcome"] == "rejected"
    assert "exception.stacktrace" not in event.attributes


def test_a_cancelled_call_is_no_error(spans: Spans) -> None:
    async def main() -> None:
        task = asyncio.create_task(monitor(embed)([]))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(main)
    span = spans.one()
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["asyncguard.outcome"] == "cancelled"
    assert not span.events


def test_attempts_have_spans_from_the_second_on(spans: Spans) -> None:
    seen: list[int] = []
    attempts = Attempts(3)

    @guard(monitor("flaky"), attempts)
    async def flaky() -> str:
        seen.append(trace.get_current_span().get_span_context().span_id)
        if len(seen) < 3:
            raise ConnectionError("reset")
        return "ok"

    run(flaky)
    second, third, call = spans.all()
    assert (second.name, call.name) == ("flaky attempt", "flaky")
    assert [span.attributes["asyncguard.attempt"] for span in (second, third)] == [2, 3]
    assert second.parent.span_id == third.parent.span_id == call.context.span_id
    assert seen == [call.context.span_id, second.context.span_id, third.context.span_id]
    assert attempts.between == [call.context.span_id] * 2
    assert call.attributes["asyncguard.attempts"] == 3
    assert call.attributes["asyncguard.decorators"] == ("monitor", "retry")


def test_a_retried_error_is_no_error_of_any_span(spans: Spans) -> None:
    left = [ConnectionError("reset"), ConnectionError("reset")]

    @guard(monitor("flaky"), Attempts(3))
    async def flaky() -> None:
        if left:
            raise left.pop()

    run(flaky)
    second, _third, call = spans.all()
    assert {span.status.status_code for span in spans.all()} == {StatusCode.UNSET}
    assert second.attributes["error.type"] == "ConnectionError"
    assert "error.type" not in call.attributes
    assert not call.events


def test_a_call_that_gave_up_is_an_error_of_its_span_alone(spans: Spans) -> None:
    @guard(monitor("flaky"), Attempts(2))
    async def flaky() -> None:
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError):
        run(flaky)
    second, call = spans.all()
    assert (second.status.status_code, call.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_log_record_names_its_span(spans: Spans, lines: Lines) -> None:
    run(monitor(embed), [])
    record = vars(lines.records[0])
    assert record["trace_id"] == f"{spans.one().context.trace_id:032x}"
    assert record["span_id"] == f"{spans.one().context.span_id:016x}"


# --- generators -------------------------------------------------------------------------------------------------------


@monitor("stream")
async def stream(n: int) -> AsyncIterator[int]:
    for _ in range(n):
        await asyncio.sleep(1)
        yield trace.get_current_span().get_span_context().span_id


def test_an_async_generator_is_one_span_current_around_each_item(spans: Spans) -> None:
    async def main() -> list[int]:
        seen = []
        async for number in stream(3):
            assert trace.get_current_span() is trace.INVALID_SPAN
            seen.append(number)
        return seen

    seen = run(main)
    span = spans.one()
    assert set(seen) == {span.context.span_id}
    assert span.attributes["asyncguard.items"] == 3
    assert span.attributes["asyncguard.largest_gap"] == pytest.approx(1.0)


@pytest.mark.parametrize("close", [True, False])
def test_an_early_break_logs_nothing_and_leaks_no_span(
    spans: Spans, caplog: pytest.LogCaptureFixture, close: bool
) -> None:
    async def main() -> None:
        items = stream(3)
        async for _ in items:
            break
        if close:
            await items.aclose()  # type: ignore[attr-defined]
        del items
        gc.collect()
        await asyncio.sleep(1)
        assert trace.get_current_span() is trace.INVALID_SPAN

    run(main)
    assert spans.one().attributes["asyncguard.completed"] is False
    assert [each for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []


def test_a_generator_closed_in_another_context_ends_its_span(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        items = stream(3)
        await asyncio.create_task(anext(aiter(items)))  # type: ignore[arg-type]
        await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]

    run(main)
    assert spans.one().attributes["asyncguard.items"] == 1
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]


class Never:
    def __await__(self) -> Iterator[None]:
        yield


def test_a_coroutine_that_nobody_finished_ends_without_noise(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    @monitor
    async def parked() -> None:
        await Never()

    coroutine = parked()
    contextvars.copy_context().run(coroutine.send, None)
    with spans.provider.get_tracer("other").start_as_current_span("other") as other:
        coroutine.close()  # here: another context than the one in which it began
        assert trace.get_current_span() is other
    assert spans.all()[0].attributes["asyncguard.outcome"] == "cancelled"
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]


def test_a_sync_generator_is_one_span(spans: Spans) -> None:
    @monitor
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(numbers(3)) == [0, 1, 2]
    assert spans.one().attributes["asyncguard.completed"] is True


# --- with and without an SDK ------------------------------------------------------------------------------------------


def test_without_an_sdk_there_is_no_telemetry() -> None:
    assert otel.current() is None


def test_a_no_op_provider_builds_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", opentelemetry.trace.NoOpTracerProvider())
    current = otel.current()
    assert current is not None
    assert current.tracer is None
    assert run(monitor(embed), []) == [0.0] * 768


def test_a_provider_that_is_set_later_is_found(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    watched = monitor(embed)
    run(watched, [])
    spans = request.getfixturevalue("spans")
    run(watched, [])
    assert len(spans.all()) == 1


def test_where_the_api_keeps_its_provider() -> None:
    """We look there to find out without cost; should the API move it, this says so."""
    assert "_TRACER_PROVIDER" in vars(opentelemetry.trace)
    assert "_METER_PROVIDER" in vars(opentelemetry.metrics._internal)  # type: ignore[attr-defined]


def test_a_monitored_call_does_not_import_the_api() -> None:
    code = (
        "import sys; from asyncguard import monitor; monitor(len)('abc');"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_span_that_is_not_sampled_costs_no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    described: list[object] = []
    run(monitor(inputs=described.append)(embed), [])
    assert described == []
    otel.reset()


def test_a_broken_tracer_costs_nobody_a_call(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Tracer:
        def start_span(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("alice@example.com")

    class Provider:
        def get_tracer(self, *args: Any) -> Any:
            return Tracer()

    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", Provider())
    assert run(monitor("p")(embed), []) == [0.0] * 768
    (complaint,) = [each for each in caplog.records if each.name == "asyncguard"]
    assert complaint.getMessage() == "asyncguard: monitoring of p failed: RuntimeError"


def test_a_tracer_that_breaks_between_attempts_costs_nobody_a_call(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(otel.CallSpan, "attempt", broken)
    left = [ConnectionError()]

    @guard(monitor("p"), Attempts(2))
    async def flaky() -> str:
        if left:
            raise left.pop()
        return "ok"

    assert run(flaky) == "ok"
    assert spans.one().attributes["asyncguard.attempts"] == 2
    assert [each.getMessage() for each in caplog.records if each.name == "asyncguard"] == [
        "asyncguard: monitoring of p failed: RuntimeError"
    ]


# --- exceptions as logs -----------------------------------------------------------------------------------------------


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Any:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

    try:
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter as Exporter
    except ImportError:
        from opentelemetry.sdk._logs.export import InMemoryLogExporter as Exporter
    exporter = Exporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(opentelemetry._logs._internal, "_LOGGER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize(("opted", "logs", "on_span"), [("", 0, 1), ("logs", 1, 0), ("logs/dup", 1, 1)])
def test_exceptions_go_where_the_application_wants_them(
    spans: Spans, exported: Any, monkeypatch: pytest.MonkeyPatch, opted: str, logs: int, on_span: int
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", opted)

    @monitor
    def failing() -> None:
        raise ValueError("mail alice@example.com")

    with pytest.raises(ValueError, match="alice"):
        failing()
    finished = exported.get_finished_logs()
    assert (len(finished), len(spans.one().events)) == (logs, on_span)
    for each in finished:
        assert each.log_record.attributes["exception.message"] == "mail [redacted]"
        assert each.log_record.span_id == spans.one().context.span_id


# --- metrics of calls -------------------------------------------------------------------------------------------------


def test_durations_have_buckets_in_seconds_and_outcomes(metrics: Metrics) -> None:
    @monitor("work")
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        if seconds > 1:
            raise ValueError("slow")

    async def main() -> None:
        for seconds in (0.004, 0.02, 0.3, 1.2):
            with contextlib.suppress(ValueError):
                await work(seconds)
        assert metrics.values("asyncguard.call.active")["work",] == 0  # not later: it goes with its clock

    run(main)
    points = {point.attributes["asyncguard.outcome"]: point for point in metrics.points("asyncguard.call.duration")}
    assert sum(count > 0 for count in points["ok"].bucket_counts) == 3
    assert dict(points["error"].attributes) == {
        "asyncguard.pipeline": "work",
        "asyncguard.outcome": "error",
        "error.type": "ValueError",
    }


def test_calls_in_flight_are_counted(metrics: Metrics) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(monitor("work")(embed)([]))
            await asyncio.sleep(0.1)
            assert metrics.values("asyncguard.call.active")["work",] == 3

    run(main)
    assert not any(metrics.values("asyncguard.call.active").values())


def test_kinds_of_errors_are_bounded_as_labels(metrics: Metrics) -> None:
    @monitor
    def failing(number: int) -> None:
        raise type(f"Error{number}", (Exception,), {})

    for number in range(80):
        with contextlib.suppress(Exception):
            failing(number)
    kinds = {point.attributes["error.type"] for point in metrics.points("asyncguard.call.duration")}
    assert len(kinds) == 51
    assert "_OTHER" in kinds


def test_events_of_all_strategies_are_counted_once_a_meter_is_set(metrics: Metrics) -> None:
    @guard(monitor("flaky"), Attempts(2))
    async def flaky() -> None:
        raise ConnectionError

    with contextlib.suppress(ConnectionError):
        run(flaky)
    assert list(metrics.values("asyncguard.retry.attempts").values()) == [1]
