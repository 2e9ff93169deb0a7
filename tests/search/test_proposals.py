"""Proposals: Optuna's samplers over the conditional space, without a trace of what was not run."""

import pytest

from autocut.errors import UnknownNameError
from autocut.recipe import Recipe
from autocut.search.proposals import Proposer, sampler_names
from autocut.space import Axis, Space


@pytest.mark.parametrize("sampler", [name for name in sampler_names() if name != "gp"])
def test_every_sampler_proposes_recipes_of_the_space_and_learns(sampler, space):
    """Told, rejected, forgotten and learned trials are all taken."""
    proposer = Proposer(space, sampler, seed=0)
    for index in range(15):
        trial, recipe = proposer.propose()
        assert space.contains(recipe), space.why_not(recipe)
        if index % 3 == 0:
            proposer.reject(trial)
        elif index % 3 == 1:
            proposer.forget(trial)
        else:
            proposer.tell(trial, [0.9, 0.1, 1e5], {"latency_ms<=5": -1.0})
    proposer.learn(Recipe().with_lowering("fp32", "onnxruntime"), [0.98, 0.05, 1e5], {})

    assert space.contains(proposer.propose()[1])


def test_parameters_of_a_recipe_are_those_that_count(space):
    """No ratio without a pruning method, no temperature without distillation."""
    proposer = Proposer(space, "tpe", seed=0)
    params, distributions = proposer.parameters(Recipe().with_lowering("fp32", "onnxruntime"))

    assert params == {
        "prune.method": "none",
        "train.epochs": 0,
        "quantize.dtype": "fp32",
        "compile.mode": "onnxruntime",
    }
    assert params.keys() == distributions.keys()


def test_a_recipe_outside_the_space_has_no_parameters(space):
    """Some baselines lie outside; they are recorded, but no sampler can learn from them."""
    assert Proposer(space, "tpe", 0).parameters(Recipe({"prune.method": "structured", "prune.ratio": 0.123})) == ({}, {})


def test_a_resumed_search_does_not_repeat_its_first_suggestions(space):
    """An Optuna sampler is not stored: its seed moves on with the trials known."""
    first = [Proposer(space, "tpe", 0).propose()[1] for _ in range(1)]
    resumed = [Proposer(space, "tpe", 0, known_trials=20).propose()[1] for _ in range(1)]

    assert first != resumed


def test_the_sampler_learns_that_no_layer_was_kept_in_float():
    """A recipe leaves a 0 out. Without it the sampler would only ever see what 4 layers give."""
    plain = Axis("quantize.dtype", ("fp32", "int8_static"))
    kept = Axis("quantize.keep_float", (0, 4), integer=True, when={"quantize.dtype": ("int8_static",)})
    proposer = Proposer(Space("kept", {"accuracy": "maximize"}, (plain, kept)), "tpe", seed=0)

    for count in (0, 4):
        recipe = Recipe({"quantize.dtype": "int8_static", "quantize.keep_float": count})
        assert proposer.parameters(recipe)[0] == {"quantize.dtype": "int8_static", "quantize.keep_float": count}
    assert proposer.parameters(Recipe())[0] == {"quantize.dtype": "fp32"}


def test_an_unknown_sampler_is_told_with_the_nearest_name(space):
    """Exit code 2, never a fallback."""
    with pytest.raises(UnknownNameError) as caught:
        Proposer(space, "tpee", 0)
    assert "tpe" in (caught.value.hint or "")


def test_a_child_is_told_to_the_sampler_without_its_parent(space):
    """The space need not know that weights can be inherited."""
    trained = Recipe({"prune.method": "structured", "prune.ratio": 0.7, "train.epochs": 2, "train.lr_scale": 0.3})
    proposer = Proposer(space, "tpe", 0)

    assert proposer.parameters(Recipe({**trained, "prune.parent_ratio": 0.5})) == proposer.parameters(trained)


def test_a_pruned_and_trained_recipe_can_be_pruned_on(space):
    """Its child is trained in the same way, from its weights."""
    parent = Recipe({"prune.method": "structured", "prune.ratio": 0.1, "train.epochs": 2, "train.lr_scale": 0.3})
    proposer = Proposer(space, "tpe", 0)
    children = [child for _ in range(10) if (child := proposer.prune_more(parent))]

    assert children
    assert {child.parent for child in children} == {parent}
    assert proposer.prune_more(Recipe()) is None


def test_a_variation_lies_in_the_space_and_is_another_recipe(space):
    """One or two settings are drawn anew, and what they switch on."""
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 0.3})
    proposer = Proposer(space, "tpe", 0)
    varied = [proposer.vary(recipe) for _ in range(30)]

    assert all(space.contains(one) for one in varied)
    assert len(set(varied) - {recipe}) > 10


def test_a_long_search_is_looked_at_in_part(space):
    """The front and the latest trials stay; a trial that was proposed before still gets its result."""
    proposer = Proposer(space, "random", 0)
    early, _ = proposer.propose()
    for index in range(400):
        proposer.learn(Recipe().with_lowering("fp32", "onnxruntime"), [0.9 + 1e-4 * index, 0.1, 1e5], {})
    proposer.propose()
    proposer.tell(early, [0.99, 0.01, 1e3], {})
    kept = proposer.trials()

    assert len(kept) < 200
    assert max(trial.values[0] for trial in kept if trial.values) == 0.99
