"""The options of `monitor`, checked when they are given."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from asyncguard._machines import checks
from asyncguard._machines.text import Redactor
from asyncguard._strategy import Options

Shown: TypeAlias = Literal["summary", "off"]
_COLLECTIONS = (tuple, list, set, frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions(Options):
    """The options of `monitor`."""

    record: tuple[str, ...] = ()
    drift: None = None
    slow: float | None = None
    inputs: Shown | Callable[..., Any] = "summary"
    output: Shown | Callable[[Any], Any] = "summary"
    redact: tuple[str, ...] = ()
    sample: float = 1.0
    logger: logging.Logger | str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("record", _names("record", self.record))
        self.set("redact", _patterns(self.redact))
        self.set("sample", checks.fraction("sample", self.sample))
        if self.slow is not None:
            self.set("slow", checks.duration("slow", self.slow, above=0.0))
        if self.drift is not None:
            raise checks.fail("drift", self.drift, "None: drift detection is not part of this version")
        for option in ("inputs", "output"):
            _check_shown(option, getattr(self, option))
        if self.logger is not None and not isinstance(self.logger, str | logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise checks.wrong_type(
                "logger", self.logger, "a logging.Logger or the name of one (structlog: use structlog_processor)"
            )


def _names(option: str, value: Any) -> tuple[str, ...]:
    given: tuple[Any, ...] = tuple(cast("Iterable[Any]", value)) if isinstance(value, _COLLECTIONS) else (None,)
    if not all(isinstance(each, str) and each for each in given):
        raise checks.wrong_type(option, cast("object", value), "a tuple of names, such as ('model', 'a.b')")
    return given


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = _names("redact", value)
    try:
        Redactor(patterns)
    except re.error as error:
        raise checks.fail("redact", value, f"regular expressions ({error})") from None
    return patterns


def _check_shown(option: str, value: object) -> None:
    if callable(value):
        checks.plain(option, value)
    else:
        checks.one_of(option, value, ("summary", "off"))
