"""Text from outside: one line, no secrets, in bounded time."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.text import REDACTED, Redactor, cut, escape

redactor = Redactor()


@pytest.mark.parametrize(
    "character", [chr(code) for code in (*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E, 0xD800)]
)
def test_characters_that_break_or_turn_a_line_are_escaped(character: str) -> None:
    escaped = escape(f"a{character}b")
    assert escaped.isprintable()
    assert len(f"{escaped}x".splitlines()) == 1
    assert escaped.startswith("a\\")


@pytest.mark.parametrize("text", ["plain", "Grüße aus Köln", "日本語", "a\xa0b", "👩‍🚀"])
def test_ordinary_text_stays_what_it_is(text: str) -> None:
    assert escape(text) == text


@given(st.text())
def test_no_text_can_start_a_second_line(text: str) -> None:
    escaped = escape(text)
    assert len(f"x{escaped}x".splitlines()) == 1
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") for character in escaped)


@pytest.mark.parametrize(
    "secret",
    [
        "alice.smith+x@mail.example.co.uk",
        "sk-proj-abcdefghijklmnop1234",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0abcdefghijkl_xyz",
        "hf_abcdefghijklmnopqrstuvwx",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA1234567890abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh",
        "123-45-6789",
        "4111 1111 1111 1111",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_values_that_look_secret_are_taken_out(secret: str) -> None:
    scrubbed = redactor.scrub(f"could not send {secret} to the service")
    assert secret not in scrubbed
    assert scrubbed == f"could not send {REDACTED} to the service"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdefgh12345", "abcdefgh12345"),
        ("{'password': 'hunter2', 'user': 1}", "hunter2"),
        ('{"api_key": "k-1"}', "k-1"),
        ("db_password=hunter2&x=1", "hunter2"),
        ("postgres://admin:hunter2@db:5432/x", "hunter2"),
        ("token = abc", "abc"),
        ("X-Api-Key: k-1", "k-1"),
    ],
)
def test_values_with_a_secret_name_are_taken_out(text: str, secret: str) -> None:
    assert secret not in redactor.scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "expected shape (batch, 768), got (32, 512)",
        "max_tokens=512 prompt_tokens: 31, token_count=3, tokenizer='wordpiece'",
        "connection to 10.0.0.7:5432 refused after 3 attempts in 1.42 s",
        "HTTP 429: rate limit reached, retry after 20 s",
        "key error in column 'price'",
        "author=Jane",
    ],
)
def test_what_a_reader_needs_stays(text: str) -> None:
    assert redactor.scrub(text) == text


def test_own_patterns_are_added_to_the_usual_ones() -> None:
    mine = Redactor([r"customer(?P<x>_id)?"])
    assert mine.secret("customer_id")
    assert mine.secret("API-Key")
    assert mine.scrub("customer_id=77") == f"customer_id={REDACTED}"


@pytest.mark.parametrize(
    "name", ["password", "DB_PASSWD", "client_secret", "apiKey", "access_token", "Authorization", "ssn", "set-cookie"]
)
def test_secret_names(name: str) -> None:
    assert redactor.secret(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokens", "token_ids", "tokenizer", "author", "model", "spinner", "discarded"]
)
def test_names_that_are_no_secret(name: str) -> None:
    assert not redactor.secret(name)


def test_a_cut_leaves_no_half_of_a_secret() -> None:
    text = "x" * 1015 + " alice@example.com"
    assert "alice" not in redactor.scrub(text, 1024)


def test_a_long_text_is_cut_and_says_so() -> None:
    assert cut("abcdef", 3) == "abc... (6 characters)"
    assert cut("abc", 3) == "abc"
    assert len(redactor.scrub("word " * 100_000)) < 1100


def test_escaped_text_is_one_line_for_logging_too() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (redactor.scrub("a\n2026-01-01 ERROR b"),), None)
    assert logging.Formatter("%(levelname)s %(message)s").format(record).count("\n") == 0
