"""Rungs with made-up numbers."""

from __future__ import annotations

import pytest

from autocut.attribution.effects import LadderRung
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe

SPREAD = 0.02


def make_rung(settings, accuracy=0.98, speedup=1.0, size=1000, difference=None, spread=SPREAD):
    """A recipe that was measured, 2% of spread on its speed-up; the untouched model has none."""
    recipe = Recipe(settings)
    spread = spread if settings else 0.0
    factor = Interval(speedup, speedup * (1 - spread), speedup * (1 + spread))
    latency = Latency(1, 64, Interval(1 / speedup, 1 / speedup, 1 / speedup), None, None, 1.0, factor, 1.0)
    around = Interval(accuracy, accuracy - 0.01, min(1.0, accuracy + 0.01))
    measured = Accuracy("validation", 1000, around, difference or Interval(accuracy - 0.98, accuracy - 0.985, accuracy - 0.975))
    cost = Cost((latency,), size, size // 2, 1, 1.0, "here")
    values = {"accuracy": accuracy, "usd_per_million": 1 / speedup, "size_bytes": float(size), "speedup": speedup}
    return LadderRung(recipe, values, Measurement(measured, cost))


@pytest.fixture
def rung():
    """The function `make_rung`."""
    return make_rung


PRUNE = {"prune.method": "structured", "prune.ratio": 0.5}
TRAIN = {"train.epochs": 4}
DISTILL = {"distill.loss": "kl", "distill.temperature": 2.0, "distill.alpha": 0.5}
MODE = {"compile.mode": "onnxruntime"}
DTYPE = {"quantize.dtype": "int8_static"}


@pytest.fixture
def settings():
    """Settings of the knobs, by name."""
    from types import SimpleNamespace

    return SimpleNamespace(prune=PRUNE, train=TRAIN, distill=DISTILL, mode=MODE, dtype=DTYPE)
