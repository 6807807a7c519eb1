"""`asyncguard demo memory`: who is killed, who finishes, and that nothing is left of it, whenever it is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncguard.cli.demo import memory, memory_job, memory_report, memory_run
from asyncguard.cli.demo.memory_box import Box, BoxError, why_not
from asyncguard.cli.demo.memory_run import CONTENDERS, KILLED, MIB, Run, Settings, Simulated
from asyncguard.cli.main import main, parser

if sys.platform == "win32":
    pytest.skip("the demo kills real processes", allow_module_level=True)

SOON = 60.0  # seconds; generous, for machines that do other things too
SMALL = ("--calls", "16", "--limit", "128")


class Demo:
    """`python -m asyncguard demo memory`, findable by a mark in the environment of its processes."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.place = place
        self.mark = f"ASYNCGUARD_DEMO_TEST={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncguard", "demo", "memory", "--out", str(place), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
            env=os.environ | {name: value, "TMPDIR": str(place), "PYTHONPATH": path},
            start_new_session=True,
        )

    def finished(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=280)
        return self.process.returncode, out + err

    def running(self) -> list[str]:
        """What runs with our mark, zombies left out: a container without an init keeps them."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environment.read_bytes():
                    found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def left(self) -> list[object]:
        """Processes, folders and groups."""
        groups = [] if why_not() else [*Box(MIB).path.parent.glob(f"asyncguard-{self.process.pid}-*")]
        return [*self.running(), *self.place.glob("asyncguard-demo-*"), *groups]

    def wait_for_calls(self) -> None:
        """Wait until calls run."""
        late = time.monotonic() + SOON
        while not any("memory_job" in each for each in self.running()):
            assert time.monotonic() < late
            time.sleep(0.01)


def assert_nothing_is_left(demo: Demo) -> None:
    late = time.monotonic() + SOON
    while demo.left() and time.monotonic() < late:
        time.sleep(0.02)
    assert demo.left() == []


@pytest.fixture(scope="module", autouse=True)
def interrupts_heeded() -> Iterator[None]:
    """A shell starts what runs in the background with SIGINT ignored, and what we start would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def row(said: str, name: str) -> str:
    [found] = re.findall(rf"^{re.escape(CONTENDERS[name])} .*$", said, re.MULTILINE)
    return str(found)


def assert_killed(said: str, calls: int) -> None:
    for name in ("none", "psutil", "check"):
        assert "killed, exit 137" in row(said, name)
        assert f"{calls} of {calls}" not in row(said, name)


def assert_kept(said: str, calls: int) -> None:
    assert f"{calls} of {calls}" in row(said, "guard")
    assert "exit 0" in row(said, "guard")
    assert "Good:" in said


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_where_no_group_can_be_made_it_is_simulated_and_says_so(tmp_path: Path) -> None:
    for _ in range(5):  # what stands in for the kernel comes too late where it gets no processor for a while
        demo = Demo(tmp_path, *SMALL, "--simulate")
        status, said = demo.finished()
        assert status == 0, said
        assert "this is a simulation" in said
        assert_kept(said, 16)
        if said.count("killed, exit 137") == len(CONTENDERS) - 1:
            break
    assert_killed(said, 16)
    assert (tmp_path / "memory.html").read_text().count("<svg viewBox") >= len(CONTENDERS)
    assert_nothing_is_left(demo)


@pytest.mark.skipif(bool(why_not()), reason=f"needs a memory cgroup: {why_not()}")
def test_in_a_real_group_the_kernel_kills_all_but_the_guarded(tmp_path: Path) -> None:
    demo = Demo(tmp_path, *SMALL)
    status, said = demo.finished()
    assert status == 0, said
    assert "the kernel kills" in said
    assert_kept(said, 16)
    assert_killed(said, 16)
    assert_nothing_is_left(demo)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_midst_it_leaves_no_process_no_folder_and_no_group(tmp_path: Path, number: int) -> None:
    demo = Demo(tmp_path, "--calls", "1000")  # not over for a long time, also if we come late
    demo.wait_for_calls()
    demo.process.send_signal(number)
    status, said = demo.finished()
    assert status == (-number if number == signal.SIGKILL else 128 + number), said
    assert "Traceback" not in said
    assert_nothing_is_left(demo)


def test_a_group_that_was_made_is_removed_and_others_stay() -> None:
    if why_not():
        pytest.skip(f"needs a memory cgroup: {why_not()}")
    ours, other = Box(64 * MIB), Box(64 * MIB)
    ours.make()
    other.make()
    try:
        ours.remove()
        assert not ours.path.exists()
        assert other.path.exists()
        assert (other.kills, other.used) == (0, 0)
    finally:
        other.remove()


