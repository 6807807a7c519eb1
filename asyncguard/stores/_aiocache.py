"""A store beyond this process, over any backend of aiocache, that costs its timeout once when it is dead or hangs.

Every operation has our own timeout and goes through a circuit: after one failure nothing is asked for a second, then
one operation is let through as a probe, and so on, up to ten seconds apart. Nothing here ever raises because of the
store: what it cannot do is a miss, or a write that did not happen, and is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

from asyncguard._machines import checks
from asyncguard._machines.circuit import Circuit
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import dispatch, forks, notices
from asyncguard.errors import CircuitOpenError
from asyncguard.stores import _backends
from asyncguard.stores._backends import MOST_TTL, Client
from asyncguard.stores._codec import Codec, OwnCodec, SafeCodec, UnencodableError
from asyncguard.stores._facts import RULES, Counts, Failed, State, StoreInfo, is_outage
from asyncguard.stores._links import Job, Link
from asyncguard.stores._options import checked_codec, checked_namespace

__all__ = ["MOST_TTL", "AiocacheStore", "Failed", "StoreInfo"]

MOST_KEYS = 500
"""Keys of one operation, to which the timeout applies."""

Write = Literal["wait", "background"]
T = TypeVar("T")

_all: weakref.WeakSet[AiocacheStore] = weakref.WeakSet()


class AiocacheStore:
    """A store that several processes share, for `cache_result(..., store=)` and `cache_items(..., store=)`.

    `backend`: an aiocache backend (`RedisCache`, `MemcachedCache`, or any with its methods; its client may be your own:
    cluster, sentinel, TLS), for one event loop, or a function that makes one, called once for each loop;
    `AiocacheStore.redis(url)` and `AiocacheStore.memcached(host, port)` bring their own.
    `namespace` (required, unless the backend has one) keeps the keys apart from those of other programs: name the data
    and its version. `timeout` seconds bound each operation. `lease` seconds: among all processes one computes a key,
    the others wait for its value, at most so long. `codec`: "safe", or a `Codec` of your own. `write`: nobody who calls
    waits for a write; with "wait" the computation lasts until its value is written, with "background" one task per
    loop writes, at most 1000 may wait, and the rest is dropped.

    Raises TypeError or ValueError for a wrong option, ImportError where "safe" lacks msgpack.
    """

    def __init__(  # noqa: PLR0913 - an option is a keyword-only parameter
        self,
        backend: Any,
        *,
        namespace: str | None = None,
        timeout: float | timedelta = 0.25,
        lease: float | timedelta | None = None,
        codec: Literal["safe"] | Codec = "safe",
        write: Write = "wait",
    ) -> None:
        self._given = _backends.checked(backend)
        self.namespace = checked_namespace(getattr(backend, "namespace", None) if namespace is None else namespace)
        self.timeout = checks.duration("timeout", timeout, above=0.0)
        self.lease = None if lease is None else checks.duration("lease", lease, above=0.0)
        checks.one_of("write", write, ("wait", "background"))
        self.write_mode: Write = write
        self._codec = checked_codec(codec)
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._used = False
        self._warned: set[str] = set()
        self._real = State(self._circuit(clocks.REAL))

    @classmethod
    def redis(  # noqa: PLR0913 - as above
        cls,
        url: str = "redis://localhost:6379/0",
        *,
        namespace: str,
        max_connections: int = 16,
        timeout: float | timedelta = 0.25,
        lease: float | timedelta | None = None,
        codec: Literal["safe"] | Codec = "safe",
        write: Write = "wait",
    ) -> AiocacheStore:
        """Return a store in Redis or Valkey: in each loop a pool of its own for whose connections operations wait.

        Nothing is tried twice. `url` as redis-py reads it, with `rediss://` for TLS; it is never printed.
        """
        made = _backends.Redis(url, max_connections)
        return cls(made, namespace=namespace, timeout=timeout, lease=lease, codec=codec, write=write)

    @classmethod
    def memcached(  # noqa: PLR0913 - as above
        cls,
        host: str = "localhost",
        port: int = 11211,
        *,
        namespace: str,
        pool_size: int = 4,
        timeout: float | timedelta = 0.25,
        lease: float | timedelta | None = None,
        codec: Literal["safe"] | Codec = "safe",
        write: Write = "wait",
    ) -> AiocacheStore:
        """Return a store in memcached, with a pool of its own in each loop."""
        made = _backends.Memcached(host, port, pool_size)
        return cls(made, namespace=namespace, timeout=timeout, lease=lease, codec=codec, write=write)

    # --- what it does -------------------------------------------------------------------------------------------------

    async def read(self, keys: Sequence[str]) -> list[Any] | Failed:
        """Return what is under each key, None where there is nothing."""
        done = await self._in_portions(keys, Client.read)
        return done if isinstance(done, Failed) else [each for part in done for each in part]

    async def write(self, pairs: Sequence[tuple[str, bytes]], ttl: float) -> Failed | None:
        """Put values under keys for `ttl` seconds."""

        async def put(client: Client, portion: Sequence[tuple[str, bytes]]) -> None:
            await client.write(portion, ttl)
            self.counts.written += len(portion)

        done = await self._in_portions(pairs, put, writes=True)
        return done if isinstance(done, Failed) else None

    async def delete(self, keys: Sequence[str]) -> int | Failed:
        """Remove keys; return how many there were."""
        done = await self._in_portions(keys, Client.delete, writes=True)
        return done if isinstance(done, Failed) else sum(done)

    async def add(self, pairs: Sequence[tuple[str, bytes]], ttl: float) -> list[bool] | Failed:
        """Put values under keys that have none; tell of each whether it did."""
        done = await self._in_portions(pairs, lambda client, portion: client.add(portion, ttl), writes=True)
        return done if isinstance(done, Failed) else [each for part in done for each in part]

    async def release(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Remove each key if it still holds its token."""
        await self._in_portions(pairs, Client.release, writes=True)

    def link(self) -> Link:
        """Return what the store has in the running loop, made on first use.

        Raises RuntimeError in a second loop if the store was given a backend instead of a function that makes one.
        """
        loop = asyncio.get_running_loop()
        found = self._links.get(loop)
        if found is None:
            for each in list(self._links):
                if each.is_closed():
                    self._links.pop(each, None)
            found = self._links[loop] = Link(self._new_client())  # no lock: a loop runs in one thread
        return found

    def codec_for(self, annotation: Any) -> SafeCodec | OwnCodec:
        """Return the codec of a function that says to return `annotation`."""
        return SafeCodec(annotation) if self._codec is None else self._codec

    @property
    def counts(self) -> Counts:
        """The counts on the clock in force here."""
        return self._here().counts

    def wall(self) -> float:
        """Return seconds since 1970; on a virtual clock its own."""
        clock = clocks.current()
        return time.time() if clock is clocks.REAL else clock.now()

    def info(self) -> StoreInfo:
        """Return what the store did in this process so far."""
        return self._here().info()

    def describe(self) -> str:
        """Say in a few words how the store is, for `status()`."""
        state = self._here()
        words = state.circuit.describe().partition(",")[0] if state.circuit.state.value != "closed" else "in use"
        return f"{words}, {state.counts.hits} hits"

    async def aclose(self) -> None:
        """Wait for the writes of this loop (at most as long as they may take) and close its connections."""
        link = self._links.get(asyncio.get_running_loop())
        if link is None:
            return
        await link.finish(4 * self.timeout)
        if _backends.is_factory(self._given):
            self._links.pop(asyncio.get_running_loop(), None)
        await link.client.close()

    def warn_once(self, name: str, error: Exception) -> None:
        """Warn, once for each function, that values of it stay in this process."""
        if name not in self._warned:
            self._warned.add(name)
            said = str(error) if isinstance(error, UnencodableError) else f"its codec failed ({type(error).__name__})"
            logging.getLogger("asyncguard").warning(
                "%s: a value is kept in this process only, the store %s does not get it: %s", name, self.namespace, said
            )

    def _unlinked(self, error: Exception) -> None:
        """Warn once that there is no backend here. The circuit is not for that: in another loop all may be well."""
        if "" not in self._warned:
            self._warned.add("")
            said = str(error) if isinstance(error, ForeignLoopError) else f"no backend ({type(error).__name__})"
            logging.getLogger("asyncguard").warning("store %s is not used here: %s", self.namespace, said)

    def after_fork(self) -> None:
        """Forget the connections in a forked child: the sockets are the parent's."""
        used = self._used
        self._begin()
        self._used = used

    def __repr__(self) -> str:
        return f"<AiocacheStore {self.namespace}>"

    def __reduce__(self) -> tuple[Any, ...]:
        codec: Any = "safe" if self._codec is None else self._codec.own
        return _rebuilt, (self._given, self.namespace, self.timeout, self.lease, codec, self.write_mode)

    # --- how ----------------------------------------------------------------------------------------------------------

    async def _in_portions(
        self, all_: Sequence[Any], operation: Callable[[Client, Any], Awaitable[T]], *, writes: bool = False
    ) -> list[T] | Failed:
        """Do an operation on some keys after the others: ten thousand at once would take longer than the timeout."""
        done: list[T] = []
        for at in range(0, len(all_), MOST_KEYS):

            def ask(client: Client, portion: Sequence[Any] = all_[at : at + MOST_KEYS]) -> Awaitable[T]:
                return operation(client, portion)

            part = await self._do(ask, writes=writes)
            if isinstance(part, Failed):
                return part
            done.append(part)
        return done

    async def _do(self, operation: Callable[[Client], Awaitable[T]], *, writes: bool = False) -> T | Failed:
        """Do an operation within the timeout, if the circuit lets it; an error of the store is a `Failed`."""
        state = self._here()
        try:
            link = self.link()
        except Exception as error:  # noqa: BLE001 - what makes backends is code of the user's
            state.counts.errors += 1
            self._unlinked(error)
            return Failed(type(error).__name__)
        try:
            permit = state.circuit.admit()
        except CircuitOpenError:
            state.counts.skipped += 1
            return Failed()
        answers = state.answers
        try:
            done = await link.within(self.timeout, operation)
        except Exception as error:  # noqa: BLE001 - whatever a client raises: the call goes on without the store
            busy = isinstance(error, TimeoutError) and state.answers != answers
            return self._failed(state, permit, error, there=busy or (writes and not is_outage(error)))
        except BaseException:
            state.circuit.abandoned(permit)
            raise
        state.answers += 1
        state.circuit.succeeded(permit, 0.0)
        if state.circuit.news:
            self._tell(state)
        return done

    def _failed(self, state: State, permit: Any, error: Exception, *, there: bool) -> Failed:
        """Take note of an operation that failed; `there`: not because the store is gone.

        One value may be too large, or of many operations at once some may wait too long for a connection.
        """
        state.counts.errors += 1
        if there:
            state.circuit.succeeded(permit, 0.0)
        else:
            state.circuit.failed(permit, 0.0, error)
        self._tell(state)
        return Failed(type(error).__name__)

    def later(self, job: Job) -> bool:
        """Do a job in the background of this loop; false, and counted, if too many wait."""
        link = self._link_or_none()
        taken = link is not None and link.later(job)
        self.counts.dropped += not taken
        return taken

    def beside(self, job: Job) -> None:
        """Do a job at once, in a task of its own."""
        link = self._link_or_none()
        if link is not None:
            link.beside(job)

    def tracked(self) -> contextlib.AbstractContextManager[None]:
        """Let `aclose` wait for the running task as long as it is in the block."""
        link = self._link_or_none()
        return contextlib.nullcontext() if link is None else link.tracked()

    def pending_here(self) -> dict[Any, None]:
        """Return where to note what is being written in this loop, for those who invalidate it meanwhile."""
        link = self._link_or_none()
        return {} if link is None else link.pending

    def pending(self) -> list[Any]:
        """Return what is being written, in all loops."""
        return [each for link in list(self._links.values()) for each in list(link.pending)]

    def _link_or_none(self) -> Link | None:
        try:
            return self.link()
        except Exception:  # noqa: BLE001 - the backend cannot be made, or belongs to another loop: told by the operation
            return None

    def _tell(self, state: State) -> None:
        while True:
            try:
                kind, facts = state.circuit.news.popleft()
            except IndexError:  # told, by us or by another thread
                return
            event = kind(pipeline="", strategy=f"store {self.namespace}", partition="", observed=False, **facts)
            for handler in dispatch.handlers:
                dispatch.deliver(event, handler)
            dispatch.deliver(event, notices.notice)

    def _here(self) -> State:
        clock = clocks.current()
        if clock is clocks.REAL:
            return self._real
        with self._lock:
            state: State | None = clock.cores.get(self)
            if state is None:
                state = clock.cores[self] = State(self._circuit(clock))
            return state

    def _circuit(self, clock: clocks.Clock) -> Circuit:
        return Circuit(RULES, clock.now, f"store {self.namespace}")

    def _new_client(self) -> Client:
        given = self._given
        if _backends.is_factory(given):
            return Client(_backends.made(given), owned=True)
        with self._lock:
            used, self._used = self._used, True
        if used:
            raise ForeignLoopError(
                f"the backend of {self!r} belongs to the event loop that used it first: give AiocacheStore a function "
                "that makes one (lambda: RedisCache(...)), or use AiocacheStore.redis(url)"
            )
        return Client(given, owned=False)


class ForeignLoopError(RuntimeError):
    """A backend was used in a second event loop."""


def _rebuilt(*options: Any) -> AiocacheStore:
    names = ("namespace", "timeout", "lease", "codec", "write")
    return AiocacheStore(options[0], **dict(zip(names, options[1:], strict=True)))


def _renew() -> None:
    for store in list(_all):
        store.after_fork()


forks.in_child(_renew)
