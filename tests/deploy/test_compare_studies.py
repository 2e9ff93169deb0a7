"""Two studies by what they have measured."""

from dataclasses import replace

import pytest

from autocut.commands.again_sentences import study_sentences
from autocut.deploy.compare_studies import compare_studies
from autocut.errors import NoResultError
from autocut.front import hypervolume
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.study import create_study

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}
PRICE = {"instance": "c7a.large", "usd_per_hour": 0.1, "date": "2026-02-09", "utilization": 1.0}


def measurement(accuracy, split="validation"):
    """A measurement whose speed-up is known to 5%, and whose accuracy to 2 points."""
    latency = Latency(1, 64, Interval(1.0, 0.9, 1.1), None, None, 2.0, Interval(2.0, 1.9, 2.1), 1.0)
    return Measurement(
        Accuracy(split, 400, Interval(accuracy, accuracy - 0.02, accuracy + 0.02)), Cost((latency,), 9, 9, 1, 1.0, "m")
    )


@pytest.fixture
def make(tmp_path):
    """Make a study with points of (accuracy, dollars): ``make("a", (0.9, 1.0), (0.8, 0.5), threads=2)``."""
    opened = []

    def study(name, *points, objectives=OBJECTIVES, fingerprint="t", **facts):
        made = create_study(
            tmp_path / name, name="tiny", task_fingerprint=fingerprint, space_json="{}", objectives=objectives, seed=0
        )
        made.describe({"threads": 1, "price": PRICE, "libraries": {"torch": "2.13"}} | facts)
        for number, (accuracy, usd) in enumerate(points):
            values = {"accuracy": accuracy, "usd_per_million": usd, "size_bytes": 9.0}
            recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.1 * (number + 1)})
            made.complete(None, recipe, {}, {}, values, measurement(accuracy))
        opened.append(made)
        return made

    yield study
    for one in opened:
        one.close()


def test_volumes_count_from_one_reference_on(make):
    """That of both fronts together, so that they can be compared."""
    a, b = make("a", (0.9, 1.0), (0.8, 0.5)), make("b", (0.9, 0.5))
    found = compare_studies(a, b, (None, None))

    assert found.b.hypervolume > found.a.hypervolume
    assert found.b.hypervolume == hypervolume(b.front(), OBJECTIVES, found.reference)
    assert found.b.share == 1.0
    assert 0 < found.a.share < 1
    assert [point.trial for point in found.a.front] == [0, 1]


def test_shares_are_those_of_both_fronts_together(make):
    """Where each has what the other lacks, both are below 1."""
    found = compare_studies(make("a", (0.9, 1.0)), make("b", (0.8, 0.5)), (None, None))

    assert max(found.a.share, found.b.share) < 1 < found.a.share + found.b.share


def test_like_studies_have_nothing_that_does_not_compare(make):
    """Task, machine, threads, price and versions are the same."""
    assert compare_studies(make("a", (0.9, 1.0)), make("b", (0.8, 0.5)), (None, None)).not_comparable == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fingerprint": "u"}, "other tasks (two versions of tiny)"),
        ({"threads": 2}, "other numbers of threads (1 and 2)"),
        ({"price": PRICE | {"usd_per_hour": 0.2}}, "other prices (c7a.large, $0.1 per hour of 2026-02-09 and c7a.large, $0.2"),
        ({"price": PRICE | {"utilization": 0.5}}, "50% busy)"),
        ({"libraries": {"torch": "2.14", "openvino": "2026.1"}}, "other versions (torch 2.13 and 2.14)"),
        ({"objectives": OBJECTIVES | {"size_bytes": "minimize"}}, "other objectives"),
    ],
)
def test_what_does_not_compare_is_named(make, change, told):
    """With what it means for the numbers."""
    (line,) = compare_studies(make("a", (0.9, 1.0)), make("b", (0.8, 0.5), **change), (None, None)).not_comparable

    assert told in line


def test_another_machine_is_named(make):
    """Its times are not ours."""
    a, b = make("a", (0.9, 1.0)), make("b", (0.8, 0.5))
    cost = measurement(0.9).cost
    a.set_reference(cost)
    b.set_reference(replace(cost, machine="other"))

    assert compare_studies(a, b, (None, None)).not_comparable == (
        "other machines (m and other): times and dollars are of two machines",
    )


def test_only_common_objectives_count(make):
    """The volume of two objectives and that of three are no numbers of one scale."""
    found = compare_studies(
        make("a", (0.9, 1.0)), make("b", (0.8, 0.5), objectives={**OBJECTIVES, "size_bytes": "minimize"}), (None, None)
    )

    assert dict(found.objectives) == OBJECTIVES
    assert list(found.reference) == list(OBJECTIVES)


@pytest.mark.parametrize(("other", "is_tie"), [((0.89, 1.02), True), ((0.89, 2.0), False), ((0.8, 1.0), False)])
def test_picks_tie_where_every_interval_overlaps(make, other, is_tie):
    """Accuracy to 2 points, dollars to 5%."""
    a, b = make("a", (0.9, 1.0)), make("b", other)
    found = compare_studies(a, b, (a.front()[0], b.front()[0]))

    assert found.is_pick_tie is is_tie
    assert study_sentences(found)[2].startswith("picks: a tie; trial 0 of A and trial 0 of B" if is_tie else "picks: trial 0 of A")


def test_picks_are_compared_on_the_test_split_where_both_have_it(make):
    """The validation split chose them."""
    studies = make("a", (0.9, 1.0)), make("b", (0.9, 1.0))
    for study, accuracy in zip(studies, (0.88, 0.7), strict=True):
        values = {"accuracy": accuracy, "usd_per_million": 1.0}
        study.record_final(0, measurement(accuracy, "test"), values, bundle=None, bundle_sha256=None, verified=True)
    found = compare_studies(*studies, tuple(study.front()[0] for study in studies))

    assert (found.split, found.is_pick_tie) == ("test", False)
    assert "accuracy 0.88 and 0.7, a million predictions as one process $1.00 and $1.00 (test)" in study_sentences(found)[2]


def test_an_empty_front_has_no_volume(make):
    """The other one is still shown."""
    found = compare_studies(make("a", (0.9, 1.0)), make("b"), (None, None))

    assert (found.a.hypervolume, found.b.share, found.reference) == (None, None, None)
    assert study_sentences(found)[1] == "B: 0 models on the front"


def test_two_empty_fronts_are_nothing_to_compare(make):
    """Exit code 1."""
    with pytest.raises(NoResultError, match="must have a front to be compared"):
        compare_studies(make("a"), make("b"), (None, None))
