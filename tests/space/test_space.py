"""Spaces and their files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.errors import FaultsError, SpaceError, UnknownNameError
from autocut.recipe import Recipe
from autocut.space import RULES, Axis, Space, SpaceFile, fit_space, load_space, parse_space, read_recipe
from autocut.space.outside import checked_recipe

KNOWN = {
    "prune.method": ("none", "l1_unstructured", "structured"),
    "train.quantization_aware": ("none", "int8", "int4"),
    "curriculum.schedule": ("none", "linear", "sqrt"),
    "curriculum.order": ("easy_first", "random"),
    "distill.loss": ("none", "kl"),
    "quantize.dtype": ("fp32", "int8_static"),
    "compile.mode": ("eager", "onnxruntime"),
}
HEAD = 'schema_version = 1\n[objectives]\naccuracy = "maximize"\nusd_per_million = "minimize"\n'
PRUNE = HEAD + '[axes."prune.method"]\nchoices = ["none", "structured"]\n'
RATIO = '[axes."prune.ratio"]\nrange = [0.1, 0.8]\nstep = 0.1\nwhen."prune.method" = ["structured"]\n'


def parse(text):
    """Read a space from `text`."""
    return parse_space(SpaceFile("mine", text, "mine.toml"), KNOWN)


def faults(text):
    """Return every fault of `text`."""
    with pytest.raises(FaultsError) as caught:
        parse(text)
    return caught.value.faults


def test_a_sound_file_becomes_a_space():
    """Axes, ranges, conditions, objectives and anchors are all read."""
    space = parse(PRUNE + RATIO + '[[anchors]]\n"prune.method" = "structured"\n"prune.ratio" = 0.5\n')

    assert dict(space.objectives) == {"accuracy": "maximize", "usd_per_million": "minimize"}
    assert [axis.name for axis in space] == ["prune.method", "prune.ratio"]
    assert space.axis("prune.ratio") == Axis("prune.ratio", (), 0.1, 0.8, 0.1, when={"prune.method": ("structured",)})
    assert {axis.name: axis.when for axis in space if axis.when} == {"prune.ratio": {"prune.method": ("structured",)}}
    assert space.anchors == (Recipe({"prune.method": "structured", "prune.ratio": 0.5}),)
    assert space.methods("prune.method") == ("none", "structured")
    assert space.methods("quantize.dtype") == ("fp32",)


def test_conditions_come_before_what_they_decide():
    """A sampler goes through the axes once, so a condition must come before its axis. The file may have any order."""
    space = parse(HEAD + RATIO + '[axes."prune.method"]\nchoices = ["none", "structured"]\n')
    assert [axis.name for axis in space] == ["prune.method", "prune.ratio"]


def test_space_contains_what_it_can_propose():
    """It contains the untouched model and the points of the grid, and nothing else."""
    space = parse(PRUNE + RATIO)

    assert space.contains(Recipe())
    assert space.contains(Recipe({"prune.method": "structured", "prune.ratio": 0.1 + 2 * 0.1}))
    assert (
        space.why_not(Recipe({"prune.method": "structured", "prune.ratio": 0.95}))
        == "prune.ratio must be 0.1 to 0.8 in steps of 0.1, got 0.95"
    )
    assert not space.contains(Recipe({"prune.method": "structured", "prune.ratio": 0.25}))
    assert not space.contains(Recipe({"prune.method": "structured"}))
    assert not space.contains(Recipe({"prune.method": "l1_unstructured", "prune.ratio": 0.5}))
    assert not space.contains(Recipe({"quantize.dtype": "int8_static"}))


def test_setting_without_effect_does_not_leave_the_space():
    """A recipe drops settings without effect. So a space that always distils still contains its untrained recipes."""
    axes = '[axes."train.epochs"]\nchoices = [0, 2]\n[axes."distill.loss"]\nchoices = ["kl"]\nwhen."train.epochs" = [2]\n'
    assert parse(HEAD + axes).contains(Recipe({"train.epochs": 0, "distill.loss": "kl"}))


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        (HEAD + '[axes."prune.metod"]\nchoices = ["none"]', 5, "got 'prune.metod'", "did you mean 'prune.method'?"),
        (
            HEAD + '[axes."prune.method"]\nchoices = [\n  "none",\n  "structred",\n]',
            8,
            "got 'structred'",
            "did you mean 'structured'?",
        ),
        (HEAD + '[axes."prune.method"]\nchoices = []', 6, "must not be empty", "leave the axis out"),
        (HEAD + '[axes."prune.method"]\nchoices = ["none", "none"]', 6, "'none' twice", "leave one out"),
        (HEAD + '[axes."prune.method"]\nchoices = "none"', 6, "prune.method choices has the wrong type", None),
        (HEAD + '[axes."prune.method"]\nrange = [0, 1]', 6, "takes names, not numbers", "choices"),
        (HEAD + '[axes."prune.method"]\nchoises = ["none"]', 6, "got 'choises'", "did you mean 'choices'?"),
        (HEAD + '[axes."prune.method"]\n', 5, "either choices or a range, got neither", "write choices"),
        (PRUNE + RATIO.replace("0.8", "1.0"), 8, "prune.ratio must be a number with 0 <= x < 1, got 1.0", None),
        (PRUNE + RATIO.replace("[0.1, 0.8]", "[0.8, 0.1]"), 8, "from low to high", "write range = [0.1, 0.8]"),
        (PRUNE + RATIO.replace("step = 0.1", "step = 0.3"), 9, "must divide the range", None),
        (PRUNE + RATIO.replace("step = 0.1", "step = 0.1\nlog = true"), 9, "either log or step", "leave one out"),
        (
            PRUNE + RATIO.replace('"structured"]', '"structurd"]'),
            10,
            "values that prune.method takes",
            "did you mean 'structured'?",
        ),
        (
            PRUNE + RATIO.replace('"prune.method"', '"prune.methd"'),
            10,
            "must name an axis, got 'prune.methd'",
            "did you mean 'prune.method'?",
        ),
        (PRUNE + RATIO.replace('["structured"]', "[]"), 10, "got none", None),
        (
            PRUNE + RATIO.replace('["structured"]', '["none", "structured"]'),
            7,
            "must be conditional",
            'write when."prune.method" = ["structured"]',
        ),
        (HEAD + RATIO.replace('when."prune.method" = ["structured"]', ""), 5, "has no effect without the axis prune.method", "add"),
        (HEAD + '[axes."train.epochs"]\nchoices = [0, 1.5]', 6, "train.epochs must be an integer with 0 <= x, got 1.5", None),
        (HEAD + '[axes."train.epochs"]\nchoices = [true]', 6, "got True", None),
        (HEAD + '[axes."train.epochs"]\nrange = [0, 8]\nlog = true', 6, "above zero on a log scale", "leave log out"),
        (PRUNE.replace("accuracy", "acuracy"), 3, "got 'acuracy'", "did you mean 'accuracy'?"),
        (PRUNE.replace('"minimize"', '"maximize"'), 4, "must be 'minimize', got 'maximize'", 'write usd_per_million = "minimize"'),
        (PRUNE.replace("schema_version = 1", "schema_version = 2"), 1, "schema_version must be 1, got 2", None),
        (PRUNE + RATIO + '[[anchors]]\n"prune.method" = "structured"\n', 11, "anchor must lie in the space: prune.ratio", None),
        (
            PRUNE + '[[anchors]]\n"prune.method" = "none"\n[[anchors]]\n"prune.methd" = "none"\n',
            10,
            "got 'prune.methd'",
            "did you mean",
        ),
    ],
)
def test_fault_names_its_line_and_what_to_type(text, line, message, hint):
    """Each kind of fault alone. An axis that cannot be built may cause a second fault."""
    found = next((fault for fault in faults(text) if message in fault.message), None)

    assert found is not None, [str(fault) for fault in faults(text)]
    assert found.where == f"mine.toml, line {line}"
    assert hint is None or hint in (found.hint or "")


def test_a_pruning_method_must_have_a_ratio():
    """Without a ratio, every pruned trial would fail."""
    (fault,) = faults(PRUNE)
    assert "prune.method structured must have the axis prune.ratio" in fault.message


def test_a_space_without_what_a_task_cannot_do_loses_all_that_depends_on_it():
    """A regression has no temperature, and no anchor that distills."""
    text = (
        HEAD
        + '[axes."train.epochs"]\nchoices = [0, 2]\n'
        + '[axes."distill.loss"]\nchoices = ["none", "kl"]\nwhen."train.epochs" = [2]\n'
        + '[axes."distill.temperature"]\nrange = [1.0, 4.0]\nwhen."distill.loss" = ["kl"]\n'
        + '[[anchors]]\n"train.epochs" = 2\n"distill.loss" = "kl"\n"distill.temperature" = 2.0\n[[anchors]]\n"train.epochs" = 2\n'
    )
    space = parse_space(SpaceFile("mine", text, "mine.toml"), KNOWN)
    fitted = fit_space(space, {"distill.loss": {"kl"}})

    assert [axis.name for axis in fitted] == ["train.epochs", "distill.loss"]
    assert fitted.anchors == (Recipe({"train.epochs": 2}),)
    assert fit_space(space, {}) == space


def test_faults_are_reported_all_at_once_in_the_order_of_the_file():
    """One run reports three faults."""
    text = (
        HEAD.replace("accuracy", "acuracy")
        + '[axes."prune.method"]\nchoices = ["nine"]\n[axes."quantise.dtype"]\nchoices = ["fp32"]\n'
    )
    assert [fault.where for fault in faults(text)] == ["mine.toml, line 3", "mine.toml, line 6", "mine.toml, line 7"]


def test_conditions_in_a_circle_are_refused():
    """Neither axis could be set before the other."""
    circle = (
        '[axes."compile.mode"]\nchoices = ["eager"]\nwhen."quantize.dtype" = ["fp32"]\n'
        '[axes."quantize.dtype"]\nchoices = ["fp32"]\nwhen."compile.mode" = ["eager"]\n'
    )
    assert any("circle" in fault.message for fault in faults(HEAD + circle))


def test_missing_parts_are_faults_too():
    """The error for an empty file lists the missing parts."""
    told = " ".join(fault.message for fault in faults(""))
    assert "schema_version is missing" in told
    assert "objectives must name" in told
    assert "axes must name" in told


def test_a_ratio_of_costs_is_no_objective():
    """Minimizing the price gives the same order, and the agent can predict it."""
    (fault,) = faults(PRUNE.replace('usd_per_million = "minimize"', 'speedup = "maximize"') + RATIO)
    assert "objectives.speedup" in fault.message
    assert "usd_per_million" in (fault.hint or "")


def test_text_that_is_no_toml_is_one_error(tmp_path):
    """The parser's message has the line."""
    path = tmp_path / "broken.toml"
    path.write_text("schema_version = \n")
    with pytest.raises(SpaceError, match="line 1"):
        load_space(str(path), KNOWN)


