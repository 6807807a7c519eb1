"""What `import asyncguard` loads: next to nothing. Checked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "aiocache", "aiohttp", "annotated_types", "anyio._backends", "httpx", "importlib.metadata", "msgspec", "numpy",
    "openai", "opentelemetry", "pandas", "polars", "prometheus_client", "psutil", "pydantic", "pydantic_core", "redis",
    "rich", "torch", "trio", "uvloop", "xxhash",
)  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\njson.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def heavy_in(modules: set[str]) -> list[str]:
    return sorted(name for name in modules for root in HEAVY if name == root or name.startswith(root + "."))


def test_importing_asyncguard_loads_no_dependency() -> None:
    assert heavy_in(loaded_by("import asyncguard")) == []


def test_neither_does_importing_every_public_name() -> None:
    assert heavy_in(loaded_by("from asyncguard import *")) == []


@pytest.mark.parametrize("name", ["retry", "timeout", "circuit_breaker", "bulkhead", "rate_limit", "fallback"])
def test_a_call_through_a_plain_strategy_loads_no_dependency(name: str) -> None:
    option = {"timeout": "30", "bulkhead": "2", "rate_limit": "'5/s'", "fallback": "None"}.get(name, "")
    program = (
        "import asyncio, asyncguard\n"
        f"@asyncguard.{name}({option})\n"
        "async def call(): return 1\n"
        "assert asyncio.run(call()) == 1"
    )
    assert heavy_in(loaded_by(program)) == []


def test_the_check_sees_what_is_loaded() -> None:
    assert "psutil" in heavy_in(loaded_by("import psutil"))
