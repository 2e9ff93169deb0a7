"""Numbers of things in words."""

import pytest

from autocut.counting import format_count


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (1, ["epoch"], "1 epoch"),
        (0, ["epoch"], "0 epochs"),
        (1200, ["epoch"], "1,200 epochs"),
        (2, ["class", "classes"], "2 classes"),
    ],
)
def test_one_thing_is_not_called_things(count, words, text):
    """A line about "1 epochs" makes a reader doubt the number."""
    assert format_count(count, *words) == text
