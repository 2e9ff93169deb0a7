"""The planner: what stages took here is what they will take."""

import re
from dataclasses import replace

import pytest

from autocut.measurement import Cost, Interval, Latency
from autocut.recipe import Recipe
from autocut.search.estimates import ladder, on_ladder, recipe_s, total_s
from autocut.search.jobs import ModelLoaded, StageRan
from autocut.search.planner import Planner
from autocut.search.progress import fits_line

ORT, INT8 = ("fp32", "onnxruntime"), ("int8_static", "onnxruntime")


def observe(planner, stage, method, seconds):
    """Let `planner` see a stage that was made."""
    planner.observe(StageRan("key", stage, method, seconds, False, "compiling"))


@pytest.fixture
def planner():
    """A planner that has seen two lowerings of a mode, and what they shared."""
    planner = Planner(1000, {ORT: 4.0, INT8: 4.0, ("fp32", "eager"): 1.0})
    observe(planner, "convert", "fp32/onnxruntime", 5.0)
    observe(planner, "compile", "fp32/onnxruntime", 1.0)
    observe(planner, "compile", "int8_static/onnxruntime", 2.0)
    return planner


def test_the_first_lowering_of_a_mode_pays_for_what_its_lowerings_share(planner):
    """A lowering by itself takes what it took to make all of it; the next one is cheaper."""
    assert planner.compile_s(INT8) == 7.0
    assert planner.compile_s(INT8, is_converted=True) == 2.0


def test_a_mode_that_shares_nothing_is_not_charged_for_another(planner):
    """Nor is a guess made before anything was measured: it holds all that the mode takes."""
    observe(planner, "compile", "fp32/aot_inductor", 30.0)

    assert planner.compile_s(("fp32", "aot_inductor")) == 30.0
    assert planner.compile_s(("fp32", "eager")) == 1.0


def test_lowerings_that_take_longer_than_guessed_make_the_other_guesses_longer():
    """This processor is slower than those on which the guesses were measured. Two say little, so it is not all believed."""
    planner = Planner(1000, {ORT: 4.0, INT8: 4.0, ("fp32", "torch_compile"): 6.0})
    guessed_s = planner.compile_s(("fp32", "torch_compile"))
    for method in ("fp32/onnxruntime", "int8_static/onnxruntime"):
        observe(planner, "compile", method, 16.0)
        assert planner.compile_s(("fp32", "torch_compile")) >= guessed_s
        observe(planner, "cost", method, 1.0)

    assert 2 * guessed_s < planner.compile_s(("fp32", "torch_compile")) < 4 * guessed_s
    assert planner.compile_s(ORT) == 16.0, "what was measured is no guess"


def test_steps_that_were_tried_tell_how_long_a_training_takes_before_the_first():
    """A cut that answers in half of the time trains in half of it. What a training took counts more than what was tried."""
    planner = Planner(1000, {}, sample_s=0.04)
    halved = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 1})

    assert (Planner(1000, {}).knows_training, planner.knows_training) == (False, True)
    assert planner.train_s(halved) == pytest.approx(40)
    planner.observe_structure(halved.cut, 0.5)
    assert planner.train_s(halved) == pytest.approx(20)
    planner.observe(StageRan("key", "train", "train", 10.0, False, "training", samples_seen=1000), halved)
    assert planner.train_s(halved) == pytest.approx(10)


def test_a_mode_that_compiles_while_it_loads_is_expected_to_do_so_with_every_dtype():
    """Else a lowering of a minute would be begun when half of one is left."""
    planner = Planner(1000, {})
    observe(planner, "compile", "int8_static/torch_compile", 0.1)
    before = planner.lowering_s(("int8_dynamic", "torch_compile"), cost_is_known=True)
    planner.observe_loading(ModelLoaded("int8_static/torch_compile", 50.0))

    assert planner.lowering_s(("int8_dynamic", "torch_compile"), cost_is_known=True) == pytest.approx(max(before, 50.1 + 1.0))


def test_one_lowering_that_was_guessed_badly_does_not_make_the_others_endless():
    """An exporter that stalls once says little about a compiler."""
    planner = Planner(1000, {ORT: 4.0, ("fp32", "torch_compile"): 6.0})
    observe(planner, "compile", "fp32/onnxruntime", 1000.0)
    observe(planner, "cost", "fp32/onnxruntime", 1.0)

    assert planner.compile_s(("fp32", "torch_compile")) == 4 * 6.0


