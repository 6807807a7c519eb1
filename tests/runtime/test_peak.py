"""The peak of the process during one call: from the kernel where it keeps one, else by looking."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from asyncguard._runtime import peak
from asyncguard._runtime.peak import PeakMeter

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own mark is Linux")


@linux
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this kernel does not reset the mark")
def test_a_peak_that_is_gone_when_the_call_ends_is_seen() -> None:
    meter = PeakMeter()
    meter.start()
    ballast = bytearray(64 * MIB)
    del ballast
    found = meter.stop()
    assert found is not None
    assert 60 * MIB <= found < 100 * MIB


@linux
def test_each_measurement_starts_from_what_is_held_then() -> None:
    meter = PeakMeter()
    kept = bytearray(64 * MIB)
    meter.start()
    found = meter.stop()
    assert found is not None
    assert found < 16 * MIB
    del kept


def fake(tmp_path: Path, text: str) -> PeakMeter:
    (tmp_path / "clear_refs").write_text("")
    (tmp_path / "status").write_text(text)
    return PeakMeter(str(tmp_path))


def test_the_mark_is_reset_and_read(tmp_path: Path) -> None:
    meter = fake(tmp_path, "Name: x\nVmHWM:\t    1000 kB\nVmRSS: 5 kB\n")
    meter.start()
    assert (tmp_path / "clear_refs").read_bytes() == b"5"
    (tmp_path / "status").write_text("VmHWM:\t    1500 kB\n")
    assert meter.stop() == 500 * 1024


def test_a_mark_that_disappears_is_no_measurement(tmp_path: Path) -> None:
    meter = fake(tmp_path, "VmHWM: 1000 kB\n")
    meter.start()
    (tmp_path / "status").unlink()
    assert meter.stop() is None


def test_where_the_mark_cannot_be_reset_a_thread_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, looked = iter([100, 900]), threading.Event()

    def read() -> int:
        value = next(held, 0)
        if not value:
            looked.set()
        return value or 200

    monkeypatch.setattr(peak, "process_bytes", read)
    meter = PeakMeter(str(tmp_path / "missing"))
    meter.start()
    assert looked.wait(60)
    assert meter.stop() == 800


def test_where_nothing_can_be_read_there_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "process_bytes", lambda: 0)
    meter = PeakMeter(str(tmp_path / "missing"))
    meter.start()
    assert meter.stop() is None


def test_a_measurement_that_never_began_is_none() -> None:
    assert PeakMeter().stop() is None
