"""The method matrix: every registered method has its row, rows are kept, and what cannot be has its reason."""

from __future__ import annotations

import sys
from dataclasses import replace

import families
import matrix
import pytest
from changes import AXES, Change, changes_of
from families import Family
from measuring import FamilyBench
from row_tables import to_markdown, to_words
from rows import Row, RowFile, read_rows

from autocut.recipe import LEFT_OUT, STUDENT, UNTOUCHED, Recipe
from autocut.stages.methods import known_methods, registry

TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut import Task


def examples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 16, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long())


def model():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))


task = Task(
    name="tiny", model=model, train=lambda: examples(400, 0), validation=lambda: examples(100, 1), test=lambda: examples(100, 2),
    batch_size=50, epochs=2, pretrained=False,
)
"""


@pytest.fixture(name="tiny")
def _tiny(tmp_path, monkeypatch):
    """A family whose task lies in a folder of its own."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "task.py").write_text(TASK)
    family = Family("tiny", "a tiny network", str(tmp_path / "tiny"), epochs=1, examples=300, scored=80)
    monkeypatch.setattr(matrix, "FAMILIES", {"tiny": family})
    return family


def a_row(**settings):
    """A measured row."""
    given = {"family": "tiny", "bound": "b", "axis": "prune", "method": "m", "recipe": "{}", "outcome": "measured", **settings}
    return Row(**given)


def test_every_registered_method_has_a_row():
    """No method is listed anywhere else: a new one is measured by being registered."""
    changes = changes_of(AXES, epochs=3)
    methods = {axis: names for axis, names in known_methods().items() if axis != STUDENT}  # those are a task's own
    methods["compile.mode"] = registry("compile.mode").names()  # the matrix is of processors
    turned = {axis: {str(change.recipe[axis]) for change in changes if axis in change.recipe} for axis in methods}

    assert turned == {axis: set(names) - {LEFT_OUT.get(axis)} for axis, names in methods.items()}
    lowerings = {change.recipe.lowering for change in changes if change.axis == "lowering"}
    assert len(lowerings) == len(methods["quantize.dtype"]) * len(methods["compile.mode"]) - 1
    assert changes[0].recipe == UNTOUCHED


def test_what_trains_is_compared_with_the_same_training():
    """A change turns one knob; a training beside it is the control's."""
    for change in changes_of(AXES, epochs=3):
        if change.training is None:
            assert change.axis in {"untouched", "train", "prune", "lowering"}
        else:
            assert change.training.prefix == Recipe({"train.epochs": 3})
            assert change.training.lowering == change.recipe.lowering
            assert {name for name in change.recipe if change.recipe[name] != change.training.get(name)} != set()


def test_a_family_is_measured_as_a_search_would(tiny, tmp_path):
    """Accuracy with a paired interval, speed at both batch sizes, size; infeasible changes say why."""
    bench = FamilyBench(tiny, tmp_path / "stages", stop=lambda: False)
    changes = {(change.axis, change.method): change for change in changes_of(AXES, tiny.epochs)}
    untouched = bench.measure(changes["untouched", "untouched"])
    pruned = bench.measure(changes["recover", "structured"])
    unfit = bench.measure(changes["distill", "kl_sigmoid"])
    unreal = bench.measure(changes["lowering", "eager int8_dynamic"])
    none = bench.measure(changes["prune", "depth"])

    assert (len(bench.task.train_data), len(bench.task.validation_data)) == (300, 80)
    assert (untouched.change, untouched.speedup_1, untouched.size_ratio, untouched.train_seconds) == (0, 1, 1, 0)
    assert pruned.change_low <= pruned.change <= pruned.change_high
    assert pruned.gain_low <= pruned.gain <= pruned.gain_high
    assert pruned.speedup_32_low <= pruned.speedup_32 <= pruned.speedup_32_high
    assert pruned.size_ratio < 1
    assert pruned.train_seconds > 0
    assert (unfit.outcome, unreal.outcome, none.outcome) == ("infeasible",) * 3
    assert "multilabel" in unfit.reason
    assert "eager" in unreal.reason
    assert not any(row.accuracy for row in (unfit, unreal, none))


def test_a_fault_is_a_row_and_the_matrix_goes_on(tiny, tmp_path, monkeypatch):
    """An error that is no trial's own is told as a bug."""
    bench = FamilyBench(tiny, tmp_path / "stages", stop=lambda: False)
    monkeypatch.setattr(bench.pipeline, "measure", lambda recipe: 1 / 0)

    row = bench.measure(Change("train", "training alone", Recipe({"train.epochs": 1})))

    assert (row.outcome, row.reason) == ("bug", "ZeroDivisionError: division by zero")