def test_unknown_space_names_the_nearest():
    """A name is a shipped space; a path ends in .toml."""
    with pytest.raises(UnknownNameError, match="got 'quik'") as caught:
        load_space("quik", KNOWN)
    assert caught.value.hint == "did you mean 'quick'?"
    with pytest.raises(SpaceError, match="No such file"):
        load_space("nowhere/quick.toml", KNOWN)


def test_recipe_is_read_from_json_toml_and_a_front_point(tmp_path):
    """Three forms of one recipe give the same recipe."""
    space = parse(PRUNE + RATIO)
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
    (tmp_path / "a.json").write_text(json.dumps({"prune.method": "structured", "prune.ratio": 0.5}))
    (tmp_path / "b.json").write_text(json.dumps({"trial": 3, "recipe": dict(recipe)}))
    (tmp_path / "c.toml").write_text('[prune]\nmethod = "structured"\nratio = 0.5\n')

    assert [read_recipe(tmp_path / name, space) for name in ("a.json", "b.json", "c.toml")] == [recipe] * 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prune.ration": 0.5}', "did you mean 'prune.ratio'"),
        ('{"prune.method": "structured"}', "prune.ratio must be"),
        ('{"prune.parent_ratio": "half", "train.epochs": 2}', "prune.parent_ratio must be a number with 0 < x < 1, got 'half'"),
        ('{"prune.method": 3}', "prune.method must be a name, got 3"),
        ('{"prune.ratio": 1' + 400 * "0" + "}", "prune.ratio must be a number"),
    ],
)
def test_recipe_outside_the_space_is_refused(tmp_path, text, told):
    """The search can learn only from recipes inside its space."""
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FaultsError) as caught:
        read_recipe(tmp_path / "r.json", parse(PRUNE + RATIO))
    assert told in f"{caught.value.faults[0].message} {caught.value.faults[0].hint}"


