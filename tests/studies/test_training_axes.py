"""The study of the training axes: its ways are recipes, and each has a row."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from autocut.recipe import Recipe

FOLDER = Path(__file__).parents[2] / "studies" / "training_axes"


def script(name):
    """A script of the study as a module."""
    spec = importlib.util.spec_from_file_location(f"training_axes_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measure():
    """The script that trains one cut in several ways."""
    return script("measure")


def test_every_way_is_a_training_of_its_own(measure):
    """No setting is without effect, and no two ways are one."""
    for _, ways in measure.COMPARISONS.values():
        recipes = [Recipe({"train.epochs": 2, **settings}) for settings in ways.values()]

        assert len(set(recipes)) == len(recipes)
        assert all(settings.items() <= recipe.items() for settings, recipe in zip(ways.values(), recipes, strict=True))


def test_each_way_has_a_row(measure, small_task_file, monkeypatch, capsys):
    """With the untouched model first; a training that spares examples says so."""
    monkeypatch.setattr(sys, "argv", ["measure", str(small_task_file.parent), "curriculum", "--epochs", "1", "--seeds", "2"])
    measure.main()
    rows = [line for line in capsys.readouterr().out.splitlines()[2:] if line]

    words = ["untouched", *measure.COMPARISONS["curriculum"][1]]
    assert [row[:28].strip() for row in rows] == words
    samples = {word: int(row.split()[-2]) for word, row in zip(words, rows, strict=True)}
    assert samples["plain"] > samples["linear random"] == samples["linear self_paced"] > samples["untouched"] == 0


def test_a_way_that_this_task_cannot_go_has_its_reason(measure, small_task_file, monkeypatch, capsys):
    """Only the ways that were asked for, from new weights of each seed."""
    asked = ["measure", str(small_task_file.parent), "growth", "--scratch", "--epochs", "1", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", [*asked, "--ways", "plain", "progressive_resizing"])
    measure.main()
    untouched, plain, resized = [line for line in capsys.readouterr().out.splitlines()[2:] if line]

    assert float(plain.split()[1]) < float(untouched.split()[1])
    assert resized.split()[:2] == ["progressive_resizing", "infeasible:"]


def test_each_cut_has_a_row_in_both_orders(small_task_file, monkeypatch, capsys):
    """And one without a training. What cannot be cut has its reason in each of its rows."""
    asked = ["order", str(small_task_file.parent), "--ratios", "0.00001", "0.5", "--epochs", "1", "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", asked)
    script("order").main()
    lines = capsys.readouterr().out.splitlines()
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ") and not line.startswith("| model"))

    training = "1 epoch lr x1 + distill kl T=4 alpha=0.5"
    for ratio in ("1e-05", "0.5"):
        cut = f"structured {ratio}"
        for words in (cut, f"{cut} + {training}", f"{training} + {cut} after training"):
            assert ("removes no channel" in rows.pop(words)) == (ratio == "1e-05")
    assert set(rows) == {"untouched", training}
    assert [line.partition(":")[0] for line in lines[-2:]] == [
        "all cuts, prune, train, 1 epoch",
        "all cuts, train, prune, 1 epoch",
    ]
