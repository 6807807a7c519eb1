"""Fixtures of the stores: real servers, one for all tests that only read and write, and one for those that kill it."""

from __future__ import annotations

import gc
import itertools
import os
from typing import TYPE_CHECKING

import pytest

from asyncguard.stores import AiocacheStore
from tests.stores import servers
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count()
Make = "Callable[..., AiocacheStore]"


def _serve(kind: str, folder: Path) -> Iterator[Server]:
    command = servers.redis_command() if kind == "redis" else servers.memcached_command()
    with servers.running(command, b"PING\r\n" if kind == "redis" else b"version\r\n", folder) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve("redis", tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="session")
def memcached_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve("memcached", tmp_path_factory.mktemp("memcached"))


@pytest.fixture(params=["redis", "memcached"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Server:
    """A server that other tests use as well: do not stop it."""
    return request.getfixturevalue(f"{kind}_server")


@pytest.fixture
def own_server(kind: str, tmp_path: Path) -> Iterator[Server]:
    """A server of this test, to be stopped, paused and started again."""
    yield from _serve(kind, tmp_path)


def namespace() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


def store_in(kind: str, server: Server, **options: object) -> AiocacheStore:
    options.setdefault("namespace", namespace())
    options.setdefault("timeout", 60.0)  # the machine may stand still; tests of hanging stores set their own
    if kind == "redis":
        return AiocacheStore.redis(f"redis://127.0.0.1:{server.port}/0", **options)
    return AiocacheStore.memcached("127.0.0.1", server.port, **options)


@pytest.fixture
def make(kind: str, server: Server) -> Callable[..., AiocacheStore]:
    """Make a store in the shared server; each has a namespace of its own unless one is given."""
    return lambda **options: store_in(kind, server, **options)


@pytest.fixture
def collected() -> Iterator[None]:
    """Let the garbage collector end what a test left behind before the next one begins."""
    yield
    gc.collect()
