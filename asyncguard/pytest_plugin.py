"""The pytest plugin: virtual time and recorded events as fixtures, and `async def` tests on virtual time.

It is found by its entry point, so it imports nothing until a test asks for something.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from asyncguard.testing import Recorded, VirtualClock

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]


class Runner(Protocol):
    """What the fixture `asyncguard_run` is: `def test_it(asyncguard_run: Runner) -> None: ...`."""

    def __call__(self, main: Callable[[], Awaitable[T]], /) -> T:
        """Run an async function to its end, on virtual time, and return its result."""
        ...


_MARKER = (
    "asyncguard(backend='asyncio', seed=0): run an `async def` test on virtual time, where every sleep is instant; "
    "backend is 'asyncio' or 'trio', seed that of the jitter"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def asyncguard_clock(request: Any) -> Generator[VirtualClock]:
    """A virtual clock in force for the test: sleeps take no time, and strategies have a state of their own."""
    from asyncguard import testing

    with testing.virtual_clock(seed=_options(request.node).get("seed", 0)) as clock:
        yield clock


@pytest.fixture
def asyncguard_events() -> Generator[Recorded]:
    """Every event of the test, in order: `asyncguard_events.assert_attempts(3)`."""
    from asyncguard import testing

    with testing.record_events() as recorded:
        yield recorded


@pytest.fixture
def asyncguard_backend(request: Any) -> Backend:
    """The async library of `asyncguard_run` and of marked tests: parametrize or override it to test on both."""
    backend: Backend = _options(request.node).get("backend", "asyncio")
    return backend


@pytest.fixture
def asyncguard_run(request: Any, asyncguard_backend: Backend) -> Runner:
    """`asyncguard_run(main)` runs an async function from a plain test, on virtual time."""

    def run(main: Callable[[], Awaitable[T]]) -> T:
        return _run(request.node, main, asyncguard_backend)

    return run


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Make a plain function of a marked `async def` test; every other is left to whoever cares for it.

    As a wrapper it comes before every plugin that runs async tests itself, and pytest finds the arguments.
    """
    function: Any = pyfuncitem.obj
    if pyfuncitem.get_closest_marker("asyncguard") is None:
        return (yield)
    if not inspect.iscoroutinefunction(function):
        _refuse_others(pyfuncitem)
        return (yield)
    pyfuncitem.obj = _on_virtual_time(pyfuncitem, function)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = function


def _on_virtual_time(item: pytest.Function, function: Callable[..., Awaitable[object]]) -> Callable[..., None]:
    backend = cast("Backend", item.funcargs.get("asyncguard_backend", _options(item).get("backend", "asyncio")))

    def test(**arguments: object) -> None:
        _run(item, lambda: function(**arguments), backend)

    return test


def _refuse_others(item: pytest.Function) -> None:
    """Fail where pytest-asyncio has put a sync function around a marked test: it would run on real time, unsaid."""
    config = item.config
    if not config.pluginmanager.hasplugin("asyncio"):
        return
    auto = (config.getoption("asyncio_mode", None) or config.getini("asyncio_mode")) == "auto"
    takes_it = auto or item.get_closest_marker("asyncio") is not None
    if takes_it and inspect.iscoroutinefunction(inspect.unwrap(item.obj)):
        why = "in its auto mode" if auto else "for mark.asyncio"
        instead = 'set asyncio_mode = "strict"' if auto else "take that mark away"
        pytest.fail(
            f"pytest-asyncio {why} runs this test itself, on real time, in spite of mark.asyncguard: {instead}, or "
            "make it a plain function that calls asyncguard_run(main)",
            pytrace=False,
        )


def _run(item: pytest.Function, main: Callable[[], Awaitable[T]], backend: Backend) -> T:
    from asyncguard import testing

    if backend not in {"asyncio", "trio"}:
        raise pytest.UsageError(f"the backend of asyncguard must be 'asyncio' or 'trio', got {backend!r}")
    clock = cast("VirtualClock | None", item.funcargs.get("asyncguard_clock"))
    return testing.run(main, backend=backend, seed=_options(item).get("seed", 0), clock=clock)


def _options(item: Any) -> dict[str, Any]:
    """Return what the marker says: that of the test before that of its class or module."""
    marker = item.get_closest_marker("asyncguard")
    if marker is None:
        return {}
    unknown = set(marker.kwargs) - {"backend", "seed"}
    if marker.args or unknown:
        raise pytest.UsageError(f"mark.asyncguard takes backend= and seed=, got {marker}")
    return dict(marker.kwargs)