def test_a_group_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncguard.cli.demo.memory_box.why_not", lambda: "only root may make a memory cgroup")
    with pytest.raises(BoxError, match="only root"):
        Box(MIB)
    assert memory_run.why_simulated() == "only root may make a memory cgroup"


def test_the_stand_in_for_the_kernel_kills_above_the_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    held = [100, 101, 300]
    monkeypatch.setattr(memory_run, "held_by", lambda pid: held.pop(0))
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    container = Simulated(100)
    assert container.look(7) == 100
    assert killed == []
    container.look(7)
    container.look(7)
    assert (killed, container.kills, container.peak) == ([7], 1, 300)


def test_the_bytes_of_a_process_are_read_and_none_of_one_that_has_ended() -> None:
    ballast = bytearray(b"\1") * (32 * MIB)
    assert (memory_run.held_by(os.getpid()) or 0) > len(ballast)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory_run.held_by(ended.pid) is None


def a_run(name: str = "guard", *, status: int = 0, done: int = 60, kills: int = 0) -> Run:
    run = Run(name, Settings(), status, kills, 200 * MIB, 1.0, done, 5, 40 * MIB)
    run.used = [(0.0, 10.0 * MIB), (1.0, 200.0 * MIB)]
    run.promised = [(0.0, 0.0), (0.5, 150.0 * MIB)]
    return run


@pytest.mark.parametrize(
    ("run", "good"),
    [
        (a_run(), True),
        (a_run(done=59), False),
        (a_run(kills=1), False),
        (a_run(status=KILLED, done=3, kills=1), False),
    ],
)
def test_the_exit_status_is_about_the_guarded_run(
    run: Run, good: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = a_run("none", status=KILLED, done=0, kills=1)
    assert memory._reported([dead, run], tmp_path) == (0 if good else 1)
    said = capsys.readouterr().out
    assert ("Good:" in said, "FAILED:" in said) == (good, not good)
    assert "0 of 60  killed, exit 137" in said


def test_the_page_shows_each_run_and_escapes_what_it_shows() -> None:
    runs = [a_run("none", status=KILLED, done=0), a_run("guard")]
    page = memory_report.document(runs)
    assert page.count('class="used line"') == 2
    assert page.count('class="promised line"') == 1
    assert page.count("✕ killed, exit 137, 0 of 60 calls done") == 1
    simulated = Settings(simulated="<nothing>")
    runs[0].settings = simulated
    assert "<nothing>" not in memory_report.document(runs)


def test_many_points_are_thinned_and_the_peak_stays() -> None:
    points = [(float(at), 1.0) for at in range(10_000)]
    points[5003] = (5003.0, 9.0)
    thinned = memory_report.thinned(points)
    assert len(thinned) <= 700
    assert max(value for _, value in thinned) == 9.0
    assert memory_report.thinned([]) == []


def test_what_was_written_before_the_death_is_read_and_a_cut_line_is_not(tmp_path: Path) -> None:
    log = tmp_path / "none.jsonl"
    log.write_text('{"start": 5.0}\n{"at": 5.5, "promised": 7, "most": 3, "done": 0}\n{"at": 5.6, "prom')
    run = Run("none", Settings(), KILLED)
    memory_run._read(run, log, [(4.0, 1), (6.0, 2)])
    assert (run.used, run.promised, run.most, run.done, run.seconds) == ([(1.0, 2)], [(0.5, 7)], 3, 0, 1.0)


def test_calls_that_cannot_start_are_an_error_with_the_last_words(tmp_path: Path) -> None:
    log = tmp_path / "guard.jsonl"
    log.write_text("Traceback\nImportError: no such module\n")
    with pytest.raises(memory_run.PartError, match=r"'guard' ended with status 1: .*ImportError"):
        memory_run._read(Run("guard", Settings(), 1), log, [])


def test_what_is_touched_is_in_use() -> None:
    held = memory_job.touched(1000)
    assert (len(held), sum(held)) == (1000, 1000)


@pytest.mark.parametrize("arguments", [["demo", "--out", "x", "memory"], ["demo", "memory", "--out", "x"]])
def test_the_folder_of_the_report_is_taken_on_either_side(arguments: list[str]) -> None:
    asked = parser().parse_args(arguments)
    assert (asked.out, asked.calls, asked.limit, asked.simulate) == (Path("x"), 60, 256, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calls", "0"], "expected a number of calls, at least 1, got 0"),
        (["--limit", "10"], "at least 96"),
        (["--limit", "1.5"], "at least 96"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["demo", "memory", *arguments])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "memory", "--out", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