def test_a_number_that_no_float_can_hold_is_a_fault():
    """TOML has whole numbers of any length, in ranges, steps and choices."""
    huge = 10**400
    for axis in (f"range = [0, {huge}]", f"range = [0.1, 0.5]\nstep = {huge}", f"choices = [{huge}]"):
        with pytest.raises(FaultsError) as caught:
            parse(PRUNE + f'[axes."prune.ratio"]\n{axis}\nwhen."prune.method" = ["structured"]\n')
        assert "prune.ratio" in caught.value.faults[0].message


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([1], "recipe must be a table of settings, got list"),
        ({"train.epochs": 1.5}, "train.epochs must be an integer with 0 <= x, got 1.5"),
        ({"train.lr_scale": True}, "train.lr_scale must be a name or a number, got True"),
        ({"compile.mode": 1}, "compile.mode must be a name, got 1"),
        ({"mine.depth": [2]}, r"mine.depth must be a name or a number, got \[2\]"),
    ],
)
def test_a_recipe_from_outside_is_told_what_is_wrong_with_it(settings, told):
    """A recipe computes with its numbers, and bundles and studies may be a stranger's."""
    with pytest.raises(ValueError, match=told):
        checked_recipe(settings)


def test_a_recipe_of_another_version_is_taken():
    """It may have settings and methods that this version does not know."""
    settings = {"quantize.dtype": "int2", "mine.depth": 2, "prune.method": "structured", "prune.ratio": 0.5}

    assert checked_recipe(settings) == Recipe(settings)


