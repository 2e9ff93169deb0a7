"""For every test: one thread, so that what runs beside it does not decide how long it takes."""

import os
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path

import pytest

os.environ.setdefault("AUTOCUT_KEY_FILE", str(Path(tempfile.gettempdir()) / f"autocut-tests-{os.getuid()}" / "stage.key"))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_WHOLE_PROGRAM = ("cases", "api", "fuzz", "studies", "docs")
"""Folders whose tests run whole searches. They come last, so that a machine that is too slow for all begins with the others."""


def pytest_collection_modifyitems(items):
    """Put the tests of `_WHOLE_PROGRAM` last."""
    home = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(home).parts[0] in _WHOLE_PROGRAM)


def pytest_runtest_setup(item):
    """Begin no test after AUTOCUT_TESTS_END (seconds since the epoch), which `.ci/run` sets."""
    if time.time() > float(os.environ.get("AUTOCUT_TESTS_END", "inf")):
        pytest.skip("this machine is too slow for all tests in the time that CI has: `make test` runs them")


SMALL_TASK = """
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from autocut import Task

    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16.0, dtype=torch.float32)
    labels = torch.tensor(labels)


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

        def forward(self, images):
            return self.layers(images)


    task = Task(
        name="small", model=Net, train=(images[:700], labels[:700]), validation=(images[700:1000], labels[700:1000]),
        test=(images[1000:1300], labels[1000:1300]), batch_size=64, epochs=4, serving_batch_sizes=(1, 8), pretrained=False,
    )
"""


@pytest.fixture
def small_task_file(tmp_path):
    """A task of an MLP on a part of the digits, which trains in a second."""
    path = tmp_path / "task.py"
    path.write_text(textwrap.dedent(SMALL_TASK))
    return path


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory):
    """Folder of a study of the digits task, as a search leaves it: copy it before you change it.

    Trial 0 is the untouched model. Trial 7 runs in ONNX Runtime, was finalized, and has a real bundle. No search made it: the
    model has random weights, and the numbers of the trials are made up.
    """
    from dataclasses import replace

    from autocut.deploy.manifest import read_manifest
    from autocut.price import price_for
    from autocut.recipe import Recipe
    from autocut.study import create_study

    folder = tmp_path_factory.mktemp("finished") / "digits"
    objectives = {"accuracy": "maximize", "usd_per_million": "minimize"}
    study = create_study(folder, name="digits", task_fingerprint="t", space_json="{}", objectives=objectives, seed=0)
    session = study.begin_session("autocut search --budget 5m", {"autocut": "0"})
    session.beat(300.0, {"starting": 30.0, "training": 270.0})
    study.describe(
        {"task_path": None, "threads": 1, "limits": [], "max_accuracy_drop": 0.05, "price": vars(price_for("c7i.large", None, 1.0))}
    )
    bundle = folder / "bundles" / "trial-0007"
    _write_digits_bundle(bundle, tmp_path_factory.mktemp("artifact") / "model")
    tested = read_manifest(bundle).measurement
    chosen_by = _with_speedup(replace(tested, accuracy=replace(tested.accuracy, split="validation")), 2.0)
    untouched = _with_speedup(chosen_by, 1.0)
    study.set_reference(untouched.cost)
    sizes = {"latency_ms": 0.05, "size_bytes": 20_000.0, "train_usd": 0.0, "speedup": 2.0}
    values = {"accuracy": 0.97, "usd_per_million": 0.001, **sizes}
    slow = {"accuracy": 0.98, "usd_per_million": 0.004, **sizes, "size_bytes": 80_000.0, "latency_ms": 0.2, "speedup": 1.0}
    study.complete(None, Recipe(), {}, {}, slow, untouched, is_baseline=True)
    for number in range(1, 7):
        study.fail(
            None, Recipe({"prune.method": "structured", "prune.ratio": number / 10}), {}, {}, "diverged: the loss is not finite"
        )
    recipe = Recipe({"quantize.dtype": "int8_dynamic", "compile.mode": "onnxruntime"})
    trial = study.complete(None, recipe, {}, {}, values, chosen_by)
    study.record_final(trial, tested, {**values, "accuracy": 0.965}, bundle=bundle, bundle_sha256="0", verified=True)
    study.close()
    return folder


