"""A study as a flat pandas table: one row for each finished trial, one column for each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from autocut.front import Final
from autocut.measurement import Measurement
from autocut.study.trials import TrialRecord

_FIRST = ("trial", "state", "is_baseline", "is_feasible", "summary", "split")


def to_frame(trials: Sequence[TrialRecord], finals: Mapping[int, Final], on_front: set[int]) -> pd.DataFrame:
    """Return the table of `trials`. `test_...` and `final_...` are of the locked test split and the final timing.

    `final_charged_as` says whether `final_usd_per_million` is of the whole machine or of one process.
    """
    rows = [_row(trial, finals.get(trial.trial), trial.trial in on_front) for trial in trials]
    if not rows:
        return pd.DataFrame(columns=list(_FIRST))
    settings = sorted({name for row in rows for name in row if name.startswith("recipe.")})
    others = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("recipe.")))
    return pd.DataFrame(rows, columns=[*others, *settings])


def _row(trial: TrialRecord, final: Final | None, on_front: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_FIRST)
    row |= {"trial": trial.trial, "state": trial.state, "is_baseline": trial.is_baseline, "is_feasible": trial.is_feasible}
    row |= {"summary": trial.recipe.describe() if trial.recipe else None, "on_front": on_front}
    if trial.measured is not None:
        row |= dict(trial.measured.values) | _spread(trial.measured.measurement)
    row |= {"reason": trial.reason, "finished": trial.finished, "fingerprint": trial.recipe.fingerprint if trial.recipe else None}
    if final is not None:
        row |= _tested(final) if final.is_tested else {}
        row |= {"bundle": final.bundle, "bundle_sha256": final.bundle_sha256, "verified": final.verified, "refusal": final.refusal}
    if trial.recipe is not None:
        row |= {f"recipe.{name}": value for name, value in trial.recipe.items()}
    return row


def _tested(final: Final) -> dict[str, Any]:
    accuracy, capacity = final.measurement.accuracy, final.measurement.capacity
    row = {"test_accuracy": accuracy.metric.value, "test_accuracy_low": accuracy.metric.low}
    row |= {"test_accuracy_high": accuracy.metric.high, "test_examples": accuracy.examples}
    if capacity is not None:
        row |= {"copies": capacity.best.copies, "copy_threads": capacity.best.threads, "served_per_s": capacity.best.per_s.value}
    row |= {f"final_{name}": value for name, value in final.values.items() if name != "accuracy"}
    return row | {"final_charged_as": final.charged_as}


def _spread(measurement: Measurement) -> dict[str, Any]:
    accuracy, cost = measurement.accuracy, measurement.cost
    row: dict[str, Any] = {
        "split": accuracy.split,
        "examples": accuracy.examples,
        "accuracy_low": accuracy.metric.low,
        "accuracy_high": accuracy.metric.high,
        "machine": cost.machine,
        "threads": cost.threads,
        "cold_start_ms": cost.cold_start_ms,
    }
    for latency in cost.latencies:
        prefix = f"batch_{latency.batch_size}"
        row |= {f"{prefix}_p50_ms": latency.p50_ms.value, f"{prefix}_p90_ms": latency.p90_ms, f"{prefix}_p99_ms": latency.p99_ms}
        row |= {f"{prefix}_samples": latency.samples, f"{prefix}_speedup": latency.speedup.value}
        row |= {f"{prefix}_speedup_low": latency.speedup.low, f"{prefix}_speedup_high": latency.speedup.high}
        row |= {f"{prefix}_disturbance": latency.disturbance, f"{prefix}_load": latency.load}
    return row
