"""Fixtures: a study to write to, and measurements to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.study import Study, create_study

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}
DISTRIBUTIONS = {"prune.ratio": FloatDistribution(0.0, 0.9), "quantize.dtype": CategoricalDistribution(["fp32", "int8_static"])}

MakeMeasurement = Callable[..., Measurement]


@pytest.fixture
def make_measurement() -> MakeMeasurement:
    """Build a measurement from an accuracy and a latency."""

    def make(accuracy: float, latency_ms: float, split: str = "validation") -> Measurement:
        speedup = Interval(2.0 / latency_ms, 1.9 / latency_ms, 2.1 / latency_ms)
        latencies = tuple(
            Latency(size, 64, Interval(latency_ms, 0.95 * latency_ms, 1.05 * latency_ms), 1.2 * latency_ms, None, 2.0, speedup, 1.0)
            for size in (1, 32)
        )
        return Measurement(
            accuracy=Accuracy(split, 400, Interval(accuracy, accuracy - 0.01, accuracy + 0.01)),
            cost=Cost(latencies, 50_000, 40_000, 1, 12.0, "test-machine"),
        )

    return make


@pytest.fixture
def make_study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Create or reopen the study in a folder. Every study is closed at the end."""
    opened: list[Study] = []

    def make(folder: Path | None = None, **changes: object) -> Study:
        settings = {"name": "digits", "task_fingerprint": "t1", "space_json": "{}", "objectives": OBJECTIVES, "seed": 0} | changes
        opened.append(create_study(folder or tmp_path / "digits", **settings))
        return opened[-1]

    yield make
    for study in opened:
        study.close()


@pytest.fixture
def complete(make_measurement: MakeMeasurement) -> Callable[..., int]:
    """Complete a new trial from its recipe's ratio, accuracy and price."""

    def run(study: Study, ratio: float, accuracy: float, price: float, **more: object) -> int:
        recipe = Recipe({"prune.method": "structured", "prune.ratio": ratio})
        values = {"accuracy": accuracy, "usd_per_million": price, "latency_ms": 10 * price}
        params = {"prune.ratio": ratio, "quantize.dtype": "fp32"}
        return study.complete(None, recipe, params, DISTRIBUTIONS, values, make_measurement(accuracy, 10 * price), **more)

    return run
