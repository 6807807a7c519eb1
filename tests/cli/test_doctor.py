"""`asyncguard doctor`."""

from __future__ import annotations

import json
import socket

import pytest

from asyncguard._runtime import shared_ledger
from asyncguard.cli import doctor
from asyncguard.cli.main import main


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # nobody listens there, nor can anybody begin to


def findings(capsys, *arguments):
    status = main(["doctor", "--json", *arguments])
    document = json.loads(capsys.readouterr().out)
    return status, document, {finding["name"]: finding for finding in document["findings"]}


def test_a_sound_machine_is_status_0_and_everything_was_looked_at(capsys):
    status, document, found = findings(capsys)
    assert (status, document["ok"]) == (0, True)
    assert set(found) == {"python", "event_loops", "memory", "malloc_trim", "gpu", "integrations"}


def test_the_memory_limit_says_where_it_comes_from(capsys):
    facts = findings(capsys)[2]["memory"]["facts"]
    assert facts["source"] in {"cgroup", "system", "psutil"}
    assert facts["limit"] > facts["used"] > 0


def test_what_other_processes_promise_is_said(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "promised_by_others", lambda: (3, 120 * 2**20))
    found = findings(capsys)[2]["memory"]
    assert (found["facts"]["processes"], found["facts"]["promised"]) == (3, 120 * 2**20)
    assert "3 processes in it guard their memory and have promised 120 MiB" in found["text"]


def test_processes_in_the_table_are_counted_without_ourselves(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_ledger, "_shared", shared_ledger.SharedLedger(lambda: "box", tmp_path))
    assert doctor.promised_by_others() == (0, 0)


def test_a_store_that_answers_is_fine(capsys, listening):
    status, _, found = findings(capsys, "--store", f"redis://127.0.0.1:{listening}")
    assert (status, found["store"]["level"]) == (0, "ok")


def test_a_store_that_does_not_answer_is_wrong_and_its_password_stays_secret(capsys, closed_port):
    status, document, found = findings(capsys, "--store", f"redis://user:secret@127.0.0.1:{closed_port}/0")
    assert (status, document["ok"], found["store"]["level"]) == (1, False, "wrong")
    assert f"127.0.0.1:{closed_port}" in found["store"]["text"]
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize("url", ["nonsense", "redis://", "redis://host:99999999", "unknown://host"])
def test_a_url_that_says_no_address_is_wrong_and_says_what_was_expected(capsys, url):
    status, _, found = findings(capsys, "--store", url)
    assert status == 1
    assert "expected a URL with a host and a port" in found["store"]["text"]


def test_the_usual_port_is_known_by_the_scheme():
    assert doctor._address("valkey://cache.internal/0")[1:] == ("cache.internal", 6379)


def test_the_table_has_a_line_for_each_finding(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in ("python", "memory", "malloc_trim", "integrations"))
    assert max(map(len, printed.splitlines())) <= 120


def test_a_look_that_fails_is_a_finding_and_not_a_traceback():
    def broken():
        raise OSError("no /proc here")

    finding = doctor._safely(broken)
    assert finding.level == "wrong"
    assert "no /proc here" in finding.text
