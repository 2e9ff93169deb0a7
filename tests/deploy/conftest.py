"""Small real bundles: a model that was lowered, asked for examples and timed."""

import dataclasses
import hashlib
import importlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from autocut.deploy.bundle import Claims, write_bundle
from autocut.deploy.examples import collect_examples
from autocut.deploy.manifest import MANIFEST, read_manifest, render
from autocut.measure.footprint import compressed_size_bytes, size_bytes
from autocut.measure.latency import measure_latency
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Accuracy, Cost, Interval, Measurement
from autocut.recipe import Recipe
from autocut.stages import lowering

BATCHES = (1, 16)


class TinyNet(nn.Module):
    """A few layers with enough arithmetic for its time to stand out of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4))

    def forward(self, x):
        """Class scores."""
        return self.layers(x)


def make_data(n=48):
    """Seeded inputs and targets in batches of 16."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 32, generator=generator)
    targets = torch.randint(0, 4, (n,), generator=generator)
    return list(zip(inputs.split(16), targets.split(16), strict=True))


def make_latency(predict, batch_size, data):
    """Time `predict`; the baseline is the model itself."""
    return measure_latency(predict, predict, data[0][0][:batch_size])


def make_bundle(to: Path, artifact: Path, dtype="fp32", mode="eager", model=None, kind="classification"):
    """Lower a model and write its bundle with true claims."""
    torch.manual_seed(0)
    model = (model or TinyNet()).eval()
    data = make_data()
    artifact.mkdir(parents=True, exist_ok=True)
    lowering.lower(model, dtype, mode, [inputs for inputs, _ in data], artifact)
    predict = lowering.load(artifact, mode, 1)
    examples = collect_examples(predict, data)
    right = sum(int((batch.outputs.argmax(1) == batch.targets).sum()) for batch in examples)
    accuracy = Accuracy("test", 48, Interval(right / 48, max(0.0, right / 48 - 0.1), min(1.0, right / 48 + 0.1)))
    size, compressed = size_bytes(artifact), compressed_size_bytes(artifact)
    cost = Cost(tuple(make_latency(predict, n, data) for n in BATCHES), size, compressed, 1, 5.0, machine_fingerprint())
    recipe = Recipe({"quantize.dtype": dtype, "compile.mode": mode})
    claims = Claims(
        "tiny", recipe, Measurement(accuracy, cost), {"accuracy": right / 48}, kind, "accuracy", "autocut export", 0, trial=3
    )
    write_bundle(artifact, to, claims, examples)
    return to


def rewrite_manifest(folder: Path, **changes):
    """Change the manifest's claims and seal it again: a lie that the hashes do not show."""
    manifest = read_manifest(folder).model_copy(update=changes)
    (folder / MANIFEST).write_text(render(manifest), encoding="utf-8")


def reseal(folder: Path, document):
    """Write any JSON as the manifest, with the hash that fits it."""
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    sealed = {**document, "content_sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def scale_claimed_latency(folder: Path, factor: float):
    """Multiply the claimed latencies by `factor`."""
    measurement = read_manifest(folder).measurement
    latencies = tuple(
        dataclasses.replace(latency, p50_ms=Interval(*(factor * value for value in dataclasses.astuple(latency.p50_ms))))
        for latency in measurement.cost.latencies
    )
    change_cost(folder, latencies=latencies)


def change_cost(folder: Path, **changes):
    """Change what the manifest claims about cost."""
    measurement = read_manifest(folder).measurement
    rewrite_manifest(folder, measurement=dataclasses.replace(measurement, cost=dataclasses.replace(measurement.cost, **changes)))


def with_capacity(manifest, capacity):
    """The manifest with a claim of what the whole machine serves."""
    best, measurement = capacity.best, dataclasses.replace(manifest.measurement, capacity=capacity)
    return manifest.model_copy(update={"measurement": measurement, "copies": best.copies, "threads": best.threads})


def claim_capacity(folder: Path, capacity):
    """Have the bundle claim that, in its manifest alone."""
    (folder / MANIFEST).write_text(render(with_capacity(read_manifest(folder), capacity)), encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def new_bundle(tmp_path_factory):
    """Make a real bundle: ``new_bundle(dtype=..., mode=..., model=..., kind=...)``."""

    def make(**settings):
        folder = tmp_path_factory.mktemp("made")
        return make_bundle(folder / "bundle", folder / "artifact", **settings)

    return make


@pytest.fixture(scope="session")
def made(new_bundle):
    """One eager fp32 bundle, shared: not to be changed."""
    return new_bundle()


@pytest.fixture
def bundle(made, tmp_path):
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture
def claim():
    """Functions that make a sealed bundle claim something else."""
    return SimpleNamespace(
        reseal=reseal,
        rewrite=rewrite_manifest,
        cost=change_cost,
        latency=scale_claimed_latency,
        capacity=claim_capacity,
        with_capacity=with_capacity,
    )


@pytest.fixture(scope="module")
def users_task(tmp_path_factory):
    """A module of the user's with the model class in it, importable here only."""
    folder = tmp_path_factory.mktemp("users_code")
    (folder / "users_task.py").write_text(
        "from torch import nn\n\n\nclass UsersNet(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(32, 512), nn.Linear(512, 4)\n\n"
        "    def forward(self, x):\n        return self.b(self.a(x).relu())\n"
    )
    sys.path.insert(0, str(folder))
    yield importlib.import_module("users_task")
    sys.path.remove(str(folder))
    del sys.modules["users_task"]
