"""A synthetic study with everything that the dashboard shows: baselines, a front, failures, limits, finals, a refusal."""

from __future__ import annotations

import datetime as dt
import queue
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.report import dashboard
from autocut.study import StageRun, Study, create_study, open_study

DISTRIBUTIONS = {
    "prune.method": CategoricalDistribution(["none", "structured"]),
    "prune.ratio": FloatDistribution(0.0, 0.9),
    "train.epochs": IntDistribution(0, 8),
    "quantize.dtype": CategoricalDistribution(["fp32", "bf16", "int8_static"]),
    "compile.mode": CategoricalDistribution(["eager", "onnxruntime", "aot_inductor"]),
}
DTYPE_SPEED = {"fp32": 1.0, "bf16": 0.7, "int8_static": 2.8}
MODE_SPEED = {"eager": 1.0, "onnxruntime": 1.6, "aot_inductor": 1.3}


def synthesize(recipe: Recipe, rng: np.random.Generator, split: str = "validation") -> tuple[dict[str, float], Measurement]:
    """Make values like real ones: pruning loses accuracy, training restores some of it, int8 is fast when compiled."""
    ratio, epochs = float(recipe.get("prune.ratio", 0.0)), int(recipe["train.epochs"])
    dtype, mode = recipe.lowering
    accuracy = 0.985 - 0.25 * ratio**3 + 0.02 * ratio * np.sqrt(epochs) - 0.004 * (dtype != "fp32") + rng.normal(0, 0.003)
    speed = MODE_SPEED[mode] * DTYPE_SPEED[dtype] * (1 + 4 * ratio**2) * np.exp(rng.normal(0, 0.03))
    latencies = tuple(_latency(size, speed) for size in (1, 32))
    size_bytes = int(90_000 * (1 - ratio) / (3.5 if dtype == "int8_static" else 1))
    values = {
        "accuracy": float(accuracy),
        "usd_per_million": 0.06 / speed,
        "latency_ms": latencies[0].p50_ms.value,
        "size_bytes": float(size_bytes),
        "train_usd": 0.0002 * epochs,
        "speedup": float(speed),
    }
    measured = Accuracy(
        split, 360, Interval(accuracy, accuracy - 0.011, accuracy + 0.009), Interval(accuracy - 0.985, -0.02, 0.01), 0.21
    )
    cost = Cost(latencies, size_bytes, int(size_bytes * 0.8), 1, 21.5, "2-core x86_64, AVX512")
    return values, Measurement(measured, cost, peak_memory_bytes=30_000_000)


def fill(study: Study, count: int = 40, seed: int = 0) -> None:
    """Write baselines, then `count` searched trials with all outcomes, then the finals of some front points."""
    rng = np.random.default_rng(seed)
    session = study.begin_session("autocut search --budget 5m", {"autocut": "0.1.0", "torch": "2.13.0"})
    baseline = {"value": 0.985, "low": 0.98, "high": 0.99}
    study.describe({"task": "digits", "machine": "2-core x86_64, AVX512", "baseline": baseline, "budget_left_s": 61.0})
    for lowering in (("fp32", "eager"), ("fp32", "onnxruntime"), ("int8_static", "onnxruntime")):
        recipe = Recipe().with_lowering(*lowering)
        values, measurement = synthesize(recipe, rng)
        study.complete(None, recipe, *_params(recipe), values, measurement, _limits(values), is_baseline=True)
        session.beat(session.worked_s + 2)
    study.set_reference(study.points()[0].measurement.cost)
    for step in range(count):
        _one_trial(study, rng, step)
        session.beat(session.worked_s + 5 + float(rng.uniform(0, 3)))


def finalize(study: Study, most: int = 4) -> None:
    """Finalize the first `most` trials of the search front, and refuse the last of them."""
    rng = np.random.default_rng(1)
    chosen = study.front()[:most]
    for point in chosen:
        values, measurement = synthesize(point.recipe, rng, "test")
        folder = study.folder / "bundles" / f"trial-{point.trial}"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(rng.bytes(20_000))
        (folder / "manifest.json").write_text('{"schema_version": 1}')
        refusal = "accuracy 0.91 is outside the tolerance of the claimed 0.95" if point is chosen[-1] else None
        digest = f"{point.trial:064x}"
        study.record_final(
            point.trial, measurement, values, bundle=folder, bundle_sha256=digest, verified=refusal is None, refusal=refusal
        )


def make(folder: Path) -> Study:
    """Create the empty study."""
    objectives = {"accuracy": "maximize", "usd_per_million": "minimize"}
    return create_study(folder, name="digits", task_fingerprint="t", space_json="{}", objectives=objectives, seed=0)


