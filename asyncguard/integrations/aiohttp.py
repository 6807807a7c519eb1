"""aiohttp: a client middleware (aiohttp >= 3.12) that runs a pipeline around each request.

A response counts as answered when its headers are there, but the call is over only when its body has been read or the
response closed: until then the permits are held and the deadline binds. Timeouts per read do not bound a slow drip.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, cast

from asyncguard._machines.classify import failing_status
from asyncguard._machines.partition_keys import PartitionBy, partition_key
from asyncguard._machines.shape import header
from asyncguard._pipeline import Pipeline, Site
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, holds
from asyncguard._runtime.contexts import bring_back
from asyncguard._strategy import Strategy
from asyncguard.strategies._retry_scope import current_attempt
from asyncguard.strategies.timeout import Timeout

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

    Handler = Callable[[ClientRequest], Awaitable[ClientResponse]]

__all__ = ["IDEMPOTENT_METHODS", "FailingStatusError", "GuardMiddleware", "guard_middleware", "host_of"]

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2: sending them twice does what sending them once does."""

REPEATS = frozenset({"retry", "hedge"})
SWITCHING_PROTOCOLS = 101

RetryMethods = Collection[str] | Callable[["ClientRequest"], bool]

_exchange: ContextVar[Exchange] = ContextVar("asyncguard_aiohttp_exchange")


class FailingStatusError(Exception):
    """A response with a status that says "try again" (408, 425, 429, 5xx), inside the pipeline only.

    Strategies classify it by `status` and `headers`. The caller of the session never sees it: it gets the response.
    """

    def __init__(self, response: ClientResponse) -> None:
        super().__init__(f"{response.status} {response.reason} from {response.method} {response.url.host}")
        self.response = response
        self.status = response.status
        self.headers = response.headers

    @classmethod
    def of(cls, response: ClientResponse) -> FailingStatusError:
        """Return the error, of a class named after the status: logs and messages name the class of the last error."""
        named = _by_status.get(response.status)
        if named is None:
            named = _by_status[response.status] = type(f"HTTP{response.status}", (cls,), {})
        return named(response)


_by_status: dict[int, type[FailingStatusError]] = {}


class Exchange:
    """One request of the session: the failed responses that nobody has taken yet, and what bounds the body."""

    __slots__ = ("around", "bound", "failed", "handler")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.around = deadlines.current()
        self.bound: deadlines.Deadline | None = None
        self.failed: list[tuple[int, ClientResponse]] = []  # with the number of the attempt

    def discard(self, taken: object = None, *, before: float = math.inf) -> None:
        """Release the failed responses of the attempts `before` one: all that were not `taken`.

        The copies of a hedged attempt fail side by side, and the response of any of them may be the one that is taken.
        """
        failed = self.failed
        self.failed = [each for each in failed if each[0] >= before]
        for attempt, response in failed:
            if attempt < before and response is not taken:
                response.release()

    def answered(self) -> None:
        """Remember the outermost deadline of our own pipeline: it binds the body as well."""
        deadline = deadlines.current()
        while deadline is not None and deadline is not self.around:
            self.bound = deadline
            deadline = deadline.outer


def host_of(request: ClientRequest) -> str:
    """Return the host of a request, with the port where it is not the usual one: the default partition."""
    url = request.url
    return f"{url.host}" if url.is_default_port() else f"{url.host}:{url.port}"


