"""Seconds: what each stage took here, what the next one will take, and what to keep for finalization.

Predictions are medians of this study's own stages. Before the first measurement a method's registered `seconds` option is used,
so that a short budget does not spend itself on a slow compiler. It holds for small models and grows with the size of larger ones.

Measured with BERT-base (110M weights, 438 MB, 128 tokens) on one thread of an AMD EPYC, 2026-11-28: ONNX export 17 s, int8
quantization by ONNX Runtime 15 s, a call of the untouched model 0.35 s at batch 1 and 2.6 s at batch 8, scoring 0.25 s an example.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from autocut.measurement import UNTOUCHED_TEST, Cost
from autocut.recipe import UNTOUCHED, Cut, Lowering, Recipe
from autocut.search.jobs import ModelLoaded, StageRan

PROCESS_S = 6.0
"""Prior for a fresh process until it works: interpreter, torch, task. A worker that is forked takes a fraction of it."""
_LOWER_S = 30.0
_MEASURE_S = 2.0
_ACCURACY_S = 1.0
_SECONDS_PER_SAMPLE = 1e-3
_FINALIZE_S = 5.0
_TRAINING_SHARE = 1 / 12
"""Share of the workers' whole time that one training may take."""
_TIMINGS = 3
"""A point is timed with more samples when it is finalized, and once more when its bundle is verified."""
_SECOND_WORKER = 0.5
"""How much of a worker each further worker adds to finalization: most of a finalization holds the machine alone."""
_FINALIZE_SHARE = 0.4
_DRIVER_END_S = 3.0
_REFERENCE = ("cost", "/".join(UNTOUCHED.lowering))
_PACKED_FINALISTS = 3
"""Points that one process finalizes at most, one after the other, where starting it takes longer than `_SLOW_START_S`."""
_SLOW_START_S = 1.0
_TIMED_ROUNDS = 6
"""Rounds that timing a slow model takes, with the first answers. Each one calls the untouched model..."""
_OF_UNTOUCHED = 0.5
"""... and the model itself, whose call takes about this share of the untouched one's, if it is worth anything."""
_VERIFIED_TIMING = 0.5
"""A slow point is timed when it is verified: alone, which takes this share of a timing in turns with the untouched model. Where the
calls are so slow that a final timing would tell no more (see `measure.latency.is_settled`), that is all."""
_REPLAY_S = 6.0
"""Seconds of a slow point's replay when it is verified."""
_SMALL_BYTES = 55e6
"""Up to this size of the untouched model, exporting and compiling take what is registered. From then on, as much more, unless it is
known how that grows with the size."""
_COPIES = 8
"""Copies of the weights that a job may hold: two models, gradients, two moments of an optimizer, graph, artifact, its session."""
_LEAST_PACE = 0.2
"""Share of the untouched model's training time that a smaller model's training takes at least, before one was timed."""
_SLOW_S = 10.0
"""A model that takes this long to score and to time is slow: one of its lowerings is finalized before others are tried."""
_GUESSED_S = 10.0
"""Seconds of lowerings that went as they were guessed, which count beside those that were made here: one says little..."""
_SLOWEST = 4.0
"""... and however far the first ones are off, others are expected to take this many times their guess at most. They are never
expected to take less: that an exporter is quick here says nothing about a compiler."""
_REMEMBERED = 25
"""Stages of a kind whose median is what the next one will take."""


