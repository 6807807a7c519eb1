"""`asyncguard doctor`: what asyncguard finds on this machine, and whether something about it is wrong."""

from __future__ import annotations

import importlib.util
import json
import platform
import socket
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal
from urllib.parse import urlsplit

Level = Literal["ok", "note", "wrong"]

INTEGRATIONS = (
    "aiohttp", "httpx", "httpx2", "openai", "anthropic", "redis", "aiomcache", "asyncpg", "opentelemetry-sdk",
    "prometheus-client", "pydantic", "aiocache", "numpy", "torch", "trio", "uvloop", "structlog", "stamina",
)  # fmt: skip
PORTS = {
    "redis": 6379,
    "rediss": 6379,
    "valkey": 6379,
    "memcached": 11211,
    "postgresql": 5432,
    "https": 443,
    "http": 80,
}
STORE_TIMEOUT = 1.0  # seconds
OLDEST, NEWEST = (3, 11), (3, 13)
SMALL = 256 * 2**20  # bytes; below this a model does not fit


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `facts` are for programs, `text` says the same to a reader."""

    name: str
    level: Level
    text: str
    facts: dict[str, Any]


def doctor(*, store: str | None, as_json: bool) -> int:
    """Print what was found; 1 if something is wrong."""
    findings = examine(store)
    sys.stdout.write(as_text(findings) if not as_json else json.dumps(as_document(findings), indent=2) + "\n")
    return 1 if any(finding.level == "wrong" for finding in findings) else 0


def examine(store: str | None) -> list[Finding]:
    """Look at everything; a look that fails is itself a finding."""
    looks: list[Callable[[], Finding]] = [python, event_loops, memory, malloc_trim, gpu, integrations]
    findings = [_safely(look) for look in looks]
    return findings if store is None else [*findings, reachable(store)]


def _safely(look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - the doctor says what is wrong, and does not fall ill
        said = f"{type(error).__name__}: {error}"
        return Finding(look.__name__, "wrong", f"could not be looked at: {said}", {"error": said})


def python() -> Finding:
    """The interpreter, and whether this version is tested."""
    version = sys.version_info[:2]
    tested = OLDEST <= version <= NEWEST
    text = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    untested = f"; asyncguard is tested on {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    facts = {"version": platform.python_version(), "executable": sys.executable, "tested": tested}
    return Finding("python", "ok" if tested else "note", text if tested else text + untested, facts)


def event_loops() -> Finding:
    """What can run async functions here."""
    optional = {name: _version(name) for name in ("uvloop", "trio")}
    found = {"asyncio": platform.python_version()} | {name: each for name, each in optional.items() if each}
    return Finding("event_loops", "ok", ", ".join(f"{name} {each}" for name, each in found.items()), found)


def memory() -> Finding:
    """The limit that binds this process, where it comes from, and what is promised below it."""
    from asyncguard._runtime import memory_probe

    facts = memory_probe.shared().describe()
    processes, promised = promised_by_others()
    facts |= {"processes": processes, "promised": promised}
    limit, used = facts.get("limit"), facts.get("used")
    if not isinstance(limit, int) or not isinstance(used, int):
        text = "no limit found: memory_guard counts reservations only; give it limit="
        return Finding("memory", "note", text, facts)
    group = f"; we are in the cgroup (v{facts['cgroup_version']}) {facts['cgroup']}" if facts.get("cgroup") else ""
    text = (
        f"{_mib(used)} of {_mib(limit)} used (source: {facts['source']}); the limit is that of: {facts['level']}{group}"
    )
    if processes:
        text += f"; {processes} processes in it guard their memory and have promised {_mib(promised)}"
    return Finding("memory", "note" if limit - used < SMALL else "ok", text, facts)


def promised_by_others() -> tuple[int, int]:
    """Processes that guard their memory below the same limit as we, and the bytes that they have promised."""
    from asyncguard._runtime import shared_ledger

    ledger = shared_ledger.shared()
    near = ledger.connect()
    return (0, 0) if near is None else (ledger.processes(), near.elsewhere(time.monotonic()).promised)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def malloc_trim() -> Finding:
    """Can freed memory be handed back to the system? On glibc only."""
    import ctypes

    try:
        there = sys.platform != "win32" and hasattr(ctypes.CDLL(None), "malloc_trim")
    except OSError:
        there = False
    text = "available: memory_guard can hand freed memory back" if there else "not available (glibc only)"
    return Finding("malloc_trim", "ok" if there else "note", text, {"available": there})


def gpu() -> Finding:
    """GPUs, without starting anything: from torch if CUDA is already in use in this process, else from NVML."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("gpu", "ok", f"torch: {', '.join(names)}", {"source": "torch", "devices": names})
    if importlib.util.find_spec("pynvml") is None:
        text = "not looked for: needs nvidia-ml-py, or torch with CUDA already in use"
        return Finding("gpu", "note", text, {"source": None, "devices": []})
    return _from_nvml()


def _from_nvml() -> Finding:
    nvml: Any = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Finding("gpu", "note", f"none: {error}", {"source": "nvml", "devices": []})
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        names = [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        nvml.nvmlShutdown()
    return Finding("gpu", "ok", ", ".join(names) or "none", {"source": "nvml", "devices": names})


def integrations() -> Finding:
    """What is installed of what asyncguard works with."""
    found = {name: version for name in INTEGRATIONS if (version := _version(name))}
    return Finding("integrations", "ok", ", ".join(f"{name} {version}" for name, version in found.items()), found)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def reachable(url: str) -> Finding:
    """Does anybody listen where the store should be? A TCP connection, nothing is said over it."""
    shown, host, port = _address(url)
    if host is None or port is None:
        text = f"{shown}: expected a URL with a host and a port, such as redis://127.0.0.1:6379"
        return Finding("store", "wrong", text, {"url": shown, "reachable": False})
    try:
        socket.create_connection((host, port), timeout=STORE_TIMEOUT).close()
    except OSError as error:
        text = f"{shown}: nobody answers at {host}:{port} ({error}); is it running, and may this machine reach it?"
        return Finding("store", "wrong", text, {"url": shown, "reachable": False, "error": str(error)})
    return Finding("store", "ok", f"{shown}: {host}:{port} accepts connections", {"url": shown, "reachable": True})


def _address(url: str) -> tuple[str, str | None, int | None]:
    """(the URL without its password, host, port)."""
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:  # not a number, or too large
        port = None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), parts.hostname, port


def as_document(findings: list[Finding]) -> dict[str, Any]:
    """For programs."""
    wrong = any(finding.level == "wrong" for finding in findings)
    return {"ok": not wrong, "findings": [asdict(finding) for finding in findings]}


def as_text(findings: list[Finding]) -> str:
    """A table."""
    indent = " " * 22
    rows = (f"{finding.level:<6} {finding.name:<13}  {finding.text}" for finding in findings)
    filled = (textwrap.fill(row, 118, subsequent_indent=indent, break_on_hyphens=False) for row in rows)
    return "".join(f"{row}\n" for row in filled)
