"""What every guarded function does now, and the end of everything that runs beside calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncguard._modes import forced_mode
from asyncguard._pipeline import in_use
from asyncguard._strategy import strategies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncguard._modes import Mode
    from asyncguard._strategy import Strategy

_WITHOUT_WORDS = {"observe": ["changes nothing"], "off": ["taken out"]}  # a mode is told, whoever else is silent


@dataclass(frozen=True, slots=True)
class Fact:
    """What one strategy of one pipeline does now, in words."""

    pipeline: str
    strategy: str
    text: str
    mode: Mode = "enforce"

    def __str__(self) -> str:
        mode = "" if self.mode == "enforce" else f" ({self.mode})"
        return f"{self.pipeline} {self.strategy}{mode}: {self.text}"


class Status(tuple[Fact, ...]):
    """The facts of all pipelines; prints as one line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing is guarded in this process"


def status() -> Status:
    """Return what every pipeline in use does now: open circuits, queues, limits, memory, and what is not enforced."""
    return Status(sorted(dict.fromkeys(_facts()), key=lambda fact: (fact.pipeline, fact.strategy)))


def _facts() -> Iterator[Fact]:
    for name, strategy in _guards():
        mode = forced_mode(name, strategy.name, strategy.kind) or strategy.live().mode
        for text in strategy.describe() or _WITHOUT_WORDS.get(mode, []):
            yield Fact(name, strategy.name, text, mode)


def _guards() -> Iterator[tuple[str, Strategy[Any, Any]]]:
    """Tell who is asked, and under which name: each strategy once, however many pipelines of that name it is in.

    The block form of a strategy, and what is done to it by hand, is under its own name: that is no place of its own
    for a strategy that guards something.
    """
    found = {(name, id(strategy)): strategy for name, pipeline in in_use() for strategy in pipeline}
    placed = {key for (name, key), strategy in found.items() if name != strategy.name}
    for (name, key), strategy in found.items():
        if name != strategy.name or key not in placed:
            yield name, strategy


async def aclose() -> None:
    """End everything that runs beside calls: refreshes, background writes, worker threads, store connections.

    Raises what could not be ended as an ExceptionGroup, when everything else has ended.
    """
    failed: list[Exception] = []
    for strategy in strategies():
        try:
            await strategy.aclose()
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)
    if failed:
        raise ExceptionGroup("asyncguard.aclose: some strategies could not end what runs beside calls", failed)
