"""Values, errors and headers that were not made to be looked at: no strategy may fail because of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

import asyncguard as ag
from asyncguard._machines import shape
from asyncguard._machines.retry_after import retry_after
from asyncguard._machines.text import Redactor
from asyncguard.telemetry.failures import error_type, failure


class HostileError(ConnectionError):
    """An error that refuses to be compared, to be shown, and to be true or false."""

    __hash__ = None

    def __bool__(self):
        raise RuntimeError("bool")

    def __eq__(self, other):
        raise RuntimeError("eq")

    def __str__(self):
        raise RuntimeError("str")

    __repr__ = __str__


def test_a_result_with_a_status_that_is_neither_true_nor_false_passes_through_retry():
    class Ambiguous:
        def __bool__(self):
            raise ValueError("ambiguous, as arrays and columns of frames are")

    class Result:
        status = Ambiguous()

    result = Result()
    assert ag.retry(lambda: result)() is result


def test_a_frame_with_a_column_called_status_passes_through_retry():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"status": [200, 500]})
    assert ag.retry(lambda: frame)() is frame


def test_a_response_that_refuses_to_be_read_tells_nothing():
    class Refusing(Mapping):
        def __getitem__(self, key):
            raise RuntimeError("no")

        def __iter__(self):
            raise RuntimeError("no")

        def __len__(self):
            return 1

    class FailedError(Exception):
        response = Refusing()
        body = Refusing()

    assert shape.status(FailedError()) is None
    assert shape.words(FailedError()) == []
    assert ag.classify(FailedError()) == "unknown"


def test_a_pause_longer_than_any_float_is_none():
    class FailedError(Exception):
        retry_after = 10**400

    assert retry_after(FailedError(), 0.0) is None


def test_numbers_longer_than_any_float_are_out_of_range():
    with pytest.raises(ValueError, match="initial_delay must be"):
        ag.retry(initial_delay=10**400)
    limiter = ag.rate_limit(ag.Rate("10/s", cost=lambda: 10**400))
    with pytest.raises(ValueError, match="cost"):
        limiter(lambda: 1)()


def test_an_error_that_refuses_everything_goes_through_the_whole_stack(caplog):
    @ag.monitor
    @ag.fallback("answer")
    @ag.retry(max_retries=1, initial_delay=0)
    @ag.circuit_breaker(minimum_calls=1)
    def fn():
        raise HostileError

    assert fn() == "answer"
    assert not [record for record in caplog.records if "monitoring of" in record.getMessage()]


def test_the_record_of_an_error_whose_cause_refuses_to_be_compared_is_written(caplog):
    @ag.monitor
    def fn():
        try:
            raise HostileError  # noqa: TRY301 - the cause of the next
        except HostileError as error:
            raise HostileError from error

    with caplog.at_level(logging.INFO, "asyncguard.monitor"), pytest.raises(HostileError):
        fn()
    assert [record.levelname for record in caplog.records if record.name == "asyncguard.monitor"] == ["ERROR"]


def test_a_class_with_a_line_in_its_name_stays_on_one_line():
    kind = type("Bad\nName\x1b[31m", (Exception,), {})
    assert "\n" not in error_type(kind())
    assert "\x1b" not in failure(kind(), Redactor(), stack=True)["exception.stacktrace"]


# --- headers ----------------------------------------------------------------------------------------------------------

ABSURD = [
    {"x-ratelimit-remaining": "9" * 400},
    {"x-ratelimit-remaining": "9" * 5000},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400 + "h"},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "99999999"},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9999-12-31T00:00:00+00:00"},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0001-01-01T00:00:00+14:00"},
    {"ratelimit": "r=" + "9" * 400},
    {"ratelimit": "r=0;t=" + "9" * 400},
    {"retry-after": "9" * 400},
    {"retry-after": "999999999999"},
    {"retry-after": "Wed, 21 Oct 9999 07:28:00 GMT"},
    {"retry-after-ms": "9" * 12},
]


@pytest.mark.parametrize("headers", ABSURD, ids=range(len(ABSURD)))
def test_an_absurd_header_neither_fails_a_call_nor_stops_the_limiter_for_years(headers):
    limiter = ag.rate_limit("10/s")
    limiter.update_from_headers(headers)
    assert limiter.peek() <= 32 * 86400


def test_a_reset_in_milliseconds_since_1970_is_read():
    limiter = ag.rate_limit("10/s")
    headers = {
        "date": "Wed, 21 Oct 2026 07:28:00 GMT",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1792567690000",
    }
    limiter.update_from_headers(headers)
    assert limiter.peek() == pytest.approx(10.0, abs=0.5)


# --- values in a cache ------------------------------------------------------------------------------------------------


class NoSize:
    def __sizeof__(self):
        raise RuntimeError("size")


class NoBytes:
    @property
    def nbytes(self):
        raise RuntimeError("bytes")


@pytest.mark.parametrize("value", [NoSize(), NoBytes(), [NoSize()]], ids=["sizeof", "nbytes", "inside"])
def test_a_value_that_cannot_be_measured_is_cached_all_the_same(value):
    calls = []

    @ag.cache_result(60, max_bytes=10_000, isolation="share")
    def fn():
        calls.append(1)
        return value

    assert fn() is fn() is value
    assert calls == [1]


def test_a_value_that_contains_itself_can_be_copied():
    ring: list[object] = []
    ring.append(ring)

    @ag.cache_result(60, isolation="copy")
    def fn():
        return ring

    first, second = fn(), fn()
    assert first is not second
    assert first[0] is first


def test_observing_a_cache_survives_an_error_that_cannot_be_shown():
    class HiddenError(Exception):
        def __str__(self):
            raise RuntimeError("str")

    def key(x):
        raise HiddenError

    seen = []
    fn = ag.cache_result(60, key=key, mode="observe", on_event=seen.append)(lambda x: x)
    assert fn(1) == 1
    assert any(each.error.startswith("HiddenError") for each in seen if type(each).__name__ == "CacheErrored")


# --- values under validation ------------------------------------------------------------------------------------------


class Proxy:
    """What stands for an object that is not there: it raises for every attribute."""

    def __getattr__(self, name):
        raise RuntimeError("there is nothing behind this proxy")


class Doubtful:
    def __bool__(self):
        raise ValueError("the truth value of an array is ambiguous")


def test_a_rule_that_answers_with_something_neither_true_nor_false_is_a_violation():
    fn = ag.validate_input(x=lambda x: Doubtful())(lambda x: x)
    with pytest.raises(ag.InputValidationError, match="expected no error, got ValueError"):
        fn(1)


class OddKeys(dict):
    """Its keys are no set, as those of a frame."""

    def keys(self):
        class Keys(list):
            def __ge__(self, other):
                raise NotImplementedError

        return Keys(super().keys())


def test_the_keys_of_a_mapping_need_not_be_a_set():
    fn = ag.validate_input(x=ag.Keys("a"))(lambda x: "ok")
    assert fn(OddKeys(a=1)) == "ok"
    with pytest.raises(ag.InputValidationError, match="keys"):
        fn(OddKeys(b=1))


@pytest.mark.parametrize("rule", [ag.Array(("b", 3)), ag.Keys("a"), int, lambda x: Doubtful()])
def test_observing_never_changes_a_call_whatever_the_rules_make_of_its_values(rule):
    proxy = Proxy()
    fn = ag.validate_input(x=rule, returns=rule, mode="observe")(lambda x: x)
    assert fn(proxy) is proxy


STRATEGIES = [
    ag.retry,
    ag.monitor,
    ag.circuit_breaker,
    ag.memory_guard,
    lambda: ag.bulkhead(1),
    lambda: ag.rate_limit("100/s"),
    lambda: ag.cache_result(60, isolation="share", key=lambda x: 1, negative_ttl=1),
]


@pytest.mark.parametrize("make", STRATEGIES, ids=range(len(STRATEGIES)))
def test_a_proxy_without_an_object_passes_through(make):
    proxy = Proxy()
    assert make()(lambda x: x)(proxy) is proxy
