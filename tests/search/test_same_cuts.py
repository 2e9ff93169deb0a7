"""Ratios that are rounded to the same cut: one of them is measured, the others are known."""

from dataclasses import dataclass

import pytest

from autocut.recipe import PARENT_RATIO, UNTOUCHED, Recipe
from autocut.search.jobs import Job, JobKind, Purpose, RecipeStarted
from autocut.search.same_cuts import SameCuts
from tests.search.conftest import MadeUp


def cut(ratio, method="depth", **settings):
    """A recipe that only cuts, and `settings` of another axis."""
    return Recipe({"prune.method": method, "prune.ratio": ratio, **settings})


@pytest.fixture
def four_blocks():
    """What is learned of a model with four blocks at three ratios."""
    known = SameCuts()
    for ratio, blocks in ((0.25, 3), (0.75, 1), (0.95, 1)):
        known.learn(cut(ratio), f"{blocks} blocks")
    return known


def test_a_ratio_between_two_of_one_structure_gives_it_too(four_blocks):
    """The twins keep every other setting."""
    trained = {"train.epochs": 2, "quantize.dtype": "bf16"}

    assert four_blocks.twins(cut(0.85)) == [cut(0.75), cut(0.95)]
    assert four_blocks.twins(cut(0.75, **trained)) == [cut(0.95, **trained)]
    assert four_blocks.measured_twins(cut(0.99), "1 blocks") == [cut(0.75), cut(0.95)]


@pytest.mark.parametrize(
    "recipe",
    [
        cut(0.5),
        cut(0.1),
        cut(0.99),
        cut(0.25),
        cut(0.85, "structured"),
        Recipe(),
        cut(0.85, **{"train.epochs": 1, PARENT_RATIO: 0.25}),
    ],
    ids=["between two structures", "below all", "above all", "alone", "another method", "no ratio", "pruned on"],
)
def test_other_cuts_have_no_twins(four_blocks, recipe):
    """Nothing is guessed: two ratios beside one another must have the same structure."""
    assert four_blocks.twins(recipe) == []


@pytest.mark.parametrize(
    ("ratio", "parent", "expected"), [(0.95, 0.75, True), (0.85, 0.75, True), (0.75, 0.25, False), (0.95, 0.5, False)]
)
def test_a_child_that_can_lose_nothing_more_is_known(four_blocks, ratio, parent, expected):
    """Three of four blocks are gone at 0.75, and at least one stays: every lowering of a child of 0.8 was infeasible."""
    child = cut(ratio, **{"train.epochs": 1, PARENT_RATIO: parent})

    assert four_blocks.is_as_cut_as_its_parent(child) is expected
    assert not four_blocks.is_as_cut_as_its_parent(cut(ratio))


def test_the_weights_that_are_cut_are_a_part_of_the_cut():
    """Some pruners choose widths by the weights, so that another training may lead to another structure."""
    known, parent = SameCuts(), {PARENT_RATIO: 0.2, "train.epochs": 1}
    for ratio in (0.75, 0.95):
        known.learn(cut(ratio, **parent), "1 block")
        known.learn(cut(ratio, **{"train.epochs": 1, "train.start": "scratch"}), "1 block")

    assert known.twins(cut(0.75, **parent)) == [cut(0.95, **parent)]
    assert known.twins(cut(0.75, **parent, **{"train.lr_scale": 0.3})) == []
    assert known.twins(cut(0.75)) == []


def test_ratios_within_a_hundredth_are_not_the_same_cut():
    """So many zeros are all that a structure tells of weights that keep their shapes."""
    known = SameCuts()
    for ratio in (0.501, 0.504):
        known.learn(cut(ratio, "l1_unstructured"), "half are zero")

    assert known.twins(cut(0.501, "l1_unstructured")) == []
    assert known.twins(cut(0.502, "l1_unstructured")) == []


def test_who_dies_is_told_though_its_twin_was_measured_meanwhile(start):
    """Its trial would stay open, and end with a false reason."""
    machine = start()
    machine.run(most_jobs=1)
    agent, dying = machine.searcher, cut(0.75, "structured")
    job = Job(99, JobKind.MEASURE, (dying,), 1e9, "test")
    agent.state.start(job, Purpose.COST_FIRST, agent.budget.clock())
    agent.on_event(job, RecipeStarted(dying))
    for ratio in (0.7, 0.9):
        agent.state.same_cuts.learn(cut(ratio, "structured"), "1 block")
        agent.state.finish(cut(ratio, "structured"), dict(agent.state.finished[UNTOUCHED]))
    assert agent.state.is_settled(dying)
    agent.on_job_end(job, "killed by signal 11")

    assert [failure.recipe for failure in agent.store.failures] == [dying]


def test_a_structure_that_is_not_known_tells_nothing(four_blocks):
    """Trials of older versions have none."""
    four_blocks.learn(cut(0.3, "structured"), "")
    four_blocks.learn(cut(0.9, "structured"), "")

    assert four_blocks.twins(cut(0.5, "structured")) == []


@dataclass
class FourBlocks(MadeUp):
    """Every pruner removes whole quarters of the model: ratios from 0.625 on all remove three."""

    def measured(self, recipe):
        """As the ratio to which it is rounded."""
        if "prune.ratio" not in recipe:
            return super().measured(recipe)
        quarters = max(1, min(3, round(4 * recipe["prune.ratio"])))
        return super().measured(Recipe({**recipe, "prune.ratio": quarters / 4}))


@pytest.fixture
def searched(start):
    """A search of that world, with a recipe that the user asked for."""
    machine = start(budget_s=1500.0, tries=(cut(0.9, "structured"),))
    machine.world = FourBlocks()
    machine.run()
    return machine


def test_a_model_is_measured_once_under_whatever_ratio(searched):
    """But for the ratios of one job, which began before any was known, and what the user asked for."""
    job_of = {recipe: job.number for job in searched.jobs if job.kind == JobKind.MEASURE for recipe in job.recipes}
    measured = [recipe for what, recipe in searched.log if what == "measure" and "prune.ratio" in recipe and recipe.parent is None]
    ratios = sorted({recipe["prune.ratio"] for recipe in measured})
    same = [
        (first, second)
        for at, first in enumerate(measured)
        for second in measured[at + 1 :]
        if first == Recipe({**second, "prune.ratio": first["prune.ratio"]})
        and min(first["prune.ratio"], second["prune.ratio"]) >= 0.75
        and job_of[first] != job_of[second]
        and cut(0.9, "structured").prefix not in (first.prefix, second.prefix)
    ]

    assert same == []
    assert len(measured) > 10
    assert ratios[-1] > 0.75
    assert cut(0.9, "structured") in measured


def test_the_line_of_a_trial_says_which_model_it_is_again(searched):
    """Two trials of one model would look like two models."""
    assert any("; the same model as " in line for line in searched.searcher.progress.lines)
