"""How `studies/nodes` counts trials."""

from __future__ import annotations

import math

from trial_rate import rate


def test_a_trial_that_ends_after_the_first_bundle_does_not_count():
    """Two nodes ended a trial each every 8 s; one more ended long after both had finalized, and halved the rate."""
    ends = [8.0 * turn for turn in range(7) for _ in range(2)]

    assert rate([*ends, 200.0], 60.0) == (3600 * 13 / 48, 14)
    assert rate([*ends, 200.0], math.inf) == (3600 * 14 / 200, 15)


def test_one_trial_has_no_rate():
    """Nor has none."""
    assert rate([8.0], math.inf) == (0.0, 1)
    assert rate([], math.inf) == (0.0, 0)
