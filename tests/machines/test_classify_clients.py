"""`classify` on the errors that clients really raise: real ones where the package is here, look-alikes otherwise.

The look-alikes (class hierarchies and attributes) follow requests 2.34, urllib3 2.8, anthropic 2.12, botocore 1.44,
SQLAlchemy 2.1, psycopg 3.3, grpcio 1.85 and qdrant-client 1.20; the real errors of these versions were classified once,
with the same results, when this was written.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest

from asyncguard import classify


def kinds(table):
    return [pytest.param(make, kind, id=name) for name, make, kind in table]


def look_alike(name, *bases, module, **members):
    """Make a class as if it came from `module`."""
    return type(name, bases or (Exception,), {"__module__": module, **members})


# --- httpx ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ConnectError", "transient"),
        ("ReadError", "transient"),
        ("WriteError", "transient"),
        ("RemoteProtocolError", "transient"),
        ("ProxyError", "transient"),
        ("ConnectTimeout", "timeout"),
        ("ReadTimeout", "timeout"),
        ("PoolTimeout", "timeout"),
        ("LocalProtocolError", "permanent"),
        ("UnsupportedProtocol", "permanent"),
        ("TooManyRedirects", "permanent"),
        ("InvalidURL", "permanent"),
        ("DecodingError", "unknown"),
    ],
)
def test_httpx(package, name, kind):
    httpx = pytest.importorskip(package)
    assert classify(getattr(httpx, name)("x")) == kind


@pytest.mark.parametrize(("status", "kind"), [(404, "permanent"), (429, "throttle"), (503, "transient")])
def test_httpx_status(status, kind):
    httpx = pytest.importorskip("httpx")
    response = httpx.Response(status, request=httpx.Request("GET", "http://x"))
    with pytest.raises(httpx.HTTPStatusError) as raised:
        response.raise_for_status()
    assert classify(raised.value) == kind


@pytest.mark.parametrize("library", ["httpcore", "httpcore2"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LocalProtocolError", "permanent"),
        ("UnsupportedProtocol", "permanent"),
        ("RemoteProtocolError", "transient"),
        ("ConnectError", "transient"),
        ("ReadTimeout", "timeout"),
    ],
)
def test_httpcore(library, name, kind):
    assert classify(getattr(pytest.importorskip(library), name)("x")) == kind


# --- openai -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def openai_error():
    """Make the error that the client makes of a response."""
    httpx, openai = pytest.importorskip("httpx"), pytest.importorskip("openai")
    client = openai.OpenAI(api_key="x")
    request = httpx.Request("POST", "http://x")

    def make(status, body=None, headers=None):
        response = httpx.Response(status, headers=headers or {}, request=request)
        return client._make_status_error("m", body=body, response=response)

    yield make
    client.close()


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (429, {"code": "rate_limit_exceeded"}, {}, "throttle"),
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, {}, "permanent"),
        (500, None, {}, "transient"),
        (500, None, {"x-should-retry": "false"}, "permanent"),
        (409, None, {"x-should-retry": "true"}, "transient"),
        (400, {"type": "invalid_request_error"}, {}, "permanent"),
        (401, None, {}, "permanent"),
    ],
)
def test_openai_status(openai_error, status, body, headers, kind):
    assert classify(openai_error(status, body, headers)) == kind


def test_openai_without_a_status():
    httpx, openai = pytest.importorskip("httpx"), pytest.importorskip("openai")
    request = httpx.Request("POST", "http://x")
    assert classify(openai.APIConnectionError(request=request)) == "transient"
    assert classify(openai.APITimeoutError(request=request)) == "timeout"
    assert classify(openai.APIError("m", request, body={"type": "server_error"})) == "transient"
    assert classify(openai.APIError("m", request, body={"code": "rate_limit_exceeded"})) == "throttle"


# --- redis, aiohttp, asyncpg ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ConnectionError", "transient"),
        ("BusyLoadingError", "transient"),
        ("ReadOnlyError", "transient"),
        ("ClusterDownError", "transient"),
        ("TimeoutError", "timeout"),
        ("AuthenticationError", "permanent"),  # a ConnectionError, and yet
        ("ResponseError", "permanent"),
        ("DataError", "permanent"),
        ("OutOfMemoryError", "unknown"),
    ],
)
def test_redis(name, kind):
    exceptions = pytest.importorskip("redis.exceptions")
    assert classify(getattr(exceptions, name)("x")) == kind


def aiohttp_errors():
    request = SimpleNamespace(real_url="http://x")
    key = SimpleNamespace(host="h", port=1, ssl=None, is_ssl=True, proxy=None)
    return kinds(
        [
            ("disconnected", lambda a: a.ServerDisconnectedError(), "transient"),
            ("payload", lambda a: a.ClientPayloadError(), "transient"),
            ("oserror", lambda a: a.ClientOSError(104, "reset"), "transient"),
            ("refused", lambda a: a.ClientConnectorError(key, OSError(111, "refused")), "transient"),
            ("dns", lambda a: a.ClientConnectorDNSError(key, OSError(-2, "x")), "transient"),
            ("timeout", lambda a: a.ServerTimeoutError(), "timeout"),
            ("connect timeout", lambda a: a.ConnectionTimeoutError(), "timeout"),
            ("certificate", lambda a: a.ClientConnectorCertificateError(key, ValueError("x")), "permanent"),
            ("pinned certificate", lambda a: a.ServerFingerprintMismatch(b"a", b"b", "h", 1), "permanent"),
            ("url", lambda a: a.InvalidURL("x"), "permanent"),
            ("ftp", lambda a: a.NonHttpUrlClientError("ftp://x"), "permanent"),
            ("redirects", lambda a: a.TooManyRedirects(request, (), status=302), "permanent"),
            ("404", lambda a: a.ClientResponseError(request, (), status=404), "permanent"),
            ("429", lambda a: a.ClientResponseError(request, (), status=429), "throttle"),
            ("503", lambda a: a.ClientResponseError(request, (), status=503), "transient"),
            ("html of a proxy", lambda a: a.ContentTypeError(request, (), status=502), "transient"),
            ("html with 200", lambda a: a.ContentTypeError(request, (), status=200), "unknown"),
        ]
    )


@pytest.mark.parametrize(("make", "kind"), aiohttp_errors())
def test_aiohttp(make, kind):
    error = make(pytest.importorskip("aiohttp"))
    with warnings.catch_warnings(record=True) as warned:  # aiohttp's `code` is deprecated and says so when it is read
        warnings.simplefilter("always")
        assert classify(error) == kind
    assert warned == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DeadlockDetectedError", "transient"),
        ("SerializationError", "transient"),
        ("TooManyConnectionsError", "transient"),
        ("AdminShutdownError", "transient"),
        ("CannotConnectNowError", "transient"),
        ("ConnectionDoesNotExistError", "transient"),
        ("PostgresConnectionError", "transient"),
        ("QueryCanceledError", "timeout"),
        ("UniqueViolationError", "permanent"),
        ("UndefinedTableError", "permanent"),
        ("InvalidPasswordError", "permanent"),
        ("InterfaceError", "unknown"),
    ],
)
def test_asyncpg(name, kind):
    asyncpg = pytest.importorskip("asyncpg")
    assert classify(getattr(asyncpg, name)("x")) == kind


# --- look-alikes ------------------------------------------------------------------------------------------------------

_Request = look_alike("RequestException", OSError, module="requests.exceptions")
_RequestsConnection = look_alike("ConnectionError", _Request, module="requests.exceptions")
_RequestsTimeout = look_alike("Timeout", _Request, module="requests.exceptions")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_RequestsConnection("x"), "transient"),
        (look_alike("ProxyError", _RequestsConnection, module="requests.exceptions")("x"), "transient"),
        (look_alike("SSLError", _RequestsConnection, module="requests.exceptions")("x"), "unknown"),
        (look_alike("ReadTimeout", _RequestsTimeout, module="requests.exceptions")("x"), "timeout"),
        (
            look_alike("ConnectTimeout", _RequestsConnection, _RequestsTimeout, module="requests.exceptions")("x"),
            "timeout",
        ),
        (look_alike("MissingSchema", _Request, ValueError, module="requests.exceptions")("x"), "permanent"),
        (look_alike("TooManyRedirects", _Request, module="requests.exceptions")("x"), "permanent"),
    ],
)
def test_requests_look_alikes(error, kind):
    assert classify(error) == kind


def test_urllib3_look_alikes_are_as_bad_as_what_they_wrap():
    http_error = look_alike("HTTPError", module="urllib3.exceptions")
    wrapped = look_alike("MaxRetryError", http_error, module="urllib3.exceptions")
    timeout = look_alike("TimeoutError", http_error, module="urllib3.exceptions")

    def wrapping(reason):
        error = wrapped("Max retries exceeded")
        error.reason = reason
        return error

    refused = look_alike("NewConnectionError", http_error, module="urllib3.exceptions")
    late = look_alike("ReadTimeoutError", timeout, module="urllib3.exceptions")
    assert classify(wrapping(refused())) == "transient"
    assert classify(wrapping(late())) == "timeout"
    assert classify(wrapping(None)) == "unknown"


def test_a_wrapper_that_wraps_itself_is_unknown_and_no_endless_loop():
    error = look_alike("MaxRetryError", module="urllib3.exceptions")()
    error.reason = error
    assert classify(error) == "unknown"


@pytest.mark.parametrize(
    ("name", "bases", "kind"),
    [
        ("EndpointConnectionError", ("ConnectionError",), "transient"),
        ("ReadTimeoutError", ("HTTPClientError",), "timeout"),
        ("ConnectTimeoutError", ("ConnectionError",), "timeout"),
        ("NoCredentialsError", (), "permanent"),
        ("SSLError", ("ConnectionError",), "unknown"),
    ],
)
def test_botocore_look_alikes(name, bases, kind):
    root = look_alike("BotoCoreError", module="botocore.exceptions")
    parents = tuple(look_alike(base, root, module="botocore.exceptions") for base in bases)
    assert classify(look_alike(name, *(parents or (root,)), module="botocore.exceptions")()) == kind


@pytest.mark.parametrize(
    ("name", "attributes", "kind"),
    [
        ("OperationalError", {"orig": ConnectionResetError()}, "transient"),
        (
            "OperationalError",
            {"orig": look_alike("DeadlockDetected", module="psycopg", sqlstate="40P01")()},
            "transient",
        ),
        ("OperationalError", {"orig": look_alike("OperationalError", module="sqlite3")()}, "unknown"),
        ("OperationalError", {"orig": None, "connection_invalidated": True}, "transient"),
        ("IntegrityError", {"orig": look_alike("UniqueViolation", module="psycopg", sqlstate="23505")()}, "permanent"),
    ],
)
def test_sqlalchemy_look_alikes(name, attributes, kind):
    database = look_alike("DatabaseError", look_alike("DBAPIError", module="sqlalchemy.exc"), module="sqlalchemy.exc")
    assert classify(look_alike(name, database, module="sqlalchemy.exc", **attributes)()) == kind


def test_sqlalchemy_and_psycopg_look_alikes_without_a_state():
    assert classify(look_alike("TimeoutError", module="sqlalchemy.exc")()) == "timeout"
    invalid = look_alike("InvalidRequestError", module="sqlalchemy.exc")
    assert classify(look_alike("NoResultFound", invalid, module="sqlalchemy.exc")()) == "permanent"
    operational = look_alike("OperationalError", module="psycopg", sqlstate=None)
    assert classify(operational()) == "transient"
    assert classify(look_alike("ConnectionTimeout", operational, module="psycopg.errors")()) == "timeout"


GRPC = {
    "UNAVAILABLE": "transient",
    "ABORTED": "transient",
    "DEADLINE_EXCEEDED": "timeout",
    "RESOURCE_EXHAUSTED": "throttle",
    "INVALID_ARGUMENT": "permanent",
    "UNAUTHENTICATED": "permanent",
    "INTERNAL": "unknown",
    "CANCELLED": "unknown",
}


@pytest.mark.parametrize(("name", "kind"), GRPC.items())
def test_grpc_look_alikes(name, kind):
    root = look_alike("RpcError", module="grpc")
    call = look_alike("AioRpcError", root, module="grpc.aio._call", code=lambda _self: SimpleNamespace(name=name))
    assert classify(call()) == kind
    grpclib = look_alike("GRPCError", module="grpclib.exceptions", status=SimpleNamespace(name=name))
    assert classify(grpclib()) == kind


def test_a_grpc_error_whose_code_cannot_be_asked_is_unknown():
    def code(_self):
        raise RuntimeError("not terminated yet")

    assert classify(look_alike("RpcError", module="grpc", code=code)()) == "unknown"


def test_qdrant_look_alikes():
    unexpected = look_alike("UnexpectedResponse", module="qdrant_client.http.exceptions", status_code=503)
    assert classify(unexpected()) == "transient"
    wrapper = look_alike("ResponseHandlingException", module="qdrant_client.http.exceptions", source=ConnectionError())
    assert classify(wrapper()) == "transient"
    exhausted = look_alike(
        "ResourceExhaustedResponse", module="qdrant_client.common.client_exceptions", retry_after_s=3
    )
    assert classify(exhausted()) == "throttle"


@pytest.mark.parametrize(("status", "kind"), [(529, "transient"), (429, "throttle"), (413, "permanent")])
def test_anthropic_look_alikes(status, kind):
    root = look_alike("APIError", module="anthropic")
    assert classify(look_alike("APIStatusError", root, module="anthropic", status_code=status)()) == kind


def test_a_class_is_known_by_its_library_and_not_by_its_name_alone():
    assert classify(look_alike("TransportError", module="mylib")()) == "unknown"
    assert classify(look_alike("TransportError", module="httpx._exceptions")()) == "transient"


def test_nothing_is_imported_for_a_class_that_says_it_comes_from_a_library():
    name = "asyncguard_has_never_heard_of_it"
    assert classify(look_alike("Error", module=name)()) == "unknown"
    assert name not in sys.modules
    assert isinstance(sys.modules["asyncguard"], ModuleType)
