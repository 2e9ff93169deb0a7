"""What a model gave and cost: plain records without torch, so that arithmetic and storage can share them.

Units stand in the names. Intervals are 95% intervals unless a field says otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval, ``low <= value <= high``."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share a point: then the values are not told apart."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Latency:
    """One batch size: candidate calls interleaved with calls of the untouched baseline in one process.

    `speedup` is the ratio of the medians baseline / candidate, so above 1 is faster. `yardstick_ms` is the median of a fixed
    workload timed in the same loop: dividing by it compares numbers of one machine taken at different hours. A percentile is None
    where there are too few samples for it (64 calls for p90, 662 for p99; MLPerf early-stopping rule at 99% confidence).
    """

    batch_size: int
    samples: int
    p50_ms: Interval
    p90_ms: float | None
    p99_ms: float | None
    baseline_p50_ms: float
    speedup: Interval
    yardstick_ms: float


@dataclass(frozen=True)
class Cost:
    """What a runnable model costs on this machine, whatever its weights are."""

    latencies: tuple[Latency, ...]
    size_bytes: int
    compressed_size_bytes: int
    threads: int
    cold_start_ms: float
    machine: str

    def latency(self, batch_size: int) -> Latency:
        """Return the latency at `batch_size`.

        Raises:
            KeyError: that batch size was not measured.
        """
        for latency in self.latencies:
            if latency.batch_size == batch_size:
                return latency
        raise KeyError(batch_size)


@dataclass(frozen=True)
class Accuracy:
    """The task's metric on one split (higher is better), and the paired difference to the untouched baseline on the same examples.

    `difference` is candidate minus baseline; `p_value` tests "no difference" (McNemar's exact test for 0/1 scores, else a paired
    bootstrap).
    """

    split: str
    examples: int
    metric: Interval
    difference: Interval | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Measurement:
    """Accuracy and cost of one trial."""

    accuracy: Accuracy
    cost: Cost
    peak_memory_bytes: int | None = None
    energy_j_per_prediction: float | None = None
    energy_source: str | None = None


@dataclass(frozen=True)
class Measured:
    """What a recipe gave and cost on the validation split, with the keys of the stages behind it.

    `train_seconds` is what training this recipe takes when nothing is cached; `structure` names what its latency depends on.
    """

    measurement: Measurement
    train_seconds: float
    samples_seen: int
    lineage: tuple[str, ...]
    structure: str


@dataclass(frozen=True)
class Rung:
    """Validation metric after `epoch` of `epochs`."""

    epoch: int
    epochs: int
    metric: float


_ADAPTER = TypeAdapter(Measurement)
_COST_ADAPTER = TypeAdapter(Cost)


def to_json(measurement: Measurement) -> dict[str, Any]:
    """Plain dictionary of `measurement` for JSON documents."""
    return asdict(measurement)


def from_json(document: dict[str, Any]) -> Measurement:
    """Inverse of `to_json`; pydantic checks every field."""
    return _ADAPTER.validate_python(document)


def cost_from_json(document: dict[str, Any]) -> Cost:
    """Read a `Cost` written by `dataclasses.asdict`; pydantic checks every field."""
    return _COST_ADAPTER.validate_python(document)
