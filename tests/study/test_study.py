"""Trials: writing, reading, and what a killed process leaves."""

from __future__ import annotations

import datetime as dt
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from autocut.errors import DivergedError, StudyError
from autocut.recipe import Recipe
from autocut.study import open_study, telling

RECIPE = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
VALUES = {"accuracy": 0.9, "usd_per_million": 0.1, "latency_ms": 1.0}
VERIFIED = {"bundle": None, "bundle_sha256": "ab", "verified": True}
REFUSED = {"bundle": None, "bundle_sha256": None, "verified": False, "refusal": "accuracy differs"}

_WRITE_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import DISTRIBUTIONS, OBJECTIVES
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.study import create_study
study = create_study(Path(sys.argv[1]), name="digits", task_fingerprint="t1", space_json="{}", objectives=OBJECTIVES, seed=0)
session = study.begin_session("autocut search", {})
one = Interval(1.0, 1.0, 1.0)
cost = Cost((Latency(1, 64, one, None, None, 1.0, one, 1.0),), 1, 1, 1, 1.0, "m")
measurement = Measurement(Accuracy("validation", 4, Interval(0.9, 0.8, 1.0)), cost)
for step in itertools.count(1):
    trial = study.optuna.ask() if step % 2 else None
    params = {} if trial else {"prune.ratio": 0.5, "quantize.dtype": "fp32"}
    recipe = Recipe({"prune.method": "structured", "prune.ratio": step})
    distributions = {} if trial else DISTRIBUTIONS
    study.complete(trial, recipe, params, distributions, {"accuracy": 0.9, "usd_per_million": 1.0}, measurement)
    session.beat(float(step))
    print(step, flush=True)
