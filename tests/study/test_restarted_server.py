"""A study on a PostgreSQL server that restarts: Debian's package, started by an unprivileged user."""

import os
import subprocess
import sys

import pytest
from postgresql import binaries, postgresql

_STUDY = """
import sys
from pathlib import Path
from autocut.recipe import Recipe
from autocut.study import create_study

url, folder = sys.argv[1:3]

def opened(name):
    return create_study(Path(folder) / name, name="digits", task_fingerprint="t", space_json="{}",
                        objectives={"accuracy": "maximize"}, seed=0, storage_url=url)

study = opened("first")
session = study.begin_session("autocut search", {})
study.lock.end_turn()
for number in range(4):
    print("ready", flush=True)
    input()
    study.fail(None, Recipe({"prune.ratio": number / 10}), {}, {}, f"reason {number}")
    session.beat(float(number), {"training": float(number)})
    study.lock.keep()
second = opened("second")
print(second.lock.others() == {session.id}, second.lock.others_elsewhere() == {session.id})
second.close()
study.reload()
print([(trial.trial, trial.reason) for trial in study.trials()], study.spent_s())
study.close()
third = opened("third")
print(third.lock.others())
third.close()
"""


@pytest.mark.slow
def test_a_study_outlasts_restarts_of_its_server(tmp_path):
    """Every trial is there once, the ledger too, and the lock by which other searches see this one is taken again."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is missing: pip install 'autocut[postgresql]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    command = [sys.executable, "-c", _STUDY]
    with (
        postgresql() as server,
        subprocess.Popen(
            [*command, server.url, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
        ) as process,
    ):
        for _ in range(4):
            assert process.stdout.readline() == "ready\n"
            server.kill()
            process.stdin.write("\n")
            process.stdin.flush()
            server.start()
        told = process.stdout.read().splitlines()

    assert told[0] == "True True"
    assert told[1] == f"{[(number, f'reason {number}') for number in range(4)]} 3.0"
    assert told[2] == "frozenset()"
