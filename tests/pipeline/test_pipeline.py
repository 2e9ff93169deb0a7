"""The pipeline: recipes become measured models, and no stage is done twice."""

import copy
import dataclasses
import shutil
from functools import partial

import pytest
import torch

from autocut.errors import DeadlineError, InfeasibleRecipeError, StoppedEarlyError
from autocut.measurement import Interval
from autocut.recipe import Recipe
from autocut.search.jobs import StageRan
from autocut.stages import lowering
from autocut.task.loading import load_task

PRUNED = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
TRAINED = Recipe(
    {
        **PRUNED,
        "train.epochs": 1,
        "distill.loss": "kl",
        "distill.temperature": 3.0,
        "distill.alpha": 0.5,
        "curriculum.schedule": "linear",
        "curriculum.order": "easy_first",
        "curriculum.start": 0.5,
    }
)
ORT = ("fp32", "onnxruntime")


def test_a_recipe_is_pruned_trained_lowered_and_measured(make_pipeline):
    """Accuracy with its paired difference, latency against the untouched model, lineage of stage keys."""
    rungs = []
    pipeline, made = make_pipeline(on_rung=rungs.append)
    measured = pipeline.measure(TRAINED.with_lowering(*ORT))

    accuracy, cost = measured.measurement.accuracy, measured.measurement.cost
    assert accuracy.split == "validation"
    assert accuracy.examples == 300
    assert accuracy.difference is not None
    assert [latency.batch_size for latency in cost.latencies] == [1, 8]
    assert len(measured.lineage) == 3
    assert measured.train_seconds > 0
    assert 2800 < measured.samples_seen <= 2800 + 700  # the baseline's four epochs, and a paced one
    assert rungs[-1].metric == pytest.approx(accuracy.metric.value, abs=0.02)
    assert {"baseline", "prune", "teacher", "train", "quantize", "compile", "accuracy", "cost"} <= set(made)


def test_a_second_worker_does_none_of_it_again(make_pipeline):
    """The stage tree is shared, and its stages are reported as found."""
    first, _ = make_pipeline()
    before = first.measure(TRAINED.with_lowering(*ORT))
    second, made = make_pipeline()
    after = second.measure(TRAINED.with_lowering(*ORT))

    assert made == []
    assert after == before


def test_another_lowering_of_a_trained_prefix_costs_no_training(make_pipeline):
    """Only what the lowering itself needs is made."""
    pipeline, made = make_pipeline()
    pipeline.measure(TRAINED.with_lowering(*ORT))
    made.clear()
    pipeline.measure(TRAINED.with_lowering("int8_static", "onnxruntime"))

    assert not {"train", "prune", "baseline", "quantize", "convert"} & set(made)
    assert "compile" in made


def test_lowerings_of_a_mode_share_what_it_makes_of_the_graph(make_pipeline):
    """Neither a second dtype nor a second worker converts the graph again."""
    pipeline, made = make_pipeline()
    for dtype in ("fp32", "int8_dynamic", "int8_static"):
        pipeline.artifact(pipeline.baseline, dtype, "onnxruntime")
    assert made == ["baseline", "quantize", "convert", "compile", "compile", "compile"]

    again, made = make_pipeline()
    shutil.rmtree(again.runner.cache.folder / "entries" / again.artifact(again.baseline, *ORT).key)
    again.artifact(again.baseline, *ORT)
    assert made == ["compile"]


def test_no_second_of_a_shared_step_is_counted_twice(make_pipeline, monkeypatch):
    """Each step is a stage of its own, reported as compiling. It ends before the stage that needs it begins."""
    pipeline, _ = make_pipeline()
    _ = pipeline.baseline
    reported, at_work = [], []
    monkeypatch.setattr(pipeline.runner, "report", reported.append)

    def spied(step, *args, **options):
        at_work.append(len(list((pipeline.runner.cache.folder / "building").iterdir())))
        step(*args, **options)

    for name in ("lower_graph", "convert_graph", "compile_graph"):
        monkeypatch.setattr(lowering, name, partial(spied, getattr(lowering, name)))
    pipeline.artifact(pipeline.baseline, "int8_static", "onnxruntime")

    ran = [(event.stage, event.category) for event in reported if isinstance(event, StageRan)]
    assert ran == [("quantize", "compiling"), ("convert", "compiling"), ("compile", "compiling")]
    assert at_work == [1, 1, 1]


