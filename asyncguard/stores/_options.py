"""The options of a store that are more than a number, checked when it is made."""

from __future__ import annotations

from typing import Any

from asyncguard._machines import checks
from asyncguard.stores._codec import Codec, OwnCodec, require_msgpack

_LONGEST_NAMESPACE = 40


def checked_namespace(given: Any) -> str:
    """Return a namespace; raises TypeError or ValueError for one that cannot be part of any server's keys."""
    allowed = f"up to {_LONGEST_NAMESPACE} letters, digits, '.', '_', '-' or ':' that name the data and its version"
    if given is None:
        raise TypeError(f"namespace is required: {allowed} ('embeddings-v3')")
    if not isinstance(given, str):
        raise checks.wrong_type("namespace", given, allowed)
    fits = (
        given.isascii()
        and 0 < len(given) <= _LONGEST_NAMESPACE
        and all(each.isalnum() or each in "._-:" for each in given)
    )
    if not fits:
        raise checks.fail("namespace", given, allowed)
    return given


def checked_codec(given: Any) -> OwnCodec | None:
    """Return a codec of the user's, None for "safe"; raises TypeError or ValueError for anything else."""
    if isinstance(given, str):
        checks.one_of("codec", given, ("safe",))
        require_msgpack()
        return None
    if isinstance(given, type) or not isinstance(given, Codec):
        raise checks.wrong_type("codec", given, '"safe" or an object with encode(value) and decode(data)')
    checks.plain("codec.encode", given.encode)
    checks.plain("codec.decode", given.decode)
    return OwnCodec(given)
