"""When scoring may end early: the examples so far show that a model loses more accuracy than is allowed.

The paired interval of the difference to the untouched model is looked at after 32, 64, 128, ... examples. Each look is a chance to
stop by bad luck. So the looks share the error: with k looks, each interval has the level 1 - 0.05 / k (Bonferroni). A model within
the allowed drop is then given up with a probability of at most 2.5%.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from autocut.measure.accuracy import Scores, metric_or_nan, paired_interval
from autocut.task.kinds import Kind

_FIRST_LOOK = 32
_ERROR = 0.025
"""Of the upper end of a 95% interval."""
_RESAMPLES = 1999


def looks(examples: int) -> list[int]:
    """Return the numbers of examples after which a scoring of `examples` in all is looked at."""
    found = []
    count = _FIRST_LOOK
    while count < examples:
        found.append(count)
        count *= 2
    return found


def paired(untouched: Scores, candidate: Scores) -> Scores:
    """Return the scores of `untouched` on the examples of `candidate`, which are its first ones.

    Targets of texts are padded to the longest one. The longest of a part may be shorter than that of all.
    """
    same = tuple(slice(0, size) for size in candidate.targets.shape)
    return Scores(untouched.scores[: len(candidate.scores)], untouched.targets[same])


def is_far_below(candidate: Scores, untouched: Scores, kind: Kind, max_drop: float, number_of_looks: int) -> bool:
    """Whether the metric of `candidate` is surely more than `max_drop` below that of `untouched` on the examples of `candidate`.

    Scores of 0 and 1 get Tango's interval, other ones a paired bootstrap, as in `to_accuracy`. Where the metric is not defined on
    so few examples, the answer is no. It is no too where these examples are so easy that the metric, which will be the candidate's
    accuracy, would still count.
    """
    counts_from = metric_or_nan(kind, untouched.scores, untouched.targets) - max_drop
    if not metric_or_nan(kind, candidate.scores, candidate.targets) < counts_from:
        return False
    untouched = paired(untouched, candidate)
    error = _ERROR / max(1, number_of_looks)
    if kind.is_binary:
        gained = int(np.sum(candidate.scores > untouched.scores))
        lost = int(np.sum(candidate.scores < untouched.scores))
        return paired_interval(gained, lost, len(candidate.scores), z=float(-ndtri(error))).high < -max_drop
    rng = np.random.default_rng(0)
    differences = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        drawn = rng.integers(0, len(candidate.scores), len(candidate.scores))
        targets = candidate.targets[drawn]
        differences[index] = metric_or_nan(kind, candidate.scores[drawn], targets) - metric_or_nan(
            kind, untouched.scores[drawn], targets
        )
    return bool(np.isfinite(differences).all() and np.quantile(differences, 1 - error) < -max_drop)