class GuardMiddleware:
    """The middleware; made by `guard_middleware(...)`."""

    def __init__(self, pipeline: Pipeline, retry_methods: RetryMethods) -> None:
        self.pipeline = pipeline
        self._retry_methods = retry_methods if callable(retry_methods) else _names(retry_methods)
        once = [each for each in pipeline if each.kind not in REPEATS]
        self._timeout = next((each for each in pipeline if isinstance(each, Timeout)), None)
        self._site, self._guarded = self._build(pipeline)
        self._guarded_once = self._guarded
        if len(once) < len(pipeline):
            _, self._guarded_once = self._build(Pipeline(*once, name=pipeline.name, partition=pipeline.partition))

    def _build(self, pipeline: Pipeline) -> tuple[Site, Callable[..., Awaitable[Any]]]:
        async def request(request: ClientRequest) -> ClientResponse:
            return await self.send(request)

        site = Site(pipeline, request)
        site.stream = site.holds = True
        return site, pipeline.build(request, "async", site)

    async def __call__(self, request: ClientRequest, handler: Handler) -> ClientResponse:
        """Send a request through the pipeline and return the last response."""
        exchange = Exchange(handler)
        token = _exchange.set(exchange)
        guarded = self._guarded if self.may_repeat(request) else self._guarded_once
        response = None
        try:
            response = await guarded(request)
        except FailingStatusError as failing:
            response = failing.response
        finally:
            bring_back(_exchange, token)
            exchange.discard(taken=response)
        self.bind(response, exchange.bound)
        return cast("ClientResponse", response)

    def may_repeat(self, request: ClientRequest) -> bool:
        """Return whether the request may be sent a second time: by its method, and by its body."""
        allowed = self._retry_methods
        wanted = allowed(request) if callable(allowed) else request.method in allowed
        return wanted and sendable_twice(request.body)

    async def send(self, request: ClientRequest) -> ClientResponse:
        """Make one attempt."""
        exchange, attempt = _exchange.get(), current_attempt()
        exchange.discard(before=attempt)
        _propagate_trace(request)
        response = await exchange.handler(request)
        exchange.answered()
        self.heed(request, response)
        if failing_status(response) or (header(response, "x-should-retry") or "").lower() == "true":
            exchange.failed.append((attempt, response))
            raise FailingStatusError.of(response)
        _hold_until_read(response)
        return response

    def heed(self, request: ClientRequest, response: ClientResponse) -> None:
        """Tell rate limits what the response says is left."""
        for strategy in self.pipeline:
            update: Any = getattr(strategy, "update_from_headers", None)
            if update is not None:
                by = strategy.live().partition or self.pipeline.partition
                update(response.headers, partition=None if by is None else partition_key(by, (request,), {}))

    def bind(self, response: Any, deadline: deadlines.Deadline | None) -> None:
        """Cut the body off when the deadline of the call is over: whoever reads it gets a CallTimeoutError."""
        connection = getattr(response, "connection", None)
        if connection is None or deadline is None or self._timeout is None or response.status == SWITCHING_PROTOCOLS:
            return
        timeout, site = self._timeout, self._site

        def cut() -> None:
            response.content.set_exception(timeout.over(site, deadline, "did not finish its body"))
            response.close()

        left = max(0.0, deadline.when - clocks.current().now())
        timer = asyncio.get_running_loop().call_later(left, cut, context=Context())
        connection.add_callback(timer.cancel)


def _names(methods: Collection[str]) -> frozenset[str]:
    """Return names of methods as aiohttp sends them: in capitals."""
    return frozenset(each.upper() for each in ((methods,) if isinstance(methods, str) else methods))


def _hold_until_read(response: ClientResponse) -> None:
    """Keep the permits until the connection is given back: the body was read to its end, or the response closed."""
    connection = response.connection
    if connection is not None and response.status != SWITCHING_PROTOCOLS:
        hold = holds.acquire()
        if hold is not None:
            connection.add_callback(hold.close)


def _propagate_trace(request: ClientRequest) -> None:
    """Put the current span into the headers, if anything in this process traces at all."""
    propagate: Any = sys.modules.get("opentelemetry.propagate")
    if propagate is not None:
        propagate.inject(request.headers)


def sendable_twice(body: Any) -> bool:
    """Return whether a request body can be sent again: bytes and forms can, seekable files too, streams cannot."""
    from aiohttp import payload
    from aiohttp.multipart import MultipartWriter

    if not body or isinstance(body, payload.BytesPayload | bytes):
        return True
    if isinstance(body, MultipartWriter):
        return all(sendable_twice(part) for part, *_ in body)
    seekable = getattr(getattr(body, "_value", None), "seekable", None)
    return isinstance(body, payload.IOBasePayload) and hasattr(body, "consumed") and seekable is not None and seekable()


def guard_middleware(
    *strategies: Strategy[Any, Any] | Pipeline,
    retry_methods: RetryMethods = IDEMPOTENT_METHODS,
    partition: PartitionBy | None = host_of,
    name: str = "aiohttp",
) -> GuardMiddleware:
    """Return a client middleware: `aiohttp.ClientSession(middlewares=(guard_middleware(timeout(10), retry()),))`.

    The strategies run around each request, outermost first as given; one `Pipeline` (from `guard(...)`) may stand for
    them. Each redirect is a request of its own.

    `retry_methods`: which methods may be sent again, as names or as a function of the request; idempotent ones by
    default. A body that cannot be sent twice is never sent again. `partition`: one circuit, limit and pause per host
    by default; None for one in all, or a function of the request.

    A failing status (408, 425, 429, 5xx) counts as a failure inside and is retried before its body is handed out; the
    caller gets the last response. Permits are held until the body is read or the response closed, and the outermost
    timeout binds the body too: reading raises CallTimeoutError. Raises what the strategies raise.
    """
    pipelines = [each for each in strategies if isinstance(each, Pipeline)]
    if pipelines and len(strategies) > 1:
        raise TypeError(f"guard_middleware takes strategies or one pipeline, got {strategies!r}")
    given = pipelines[0] if pipelines else Pipeline(*cast("tuple[Strategy[Any, Any], ...]", strategies))
    pipeline = Pipeline(*given, name=given.name or name, partition=given.partition or partition)
    return GuardMiddleware(pipeline, retry_methods)
