"""aiomcache, without the loop that never ends.

After a server has died, aiomcache 0.8.2 reads the missing reply to a `set` again and again from the closed connection,
without ever giving other tasks a turn: the whole event loop stands still, timeouts included. Our client raises instead.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

_END = b"\r\n"


def guarded(client: Any) -> Any:
    """Return a client on the same connections that notices when they are closed; any other client as it is."""
    import aiomcache

    if type(client) is not aiomcache.Client:
        return client
    made = copy.copy(client)
    made.__class__ = _guarded_class()
    return made


@functools.cache
def _guarded_class() -> Any:
    import aiomcache

    class Client(aiomcache.Client):
        async def _execute_simple_command(self, conn: Any, raw_command: bytes) -> bytes:
            conn.writer.write(raw_command)
            await conn.writer.drain()
            line: bytes = await conn.reader.readline()
            if not line.endswith(_END):
                raise ConnectionResetError("memcached closed the connection")
            return line.removesuffix(_END)

    return Client
