"""The rows of the matrix in a CSV file: each is there as soon as it was measured, and is not measured again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

KEY = ("family", "bound", "recipe", "axis")
SHOWN_SIZES = (1, 32)


@dataclass(frozen=True)
class Row:
    """One change of one family against the untouched model. Where it was not measured, `reason` says why and numbers are None.

    `change` is the accuracy minus that of the untouched model, `gain` minus that of the same training without the change; both are
    paired and have 95% intervals, as have the speed-ups. Sizes are ratios to the untouched model's. `train_seconds` and
    `lower_seconds` are what making the model takes, `cold_start_seconds` what loading it and its first call take.
    `disturbance` is that of the timing (`autocut.measurement.Latency`).
    """

    family: str
    bound: str
    axis: str
    method: str
    recipe: str
    outcome: str
    reason: str | None = None
    metric: str | None = None
    accuracy: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    speedup_1: float | None = None
    speedup_1_low: float | None = None
    speedup_1_high: float | None = None
    speedup_32: float | None = None
    speedup_32_low: float | None = None
    speedup_32_high: float | None = None
    latency_1_ms: float | None = None
    latency_32_ms: float | None = None
    size_bytes: float | None = None
    size_ratio: float | None = None
    compressed_ratio: float | None = None
    samples_seen: float | None = None
    train_seconds: float | None = None
    lower_seconds: float | None = None
    cold_start_seconds: float | None = None
    disturbance: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it the same row: family, bound, recipe and axis."""
        return tuple(str(getattr(self, name)) for name in KEY)


class RowFile:
    """The rows in `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], Row] = {row.key: row for row in read_rows(path)}

    def add(self, row: Row) -> None:
        """Keep `row`: the file is whole at every moment."""
        self.rows[row.key] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".tmp")
        pd.DataFrame([asdict(row) for row in self.rows.values()]).to_csv(written, index=False, float_format="%.6g")
        written.replace(self.path)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; none where there is no file."""
    if not path.exists():
        return []
    frame = pd.read_csv(path).reindex(columns=[field.name for field in fields(Row)]).astype(object)
    return [Row(**record) for record in frame.where(frame.notna(), None).to_dict("records")]