"""


def test_a_sibling_is_a_whole_optuna_trial(make_study, complete):
    """Params, values in the order of the objectives, sortable attributes, and the recipe."""
    study = make_study()
    number = complete(study, 0.5, 0.9, 0.1, curve=[0.5, 0.8], extras={"samples_seen": 1200})

    trial = study.optuna.trials[number]
    assert trial.state is TrialState.COMPLETE
    assert trial.values == [0.9, 0.1]
    assert trial.params == {"prune.ratio": 0.5, "quantize.dtype": "fp32"}
    assert trial.user_attrs["latency_ms"] == 1.0
    assert trial.user_attrs["samples_seen"] == 1200
    assert trial.user_attrs["fingerprint"] == RECIPE.fingerprint
    assert study.optuna.metric_names == ["accuracy", "usd_per_million"]


def test_a_trial_that_was_asked_for_keeps_its_number(make_study, make_measurement):
    """The sampler learns from the trial that it proposed."""
    study = make_study()
    asked = study.optuna.ask()
    asked.suggest_float("prune.ratio", 0.0, 0.9)

    assert study.complete(asked, RECIPE, {}, {}, VALUES, make_measurement(0.9, 1.0), {"latency_ms<=5": -4.0}) == asked.number
    assert study.optuna.trials[asked.number].values == [0.9, 0.1]


def test_a_sibling_has_its_time_on_the_timeline(make_study, complete):
    """Optuna did not create the trial, so only its worker knows when it began."""
    study = make_study()
    number = complete(study, 0.5, 0.9, 0.1, started=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=90))

    assert 89 < study.optuna.trials[number].duration.total_seconds() < 100


@pytest.mark.parametrize("asked", [True, False])
def test_constraints_are_written_for_optuna_and_for_the_dashboard(make_study, make_measurement, asked):
    """Optuna 5 and optuna-dashboard 0.21 read different keys, so both must be written."""
    study = make_study()
    trial = study.optuna.ask() if asked else None
    number = study.complete(trial, RECIPE, {}, {}, VALUES, make_measurement(0.9, 1.0), {"latency_ms<=0.5": 0.5})

    frozen = study.optuna.trials[number]
    assert frozen.constraints["latency_ms<=0.5"] == 0.5
    assert frozen.system_attrs["constraints"] == [0.5]
    assert study.optuna.best_trials == []
    assert study.front() == []
    assert [point.trial for point in study.points()] == [number]


def test_everything_is_read_back_by_another_process(make_study, complete, make_measurement):
    """A reader gets the same records as the writer has in memory."""
    study = make_study()
    complete(study, 0.2, 0.95, 0.5, is_baseline=True, curve=[0.1, 0.95], extras={"samples_seen": 3}, constraints={"a<=1": -0.5})
    complete(study, 0.6, 0.9, 0.1)
    study.fail(None, RECIPE, {}, {}, "no kernel for int8_static in eager")
    study.record_final(
        1, make_measurement(0.89, 1.0, "test"), VALUES, bundle=study.folder / "bundles" / "1", bundle_sha256="ab", verified=True
    )

    reader = open_study(study.folder)
    assert reader.trials() == study.trials()
    assert reader.finals() == study.finals()
    assert reader.points() == study.points()
    assert reader.results() == study.results()
    reader.close()


def test_a_value_that_is_not_finite_writes_nothing(make_study, make_measurement):
    """A NaN on the front could neither beat nor be beaten."""
    study = make_study()
    with pytest.raises(DivergedError, match="usd_per_million must be a finite number, got nan"):
        study.complete(None, RECIPE, {}, {}, VALUES | {"usd_per_million": math.nan}, make_measurement(0.9, 1.0))

    assert study.optuna.trials == []


@pytest.mark.parametrize("state", ["FAIL", "PRUNED"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_trial_that_ended_early_keeps_its_reason(make_study, state, asked):
    """The dashboard has the reason, and the sampler still works."""
    study = make_study()
    trial = study.optuna.ask() if asked else None
    number = study.fail(trial, RECIPE, {}, {}, "beaten at epoch 2", state, curve=[0.2, 0.3])

    frozen = study.optuna.trials[number]
    assert (frozen.state.name, frozen.user_attrs["reason"], frozen.intermediate_values) == (state, "beaten at epoch 2", {})
    assert study.trials()[0].curve == (0.2, 0.3)
    assert list(study.results()) == [RECIPE]


def test_the_sampler_survives_early_stopped_trials(make_study, complete):
    """With intermediate values, every later `ask` would raise in Optuna 5.0.0."""
    study = make_study()
    study.optuna.sampler = optuna.samplers.TPESampler(n_startup_trials=2, seed=0)
    for step in range(4):
        complete(study, step / 10, 0.9 - step / 10, 1.0 - step / 10)
        asked = study.optuna.ask()
        asked.suggest_float("prune.ratio", 0.0, 0.9)
        study.fail(asked, None, {}, {}, "stopped", "PRUNED", curve=[0.1])

    assert 0.0 <= study.optuna.ask().suggest_float("prune.ratio", 0.0, 0.9) <= 0.9


def test_interrupted_trials_are_found_and_may_run_again(make_study):
    """A killed search leaves RUNNING trials; their recipes have no result."""
    study = make_study()
    asked = study.optuna.ask()
    asked.suggest_float("prune.ratio", 0.0, 0.9)
    study.close()

    study = make_study()
    (left,) = study.running()
    assert left.params == asked.params
    study.fail(left, RECIPE, {}, {}, "interrupted", retry=True)
    assert study.running() == []
    assert study.results() == {}


def test_the_last_trial_of_a_recipe_counts(make_study):
    """A training that was stopped early may go on later. If that is interrupted, the recipe has no result."""
    study = make_study()
    study.fail(None, RECIPE, {}, {}, "stopped", "PRUNED", curve=[0.1])
    assert study.results()[RECIPE].state == "PRUNED"

    study.fail(None, RECIPE, {}, {}, "interrupted", retry=True)
    assert study.results() == {}


def test_a_measurement_without_its_trial_is_ignored(make_study, make_measurement, monkeypatch):
    """If the process is killed between our row and Optuna's, readers ignore our row, and the trial can run again."""
    study = make_study()
    monkeypatch.setattr(telling, "end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        study.complete(None, RECIPE, {}, {}, VALUES, make_measurement(0.9, 1.0))
    monkeypatch.undo()
    study.reload()

    assert study.points() == []
    assert study.complete(None, RECIPE, {}, {}, VALUES, make_measurement(0.9, 1.0)) == 0
    assert len(open_study(study.folder).points()) == 1


def test_a_completed_trial_of_another_program_is_ignored(make_study):
    """A trial that a user adds with Optuna has no measurement of ours."""
    study = make_study()
    study.optuna.add_trial(optuna.trial.create_trial(values=[1.0, 0.0]))
    study.reload()

    assert study.points() == []


def test_kill_9_leaves_only_whole_trials(tmp_path, make_study):
    """Every trial that was announced is complete and has its measurement; there is no incomplete one."""
    arguments = [sys.executable, "-c", _WRITE_UNTIL_KILLED, str(tmp_path / "digits"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        announced = 0
        while announced < 12:
            announced = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        announced = max([announced, *map(int, writer.stdout.read().split())])

    study = make_study()
    complete = [trial for trial in study.optuna.trials if trial.state is TrialState.COMPLETE]
    assert len(study.points()) == len(complete)
    assert announced <= len(complete) <= announced + 1
    assert announced <= study.spent_s() <= announced + 1


def test_the_front_keeps_what_nothing_beats(make_study, complete):
    """Higher accuracy or lower price; baselines take part and are marked."""
    study = make_study()
    complete(study, 0.0, 0.95, 1.0, is_baseline=True)
    complete(study, 0.3, 0.94, 0.5)
    complete(study, 0.5, 0.90, 0.6)
    complete(study, 0.7, 0.80, 0.1)

    assert {point.trial: point.is_baseline for point in study.front()} == {0: True, 1: False, 3: False}


def test_a_refused_bundle_stays_off_the_front(make_study, complete, make_measurement):
    """A refused trial is not offered, and the trials that it had beaten come back."""
    study = make_study()
    complete(study, 0.3, 0.94, 0.5)
    complete(study, 0.5, 0.90, 0.6)
    study.record_final(
        0, make_measurement(0.2, 5.0, "test"), VALUES, bundle=None, bundle_sha256=None, verified=False, refusal="accuracy differs"
    )

    assert [point.trial for point in study.front()] == [1]
    assert study.points()[0].bundle is None


def test_the_test_split_reports_and_does_not_choose(make_study, complete, make_measurement):
    """A point that is ahead on validation stays on the front, whatever the locked test split says; its numbers stand beside."""
    study = make_study()
    complete(study, 0.3, 0.94, 0.5)
    complete(study, 0.5, 0.93, 0.4)
    complete(study, 0.7, 0.80, 0.1)
    for number, accuracy, price in ((0, 0.90, 0.5), (1, 0.91, 0.4)):
        values = {"accuracy": accuracy, "usd_per_million": price}
        measurement = make_measurement(accuracy, 5.0, "test")
        study.record_final(number, measurement, values, **VERIFIED | {"bundle": study.folder / "bundles" / str(number)})

    front = {point.trial: point for point in study.front()}
    assert set(front) == {0, 1, 2}
    assert (front[0].values["accuracy"], front[0].final.values["accuracy"]) == (0.94, 0.90)
    assert {front[number].measurement.accuracy.split for number in front} == {"validation"}
    assert front[1].tested.measurement.accuracy.split == "test"
    assert front[1].shrinkage == pytest.approx(-0.02)
    assert front[1].bundle == str(study.folder / "bundles" / "1")
    assert (front[2].final, front[2].tested, front[2].shrinkage) == (None, None, None)


def test_a_point_that_is_beaten_on_validation_is_not_brought_back_by_the_test_split(make_study, complete, make_measurement):
    """The best of many test numbers would look better than it is."""
    study = make_study()
    complete(study, 0.0, 0.95, 1.0, is_baseline=True)
    complete(study, 0.3, 0.96, 0.5)
    for number, accuracy, price in ((0, 0.95, 1.0), (1, 0.94, 0.5)):
        values = {"accuracy": accuracy, "usd_per_million": price}
        study.record_final(number, make_measurement(accuracy, 5.0, "test"), values, **VERIFIED)

    assert [point.trial for point in study.front()] == [1]


def test_a_trial_that_was_refused_before_its_test_has_no_test_numbers(make_study, complete, make_measurement):
    """Its final record has the numbers of the search."""
    study = make_study()
    complete(study, 0.3, 0.94, 0.5)
    study.record_final(0, make_measurement(0.94, 5.0), VALUES, **REFUSED)

    (point,) = study.points()
    assert (point.final.verified, point.tested, point.shrinkage) == (False, None, None)
    assert "test_accuracy" not in study.to_frame()


def test_a_final_of_no_trial_is_refused(make_study, make_measurement):
    """A final record needs its trial."""
    with pytest.raises(StudyError, match="no finished trial 7"):
        make_study().record_final(7, make_measurement(0.9, 1.0), VALUES, **REFUSED)


def test_the_reference_cost_is_kept(make_study, make_measurement):
    """It makes latencies of different hours comparable, so a resumed search needs it."""
    study = make_study()
    assert study.reference is None
    study.set_reference(make_measurement(0.9, 1.0).cost)

    assert open_study(study.folder).reference == make_measurement(0.9, 1.0).cost


def test_facts_are_study_attributes(make_study):
    """The dashboard shows them on the study's page."""
    study = make_study(description={"machine": "two cores", "task": "digits"})
    study.describe({"budget_left_s": 12.5})

    assert study.facts == {"machine": "two cores", "task": "digits", "budget_left_s": 12.5}
    assert study.optuna.user_attrs == study.facts


def test_the_frame_is_flat(make_study, complete, make_measurement):
    """One row for each trial and plain columns, ready for CSV; no column has numbers of two splits."""
    study = make_study()
    complete(study, 0.3, 0.94, 0.5)
    study.record_final(0, make_measurement(0.91, 5.0, "test"), VALUES, **VERIFIED)
    study.fail(None, Recipe({"quantize.dtype": "float8"}), {}, {}, "no float8 on this machine")

    frame = study.to_frame()
    assert frame["state"].tolist() == ["COMPLETE", "FAIL"]
    assert frame["recipe.prune.ratio"].tolist()[0] == 0.3
    assert frame["reason"].tolist()[1] == "no float8 on this machine"
    assert frame["batch_32_p50_ms"].tolist()[0] == 5.0
    assert frame["accuracy"].tolist()[0] == 0.94
    assert frame["test_accuracy"].tolist()[0] == 0.91
    assert frame["final_usd_per_million"].tolist()[0] == VALUES["usd_per_million"]
    assert frame.to_csv(index=False).count("\n") == 3


def test_an_empty_study_has_an_empty_frame(make_study):
    """`autocut front --csv` of a study that has just begun prints a header."""
    assert len(make_study().to_frame()) == 0


def test_a_full_disk_is_reported_in_words(make_study, complete):
    """SQLite's page limit takes the place of a full disk."""
    study = make_study()
    with study._engine.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    study._engine.dispose()
    original = study._engine.pool._creator

    def limited(*arguments):
        connection = original(*arguments)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    study._engine.pool._creator = limited
    with pytest.raises(StudyError, match="cannot be written: database or disk is full") as refusal:
        [complete(study, step / 100, 0.9, 0.1) for step in range(50)]
    assert "finished work is kept" in refusal.value.hint


def test_a_search_takes_in_what_another_one_has_added(make_study, complete, make_measurement):
    """Its trials, what finalization found of them, and the seconds that the study has worked by then."""
    first = make_study()
    session = first.begin_session("autocut search", {})
    first.lock.end_turn()
    second = make_study()
    second.begin_session("autocut search", {})
    second.lock.end_turn()
    own = complete(second, 0.3, 0.95, 0.2)
    number = complete(first, 0.5, 0.9, 0.1)
    session.beat(100.0)
    found = second.refresh()

    assert list(found.trials) == [number]
    assert found.finals == {}
    assert [point.trial for point in second.front()] == [own, number]
    assert second.refresh().trials == {}
    tested, values = make_measurement(0.9, 1.0, "test"), {"accuracy": 0.9, "usd_per_million": 0.1}
    first.record_final(number, tested, values, bundle=None, bundle_sha256=None, verified=False, refusal="no")
    assert list(second.refresh().finals) == [number]
    assert second.refresh().finals == {}
    late = complete(second, 0.6, 0.8, 0.05)
    assert next(trial for trial in second.trials() if trial.trial == late).measured.worked_s == pytest.approx(100.0)
