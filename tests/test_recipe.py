"""Recipes: equal settings have one spelling."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.recipe import IDENTITY, PARENT_RATIO, UNTOUCHED, Recipe, changed_settings

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "model.student": st.sampled_from(["none", "narrow"]),
        "prune.method": st.sampled_from(["none", "structured", "l1_unstructured"]),
        "prune.ratio": st.sampled_from([0.1, 0.3, 0.5]),
        "prune.when": st.sampled_from(["before_training", "after_training"]),
        "train.epochs": st.integers(0, 3),
        "train.lr_scale": st.sampled_from([0.1, 1, 1.0]),
        "curriculum.schedule": st.sampled_from(["none", "linear"]),
        "curriculum.order": st.sampled_from(["easy_first", "random"]),
        "distill.loss": st.sampled_from(["none", "kl"]),
        "distill.temperature": st.sampled_from([2, 2.0, 4.5]),
        "quantize.dtype": st.sampled_from(["fp32", "int8_static"]),
        "compile.mode": st.sampled_from(["eager", "onnxruntime"]),
    },
)


def test_settings_are_rounded_before_their_effect_is_checked():
    """A ratio drawn as 0.1 + 0.05 * 4 equals the parent's 0.3, so there is no parent."""
    drawn = Recipe({"prune.method": "structured", "prune.ratio": 0.1 + 0.05 * 4, PARENT_RATIO: 0.3, "train.epochs": 2})

    assert drawn.parent is None
    assert drawn == Recipe(dict(drawn))


@given(SETTINGS)
def test_equal_recipes_share_hash_fingerprint_and_spelling(settings):
    """Oracle: the same settings in another order, with the defaults written out, and through JSON."""
    recipe = Recipe(settings)
    others = [
        Recipe(dict(reversed(settings.items()))),
        Recipe({**IDENTITY, **settings}),
        Recipe(json.loads(recipe.canonical_json())),
        pickle.loads(pickle.dumps(recipe)),
    ]
    for other in others:
        assert other == recipe
        assert hash(other) == hash(recipe)
        assert other.fingerprint == recipe.fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prune.ratio": 0.5}, {}),
        ({"train.lr_scale": 0.1}, {}),
        ({"curriculum.schedule": "linear", "curriculum.start": 0.2}, {}),
        ({"distill.loss": "kl"}, {}),
        ({"train.epochs": 2, "curriculum.order": "random"}, {"train.epochs": 2}),
        ({"train.epochs": 2, "distill.alpha": 0.5}, {"train.epochs": 2}),
    ],
)
def test_settings_without_effect_make_no_other_recipe(one, other):
    """A ratio without a pruning method, distillation without training: the same model."""
    assert Recipe(one) == Recipe(other)


def test_a_number_is_the_same_however_it_is_written():
    """A person writes 0.3 and 1; a sampler that adds steps gets 0.30000000000000004 and 1.0."""
    by_hand = Recipe({"prune.method": "structured", "prune.ratio": 0.3, "train.epochs": 2, "train.lr_scale": 1})
    sampled = Recipe({"prune.method": "structured", "prune.ratio": 0.1 + 0.2, "train.epochs": 2, "train.lr_scale": 1.0})
    assert by_hand == sampled
    assert len({by_hand, sampled}) == 1
    assert sampled["prune.ratio"] == 0.3


@given(SETTINGS)
def test_prefix_and_lowering_make_the_whole(settings):
    """A trained prefix has many lowerings."""
    recipe = Recipe(settings)
    assert recipe.prefix.with_lowering(*recipe.lowering) == recipe
    assert recipe.prefix.lowering == ("fp32", "eager")


def test_the_untouched_model_changes_nothing():
    """An empty recipe is the untouched model."""
    assert changed_settings(Recipe()) == {}
    assert Recipe().describe() == "untouched"
    assert not Recipe().is_trained


def test_a_recipe_is_described_by_the_knobs_it_turns():
    """People read this line in tables."""
    recipe = Recipe(
        {
            "prune.method": "structured",
            "prune.ratio": 0.5,
            "train.epochs": 4,
            "distill.loss": "kl",
            "distill.temperature": 4.0,
            "quantize.dtype": "int8_static",
            "compile.mode": "onnxruntime",
        }
    )
    assert recipe.describe() == "structured 0.5 + 4 epochs + distill kl T=4 + int8_static + onnxruntime"
    assert recipe.settings("distill") == {"distill.loss": "kl", "distill.temperature": 4.0}