def test_lowerings_of_a_prefix_count_what_they_share_once(start):
    """Five seconds to convert, one to compile: three lowerings of one prefix and one of another."""
    state = start().searcher.state
    other = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
    lowerings = [Recipe().with_lowering(*ORT), Recipe().with_lowering(*INT8), Recipe(), other.with_lowering(*ORT)]
    for dtype in ("fp32", "int8_static"):
        observe(state.planner, "compile", f"{dtype}/onnxruntime", 1.0)
        observe(state.planner, "cost", f"{dtype}/onnxruntime", 0.0)
    before = total_s(state, lowerings)
    observe(state.planner, "convert", "fp32/onnxruntime", 5.0)

    assert total_s(state, lowerings) == pytest.approx(before + 2 * 5.0)
    assert recipe_s(state, lowerings[1]) == pytest.approx(recipe_s(state, lowerings[0]))


@pytest.mark.parametrize(("total_s", "expected"), [(60.0, (1,)), (300.0, (1, 2, 4)), (10.0, (1,)), (86_400.0, (1, 2, 4, 8))])
def test_the_ladder_of_epochs_follows_the_budget(total_s, expected):
    """From minutes to days: one training takes a fixed share of the time at most, and the shortest is always allowed."""
    planner = Planner(1000, {})
    planner.observe(StageRan("key", "train", "none/none", 5.0, False, "training", samples_seen=1000))

    assert planner.ladder([0, 1, 2, 4, 8], total_s, workers=1) == expected


def test_a_cut_that_trains_faster_may_have_more_epochs(start):
    """What one training may take is seconds; the untouched model's own epochs say nothing of a quarter of it."""
    agent = start(budget_s=60.0).searcher
    agent.state.planner = Planner(1000, {}, sample_s=4e-3)
    cut = {"prune.method": "structured", "prune.ratio": 0.5}
    agent.state.planner.observe_structure(Recipe(cut).cut, 0.25)
    long = Recipe({**cut, "train.epochs": 8, "train.lr_scale": 1.0})

    assert ladder(agent.state) == (1,)
    assert ladder(agent.state, long) == (1, 2, 4)
    assert on_ladder(agent.state, long)["train.epochs"] == 4
    assert on_ladder(agent.state, Recipe({**long, "prune.ratio": 0.2}))["train.epochs"] == 1


def test_recipes_are_brought_onto_the_ladder(start):
    """An anchor with more epochs than fit is tried with as many as do; a proposal is not run."""
    agent = start(budget_s=60.0).searcher
    long = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 8, "train.lr_scale": 1.0})

    assert ladder(agent.state) == (1, 2, 4)
    assert on_ladder(agent.state, long)["train.epochs"] == 4
    assert agent.choice.fan_out(long) == ()


def test_a_plan_tells_which_numbers_of_epochs_fit(start):
    """The plan names what is left out, with its seconds, once a training was timed; before that a number would be a guess."""
    agent = start(budget_s=60.0).searcher
    guessed = "\n".join(agent.plan_lines())
    agent.state.planner.observe(StageRan("key", "train", "none/none", 1.0, False, "training", samples_seen=1000))
    told = "\n".join(agent.plan_lines())

    assert "epochs: those of 1, 2, 4, 8 that fit the budget" in guessed
    assert "epochs: 1, 2, 4 (about 4s at most)" in told
    assert "left out, too long for this budget: 8 (8s)" in told


def test_when_the_untouched_model_is_measured_the_plan_says_how_much_fits(start):
    """Seconds of a lowering and of a finalization, and how many of each fit what is left."""
    simulation = start(budget_s=600.0)
    agent = simulation.searcher
    assert "known once the untouched model is measured" in agent.plan_lines()[0]
    simulation.run()
    told = [line for line in agent.progress.lines if line.startswith("plan: ")]

    lowerings, finalizations = told[0].split("; ")
    assert re.fullmatch(r"plan: a lowering takes about \S+ to \S+: \d of 5 fit the \S+ of the search", lowerings)
    assert re.fullmatch(r"a finalization takes about \S+: \d+ fit the \S+ kept for it", finalizations)
    assert told[1].startswith("plan: epochs: ")


