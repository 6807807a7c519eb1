"""`Retry-After` read by the letter: what is not understood is as good as none, what is must never be shortened."""

from __future__ import annotations

import json
import math
import time
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard import errors
from asyncguard._machines.retry_after import delay_seconds, http_date, retry_after

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "retry.json").read_text(encoding="utf-8"))
CASES = REFERENCE["retry_after"]
WALL = CASES["wall"]


class Failed(Exception):  # noqa: N818 - stands for the errors of clients
    def __init__(self, headers=None, **attributes):
        super().__init__("failed")
        self.headers = headers or {}
        self.__dict__.update(attributes)


def asked(value, name="Retry-After"):
    return retry_after(Failed({name: value}), WALL)


@pytest.mark.parametrize(("value", "seconds"), CASES["seconds"])
def test_seconds(value, seconds):
    assert asked(value) == seconds
    assert asked(f" {value} ") == seconds


@pytest.mark.parametrize(("value", "seconds"), CASES["dates"])
def test_dates_in_their_three_forms_a_past_one_is_now(value, seconds):
    assert asked(value) == seconds


@pytest.mark.parametrize("value", CASES["neither"], ids=ascii)
def test_what_is_neither_is_as_good_as_none(value):
    assert asked(value) is None


@pytest.mark.parametrize(("value", "seconds"), REFERENCE["retry_after_ms"]["values"])
def test_milliseconds_come_before_seconds(value, seconds):
    assert retry_after(Failed({"Retry-After": "77", "Retry-After-Ms": value}), WALL) == seconds


@pytest.mark.parametrize("value", REFERENCE["retry_after_ms"]["neither"])
def test_milliseconds_that_are_none_leave_it_to_the_seconds(value):
    assert retry_after(Failed({"retry-after-ms": value, "retry-after": "3"}), WALL) == 3.0
    assert asked(value, "retry-after-ms") is None


@pytest.mark.parametrize("digits", ["9" * 13, "9" * 400, "9" * 10_000])
def test_a_number_without_end_is_longer_than_anybody_waits(digits):
    assert asked(digits) == math.inf


def test_the_longest_number_that_is_one():
    assert asked("9" * 12) == 999_999_999_999


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the system has one time zone")
def test_a_date_without_a_zone_is_of_greenwich_and_not_of_here(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        try:
            assert asked("Sat Jan  1 00:00:30 2000") == 30.0
        finally:
            patch.undo()
            time.tzset()


def test_leading_zeros_do_not_make_a_number_long():
    assert asked("0" * 100 + "5") == 5.0


def test_a_date_is_measured_by_the_clock_of_the_server_where_it_says_what_that_is():
    headers = {"Retry-After": "Sat, 01 Jan 2000 12:00:30 GMT", "Date": "Sat, 01 Jan 2000 12:00:00 GMT"}
    assert retry_after(Failed(headers), WALL) == 30.0


def test_a_date_that_cannot_be_read_leaves_the_wall_clock():
    headers = {"Retry-After": "Sat, 01 Jan 2000 00:00:30 GMT", "Date": "yesterday"}
    assert retry_after(Failed(headers), WALL) == 30.0


@pytest.mark.parametrize("name", ["retry-after", "Retry-After", "RETRY-AFTER", b"retry-after"], ids=repr)
def test_the_case_of_the_name_does_not_matter(name):
    assert retry_after(Failed({name: b"5" if isinstance(name, bytes) else "5"}), WALL) == 5.0


def test_the_header_is_found_on_the_error_on_its_response_and_in_boto():
    class Response:
        headers = {"Retry-After": "5"}  # noqa: RUF012 - a fake

    assert retry_after(Failed(response=Response()), WALL) == 5.0
    assert retry_after(Response(), WALL) == 5.0
    boto = {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "5"}}}
    assert retry_after(Failed(response=boto), WALL) == 5.0


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ({"retry_after": 2}, 2.0),
        ({"retry_after": 0}, 0.0),
        ({"retry_after": 2.5}, 2.5),
        ({"retry_after": timedelta(minutes=1)}, 60.0),
        ({"retry_after_s": 3}, 3.0),
        ({"retry_after": None, "retry_after_s": 3}, 3.0),
        ({"retry_after": -1}, None),
        ({"retry_after": math.nan}, None),
        ({"retry_after": math.inf}, None),
        ({"retry_after": True}, None),
        ({"retry_after": "5"}, None),
    ],
)
def test_clients_that_give_the_seconds_as_an_attribute(attributes, seconds):
    assert retry_after(Failed(**attributes), WALL) == seconds


def test_our_own_rejections_say_it_too():
    assert retry_after(errors.CircuitOpenError("x", retry_after=12.5), WALL) == 12.5
    assert retry_after(errors.CircuitOpenError("x"), WALL) is None


@pytest.mark.parametrize("headers", [None, 5, [], [("retry-after", "5")], {"retry-after": 5}, {5: "5"}], ids=repr)
def test_headers_of_a_strange_shape_say_nothing(headers):
    error = Failed()
    error.headers = headers
    assert retry_after(error, WALL) is None


def test_headers_that_fail_to_be_read_say_nothing():
    class Broken:
        def items(self):
            raise RuntimeError

    error = Failed()
    error.headers = Broken()
    assert retry_after(error, WALL) is None


@given(st.integers(0, 4_000_000_000))
def test_every_date_that_python_writes_is_read_back(moment):
    assert http_date(formatdate(moment, usegmt=True)) == moment


@given(st.text(max_size=40))
def test_no_text_makes_it_fail_or_turn_negative(value):
    seconds = asked(value)
    assert seconds is None or seconds >= 0.0


@given(st.integers(0, 10**11))
def test_every_number_is_read_as_it_is(number):
    assert delay_seconds(str(number)) == number