def test_two_recipes_that_differ_in_a_number_do_not_look_alike():
    """Learning rate, weight of the teacher and start of the curriculum change the model."""
    recipe = Recipe(
        {
            "train.epochs": 8,
            "train.lr_scale": 0.3,
            "curriculum.schedule": "linear",
            "curriculum.order": "easy_first",
            "curriculum.start": 0.25,
            "distill.loss": "kl",
            "distill.temperature": 4.0,
            "distill.alpha": 0.9,
        }
    )
    words = "8 epochs lr x0.3 + curriculum linear easy_first from 0.25 + distill kl T=4 alpha=0.9"
    assert recipe.describe() == words
    assert Recipe({**recipe, "distill.decay": "none"}) == recipe
    assert Recipe({**recipe, "distill.decay": "linear"}).describe() == f"{words} to 0"
    assert Recipe({**recipe, "distill.features": "none"}) == recipe
    assert Recipe({**recipe, "distill.features": "similarity"}).describe() == f"{words} and similarity of features"


def test_layers_in_float_are_part_of_the_lowering():
    """They decide neither weights nor structure, and a lowering names them by itself."""
    recipe = Recipe({"quantize.dtype": "int8_static", "quantize.keep_float": 4, "compile.mode": "onnxruntime"})

    assert recipe.lowering == ("int8_static:4", "onnxruntime")
    assert UNTOUCHED.with_lowering(*recipe.lowering) == recipe != UNTOUCHED.with_lowering("int8_static", "onnxruntime")
    assert recipe.with_lowering("int8_static", "onnxruntime") == UNTOUCHED.with_lowering("int8_static", "onnxruntime")
    assert recipe.prefix == UNTOUCHED
    assert recipe.describe() == "int8_static but 4 layers + onnxruntime"


def test_no_layer_in_float_makes_the_recipe_that_it_was_before_there_was_a_choice():
    """Studies and bundles of before are found again by their fingerprint."""
    old = Recipe({"quantize.dtype": "int8_static", "compile.mode": "onnxruntime"})

    assert Recipe({**old, "quantize.keep_float": 0}).canonical_json() == old.canonical_json()
    assert old.fingerprint == "8db2439d8ef7"
    assert Recipe({"quantize.keep_float": 4}) == UNTOUCHED


def test_a_training_that_is_aware_of_a_dtype_is_of_use_for_this_dtype_alone():
    """It is a setting of the training, and a recipe without it is the one that it was before there was a choice."""
    plain = Recipe({"train.epochs": 2})
    aware = Recipe({**plain, "train.quantization_aware": "int8"})

    assert aware.describe() == "2 epochs aware of int8"
    assert aware.with_lowering("int8_static", "onnxruntime").prefix == aware
    assert [aware.suits_dtype(dtype) for dtype in ("int8_static:4", "int8_dynamic", "fp32", "int4_weight_only")] == [1, 1, 0, 0]
    assert plain.suits_dtype("fp32")
    assert Recipe({**plain, "train.quantization_aware": "none"}).canonical_json() == plain.canonical_json()
    assert Recipe({"train.quantization_aware": "int8"}) == UNTOUCHED
    assert not aware.only_trains_on
    assert aware.untouched_trained_alike == plain


def test_a_recipe_cannot_be_changed():
    """It is a key."""
    with pytest.raises(TypeError):
        Recipe()["prune.ratio"] = 0.5


def test_a_recipe_read_back_has_the_very_same_settings():
    """They are part of stage keys: 1.0 in one process and 1 in the next would train everything again."""
    made = Recipe({"train.epochs": 2, "train.lr_scale": 1.0, "distill.loss": "kl", "distill.temperature": 4.0})
    read = Recipe(json.loads(made.canonical_json()))

    assert json.dumps(made.settings("train", "distill")) == json.dumps(read.settings("train", "distill"))


def test_an_heir_names_its_parent():
    """The parent has the same training at the smaller ratio, and no lowering of its own."""
    trained = {"prune.method": "structured", "train.epochs": 2, "train.lr_scale": 0.3}
    child = Recipe({**trained, "prune.ratio": 0.7, "prune.parent_ratio": 0.5}).with_lowering("int8_static", "onnxruntime")

    assert child.parent == Recipe({**trained, "prune.ratio": 0.5})
    assert child.prefix.parent == child.parent
    assert child.describe() == "structured 0.7 after 0.5 + 2 epochs lr x0.3 + int8_static + onnxruntime"
    assert (child.parent.all_epochs, child.all_epochs) == (2, 4)
    assert child.untouched_trained_alike == Recipe({"train.epochs": 4, "train.lr_scale": 0.3})


