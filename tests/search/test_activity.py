"""What a user reads of the workers: a phrase each."""

from types import SimpleNamespace

import pytest

from autocut.measurement import Rung
from autocut.recipe import UNTOUCHED
from autocut.search.activity import doing
from autocut.search.jobs import Job, JobKind, Purpose, RungReached, StageRan, StageStarted, TrainingPaced
from autocut.search.planner import Planner
from autocut.search.progress import examples_line, headline, nothing_tried_line
from autocut.search.state import RunningJob
from autocut.search.timesheet import Timesheet

ORT = UNTOUCHED.with_lowering("fp32", "onnxruntime")


class Search:
    """One worker with one job, which begins at second 0."""

    def __init__(self, kind, purpose, *recipes, trials=()):
        self.job = Job(1, kind, recipes, 1000.0, "", trials=trials)
        self.running = RunningJob(self.job, purpose, 0.0, recipe=recipes[0], recipe_started=0.0)
        self.planner = Planner(1000, {})
        self.timesheet = Timesheet(1, 0.0)
        self.timesheet.begin(self.job, 0.0)

    def hear(self, event, now):
        """Take in an event."""
        self.timesheet.observe(self.job, event, now)

    def says(self, now):
        """What the user reads."""
        return doing(SimpleNamespace(running={1: self.running}, planner=self.planner), self.timesheet, now)


@pytest.fixture
def baseline():
    """A search that works on its untouched model."""
    return Search(JobKind.BASELINE, Purpose.BASELINE, UNTOUCHED)


def test_what_was_never_seen_before_is_told_with_the_time_so_far(baseline):
    """A guess would be a lie: a large model takes a hundred times what a small one takes."""
    assert baseline.says(3.0) == "baseline: preparing the untouched model, 3s so far"
    baseline.hear(StageStarted("accuracy", "fp32", "measuring", "key"), 4.0)
    assert baseline.says(16.0) == "baseline: scoring the untouched model, 12s so far"


def test_a_training_is_predicted_from_its_own_epochs(baseline):
    """Its first batches tell at first, then the epochs that it has ended: two of eight took 20 seconds."""
    baseline.hear(StageStarted("baseline", "train", "training", "key"), 5.0)
    assert baseline.says(15.0) == "baseline: training the untouched model, 10s so far"
    baseline.hear(TrainingPaced(80.0), 20.0)
    assert baseline.says(22.0) == "baseline: training the untouched model, about 1m18s left"
    for epoch in (1, 2):
        baseline.hear(RungReached(UNTOUCHED, Rung(epoch, 8, 0.5)), 5.0 + 10 * epoch)
    assert baseline.says(30.0) == "baseline: training the untouched model, epoch 3 of 8, about 55s left"


def test_a_stage_is_predicted_from_those_of_its_kind():
    """A timing says nothing about a compiler; a stage that takes longer than the others has no prediction."""
    search = Search(JobKind.MEASURE, Purpose.QUICK_LOWERINGS, ORT)
    search.planner.observe(StageRan("k", "compile", "int8/onnxruntime", 20.0, False, "compiling"))
    search.hear(StageStarted("compile", "fp32/onnxruntime", "compiling", "key"), 1.0)

    assert search.says(6.0) == "lowerings: onnxruntime, compiling fp32/onnxruntime, about 15s left"
    assert search.says(31.0) == "lowerings: onnxruntime, compiling fp32/onnxruntime, 30s so far"


def test_a_finalization_names_its_trial_its_step_and_its_end():
    """Once another one has shown how long it takes."""
    search = Search(JobKind.FINALIZE, Purpose.FINALIZATION, ORT, trials=(3,))
    search.hear(StageStarted("verifying", ""), 20.0)
    assert search.says(25.0) == "finalize: trial 3, verifying, 5s so far"
    search.planner.observe_finalization(45.0)
    assert search.says(25.0) == "finalize: trial 3, verifying, about 20s left"


def test_a_search_without_a_job_says_that_it_waits():
    """Ray's first process may take a while."""
    assert doing(SimpleNamespace(running={}), Timesheet(1, 0.0), 5.0) == "waiting for a worker"


@pytest.mark.parametrize(
    ("by_task", "by_flag", "told"),
    [
        (True, True, "real examples of the test split with their targets; --no-examples gives"),
        (True, False, "synthetic examples, no real ones (--no-examples)"),
        (False, True, "synthetic examples, no real ones (share_examples=False in the task)"),
    ],
)
def test_the_plan_says_whose_data_leaves_with_a_bundle(by_task, by_flag, told):
    """And what the user may type, or has decided already."""
    assert told in examples_line(by_task=by_task, by_flag=by_flag)


def test_dollars_of_the_whole_machine_are_no_dollars_of_one_process():
    """Both stand in the lines of one search, beside a speed that is always that of one process."""
    values = {"accuracy": 0.97, "usd_per_million": 0.003, "speedup": 8.4}

    assert headline(values) == "accuracy 0.9700, $0.00300 per million, 8.40x faster"
    assert headline({**values, "speedup": 0.4}).endswith("2.50x slower")
    assert headline(values, "on the whole machine") == (
        "accuracy 0.9700, $0.00300 per million on the whole machine, 8.40x faster as one process"
    )


def test_a_slower_model_is_called_slower():
    """0.5x faster is no English, and 1.00x faster is not faster."""
    assert headline({"accuracy": 0.97, "usd_per_million": 0.003, "speedup": 0.54}).endswith(", 1.85x slower")
    for speedup in (1.0, 1.004, 0.996):
        assert headline({"accuracy": 0.97, "usd_per_million": 0.003, "speedup": speedup}).endswith(", no faster")


def test_a_search_that_tried_nothing_says_how_much_time_it_had():
    """A resumed one, too short for one more trial."""
    told = nothing_tried_line(12.0, 29.0)

    assert told.startswith(
        "no new trial was finished: when the search could begin, 12s of the budget was left, and 12s of it is kept"
    )
    assert "a longer --budget goes on from here" in told
