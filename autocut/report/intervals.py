"""The 95% interval of each value of a trial."""

from __future__ import annotations

from collections.abc import Mapping

from autocut.measurement import Interval, Measurement


def interval_of(name: str, values: Mapping[str, float], measurement: Measurement) -> Interval:
    """Return the value `name` with its 95% interval. A value without a spread, such as a size, has an interval of no width.

    Latency and price are computed from a speed-up and have its spread.
    """
    value, cost = values[name], measurement.cost
    if name == "accuracy":
        return measurement.accuracy.metric
    if not cost.latencies or name not in ("latency_ms", "usd_per_million", "speedup"):
        return Interval(value, value, value)
    speedup = (cost.latencies[0] if name == "latency_ms" else cost.busiest).speedup
    if name == "speedup":
        return speedup
    return Interval(value, value * speedup.value / speedup.high, value * speedup.value / speedup.low)
