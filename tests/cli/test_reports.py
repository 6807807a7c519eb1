"""The reports: what they say is escaped, they need no other host, and the plots show what happened."""

from __future__ import annotations

import html
import re
from collections import deque
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("numpy", reason="the demo extra is not installed")

from asyncguard import events
from asyncguard.cli.demo import audit, facts, page, plots, report
from asyncguard.cli.demo.corpus import Document
from asyncguard.cli.demo.job import Failure, Job
from asyncguard.cli.demo.journal import Attempt, Call, Journal, Sample
from asyncguard.cli.demo.pipeline import Answer, Hit
from asyncguard.cli.demo.referee import Verdict
from asyncguard.cli.demo.run import Result, Settings
from asyncguard.cli.demo.svg import Plot, lanes, marks, nice_step
from asyncguard.cli.demo.users import Users

EVIL = '<script src="https://evil.example/x.js">"&'


def result(name="guarded", *, by="retry", failures=(), errors=(), recall=1.0, lost=()):
    """A run of two batches and ten seconds, with everything in it that the reports can show."""
    journal = Journal(guarded=name == "guarded")
    journal.started, journal.ended = 100.0, 110.0
    attempts = [Attempt("1.1", 100.0, 101.0, "503"), Attempt("1.2", 102.0, 103.0, "200")]
    journal.calls = [Call(1, "documents 0 to 7", 100.0, 103.5, attempts=attempts)]
    journal.events = [
        (101.0, events.RetryScheduled(attempt=1, delay=1.0, kind="transient", error=None)),
        (102.0, events.CircuitOpened(open_for=1.0, calls=10, failed=6, slow=0, error="X")),
        (104.0, events.CircuitClosed(open_for=2.0)),
        (105.0, events.CacheHit(pipeline="Guarded.embed", age=1.0, items=3)),
    ]
    journal.samples = [Sample(100.0 + at, 4, 2, at, 2**28) for at in range(10)]
    documents = [Document(number, EVIL, f"text {number}") for number in range(8)]
    job = Job(None, journal, deque(), failures=[Failure(documents, error) for error in failures])
    answers = [Answer(EVIL, [Hit(0, EVIL, 0.5)])]
    users = Users(None, journal, answers=answers, errors=list(errors))
    made = Result(name, Settings(), documents, job, journal, users)
    made.handled = [audit.Handled("1.1", 100.5, "503", by, survived=by != audit.UNEXPLAINED)]
    made.requests = 2
    made.verdict = Verdict(8, 8 - len(lost), list(lost), [], recall)
    made.answers = answers
    made.database_paused = (105.0, 106.5)
    return made


def test_nothing_that_comes_from_outside_gets_into_the_page_as_markup():
    shown = page.page([result(by=EVIL, failures=[ValueError(EVIL)])])
    assert "<script" not in shown
    assert "&lt;script" in shown


def test_the_page_needs_no_other_host():
    shown = page.page([result("bare"), result()]).replace(html.escape(EVIL), "")
    assert not re.search(r"(src|href|url)\s*[=(]|@import|//[a-z]", shown)


def test_the_drawings_are_well_formed():
    drawings = re.findall(r"<svg.*?</svg>", page.page([result()]))
    assert len(drawings) > 5
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314 - our own


def test_each_curve_in_flight_is_named_by_its_colour():
    shown = page.page([result()])
    for style, words in page.IN_FLIGHT:
        assert f'class="{style} line"' in shown
        assert re.search(f'<rect class="{style}"[^>]*/></svg>{words}', shown)
        assert f"rect.{style} {{ fill:" in shown


def test_every_fault_is_named_by_its_request_in_both_reports():
    shown = result()
    assert "1.1" in report.report(shown)
    assert "503 Service Unavailable" in report.report(shown)
    assert "<td>1.1</td>" in page.page([shown])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"failures": [ValueError("x")]}, "1 batch failed"),
        ({"errors": [ValueError("x")]}, "1 user got no answer"),
        ({"recall": 0.9999}, "the stored data is not what it should be"),
        ({"lost": [3]}, "the stored data is not what it should be"),
        ({"by": audit.UNEXPLAINED}, "1 fault unexplained"),
    ],
)
def test_a_run_that_was_not_good_is_called_failed_and_why(changes, said):
    bad = result(**changes)
    assert not bad.good
    assert report.conclusion(bad).startswith("FAILED")
    assert said in report.conclusion(bad)


def test_a_good_run_is_called_good():
    assert result().good
    assert report.conclusion(result()).startswith("Good")


def test_the_comparison_has_a_column_for_each_variant():
    shown = report.comparison([result("bare", lost=[1, 2]), result("guarded")])
    head, *rows = shown.splitlines()
    assert head.split() == ["bare", "guarded"]
    assert next(row for row in rows if row.startswith("documents lost")).split()[-2:] == ["2", "0"]


def test_the_circuit_ribbon_has_no_gaps():
    ribbon = plots.circuit_states(result().journal)
    assert ribbon == [(0.0, 2.0, "closed"), (2.0, 4.0, "open"), (4.0, 10.0, "closed")]


def test_texts_that_came_from_the_cache_are_counted_by_item():
    assert facts.saved_texts(result().journal) == 3


def test_percentiles_are_values_that_occurred():
    assert facts.percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert facts.percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert facts.percentile([], 0.5) == 0.0


def test_requests_that_overlap_are_drawn_in_lanes_of_their_own():
    assert lanes([(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (2.5, 3.0)]) == [0, 1, 0, 2]


def test_axes_have_round_marks():
    assert nice_step(26.8, 12) == 5
    assert marks(1000) == [(0, "0"), (500, "500"), (1000, "1000")]


def test_what_lies_outside_of_the_axis_is_drawn_at_its_edge():
    plot = Plot(seconds=10.0, high=1.0, height=100)
    assert plot.x(-1.0) == plot.x(0.0) < plot.x(10.0) == plot.x(11.0)