@given(st.integers(0, 40), st.integers(1, 40), st.data())
def test_grid_points_are_taken_and_points_between_are_not(low, count, data):
    """Oracle: integers on a grid of hundredths."""
    axis = Axis("prune.ratio", (), low / 100, (low + 2 * count) / 100, 0.02)
    hundredths = data.draw(st.integers(0, 140))
    assert axis.takes(hundredths / 100) == (low <= hundredths <= low + 2 * count and (hundredths - low) % 2 == 0)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_axis_is_what_a_recipe_knows(name):
    """An axis that recipes ignore would be a setting without effect."""
    values = {
        "prune.method": "structured",
        "prune.ratio": 0.9,
        "train.epochs": 2,
        "curriculum.schedule": "linear",
        "distill.loss": "kl",
        "quantize.dtype": "int8_static",
    }
    assert name in Recipe({**values, name: values.get(name, 0.5)})


def test_numbers_names_and_booleans_are_never_mixed_up():
    """The name "1", the number 1 and true are three different values."""
    axis = Axis("train.epochs", (0, 1))
    assert (axis.takes(1), axis.takes(1.0), axis.takes("1"), axis.takes(True)) == (True, True, False, False)
    assert Space("s", {}, (axis,)).why_not(Recipe({"train.epochs": 3})) == "train.epochs must be one of 0, 1, got 3"


def test_a_training_that_is_aware_of_a_dtype_needs_that_dtype():
    """Otherwise it is trained for nothing."""
    aware = '[axes."train.epochs"]\nchoices = [2]\n[axes."train.quantization_aware"]\nchoices = ["none", "int8", "int4"]\n'
    found = faults(HEAD + aware + '[axes."quantize.dtype"]\nchoices = ["fp32", "int8_static"]\n')

    message = "train.quantization_aware int4 must have a dtype in quantize.dtype that begins with int4, got fp32, int8_static"
    assert [fault.message for fault in found] == [message]