class Planner:
    """Predicts seconds of stages and jobs from what stages of this study took.

    Args:
        train_samples: Examples of the training split.
        compile_seconds: Registered seconds of each lowering of a small model.
        per_100mb: Seconds for each 100 MB of a larger model's weights, for the lowerings of which they are known.
        sample_s: Seconds that a training of the untouched model took for a sample when it was tried; None: it was not.
    """

    def __init__(
        self,
        train_samples: int,
        compile_seconds: Mapping[Lowering, float],
        per_100mb: Mapping[Lowering, float] = MappingProxyType({}),
        sample_s: float | None = None,
    ) -> None:
        self._train_samples = train_samples
        self._priors = dict(compile_seconds)
        self._per_100mb = dict(per_100mb)
        self._by_method = defaultdict[tuple[str, str], _Recent](_Recent)
        self._by_mode = defaultdict[tuple[str, str], _Recent](_Recent)
        self._by_stage = defaultdict[str, _Recent](_Recent)
        self._per_sample = defaultdict[tuple[str, float], _Recent](_Recent)
        self._training = _Recent()
        self._tried_sample_s = sample_s
        self._relative_pace = defaultdict[str, dict[float, float]](dict)
        self._pace: dict[str, tuple[list[float], list[float]]] = {}
        self._finalize_s = _Recent()
        self._has_untouched_test = False
        self._process_s = _Recent()
        self._measure_s = _MEASURE_S
        self._is_timed_again = True
        self._size_factor = 1.0
        self.slowdown = 1.0
        """How many times as long as guessed lowerings take here; see `_learn_slowdown`."""
        self._model_bytes = 0.0
        self._peak_bytes, self._has_lowered = 0.0, False

    def observe_reference(self, reference: Cost) -> None:
        """Learn from the untouched model how long lowering and timing another model take, before one was lowered and timed."""
        calls_s = sum(latency.p50_ms.value for latency in reference.latencies) / 1e3
        self._measure_s = max(_MEASURE_S, (1 + _OF_UNTOUCHED) * _TIMED_ROUNDS * calls_s)
        self._is_timed_again = all(latency.p90_ms is not None for latency in reference.latencies)
        self.observe_size(reference.size_bytes)

    def observe_size(self, model_bytes: int) -> None:
        """Learn the size of the untouched model, by which lowerings of a large one take longer."""
        self._size_factor = max(1.0, model_bytes / _SMALL_BYTES)
        self._model_bytes = float(model_bytes)

    def observe(self, stage: StageRan, recipe: Recipe = UNTOUCHED) -> None:
        """Learn from a stage of `recipe`; a stage from the cache tells no seconds."""
        self._has_untouched_test |= stage.method == UNTOUCHED_TEST
        if stage.cached or (stage.stage, stage.method) == _REFERENCE:
            return  # the reference is timed several times: it says nothing about the seconds of a lowering
        _, _, mode = stage.method.rpartition("/")
        for recent in (self._by_method[stage.stage, stage.method], self._by_mode[stage.stage, mode], self._by_stage[stage.stage]):
            recent.add(stage.seconds)
        if stage.stage == "cost":
            self._learn_slowdown()
        if stage.samples_seen:
            for recent in (self._per_sample[recipe.cut], self._training):
                recent.add((stage.seconds + stage.saved_s) / stage.samples_seen)  # the next training may find no free core
            self._pace.clear()

    def observe_structure(self, cut: Cut, relative_s: float) -> None:
        """Learn that a call of the structure `cut` takes `relative_s` times what one of the untouched model takes.

        Before such a model was trained, its training is expected to take longer or shorter in proportion. Of several lowerings the
        one counts that saves the least: recorded trainings (the tables of `studies/search_efficiency`) saved more than that.
        """
        before = self._relative_pace[cut[0]].get(cut[1], 0.0)
        if before < 1 and relative_s > before:
            self._relative_pace[cut[0]][cut[1]] = min(relative_s, 1.0)
            self._pace.clear()

    def observe_loading(self, loaded: ModelLoaded) -> None:
        """Learn how long a lowered model takes to load: seconds in the modes that compile it then."""
        self._by_method["load", loaded.method].add(loaded.seconds)
        self._by_mode["load", loaded.method.rpartition("/")[2]].add(loaded.seconds)

    def observe_process(self, seconds: float) -> None:
        """Learn how long a worker process takes until it begins its first recipe."""
        self._process_s.add(seconds)

    def observe_finalization(self, seconds: float, waited_s: float = 0.0) -> None:
        """Learn how long one point takes in a running worker to be exported, measured and verified, but for what is made once.

        In `waited_s` of these seconds it waited for the machine. Points of a fast model wait for one another as a rule: there it
        counts. A slow model's waits for timings of the search, which end before the last points are finalized.
        """
        self._finalize_s.add(seconds - waited_s if self.is_slow else seconds)

    @property
    def knows_training(self) -> bool:
        """Whether a training was timed here, a few steps at least. Before that, seconds of training are guessed."""
        return bool(self._training) or self._tried_sample_s is not None

    def stage_s(self, stage: str, method: str) -> float | None:
        """Median seconds of a stage: of its method, else of its compile mode; a score or a timing of any. None: none was seen."""
        seen = [self._by_method.get((stage, method)), self._by_mode.get((stage, method.rpartition("/")[2]))]
        if stage in ("accuracy", "cost"):
            seen.append(self._by_stage.get(stage))
        return next((recent.median(0.0) for recent in seen if recent), None)

    def known_finalize_s(self) -> float | None:
        """Median seconds of the points that were finalized here; None: none was."""
        return self._finalize_s.median(0.0) if self._finalize_s else None

    def observe_memory(self, peak_bytes: float, *, has_lowered: bool = True) -> None:
        """Learn how much memory a job has needed at most. One that has lowered no model says nothing of export and compilers."""
        self._peak_bytes = max(self._peak_bytes, peak_bytes)
        self._has_lowered |= has_lowered and peak_bytes > 0

    def job_bytes(self) -> float:
        """Bytes of memory that a job may need: the most that one needed so far; no less than a guess before one lowered a model."""
        return self._peak_bytes if self._has_lowered else max(self._peak_bytes, _COPIES * self._model_bytes)

    def process_s(self) -> float:
        """Seconds until a fresh worker works."""
        return self._process_s.median(PROCESS_S)

    def compile_s(self, pair: tuple[str, str], is_converted: bool = False) -> float:
        """Seconds to lower a model to `pair`, a (dtype, mode).

        Some modes convert a prefix once for all dtypes. The first lowering pays for it; with `is_converted` it is done already.
        """
        of_pair, of_mode = self._by_method["compile", "/".join(pair)], self._by_mode["compile", pair[1]]
        convert_s = self._by_mode["convert", pair[1]].median(0.0)
        if not (of_pair or of_mode):
            return self._prior_s(pair)
        lower_s = (of_pair or of_mode).median(0.0)
        if not of_pair and self._size_factor > 1:
            # Storing a large graph as it is takes a second. That says little about quantizing it.
            lower_s = max(lower_s, self._prior_s(pair) - convert_s)
        return lower_s + (0.0 if is_converted else convert_s)

    def _prior_s(self, pair: tuple[str, str]) -> float:
        """Seconds of a lowering that was not made here: as guessed, times what the guesses of others were off by."""
        return self.slowdown * self._guess_s(pair)

    def _guess_s(self, pair: tuple[str, str]) -> float:
        registered = self._priors.get(pair, _LOWER_S)
        if pair in self._per_100mb:
            return max(registered, self._per_100mb[pair] * self._model_bytes / 100e6)
        return self._size_factor * registered

    def _learn_slowdown(self) -> None:
        """Learn how far guesses are off: this machine may be slower than those on which lowerings were timed, or busier.

        A lowering counts once its model was timed: only then it is known how long it takes to load, and in some modes to compile.
        """
        made = [pair for pair in self._priors if self._by_method.get(("cost", "/".join(pair)))]
        took_s = math.fsum(self.compile_s(pair) + self._load_s(pair) for pair in made)
        guessed_s = math.fsum(self._guess_s(pair) for pair in made)
        self.slowdown = min(max((_GUESSED_S + took_s) / (_GUESSED_S + guessed_s), 1.0), _SLOWEST)

    def lowering_s(self, pair: tuple[str, str], cost_is_known: bool = False, is_converted: bool = False) -> float:
        """Seconds for one more lowering of a prefix: lower it, load and score it, and time it where its structure is new.

        Some modes compile while they load: there the loading counts.
        """
        seen = self._by_method["cost", "/".join(pair)]
        measure = 0.0 if cost_is_known else (seen or self._by_stage["cost"]).median(self._measure_s)
        lower = self.compile_s(pair, is_converted) + self._load_s(pair)
        if not (seen or (is_converted and self._size_factor > 1)):
            lower = max(lower, self._prior_s(pair))
        return lower + self._by_stage["accuracy"].median(_ACCURACY_S) + measure

    def _load_s(self, pair: Lowering) -> float:
        """Seconds until a lowered model is loaded: of its dtype and mode, else of the mode, else none are known."""
        return (self._by_method["load", "/".join(pair)] or self._by_mode["load", pair[1]]).median(0.0)

    def timing_s(self) -> float:
        """Seconds to time a model, during which no other worker works."""
        return self._by_stage["cost"].median(self._measure_s)

    def measuring_s(self) -> float:
        """Seconds to score and to time a model that is lowered already."""
        return self._by_stage["accuracy"].median(_ACCURACY_S) + self._by_stage["cost"].median(self._measure_s)

    @property
    def is_slow(self) -> bool:
        """Whether measuring a model takes so long that few are measured at all."""
        return self.measuring_s() > _SLOW_S

    def train_s(self, recipe: Recipe) -> float:
        """Seconds to train the prefix of `recipe`, an upper bound where a curriculum uses fewer samples.

        A pruned model trains faster: seconds per sample are known at this ratio, or interpolated between the trained ratios.
        """
        return self._sample_s(recipe) * int(recipe["train.epochs"]) * self._train_samples

    def ladder(self, epochs: Iterable[int], total_s: float, workers: int, recipe: Recipe = UNTOUCHED) -> tuple[int, ...]:
        """Return those numbers of epochs that a training of the cut of `recipe` may have in a search of `total_s` seconds.

        A front needs more than a few trainings, so one of them gets a fixed share of the workers' time at most; the shortest is
        always allowed. A cut that trains faster than the untouched model may have more epochs.
        """
        trained = sorted(number for number in epochs if number > 0)
        most_s = _TRAINING_SHARE * total_s * workers
        epoch_s = self._sample_s(recipe) * self._train_samples
        fitting = tuple(number for number in trained if number * epoch_s <= most_s)
        return fitting or tuple(trained[:1])

    def epochs_s(self, epochs: int) -> float:
        """Seconds of that many epochs of the untouched model over all the data."""
        return self._sample_s(UNTOUCHED) * epochs * self._train_samples

    def _sample_s(self, recipe: Recipe) -> float:
        method, ratio = recipe.cut
        if method not in self._pace:
            known = self._pace_by_ratio(method)
            self._pace[method] = sorted(known), [known[at] for at in sorted(known)]
        ratios, seconds = self._pace[method]
        if ratios:
            return float(np.interp(ratio, ratios, seconds))
        return self._share_of_untouched(recipe.cut) * self._training.median(self._tried_sample_s or _SECONDS_PER_SAMPLE)

    def _pace_by_ratio(self, method: str) -> dict[float, float]:
        """Seconds a sample by ratio: of models of `method` that were trained, and of others by how much faster they answer."""
        trained = {at: seen.median(0.0) for (name, at), seen in self._per_sample.items() if name == method}
        untouched = self._untouched_pace()
        if untouched is None:
            return trained
        guessed = {at: untouched * self._share_of_untouched((method, at)) for at in self._relative_pace[method]}
        return {0.0: untouched} | guessed | trained

    def _untouched_pace(self) -> float | None:
        """Seconds a sample of the untouched model, or what they would be by a model that was trained in its place."""
        if seen := self._per_sample.get(UNTOUCHED.cut):
            return seen.median(0.0)
        others = [seen.median(0.0) / self._share_of_untouched(cut) for cut, seen in self._per_sample.items()]
        return statistics.median(others) if others else self._tried_sample_s

    def _share_of_untouched(self, cut: Cut) -> float:
        """What a training of `cut` takes, as a share of the untouched model's; 1 where it is not known how fast it answers."""
        return max(self._relative_pace[cut[0]].get(cut[1], 1.0), _LEAST_PACE)

    def reserve_s(self, points: int, workers: int, total_s: float) -> float:
        """Seconds to keep for finalizing `points` points on `workers` workers, within a fixed share of the whole budget."""
        each = self.finalize_more_s()
        once_s = self.finalize_s() - each
        rounds = math.ceil(points / (1 + _SECOND_WORKER * (workers - 1)))
        starting_s = math.ceil(rounds / self.packed_finalists()) * self.process_s()
        return min(starting_s + (once_s + rounds * each) * 1.15 + _DRIVER_END_S, _FINALIZE_SHARE * total_s)

    def packed_finalists(self) -> int:
        """Points for one process: one where a process starts quickly, so that every free worker gets the next point."""
        return _PACKED_FINALISTS if self.process_s() > _SLOW_START_S else 1

    def finalize_s(self, pair: Lowering | None = None) -> float:
        """Seconds to finalize the next point in a running worker: as `finalize_more_s`, and what it has to make once for all.

        Some modes compile while they load, and the process that verifies has no cache: where a slow model's `pair` of dtype and
        mode is given, its loading is added.
        """
        load_s = self._load_s(pair) if pair is not None and self.is_slow else 0.0
        is_first = not (self._has_untouched_test or self._finalize_s)
        return load_s + self._finalize_with_scores_s(2 if is_first else 1)

    def finalize_more_s(self) -> float:
        """Seconds to finalize one more point, once the untouched model has its scores on the test split."""
        return self._finalize_with_scores_s(1)

    def _finalize_with_scores_s(self, scores: int) -> float:
        """Seconds of a finalization that scores `scores` models on the test split; it is verified in another fresh process.

        Before the first one they are the sum of its parts: scores, the final timing, and the verification, whose process starts
        meanwhile.
        """
        cost_s = self._by_stage["cost"].median(self._measure_s)
        timings = _VERIFIED_TIMING + self._is_timed_again
        timing_s = timings * cost_s + _REPLAY_S if self.is_slow else _TIMINGS * cost_s
        scoring_s = scores * self._by_stage["accuracy"].median(_ACCURACY_S)
        return self._finalize_s.median(timing_s + max(_FINALIZE_S + PROCESS_S, scoring_s))

    def is_converted(self, mode: str) -> bool:
        """Whether this study has made for `mode` what its dtypes share, or a lowering in it."""
        return bool(self._by_mode["convert", mode] or self._by_mode["compile", mode])


class _Recent:
    """Median of the latest seconds of one kind."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_REMEMBERED)
        self._median = 0.0

    def __bool__(self) -> bool:
        """Whether there are seconds."""
        return bool(self._latest)

    def add(self, seconds: float) -> None:
        """Take in the next seconds."""
        self._latest.append(seconds)
        self._median = statistics.median(self._latest)

    def median(self, prior: float) -> float:
        """Return the median, or `prior` before the first seconds."""
        return self._median if self._latest else prior
