"""Stand-ins for the rooms below the verbs: a study of three points, and workers that never start."""

from __future__ import annotations

import contextlib
import io
import types
from dataclasses import replace

from autocut.front import FrontPoint
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe

KNOWN = {
    "prune.method": ("none", "l1_unstructured", "structured", "structured_taylor", "heads_and_neurons", "low_rank", "depth"),
    "train.quantization_aware": ("none", "int8", "int4"),
    "train.input_growth": ("none", "progressive_resizing", "sequence_length_warmup"),
    "curriculum.schedule": ("none", "linear", "sqrt", "quadratic", "exponential", "logarithmic", "step", "hold"),
    "curriculum.order": ("easy_first", "random", "self_paced", "infobatch"),
    "distill.loss": ("none", "kl", "kl_zscore", "mse_logits", "kl_sigmoid", "mse", "dkd"),
    "distill.features": ("none", "similarity", "hint"),
    "quantize.dtype": (
        "fp32",
        "bf16",
        "fp16",
        "int8_dynamic",
        "int8_static",
        "int8_weight_only",
        "int4_weight_only",
        "float8_dynamic",
    ),
    "compile.mode": (
        "eager",
        "torch_compile",
        "torch_compile_max_autotune",
        "aot_inductor",
        "onnxruntime",
        "openvino",
        "torch_compile_reduce_overhead",
    ),
}
SAME = Interval(1.0, 1.0, 1.0)
COST = Cost((Latency(1, 64, SAME, None, None, 1.0, SAME, 1.0),), 1000, 900, 1, 12.0, "m")
MEASUREMENT = Measurement(Accuracy("validation", 360, Interval(0.97, 0.95, 0.98)), COST)
TESTED = replace(MEASUREMENT, accuracy=replace(MEASUREMENT.accuracy, split="test"))


def point(trial, accuracy, usd, settings=(), **fields):
    """A front point with plausible values."""
    values = {
        "accuracy": accuracy,
        "usd_per_million": usd,
        "latency_ms": usd,
        "size_bytes": 1000.0,
        "train_usd": 0.0,
        "speedup": 1 / usd,
    }
    base = FrontPoint(trial, Recipe(dict(settings)), values, MEASUREMENT, is_baseline=not settings, bundle=None, ties=())
    return replace(base, **fields)


POINTS = [
    point(0, 0.98, 1.0),
    point(7, 0.975, 0.25, {"quantize.dtype": "int8_static", "compile.mode": "onnxruntime"}, ties=(8,), bundle="bundles/7"),
    point(9, 0.90, 0.1, {"prune.method": "structured", "prune.ratio": 0.8}),
]


class FakeStudy:
    """An open study with three points; the untouched model is beaten."""

    name = "digits"
    objectives = types.MappingProxyType({"accuracy": "maximize", "usd_per_million": "minimize"})
    facts = types.MappingProxyType(
        {
            "price": {"instance": "c7i.large", "usd_per_hour": 0.09, "date": "2026-07-20", "utilization": 1.0},
            "price_fit": "ratios hold, dollars may not: prices are of another machine",
        }
    )

    def __init__(self, points=POINTS):
        self._points = points

    def spent_s(self):
        """An hour."""
        return 3600.0

    paid_s = spent_s
    """One machine worked."""

    def points(self):
        """All."""
        return self._points

    def front(self):
        """All but the untouched model."""
        return self._points[1:]

    rungs = types.SimpleNamespace(all=list, pairs=dict)
    """Nothing was measured to explain a trial."""

    def results(self):
        """No trial has failed."""
        return {}

    def looks(self):
        """Two."""
        return ["finalization", "export"]

    def untested(self):
        """Not one."""
        return ()

    def ledger(self):
        """Twice as much training as compiling."""
        return {
            "spent_s": 100.0,
            "by_category": {"train": 60.0, "compile": 30.0, "idle": 0.0},
            "borrowed_s": 0.0,
            "cores_busy": 0.9,
            "sessions": [{"command": "autocut search"}],
        }

    def to_frame(self):
        """One row a trial."""
        import pandas as pd

        return pd.DataFrame(
            {"trial": [each.trial for each in self._points], "accuracy": [each.values["accuracy"] for each in self._points]}
        )


class FakePool(contextlib.nullcontext):
    """Starts nothing."""

    ask = None

    def __init__(self, *arguments, **settings):
        super().__init__(self)

    def start_ray(self):
        """There is none."""


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        """Yes."""
        return True
