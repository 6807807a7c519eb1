"""What the client saw: every call of the job, each HTTP attempt in it by request id, and what the guards said.

The request id is put into the header by aiohttp's own tracing hooks, so that the guarded functions know nothing of
it. Guards report through `asyncguard.subscribe`; a handler runs inside the call, so a `ContextVar` tells which one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncguard.events import Event

if TYPE_CHECKING:
    from collections.abc import Generator

    import aiohttp


@dataclass(slots=True)
class Attempt:
    """One HTTP request. `outcome` is the status or the name of the error; `ended` 0 while it runs."""

    id: str
    started: float
    ended: float = 0.0
    outcome: str = ""


@dataclass(slots=True)
class Call:
    """One unit of work of the job, such as a batch to embed, with all its attempts."""

    number: int
    what: str
    started: float
    ended: float = 0.0
    error: BaseException | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    events: list[tuple[float, Event]] = field(default_factory=list[tuple[float, Event]])

    @property
    def seconds(self) -> float:
        """How long it took, queueing and retries included."""
        return self.ended - self.started


@dataclass(slots=True)
class Sample:
    """A look at the job, several times a second. Bytes, and counts."""

    at: float
    in_flight: int
    requests: int
    stored: int
    memory: int


_call: ContextVar[Call | None] = ContextVar("asyncguard_demo_call", default=None)


class Journal:
    """Calls, events and samples of one run. Times are of the monotonic clock, which the service's log shares."""

    def __init__(self, *, guarded: bool = True) -> None:
        self.guarded = guarded
        self.started = time.monotonic()
        self.ended = 0.0
        self.calls: list[Call] = []
        self.events: list[tuple[float, Event]] = []
        self.samples: list[Sample] = []
        self.pauses: list[tuple[float, float, str]] = []
        self.in_flight = 0
        self.requests = 0  # on the wire just now

    @staticmethod
    def now() -> float:
        """Seconds of the clock that all times here are of."""
        return time.monotonic()

    @contextmanager
    def call(self, what: str) -> Generator[Call, None, None]:
        """Everything inside, and in the tasks started inside, belongs to this call."""
        call = Call(len(self.calls) + 1, what, time.monotonic())
        self.calls.append(call)
        self.in_flight += 1
        token = _call.set(call)
        try:
            yield call
        except BaseException as error:
            call.error = error
            raise
        finally:
            _call.reset(token)
            self.in_flight -= 1
            call.ended = time.monotonic()

    def hear(self, event: Event) -> None:
        """The handler for `asyncguard.subscribe`."""
        now = time.monotonic()
        self.events.append((now, event))
        call = _call.get()
        if call is not None:
            call.events.append((now, event))

    def tracing(self) -> aiohttp.TraceConfig:
        """Hooks for the client session: a request id for each attempt, and how it ended."""
        import aiohttp

        config = aiohttp.TraceConfig()
        config.on_request_start.append(self._attempt_starts)
        config.on_request_end.append(self._attempt_ends)
        config.on_request_exception.append(self._attempt_fails)
        return config

    async def _attempt_starts(self, _session: Any, context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        call = _call.get()
        if call is None:
            context.attempt = None
            return
        context.attempt = Attempt(f"{call.number}.{len(call.attempts) + 1}", time.monotonic())
        call.attempts.append(context.attempt)
        params.headers["X-Request-Id"] = context.attempt.id
        self.requests += 1

    async def _attempt_ends(self, _session: Any, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        self._over(context.attempt, str(params.response.status))

    async def _attempt_fails(self, _session: Any, context: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
        self._over(context.attempt, type(params.exception).__name__)

    def _over(self, attempt: Attempt | None, outcome: str) -> None:
        if attempt is not None:
            attempt.ended = time.monotonic()
            attempt.outcome = outcome
            self.requests -= 1
