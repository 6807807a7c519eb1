"""`classify` by status, by header, by code, by group and by what was registered."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import pickle
import socket
import ssl
import subprocess
import sys
import urllib.error

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard import TRANSIENT, classify, errors, register_classifier
from asyncguard._machines.classify import failing_status, kind_of_status


class Carrying(Exception):  # noqa: N818 - a stand-in for the errors of clients
    """An error with whatever attributes a client gives it."""

    def __init__(self, message="", **attributes):
        super().__init__(message)
        self.__dict__.update(attributes)


class Response:
    def __init__(self, status_code=None, headers=None, **attributes):
        self.headers = headers or {}
        if status_code is not None:
            self.status_code = status_code
        self.__dict__.update(attributes)

    def __bool__(self):
        return False  # as requests.Response of a 404


STATUSES = {
    **dict.fromkeys((400, 401, 403, 404, 405, 409, 410, 413, 418, 422, 451, 499), "permanent"),
    **dict.fromkeys((408, 425, 500, 501, 502, 503, 504, 520, 529, 599), "transient"),
    429: "throttle",
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
@pytest.mark.parametrize(
    "carry",
    [
        lambda status: Carrying(status=status),
        lambda status: Carrying(status_code=status),
        lambda status: Carrying(response=Response(status)),
        lambda status: Carrying(response=Response(status=status)),
        lambda status: Carrying(response={"ResponseMetadata": {"HTTPStatusCode": status}}),
        lambda status: Carrying(code=status),
        lambda status: urllib.error.HTTPError("http://x", status, "m", http.client.HTTPMessage(), None),
    ],
    ids=["status", "status_code", "response.status_code", "response.status", "boto", "code", "urllib"],
)
def test_a_status_decides_wherever_a_client_puts_it(status, kind, carry):
    assert classify(carry(status)) == kind


@pytest.mark.parametrize("status", [0, 99, 200, 204, 302, 600, 1006, True, "503", 503.0, None])
def test_what_is_no_failing_status_decides_nothing(status):
    assert classify(Carrying(status=status)) == "unknown"


@pytest.mark.parametrize("bad", [{}, {"ResponseMetadata": None}, {"ResponseMetadata": {}}, {"Error": "text"}])
def test_boto_like_dicts_with_parts_missing_decide_nothing(bad):
    assert classify(Carrying(response=bad)) == "unknown"


def test_a_property_that_raises_is_as_good_as_none():
    class Touchy(Exception):  # noqa: N818
        @property
        def response(self):
            raise RuntimeError("the request was never sent")  # httpx does this

        @property
        def status(self):
            raise KeyError

    assert classify(Touchy()) == "unknown"


@pytest.mark.parametrize(
    "quota",
    [
        {"code": "insufficient_quota"},
        {"type": "insufficient_quota"},
        {"body": {"error": {"code": "insufficient_quota"}}},
        {"body": {"code": "insufficient_quota"}},
        {"message": "Error code: 429 - {'error': {'code': 'insufficient_quota'}}"},
    ],
)
def test_a_quota_that_is_used_up_is_permanent_and_no_throttling(quota):
    assert classify(Carrying(status=429, **quota)) == "permanent"


@pytest.mark.parametrize(
    ("status", "advice", "kind"),
    [
        (409, "true", "transient"),
        (404, "TRUE", "transient"),
        (429, "true", "throttle"),
        (None, "true", "transient"),
        (500, "false", "permanent"),
        (429, "False", "permanent"),
        (500, "maybe", "transient"),
        (404, "", "permanent"),
    ],
)
def test_the_advice_of_the_service_is_obeyed(status, advice, kind):
    assert classify(Carrying(response=Response(status, {"X-Should-Retry": advice}))) == kind


@pytest.mark.parametrize("name", ["x-should-retry", "X-Should-Retry", "X-SHOULD-RETRY", b"x-should-retry"], ids=repr)
def test_headers_are_found_whatever_their_case(name):
    value = b"false" if isinstance(name, bytes) else "false"
    assert classify(Carrying(status=500, headers={name: value})) == "permanent"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ThrottlingException", 400, "throttle"),
        ("ProvisionedThroughputExceededException", 400, "throttle"),
        ("SlowDown", 503, "throttle"),
        ("RequestTimeout", 400, "transient"),
        ("InternalError", 500, "transient"),
        ("ValidationException", 400, "permanent"),
        ("AccessDenied", 403, "permanent"),
    ],
)
def test_the_code_of_aws_knows_better_than_its_status(code, status, kind):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert classify(Carrying(response=response)) == kind


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("overloaded_error", "transient"),
        ("api_error", "transient"),
        ("server_error", "transient"),
        ("rate_limit_error", "throttle"),
        ("timeout_error", "timeout"),
        ("invalid_request_error", "permanent"),
    ],
)
def test_an_error_inside_a_stream_is_told_by_its_word(word, kind):
    """The stream began with status 200, and the error came as an event in it."""
    body = {"type": "error", "error": {"type": word, "message": "m"}}
    assert classify(Carrying(status_code=200, body=body)) == kind


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("40001", "transient"),
        ("40P01", "transient"),
        ("08006", "transient"),
        ("53300", "transient"),
        ("57P01", "transient"),
        ("57014", "timeout"),
        ("23505", "permanent"),
        ("42P01", "permanent"),
        ("XX000", "unknown"),
    ],
)
@pytest.mark.parametrize("name", ["sqlstate", "pgcode"])
def test_the_state_of_a_database_decides(name, state, kind):
    assert classify(Carrying(**{name: state})) == kind


BUILTINS = [
    (ConnectionResetError(), "transient"),
    (BrokenPipeError(), "transient"),
    (http.client.RemoteDisconnected("x"), "transient"),
    (http.client.IncompleteRead(b""), "transient"),
    (asyncio.IncompleteReadError(b"", 2), "transient"),
    (socket.gaierror(-2, "x"), "transient"),
    (OSError(errno.EHOSTUNREACH, "x"), "transient"),
    (OSError(errno.ENETUNREACH, "x"), "transient"),
    (ssl.SSLEOFError(8, "x"), "transient"),
    (TimeoutError(), "timeout"),
    (OSError(errno.ETIMEDOUT, "x"), "timeout"),
    (urllib.error.URLError(ConnectionRefusedError()), "transient"),
    (urllib.error.URLError("text"), "unknown"),
    (TypeError(), "permanent"),
    (ValueError(), "permanent"),
    (json.JSONDecodeError("m", "", 0), "permanent"),
    (KeyError(), "permanent"),
    (IndexError(), "permanent"),
    (AttributeError(), "permanent"),
    (ZeroDivisionError(), "permanent"),
    (AssertionError(), "permanent"),
    (NotImplementedError(), "permanent"),
    (FileNotFoundError(), "permanent"),
    (PermissionError(), "permanent"),
    (ssl.SSLCertVerificationError(1, "x"), "permanent"),
    (ssl.SSLError(1, "x"), "unknown"),
    (OSError(errno.ENOSPC, "x"), "unknown"),
    (RuntimeError(), "unknown"),
    (MemoryError(), "unknown"),
    (EOFError(), "unknown"),
]


@pytest.mark.parametrize(("error", "kind"), BUILTINS, ids=repr)
def test_errors_of_the_standard_library(error, kind):
    assert classify(error) == kind


def test_a_validation_error_of_whatever_library_is_permanent():
    class ValidationError(Exception):
        """As in jsonschema and marshmallow, where it is no ValueError."""

    assert classify(ValidationError()) == "permanent"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.CircuitOpenError("x", retry_after=3.0), "permanent"),
        (errors.RateLimitedError("x"), "permanent"),
        (errors.DeadlineExceededError("x"), "permanent"),
        (errors.InputValidationError("x"), "permanent"),
        (errors.CallTimeoutError("x"), "timeout"),
    ],
)
def test_our_rejections_are_no_failures_and_our_timeouts_are(error, kind):
    assert classify(error) == kind


def test_an_error_that_cannot_be_written_as_text_is_classified_all_the_same():
    class Speechless(Exception):  # noqa: N818
        status = 429

        def __str__(self):
            raise RuntimeError

    assert classify(Speechless()) == "throttle"


# --- groups -----------------------------------------------------------------------------------------------------------

ORDER = ["transient", "timeout", "throttle", "unknown", "permanent"]
SAMPLE = {
    "transient": ConnectionError(),
    "timeout": TimeoutError(),
    "throttle": Carrying(status=429),
    "unknown": RuntimeError(),
    "permanent": ValueError(),
}


@given(st.recursive(st.sampled_from(ORDER), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12))
def test_a_group_is_as_bad_as_its_worst_leaf(tree):
    def build(node):
        return SAMPLE[node] if isinstance(node, str) else ExceptionGroup("g", [build(each) for each in node])

    def leaves(node):
        return [node] if isinstance(node, str) else [leaf for each in node for leaf in leaves(each)]

    assert classify(build(tree)) == max(leaves(tree), key=ORDER.index)


def test_groups_nested_without_end_are_unknown_and_no_endless_loop():
    error = ConnectionError()
    for _ in range(50):
        error = ExceptionGroup("g", [error])
    assert classify(error) == "unknown"


# --- registered -------------------------------------------------------------------------------------------------------


def test_a_registered_classifier_is_asked_first_and_can_be_taken_back():
    end = register_classifier(lambda error: "throttle" if "busy" in str(error) else None)
    try:
        assert classify(ValueError("busy")) == "throttle"
        assert classify(ValueError("bad")) == "permanent"
        assert classify(ExceptionGroup("g", [ConnectionError("busy")])) == "throttle"
    finally:
        end()
    assert classify(ValueError("busy")) == "permanent"


def test_the_classifier_registered_last_is_asked_first():
    ends = [register_classifier(lambda _error, kind=kind: kind) for kind in ("transient", "timeout")]
    try:
        assert classify(ValueError()) == "timeout"
    finally:
        for end in ends:
            end()


def test_a_failing_classifier_is_logged_once_and_passed_over(caplog):
    import asyncguard.strategies.retry  # noqa: F401 - the floor of the machines writes no log

    def broken(_error):
        raise ZeroDivisionError

    end = register_classifier(broken)
    try:
        with caplog.at_level(logging.ERROR, "asyncguard"):
            assert classify(ConnectionError()) == "transient"
            assert classify(ConnectionError()) == "transient"
    finally:
        end()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["transcient", True, 503, []])
def test_a_classifier_that_returns_no_kind_is_logged_once_and_passed_over(kind, caplog):
    import asyncguard.strategies.retry  # noqa: F401 - the floor of the machines writes no log

    end = register_classifier(lambda error: kind if isinstance(error, ConnectionError) else None)
    try:
        with caplog.at_level(logging.ERROR, "asyncguard"):
            assert classify(ConnectionError()) == "transient"
            assert classify(ExceptionGroup("both", [ConnectionError(), TimeoutError()])) == "timeout"
    finally:
        end()
    assert [f"got {kind!r}" in str(record.exc_info[1]) for record in caplog.records] == [True]


def test_only_a_callable_can_be_registered():
    with pytest.raises(TypeError, match="register_classifier needs a callable"):
        register_classifier("transient")


# --- TRANSIENT and responses ------------------------------------------------------------------------------------------


def test_transient_says_its_name_and_pickles_as_itself():
    assert TRANSIENT(ConnectionError())
    assert not TRANSIENT(RuntimeError())
    assert repr(TRANSIENT) == "TRANSIENT"
    assert pickle.loads(pickle.dumps(TRANSIENT)) is TRANSIENT


@pytest.mark.parametrize("status", [*STATUSES, 200, 204, 301])
def test_failing_status_is_true_for_what_may_be_gone_the_next_time(status):
    expected = STATUSES.get(status) in {"transient", "throttle"}
    assert failing_status(Response(status)) is expected
    assert failing_status(Response(status=status)) is expected


@pytest.mark.parametrize("result", [None, 0, "503", [1], {"status": 503}, Response(), Response("503")])
def test_failing_status_is_false_for_what_is_no_response(result):
    assert failing_status(result) is False


def test_below_400_a_status_has_no_kind():
    assert kind_of_status(399) is None
    assert kind_of_status(None) is None


def test_classifying_imports_no_client():
    clients = ("aiohttp", "asyncpg", "grpc", "httpx", "openai", "redis", "requests", "sqlalchemy", "ssl")
    code = "import sys, asyncguard; asyncguard.classify(ConnectionError()); print([m for m in %r if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code % (clients,)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