def test_a_structure_is_timed_once_whatever_its_weights(make_pipeline):
    """Latency follows from shapes: the trained model has the cost of the untrained one, accuracy is its own."""
    pipeline, made = make_pipeline()
    untrained = pipeline.measure(PRUNED.with_lowering(*ORT))
    made.clear()
    trained = pipeline.measure(TRAINED.with_lowering(*ORT))

    assert "cost" not in made
    assert trained.structure == untrained.structure
    assert trained.measurement.cost == untrained.measurement.cost
    assert trained.measurement.accuracy != untrained.measurement.accuracy


def test_zeros_are_a_structure_of_their_own(make_pipeline):
    """Unstructured pruning is timed by itself: that it buys no speed is measured, not assumed."""
    pipeline, _ = make_pipeline()
    zeros = pipeline.prefix(Recipe({"prune.method": "l1_unstructured", "prune.ratio": 0.5}))

    assert zeros.structure != pipeline.baseline.structure


def test_the_untouched_model_is_timed_as_the_user_runs_it(make_pipeline):
    """It is the eager module, so its speed-up is 1."""
    pipeline, _ = make_pipeline()
    cost = pipeline.measure(Recipe()).measurement.cost

    assert all(latency.speedup == Interval(1.0, 1.0, 1.0) for latency in cost.latencies)
    assert all(latency.baseline_p50_ms == latency.p50_ms.value for latency in cost.latencies)
    assert cost.size_bytes > 0


def test_stages_leave_their_parents_alone(make_pipeline):
    """The next recipe starts from the same weights."""
    pipeline, _ = make_pipeline()
    before = copy.deepcopy(pipeline.baseline.model.state_dict())
    pipeline.measure(TRAINED.with_lowering("int8_static", "onnxruntime"))

    torch.testing.assert_close(pipeline.baseline.model.state_dict(), before, rtol=0, atol=0)


def test_a_pair_without_a_kernel_says_so(make_pipeline):
    """No silent fallback to fp32."""
    pipeline, _ = make_pipeline()

    with pytest.raises(InfeasibleRecipeError, match="int8_static"):
        pipeline.measure(Recipe().with_lowering("int8_static", "eager"))


def test_training_stops_at_a_batch_boundary_when_time_is_up_and_goes_on_later(make_pipeline):
    """The deadline is the worker's own; what was trained by then is not trained again."""
    pipeline, _ = make_pipeline()
    _ = pipeline.baseline
    asked = iter([False] * 14 + [True] * 100)
    stopped, _ = make_pipeline(stop=lambda: next(asked))
    recipe = Recipe({"train.epochs": 3})
    with pytest.raises(DeadlineError):
        stopped.prefix(recipe)

    rungs = []
    resumed, _ = make_pipeline(on_rung=rungs.append)
    resumed.prefix(recipe)
    assert rungs[0].epoch == 1
    assert rungs[-1].epoch == 3


def test_a_training_that_was_stopped_early_goes_on_where_it_ended(make_pipeline):
    """Should nothing better be left, no epoch is trained twice."""

    def stop_at_second(rung):
        if rung.epoch == 2:
            raise StoppedEarlyError("it could not reach the front")

    recipe, rungs = Recipe({"train.epochs": 3}), []
    untouched, _ = make_pipeline()
    _ = untouched.baseline
    stopped, _ = make_pipeline(on_rung=stop_at_second)
    with pytest.raises(StoppedEarlyError):
        stopped.prefix(recipe)
    resumed, _ = make_pipeline(on_rung=rungs.append)
    resumed.prefix(recipe)

    assert [rung.epoch for rung in rungs] == [2, 3]


def test_a_training_pays_for_the_model_that_it_starts_from_and_for_its_teacher(make_pipeline):
    """`train_usd` is what making this model takes, nothing cached: on top of the untouched model's own training."""
    pipeline, _ = make_pipeline()
    plain = pipeline.prefix(Recipe({"train.epochs": 1}))
    distilled = pipeline.prefix(Recipe({"train.epochs": 1, "distill.loss": "kl"}))
    untouched = pipeline.baseline.train_seconds
    trained = {prefix.key: pipeline.runner.cache.find(prefix.key) for prefix in (plain, distilled)}

    assert untouched > 0
    assert plain.train_seconds == untouched + trained[plain.key].facts["train_seconds"]
    assert distilled.train_seconds > untouched + pipeline.teacher.logits.seconds


