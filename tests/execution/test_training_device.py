"""Where a search trains: what is asked for, what the machine has, and what the user is told."""

import json
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch

from autocut.config import SearchConfig
from autocut.errors import InputError, StudyError, TaskError
from autocut.execution import training_device
from autocut.execution.conditions import check_same_conditions
from autocut.execution.money import price_fit
from autocut.execution.server_process import _environment
from autocut.execution.training_device import FoundGpu, find_gpu, placed
from autocut.execution.tried_devices import require_training_on
from autocut.execution.worker import run_job
from autocut.measure import allocator
from autocut.measurement import COUNTED_CALL
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import Job, JobKind, RecipeFailed, RecipeMeasured, Setting, WorkerFault
from autocut.stages.train import Device
from autocut.study import open_study
from autocut.task.loading import load_task
from tests import second_device

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def config(train_on, **changes):
    """The configuration of a search that is to train there."""
    return SearchConfig(None, 60.0, train_on=train_on, **changes)


@pytest.fixture
def gpu(monkeypatch):
    """Say what is found when somebody looks: a name, or the reason why there is none."""

    def say(**found):
        monkeypatch.setattr(training_device, "find_gpu", lambda: FoundGpu(**found))

    return say


def test_by_default_nobody_looks_for_a_gpu(monkeypatch):
    """Looking may take seconds."""
    monkeypatch.setattr(training_device, "find_gpu", lambda: pytest.fail("looked"))

    assert placed(SearchConfig(None, 60.0)) == (SearchConfig(None, 60.0), [])


@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_a_gpu_that_is_there_is_named(gpu, asked):
    """The user reads what trains, and what does not."""
    gpu(name="NVIDIA H200")
    found, lines = placed(config(asked))

    assert found.train_on == "cuda"
    assert lines == ["training: on NVIDIA H200 (cuda), one model at a time; the CPU, which serves them, scores and times them"]


def test_auto_says_why_it_is_the_cpu(gpu):
    """A driver that is too old would cost hours if nobody said so."""
    gpu(reason="the driver is too old")

    assert placed(config("auto")) == (config("cpu"), ["training: on the CPU: --train-on auto found no GPU: the driver is too old"])


def test_cuda_without_a_gpu_is_refused_with_the_reason(gpu):
    """No fallback: the user asked for it by its name."""
    gpu(reason="Found no NVIDIA driver on your system")
    with pytest.raises(InputError, match=r"--train-on cuda must find a GPU .*, got none: Found no NVIDIA driver") as caught:
        placed(config("cuda"))

    assert "--train-on cpu" in caught.value.hint


@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_a_cluster_trains_on_processors(gpu, asked):
    """The driver sees its own machine alone."""
    gpu(name="NVIDIA H200")
    with pytest.raises(InputError, match=f"--train-on must be cpu with --ray-address, got {asked}"):
        placed(config(asked, ray_address="auto"))


@pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="this torch is built for GPUs")
def test_a_cpu_build_of_torch_is_told_without_importing_it():
    """At once, and what to install."""
    code = "import sys; from autocut.execution.training_device import find_gpu; print(find_gpu().reason, 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert told == f"torch {torch.__version__} is a CPU build (install one for CUDA) False"


@without_gpu
def test_a_process_of_its_own_tells_why_there_is_no_gpu(monkeypatch, tmp_path):
    """In the words of torch, in one line."""
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr(training_device, "_reason_of_build", lambda: None)

    assert find_gpu() == training_device._look()


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        (json.dumps({"name": "NVIDIA L4", "reason": None}), FoundGpu(name="NVIDIA L4")),
        ("", FoundGpu(reason="the process that opens it failed: Segmentation fault")),
    ],
)
def test_a_process_that_dies_is_no_gpu(monkeypatch, tmp_path, printed, found):
    """Drivers crash."""
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr(training_device, "_reason_of_build", lambda: None)
    answer = subprocess.CompletedProcess([], 1, printed, "...\nSegmentation fault\n")
    monkeypatch.setattr(training_device.subprocess, "run", lambda *_, **__: answer)

    assert find_gpu() == found