def _with_speedup(measurement, speedup):
    from dataclasses import replace

    from autocut.measurement import Interval

    interval = Interval(speedup, speedup, speedup)
    latencies = tuple(replace(latency, speedup=interval) for latency in measurement.cost.latencies)
    return replace(measurement, cost=replace(measurement.cost, latencies=latencies))


def _write_digits_bundle(to, artifact):
    import torch

    from autocut.deploy.bundle import Claims, write_bundle
    from autocut.deploy.examples import collect_examples
    from autocut.measure.footprint import compressed_size_bytes, size_bytes
    from autocut.measure.latency import measure_latency
    from autocut.measure.machine import machine_fingerprint
    from autocut.measurement import Accuracy, Cost, Interval, Measurement
    from autocut.recipe import Recipe
    from autocut.stages import lowering
    from autocut.tasks.digits import task

    torch.set_num_threads(1)
    data = list(task.loader(task.validation_data, 16))[:4]
    calibration = [inputs for inputs, _ in data]
    artifact.mkdir(parents=True)
    lowering.lower(task.build_model(), "int8_dynamic", "onnxruntime", calibration, artifact)
    predict = lowering.load(artifact, "onnxruntime", 1)
    examples = collect_examples(predict, data)
    right = sum(int((batch.outputs.argmax(1) == batch.targets).sum()) for batch in examples) / 64
    latencies = tuple(measure_latency(predict, predict, calibration[0][:size]) for size in (1, 16))
    cost = Cost(latencies, size_bytes(artifact), compressed_size_bytes(artifact), 1, 5.0, machine_fingerprint())
    measurement = Measurement(Accuracy("test", 64, Interval(right, max(0.0, right - 0.1), min(1.0, right + 0.1))), cost)
    recipe = Recipe({"quantize.dtype": "int8_dynamic", "compile.mode": "onnxruntime"})
    command = "autocut search --budget 5m"
    claims = Claims("digits", recipe, measurement, {"accuracy": right}, "classification", "accuracy", command, 0, trial=7)
    write_bundle(artifact, to, claims, examples)


@pytest.fixture
def room(monkeypatch):
    """Replace the functions of a module, which need not exist."""

    def put(name, **functions):
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def searches(room, monkeypatch, tmp_path):
    """The configurations that reach the search, in an empty directory."""
    import autocut.execution.money  # noqa: F401 - with the real study, before a fake one takes its place
    from autocut.execution.preflight import Preflight, TaskFacts
    from autocut.measure.audit import AuditedMachine
    from tests.fakes import KNOWN, FakePool, FakeStudy

    seen = []
    monkeypatch.chdir(tmp_path)
    digits = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=False)
    monkeypatch.setattr(
        "autocut.execution.preflight.preflight", lambda task, ask, meanwhile, **more: meanwhile() or Preflight(KNOWN, {}, digits)
    )
    monkeypatch.setattr("autocut.stages.methods.known_methods", lambda students=(): KNOWN)
    monkeypatch.setattr("autocut.task.file.compile_task_file", lambda path: None)
    monkeypatch.setattr("autocut.measure.audit._allowed", lambda: range(8))
    monkeypatch.setattr(AuditedMachine, "quota", lambda self: None)
    monkeypatch.setattr("autocut.commands.search._LOOK_S", 0.0)
    room("autocut.execution.worker_pool", WorkerPool=FakePool)
    room("autocut.execution.session", run_search=lambda config, space, *others: seen.append((config, space)) or 0)
    room("autocut.study", open_study=lambda folder: FakeStudy())
    room("autocut.task.check", check_task=lambda path, **more: [])
    return seen
