"""Cost first: what is known of a structure's cost decides before anything is trained."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.recipe import Recipe
from autocut.search.cost_model import CostModel, cheapest_modes, dominates

ORT = ("fp32", "onnxruntime")


def structured(ratio, lowering=ORT):
    """A structured prune at `ratio` with a lowering."""
    return Recipe({"prune.method": "structured", "prune.ratio": ratio}).with_lowering(*lowering)


def test_a_timed_structure_is_known_exactly():
    """Training changes weights, not cost: a trained recipe of the same structure has the cost of the untrained one."""
    model = CostModel()
    model.learn(structured(0.5), {"usd_per_million": 2.0, "accuracy": 0.1})
    trained = Recipe({**structured(0.5), "train.epochs": 4})

    assert model.is_known(trained)
    assert model.predict(trained) == {"usd_per_million": 2.0}


def test_between_two_ratios_the_cost_is_a_geometric_mean_less_a_margin():
    """Interpolated in the logarithm, and 10% optimistic, so that a guess never drops a recipe that could win."""
    model = CostModel()
    model.learn(Recipe().with_lowering(*ORT), {"usd_per_million": 8.0})
    model.learn(structured(0.5), {"usd_per_million": 2.0})

    assert model.predict(structured(0.25))["usd_per_million"] == pytest.approx(4.0 * 0.9)
    assert not model.is_known(structured(0.25))


@pytest.mark.parametrize("ratio", [0.6, 0.9])
def test_outside_what_was_measured_nothing_is_said(ratio):
    """Extrapolation would drop recipes for a cost that was never measured."""
    model = CostModel()
    model.learn(Recipe().with_lowering(*ORT), {"usd_per_million": 8.0})
    model.learn(structured(0.5), {"usd_per_million": 2.0})

    assert model.predict(structured(ratio)) is None
    assert model.predict(structured(0.25, ("int8_static", "onnxruntime"))) is None


def test_modes_of_one_graph_keep_the_cheapest_only():
    """Two modes that run the same quantized graph have one accuracy: the more expensive one can never be on the front."""
    lowerings = [("fp32", "eager"), ("fp32", "aot_inductor"), ("int8_static", "onnxruntime"), ("bf16", "eager")]
    graphs = {lowerings[0]: "fp32", lowerings[1]: "fp32", lowerings[2]: "ort int8", lowerings[3]: "bf16"}
    costs = {lowerings[0]: {"usd_per_million": 5.0}, lowerings[1]: {"usd_per_million": 3.0}, lowerings[2]: {"usd_per_million": 2.0}}

    assert cheapest_modes(lowerings, costs, graphs, ["usd_per_million"]) == lowerings[1:]


def test_a_reduced_precision_that_costs_more_than_full_precision_is_dropped():
    """It cannot be more accurate, so it has nothing to offer; what is merely unknown stays."""
    lowerings = [("fp32", "onnxruntime"), ("bf16", "eager"), ("int8_static", "onnxruntime")]
    graphs = {lowering: lowering[0] for lowering in lowerings}
    costs = {lowerings[0]: {"usd_per_million": 3.0}, lowerings[1]: {"usd_per_million": 4.0}}

    assert cheapest_modes(lowerings, costs, graphs, ["usd_per_million"]) == [lowerings[0], lowerings[2]]


def test_without_a_cost_objective_no_mode_is_dropped():
    """A search for training dollars has no reason to prefer a mode."""
    lowerings = [("fp32", "eager"), ("fp32", "aot_inductor")]

    assert cheapest_modes(lowerings, {}, dict.fromkeys(lowerings, "fp32"), []) == lowerings


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=4), st.data())
def test_domination_is_strict_and_has_no_cycles(left, data):
    """Checked against the definition written out."""
    right = data.draw(st.lists(st.floats(-10, 10), min_size=len(left), max_size=len(left)))
    oracle = not any(a > b for a, b in zip(left, right, strict=True)) and left != right

    assert dominates(left, right) == (oracle and not math.isnan(sum(left)))
    assert not (dominates(left, right) and dominates(right, left))