@pytest.mark.parametrize(("begun", "asked"), [(None, "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_a_study_keeps_to_the_device_that_it_was_begun_with(study_copy, begun, asked):
    """One of an earlier autocut has trained on the CPU, and says nothing about it."""
    study = open_study(study_copy)
    study.describe({"timed_memory": allocator.KEPT, "counted_call": COUNTED_CALL} | ({"train_on": begun} if begun else {}))
    with pytest.raises(StudyError, match=f"was begun with train_on {begun or 'cpu'}, got {asked}"):
        check_same_conditions(study, study.facts, study.facts["price"], config(asked))

    check_same_conditions(study, study.facts, study.facts["price"], config(begun or "cpu"))
    assert study.facts["train_on"] == (begun or "cpu")


@pytest.fixture
def study_copy(finished_study, tmp_path):
    """A finished study that a test may change."""
    return shutil.copytree(finished_study, tmp_path / "digits")


def test_seconds_of_a_gpu_have_no_price_of_their_own():
    """The price sheet has instances that serve; a user's own price is that of this machine, GPU and all."""
    assert "a second on the GPU is counted at the price of c7i.large" in price_fit(config("cuda"))
    assert "GPU" not in (price_fit(config("cpu")) or "")
    assert price_fit(config("cuda", price_per_hour=4.0)) is None


LEFT_BEHIND = """
    import torch
    from torch import nn
    from autocut import Task


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs):
            return self.layer(inputs) + torch.arange(2)


    inputs, labels = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
    task = Task("left", Net, train=(inputs, labels), test=(inputs + 1, labels), batch_size=8, pretrained=True)
"""


def test_a_task_that_leaves_a_tensor_on_the_cpu_is_told_before_the_search(small_task_file, tmp_path):
    """A pretrained one would otherwise be measured for hours, with every training a failure."""
    path = tmp_path / "left.py"
    path.write_text(textwrap.dedent(LEFT_BEHIND))
    require_training_on(Device(), load_task(path))
    require_training_on(Device(second_device.KIND), load_task(small_task_file))
    with pytest.raises(TaskError, match=r"task must compute on the device of its inputs .*device=inputs.device") as caught:
        require_training_on(Device(second_device.KIND), load_task(path))

    assert caught.value.hint == "--train-on cpu --train-precision fp32"


ONE_DTYPE = LEFT_BEHIND.replace(
    "self.layer(inputs) + torch.arange(2)", "inputs.new_zeros(len(inputs), 2).index_add(1, torch.arange(2), self.layer(inputs))"
)


def test_a_model_that_cannot_train_in_mixed_precision_is_told_before_the_search(small_task_file, tmp_path):
    """It adds what a layer gives, bfloat16 then, to a tensor of its own, which torch refuses."""
    path = tmp_path / "one.py"
    path.write_text(textwrap.dedent(ONE_DTYPE))
    require_training_on(Device(), load_task(path))
    require_training_on(Device(precision="bf16"), load_task(small_task_file))
    with pytest.raises(
        TaskError, match=r"task.model must train in bf16, got RuntimeError: .*same scalar type .one.py, line 13"
    ) as caught:
        require_training_on(Device(precision="bf16"), load_task(path))

    assert caught.value.hint == "--train-precision fp32"


@pytest.fixture
def setting(small_task_file, tmp_path):
    """What a worker knows of its search, in a folder of its own."""
    return Setting(str(small_task_file), str(tmp_path / "study"), 0, 1, 10**9, Price("test", 0.1, "today"), "autocut search")


def events_of_a_worker(setting):
    """Build, train and measure the untouched model in this process; return what it reports."""
    events = []
    run_job(Job(1, JobKind.BASELINE, (Recipe(),), time.time() + 300, "test"), setting, events.append)
    return events


def test_a_worker_trains_where_its_search_says(setting):
    """The model that it measures is back on the CPU: the timing runs it there."""
    second_device.module.calls.clear()
    events = events_of_a_worker(replace(setting, train_on=second_device.KIND))

    assert [type(event) for event in events if isinstance(event, RecipeFailed | WorkerFault)] == []
    assert any(isinstance(event, RecipeMeasured) for event in events)
    assert {"init", "synchronize", "empty_cache"} <= set(second_device.module.calls)


@without_gpu
def test_a_worker_that_cannot_open_the_gpu_ends_the_search(setting):
    """It would end every training: the driver tells the user, with what to look at."""
    fault = next(event for event in events_of_a_worker(replace(setting, train_on="cuda")) if isinstance(event, WorkerFault))

    assert fault.message.startswith("device must be one that this process can open, got cuda: ")
    assert "CUDA_VISIBLE_DEVICES" in fault.hint


def test_a_worker_sees_the_gpus_that_the_process_it_is_forked_from_does_not():
    """What imports there cannot open one by accident; the fork has the surroundings of the search."""
    code = (
        "import os; from dataclasses import replace; from autocut.execution.fork_client import Surroundings; "
        "hidden = os.environ['CUDA_VISIBLE_DEVICES']; "
        "replace(Surroundings.here(), environment={'CUDA_VISIBLE_DEVICES': '1'}).adopt(); "
        "print(repr(hidden), os.environ['CUDA_VISIBLE_DEVICES'], 'PYTORCH_NVML_BASED_CUDA_CHECK' in os.environ)"
    )
    told = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=True).stdout

    assert told.split() == ["''", "1", "False"]
