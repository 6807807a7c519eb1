"""Why a value cannot be a cache key."""

from __future__ import annotations

from typing import Any


class UnkeyableError(TypeError):
    """A value of class `kind` cannot be part of a key; `why` is a phrase that follows the name of the class."""

    def __init__(self, kind: type[Any], why: str) -> None:
        super().__init__(f"{kind.__module__}.{kind.__qualname__} {why}".removeprefix("builtins."))
        self.kind = kind
        self.why = why
