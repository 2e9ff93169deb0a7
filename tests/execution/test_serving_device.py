"""Where a search serves: what is refused before it starts, what the user is told, and what workers do."""

import textwrap
import time
from dataclasses import replace

import pytest
import torch

from autocut.config import SearchConfig
from autocut.errors import InputError, StudyError, TaskError
from autocut.execution import training_device
from autocut.execution.conditions import check_same_conditions
from autocut.execution.preflight import preflight
from autocut.execution.training_device import FoundGpu, placed
from autocut.execution.tried_devices import require_serving_on
from autocut.execution.worker import run_job
from autocut.measure import allocator
from autocut.measurement import COUNTED_CALL
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import BaselineReady, Job, JobKind, RecipeFailed, RecipeMeasured, Setting, WorkerFault
from autocut.stages.device import CPU, Device
from autocut.study import open_study
from autocut.task.loading import load_task
from tests import second_device
from tests.execution.test_training_device import LEFT_BEHIND, study_copy  # noqa: F401 -- a fixture

SECOND = Device(second_device.KIND)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def config(**changes):
    """The configuration of a search that is to serve on a GPU of one's own."""
    return replace(SearchConfig(None, 60.0, serve_on="cuda", price_per_hour=4.0), **changes)


@pytest.fixture
def gpu(monkeypatch):
    """Say what is found when somebody looks."""

    def say(**found):
        monkeypatch.setattr(training_device, "find_gpu", lambda: FoundGpu(**found))

    return say


def test_serving_without_a_gpu_is_refused_with_the_reason(gpu):
    """Whatever trains."""
    gpu(reason="Found no NVIDIA driver on your system")
    for train_on in training_device.CHOICES:
        with pytest.raises(InputError, match=r"--serve-on cuda must find a GPU .*, got none: Found no NVIDIA driver") as caught:
            placed(config(train_on=train_on))
        assert "--serve-on cpu" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 2}, "--workers must be 1 with --serve-on cuda, got 2"),
        ({"price_per_hour": None}, "--instance must have a GPU with --serve-on cuda, got c7i.large"),
        ({"ray_address": "auto"}, "--serve-on must be cpu with --ray-address, got cuda"),
    ],
)
def test_what_does_not_go_with_a_gpu_is_refused(gpu, changes, message):
    """Two workers would disturb each other there, and a machine without a GPU has another price."""
    gpu(name="NVIDIA L4")
    with pytest.raises(InputError, match=message):
        placed(config(**changes))


def test_the_user_reads_what_serves_trains_and_disturbs(gpu):
    """The training goes on where `--train-on` says."""
    gpu(name="NVIDIA L4", used_bytes=3 * 10**9)
    found, lines = placed(config(train_on="auto", price_per_hour=None, instance="g6.xlarge"))

    assert (found.train_on, found.serve_on) == ("cuda", "cuda")
    assert lines == [
        "serving: on NVIDIA L4 (cuda): models are scored and timed there, and their bundles are for it",
        "3.0 GB of the GPU's memory are in use: what other programs do there disturbs the timings",
        "training: on NVIDIA L4 (cuda), one model at a time; it serves them too",
    ]
    assert placed(config())[0].train_on == "cpu"


@pytest.mark.parametrize(("begun", "asked"), [(None, "cuda"), ("cuda", "cpu")])
def test_a_study_keeps_to_the_device_that_serves(study_copy, begun, asked):  # noqa: F811
    """Its latencies and its bundles are of one device."""
    study = open_study(study_copy)
    known = SearchConfig(None, 60.0, serve_on=begun or "cpu")
    study.describe({"timed_memory": allocator.KEPT, "counted_call": COUNTED_CALL} | ({"serve_on": begun} if begun else {}))
    with pytest.raises(StudyError, match=f"was begun with serve_on {begun or 'cpu'}, got {asked}"):
        check_same_conditions(study, study.facts, study.facts["price"], replace(known, serve_on=asked))

    check_same_conditions(study, study.facts, study.facts["price"], known)
    assert study.facts["serve_on"] == (begun or "cpu")


def test_a_task_that_leaves_a_tensor_on_the_cpu_is_told_before_the_search(small_task_file, tmp_path):
    """Its untouched model could not be timed."""
    path = tmp_path / "left.py"
    path.write_text(textwrap.dedent(LEFT_BEHIND))
    require_serving_on(CPU, load_task(path))
    require_serving_on(SECOND, load_task(small_task_file))
    with pytest.raises(TaskError, match=r"task must compute on the device of its inputs to be served on madeup") as caught:
        require_serving_on(SECOND, load_task(path))

    assert caught.value.hint == "--serve-on cpu"


def test_a_space_loses_the_modes_of_the_other_device():
    """The user is told which, and why."""
    unfit = preflight(None).unfit["compile.mode"]

    assert unfit == {"torch_compile_reduce_overhead": "torch_compile_reduce_overhead runs on cuda, not on cpu"}


@pytest.fixture
def setting(small_task_file, tmp_path, monkeypatch):
    """What a worker knows of a search that the second device serves."""
    second_device.serve(monkeypatch)
    price = Price("test", 0.1, "today")
    return Setting(str(small_task_file), str(tmp_path / "study"), 0, 1, 10**9, price, "autocut search", serve_on=SECOND.kind)


def events_of_a_worker(setting):
    """Build, train and measure the untouched model in this process; return what it reports."""
    events = []
    run_job(Job(1, JobKind.BASELINE, (Recipe(),), time.time() + 300, "test"), setting, events.append)
    return events


def test_a_worker_serves_where_its_search_says(setting):
    """The study's machine names the device."""
    events = events_of_a_worker(setting)

    assert [event for event in events if isinstance(event, RecipeFailed | WorkerFault)] == []
    assert any(isinstance(event, RecipeMeasured) for event in events)
    ready = next(event for event in events if isinstance(event, BaselineReady))
    assert ready.machine["gpu_name"] == "madeup"


@without_gpu
def test_a_worker_that_cannot_open_the_gpu_ends_the_search(setting):
    """No other job would do better."""
    fault = next(event for event in events_of_a_worker(replace(setting, serve_on="cuda")) if isinstance(event, WorkerFault))

    assert fault.message.startswith("device must be one that this process can open, got cuda: ")
