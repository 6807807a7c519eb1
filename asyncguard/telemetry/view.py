"""What a monitor shows of a call: descriptions of inputs and output, and of values only what was asked for by name."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, cast

from asyncguard._machines import summary
from asyncguard._machines.text import REDACTED, Redactor, cut, escape

__all__ = ["Look", "Parameters", "View", "Wanted"]

Wanted: TypeAlias = "str | Callable[..., Any]"

_MOST_PARAMETERS = 16
_MOST_TEXT = 1024
LOGGER = "asyncguard.monitor"


class Look(Protocol):
    """The options of a monitor that say what is shown."""

    @property
    def record(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def inputs(self) -> Wanted: ...  # noqa: D102
    @property
    def output(self) -> Wanted: ...  # noqa: D102
    @property
    def redact(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def slow(self) -> float | None: ...  # noqa: D102
    @property
    def sample(self) -> float: ...  # noqa: D102
    @property
    def logger(self) -> logging.Logger | str | None: ...  # noqa: D102


class Parameters:
    """The names of a function's parameters, by position. Read once: binding a signature costs 2 microseconds a call."""

    __slots__ = ("any_keyword", "keyword", "named", "rest")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.named: list[str] = []
        self.keyword: set[str] = set()
        self.rest = "args"
        self.any_keyword = False
        for parameter in _parameters(function):
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.rest = parameter.name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self.any_keyword = True
            else:
                self.keyword.add(parameter.name)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self.named.append(parameter.name)

    def values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Return the arguments by name; the instance of a method is left out, and so are names that callers make up."""
        for name, value in zip(self.named, args, strict=False):
            if name not in ("self", "cls"):
                yield name, value
        if len(args) > len(self.named):
            yield self.rest, args[len(self.named) :]
        extra = 0
        for name, value in kwargs.items():
            if name in self.keyword:
                yield name, value
            else:
                extra += 1
        if extra:
            yield "kwargs", dict.fromkeys(range(extra))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin
        return []


@functools.lru_cache(maxsize=256)  # compiling its patterns takes milliseconds, and most monitors have the same
def _redactor(patterns: tuple[str, ...]) -> Redactor:
    return Redactor(patterns)


class View:
    """The options of a monitor, ready for use."""

    __slots__ = ("_look", "logger", "sample", "slow")

    def __init__(self, look: Look) -> None:
        self._look = look
        self.slow = float("inf") if look.slow is None else look.slow
        self.sample = look.sample
        named = look.logger
        self.logger = named if isinstance(named, logging.Logger) else logging.getLogger(named or LOGGER)

    @property
    def redactor(self) -> Redactor:
        """What takes secrets out."""
        return _redactor(self._look.redact)

    def inputs(
        self, parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, look_inside: bool
    ) -> dict[str, Any]:
        """Return the fields about the arguments. `look_inside`: statistics of arrays as well."""
        wanted = self._look.inputs
        facts: dict[str, Any] = {}
        if callable(wanted):
            facts.update(self._chosen("asyncguard.input", wanted(*args, **kwargs)))
        elif wanted == "summary":
            for name, value in list(parameters.values(args, kwargs))[:_MOST_PARAMETERS]:
                facts.update(_described(f"asyncguard.input.{name}", value, look_inside=look_inside))
        if self._look.record:
            facts.update(self._recorded(dict(parameters.values(args, kwargs)), kwargs))
        return facts

    def output(self, result: Any, *, look_inside: bool) -> dict[str, Any]:
        """Return the fields about the result."""
        wanted = self._look.output
        if callable(wanted):
            return self._chosen("asyncguard.output", wanted(result))
        if wanted == "summary":
            return _described("asyncguard.output", result, look_inside=look_inside)
        return {}

    def _chosen(self, prefix: str, chosen: Any) -> dict[str, Any]:
        if not isinstance(chosen, Mapping):
            return {f"{prefix}.value": self._shown(prefix, chosen)}
        items = cast("Mapping[object, Any]", chosen).items()
        return {f"{prefix}.{escape(str(name))}": self._shown(str(name), value) for name, value in items}

    def _recorded(self, arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for path in self._look.record:
            name, *keys = path.split(".")
            value: Any = arguments.get(name, kwargs.get(name, _MISSING))
            for key in keys:
                value = _entry(value, key)
            if value is not _MISSING:
                facts[f"asyncguard.record.{path}"] = self._shown(path, value)
        return facts

    def _shown(self, name: str, value: Any) -> Any:
        """Return a value that was asked for; one with a secret name is still not shown."""
        if self.redactor.secret(name):
            return REDACTED
        shown = summary.reveal(value, self.redactor)
        if shown is None:
            return "None"
        if isinstance(shown, dict | list):
            return cut(json.dumps(shown, ensure_ascii=False, default=str), _MOST_TEXT)
        return shown


_MISSING: Any = object()


def _entry(value: Any, key: str) -> Any:
    return cast("Mapping[str, Any]", value).get(key, _MISSING) if isinstance(value, Mapping) else _MISSING


def _described(prefix: str, value: Any, *, look_inside: bool) -> dict[str, Any]:
    facts = summary.describe(value)
    if look_inside:
        facts.update(summary.statistics(value))
    return {f"{prefix}.{name}": fact for name, fact in facts.items()}
