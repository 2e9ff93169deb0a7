"""Is the reported accuracy of a chosen model too good? 200 candidates that differ by noise alone are planted; nothing is trained.

    python studies/selection_bias/measure.py --repeats 50

Every candidate has the untouched model's true accuracy and its true speed. Its answers differ from those of the untouched model on
some examples, by luck. The front, its ties and its picks come from the code that `autocut front` and `autocut select` run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autocut.deploy.select import select_point
from autocut.front import Final, FrontPoint
from autocut.measure.accuracy import Scores, to_accuracy
from autocut.measurement import Cost, Interval, Latency, Measurement
from autocut.picks import named_picks
from autocut.recipe import Recipe
from autocut.study.kept_points import KeptFront
from autocut.study.scores import ScoresRun, TrialScores
from autocut.task.kinds import kinds

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}
CANDIDATES, EXAMPLES = 200, 1000
TRUE_ACCURACY = 0.9
REDRAWN = 0.1
"""Share of the examples that a candidate answers by its own luck, not as the untouched model does."""
COST_NOISE, COST_SPREAD = 0.003, 0.015
"""Standard deviation of the speed-up of one and the same model, and the half width of its interval (studies/repeatability)."""


@dataclass(frozen=True)
class Repeat:
    """One planted search. Errors are reported accuracy minus true accuracy, of the choice named in front of them."""

    best_validation_error: float
    best_test_error: float
    select_test_error: float
    untouched_test_error: float
    tells_nothing_was_won: bool
    false_win: bool


def repeat(seed: int, folder: Path, candidates: int = CANDIDATES, examples: int = EXAMPLES) -> Repeat:
    """Plant one search in `folder`, and choose: the most accurate point of the front, `--max-accuracy-drop 1%`, and the picks."""
    rng = np.random.default_rng(seed)
    validation, test = (_answers(rng, candidates, examples) for _ in range(2))
    points = [_point(rng, trial, answers, validation[0]) for trial, answers in enumerate(validation)]
    runs = []
    for point, answers in zip(points, validation, strict=True):
        runs += _store(folder, point, answers)
    front = KeptFront(OBJECTIVES, TrialScores(folder, lambda: runs)).compare(points, points)
    tested = [_finalized(point, test[point.trial], test[0]) for point in front.points]
    untouched = next(point for point in tested if point.trial == 0)
    best = max(tested, key=lambda point: (point.values["accuracy"], -point.trial))
    selected = select_point(tested, max_accuracy_drop=0.01).point
    picks = named_picks(tested, OBJECTIVES)
    return Repeat(
        best_validation_error=best.values["accuracy"] - TRUE_ACCURACY,
        best_test_error=_reported(best) - TRUE_ACCURACY,
        select_test_error=_reported(selected) - TRUE_ACCURACY,
        untouched_test_error=_reported(untouched) - TRUE_ACCURACY,
        tells_nothing_was_won=all("untouched model" in pick.reason for pick in picks) and _is_no_win(selected, untouched),
        false_win=any(0 not in point.accuracy_ties for point in tested if point.trial),
    )


def summarize(errors: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the errors and its standard error."""
    return float(np.mean(errors)), float(np.std(errors, ddof=1) / np.sqrt(len(errors)))


def _answers(rng: np.random.Generator, candidates: int, examples: int) -> NDArray[np.float64]:
    """Right and wrong answers of the untouched model (row 0) and the candidates on one split."""
    untouched = rng.uniform(size=examples) < TRUE_ACCURACY
    redrawn = rng.uniform(size=(candidates, examples)) < REDRAWN
    own = rng.uniform(size=(candidates, examples)) < TRUE_ACCURACY
    return np.concatenate([untouched[None], np.where(redrawn, own, untouched)]).astype(np.float64)


def _point(rng: np.random.Generator, trial: int, answers: NDArray[np.float64], untouched: NDArray[np.float64]) -> FrontPoint:
    speedup = 1.0 if trial == 0 else float(np.exp(rng.normal(0, COST_NOISE)))
    spread = 0.0 if trial == 0 else COST_SPREAD
    around = Interval(speedup, speedup * (1 - spread), speedup * (1 + spread))
    latency = Latency(1, 64, Interval(1 / speedup, 1 / speedup, 1 / speedup), None, None, 1.0, around, 1.0)
    measurement = Measurement(_accuracy("validation", answers, untouched), Cost((latency,), 1000, 900, 1, 1.0, "planted"))
    values = {"accuracy": float(np.mean(answers)), "usd_per_million": 1 / speedup, "size_bytes": 1000.0}
    recipe = Recipe() if trial == 0 else Recipe({"prune.method": "l1_unstructured", "prune.ratio": trial / 1000})
    return FrontPoint(trial, recipe, values, measurement, trial == 0, None)


def _store(folder: Path, point: FrontPoint, answers: NDArray[np.float64]) -> list[ScoresRun]:
    """Write the scores where a search leaves them; every trial also ran the untouched model's scores stage."""
    output = folder / "entries" / f"scores-{point.trial}" / "output"
    output.mkdir(parents=True)
    np.savez(output / "scores.npz", scores=answers, targets=np.arange(len(answers)))
    return [ScoresRun(f"scores-{trial}", "planted", point.recipe.fingerprint) for trial in {point.trial, 0}]


def _finalized(point: FrontPoint, answers: NDArray[np.float64], untouched: NDArray[np.float64]) -> FrontPoint:
    measurement = replace(point.measurement, accuracy=_accuracy("test", answers, untouched))
    values = {**point.values, "accuracy": float(np.mean(answers))}
    return replace(point, final=Final(point.trial, values, measurement, None, None, verified=True, refusal=None))


def _accuracy(split: str, answers: NDArray[np.float64], untouched: NDArray[np.float64]):  # noqa: ANN202  (Accuracy)
    targets = np.arange(len(answers))
    return to_accuracy(split, Scores(answers, targets), kinds["classification"](), Scores(untouched, targets))


def _reported(point: FrontPoint) -> float:
    return float("nan") if point.tested is None else point.tested.values["accuracy"]


def _is_no_win(chosen: FrontPoint, untouched: FrontPoint) -> bool:
    return chosen.trial == untouched.trial or untouched.trial in chosen.ties


def main() -> None:
    """Repeat, and print the mean errors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=50)
    count = parser.parse_args().repeats
    repeats = []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            repeats.append(repeat(seed, Path(folder)))
    print(f"{count} repeats of {CANDIDATES} candidates, {EXAMPLES} examples a split; errors in points, with standard errors")
    for name in ("best_validation_error", "best_test_error", "select_test_error", "untouched_test_error"):
        mean, error = summarize([getattr(one, name) for one in repeats])
        print(f"{name.replace('_', ' '):24} {100 * mean:+.2f} ± {100 * error:.2f}")
    print(f"says that nothing was won {sum(one.tells_nothing_was_won for one in repeats)} of {count}")
    print(f"tells a candidate apart   {sum(one.false_win for one in repeats)} of {count}")


if __name__ == "__main__":
    main()
