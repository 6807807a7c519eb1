"""The function that a monitor watches: everything about it that is the same for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncguard._machines.text import escape
from asyncguard.telemetry.counts import Counts, MonitorCore
from asyncguard.telemetry.view import Parameters

if TYPE_CHECKING:
    from asyncguard._pipeline import Site

__all__ = ["MonitoredFunction"]

_MOST_ERROR_TYPES = 50
_LOOK_INSIDE_EVERY = 64


class MonitoredFunction:
    """One function that a monitor watches: everything about it that is the same for each call."""

    def __init__(self, site: Site, name: str, decorators: tuple[str, ...]) -> None:
        self.site = site
        self.name = escape(name)
        self.decorators = decorators
        self.counts: Counts | None = None
        self._attributes: dict[str, Any] | None = None
        self._parameters: Parameters | None = None
        self._labels: dict[tuple[str, str], dict[str, str]] = {}
        self._calls = 0

    def bind(self, core: MonitorCore) -> Counts:
        """Remember where the calls of this function are counted, outside of virtual time."""
        self.counts = core.of(self.name)
        return self.counts

    def __reduce__(self) -> tuple[Any, ...]:
        return MonitoredFunction, (self.site, self.name, self.decorators)

    @property
    def parameters(self) -> Parameters:
        """The names of the function's parameters."""
        if self._parameters is None:
            self._parameters = Parameters(self.site.function)
        return self._parameters

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of every span and log record of this function."""
        if self._attributes is None:
            self._attributes = {**_code(self.site.function), "asyncguard.pipeline": self.name}
            if len(self.decorators) > 1:  # a monitor alone need not be told
                self._attributes["asyncguard.decorators"] = self.decorators
        return self._attributes

    def labels(self, outcome: str, error: str) -> dict[str, str]:
        """Return the labels of the duration; after fifty kinds of error the others share one label."""
        labels = self._labels.get((outcome, error))
        if labels is None:
            if len(self._labels) >= _MOST_ERROR_TYPES and error:
                return {"asyncguard.pipeline": self.name, "asyncguard.outcome": outcome, "error.type": "_OTHER"}
            labels = {"asyncguard.pipeline": self.name, "asyncguard.outcome": outcome}
            if error:
                labels["error.type"] = error
            self._labels[outcome, error] = labels
        return labels

    def look_inside(self) -> bool:
        """Whether it is the turn of this call to have statistics of its arrays taken: the first, and one in 64."""
        turn = self._calls % _LOOK_INSIDE_EVERY == 0
        self._calls += 1
        return turn


def _code(function: Callable[..., Any]) -> dict[str, Any]:
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    facts: dict[str, Any] = {}
    if code is not None:
        facts["code.function.name"] = f"{function.__module__}.{function.__qualname__}"
        facts["code.file.path"] = code.co_filename
        facts["code.line.number"] = code.co_firstlineno
    return facts
