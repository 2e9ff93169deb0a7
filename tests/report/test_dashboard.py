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


def request(address, method, path, content=None, **headers):
    """Return status and body of one request."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path, content, headers)
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


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/trials/1/tell"), ("PUT", "/api/studies/1/note"), ("GET", "/csv/1")])
def test_a_request_of_another_site_is_refused(address, method, path, headers):
    """A page of another site can post forms to a local server, with a host name that is right."""
    status, body = request(address, method, path, **headers)

    assert status == 403
    assert b"another site" in body


def test_the_dashboards_own_pages_and_programs_may_write(address):
    """Its notes are written by its page, and read back."""
    own = {"Origin": address.partition("/dashboard")[0], "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
    for headers in (own, {"Content-Type": "application/json"}):
        assert request(address, "PUT", "/api/studies/1/note", b'{"body": "mine", "version": 99}', **headers)[0] != 403


def test_a_link_on_another_site_opens_the_dashboard(address):
    """A wiki may link to it; the browser sends no page of it back to the wiki."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    assert request(address, "GET", urlsplit(address).path, **headers)[0] == 200


def test_the_dashboard_listens_on_this_machine_alone(address):
    """Other addresses of the machine have no listener."""
    port = urlsplit(address).port
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123
        listening = [row.split()[1] for row in table if row.split()[3] == "0A"]

    assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_file_of_a_study_runs_no_script_and_is_read_by_no_other_site(read_study, address, tmp_path):
    """A study may be a stranger's, and its file a page."""
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    trial_id = read_study.trials()[0].trial_id
    identity = read_study.trial_files.attach(trial_id, page, "page.html", "text/html")
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("GET", f"/artifacts/1/{trial_id}/{identity}")
    answer = connection.getresponse()
    answer.read()
    connection.close()

    assert answer.status == 200
    assert answer.getheader("Content-Security-Policy") == "sandbox"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("path", ["/artifacts/1/..%2f..%2fstudy.db", "/artifacts/1/1/../../study.db", "/static/../../study.db"])
def test_no_path_leads_out_of_the_artifacts(address, path):
    """Neither encoded nor plain."""
    status, body = request(address, "GET", path)

    assert status in (403, 404)
    assert b"SQLite" not in body


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
