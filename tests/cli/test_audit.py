"""Every fault of the service's log is named with what handled it, by request id."""

from __future__ import annotations

import json

import pytest

from asyncguard import events
from asyncguard.cli.demo.audit import UNEXPLAINED, Asked, explain, read_log
from asyncguard.cli.demo.journal import Attempt, Call, Journal
from asyncguard.errors import CircuitOpenError


def journal_of(*calls, guarded=True):
    journal = Journal(guarded=guarded)
    journal.calls += calls
    return journal


def call(number=1, *, what="documents 0 to 7", attempts=1, said=(), error=None):
    """A call whose attempts start at 0 s, 10 s, 20 s."""
    made = [Attempt(f"{number}.{nth + 1}", started=10.0 * nth) for nth in range(attempts)]
    return Call(number, what, started=0.0, ended=12.0, error=error, attempts=made, events=list(said))


def handled(fault, *calls, request="1.1", guarded=True):
    [only] = explain([Asked(request, 0.5, fault)], journal_of(*calls, guarded=guarded))
    return only


def retried(kind, at=1.0):
    return at, events.RetryScheduled(attempt=1, delay=0.1, kind=kind, error=None)


@pytest.mark.parametrize(
    ("fault", "said", "by"),
    [
        ("503", [retried("transient")], "retry"),
        ("429", [retried("throttle")], "retry, as late as Retry-After asked"),
        ("nan", [(1.0, events.InputRejected(rules=(), action="raise")), retried("permanent")], "validate_input, retry"),
        ("stall", [(1.0, events.CallTimedOut(seconds=2.5)), retried("timeout")], "timeout 2.5 s, retry"),
    ],
)
def test_a_fault_is_named_with_the_guards_that_handled_it(fault, said, by):
    assert handled(fault, call(attempts=2, said=said)).by == by


def test_the_circuit_breakers_part_is_named():
    opened = events.CircuitOpened(open_for=1.0, calls=10, failed=6, slow=0, error="X")
    kept = events.CallRejected(reason="open", retry_after=1.0)
    said = [(1.0, opened), retried("transient"), (2.0, kept)]
    by = handled("outage", call(attempts=2, said=said)).by
    assert by == "circuit_breaker opened, retry, circuit_breaker kept calls away"


def test_what_a_guard_said_of_a_later_attempt_does_not_explain_an_earlier_one():
    assert handled("503", call(attempts=2, said=[retried("transient", at=11.0)])).by == UNEXPLAINED


def test_what_the_databases_guards_said_does_not_explain_a_fault_of_the_service():
    said = [(1.0, events.CallTimedOut(pipeline="Guarded.store", seconds=0.8))]
    assert handled("503", call(said=said)).by == UNEXPLAINED


def test_a_fault_that_nobody_mentions_is_unexplained_even_if_the_call_went_well():
    assert handled("503", call()).by == UNEXPLAINED
    assert handled("503", call(attempts=2)).by == UNEXPLAINED


def test_a_slow_answer_that_somebody_waited_for_was_endured():
    assert handled("drip", call()).by == "endured for 12.0 s"


def test_of_other_libraries_we_see_that_they_sent_the_request_again():
    assert handled("503", call(attempts=2), guarded=False).by == "sent again"


def test_a_request_that_the_client_does_not_know_is_unexplained():
    assert handled("503", call(), request="someone-else").by == UNEXPLAINED


def test_a_batch_that_was_lost_is_said_to_be_lost():
    lost = handled("503", call(error=ValueError("no")))
    assert (lost.by, lost.survived) == ("nothing: lost on ValueError", False)


def test_a_batch_that_the_job_put_back_was_handled_by_a_guard_and_the_job():
    said = [(1.0, events.CallRejected(reason="open", retry_after=1.0))]
    first, second = call(1, said=said, error=CircuitOpenError("open")), call(2)
    assert handled("503", first, second).by == "circuit_breaker kept calls away, then the job put the batch back"


def test_a_question_that_another_user_got_answered_is_still_lost():
    first, second = call(1, what="question: x", error=ValueError("no")), call(2, what="question: x")
    assert not handled("503", first, second).survived


def test_requests_without_a_fault_are_not_in_the_report():
    assert explain([Asked("1.1", 0.5, None)], journal_of(call())) == []


def test_a_log_whose_last_line_was_cut_is_read_as_far_as_it_goes(tmp_path):
    line = json.dumps({"id": "1.1", "at": 0.5, "fault": "503", "texts": []})
    log = tmp_path / "service.jsonl"
    log.write_text(f"{line}\n{line[:20]}")
    assert read_log(log) == [Asked("1.1", 0.5, "503")]
    assert read_log(tmp_path / "none") == []
