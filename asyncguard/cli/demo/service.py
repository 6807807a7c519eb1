"""A real embedding service, OpenAI-compatible, in a process of its own, that misbehaves on schedule.

`python -m asyncguard.cli.demo.service FOLDER` reads `service.json` there, listens on a free port of the loopback and
writes it to `port`. Each request it is asked goes to its log, `service.jsonl`: time, request id, texts, fault.
Each vector it ever computed is kept: no text is embedded twice, and `/clean` tells the referee
what is true.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from asyncguard.cli.demo import misbehaviour
from asyncguard.cli.demo.faults import Injector, Schedule, digest
from asyncguard.cli.demo.model import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Service:
    """The model, its vectors by text, and the fault injector."""

    def __init__(self, schedule: Schedule, log: Path) -> None:
        self.injector = Injector(schedule, time.monotonic)
        self.clean: dict[str, npt.NDArray[np.float32]] = {}
        self.stopping = asyncio.Event()
        self._log = log.open("a", encoding="utf-8")
        self._thread = ThreadPoolExecutor(1, "model")
        self._model = Model()

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/embeddings `{"input": [...], "encoding_format": "float" | "base64"}`."""
        asked = await request.json()
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        number = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        fault = self.injector.fault_of([digest(text) for text in texts])
        self._note(id=number, at=time.monotonic(), fault=fault, texts=[digest(text) for text in texts])
        if fault in misbehaviour.WITHOUT_VECTORS:
            return await misbehaviour.WITHOUT_VECTORS[fault](request, self.stopping)
        vectors = [await self.vector(text) for text in texts]
        if fault == "nan":
            vectors = misbehaviour.poisoned(vectors)
        body = answer(vectors, as_base64=asked.get("encoding_format") == "base64")
        if fault == "drip":
            return await misbehaviour.drip(request, body, self.stopping)
        return web.json_response(text=body, headers={"X-Request-Id": number})

    async def vector(self, text: str) -> npt.NDArray[np.float32]:
        """The clean vector of a text, computed once, off the event loop."""
        key = digest(text)
        if key not in self.clean:
            loop = asyncio.get_running_loop()
            self.clean[key] = await loop.run_in_executor(self._thread, self._once, key, text)
        return self.clean[key]

    def _once(self, key: str, text: str) -> npt.NDArray[np.float32]:
        return self.clean[key] if key in self.clean else self._model.embed(text)

    async def truth(self, request: web.Request) -> web.Response:
        """POST /clean `{"input": [...]}`, for the referee: the vectors as they really are, in order, without faults."""
        vectors = [await self.vector(text) for text in (await request.json())["input"]]
        return web.json_response(text=answer(vectors, as_base64=True))

    def _note(self, **facts: object) -> None:
        self._log.write(json.dumps(facts) + "\n")
        self._log.flush()  # the log must be whole whenever somebody ends us

    def application(self) -> web.Application:
        """The two routes."""
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes([web.post("/v1/embeddings", self.embeddings), web.post("/clean", self.truth)])

        async def stop(_app: web.Application) -> None:
            self.stopping.set()

        app.on_shutdown.append(stop)
        return app


def answer(vectors: list[npt.NDArray[np.float32]], *, as_base64: bool) -> str:
    """The body of OpenAI's embeddings response."""

    def encoded(vector: npt.NDArray[np.float32]) -> Any:
        return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()

    data = [{"object": "embedding", "index": at, "embedding": encoded(row)} for at, row in enumerate(vectors)]
    return json.dumps({"object": "list", "model": "all-MiniLM-L6-v2-int8", "data": data})


async def serve(folder: Path) -> None:
    """Until SIGTERM."""
    schedule = Schedule(**json.loads((folder / "service.json").read_text(encoding="utf-8")))
    service = Service(schedule, folder / "service.jsonl")
    runner = web.AppRunner(service.application(), access_log=None, handle_signals=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    announced = folder / "port.new"
    announced.write_text(str(runner.addresses[0][1]), encoding="utf-8")
    announced.rename(folder / "port")
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve, and leave quietly when told to."""
    try:
        asyncio.run(serve(Path(sys.argv[1])))
    except (KeyboardInterrupt, web.GracefulExit):
        return


if __name__ == "__main__":
    main()
