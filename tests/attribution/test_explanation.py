"""Explaining a trial of a real study: its stages were made here, in seconds."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict

import jsonschema
import pytest

from autocut import cli
from autocut.attribution import measuring
from autocut.attribution.explanation import explain_trial
from autocut.errors import StudyError
from autocut.measure.quiet import QuietLock
from autocut.measurement import COUNTED_CALL, EARLIER_COUNTED_CALL
from autocut.pipeline.opened_pipeline import open_pipeline
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.signing import sign_task
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.price import Price, price_for
from autocut.recipe import UNTOUCHED, Recipe
from autocut.schemas import schema
from autocut.score import values_of
from autocut.stages.libraries import library_versions
from autocut.study import create_study, open_study
from autocut.task.loading import load_task

TASK = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from autocut import Task

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


task = Task(
    name="small", model=Net, train=(images[:700], labels[:700]), validation=(images[700:1000], labels[700:1000]),
    test=(images[1000:1300], labels[1000:1300]), batch_size=64, epochs=4, serving_batch_sizes=(1, 8), pretrained=False,
)
"""
PRUNED = {"prune.method": "structured", "prune.ratio": 0.5}
RECIPE = Recipe({**PRUNED, "train.epochs": 2, "train.lr_scale": 1.0, "compile.mode": "onnxruntime"})


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Folder of a study with the untouched model (trial 0) and `RECIPE` (trial 1); nothing else was measured."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "task.py").write_text(TASK)
    task = load_task(str(folder / "task.py"))
    study = create_study(
        folder / "study", name="small", task_fingerprint=task.fingerprint, space_json="{}",
        objectives={"accuracy": "maximize", "usd_per_million": "minimize"}, seed=0,
    )  # fmt: skip
    pipeline = Pipeline(StageContext(task, StageCache(study.stages_dir), QuietLock()))
    price = price_for("c7i.large", None, 1.0)
    path = str(folder / "task.py")
    facts = {
        "task_path": path,
        "task_signature": sign_task(path, task.fingerprint),
        "threads": 1,
        "counted_call": COUNTED_CALL,
        "price": asdict(price),
        "libraries": dict(library_versions()),
    }
    study.describe({**facts, "untouched_epochs": 4, "baseline_train_seconds": 1.0})
    for recipe in (UNTOUCHED, RECIPE):
        measured = pipeline.measure(recipe)
        if recipe == UNTOUCHED:
            study.set_reference(measured.measurement.cost)
        values = values_of(measured.measurement, study.reference, Price(**asdict(price)), measured.train_seconds)
        study.complete(None, recipe, {}, {}, values, measured.measurement, extras={"train_seconds": measured.train_seconds})
    study.close()
    return folder / "study"


@pytest.fixture
def study(searched, tmp_path):
    """A copy, in which a test may measure."""
    return shutil.copytree(searched, tmp_path / "study")


def test_the_ladder_is_measured_from_the_stages_and_kept(study, monkeypatch):
    """The second time nothing is opened, and the trials of the study stay as they are."""
    first = explain_trial(study, 1, budget_s=60)

    assert [step.name for step in first.ladder.steps] == ["structured 0.5", "2 epochs lr x1", "onnxruntime"]
    assert first.missing == {}
    assert all(effect.is_paired for step in first.ladder.steps for effect in (step.effect, step.apart))
    assert first.ladder.longer_training is not None
    monkeypatch.setattr(measuring, "open_pipeline", lambda *_: pytest.fail("opened"))
    assert explain_trial(study, 1, budget_s=60) == first
    assert explain_trial(study, 1, budget_s=None).ladder == first.ladder
    assert [point.recipe for point in open_study(study).points()] == [UNTOUCHED, RECIPE]


