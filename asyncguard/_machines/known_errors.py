"""What is known of errors by their name: `library.Class`, codes of services, states of databases.

A class is looked up by the first part of its module and its name, along its MRO, so that nothing has to be imported.
Sources: the libraries' own documentation and class hierarchies; botocore's table of retryable codes; PostgreSQL,
appendix A (error codes); gRPC, "Status codes and their use".
"""

from __future__ import annotations

from typing import Literal

__all__ = ["BY_CLASS", "BY_GRPC", "BY_SQLSTATE", "BY_SQLSTATE_CLASS", "BY_WORD", "WRAPPERS", "Kind"]

Kind = Literal["transient", "timeout", "throttle", "permanent", "unknown"]


def _table(
    *, transient: str = "", timeout: str = "", throttle: str = "", permanent: str = "", unknown: str = ""
) -> dict[str, Kind]:
    """Turn kind="library.Class library.Class" into a map from class to kind."""
    known: dict[str, Kind] = dict.fromkeys(transient.split(), "transient")
    known |= dict.fromkeys(timeout.split(), "timeout")
    known |= dict.fromkeys(throttle.split(), "throttle")
    known |= dict.fromkeys(permanent.split(), "permanent")
    known |= dict.fromkeys(unknown.split(), "unknown")
    return known


_HTTPX = _table(
    transient="httpx.TransportError",
    timeout="httpx.TimeoutException",
    permanent="httpx.UnsupportedProtocol httpx.LocalProtocolError httpx.TooManyRedirects httpx.InvalidURL",
    unknown="httpx.DecodingError",
)

BY_CLASS: dict[str, Kind] = {
    **_HTTPX,
    **{name.replace("httpx.", "httpx2.", 1): kind for name, kind in _HTTPX.items()},
    **_table(
        transient="""
            aiohttp.ClientConnectionError aiohttp.ClientPayloadError
            anthropic.APIConnectionError openai.APIConnectionError
            anyio.BrokenResourceError trio.BrokenResourceError
            asyncio.IncompleteReadError http.IncompleteRead http.BadStatusLine
            asyncpg.PostgresConnectionError
            cupy.OutOfMemoryError torch.OutOfMemoryError
            botocore.HTTPClientError botocore.ConnectionError botocore.EndpointConnectionError
            botocore.ConnectionClosedError botocore.IncompleteReadError botocore.ResponseStreamingError
            httpcore.NetworkError httpcore.RemoteProtocolError httpcore.ProxyError
            httpcore2.NetworkError httpcore2.RemoteProtocolError httpcore2.ProxyError
            psycopg.OperationalError psycopg2.OperationalError
            redis.ConnectionError redis.TryAgainError redis.ClusterDownError redis.MasterDownError redis.ReadOnlyError
            requests.ConnectionError requests.ChunkedEncodingError
            socket.gaierror ssl.SSLEOFError ssl.SSLZeroReturnError
            urllib3.ProtocolError urllib3.NewConnectionError urllib3.ProxyError urllib3.IncompleteRead
            websockets.ConnectionClosed
        """,
        timeout="""
            anthropic.APITimeoutError openai.APITimeoutError
            botocore.ConnectTimeoutError botocore.ReadTimeoutError
            httpcore.TimeoutException httpcore2.TimeoutException
            psycopg.ConnectionTimeout redis.TimeoutError
            requests.ConnectTimeout requests.Timeout sqlalchemy.TimeoutError trio.TooSlowError urllib3.TimeoutError
        """,
        throttle="qdrant_client.ResourceExhaustedResponse",
        permanent="""
            aiohttp.ClientConnectorCertificateError aiohttp.InvalidURL aiohttp.TooManyRedirects
            aiohttp.NonHttpUrlClientError aiohttp.ServerFingerprintMismatch
            anthropic.APIResponseValidationError openai.APIResponseValidationError
            openai.ContentFilterFinishReasonError openai.LengthFinishReasonError
            botocore.NoCredentialsError botocore.NoRegionError botocore.ParamValidationError
            httpcore.LocalProtocolError httpcore.UnsupportedProtocol
            httpcore2.LocalProtocolError httpcore2.UnsupportedProtocol
            redis.AuthenticationError redis.AuthorizationError redis.DataError redis.ResponseError
            requests.TooManyRedirects
            sqlalchemy.ArgumentError sqlalchemy.CompileError sqlalchemy.InvalidRequestError
            sqlalchemy.IntegrityError sqlalchemy.ProgrammingError sqlalchemy.DataError sqlalchemy.NotSupportedError
            ssl.SSLCertVerificationError
            urllib3.LocationParseError
        """,
        # Might be a certificate (hopeless) or a broken handshake (not): counted as a failure, but not retried.
        unknown="""
            aiohttp.ClientSSLError botocore.SSLError redis.OutOfMemoryError requests.SSLError
            requests.ContentDecodingError ssl.SSLError urllib3.SSLError
        """,
    ),
}

WRAPPERS = {
    "sqlalchemy.DBAPIError": "orig",
    "qdrant_client.ResponseHandlingException": "source",
    "urllib.URLError": "reason",
    "urllib3.MaxRetryError": "reason",
}
"""Errors that only carry another one: class -> attribute that holds it."""

BY_WORD: dict[str, Kind] = _table(
    transient="""
        api_error overloaded_error server_error service_unavailable
        InternalError InternalFailure InternalServerError RequestTimeout RequestTimeoutException ServiceUnavailable
        TransactionInProgressException
    """,
    timeout="timeout_error",
    throttle="""
        rate_limit_error rate_limit_exceeded
        BandwidthLimitExceeded EC2ThrottledException LimitExceededException PriorRequestNotComplete
        ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown
        ThrottledException Throttling ThrottlingException TooManyRequestsException
    """,
    permanent="""
        authentication_error billing_error invalid_request_error not_found_error permission_error request_too_large
        insufficient_quota
    """,
)
"""Codes of services: OpenAI, Anthropic (also inside a stream, where the status says 200), AWS."""

BY_GRPC: dict[str, Kind] = _table(
    transient="UNAVAILABLE ABORTED",
    timeout="DEADLINE_EXCEEDED",
    throttle="RESOURCE_EXHAUSTED",
    permanent="""
        INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED UNAUTHENTICATED FAILED_PRECONDITION OUT_OF_RANGE
        UNIMPLEMENTED
    """,
    unknown="OK CANCELLED UNKNOWN INTERNAL DATA_LOSS",
)

BY_SQLSTATE: dict[str, Kind] = _table(
    # serialization failure, deadlock, lock not available, shutdowns, cannot connect now, idle session closed
    transient="40001 40P01 55P03 57P01 57P02 57P03 57P05",
    timeout="57014",  # statement timeout
)

BY_SQLSTATE_CLASS: dict[str, Kind] = _table(
    transient="08 53",  # connection, resources (too many connections, disk full)
    permanent="0A 21 22 23 25 28 2F 3D 3F 42 44 P0",
)
"""The first two characters of a state."""
