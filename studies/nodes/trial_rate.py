"""How many trials an hour a search has run, as `run.py` counts them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path


def ends_of(study: Path) -> tuple[list[float], float]:
    """Return when the trials with a training of their own ended, and when the first bundle was finalized (never: infinity)."""
    from autocut.study import open_study

    opened = open_study(study)
    ends = [
        trial.datetime_complete.timestamp()
        for trial in opened.optuna.get_trials()
        if trial.state.name == "COMPLETE" and trial.datetime_complete and "train.lr_scale" in trial.params
    ]
    finalized = min((look.looked.timestamp() for look in opened.looks() if look.looked), default=math.inf)
    opened.close()
    return ends, finalized


def rate(ends: Iterable[float], finalized: float) -> tuple[float, int]:
    """Return the trials per hour between the first and the last end before `finalized`, and their number.

    Afterwards nodes finalize, or wait for one that does, and how long depends on how many bundles there are: a trial that is begun
    then says nothing about how many trials the nodes run.
    """
    counted = sorted(end for end in ends if end < finalized)
    return (3600 * (len(counted) - 1) / (counted[-1] - counted[0]) if len(counted) > 1 else 0.0), len(counted)
