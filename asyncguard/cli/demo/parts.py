"""The real parts of the demo, started and stopped: the embedding service and PostgreSQL.

Everything runs under the supervisor (see supervisor.py), so leaving the `async with`, an error, Ctrl-C, and even the
death of this process end in the same way: no process, no port and no folder is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asyncguard.cli.demo import supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class PartError(Exception):
    """A part of the demo did not start, or ended while it was needed."""


class Parts:
    """The demo's end of the pipe to the supervisor. `folder` is the temporary folder that everything lives in."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader) -> None:
        self.folder = Path()
        self.exited: dict[int, int] = {}
        self._process = process
        self._reader = reader
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, *, keep: bool = False) -> AsyncGenerator[Self, None]:
        """Start the supervisor; on the way out wait until it has cleaned up, however we leave."""
        process = subprocess.Popen(  # noqa: ASYNC220 - a millisecond, and no place where a cancellation could come
            [sys.executable, "-I", "-S", supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with cls._connected(process) as parts:
                if keep:
                    parts.say(op="keep")
                yield parts
        finally:
            _goodbye(process)

    @classmethod
    @contextlib.asynccontextmanager
    async def _connected(cls, process: subprocess.Popen[bytes]) -> AsyncGenerator[Self, None]:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        parts = cls(process, reader)
        try:
            parts.folder = Path((await parts._replies.get())["folder"])
            yield parts
        finally:
            parts._listening.cancel()
            transport.close()

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            message: dict[str, Any] = json.loads(line)
            if "exit" in message:
                self.exited[message["exit"]] = message["code"]
            else:
                self._replies.put_nowait(message)

    def say(self, **message: object) -> None:
        """Ask the supervisor for something."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    async def spawn(self, *argv: str, log: str, stop: signal.Signals, user: tuple[int, int] | None = None) -> int:
        """Start a program, its output in `log` below the folder; the process id. `stop` is the signal that ends it."""
        uid, gid = user or (None, None)
        self.say(op="spawn", argv=argv, log=str(self.folder / log), stop=int(stop), uid=uid, gid=gid)
        reply = await self._replies.get()
        if "error" in reply:
            raise PartError(reply["error"])
        return int(reply["pid"])

    def pause(self, pid: int, seconds: float) -> None:
        """Freeze a part and all its processes, and let it go on after a while."""
        self.say(op="pause", pid=pid, seconds=seconds)

    async def finished(self, pid: int, log: str) -> None:
        """Wait until a program has ended, and refuse a failure."""
        await self.until(lambda: pid in self.exited)
        if self.exited[pid] != 0:
            raise PartError(self._complaint(log, self.exited[pid]))

    async def ready(self, pid: int, ready: Callable[[], bool], log: str) -> None:
        """Wait until a part says that it is ready, or refuse its early end."""
        await self.until(lambda: pid in self.exited or ready())
        if pid in self.exited:
            raise PartError(self._complaint(log, self.exited[pid]))

    async def until(self, done: Callable[[], bool], patience: float = 120.0) -> None:
        """Look every 20 ms; starting takes about a second."""
        try:
            async with asyncio.timeout(patience):
                while not done():  # noqa: ASYNC110 - other processes set no event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            message = f"a part of the demo was not ready after {patience:g} s; is the machine very busy?"
            raise PartError(message) from None

    def _complaint(self, log: str, code: int) -> str:
        said = (self.folder / log).read_text(errors="replace").strip().splitlines()[-3:]
        return f"{log.partition('.')[0]} ended with status {code}: {' | '.join(said) or 'it said nothing'}"


def _goodbye(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which tells the supervisor to clean up, and wait for it. Nothing can interrupt this wait."""
    assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.wait()
