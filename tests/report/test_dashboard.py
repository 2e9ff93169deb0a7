"""The dashboard's server: its address, its data, and the requests that it refuses."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

from autocut.errors import InputError, StudyError
from autocut.report import dashboard


@pytest.fixture
def address(read_study, served):
    """The address of the filled study."""
    return served(read_study.folder)


def request(address, method, path, **headers):
    """Return status and body of one request."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


def test_the_study_is_served_while_it_is_searched(read_study, address):
    """The address on the terminal works, and so does the data behind the page."""
    assert request(address, "GET", urlsplit(address).path)[0] == 200
    status, body = request(address, "GET", "/api/studies/1")

    detail = json.loads(body)
    assert status == 200
    assert detail["objective_names" if "objective_names" in detail else "metric_names"] == ["accuracy", "usd_per_million"]
    assert len(detail["trials"]) == len(read_study.trials())


def test_the_dashboard_sees_which_trials_are_infeasible(read_study, address):
    """The dashboard reads another key than the one that Optuna 5 writes."""
    trials = json.loads(request(address, "GET", "/api/studies/1")[1])["trials"]

    seen = {trial["number"] for trial in trials if any(value > 0 for value in trial["constraints"])}
    assert seen == {trial.trial for trial in read_study.trials() if not trial.is_feasible}
    assert seen


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename")])
def test_the_study_can_be_neither_deleted_nor_renamed(address, read_study, method, path):
    """The tables of autocut refer to the study by its name."""
    assert request(address, method, path)[0] == 403
    read_study.reload()
    assert read_study.points()


def test_another_host_name_is_refused(address):
    """A foreign page could point its host name at 127.0.0.1 and read the study through the user's browser."""
    assert request(address, "GET", "/api/studies", Host="evil.example:80")[0] == 403
    assert request(address, "GET", "/api/studies", Host="localhost:80")[0] == 200


def test_a_taken_port_is_an_error(read_study):
    """The hint says how to take a free port."""
    with socket.socket() as holder:
        holder.bind((dashboard.HOST, 0))
        holder.listen()
        with pytest.raises(InputError, match=r"port \d+ is taken") as refusal:
            dashboard.serve(read_study.folder, holder.getsockname()[1], lambda _: None)
    assert "--port 0" in refusal.value.hint


def test_an_impossible_port_is_an_error(read_study):
    """The error comes before the server starts."""
    with pytest.raises(InputError, match="port must be from 0 to 65535, got 70000"):
        dashboard.serve(read_study.folder, 70000, lambda _: None)


def test_an_unknown_study_is_an_error(tmp_path):
    """The error is the same as for every other verb."""
    with pytest.raises(StudyError, match="must be a folder that autocut search made"):
        dashboard.serve(tmp_path / "none", 0, lambda _: None)