def test_a_cut_model_that_was_timed_is_expected_to_train_faster_before_it_was_trained(planner):
    """As the form of it that saves the least; a model of it that was trained tells more, and what lies between is between."""
    trained = {ratio: Recipe({"prune.method": "depth", "prune.ratio": ratio, "train.epochs": 1}) for ratio in (0.5, 0.7, 0.9)}
    planner.observe(StageRan("k", "train", "sgd", 10.0, False, "training", 1000), Recipe({"train.epochs": 1}))
    whole = planner.train_s(Recipe({"train.epochs": 1}))
    for relative in (0.3, 0.4):
        planner.observe_structure(("depth", 0.9), relative)

    assert planner.train_s(trained[0.9]) == pytest.approx(0.4 * whole)
    assert planner.train_s(trained[0.5]) == pytest.approx((1 - 0.6 * 5 / 9) * whole)
    planner.observe(StageRan("l", "train", "sgd", 6.0, False, "training", 1000), trained[0.5])
    assert planner.train_s(trained[0.5]) == pytest.approx(0.6 * whole)
    assert planner.train_s(trained[0.7]) == pytest.approx(0.5 * whole)


def test_the_pace_of_a_model_that_brings_its_weights_follows_from_the_first_cut_that_was_trained(planner):
    """The untouched model was never trained: it would take so much longer as it answers more slowly."""
    half = Recipe({"prune.method": "depth", "prune.ratio": 0.5, "train.epochs": 1})
    planner.observe_structure(half.cut, 0.5)
    planner.observe(StageRan("k", "train", "sgd", 3.0, False, "training", 1000), half)

    assert planner.train_s(Recipe({"train.epochs": 1})) == pytest.approx(2 * planner.train_s(half))


def test_a_plan_that_keeps_less_than_the_first_finalization_takes_says_both(start):
    """The first one also scores the untouched model on the test split: "0 fit" beside seconds that are fewer looked wrong."""
    agent = start(budget_s=600.0).searcher
    told = fits_line(agent.state, replace(agent.budget, reserve_s=0.5))

    assert re.search(r"the first finalization takes about \S+, others \S+; \S+ are kept for it$", told)


def test_what_was_cut_trains_faster():
    """Seconds come from the same ratio, or from between the nearest ones; what was never trained takes the untouched model's."""
    planner = Planner(1000, {})
    for ratio, seconds in ((0.0, 10.0), (0.8, 2.0)):
        recipe = Recipe({"prune.method": "structured", "prune.ratio": ratio}) if ratio else Recipe()
        planner.observe(StageRan("key", "train", "none/none", seconds, False, "training", samples_seen=1000), recipe)

    def takes(method, ratio):
        return planner.train_s(Recipe({"prune.method": method, "prune.ratio": ratio, "train.epochs": 2}))

    assert takes("structured", 0.8) == pytest.approx(4.0)
    assert takes("structured", 0.4) == pytest.approx(12.0)
    assert takes("l1_unstructured", 0.8) == pytest.approx(20.0)
    assert planner.epochs_s(1) == pytest.approx(10.0)


# BERT-base on one thread of an AMD EPYC, by hand: export 17 s, int8 quantization by ONNX Runtime 15 s, scoring 0.25 s an example.
BERT_BYTES = 438_000_000
BERT_PRIORS = {ORT: 4.0, INT8: 4.0, ("fp32", "eager"): 1.0, ("bf16", "eager"): 1.0}


def bert(scored=256, p90s=(None, None)):
    """A planner that has seen BERT-base: its calls at batch 1 and 8, and the scores of `scored` examples."""
    planner, latencies = Planner(1000, BERT_PRIORS), []
    for (batch_size, seconds), p90_ms in zip(((1, 0.35), (8, 2.6)), p90s, strict=True):
        call_ms = Interval(1e3 * seconds, 1e3 * seconds, 1e3 * seconds)
        latencies.append(Latency(batch_size, 7, call_ms, p90_ms, None, 1e3 * seconds, Interval(1.0, 1.0, 1.0), 1.0))
    planner.observe_reference(Cost(tuple(latencies), BERT_BYTES, BERT_BYTES, 1, 0.0, "a machine"))
    observe(planner, "accuracy", "fp32", 0.25 * scored)
    return planner


def test_a_large_model_takes_longer_to_lower_than_what_is_registered():
    """Export and quantization took 32 s by hand; four seconds are registered, for models of some megabytes."""
    assert bert().compile_s(INT8) == pytest.approx(32.0, rel=0.1)


