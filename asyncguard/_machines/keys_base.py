"""What all rules on cache keys share: what a freezer is, and why a value cannot be a key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Digest", "Freeze", "Freezer", "Rule", "UnkeyableError"]

Freezer = Callable[[Any], Hashable]
"""From a value of some type to a hashable stand-in."""
Freeze = Freezer
"""`keys.freeze`, for members of any type; a rule is given it, since `keys` imports the rules."""
Digest = Callable[[Any], bytes]
"""From a contiguous buffer to its digest; a rule is given a function that returns it."""
Rule = Callable[[type, Freeze, Callable[[], Digest]], Freezer | None]
"""From a class to the freezer of its values, None if it is not of the kind that the rule is about."""


class UnkeyableError(TypeError):
    """A value of class `kind` cannot be part of a key; `why` is a phrase that follows the name of the class."""

    def __init__(self, kind: type[Any], why: str) -> None:
        super().__init__(f"{kind.__module__}.{kind.__qualname__} {why}".removeprefix("builtins."))
        self.kind = kind
        self.why = why
