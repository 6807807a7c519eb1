"""Text that came from outside, made fit for one line of a log: escaped, scrubbed and cut."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

__all__ = ["DEFAULT_REDACT", "REDACTED", "Redactor", "cut", "escape"]

REDACTED = "[redacted]"

DEFAULT_REDACT = (
    r"passw(or)?d",
    r"pass[._ -]?phrase",
    r"secret",
    r"credential",
    r"api[._ -]?key",
    r"access[._ -]?key",
    r"private[._ -]?key",
    r"authori[sz]ation",
    r"auth[._ -]?(token|key|header)",
    # `max_tokens`, `token_count` and `token_ids` are the daily bread of language models, not secrets.
    r"(?<![a-z])token(?!s|i[sz]|[._ -]?(count|id|type|limit|budget))",
    r"cookie",
    r"session[._ -]?(id|key)",
    r"(?<![a-z])(csrf|xsrf|jwt|ssn|iban|pin)(?![a-z])",
    r"social[._ -]?security",
    r"(credit[._ -]?)?card[._ -]?(number|no)",
)
"""Names of parameters and keys whose values never appear, as regular expressions searched without case."""

_VALUES = (
    r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # an e-mail address
    r"\b(?:sk|pk|rk|hf|gh[opsru]|glpat|xox[abprs]|pypi|npm)[-_][A-Za-z0-9_-]{16,}",  # keys with a known prefix
    r"\bgithub_pat_\w{20,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",  # AWS access key ids
    r"\bAIza[\w-]{20,}",  # Google API keys
    r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",  # a JSON web token
    r"(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}",
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",  # user and password in an URL
    r"\b\d{3}-\d{2}-\d{4}\b",  # a US social security number
    r"\b\d(?:[ -]?\d){12,18}\b",  # a payment card number
    r"\b[0-9a-fA-F]{32,}\b",  # long hexadecimal secrets
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
)

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


@functools.cache  # compiled on first use: three milliseconds that `import asyncguard` does not have
def _secrets() -> re.Pattern[str]:
    return re.compile("|".join(_VALUES))


def escape(text: str) -> str:
    r"""Replace what could start a new line, move a terminal's cursor or turn the reading order by its `\x..` escape.

    C0 and C1 controls, DEL, U+0085, U+2028, U+2029, bidirectional and invisible format characters, lone surrogates.
    """
    if text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}")  # noqa: PLR2004 - one byte


def cut(text: str, most: int) -> str:
    """Return at most `most` characters of `text`, and say how many there were."""
    if len(text) <= most:
        return text
    return f"{text[:most]}... ({len(text)} characters)"


class Redactor:
    """Takes out what must not appear: by the name of the field, and by the look of the value.

    `patterns` are regular expressions, added to `DEFAULT_REDACT`. The patterns on values (addresses, keys, tokens,
    card numbers) are a net with holes, not a promise: what must not appear should not be recorded.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        names = "|".join(f"(?:{pattern})" for pattern in (*DEFAULT_REDACT, *patterns))
        self._names = re.compile(names, re.IGNORECASE)
        # The name in front of the match stays in the text anyway, so it is not part of the pattern (nor is the time
        # that looking for it would take).
        value = r"\"[^\"]*\"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s,;&)}\]]+"
        self._pairs = re.compile(rf"(?P<kept>(?:{names})[\w.-]{{0,32}}[\"']?\s*[:=]\s*)(?:{value})", re.IGNORECASE)

    def secret(self, name: str) -> bool:
        """Whether the value of a field of this name must not appear."""
        return self._names.search(name) is not None

    def scrub(self, text: str, most: int = 1024) -> str:
        """Return `text` fit to be shown: secrets taken out, cut to `most` characters, escaped."""
        # Cut with room to spare first (a megabyte of text must not be searched), and again when the secrets are out,
        # so that the cut cannot leave half an address that no pattern knows any more.
        text = cut(text, most + 256)
        text = self._pairs.sub(rf"\g<kept>{REDACTED}", text)
        text = _secrets().sub(REDACTED, text)
        return escape(cut(text, most))
