"""`monitor`: one log record per call with what happened, its own counts, and never a changed call. No SDK here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import anyio
import cloudpickle
import numpy as np
import pytest

from asyncguard import events, guard, monitor, status, testing
from asyncguard._runtime import holds, record
from asyncguard._strategy import Options, Strategy
from asyncguard.errors import BulkheadFullError, RejectedError
from asyncguard.strategies.monitor import Monitor
from asyncguard.telemetry import report
from asyncguard.telemetry.logs import JSONFormatter


class Written(logging.Handler):
    """What the monitor's logger got: records, and the lines of the JSON formatter."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []
        self.setFormatter(JSONFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))

    def one(self) -> dict[str, Any]:
        (line,) = self.lines
        return json.loads(line)

    def fields(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    report._stacks.clear()
    report._complaints.clear()
    handler = Written()
    logger = logging.getLogger("asyncguard.monitor")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


class Tell(Strategy[Options, None]):
    """A strategy inside the monitor that reports what it is told to."""

    kind = "retry"

    def __init__(self, *told: events.Event, error: BaseException | None = None) -> None:
        super().__init__(Options())
        self.told = told
        self.error = error

    def new_core(self, clock: Any) -> None:
        return None

    def wrap_async(self, fn: Any, site: Any) -> Any:
        async def telling(*args: Any, **kwargs: Any) -> Any:
            result = await fn(*args, **kwargs)
            for event in self.told:
                self.emit(site, event)
            if self.error is not None:
                raise self.error
            return result

        return telling


async def predict(
    x: Any = None, model: str = "small", *rest: Any, temperature: float = 0.0, **more: Any
) -> list[float]:
    await asyncio.sleep(0)
    return [0.5, 0.5]


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    return testing.run(lambda: function(*args, **kwargs))


# --- one record per call ----------------------------------------------------------------------------------------------


def test_a_call_is_one_line_with_time_outcome_inputs_and_output(written: Written) -> None:
    assert run(monitor("embedder")(predict), np.zeros((32, 768), "f4"), "large", temperature=0.5) == [0.5, 0.5]
    line = written.one()
    assert line["level"] == "INFO"
    assert line["message"] == "embedder ok in 0 s"
    assert line["asyncguard.pipeline"] == "embedder"
    assert line["asyncguard.outcome"] == "ok"
    assert line["asyncguard.duration"] == 0.0
    assert line["asyncguard.attempts"] == 1
    assert line["asyncguard.input.x.shape"] == [32, 768]
    assert line["asyncguard.input.x.dtype"] == "float32"
    assert line["asyncguard.input.x.nonfinite"] == 0.0
    assert line["asyncguard.input.model.length"] == 5
    assert line["asyncguard.input.temperature.type"] == "float"
    assert line["asyncguard.output.length"] == 2
    assert line["code.function.name"].endswith("test_monitor.predict")
    assert line["code.line.number"] == predict.__code__.co_firstlineno


def test_the_duration_is_that_of_the_call(backend: str) -> None:
    @monitor("slowly")
    async def slowly() -> None:
        import anyio

        await anyio.sleep(1.5)

    strategy = testing.run(lambda: watch(slowly), backend=backend)
    (snapshot,) = strategy["slowly"].values()
    assert snapshot.total == pytest.approx(1.5)


async def watch(function: Any) -> Any:
    from asyncguard import pipeline_of

    await function()
    return pipeline_of(function)[Monitor].durations()


def test_sync_functions_are_watched_the_same(written: Written) -> None:
    @monitor
    def classify(text: str) -> str:
        return "a"

    assert classify("hello") == "a"
    line = written.one()
    assert line["asyncguard.input.text.length"] == 5
    assert line["asyncguard.output.type"] == "str"
    assert line["asyncguard.pipeline"].endswith("classify")


def test_methods_leave_their_instance_out(written: Written) -> None:
    class Model:
        @monitor
        def predict(self, x: int) -> int:
            return x

        @classmethod
        @monitor
        def load(cls, path: str) -> str:
            return path

        @staticmethod
        @monitor
        def warm(n: int) -> int:
            return n

    assert (Model().predict(1), Model.load("a"), Model.warm(2)) == (1, "a", 2)
    fields = [{key for key in line if key.startswith("asyncguard.input.")} for line in written.fields()]
    assert fields == [
        {"asyncguard.input.x.type"},
        {"asyncguard.input.path.type", "asyncguard.input.path.length", "asyncguard.input.path.characters"},
        {"asyncguard.input.n.type"},
    ]


def test_names_that_callers_make_up_do_not_appear(written: Written) -> None:
    run(monitor(predict), 1, "m", "third", "fourth", **{"alice@example.com": 1, "b": 2})
    line = written.one()
    assert "alice" not in written.lines[0]
    assert line["asyncguard.input.rest.length"] == 2
    assert line["asyncguard.input.kwargs.length"] == 2


def test_a_function_without_a_signature_can_be_watched(written: Written) -> None:
    watched = monitor("builtin")(functools.partial(max, 1))
    assert watched(2) == 2
    assert written.one()["asyncguard.outcome"] == "ok"


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_an_error_is_written_before_it_goes_on(written: Written) -> None:
    @monitor("failing")
    async def failing(x: int) -> None:
        raise ValueError("bad shape (3, 4)")

    async def main() -> None:
        with pytest.raises(ValueError, match="bad shape"):
            await failing(1)
        line = written.one()
        assert line["level"] == "ERROR"
        assert line["message"] == "failing error in 0 s: ValueError: bad shape (3, 4)"
        assert line["asyncguard.outcome"] == "error"
        assert line["error.type"] == line["exception.type"] == "ValueError"
        assert line["exception.stacktrace"].splitlines()[-1] == "ValueError: bad shape (3, 4)"
        assert "in failing" in line["exception.stacktrace"]

    run(main)


def test_the_error_that_leaves_is_the_users_own(written: Written) -> None:
    error = KeyError("x")

    @monitor
    def failing() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        failing()
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_an_error_is_written_although_ordinary_calls_are_not(written: Written) -> None:
    logging.getLogger("asyncguard.monitor").setLevel(logging.WARNING)

    @monitor
    def half(x: int) -> float:
        return 1 / x

    half(1)
    with pytest.raises(ZeroDivisionError):
        half(0)
    line = written.one()
    assert line["error.type"] == "ZeroDivisionError"
    assert line["asyncguard.input.x.type"] == "int"


def test_a_cancelled_call_is_no_error(written: Written) -> None:
    @monitor
    async def forever() -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert record.current() is None

    run(main)
    line = written.one()
    assert (line["asyncguard.outcome"], line["level"]) == ("cancelled", "INFO")
    assert "error.type" not in line


def test_an_interrupt_passes(written: Written) -> None:
    @monitor
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written.one()["asyncguard.outcome"] == "cancelled"


def test_a_rejection_is_a_warning_without_a_stack(written: Written) -> None:
    told = events.CallRejected(reason="open", retry_after=3.0, strategy="breaker")
    watched = guard(monitor("p"), Tell(told, error=BulkheadFullError("full")))(predict)
    with pytest.raises(RejectedError):
        run(watched)
    line = written.one()
    assert (line["asyncguard.outcome"], line["level"]) == ("rejected", "WARNING")
    assert line["asyncguard.rejected.by"] == "breaker"
    assert line["asyncguard.circuit.state"] == "open"
    assert "exception.stacktrace" not in line


def test_a_fallback_is_a_warning_and_no_error(written: Written) -> None:
    watched = guard(monitor("p"), Tell(events.FallbackUsed(position=2, error=ValueError("x"))))(predict)
    run(watched)
    line = written.one()
    assert (line["asyncguard.outcome"], line["level"]) == ("fallback", "WARNING")
    assert line["asyncguard.fallback.position"] == 2
    assert "error.type" not in line


def test_what_is_out_of_the_ordinary_is_written_although_ordinary_calls_are_not(written: Written) -> None:
    logging.getLogger("asyncguard.monitor").setLevel(logging.WARNING)

    async def main() -> None:
        await monitor("ordinary", slow=1.0)(asyncio.sleep)(0.5)
        await monitor("slow", slow=1.0)(asyncio.sleep)(1.5)
        await guard(monitor("degraded"), Tell(events.FallbackUsed(position=1, error=ValueError())))(predict)()

    run(main)
    assert [line["asyncguard.pipeline"] for line in written.fields()] == ["slow", "degraded"]
    assert written.fields()[0]["message"] == "slow ok in 1.5 s (slow: 1 s or more)"


def test_what_the_inner_strategies_did_is_in_the_line(written: Written) -> None:
    told = (
        events.AttemptStarted(attempt=2),
        events.CacheHit(age=2.0),
        events.MemoryDecided(decision="waited", used=1, limit=2, reserved=0, need=3, waited=0.5),
    )
    run(guard(monitor("p"), Tell(*told))(predict))
    line = written.one()
    assert line["message"].endswith("after 2 attempts")
    assert line["asyncguard.attempts"] == 2
    assert line["asyncguard.cache"] == "hit"
    assert line["asyncguard.memory.wait"] == 0.5
    assert line["asyncguard.decorators"] == ["monitor", "retry"]


def test_what_another_pipeline_did_is_not(written: Written) -> None:
    inner = guard(Tell(events.AttemptStarted(attempt=7)))(predict)

    @monitor
    async def outer() -> None:
        await inner()

    run(outer)
    assert written.one()["asyncguard.attempts"] == 1


def test_a_slow_call_is_a_warning(written: Written) -> None:
    @monitor(slow=timedelta(seconds=2))
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        await work(1.9)
        await work(2.1)

    run(main)
    quick, slow = written.fields()
    assert (quick["level"], slow["level"]) == ("INFO", "WARNING")
    assert slow["asyncguard.slow"] is True
    assert "asyncguard.slow" not in quick


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_values_appear_only_if_named_and_then_scrubbed(written: Written) -> None:
    @monitor(record=("model", "options.language", "options.api_key", "options.none", "password", "x"))
    def ask(model: str, options: dict[str, Any], password: str = "", x: Any = None) -> None:
        return None

    ask("mail alice@example.com", {"language": "en", "api_key": "k-1", "prompt": "secret text"}, "hunter2", {"a": [1]})
    line = written.one()
    assert line["asyncguard.record.model"] == "mail [redacted]"
    assert line["asyncguard.record.options.language"] == "en"
    assert line["asyncguard.record.options.api_key"] == "[redacted]"
    assert line["asyncguard.record.password"] == "[redacted]"
    assert line["asyncguard.record.x"] == '{"a": [1]}'
    assert "asyncguard.record.options.none" not in line
    for secret in ("hunter2", "k-1", "secret text", "alice"):
        assert secret not in written.lines[0]


def test_inputs_and_output_may_be_off(written: Written) -> None:
    run(monitor(inputs="off", output="off")(predict), 1)
    assert not [key for key in written.one() if key.startswith(("asyncguard.input", "asyncguard.output"))]


def test_inputs_and_output_may_be_chosen(written: Written) -> None:
    watched = monitor(inputs=lambda x, **_: {"rows": len(x), "token": "k-1"}, output=sum)(predict)
    run(watched, [1, 2, 3])
    line = written.one()
    assert line["asyncguard.input.rows"] == 3
    assert line["asyncguard.input.token"] == "[redacted]"
    assert line["asyncguard.output.value"] == 1.0


def test_a_failing_choice_costs_neither_the_call_nor_the_line(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    watched = monitor("p", inputs=lambda x: {"n": x.alice}, output=lambda result: result.alice)(predict)
    for _ in range(3):
        assert run(watched, "alice@example.com") == [0.5, 0.5]
    assert [line["asyncguard.outcome"] for line in written.fields()] == ["ok"] * 3
    (complaint,) = [each for each in caplog.records if each.name == "asyncguard"]
    assert complaint.getMessage() == "asyncguard: monitoring of p failed: AttributeError"


def test_inputs_are_described_as_they_came_in(written: Written) -> None:
    @monitor
    def consume(batch: list[int]) -> int:
        batch.clear()
        return 0

    consume([1, 2, 3])
    assert written.one()["asyncguard.input.batch.length"] == 3


def test_statistics_are_taken_of_the_first_and_then_few(written: Written) -> None:
    @monitor
    def score(x: Any) -> None:
        return None

    for _ in range(65):
        score(np.ones(100))
    looked = [number for number, line in enumerate(written.fields()) if "asyncguard.input.x.mean" in line]
    assert looked == [0, 64]


def test_only_a_share_of_ordinary_calls_is_logged(written: Written) -> None:
    @monitor(sample=0.25)
    def work(x: int) -> float:
        return 1 / x

    with testing.virtual_clock(seed=3):
        for _ in range(400):
            work(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                work(0)
    outcomes = [line["asyncguard.outcome"] for line in written.fields()]
    assert 60 < outcomes.count("ok") < 140
    assert outcomes.count("error") == 3


def test_a_storm_of_errors_writes_every_line_but_few_stacks(written: Written) -> None:
    @monitor
    def failing() -> None:
        raise ValueError("no")

    for _ in range(50):
        with pytest.raises(ValueError, match="no"):
            failing()
    assert len(written.lines) == 50
    assert sum("exception.stacktrace" in line for line in written.fields()) == 5


def test_a_planted_line_stays_one_line(written: Written) -> None:
    planted = "x\n2026-01-01 ERROR root: gone"
    stream_formatter = logging.Formatter("%(levelname)s %(message)s")

    @monitor(planted, record=("x",))
    def failing(x: str) -> None:
        raise ValueError(planted)

    with pytest.raises(ValueError, match="gone"):
        failing(planted)
    assert len(written.lines[0].splitlines()) == 1
    assert len(stream_formatter.format(written.records[0]).splitlines()) == 1
    for name, value in vars(written.records[0]).items():
        if isinstance(value, str) and name.startswith(("asyncguard.", "exception.message")):
            assert "\n" not in value


def test_an_exception_that_cannot_be_printed_is_written_without_its_message(written: Written) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @monitor
    def failing() -> None:
        raise BrokenError

    with pytest.raises(BrokenError):
        failing()
    assert written.one()["exception.message"] == ""


def test_records_may_go_to_a_logger_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mine"):
        monitor(logger="mine")(len)("abc")
        monitor(logger=logging.getLogger("mine"))(len)("abc")
    assert [each.name for each in caplog.records] == ["mine", "mine"]


# --- counts, events and modes -----------------------------------------------------------------------------------------


def test_calls_are_counted_by_outcome_and_while_they_run() -> None:
    strategy = monitor("work")

    @strategy
    async def work(x: int) -> float:
        assert strategy.active() == 1
        return 1 / x

    async def main() -> None:
        for x in (1, 1, 0):
            with contextlib.suppress(ZeroDivisionError):
                await work(x)
        assert strategy.active() == 0
        assert {outcome: each.count for outcome, each in strategy.durations()["work"].items()} == {"ok": 2, "error": 1}
        assert [line.partition(",")[0] for line in strategy.describe()] == ["work: 2 ok", "work: 1 error"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("asyncguard.monitor"), "disabled", True)
        run(main)


def test_a_shared_monitor_counts_its_functions_apart() -> None:
    strategy = monitor()
    strategy(len)("a")
    strategy(max)(1, 2)
    assert sorted(strategy.durations()) == ["len", "max"]


def test_the_calls_are_events_for_those_who_listen() -> None:
    heard: list[events.Event] = []
    watched = monitor("p", on_event=heard.append)(predict)
    run(watched)
    started, finished = heard
    assert isinstance(started, events.CallStarted)
    assert isinstance(finished, events.CallFinished)
    assert (finished.outcome, finished.attempts, finished.error_type) == ("ok", 1, "")


def test_subscribers_hear_of_an_error() -> None:
    @monitor
    def failing() -> None:
        raise OSError("x")

    with testing.record_events() as recorded, pytest.raises(OSError, match="x"):
        failing()
    assert recorded.of(events.CallFinished)[0].error_type == "OSError"


def test_mode_off_does_nothing_at_all(written: Written) -> None:
    strategy = monitor(mode="off")
    assert run(strategy(predict)) == [0.5, 0.5]
    assert strategy(len)("abc") == 3
    assert list(strategy(numbers)(2)) == [0, 1]
    assert run(guard(strategy, stream=True)(predict)) == [0.5, 0.5]
    assert strategy.durations() == {}
    assert not written.lines


def test_options_change_in_place_and_for_a_block(written: Written) -> None:
    strategy = monitor("p")
    watched = strategy(len)
    with strategy.override(inputs="off", output="off"):
        watched("abc")
    strategy.configure(output="off")
    watched("abc")
    during, after = written.fields()
    assert "asyncguard.output.type" not in during
    assert "asyncguard.output.type" not in after
    assert "asyncguard.input.obj.length" in after or "asyncguard.input.args.length" in after


def test_a_monitored_function_survives_pickling(written: Written) -> None:
    strategy = pickle.loads(pickle.dumps(monitor("p", slow=2.0, logger=logging.getLogger("mine"))))
    assert strategy.options.slow == 2.0
    double = monitor("double")(lambda x: 2 * x)
    double(1)
    again = cloudpickle.loads(cloudpickle.dumps(double))
    assert again(2) == 4
    assert len(written.lines) == 2


def test_a_forked_child_counts_from_zero() -> None:
    strategy = monitor("p", logger="nobody")
    watched = strategy(len)
    watched("abc")
    strategy.after_fork()
    assert strategy.durations() == {"p": {}}
    watched("abc")
    assert strategy.durations()["p"]["ok"].count == 1


# --- generators and streams -------------------------------------------------------------------------------------------


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@monitor("stream")
async def stream(n: int, pause: float = 1.0) -> AsyncIterator[int]:
    for number in range(n):
        await asyncio.sleep(pause * (number + 1))
        assert record.current() is not None
        yield number


def test_a_generator_is_one_call_until_its_last_item(written: Written) -> None:
    async def main() -> list[int]:
        return [number async for number in stream(3)]

    assert run(main) == [0, 1, 2]
    line = written.one()
    assert line["asyncguard.items"] == 3
    assert line["asyncguard.completed"] is True
    assert line["asyncguard.first_item"] == pytest.approx(1.0)
    assert line["asyncguard.largest_gap"] == pytest.approx(3.0)
    assert line["asyncguard.duration"] == pytest.approx(6.0)
    assert line["asyncguard.input.n.type"] == "int"


def test_the_record_is_current_only_while_an_item_is_made(written: Written) -> None:
    async def main() -> None:
        async for _ in stream(2):
            assert record.current() is None

    run(main)


def test_an_early_break_is_no_error(written: Written) -> None:
    async def main() -> None:
        items = stream(3)
        async for _ in items:
            break
        await items.aclose()  # type: ignore[attr-defined]

    run(main)
    line = written.one()
    assert (line["asyncguard.outcome"], line["asyncguard.completed"], line["asyncguard.items"]) == ("ok", False, 1)


def test_an_abandoned_generator_ends_quietly_in_whatever_context(
    written: Written, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> None:
        items = stream(3)
        await anext(aiter(items))
        del items
        await asyncio.sleep(1)

    run(main)
    assert written.one()["asyncguard.outcome"] == "ok"
    assert not recwarn.list


def test_an_error_in_a_generator_is_that_of_the_call(written: Written) -> None:
    @monitor
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(failing())
    line = written.one()
    assert (line["asyncguard.outcome"], line["asyncguard.items"], line["error.type"]) == ("error", 1, "ValueError")


def test_generators_receive_what_is_sent_and_thrown(written: Written) -> None:
    @monitor
    def echo() -> Iterator[Any]:
        got: Any = None
        while got != "end":
            try:
                got = yield got
            except KeyError:
                got = "caught"
        return "done"

    items: Any = echo()
    assert next(items) is None
    assert items.send(5) == 5
    assert items.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration, match="done"):
        items.send("end")
    assert written.one()["asyncguard.completed"] is True


def test_a_returned_stream_is_over_when_it_is_closed(written: Written) -> None:
    opened: list[Any] = []

    @guard(monitor("chat"), stream=True)
    async def chat(prompt: str) -> object:
        opened.append(holds.acquire())
        await asyncio.sleep(1)
        if prompt == "bad":
            opened.pop().close()
            raise ValueError("bad prompt")
        return object()

    async def main() -> None:
        await chat("hello")
        await asyncio.sleep(5)
        assert record.current() is None
        assert not written.lines
        opened.pop().close()
        with pytest.raises(ValueError, match="bad prompt"):
            await chat("bad")

    run(main)
    stream, bad = written.fields()
    assert (stream["asyncguard.duration"], stream["asyncguard.output.type"]) == (pytest.approx(6.0), "object")
    assert bad["asyncguard.outcome"] == "error"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("record", "model"),
        ("record", (1,)),
        ("drift", object()),
        ("slow", 0.0),
        ("slow", float("nan")),
        ("slow", True),
        ("inputs", "all"),
        ("output", 3),
        ("inputs", predict),
        ("redact", ("(",)),
        ("redact", "secret"),
        ("sample", 1.5),
        ("sample", True),
        ("logger", print),
        ("mode", "quiet"),
        ("name", ""),
    ],
)
def test_a_bad_option_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=option):
        monitor(**{option: value})  # type: ignore[call-overload]