def test_an_epoch_is_timed_without_the_training_of_the_untouched_model(study):
    """That is a part of what a recipe takes to train, unless it starts from scratch."""
    with contextlib.closing(open_study(study)) as opened:
        values, measurement = opened.points()[1].values, opened.points()[1].measurement
    writable = create_study(
        study.parent / "other", name="small", task_fingerprint="t", space_json="{}", objectives=opened.objectives, seed=0
    )
    with contextlib.closing(writable):
        writable.describe({"baseline_train_seconds": 100.0, "untouched_epochs": 10})
        assert measuring._seconds_an_epoch(writable) == 10.0
        for settings, seconds in (({}, 102.0), ({"train.start": "scratch"}, 6.0), ({"train.lr_scale": 2.0}, 108.0)):
            recipe = Recipe({"train.epochs": 2, **settings})
            writable.complete(None, recipe, {}, {}, values, measurement, extras={"train_seconds": seconds})

        assert measuring._seconds_an_epoch(writable) == 3.0


def test_a_training_that_does_not_fit_is_missing_with_its_reason(study, monkeypatch):
    """What is cheap is measured all the same, and more time measures the rest."""
    monkeypatch.setattr(measuring, "_seconds_an_epoch", lambda _: 100.0)
    short = explain_trial(study, 1, budget_s=60)

    assert list(short.missing) == [Recipe({"train.epochs": 2, "train.lr_scale": 1.0})]
    assert "needs a training of about 3m20s, and" in next(iter(short.missing.values()))
    assert len(short.ladder.steps) == 3
    assert (short.ladder.apart, short.ladder.longer_training) == (None, None)
    monkeypatch.undo()
    assert explain_trial(study, 1, budget_s=60).missing == {}


def test_a_study_that_was_timed_by_an_earlier_rule_gets_no_steps_of_another(study, monkeypatch):
    """A small model was a fifth slower by it: the step would look like a gain."""
    monkeypatch.setattr(measuring, "open_pipeline", lambda *_: pytest.fail("opened"))
    with contextlib.closing(open_study(study)) as opened:
        opened.describe({"counted_call": EARLIER_COUNTED_CALL})
    explanation = explain_trial(study, 1, budget_s=60)

    assert len(explanation.ladder.steps) == 1
    assert all("would not compare" in reason for reason in explanation.missing.values())
    assert explanation.missing


def test_what_needs_no_training_comes_first(study):
    """A training may take all of the time."""
    told = []
    explain_trial(study, 1, budget_s=60, tell=told.append)
    measured = [one.removeprefix("measuring ") for one in told if one.startswith("measuring ")]

    assert measured == ["structured 0.5", "structured 0.5 + 2 epochs lr x1", "onnxruntime", "2 epochs lr x1"]


def test_nothing_is_measured_when_nobody_wants_it(study, monkeypatch):
    """The task may be gone; the step then turns all knobs."""
    monkeypatch.setattr(measuring, "open_pipeline", lambda *_: pytest.fail("opened"))
    explanation = explain_trial(study, 1, budget_s=None)

    assert [step.name for step in explanation.ladder.steps] == ["structured 0.5 + 2 epochs lr x1 + onnxruntime"]
    assert set(explanation.missing.values()) == {"it was not measured yet"}


def test_a_spent_budget_measures_nothing(study):
    """It is a reason of its own, and is not kept."""
    assert set(explain_trial(study, 1, budget_s=0).missing.values()) == {"the time of --budget was up before"}
    assert open_study(study).rungs.all() == []


def test_a_rung_that_cannot_be_is_not_tried_again(study, monkeypatch):
    """Its reason is kept, and the ladder goes over it."""
    opened = open_study(study)
    opened.rungs.refuse(Recipe(PRUNED), "no layer to prune")
    opened.close()
    explanation = explain_trial(study, 1, budget_s=60)

    assert explanation.missing == {Recipe(PRUNED): "no layer to prune"}
    assert explanation.ladder.steps[0].name == "structured 0.5 + 2 epochs lr x1"


def test_the_weights_of_the_untouched_model_are_not_made_again(study):
    """Others would not be those that were measured."""
    for entry in (study / "stages/entries").iterdir():
        if json.loads((entry / "entry.json").read_text())["stage"] == "baseline":
            shutil.rmtree(entry)
    reasons = set(explain_trial(study, 1, budget_s=60).missing.values())

    assert reasons == {f"the untouched model is gone from the stages of {study}"}


