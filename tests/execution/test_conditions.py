"""What a resumed study keeps: the largest accuracy drop that it was begun with, and the other conditions of its numbers."""

from dataclasses import asdict, replace

import pytest

from autocut.config import LARGEST_DROP, SearchConfig
from autocut.errors import StudyError
from autocut.execution.conditions import check_same_conditions, max_drop
from autocut.measure import allocator
from autocut.measurement import COUNTED_CALL
from autocut.precision import TrainingWay
from autocut.price import price_for
from autocut.study import create_study, is_empty
from autocut.study.versions import keep_to_libraries
from tests.fakes import COST


@pytest.mark.parametrize(
    ("begun", "asked", "expected"),
    [
        ({}, None, LARGEST_DROP),
        ({}, 0.0, 0.0),
        ({"limits": []}, None, None),
        ({"limits": [], "max_accuracy_drop": 0.02}, None, 0.02),
        ({"limits": [], "max_accuracy_drop": 0.02}, 0.02, 0.02),
        ({"limits": [], "max_accuracy_drop": None}, None, None),
    ],
)
def test_a_study_keeps_the_largest_drop_that_it_was_begun_with(begun, asked, expected):
    """A new one takes five points; one of an older version goes on without a limit."""
    assert max_drop(begun, SearchConfig(None, 60.0, max_accuracy_drop=asked)) == expected


@pytest.mark.parametrize(
    ("begun", "told"),
    [({"limits": []}, "without --max-accuracy-drop"), ({"limits": [], "max_accuracy_drop": 0.02}, "with --max-accuracy-drop 2%")],
)
def test_another_drop_for_the_same_study_is_refused(begun, told):
    """Its trials were judged by the old one."""
    with pytest.raises(StudyError, match=told) as caught:
        max_drop(begun, SearchConfig(None, 60.0, max_accuracy_drop=0.01))

    assert "got 1%" in caught.value.message
    assert "--out" in caught.value.hint


def test_a_study_without_a_result_takes_over_other_conditions(tmp_path):
    """A start has failed. One that has measured the untouched model keeps to its own."""
    objectives = {"accuracy": "maximize"}
    study = create_study(tmp_path, name="tiny", task_fingerprint="f", space_json="{}", objectives=objectives, seed=0)
    before, now = (
        SearchConfig(None, 60.0, threads=1, seed=0),
        SearchConfig(None, 60.0, threads=2, seed=0, limits=("latency_ms<=5",)),
    )
    keep_to_libraries(study, {"torch": "2.12"}, {})
    check_same_conditions(study, {}, asdict(price_for("c7i.large")), before)

    assert is_empty(study)
    keep_to_libraries(study, {"torch": "2.13"}, {})
    check_same_conditions(study, {}, asdict(price_for("c7a.large")), now)
    facts = study.facts
    assert (facts["threads"], facts["price"]["instance"], facts["limits"]) == (2, "c7a.large", ["latency_ms<=5"])

    study.set_reference(COST)
    assert not is_empty(study)
    with pytest.raises(StudyError, match=r"was made with torch 2\.13, got torch 2\.12"):
        keep_to_libraries(study, {"torch": "2.12"}, {})
    with pytest.raises(StudyError, match="was begun with threads 2, got 1"):
        check_same_conditions(study, study.facts, asdict(price_for("c7a.large")), replace(now, threads=1))
    for name, message in (
        ("timed_memory", "was begun with timed_memory given back, got kept"),
        ("counted_call", "was begun with counted_call the second, got after a millisecond"),
    ):
        of_an_earlier_autocut = {known: value for known, value in study.facts.items() if known != name}
        with pytest.raises(StudyError, match=message):
            check_same_conditions(study, of_an_earlier_autocut, asdict(price_for("c7a.large")), now)
    study.close()


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (TrainingWay("bf16"), "was begun with train_precision fp32, got bf16"),
        (TrainingWay(memory_format="channels_last"), "was begun with train_memory_format contiguous, got channels_last"),
    ],
)
def test_a_study_keeps_its_way_of_training(tmp_path, way, message):
    """One of an earlier autocut was trained in fp32 and contiguous, though it does not say so."""
    objectives = {"accuracy": "maximize"}
    study = create_study(tmp_path, name="tiny", task_fingerprint="f", space_json="{}", objectives=objectives, seed=0)
    price = asdict(price_for("c7i.large"))
    same = {"timed_memory": allocator.KEPT, "counted_call": COUNTED_CALL}
    begun = {"threads": 1, "price": price, "seed": 0, "limits": [], **same}
    with pytest.raises(StudyError, match=message):
        check_same_conditions(study, begun, price, SearchConfig(None, 60.0), way)

    check_same_conditions(study, begun, price, SearchConfig(None, 60.0))
    check_same_conditions(study, {}, price, SearchConfig(None, 60.0), way)
    assert (study.facts["train_precision"], study.facts["train_memory_format"]) == (way.precision, way.memory_format)
    study.close()