def test_a_row_that_is_there_is_not_measured_again(tiny, tmp_path, monkeypatch, capsys):
    """A second run of the command measures what is missing alone; a spent budget names what is."""
    monkeypatch.setattr(sys, "argv", ["matrix.py", "--axes", "train", "--out", str(tmp_path), "--budget", "5m"])
    monkeypatch.setattr(matrix.importlib.util, "find_spec", lambda name: None)
    assert matrix.main() == 0
    first, told = (tmp_path / "rows.csv").read_text(), capsys.readouterr()
    assert matrix.main() == 0
    assert (tmp_path / "rows.csv").read_text() == first
    assert "train training alone: accuracy" in told.out
    assert "pip install matplotlib" in told.err
    assert "| train | training alone |" in (tmp_path / "matrix.md").read_text()

    monkeypatch.setattr(sys, "argv", ["matrix.py", "--axes", "train", "prune", "--out", str(tmp_path), "--budget", "0.001s"])
    capsys.readouterr()
    assert matrix.main() == 0
    assert "missing: tiny: the budget was spent before prune depth" in capsys.readouterr().err
    assert (tmp_path / "rows.csv").read_text() == first


def test_a_family_without_data_is_skipped_with_the_reason(tiny, tmp_path, monkeypatch, capsys):
    """The others go on."""
    missing = replace(families.FAMILIES["adult"], name="adult")
    monkeypatch.setattr(matrix, "FAMILIES", {"adult": missing, "tiny": tiny})
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    monkeypatch.setattr(matrix, "changes_of", lambda axes, epochs: changes_of([], epochs))
    monkeypatch.setattr(sys, "argv", ["matrix.py", "--no-timing", "--out", str(tmp_path)])
    monkeypatch.setattr(matrix.importlib.util, "find_spec", lambda name: None)

    assert matrix.main() == 0
    told = capsys.readouterr()

    assert "missing: adult: skipped, " in told.err
    assert "AUTOCUT_DATA must hold tab_adult/adult-train.csv" in told.err
    assert "tiny: untouched untouched: ready to be timed" in told.out
    assert read_rows(tmp_path / "rows.csv") == []


def test_rows_come_back_from_their_file(tmp_path):
    """A value that was not measured stays none; the same row is kept once."""
    file = RowFile(tmp_path / "rows.csv")
    rows = [a_row(accuracy=0.5, speedup_1=2.0), a_row(axis="lowering", outcome="infeasible", reason="no, it is\nnot")]
    for row in (*rows, rows[0]):
        file.add(row)

    assert read_rows(file.path) == rows
    assert list(RowFile(file.path).rows.values()) == rows


def test_a_table_says_points_factors_and_reasons(tiny):
    """A share of 1 has points, another metric its own unit; equal reasons have one number."""
    numbers = {"change": -0.01, "change_low": -0.02, "change_high": 0.0}
    speed = {f"speedup_{size}{end}": value for size in (1, 32) for end, value in (("", 2.0), ("_low", 1.9), ("_high", 2.1))}
    measured = a_row(bound=tiny.bound, accuracy=0.9, size_ratio=0.5, compressed_ratio=0.2, lower_seconds=3.0, **numbers, **speed)
    refused = [a_row(bound=tiny.bound, axis=axis, outcome="infeasible", reason="no kernel") for axis in ("lowering", "distill")]
    table = to_markdown([measured, *refused], {"tiny": tiny})

    assert (
        "| prune | m | -1.0 points (-2.0 to 0.0) |  | 2x (1.9 to 2.1) | 2x (1.9 to 2.1) | 0.50 (0.20 in an archive) | 3.0 |"
        in table
    )
    assert table.count("infeasible (1)") == 2
    assert table.rstrip().endswith("1. no kernel")
    assert "-0.01 (-0.02 to 0)" in to_words(replace(measured, accuracy=-3.0))


def test_the_picture_has_every_row(tiny, tmp_path):
    """It is drawn where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    from heat_map import draw

    rows = [
        a_row(bound=tiny.bound, axis="untouched", method="untouched", accuracy=0.9),
        a_row(
            bound=tiny.bound,
            accuracy=0.8,
            change=-0.1,
            change_low=-0.2,
            change_high=0.0,
            speedup_1=2.0,
            speedup_32=9.0,
            size_ratio=0.5,
        ),
        a_row(bound=tiny.bound, axis="lowering", outcome="infeasible", reason="no kernel"),
    ]
    draw(rows, {"tiny": tiny}, tmp_path / "matrix.png")

    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