def test_a_task_that_has_changed_is_refused_only_where_it_is_needed(study, tmp_path):
    """Its stages would be made anew, by another model."""
    changed = tmp_path / "task.py"
    changed.write_text(TASK.replace("nn.ReLU()", "nn.Tanh()", 1))
    opened = open_study(study)
    opened.describe({"task_path": str(changed), "task_signature": sign_task(str(changed), opened.task_fingerprint)})
    opened.close()

    with pytest.raises(StudyError, match="made for another version of task 'small'"):
        explain_trial(study, 1, budget_s=60)
    assert explain_trial(study, 1, budget_s=None).ladder.steps


def test_slow_scores_of_the_search_are_found_again(study):
    """The drop that the search allowed is part of their key."""
    opened = open_study(study)
    scoring = {"examples": 100, "of": 300, "seconds_each": 1.0}
    opened.describe({"max_accuracy_drop": 0.05, "baseline": {"value": -20.0, "low": -21.0, "high": -19.0}, "scoring": scoring})
    context = open_pipeline(opened, []).runner.context
    opened.close()

    assert context.max_drop == pytest.approx(1.0)
    assert (context.scoring.examples, context.untouched_epochs, context.threads) == (100, 4, 1)


def test_a_study_is_opened_with_the_device_that_trained_it(study):
    """Its keys find the stages; a machine without a GPU reads them all the same."""
    opened = open_study(study)
    earlier = open_pipeline(opened, []).runner.context.device
    opened.describe({"train_on": "cuda"})
    context = open_pipeline(opened, []).runner.context
    opened.close()

    assert (earlier.kind, context.device.kind) == ("cpu", "cuda")


def test_a_failed_trial_of_the_search_is_a_reason(study):
    """It failed once for what it is."""
    opened = open_study(study)
    opened.fail(None, Recipe(PRUNED), {}, {}, "infeasible: no layer to prune")
    opened.close()

    assert explain_trial(study, 1, budget_s=None).missing[Recipe(PRUNED)] == "infeasible: no layer to prune"


@pytest.mark.parametrize(("trial", "message"), [(7, r"finished trial of .* \(0 to 2\), got 7"), (2, "which ended so: diverged")])
def test_only_a_measured_trial_is_explained(study, trial, message):
    """The error names what there is."""
    opened = open_study(study)
    opened.fail(None, Recipe(PRUNED), {}, {}, "diverged: NaN")
    opened.close()

    with pytest.raises(StudyError, match=message):
        explain_trial(study, trial, budget_s=None)


def test_the_verb_prints_a_table_sentences_and_what_is_missing(study, capsys):
    """For a person."""
    assert cli.main(["explain", str(study), "1", "--no-measure"]) == 0
    printed = capsys.readouterr()

    assert printed.out.startswith("step")
    assert "compared with the untouched model, as one process: " in printed.out
    assert "it was not measured yet" in printed.out
    assert printed.err.splitlines() == [
        f"measure it: autocut explain {study} 1", "importance needs at least 20 measured trials within the limits, got 2"
    ]  # fmt: skip


@pytest.mark.parametrize(("trial", "words"), [("0", ["--no-measure"]), ("1", []), ("1", ["--no-measure"])])
def test_the_verb_prints_one_document(study, capsys, trial, words):
    """It fits its schema, whatever is missing."""
    assert cli.main(["explain", str(study), trial, "--json", *words]) == 0
    document = json.loads(capsys.readouterr().out)

    jsonschema.validate(document, schema("explain"))
    assert (document["whole"] is None) == (trial == "0")


def test_the_untouched_model_needs_no_explanation(study, capsys):
    """That is an answer, not an error."""
    assert cli.main(["explain", str(study), "0"]) == 0
    assert capsys.readouterr().out == ("Trial 0 is the untouched model, so there is nothing to explain.\n")
