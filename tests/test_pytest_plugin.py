"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

INSTALLED = any(point.name == "asyncguard" for point in metadata.entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "asyncguard.pytest_plugin")


@pytest.fixture
def outcome(pytester: pytest.Pytester):
    """Run a file of tests; return how many passed, failed, ..."""

    def run(text: str) -> dict[str, int]:
        pytester.makepyfile(text)
        # Plugins that are installed by chance must not take part.
        result = pytester.runpytest("-p", "no:asyncio", "-p", "no:anyio", "--strict-markers", *PLUGIN)
        run.result = result
        return result.parseoutcomes()

    return run


def test_an_async_test_runs_on_virtual_time(outcome):
    text = """
        import asyncio, pytest, time

        @pytest.fixture
        def seconds():
            return 3600

        @pytest.mark.asyncguard
        async def test_sleeps(seconds):
            loop = asyncio.get_running_loop()
            start = loop.time()
            await asyncio.sleep(seconds)
            assert loop.time() - start >= seconds

        @pytest.mark.asyncguard
        async def test_fails():
            assert False

        class TestMethods:
            @pytest.mark.asyncguard(backend="trio")
            async def test_on_trio(self, seconds):
                import trio
                start = trio.current_time()
                await trio.sleep(seconds)
                assert trio.current_time() - start >= seconds
    """
    assert outcome(text) == {"passed": 2, "failed": 1}


def test_a_marked_module_runs_on_both_backends(outcome):
    text = """
        import pytest, sys
        pytestmark = pytest.mark.asyncguard

        @pytest.mark.parametrize("asyncguard_backend", ["asyncio", "trio"])
        async def test_both(asyncguard_backend):
            import trio
            assert trio.lowlevel.in_trio_run() == (asyncguard_backend == "trio")

        def test_plain_tests_are_left_alone():
            assert True
    """
    assert outcome(text) == {"passed": 3}


def test_a_test_without_the_marker_is_left_to_others(outcome):
    assert "passed" not in outcome("async def test_nobody_runs_it(): pass")


def test_sync_code_sleeps_on_the_clock(outcome):
    text = """
        import asyncguard as ag
        from asyncguard._runtime import clock

        @ag.retry(on=OSError, max_retries=3, jitter="none", initial_delay=10)
        def broken():
            raise OSError

        def test_it(asyncguard_clock, asyncguard_events):
            start = asyncguard_clock.now()
            try:
                broken()
            except OSError:
                pass
            assert asyncguard_clock.now() - start == 10 + 20 + 20
            asyncguard_events.assert_attempts(4)

        def test_that_it_is_over():
            assert clock.current() is clock.REAL
    """
    assert outcome(text) == {"passed": 2}


def test_a_marked_test_and_the_clock_have_one_time(outcome):
    text = """
        import asyncio, pytest

        @pytest.mark.asyncguard
        async def test_one(asyncguard_clock):
            start = asyncguard_clock.now()
            await asyncio.sleep(60)
            assert asyncguard_clock.now() - start >= 60
            asyncguard_clock.advance(60)
            assert asyncio.get_running_loop().time() - start >= 120

        def test_two(asyncguard_run, asyncguard_clock):
            start = asyncguard_clock.now()
            async def main():
                await asyncio.sleep(60)
                return 5
            assert asyncguard_run(main) == 5
            assert asyncguard_clock.now() - start >= 60
    """
    assert outcome(text) == {"passed": 2}


def test_the_seed_of_the_marker_is_that_of_the_jitter(outcome):
    text = """
        import pytest
        from asyncguard import testing
        from asyncguard._runtime import clock
        seen = []

        @pytest.mark.asyncguard(seed=7)
        @pytest.mark.parametrize("time", [1, 2])
        async def test_draws(time):
            seen.append(clock.current().random())

        @pytest.mark.asyncguard(seed=7)
        def test_the_same(asyncguard_clock):
            seen.append(clock.current().random())
            assert len(set(seen)) == 1 and len(seen) == 3
    """
    assert outcome(text) == {"passed": 3}


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('asyncguard(backend="curio")', "must be 'asyncio' or 'trio', got 'curio'"),
        ('asyncguard(colour="red")', "takes backend= and seed="),
        ('asyncguard("trio")', "takes backend= and seed="),
    ],
)
def test_a_wrong_marker_says_what_it_takes(marker, message, outcome):
    text = f"""
        import pytest

        @pytest.mark.{marker}
        async def test_it():
            pass
    """
    assert outcome(text) == {"failed": 1}
    outcome.result.stdout.fnmatch_lines([f"*{message}*"])


