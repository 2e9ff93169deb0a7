"""`autocut check`, `methods`, `ledger` and `dashboard`: what they print, and how they end."""

from __future__ import annotations

import json
from types import SimpleNamespace

from autocut import cli
from autocut.errors import Fault
from autocut.study.ledger import CATEGORIES


def test_check_reports_every_fault_or_none(room, capsys):
    """Exit code 2 with a numbered list, or 0."""
    room(
        "autocut.task.check",
        check_task=lambda path, **more: [Fault("a is wrong", "write b"), Fault("c is wrong")],
        notes_of=lambda path: [],
    )
    assert cli.main(["check", "task.py"]) == 2
    assert "2. c is wrong" in capsys.readouterr().err
    room("autocut.task.check", check_task=lambda path, **more: [], notes_of=lambda path: ["weights are folded"])
    assert cli.main(["check", "task.py"]) == 0
    assert capsys.readouterr().out == "task.py: no faults\n"


def test_methods_shows_pairs_as_a_matrix_with_reasons(monkeypatch, capsys):
    """A dtype works only together with a mode."""
    from autocut.stages.methods import MethodRow, PairRow

    rows = [
        MethodRow("quantize.dtype", "bf16", "Store weights as bfloat16.", ("torchao",), ()),
        MethodRow("compile.mode", "x", "X.", ("x",), ("x",)),
    ]
    pairs = [
        PairRow("bf16", "eager", None),
        PairRow("bf16", "onnxruntime", "no kernel"),
        PairRow("fp32", "eager", None),
        PairRow("fp32", "onnxruntime", None),
    ]
    monkeypatch.setattr("autocut.stages.methods.method_rows", lambda: rows)
    of_device = {"cpu": pairs, "cuda": [PairRow("bf16", "eager", "no GPU", "cuda")]}
    monkeypatch.setattr("autocut.stages.methods.pair_rows", lambda device="cpu": of_device[device])

    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "pip install x" in shown
    assert "no (1)" in shown
    assert "no kernel" in shown
    assert cli.main(["methods", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    refused = {"dtype": "bf16", "mode": "onnxruntime", "device": "cpu", "reason": "no kernel", "feasible": False}
    assert document["pairs"][1] == refused
    assert document["pairs"][-1]["device"] == "cuda"
    assert document["methods"][1]["available"] is False


def test_ledger_shows_where_the_time_went(searches, capsys):
    """The largest share comes first; categories without time are left out."""
    assert cli.main(["ledger", "studies/digits"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("train") < shown.index("compile")
    assert "67%" in shown
    assert "idle" not in shown
    assert "1m40s in 1 run" in shown
    assert "cores busy: 90%" in shown
    assert cli.main(["ledger", "studies/digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["spent_s"] == 100.0
    assert (document["schema_version"], document["cores_busy"]) == (1, 0.9)


def test_dashboard_prints_its_address(room, capsys):
    """The address is data, so a script can open it."""
    room("autocut.report.dashboard", serve=lambda folder, port, on_ready: on_ready(f"http://127.0.0.1:{port}"))
    assert cli.main(["dashboard", "studies/digits", "--port", "9000"]) == 0
    assert capsys.readouterr().out == "http://127.0.0.1:9000\n"


def test_the_help_of_ledger_keeps_its_list(capsys):
    """A row for each category, and no control sign on the screen."""
    assert cli.main(["ledger", "--help"]) == 0
    told = capsys.readouterr().out
    assert "\\b" not in told
    assert [line.split()[0] for line in told.splitlines() if line.strip()].count("killed") == 1


def test_each_category_of_the_ledger_says_what_it_is(searches, room, capsys):
    """In the table, in the words of the help: nobody knows what "overhead" is."""
    seconds = dict.fromkeys(CATEGORIES, 1.0)
    study = SimpleNamespace(
        name="digits", ledger=lambda: {"by_category": seconds, "sessions": [1], "spent_s": 9, "cores_busy": None}
    )
    room("autocut.study", open_study=lambda folder: study)
    assert cli.main(["ledger", "studies/digits"]) == 0
    rows = [line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines() if "#" in line]
    assert cli.main(["ledger", "--help"]) == 0
    told = [line.strip() for line in capsys.readouterr().out.splitlines()]

    assert {row[3] for row in rows} == set(CATEGORIES)
    assert all(f"{name:<10}  {what}" in told for _, _, _, name, what in rows)