@pytest.fixture
def empty_study(tmp_path: Path):
    """A study that has just begun."""
    study = make(tmp_path / "digits")
    yield study
    study.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study with a dozen trials, finals included; made once."""
    study = make(tmp_path_factory.mktemp("filled") / "digits")
    fill(study, count=12)
    finalize(study, most=2)
    study.close()
    return study.folder


@pytest.fixture(scope="session")
def read_study(filled: Path):
    """The filled study, for tests that only read."""
    study = open_study(filled)
    yield study
    study.close()


@pytest.fixture
def small_study(filled: Path, tmp_path: Path):
    """A copy of the filled study, for tests that write."""
    study = make(shutil.copytree(filled, tmp_path / "digits"))
    yield study
    study.close()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch):
    """A function that serves the dashboard of a study on a free port and returns its address; stopped at the end."""
    servers: list = []
    threads: list[threading.Thread] = []
    bind = dashboard._bind

    def remember(port: int, app: object):
        servers.append(bind(port, app))
        return servers[-1]

    def start(folder: Path) -> str:
        ready: queue.Queue[str] = queue.Queue()
        threads.append(threading.Thread(target=dashboard.serve, args=(folder, 0, ready.put)))
        threads[-1].start()
        return ready.get(timeout=30)

    monkeypatch.setattr(dashboard, "_bind", remember)
    yield start
    for server in servers:
        server.shutdown()
    for thread in threads:
        thread.join()


@pytest.fixture
def infeasible():
    """A function that adds a trial that beats all others but violates a limit."""

    def add(study: Study) -> None:
        recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.01})
        values, measurement = synthesize(recipe, np.random.default_rng(3))
        cheap = values | {"accuracy": 0.999, "usd_per_million": 1e-6}
        study.complete(None, recipe, *_params(recipe), cheap, measurement, {"latency_ms<=0.01": 1.0})

    return add


@pytest.fixture
def spoil():
    """A function that adds trials with text that would be a program if a page took it for HTML."""

    def add(study: Study) -> None:
        recipe = Recipe({"prune.method": "<img src=x onerror=\"document.title='owned'\">", "prune.ratio": 0.5})
        values, measurement = synthesize(recipe, np.random.default_rng(2))
        study.complete(None, recipe, {}, {}, values, measurement)
        study.fail(None, recipe, {}, {}, "</script><script>document.title='owned'</script>")

    return add


def _one_trial(study: Study, rng: np.random.Generator, step: int) -> None:
    settings = {
        "prune.method": "structured",
        "prune.ratio": round(float(rng.uniform(0.05, 0.85)), 2),
        "train.epochs": int(rng.integers(0, 8)),
        "quantize.dtype": str(rng.choice(["fp32", "bf16", "int8_static"])),
        "compile.mode": str(rng.choice(["eager", "onnxruntime", "aot_inductor"])),
    }
    recipe = Recipe(settings)
    values, measurement = synthesize(recipe, rng)
    curve = [float(values["accuracy"] - 0.2 / epoch**1.5) for epoch in range(1, int(recipe["train.epochs"]) + 1)]
    started = dt.datetime.now(dt.UTC)
    study.record_stage(StageRun(f"key{step}", "train", "none", 3.0, "done", False, recipe.fingerprint, started))
    if step % 9 == 4:
        study.fail(None, recipe, *_params(recipe), f"no kernel for {recipe.lowering[0]} in {recipe.lowering[1]} on this machine")
    elif step % 9 == 7:
        study.fail(None, recipe, *_params(recipe), "beaten at epoch 2 of 8: 0.71 against 0.93", "PRUNED", curve=curve[:2])
    else:
        lineage = [f"{step:064x}", f"{step + 1:064x}"]
        more = {"curve": curve, "extras": {"samples_seen": 1437 * len(curve), "lineage": lineage}}
        began = started - dt.timedelta(seconds=float(rng.uniform(0.05, 0.2)))
        study.complete(None, recipe, *_params(recipe), values, measurement, _limits(values), **more, started=began)


def _params(recipe: Recipe) -> tuple[dict[str, object], dict[str, object]]:
    names = [name for name in DISTRIBUTIONS if name in recipe]
    return {name: recipe[name] for name in names}, {name: DISTRIBUTIONS[name] for name in names}


def _limits(values: dict[str, float]) -> dict[str, float]:
    return {"accuracy>=0.9": 0.9 - values["accuracy"]}


def _latency(batch_size: int, speed: float) -> Latency:
    baseline_ms = 0.4 + 0.05 * batch_size
    p50_ms = baseline_ms / speed
    spread = Interval(speed, 0.95 * speed, 1.06 * speed)
    return Latency(batch_size, 64, Interval(p50_ms, 0.96 * p50_ms, 1.05 * p50_ms), 1.3 * p50_ms, None, baseline_ms, spread, 0.8)
