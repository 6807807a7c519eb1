"""What every guarded function does now, and the end of everything that runs beside calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncguard._pipeline import in_use
from asyncguard._strategy import strategies

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Fact:
    """What one strategy of one pipeline does now, in words."""

    pipeline: str
    strategy: str
    text: str

    def __str__(self) -> str:
        return f"{self.pipeline} {self.strategy}: {self.text}"


class Status(tuple[Fact, ...]):
    """The facts of all pipelines; prints as one line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "nothing is guarded in this process"


def status() -> Status:
    """Return what every pipeline in use does now: open circuits, queues, limits, memory."""
    return Status(sorted(set(_facts()), key=str))


def _facts() -> Iterator[Fact]:
    for name, pipeline in in_use():
        for strategy in pipeline:
            for text in strategy.describe():
                yield Fact(name, strategy.name, text)


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