def test_a_training_lost_before_it_was_found_has_its_teacher_all_the_same(make_pipeline, monkeypatch):
    """Another worker may evict an entry just before the one look at it: the training made in its place has the same teacher."""
    pipeline, _ = make_pipeline()
    recipe = Recipe({"train.epochs": 1, "distill.loss": "kl"})
    before = pipeline.prefix(recipe)

    again, made = make_pipeline()
    find = again.runner.cache.find

    def lose_and_find(key):
        if key == before.key and not made:
            made.append("lost")
            shutil.rmtree(find(key).folder.parent)
        return find(key)

    monkeypatch.setattr(again.runner.cache, "find", lose_and_find)
    torch.testing.assert_close(again.prefix(recipe).model.state_dict(), before.model.state_dict())
    assert made == ["lost", "train"]


def test_a_training_from_scratch_does_without_the_untouched_models_training(make_pipeline):
    """That is how a curriculum can cut the training bill; one that distills pays for its teacher all the same."""
    pipeline, _ = make_pipeline()
    scratch = {"train.epochs": 1, "train.start": "scratch"}
    alone, distilled = pipeline.prefix(Recipe(scratch)), pipeline.prefix(Recipe({**scratch, "distill.loss": "kl"}))

    assert alone.samples_seen == 700
    assert alone.train_seconds < pipeline.baseline.train_seconds < distilled.train_seconds


def test_a_pretrained_task_has_no_scratch(make_pipeline, small_task_file):
    """Its weights are the user's; autocut does not know how they were made."""
    pipeline, _ = make_pipeline(task=dataclasses.replace(load_task(small_task_file), pretrained=True))
    with pytest.raises(InfeasibleRecipeError, match="brings trained weights"):
        pipeline.prefix(Recipe({"train.epochs": 1, "train.start": "scratch"}))


def test_a_random_order_needs_no_teacher(make_pipeline):
    """The control of a curriculum is not charged for scores that it does not use."""
    pipeline, made = make_pipeline()
    pipeline.prefix(Recipe({"train.epochs": 1, "curriculum.schedule": "linear", "curriculum.order": "random"}))
    assert "teacher" not in made
    assert "difficulty" not in made


def test_calibration_sees_all_of_the_training_split(make_pipeline):
    """Files sorted by class would otherwise calibrate on one class."""
    pipeline, _ = make_pipeline()
    task, samples = pipeline.runner.context.task, pipeline.runner.context.samples
    first = next(iter(task.loader(task.train_data, task.batch_size)))[0]
    again, _ = make_pipeline()

    assert not torch.equal(samples.calibration[0], first)
    assert torch.equal(samples.calibration[0], again.runner.context.samples.calibration[0])


@pytest.mark.timeout(60)
def test_a_model_of_the_untouched_structure_needs_no_cost_made_before(make_pipeline):
    """Its cost is the untouched model's: a worker that finds neither must not wait for itself."""
    pipeline, made = make_pipeline()
    cost = pipeline.cost(pipeline.prefix(Recipe({"train.epochs": 1})), "fp32", "eager")

    assert cost == pipeline.cost(pipeline.baseline, "fp32", "eager")
    assert made.count("cost") == 1


def test_a_child_starts_from_its_parents_weights_and_pays_for_them(make_pipeline):
    """Pruned and trained, pruned on and trained again: as wide as pruned at once, and its parent is trained once."""
    parent = Recipe({"prune.method": "structured", "prune.ratio": 0.3, "train.epochs": 1})
    child = Recipe({**parent, "prune.ratio": 0.6})
    pipeline, _ = make_pipeline()
    iterative = pipeline.prefix(Recipe({**child, "prune.parent_ratio": 0.3}))
    first, alone = pipeline.prefix(parent), pipeline.prefix(child)

    assert iterative.structure == alone.structure
    assert iterative.lineage[: len(first.lineage)] == first.lineage
    assert iterative.samples_seen == first.samples_seen + alone.samples_seen - pipeline.baseline.samples_seen


def test_models_answer_for_the_first_time_while_others_may_work(make_pipeline):
    """First calls take long and count for nothing: who else works need not wait for them. Only timing is alone."""
    pipeline, _ = make_pipeline()
    untouched, quiet, sides = pipeline.untouched_predict, pipeline.runner.context.quiet, {}

    def predict(inputs):
        sides.setdefault(len(inputs), []).append(quiet._mode)
        return untouched(inputs)

    vars(pipeline)["untouched_predict"] = predict
    pipeline.cost(pipeline.baseline, *ORT)

    assert sorted(sides) == [1, 8]
    for seen in sides.values():
        assert set(seen) == {"shared", "exclusive"}
        assert seen[0] == "shared"
        assert seen.count("shared") == 2  # when it is timed itself, and beside the candidate
