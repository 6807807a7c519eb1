"""What the cache benchmark measures with: arguments, memory, digests, and items against single calls."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import time
import tracemalloc
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncguard as ag
from asyncguard._machines import digests
from asyncguard._machines.keys import freeze

sys.path.insert(0, str(Path(__file__).parent))

from overhead import interleaved

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    np: Any = import_module("numpy")
except ModuleNotFoundError:
    np = None


SAMPLE_NS = 1_000_000  # about what one sample takes


def arguments() -> dict[str, tuple[Any, Any, Any]]:
    """Return (an argument, one that differs in one element, an equal copy of the first) of each kind."""
    texts = [f"sentence number {at} of the batch" for at in range(32)]
    other = [*texts]
    other[16] += "!"
    found: dict[str, tuple[Any, Any, Any]] = {
        "int": (7, 8, 7),
        "str": ("a short text", "a short texu", str(b"a short text", "ascii")),
        "32 strings": (texts, other, [*texts]),
    }
    if np is not None:
        found["768-vector"] = _array((768,))
        found["32 x 768"] = _array((32, 768))
    return found


def _array(shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    one = np.random.default_rng(1).normal(size=shape).astype("float32")
    other = one.copy()
    other.reshape(-1)[other.size // 2] += 1
    return one, other, one.copy()


def same(answer: Any, argument: Any) -> bool:
    return bool(np.array_equal(answer, argument)) if hasattr(argument, "shape") else bool(answer == argument)


def is_hit(first: Any, third: Any, again: Any) -> bool:
    """The function returns its argument: a hit on an equal one gives the first back (or a copy), not the second."""
    if isinstance(again, int | str):
        return True
    return third is not again and same(third, first)


def held(how: str) -> int:
    gc.collect()
    if how == "traced":
        return tracemalloc.get_traced_memory()[0]
    import psutil

    return int(psutil.Process().memory_info().rss)


# --- digests --------------------------------------------------------------------------------------------------------


def hashers() -> dict[int, dict[str, Callable[[], object]]]:
    """Return the hash functions by the number of bytes that they are given."""
    if np is None:
        return {}
    xxh3 = _xxh3()
    found: dict[int, dict[str, Callable[[], object]]] = {}
    for nbytes in (256, 1024, 3072, 98_304, 1 << 20, 10 << 20):
        array = np.random.default_rng(1).normal(size=nbytes // 4).astype("float32")
        functions: dict[str, Callable[[], object]] = {} if xxh3 is None else {"xxh3_128": lambda a=array: xxh3(a)}
        functions["sha256"] = lambda a=array: hashlib.sha256(a).digest()
        functions["our digest"] = lambda a=array: digests.function()(a)
        functions["our key of the array"] = lambda a=array: freeze(a)
        found[nbytes] = functions
    return found


def _xxh3() -> Any:
    try:
        import xxhash
    except ModuleNotFoundError:
        return None
    return xxhash.xxh3_128_digest


def time_plain(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    def timed(name: str, calls: int) -> float:
        fn = functions[name]
        start = time.process_time_ns()
        for _ in range(calls):
            fn()
        return (time.process_time_ns() - start) / calls

    counts = {name: calls_for(lambda calls, name=name: timed(name, calls)) for name in functions}
    return interleaved(list(functions), lambda name: timed(name, counts[name]) / 1000, rounds)


def calls_for(timed: Callable[[int], float]) -> int:
    """Return how many calls take about a millisecond; `timed(calls)` returns the ns of one."""
    calls = 3
    for _ in range(3):  # the first calls find everything cold
        calls = max(2, min(2000, int(SAMPLE_NS / max(timed(calls), 1.0))))
    return calls


# --- items ----------------------------------------------------------------------------------------------------------


def batch_against_gets(number: int, rounds: int) -> dict[str, float]:
    texts = [f"sentence number {at}" for at in range(number)]

    @ag.cache_items(600, max_entries=1024)
    async def many(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @ag.cache_result(600, max_entries=1024)
    async def one(text: str) -> int:
        return len(text)

    async def in_one() -> Any:
        return await many(texts)

    async def one_by_one() -> Any:
        return [await one(text) for text in texts]

    functions = {"cache_items": in_one, "cache_result for each": one_by_one}
    with asyncio.Runner() as runner:

        def sample(name: str) -> float:
            return runner.run(repeated(functions[name], max(2, 2000 // number)))

        return interleaved(list(functions), sample, rounds)


async def repeated(fn: Callable[[], Any], calls: int) -> float:
    await fn()
    start = time.process_time_ns()
    for _ in range(calls):
        await fn()
    return (time.process_time_ns() - start) / calls / 1000
