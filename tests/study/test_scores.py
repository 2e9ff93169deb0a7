"""Which stored scores belong to a trial, and the ties that they give."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from autocut.measurement import Interval
from autocut.recipe import Recipe
from autocut.study import StageRun, open_study

N = 2000


@pytest.fixture
def plant(make_measurement):
    """A function that completes a trial whose scores stage is in the cache, as a search leaves it."""

    def run(study, recipe, scores, key, price=1.0, stored=True, untouched_key="untouched"):
        folder = study.stages_dir / "entries" / key / "output"
        folder.mkdir(parents=True, exist_ok=True)
        if stored:
            np.savez(folder / "scores.npz", scores=scores, targets=np.arange(len(scores)))
        for ran in dict.fromkeys((key, untouched_key)):
            study.record_stage(
                StageRun(ran, "accuracy", "fp32 v1", 0.1, "done", False, recipe.fingerprint, dt.datetime.now(dt.UTC))
            )
        measurement = make_measurement(0.5, 1.0)
        metric = float(np.mean(scores))
        accuracy = replace(measurement.accuracy, examples=len(scores), metric=Interval(metric, metric - 0.01, metric + 0.01))
        values = {"accuracy": metric, "usd_per_million": price}
        return study.complete(None, recipe, {}, {}, values, replace(measurement, accuracy=accuracy))

    return run


def cut(ratio):
    """A recipe."""
    return Recipe({"prune.method": "structured", "prune.ratio": ratio})


def wrong_at(*places):
    """Scores that are right but for these examples."""
    scores = np.ones(N)
    scores[list(places)] = 0.0
    return scores


def test_pairs_are_told_apart_by_their_scores_where_intervals_overlap(make_study, plant):
    """Trial 1 is wrong where trial 0 is, and on twelve examples more: too many for chance, far too few for intervals."""
    study = make_study()
    plant(study, Recipe(), wrong_at(*range(40)), "untouched", 3.0)
    plant(study, cut(0.1), wrong_at(*range(52)), "one", 2.0)
    plant(study, cut(0.2), wrong_at(*range(38), 60, 61, 62, *range(70, 84)), "two", 1.0)

    for reader in (study, open_study(study.folder)):
        points = reader.front()
        assert [point.accuracy_ties for point in points] == [(), (2,), (1,)]
        assert reader.untested() == ()
        reader.reload()


def test_the_best_of_many_must_be_better_by_more_than_luck(make_study, plant):
    """Nine examples of difference tell two models apart, but not where forty models were tried."""
    study = make_study()
    plant(study, Recipe(), wrong_at(*range(40)), "untouched", 3.0)
    plant(study, cut(0.9), wrong_at(*range(31)), "best", 2.0)
    assert study.front()[0].accuracy_ties == ()
    for number in range(1, 40):
        plant(study, cut(number / 100), wrong_at(*range(40), 50 + number), str(number), 2.5)

    (best,) = study.front()
    assert best.accuracy_ties == (0,)


def test_a_trial_that_only_compiles_shares_the_untouched_models_scores(make_study, plant):
    """Its own stage is the untouched model's: there is nothing to tell apart."""
    study = make_study()
    plant(study, Recipe(), wrong_at(1), "untouched", 2.0)
    plant(study, Recipe({"compile.mode": "onnxruntime"}), wrong_at(1), "untouched", 1.0)

    (point,) = study.front()
    assert point.accuracy_ties == (0,)
    assert study.points()[0].accuracy_ties == (1,)


@pytest.mark.parametrize("harm", ["gone", "damaged", "of another trial"])
def test_without_scores_intervals_decide_and_the_reader_can_say_so(make_study, plant, harm):
    """A cache evicts; scores that do not give the recorded metric are not this trial's."""
    study = make_study()
    plant(study, Recipe(), wrong_at(*range(40)), "untouched", 3.0)
    plant(study, cut(0.1), wrong_at(*range(52)), "one", 2.0, stored=harm != "gone")
    file = study.stages_dir / "entries" / "one" / "output" / "scores.npz"
    if harm == "damaged":
        file.write_bytes(file.read_bytes()[:100])
    if harm == "of another trial":
        np.savez(file, scores=wrong_at(*range(90)), targets=np.arange(N))

    assert [point.accuracy_ties for point in study.front()] == [(1,), (0,)]
    assert study.untested() == (0, 1)


def test_a_trial_alone_lacks_no_scores(make_study, plant):
    """Of a short search only the untouched model may be measured: no tie of it is judged by anything."""
    study = make_study()
    plant(study, Recipe(), wrong_at(1), "untouched", 2.0)

    assert [point.trial for point in study.front()] == [0]
    assert study.untested() == ()


def test_the_test_splits_scores_are_never_compared(make_study, plant):
    """Finalization leaves a scores stage of the untouched model on the locked split."""
    study = make_study()
    plant(study, Recipe(), wrong_at(1), "untouched", 2.0)
    plant(study, cut(0.1), wrong_at(2), "one", 1.0)
    now = dt.datetime.now(dt.UTC)
    study.record_stage(StageRun("locked", "accuracy", "untouched/test", 0.1, "done", False, cut(0.1).fingerprint, now))

    assert study.front()[0].accuracy_ties == (0,)
    assert study.untested() == ()
