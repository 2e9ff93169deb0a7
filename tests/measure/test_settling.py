"""A GPU is called until its clocks have settled."""

import itertools

import pytest

from autocut.measure.settling import settle


@pytest.mark.parametrize(
    ("milliseconds", "settles"),
    [
        (lambda: itertools.chain([9.0] * 12, [5.0] * 25, itertools.repeat(2.0)), True),
        (lambda: (1.5**call for call in range(100)), False),
    ],
)
def test_calls_go_on_until_two_blocks_take_the_same_time(milliseconds, settles):
    """Or for three seconds: a GPU that is too hot may never settle, and the intervals tell."""
    now, times, called = [0.0], milliseconds(), []

    def call():
        called.append(next(times))
        now[0] += called[-1] / 1e3

    assert settle(call, lambda: now[0]) is settles
    if settles:
        assert set(called[-50:]) == {2.0}
    else:
        assert now[0] >= 3
