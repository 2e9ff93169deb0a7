"""First guesses from other models: which family counts, how good they are, and what a search does with them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.anchor_choice import suited_anchors
from autocut.search.first_guesses import FirstGuesses, MethodEffect, ModelFamily, ModelTraits, kept_of, known_families, own_family
from autocut.search.lowerings import by_promise, guessed
from autocut.space import load_space
from tests.fakes import KNOWN

GENOA = "fma avx2 avx512_vnni avx512_bf16"
BERT = ModelTraits(0.0, attention=True, embeddings=True, causal=False, parameters=110_000_000)
TABLE = ModelTraits(0.0, attention=False, embeddings=True, causal=False, parameters=50_000)
RESNET = ModelTraits(0.98, attention=False, embeddings=False, causal=False, parameters=11_000_000)
LLM = ModelTraits(0.0, attention=True, embeddings=True, causal=True, parameters=15_000_000)
ROWS = Path(__file__).parents[2] / "studies" / "method_matrix" / "rows.csv"


@pytest.mark.parametrize(
    ("traits", "family"), [(BERT, "snips"), (TABLE, "housing"), (RESNET, "cifar10_resnet20"), (LLM, "stories260k")]
)
def test_a_model_is_like_those_with_the_same_kinds_of_layers(traits, family):
    """Size decides among them."""
    assert known_families().guesses(traits, GENOA).nearest().name == family


@pytest.mark.parametrize("family", known_families().families, ids=lambda family: family.name)
def test_a_family_is_guessed_well_by_the_others(family):
    """Of each batch size: one of the first three choices has 70% of the speed of the best lowering, or more."""
    guesses = known_families().guesses(family.traits, GENOA, without=[family.name])
    names = [tuple(name.split("/")) for name in family.effects["lowering"]]
    for call_ms, column in zip(family.call_ms, ("speedup_small", "speedup_large"), strict=True):
        truth = {name: getattr(family.effects["lowering"]["/".join(name)], column) for name in names}
        guess = {name: found.speedup for name in names if (found := guesses.at(call_ms).lowering(name)) is not None}
        first = sorted(guess, key=guess.get, reverse=True)[:3]
        assert max(truth[name] for name in first) >= 0.7 * max(truth.values())


@pytest.mark.skipif(not ROWS.exists(), reason="a source distribution has no rows of the matrix")
def test_the_file_was_made_from_the_rows_of_the_matrix():
    """After a new measurement: python studies/method_matrix/first_guesses.py."""
    assert known_families().origin["source"]["sha256"] == hashlib.sha256(ROWS.read_bytes()).hexdigest()


def test_the_milliseconds_of_a_call_decide_between_small_and_large_batches():
    """A call that has much to do gains less from a runtime with less overhead."""
    guesses = known_families().guesses(TABLE, GENOA)
    small, large = (guesses.at(call_ms).lowering(("int8_dynamic", "aot_inductor")).speedup for call_ms in (0.05, 0.5))

    assert small > 1.2 * large


def test_another_kind_of_processor_weakens_the_guesses():
    """What is 4x here may be 2x there; the order stays."""
    here, there = (known_families().guesses(RESNET, instructions) for instructions in (GENOA, f"{GENOA} amx_int8 amx_bf16"))
    strong, weak = (guesses.lowering(("int8_static", "onnxruntime")).speedup for guesses in (here, there))

    assert strong == pytest.approx(weak**2)


def test_methods_of_a_plug_in_get_the_neutral_guess_or_their_own(start):
    """No family has tried them."""
    state = start().searcher.state
    ours, theirs = ("mine", "eager"), ("theirs", "eager")
    guesses = known_families().guesses(TABLE, GENOA)
    state.settings = replace(state.settings, first_guesses=guesses, registered_speedups={theirs: 7.0})
    found = guessed(state, [ours, theirs, ("fp32", "mine")])

    assert guesses.lowering(ours) is None
    assert [found[name].speedup for name in (ours, theirs, ("fp32", "mine"))] == [2.0, 7.0, 1.1]


def test_a_dtype_without_instructions_is_guessed_to_be_as_fast_as_fp32():
    """ResNet-50 on a processor without VNNI: int8 gained 1.2 to 1.3x at batch 32, where those with VNNI gain 4x and more."""
    with_them = known_families().guesses(RESNET, "avx2")
    without = replace(with_them, not_accelerated=frozenset({"int8_static"}))
    int8, fp32 = ("int8_static", "onnxruntime"), ("fp32", "onnxruntime")

    assert with_them.lowering(int8).speedup > with_them.lowering(fp32).speedup
    assert without.lowering(int8) == replace(with_them.lowering(int8), speedup=with_them.lowering(fp32).speedup)
    assert without.lowering(("int8_static:4", "onnxruntime")).speedup < without.lowering(fp32).speedup
    measured = without.with_family(own_family({"/".join(int8): MethodEffect(3.0, 3.0, 0.25, 1.0, 5.0)}, {}))
    assert measured.lowering(int8).speedup == pytest.approx(3.0)


def test_layers_that_stay_float_take_a_part_of_the_gain():
    """So the lowering without them is tried first."""
    guesses = known_families().guesses(RESNET, GENOA)
    whole, part = (guesses.lowering((dtype, "openvino")).speedup for dtype in ("int8_static", "int8_static:4"))

    assert 1 < part < whole


def test_baselines_begin_with_what_similar_models_gained_most_from(start):
    """The most gain per second, not the fewest seconds."""
    machine = start()
    state = machine.searcher.state
    state.settings = replace(state.settings, first_guesses=known_families().guesses(RESNET, GENOA))
    machine.run(most_jobs=2)
    order = [recipe.lowering for recipe in machine.jobs[1].recipes]

    assert order[0] == ("int8_static", "onnxruntime")
    assert order == by_promise(state, order)


def test_what_a_lowering_brings_here_changes_what_is_expected_of_those_alike(start):
    """Int8 is twice as fast as guessed in one mode: so it probably is in the others, and so are other dtypes in this mode."""
    state = start().searcher.state
    state.settings = replace(state.settings, first_guesses=known_families().guesses(RESNET, "avx2"))
    measured, same_dtype, same_mode = ("int8_static", "onnxruntime"), ("int8_static:4", "openvino"), ("int8_dynamic", "onnxruntime")
    unlike, floats = ("bf16", "openvino"), [("fp32", "openvino"), ("fp32", "onnxruntime")]
    others = [same_dtype, same_mode, unlike, *floats]
    before, of_measured = guessed(state, others), guessed(state, [measured])[measured]
    values = {"accuracy": 0.9, "usd_per_million": 1.0, "size_bytes": 1e6}
    state.finish(UNTOUCHED, {**values, "speedup": 1.0})
    state.finish(UNTOUCHED.with_lowering("fp32", "onnxruntime"), {**values, "speedup": before["fp32", "onnxruntime"].speedup})
    assert guessed(state, others) == before, "as guessed is no surprise"

    state.finish(UNTOUCHED.with_lowering(*measured), {**values, "speedup": 2 * of_measured.speedup})
    after = guessed(state, others)
    factor = {one: after[one].speedup / before[one].speedup for one in others}
    assert factor[same_dtype] == pytest.approx(2 ** (1 / 3))
    assert factor[same_mode] == pytest.approx(2 ** (1 / 4)), "of two lowerings by this mode one was as guessed"
    assert factor[unlike] == factor["fp32", "openvino"] == pytest.approx(1.0)


def test_anchors_get_the_pruner_that_similar_models_fared_better_with(start):
    """Anchors that cut channels of a convolutional network stay. Zeros save nothing, so another pruner takes their place."""
    state = start().searcher.state
    space = load_space("default", KNOWN)
    state.settings = replace(state.settings, space=space, first_guesses=known_families().guesses(RESNET, GENOA))
    assert {anchor["prune.method"] for anchor in suited_anchors(state)} == {"none", "structured", "structured_taylor"}

    good, poor = MethodEffect(2.0, 2.0, 0.5, 0.9, 1.0), MethodEffect(1.2, 1.2, 0.8, 0.4, 1.0)
    family = ModelFamily("made up", LLM, (1.0, 2.0), {"recover": {"structured": poor, "heads_and_neurons": good}})
    state.settings = replace(state.settings, first_guesses=FirstGuesses(((family, 0.0),)))
    anchors = suited_anchors(state)
    assert {anchor["prune.method"] for anchor in anchors} == {"none", "heads_and_neurons", "l1_unstructured"}

    state.mark_infeasible(Recipe({"prune.method": "heads_and_neurons", "prune.ratio": 0.5}))
    assert "heads_and_neurons" not in {anchor["prune.method"] for anchor in suited_anchors(state)}


def test_what_the_user_has_measured_comes_before_what_others_have():
    """But only for the methods that were tried there."""
    tried, not_tried = ("int8_static", "onnxruntime"), ("int8_static", "openvino")
    guesses = known_families().guesses(RESNET, f"{GENOA} amx_int8")
    own = own_family({"/".join(tried): MethodEffect(9.0, 9.0, 0.25, 1.0, 5.0)}, {})
    taught = guesses.with_family(own)

    assert taught.lowering(tried).speedup == pytest.approx(9.0)
    assert taught.lowering(not_tried) == guesses.lowering(not_tried)


def test_a_loss_counts_against_a_tenth_of_the_metric():
    """Of any sign: a perplexity is a negative metric."""
    assert kept_of(0.01, 0.9) == 1.0
    assert kept_of(-0.045, 0.9) == pytest.approx(0.5)
    assert kept_of(-0.6, -5.9) == 0.0
    assert UNTOUCHED.lowering not in [name for family in known_families().families for name in family.effects["lowering"]]