def test_the_size_of_a_small_model_changes_no_prediction():
    """What is registered was measured with small models."""
    planner = Planner(1000, BERT_PRIORS)
    planner.observe_reference(Cost((), 5_000_000, 5_000_000, 1, 0.0, "a machine"))

    assert planner.compile_s(INT8) == 4.0
    assert planner.lowering_s(INT8) == 7.0


@pytest.mark.parametrize(("weights", "expected"), [(438e6, 18.0), (5e6, 5.0)])
def test_a_lowering_whose_growth_with_the_size_is_known_takes_that(weights, expected):
    """OpenVINO makes BERT-base int8 in 18 s, static int8 in 90 s. Both are registered with the five seconds of a small model."""
    dynamic, static = ("int8_dynamic", "openvino"), ("int8_static", "openvino")
    planner = Planner(1000, dict.fromkeys((dynamic, static), 5.0), {dynamic: 4.1, static: 20.3})
    planner.observe_reference(Cost((), int(weights), int(weights), 1, 0.0, "a machine"))

    assert planner.compile_s(dynamic) == pytest.approx(expected, abs=0.1)
    assert planner.compile_s(static) >= planner.compile_s(dynamic)


def test_a_graph_that_was_stored_as_it_is_says_little_about_quantizing_it():
    """The conversion took 17 s, storing its result 1 s; quantization still takes what the size lets expect."""
    planner = bert()
    observe(planner, "convert", "fp32/onnxruntime", 17.0)
    observe(planner, "compile", "fp32/onnxruntime", 1.0)

    assert planner.compile_s(INT8, is_converted=True) == pytest.approx(15.0, rel=0.1)
    assert planner.compile_s(INT8) == pytest.approx(32.0, rel=0.1)


def test_timing_a_slow_model_takes_its_rounds_of_both_models():
    """Five rounds and the first answers: 18 s of the untouched model's calls, and those of a model that is twice as fast or so."""
    assert bert().measuring_s() - 64.0 == pytest.approx(27.0, rel=0.1)


def test_finalizing_a_slow_model_is_the_sum_of_its_parts():
    """64 examples are scored twice, in 16 s each; when verifying, the model is timed once more, alone, and replays for 10 s."""
    assert bert(scored=64).finalize_s() == pytest.approx(2 * 16 + 0.5 * 27 + 10, rel=0.1)


def test_a_model_that_is_slow_in_large_batches_alone_is_expected_to_be_timed_once():
    """A final timing is left out where it would have no more rounds at any size."""
    assert bert(scored=64, p90s=(360.0, None)).finalize_s() == bert(scored=64).finalize_s()
    assert bert(scored=64, p90s=(360.0, 2700.0)).finalize_s() == pytest.approx(bert(scored=64).finalize_s() + 27.0, rel=0.1)


@pytest.mark.parametrize("cached", [False, True])
def test_the_untouched_models_scores_are_made_once(cached):
    """They take as long as a bundle's own. Whoever finalizes after the first point finds them, in a later session too."""
    planner = bert(scored=64)
    assert planner.finalize_s() == pytest.approx(planner.finalize_more_s() + 16.0)
    assert planner.reserve_s(3, 1, 1e6) - planner.reserve_s(2, 1, 1e6) == pytest.approx(1.15 * planner.finalize_more_s())

    planner.observe(StageRan("key", "accuracy", "untouched/test", 16.0, cached, "measuring"))
    assert planner.finalize_s() == planner.finalize_more_s()


def test_a_reserve_for_one_slow_point_leaves_time_to_find_it():
    """Within six minutes: less than a third is kept."""
    assert bert(scored=64).reserve_s(1, 2, 360.0) < 120.0


def test_a_training_that_is_aware_of_a_dtype_is_tried_with_no_other(start):
    """It was trained for it; a plain training gets all the lowerings that promise something."""
    simulation = start(budget_s=600.0)
    simulation.run()
    choice, plain = simulation.searcher.choice, {"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2}
    of_plain, of_aware = (
        choice.promising(Recipe({**plain, "train.quantization_aware": aware}).prefix) for aware in ("none", "int8")
    )

    assert {dtype for dtype, _ in of_plain} > {dtype for dtype, _ in of_aware} >= {"int8_static"}
    assert of_aware == [lowering for lowering in of_plain if lowering[0].startswith("int8")]
