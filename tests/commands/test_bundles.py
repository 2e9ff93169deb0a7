"""`autocut export` and `autocut verify`: what they print, and how they end."""

from __future__ import annotations

import json
import types

import pytest

from autocut import cli
from autocut.deploy.claims import Check


def test_export_prints_where_the_bundle_is(room, capsys):
    """A script can use the path."""
    room("autocut.deploy.export", export_trial=lambda folder, trial, to, **more: to / "bundle")
    assert cli.main(["export", "studies/digits", "--trial", "7", "--to", "out"]) == 0
    assert capsys.readouterr().out == "out/bundle\n"


@pytest.mark.parametrize("ok", [True, False])
def test_verify_shows_each_check_and_fails_with_one(room, capsys, ok):
    """If a claim does not hold, the exit code is 1, for the table and for the document."""
    check = Check("size", "1000", "1001", ok, "1001 bytes, claimed 1000", 1000, 1001)
    found = types.SimpleNamespace(checks=(check,), ok=ok, failed=() if ok else (check,))
    room("autocut.deploy.verify", verify_bundle=lambda folder, **holds: found)

    assert cli.main(["verify", "out"]) == (0 if ok else 1)
    shown = capsys.readouterr()
    assert ("FAILED" in shown.out) is not ok
    assert ("the bundle keeps its claims" if ok else "the bundle breaks 1 claim (size)") in shown.err
    assert cli.main(["verify", "out", "--json"]) == (0 if ok else 1)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is ok
    assert [(one["claim_value"], one["found_value"]) for one in document["checks"]] == [(1000, 1001)]