@pytest.mark.parametrize("changes", [{"train.epochs": 0}, {"prune.method": "none"}, {"prune.parent_ratio": 0.7}])
def test_without_a_trained_less_pruned_parent_there_is_nothing_to_inherit(changes):
    """Such a setting has no effect and is dropped."""
    settings = {"prune.method": "structured", "prune.ratio": 0.7, "prune.parent_ratio": 0.5, "train.epochs": 2, **changes}

    assert Recipe(settings).parent is None
    assert "prune.parent_ratio" not in Recipe(settings)


CUT = {"prune.method": "structured", "prune.ratio": 0.7}
DISTILLED = {"train.epochs": 2, "distill.loss": "kl", "distill.temperature": 4.0}


def test_what_is_pruned_last_starts_from_the_training_of_the_whole_model():
    """Cuts of every method and ratio share that one training, and it has another place in the words."""
    last = Recipe({**CUT, **DISTILLED, "prune.when": "after_training"}).with_lowering("int8_static", "onnxruntime")
    other = Recipe({**last, "prune.method": "l1_unstructured", "prune.ratio": 0.25})

    assert last.parent == other.parent == Recipe(DISTILLED)
    assert last.trainings == other.trainings == (Recipe(DISTILLED),)
    assert last.prefix.lowering == UNTOUCHED.lowering
    assert (last.prunes_last, last.is_trained, last.all_epochs) == (True, True, 2)
    assert last.untouched_trained_alike == Recipe({"train.epochs": 2})
    assert last.describe() == "2 epochs + distill kl T=4 + structured 0.7 after training + int8_static + onnxruntime"


def test_both_orders_have_one_structure_and_are_two_recipes():
    """A structure is priced once, whatever order has made it."""
    first, last = Recipe({**CUT, **DISTILLED}), Recipe({**CUT, **DISTILLED, "prune.when": "after_training"})

    assert first.cut == last.cut
    assert first != last
    assert (first.parent, first.trainings) == (None, (first,))
    assert Recipe({**first, "prune.when": "before_training"}).canonical_json() == first.canonical_json()


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        (CUT, CUT),
        (DISTILLED, DISTILLED),
        ({"model.student": "narrow", **DISTILLED}, {"model.student": "narrow", **DISTILLED}),
        ({"prune.ratio": 0.7, "prune.parent_ratio": 0.5}, {}),
    ],
)
def test_an_order_of_one_step_makes_no_other_recipe(settings, plain):
    """Without a training, or without a cut, there is nothing to put in order."""
    assert Recipe({**settings, "prune.when": "after_training"}) == Recipe(plain)


def test_there_is_no_parent_of_another_ratio_after_the_training():
    """Two cuts without a training between them are one."""
    last = {**CUT, **DISTILLED, "prune.when": "after_training"}
    assert Recipe({**last, "prune.parent_ratio": 0.5}) == Recipe(last)


@given(SETTINGS)
def test_the_trainings_of_a_recipe_are_prefixes_that_train_by_themselves(settings):
    """Oracle: as many epochs as its trainings have; each of them needs itself last, and no lowering."""
    recipe = Recipe(settings)
    assert bool(recipe.trainings) == recipe.is_trained
    assert recipe.all_epochs == sum(training["train.epochs"] for training in recipe.trainings)
    for training in recipe.trainings:
        assert training.trainings[-1] == training == training.prefix


def test_a_student_is_another_start():
    """It is trained from the weights that it was built with, and is no longer training of the untouched model."""
    trained = {"train.epochs": 10, "distill.loss": "kl"}
    student = Recipe({"model.student": "narrow", **trained, "train.start": "trained"})

    assert (student.student, student.starts_trained, student.only_trains_on) == ("narrow", False, False)
    assert student == Recipe({"model.student": "narrow", **trained, "train.start": "scratch"})
    assert student.cut == Recipe({"model.student": "narrow"}).cut != UNTOUCHED.cut
    assert student.untouched_trained_alike == UNTOUCHED
    assert student.describe() == "student narrow + 10 epochs + distill kl"
    assert student.prefix.student == student.with_lowering("int8_static", "onnxruntime").student == "narrow"


def test_a_recipe_without_a_student_is_spelled_as_ever():
    """Keys and fingerprints of older studies hold."""
    assert Recipe({"model.student": "none"}) == UNTOUCHED
    assert UNTOUCHED.fingerprint == "b7c238e53648"
    assert (UNTOUCHED.student, UNTOUCHED.starts_trained) == (None, True)
