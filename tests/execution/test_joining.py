"""Joining a Ray cluster: with its token where it wants one, and told precisely what is missing where it cannot."""

import os
import socket
import subprocess
import sys
import tempfile

import pytest

from autocut.errors import InputError
from autocut.execution import joining
from autocut.execution.joining import prepare_to_join, token_place

REFUSED = "gcs_client.cc:210: Failed to get cluster ID: Unauthenticated: RPC error: InvalidAuthToken: token is missing or incorrect"


@pytest.fixture
def listener(monkeypatch, tmp_path):
    """The address of something that listens, for a user without any token."""
    for name in (joining.MODE, joining.TOKEN, joining.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def answers(monkeypatch, *said):
    """Have attempts to join say this, one after the other; None is success."""
    waiting = list(said)
    monkeypatch.setattr(joining, "_try_to_join", lambda address: waiting.pop(0))
    monkeypatch.setattr(joining, "_use_token", lambda: monkeypatch.setenv(joining.MODE, "token"))
    return waiting


@pytest.mark.parametrize(
    ("environment", "files", "place"),
    [
        ({}, {}, None),
        ({}, {".ray/auth_token": "t"}, "{home}/.ray/auth_token"),
        ({}, {".ray/auth_token": "  \n"}, None),
        ({"RAY_AUTH_TOKEN": "t"}, {".ray/auth_token": "t"}, "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": " "}, {".ray/auth_token": "t"}, "{home}/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN_PATH": "{home}/mine"}, {"mine": "t"}, "{home}/mine"),
        ({"RAY_AUTH_TOKEN_PATH": "{home}/mine"}, {".ray/auth_token": "t"}, None),
    ],
)
def test_the_token_is_looked_for_where_ray_looks(tmp_path, environment, files, place):
    """In Ray's order; a named file that is missing is not replaced by the usual one."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = token_place({name: value.format(home=tmp_path) for name, value in environment.items()}, tmp_path)

    assert found == (place and place.format(home=tmp_path))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://here:10001", "HOST:PORT"),
        ("here:port", "HOST:PORT"),
        ("127.0.0.1:1", "refused"),
        ("no.such.host.invalid:6379", "host"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address, words):
    """Ray would look for two minutes, and end the process."""
    with pytest.raises(InputError, match=f"--ray-address.*{words}"):
        prepare_to_join(address)


def test_a_cluster_that_wants_no_token_gets_none(listener, monkeypatch):
    """It would let the driver in, and cancel its actors."""
    monkeypatch.setenv(joining.TOKEN, "geheim")
    answers(monkeypatch, None)
    prepare_to_join(listener)

    assert joining.MODE not in os.environ


def test_the_token_is_used_where_the_cluster_wants_one(listener, monkeypatch):
    """Nobody has to set RAY_AUTH_MODE."""
    monkeypatch.setenv(joining.TOKEN, "geheim")
    waiting = answers(monkeypatch, REFUSED, None)
    prepare_to_join(listener)

    assert os.environ[joining.MODE] == "token"
    assert waiting == []


@pytest.mark.parametrize(
    ("environment", "said", "words"),
    [
        ({}, [REFUSED], ["there is none here", "~/.ray/auth_token"]),
        ({"RAY_AUTH_TOKEN_PATH": "/no/file"}, [REFUSED], ["RAY_AUTH_TOKEN_PATH must name a file", "/no/file"]),
        ({"RAY_AUTH_MODE": "token"}, [], ["there is none here"]),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "geheim"}, [REFUSED], ["RAY_AUTH_MODE is 'disabled'"]),
        ({"RAY_AUTH_TOKEN": "geheim"}, [REFUSED, REFUSED], ["the one in RAY_AUTH_TOKEN is another"]),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "geheim"}, [REFUSED], ["the one in RAY_AUTH_TOKEN is another"]),
        (
            {},
            ["Traceback\n  File x\nRuntimeError: Version mismatch: The cluster was started with:\n  Ray: 2.55.0"],
            ["Version mismatch", "Ray: 2.55.0"],
        ),
    ],
)
def test_what_keeps_a_driver_out_is_told(listener, monkeypatch, environment, said, words):
    """Subject, rule, value and what to do; the token itself is never a part of it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answers(monkeypatch, *said)
    with pytest.raises(InputError) as refused:
        prepare_to_join(listener)

    assert all(word in refused.value.message for word in words)
    assert refused.value.hint
    assert "geheim" not in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.cluster
def test_a_real_cluster_with_a_token_is_joined(tmp_path):
    """`ray start --head` has it in the environment, the driver in a file; then in none, and then another one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    (tmp_path / "token").write_text("a" * 64)
    start = (sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1", "--include-dashboard=false")
    code = f"from autocut.execution.joining import prepare_to_join; prepare_to_join({address!r})"

    def join(**environment):
        return subprocess.run([sys.executable, "-c", code], env=outside | environment, capture_output=True, text=True).stderr

    place = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # tmp_path is too long for Ray's sockets
    head = subprocess.Popen(
        [*start, f"--port={address.rpartition(':')[2]}", f"--temp-dir={place.name}"],
        env=outside | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while "Connection refused" in (said := join(RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))):
            assert head.poll() is None
        assert said == ""
        assert "there is none here" in join()
        assert "the one in RAY_AUTH_TOKEN is another" in join(RAY_AUTH_TOKEN="b" * 64)
    finally:
        head.terminate()
        head.wait(30)
        place.cleanup()
