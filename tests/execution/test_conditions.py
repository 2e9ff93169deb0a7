"""What a resumed study keeps: the largest accuracy drop that it was begun with."""

import pytest

from autocut.config import LARGEST_DROP, SearchConfig
from autocut.errors import StudyError
from autocut.execution.session import max_drop


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