def test_recording_a_parameter_that_does_not_exist_is_refused_at_decoration() -> None:
    with pytest.raises(TypeError, match=r"record names 'modle', but .*count has no parameter 'modle'; it has: model"):

        @monitor(record=("modle",))
        def count(model: str) -> None: ...

    monitor(record=("anything",))(predict)  # which has **more


def test_its_name_is_that_of_the_call_and_it_is_called_monitor_itself():
    watched = monitor("embedder")
    watched(lambda: 1)()
    assert watched.name == "monitor"
    assert any(str(fact).startswith("embedder monitor: embedder: 1 ok") for fact in status())


def test_bare_on_a_class_method():
    class Model:
        @monitor
        @classmethod
        def load(cls) -> str:
            return cls.__name__

    assert Model.load() == "Model"


def test_the_percentiles_of_status_are_those_of_the_calls() -> None:
    strategy = monitor("work")

    @strategy
    async def work(seconds: float) -> None:
        await anyio.sleep(seconds)

    async def main() -> None:
        await work(0.3)
        (line,) = strategy.describe()
        p50, p95 = (float(part.split()[1]) for part in line.split(", ")[1:])
        assert p50 == pytest.approx(0.3, rel=0.03)
        assert p95 == pytest.approx(0.3, rel=0.05)
        for _ in range(20):
            await work(4e-6)
        assert re.fullmatch(r"work: 21 ok, p50 (3\.9\d?|4|4\.[01]\d?) us, p95 4(\.\d+)? us", strategy.describe()[0])

    run(main)


def test_a_call_that_hangs_is_shown_while_it_does() -> None:
    strategy = monitor("work")

    @strategy
    async def work() -> None:
        await anyio.sleep(30)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await anyio.sleep(12.5)
            group.start_soon(work)
            await anyio.sleep(0.5)
            assert strategy.describe() == ["work: 2 running, the oldest for 13 s"]
        assert len(strategy.describe()) == 1

    run(main)
