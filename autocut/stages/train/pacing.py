"""Pacing functions: which share of the training data is in use at which progress of the training.

Both are counted in samples: those in use of all in the training set, and those seen of all that are planned (`plan.py`). All
functions rise from `start` to 1 at `FULL_DATA_AT` of the training, so that its end draws from every example (Wu et al. 2021 find
0.4 to 1.0 alike).
"""

from __future__ import annotations

import math

from autocut.stages.train.registries import curricula

FULL_DATA_AT = 0.8


def _ramp(progress: float) -> float:
    return min(1.0, max(0.0, progress / FULL_DATA_AT))


@curricula.register("none")
def pace_none(progress: float, start: float) -> float:  # noqa: ARG001 - the signature of every pacing function
    """Use all the data all the time."""
    return 1.0


@curricula.register("linear", version=2)
def pace_linear(progress: float, start: float) -> float:
    """Add the same share of the data at each moment.

    References:
        Wu et al. 2021, https://arxiv.org/abs/2012.03107
    """
    return min(1.0, start + (1 - start) * _ramp(progress))


@curricula.register("sqrt", version=2)
def pace_sqrt(progress: float, start: float) -> float:
    """Add data fast at first, then slowly: an example that came in has time to be learned.

    References:
        Platanios et al. 2019, https://arxiv.org/abs/1903.09848; "root" in Wu et al. 2021
    """
    return min(1.0, start + (1 - start) * math.sqrt(_ramp(progress)))


@curricula.register("exponential", version=2)
def pace_exponential(progress: float, start: float) -> float:
    """Multiply the data by the same factor at each moment: slow at first.

    References:
        Hacohen & Weinshall 2019 (fixed exponential pacing, here without stairs), https://arxiv.org/abs/1904.03626
    """
    return float(min(1.0, start ** (1 - _ramp(progress))))


@curricula.register("step", version=2)
def pace_step(progress: float, start: float) -> float:
    """Use the first share of the data alone, then all of it, halfway to where the other schedules use all.

    References:
        Hacohen & Weinshall 2019 (single-step pacing), https://arxiv.org/abs/1904.03626
    """
    return start if progress < FULL_DATA_AT / 2 else 1.0


@curricula.register("hold")
def pace_hold(progress: float, start: float) -> float:
    """Use the first share of the data, then all of it from the moment at which other schedules use all.

    References:
        Qin et al. 2024 (there to 0.875 of the training), https://arxiv.org/abs/2303.04947
    """
    return start if progress < FULL_DATA_AT else 1.0


@curricula.register("quadratic")
def pace_quadratic(progress: float, start: float) -> float:
    """Add data slowly at first, then fast: easy examples are seen for longer.

    References:
        Wu et al. 2021, https://arxiv.org/abs/2012.03107
    """
    return min(1.0, start + (1 - start) * _ramp(progress) ** 2)


@curricula.register("logarithmic")
def pace_logarithmic(progress: float, start: float) -> float:
    """Add most of the data at once, and the rest ever more slowly.

    References:
        Wu et al. 2021, https://arxiv.org/abs/2012.03107
    """
    return min(1.0, start + (1 - start) * max(0.0, 1 + 0.1 * math.log(_ramp(progress) + math.exp(-10))))
