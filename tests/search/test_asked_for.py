"""What the user asks for: recipes to try and limits to keep."""

from autocut.recipe import Recipe
from autocut.score import Limit
from autocut.search.jobs import JobKind

INT8 = ("int8_static", "onnxruntime")


def test_a_user_recipe_that_did_not_fit_is_run_when_time_comes_back(start):
    """Finalizing took less than was kept for it: what the user asked for comes before new ideas."""
    wanted = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 6, "train.lr_scale": 1.0}).with_lowering(
        *INT8
    )
    machine = start(budget_s=135.0, tries=[wanted])
    machine.world.finalize_s = 1.0
    machine.run()
    told = [line for line in machine.searcher.progress.lines if line.startswith("not run")]

    assert told
    assert wanted in machine.searcher.store.points


def test_user_recipes_are_tried_before_any_proposal(start):
    """`--try` is an order."""
    wanted = Recipe({"prune.method": "structured", "prune.ratio": 0.3, "train.epochs": 1, "train.lr_scale": 0.7}).with_lowering(
        *INT8
    )
    machine = start(tries=(wanted,))
    machine.run()
    trained = [recipe for what, recipe in machine.log if what == "measure" and recipe.is_trained]

    assert trained[0] == wanted


def test_an_asked_for_recipe_that_cannot_run_is_told(start):
    """It would otherwise vanish without a word."""
    wanted = Recipe({"quantize.dtype": "bf16", "compile.mode": "onnxruntime"})
    machine = start(tries=(wanted,))
    machine.run()

    assert [failure.reason for failure in machine.searcher.store.failures if failure.recipe == wanted] == [
        "bf16 with onnxruntime cannot run on this machine: autocut methods says why"
    ]


def test_a_budget_too_short_for_a_user_recipe_is_no_failure(start):
    """With a longer budget the same recipe can be asked for again."""
    wanted = Recipe({"quantize.dtype": "int8_static", "compile.mode": "aot_inductor"})
    short = start(budget_s=200.0, tries=(wanted,))
    short.run()

    assert wanted not in short.searcher.state.infeasible
    assert any(line.startswith("not run:") and "too long for this budget" in line for line in short.searcher.progress.lines)


def test_a_user_recipe_that_does_not_fit_is_told(start):
    """Nothing that the user asked for vanishes without a word."""
    wanted = Recipe({"train.epochs": 8, "train.lr_scale": 0.5}).with_lowering("fp32", "onnxruntime")
    machine = start(budget_s=60.0, tries=(wanted,))
    machine.run()
    told = [line for line in machine.searcher.progress.lines if wanted.describe() in line]

    assert len(told) == 1
    assert "is left" in told[0] or "too long for this budget" in told[0]


def test_a_limit_keeps_points_off_the_front(start):
    """Limits steer and filter."""
    machine = start(limits=(Limit("accuracy", ">=", 0.97),))
    machine.run()

    assert machine.searcher.store.front()
    assert all(point.values["accuracy"] >= 0.97 for point in machine.searcher.store.front())


def test_a_percentage_as_the_limit_of_a_share_ends_the_search(start):
    """No model has an accuracy of 95 where the untouched one has 0.98."""
    machine = start(limits=(Limit("accuracy", ">=", 95.0),))
    machine.run()

    assert machine.searcher.fault.message == "limit on accuracy must be at most 1, as a share is, got 'accuracy>=95'"
    assert machine.searcher.fault.hint == "did you mean 'accuracy>=0.95'?"
    assert [job.kind for job in machine.jobs] == [JobKind.BASELINE]
