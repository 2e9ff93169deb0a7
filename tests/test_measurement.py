"""Records of measurements and their JSON form."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autocut.measurement import (
    Accuracy,
    Capacity,
    Cost,
    Interval,
    Latency,
    Layout,
    Measurement,
    cost_from_json,
    from_json,
    to_json,
    told_together,
)

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
    disturbance=st.floats(1, 100),
    load=st.none() | st.floats(0, 64),
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
    batch_size=st.none() | st.integers(1, 512),
)
LAYOUTS = st.builds(
    Layout,
    copies=st.integers(1, 64),
    threads=st.integers(1, 64),
    per_s=INTERVALS,
    yardstick_per_s=st.floats(1, 1e9),
    load=st.floats(0, 64),
)
CAPACITIES = st.builds(
    Capacity,
    batch_size=st.integers(1, 512),
    processors=st.integers(1, 64),
    layouts=st.lists(LAYOUTS, min_size=1, max_size=3).map(tuple),
    untouched=st.lists(LAYOUTS, min_size=1, max_size=3).map(tuple),
    left_out=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)
MEASUREMENTS = st.builds(
    Measurement,
    accuracy=ACCURACIES,
    cost=COSTS,
    peak_memory_bytes=st.none() | st.integers(0),
    energy_j_per_prediction=st.none() | NUMBER,
    energy_source=st.none() | st.text(max_size=5),
    capacity=st.none() | CAPACITIES,
    capacity_note=st.none() | st.text(max_size=5),
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


ONE = Interval(1.0, 1.0, 1.0)
CALM = Latency(1, 64, ONE, None, None, 1.0, ONE, 1.0)


def test_a_document_of_an_older_version_has_no_disturbance():
    """It was not looked for: such a number is neither marked nor timed again."""
    document = to_json(Measurement(Accuracy("test", 10, ONE), Cost((CALM,), 1, 1, 1, 1.0, "here")))
    for name in ("disturbance", "load"):
        del document["cost"]["latencies"][0][name]
    del document["accuracy"]["batch_size"]
    read = from_json(document)
    assert (read.cost.is_disturbed, read.cost.load, read.accuracy.batch_size, read.caveats) == (False, None, None, ())


def test_the_worst_batch_size_decides_whether_a_cost_is_disturbed():
    """Its price comes from one of them, its latency from another."""
    latencies = (replace(CALM, load=0.2), replace(CALM, batch_size=32, disturbance=1.5, load=0.7))
    cost = Cost(latencies, 1, 1, 1, 1.0, "here")
    assert (cost.disturbance, cost.load, cost.is_disturbed) == (1.5, 0.7, True)
    assert not replace(cost, latencies=latencies[:1]).is_disturbed


def test_a_measurement_says_what_its_reader_must_know():
    """A disturbed timing, a busy neighbour, and an accuracy that holds in batches of one size."""
    disturbed = replace(CALM, batch_size=32, disturbance=1.52, load=1.04)
    cost = Cost((CALM, disturbed), 1, 1, 1, 1.0, "here")
    first, second, third = Measurement(Accuracy("test", 10, ONE, batch_size=1), cost).caveats
    assert "disturbed the timing at batch size 32, by a factor of 1.5" in first.sentence
    assert "used 1.0 processors" in second.sentence
    assert "accuracy at batch size 1" in third.sentence


def test_caveats_of_many_trials_take_a_line_each_kind_and_name_the_worst():
    """A front of twenty points would repeat one sentence twenty times."""
    busy = {trial: Measurement(Accuracy("test", 10, ONE), Cost((replace(CALM, load=load),), 1, 1, 1, 1.0, "here"))
            for trial, load in ((3, 0.7), (5, 1.6), (8, 1.1))}  # fmt: skip
    alone = Measurement(Accuracy("test", 10, ONE, batch_size=1), Cost((CALM,), 1, 1, 1, 1.0, "here"))
    told = told_together((trial, caveat) for trial, one in [*busy.items(), *busy.items(), (9, alone)] for caveat in one.caveats)

    assert told == [
        "3 trials, the worst is trial 5: Other programs used 1.6 processors during the timing.",
        "trial 9: The answers depend on the batch: this is the accuracy at batch size 1, the worst that is served.",
    ]


def test_a_damaged_document_is_refused():
    """Data from outside is checked at the border."""
    with pytest.raises(ValidationError):
        from_json({"accuracy": {"split": "test"}, "cost": None})


def serves(copies, threads, per_s, spread, yardstick=100.0):
    """A layout that serves `per_s`, give or take `spread`."""
    return Layout(copies, threads, Interval(per_s, per_s - spread, per_s + spread), yardstick)


def test_the_best_layout_is_the_one_that_surely_serves_most():
    """A layout that may serve more, and may serve less, does not win by what it may."""
    capacity = Capacity(32, 4, (serves(1, 1, 250, 5), serves(2, 2, 420, 10), serves(4, 1, 450, 100)), (serves(1, 1, 100, 1),))

    assert str(capacity.best) == "2 copies x 2 threads"


def test_fewer_copies_win_a_tie():
    """One process with all threads serves as much as four copies, within their intervals, and takes a quarter of their memory."""
    capacity = Capacity(32, 4, (serves(1, 4, 440, 10), serves(2, 2, 380, 10), serves(4, 1, 445, 10)), (serves(1, 1, 100, 1),))

    assert str(capacity.best) == "1 copy x 4 threads"


def test_a_slow_hour_is_told_and_changes_no_number():
    """The reference workload was half as fast as beside the untouched model. A bundle is held to its claim."""
    capacity = Capacity(32, 2, (serves(2, 1, 100, 2, yardstick=50),), (serves(1, 1, 40, 1, 70), serves(2, 1, 60, 1, 100)))
    measurement = Measurement(Accuracy("test", 10, ONE), Cost((CALM,), 1, 1, 1, 1.0, "here"), capacity=capacity)

    assert capacity.best is capacity.layouts[0]
    assert capacity.pace == 0.5
    assert capacity.sentence == "the machine serves 100/s as 2 copies x 1 thread, the untouched model 60/s as 2 copies x 1 thread"
    assert [caveat for caveat in measurement.caveats if "0.5 times as fast" in caveat.sentence]


def test_the_untouched_model_gets_the_layout_that_serves_it_most():
    """Its numbers are as measured too: a layout beside a busy neighbour is no better for having a slow yardstick."""
    untouched = (serves(1, 1, 476, 5, yardstick=50), serves(2, 1, 536, 5, yardstick=100))
    capacity = Capacity(32, 2, (serves(2, 1, 900, 5),), untouched)

    assert str(capacity.best_untouched) == "2 copies x 1 thread"
    assert capacity.best_untouched.per_s.value == max(layout.per_s.value for layout in untouched)


def test_a_document_of_an_older_version_has_no_capacity():
    """Its dollars are those of one process."""
    document = to_json(Measurement(Accuracy("test", 10, ONE), Cost((CALM,), 1, 1, 1, 1.0, "here")))
    for name in ("capacity", "capacity_note"):
        del document[name]

    assert from_json(document).capacity is None
    assert from_json(document).charged_by == "one process is charged with the whole machine"
