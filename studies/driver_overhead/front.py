"""What a look at the front takes as a study grows: compared anew at each look, and kept up to date.

    python studies/driver_overhead/front.py

The trials are made up, and in memory alone: a look at the front reads no database. Between two looks one trial ends.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
from measure import KNOWN, OBJECTIVES, made_up

from autocut.config import SearchConfig
from autocut.front import unbeaten, with_ties
from autocut.gains import with_untouched
from autocut.price import price_for
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.proposals import Proposer
from autocut.space import load_space
from autocut.study.kept_points import ComparedFront, KeptFront, KeptPoints
from autocut.study.results import StudyResults
from autocut.study.scores import TrialScores
from autocut.study.trials import TrialRecord, ValidationResult, to_point

SIZES = (1_000, 3_000, 10_000)
LOOKS = 20


def records(count: int, seed: int = 0) -> list[TrialRecord]:
    """Make up `count` measured trials, the untouched model first."""
    rng, price = np.random.default_rng(seed), price_for("c7i.large")
    proposer = Proposer(load_space("default", KNOWN), "random", SearchConfig.seed)
    reference = made_up(Recipe(), rng).cost
    found = []
    for trial in range(count):
        recipe = proposer.propose()[1] if trial else Recipe()
        measured = made_up(recipe, rng)
        result = ValidationResult(MappingProxyType(values_of(measured, reference, price, 30.0)), measured, 0.0)
        found.append(TrialRecord(trial, trial, "COMPLETE", recipe, trial == 0, None, False, (), {}, {}, result, None))
    return found


def anew(found: StudyResults, scores: TrialScores, folder: Path) -> object:
    """Make every point, and compare all of them."""
    points = [to_point(found.trials[trial], None, folder) for trial in found.measured]
    front = with_untouched(unbeaten(points, OBJECTIVES), points)
    return with_ties(front, OBJECTIVES, scores.compare(front, points).p_values)


def looked_at(front: KeptFront, points: KeptPoints, found: StudyResults) -> ComparedFront:
    """Look at the front as a study does."""
    kept = points.of(found)
    return front.compare([one.point for one in kept], [one.point for one in kept if one.is_candidate])


def main() -> None:
    """Print a line for each size: medians of the looks, in milliseconds."""
    every = records(max(SIZES) + LOOKS)
    print(f"{'trials':>6}  {'anew':>10}  {'kept':>10}  (medians of {LOOKS} looks)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            scores = TrialScores(folder, list)
            found = StudyResults({record.trial: record for record in every[:size]}, {})
            points, front = KeptPoints(folder), KeptFront(OBJECTIVES, scores)
            looked_at(front, points, found)
            seconds: dict[str, list[float]] = {"anew": [], "kept": []}
            for record in every[size : size + LOOKS]:
                found.trials[record.trial] = record
                started = time.perf_counter()
                expected = anew(found, scores, folder)
                between = time.perf_counter()
                kept = looked_at(front, points, found)
                seconds["anew"].append(between - started)
                seconds["kept"].append(time.perf_counter() - between)
                if kept.points != expected:
                    raise SystemExit(f"the kept front differs at {size} trials")
            print(f"{size:6}  " + "  ".join(f"{1e3 * statistics.median(found):7.1f} ms" for found in seconds.values()), flush=True)


if __name__ == "__main__":
    main()
