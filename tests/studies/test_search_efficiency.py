"""The replay benchmark: recorded answers, the real agent, simulated time."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict

import numpy as np
import pytest

from autocut.measurement import Accuracy, Cost, Interval, Latency
from autocut.recipe import Recipe
from autocut.space import SpaceFile, every_recipe, parse_space
from autocut.stages.methods import known_methods

from .conftest import ROOT

STUDY = ROOT / "studies" / "search_efficiency"
GRAPHS = {"fp32/eager": "fp32", "fp32/onnxruntime": "fp32", "int8_static/onnxruntime": "int8 ort"}
SPEED = {"fp32/eager": 1.0, "fp32/onnxruntime": 2.0, "int8_static/onnxruntime": 4.0}
SPACE = """
schema_version = 1
[objectives]
accuracy = "maximize"
usd_per_million = "minimize"
size_bytes = "minimize"
[axes."prune.method"]
choices = ["none", "structured"]
[axes."prune.ratio"]
choices = [0.3, 0.5, 0.7]
when."prune.method" = ["structured"]
[axes."train.epochs"]
choices = [0, 2, 4]
[axes."train.lr_scale"]
choices = [0.3, 1.0]
when."train.epochs" = [2, 4]
[axes."quantize.dtype"]
choices = ["fp32", "int8_static"]
[axes."compile.mode"]
choices = ["eager", "onnxruntime"]
"""


@pytest.fixture
def study(monkeypatch):
    """Import a module of the study by its name."""
    monkeypatch.syspath_prepend(str(STUDY))
    names = ("table", "world", "mo_asha", "strategies", "replay", "record", "confirm")
    for name in names:
        sys.modules.pop(name, None)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def near(value):
    """An interval around a value."""
    return Interval(value, value - 0.01, value + 0.01)


def prefix_record(recipe):
    """A prefix whose accuracy falls with the ratio and comes back with training."""
    ratio, epochs = recipe.get("prune.ratio", 0.0), recipe["train.epochs"]
    end = 0.98 - 0.4 * ratio**2 / (1 + epochs * recipe.get("train.lr_scale", 0.0))
    accuracies = {"fp32": end, "int8 ort": end - 0.004}
    return {
        "recipe": dict(recipe),
        "structure": f"pruned {ratio}",
        "train_seconds": 3.0 * epochs,
        "samples_seen": 1000 * epochs,
        "prune_s": 0.1,
        "train_s": 3.0 * epochs,
        "rungs": [[epoch, end - 0.05 * (epochs - epoch)] for epoch in range(1, epochs + 1)],
        "accuracies": {graph: asdict(Accuracy("validation", 360, near(value))) for graph, value in accuracies.items()},
        "seconds": {f"accuracy {graph}": 0.1 for graph in accuracies} | {"quantize fp32": 0.5},
        "failed": {},
    }


def structure_record(ratio):
    """Costs of one structure under every lowering."""
    costs = {}
    for lowering, speed in SPEED.items():
        faster = speed / (1 - ratio)
        latency = Latency(32, 64, near(10 / faster), None, None, 10.0, near(faster), 1.0)
        size = int(1e6 * (1 - ratio) / (4 if "int8" in lowering else 1))
        costs[lowering] = {"cost": asdict(Cost((latency,), size, size, 1, 5.0, "made up")), "compile_s": 1.0, "measure_s": 1.0}
    return costs


@pytest.fixture
def contest(study):
    """A small made-up table with its space, and a budget that is too short for all of it."""
    space = parse_space(SpaceFile("small", SPACE, "small.toml"), known_methods())
    prefixes = dict.fromkeys(recipe.prefix for recipe in every_recipe(space))
    document = {
        "schema_version": 1,
        "task": "made-up",
        "space": SPACE,
        "graphs": GRAPHS,
        "priors": dict.fromkeys(GRAPHS, 2.0),
        "train_samples": 1000,
        "shared_s": {"baseline": 5.0, "teacher": 0.5, "difficulty": 0.1},
        "structures": {f"pruned {ratio}": structure_record(ratio) for ratio in (0.0, 0.3, 0.5, 0.7)},
        "prefixes": [prefix_record(prefix) for prefix in prefixes],
    }
    return study("strategies").Contest(study("table").Table(document), space, 200.0)


def test_a_table_survives_the_file(study, contest, tmp_path):
    """The same table gives the same bytes, and reads back equal."""
    table = study("table")
    table.write(contest.table.document, tmp_path / "a.json.gz")
    table.write(contest.table.document, tmp_path / "b.json.gz")

    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert table.read(tmp_path / "a.json.gz").measured(Recipe()) == contest.table.measured(Recipe())


def test_the_agent_keeps_the_budget_of_a_replay_and_repeats_itself(study, contest):
    """The real agent, a recorded machine: the same seed gives the same run."""
    replay, ours = study("replay"), study("strategies").STRATEGIES["autocut"]
    first, second = (replay.replay(contest, ours, seed=1, goal=replay.best_of(contest)) for _ in range(2))

    assert first.volumes == second.volumes
    assert 0.5 < first.volumes[-1] <= 1.0
    assert np.all(np.diff(first.volumes) >= 0)


def test_what_is_not_reused_is_paid_again(study, contest):
    """The stage cache is the only difference between the two rows."""
    replay, strategies = study("replay"), study("strategies").STRATEGIES
    goal = replay.best_of(contest)
    reused = replay.replay(contest, strategies["tpe, with our stage cache"], 0, goal)
    repeated = replay.replay(contest, strategies["optuna tpe, nothing reused"], 0, goal)

    assert reused.recipes > repeated.recipes


@pytest.mark.parametrize(
    "name", ["autocut", "autocut without stage cache", "autocut, MO-ASHA's stopping rule", "random, with our stage cache"]
)
def test_the_whole_table_is_the_goal(study, contest, name):
    """A strategy reaches at most the recorded front."""
    replay = study("replay")
    run = replay.replay(contest, study("strategies").STRATEGIES[name], 0, replay.best_of(contest))

    assert 0 < run.volumes[-1] <= 1.0 + 1e-9


def test_how_soon_one_is_where_another_ends(study):
    """A run that never gets there is not counted as slow, but as never."""
    replay = study("replay")
    volumes = tuple(np.linspace(0, 1, replay.GRID))
    run = replay.Run("autocut", 0, volumes, 1, 1, {}, 0.0)

    assert replay.reach(run, 0.5) == pytest.approx(0.5, abs=0.01)
    assert replay.reach(run, 2.0) == float("inf")


def test_a_training_behind_two_thirds_of_the_others_is_stopped_by_rank(study):
    """Layers of non-domination: what is cheaper, or better, than anybody is in the first."""
    is_in_best_third = study("mo_asha")._is_in_best_third
    others = np.array([[-0.9, 1.0], [-0.8, 2.0], [-0.7, 3.0], [-0.6, 4.0]])

    assert is_in_best_third(others, np.array([-0.95, 5.0]))
    assert is_in_best_third(others, np.array([-0.1, 0.5]))
    assert not is_in_best_third(others, np.array([-0.5, 5.0]))


def test_a_real_search_counts_from_its_own_untouched_model(study):
    """What was measured before, or adds nothing, does not move the curve; who never gets there is never there."""
    confirm = study("confirm")
    values = {"accuracy": 0.9, "usd_per_million": 1.0, "size_bytes": 100.0}
    faster = {"accuracy": 0.9, "usd_per_million": 0.5, "size_bytes": 50.0}
    found = [confirm.Found(1.0, True, values), confirm.Found(2.0, False, faster), confirm.Found(3.0, False, faster)]
    objectives = {"accuracy": "maximize", "usd_per_million": "minimize", "size_bytes": "minimize"}
    grown = confirm.volumes(found, objectives, goal=1.0)
    search = confirm.Search("autocut", 0, 3.0, 3, 1, grown)

    assert [at for at, _ in grown] == [1.0, 2.0]
    assert search.end == pytest.approx(np.log(2) ** 2, abs=1e-4)
    assert search.reaches(search.end) == 2.0
    assert search.reaches(9.0) == float("inf")
