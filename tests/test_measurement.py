"""Records of measurements and their JSON form."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement, cost_from_json, from_json, to_json

NUMBER = st.floats(-1e9, 1e9)
INTERVALS = st.lists(NUMBER, min_size=3, max_size=3).map(sorted).map(lambda three: Interval(three[1], three[0], three[2]))
LATENCIES = st.builds(
    Latency,
    batch_size=st.integers(1, 512),
    samples=st.integers(16, 1000),
    p50_ms=INTERVALS,
    p90_ms=st.none() | NUMBER,
    p99_ms=st.none() | NUMBER,
    baseline_p50_ms=NUMBER,
    speedup=INTERVALS,
    yardstick_ms=NUMBER,
)
COSTS = st.builds(
    Cost,
    latencies=st.lists(LATENCIES, max_size=3).map(tuple),
    size_bytes=st.integers(0, 10**12),
    compressed_size_bytes=st.integers(0, 10**12),
    threads=st.integers(1, 64),
    cold_start_ms=NUMBER,
    machine=st.text(max_size=5),
)
ACCURACIES = st.builds(
    Accuracy,
    split=st.just("test"),
    examples=st.integers(1),
    metric=INTERVALS,
    difference=st.none() | INTERVALS,
    p_value=st.none() | NUMBER,
)
MEASUREMENTS = st.builds(
    Measurement,
    accuracy=ACCURACIES,
    cost=COSTS,
    peak_memory_bytes=st.none() | st.integers(0),
    energy_j_per_prediction=st.none() | NUMBER,
    energy_source=st.none() | st.text(max_size=5),
)


@given(MEASUREMENTS)
@settings(max_examples=25, deadline=None)
def test_a_measurement_survives_json(measurement):
    """It is stored in a database and in manifests."""
    assert from_json(json.loads(json.dumps(to_json(measurement)))) == measurement


@given(COSTS)
@settings(max_examples=25, deadline=None)
def test_a_cost_survives_json(cost):
    """It is stored with the study and in the stage cache."""
    assert cost_from_json(json.loads(json.dumps(asdict(cost)))) == cost


def test_a_latency_is_found_by_its_batch_size():
    """A batch size that was not measured is an error."""
    one = Interval(1, 1, 1)
    latency = Latency(32, 64, one, None, None, 1, one, 1)
    cost = Cost((latency, replace(latency, batch_size=1)), 1, 1, 1, 1, "test")
    assert cost.latency(32) is cost.busiest is latency
    with pytest.raises(KeyError):
        cost.latency(8)


def test_a_damaged_document_is_refused():
    """Data from outside is checked at the border."""
    with pytest.raises(ValidationError):
        from_json({"accuracy": {"split": "test"}, "cost": None})