def test_a_fixture_may_choose_the_backend(outcome, pytester):
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(params=["asyncio", "trio"])
        def asyncguard_backend(request):
            return request.param
        """
    )
    text = """
        def test_it(asyncguard_run, asyncguard_backend):
            import trio
            async def main():
                return trio.lowlevel.in_trio_run()
            assert asyncguard_run(main) == (asyncguard_backend == "trio")
    """
    assert outcome(text) == {"passed": 2}


@pytest.mark.parametrize("how", ["option", "ini"])
def test_in_the_auto_mode_of_pytest_asyncio_a_marked_test_fails_instead_of_waiting_for_real(how, pytester, monkeypatch):
    pytest.importorskip("pytest_asyncio")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.asyncguard
        async def test_it():
            pass

        async def test_without_the_marker():
            pass

        @pytest.mark.asyncguard
        def test_plain():
            pass
        """
    )
    if how == "ini":
        pytester.makeini("[pytest]\nasyncio_mode = auto")
    option = ["--asyncio-mode=auto"] if how == "option" else []
    # In a process of its own, where the plugin is loaded as in any other suite.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    result = pytester.runpytest_subprocess("-p", "pytest_asyncio", "-p", "no:anyio", *PLUGIN, *option)
    assert {name: result.parseoutcomes()[name] for name in ("failed", "passed")} == {"failed": 1, "passed": 2}
    result.stdout.fnmatch_lines(["*in its auto mode runs this test itself, on real time*"])


def test_arguments_that_are_no_fixtures_are_left_alone(outcome):
    text = """
        import asyncio, pytest
        from unittest import mock

        @pytest.mark.asyncguard
        async def test_a_default(tmp_path, times=3):
            assert times == 3

        @pytest.mark.asyncguard
        @mock.patch("os.getcwd")
        async def test_a_mock(getcwd, tmp_path):
            assert isinstance(getcwd, mock.Mock) and tmp_path.exists()
    """
    assert outcome(text) == {"passed": 2}


def foreign(pytester, monkeypatch, text, *options):
    """Run a file of tests beside other plugins, in a process of its own; a test on real time would never end."""
    pytester.makepyfile(text)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return pytester.runpytest_subprocess(*PLUGIN, *options, timeout=120)


def test_a_marked_test_that_anyio_would_run_runs_on_virtual_time(pytester, monkeypatch):
    pytest.importorskip("anyio")
    text = """
        import asyncio, pytest

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.asyncguard
        async def test_it():
            await asyncio.sleep(1e9)

        async def test_without_the_marker():
            await asyncio.sleep(0)
    """
    result = foreign(pytester, monkeypatch, text, "-p", "no:asyncio")
    assert result.parseoutcomes() == {"passed": 2}


def test_a_marked_test_that_pytest_asyncio_would_run_for_its_own_mark_fails(pytester, monkeypatch):
    pytest.importorskip("pytest_asyncio")
    text = """
        import asyncio, pytest

        @pytest.mark.asyncio
        @pytest.mark.asyncguard
        async def test_it():
            await asyncio.sleep(1e9)
    """
    result = foreign(pytester, monkeypatch, text, "-p", "pytest_asyncio", "-p", "no:anyio", "--asyncio-mode=strict")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*pytest-asyncio for mark.asyncio runs this test itself*take that mark away*"])


def test_the_marker_is_listed(pytester):
    result = pytester.runpytest("-p", "no:asyncio", "--markers", *PLUGIN)
    result.stdout.fnmatch_lines(["@pytest.mark.asyncguard(backend='asyncio', seed=0): run an*"])


def test_the_entry_point_is_declared():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text)["project"]["entry-points"]["pytest11"]
    assert points == {"asyncguard": "asyncguard.pytest_plugin"}
