"""The job's loop: a rejection is a pause and loses nothing, any other error loses its batch and no more."""

from __future__ import annotations

from collections import deque

import pytest

pytest.importorskip("numpy", reason="the demo extra is not installed")

from asyncguard import testing
from asyncguard.cli.demo import job
from asyncguard.cli.demo.corpus import Document
from asyncguard.cli.demo.journal import Journal
from asyncguard.errors import CircuitOpenError

DOCUMENTS = [Document(number, f"title {number}", f"text {number}") for number in range(50)]


class Fake:
    """Fails as it is told to, by the number of the call."""

    def __init__(self, errors) -> None:
        self.errors = errors
        self.calls = 0
        self.stored: list[int] = []

    async def embed(self, texts):
        self.calls += 1
        error = self.errors(self.calls, texts)
        if error is not None:
            raise error
        return texts

    async def store(self, documents, vectors):
        assert [document.text for document in documents] == vectors
        self.stored += [document.number for document in documents]


def run(errors):
    fake = Fake(errors)
    work = job.Job(fake, Journal(), deque(job.batches(DOCUMENTS)))
    testing.run(work.run)
    return fake, work


def rejection():
    return CircuitOpenError("open", retry_after=2.0)


def test_every_document_is_stored_once():
    fake, work = run(lambda *_: None)
    assert sorted(fake.stored) == list(range(50))
    assert work.stored == 50


def test_rejected_batches_wait_as_long_as_they_are_told_and_are_not_lost():
    fake, work = run(lambda call, _texts: rejection() if call <= 20 else None)
    assert sorted(fake.stored) == list(range(50))
    assert work.failures == []
    assert [seconds for _, seconds, _ in work.journal.pauses] == [2.0] * 20


def test_an_error_loses_its_batch_and_no_other():
    fake, work = run(lambda _call, texts: ValueError("bad") if "text 9" in texts else None)
    assert sorted(fake.stored) == [*range(8), *range(16, 50)]
    [failure] = work.failures
    assert (job.name_of(failure.batch), str(failure.error)) == ("documents 8 to 15", "bad")


def test_a_service_that_never_comes_back_ends_the_job():
    fake, work = run(lambda *_: rejection())
    assert fake.stored == []
    assert len(work.failures) == len(job.batches(DOCUMENTS))
    assert sum(seconds for _, seconds, _ in work.journal.pauses) / job.WORKERS > job.PATIENCE
