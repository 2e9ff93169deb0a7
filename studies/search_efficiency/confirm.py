"""Confirm the replay by real searches: autocut and plain Optuna in turn, on one task, space, budget and machine, over seeds.

Both have the same wall clock, two workers and the same measuring code. autocut's clock runs from its command line to its last
verified bundle; plain Optuna's from the first trial, with everything imported, and it finalizes nothing. Plain Optuna is its
default TPE sampler over the joint space, a trial at a time on each worker, through SQLite; nothing but the untouched model and what
Inductor itself caches is reused, and pairs of dtype and mode that this machine cannot run are refused before any work. A seed
decides the untouched model and all training of both.

    python studies/search_efficiency/confirm.py digits --budget 5m --seeds 5
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from record import CACHE_BYTES, TASKS
from replay import TABLES, Setting, best_of, quartiles
from strategies import PRICE, WORKERS

from autocut.budget import format_duration, parse_duration
from autocut.errors import TrialError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.proposals import suggest
from autocut.search.volume import Volume
from autocut.space import Space, load_space
from autocut.stages import lowering
from autocut.stages.methods import known_methods
from autocut.study import open_study
from autocut.task.loading import load_task

HERE = Path(__file__).parent
_NO_RESULT = 1
"""Exit code of a search that found nothing to hand over."""
_START_S = 300.0
"""Until every worker must have imported what it needs."""
PLAIN, OURS = "optuna tpe, nothing reused", "autocut"


@dataclass(frozen=True)
class Found:
    """One measured model: seconds after the start, whether it is the untouched one, its values on the validation split."""

    at: float
    is_untouched: bool
    values: Mapping[str, float]


@dataclass(frozen=True)
class Search:
    """A finished search; `volumes` are (seconds, share of the recorded table's front) after each model that enlarged it."""

    strategy: str
    seed: int
    wall_s: float
    measured: int
    bundles: int
    volumes: tuple[tuple[float, float], ...]

    @property
    def end(self) -> float:
        """Where the search ended."""
        return self.volumes[-1][1] if self.volumes else 0.0

    def reaches(self, target: float) -> float:
        """Seconds after which it is at `target`; infinite where it never is."""
        return next((at for at, volume in self.volumes if volume >= target), float("inf"))


def run_ours(task: str, space: Path, budget: str, seed: int, folder: Path) -> tuple[float, list[Found], int]:
    """Search as a user does; return the command's seconds, what was measured when, and how many bundles are verified."""
    command = [sys.executable, "-m", "autocut", "search", *([TASKS[task]] if TASKS[task] else [])]
    options = ["--space", str(space), "--budget", budget, "--seed", str(seed), "--workers", str(WORKERS), "--out", str(folder)]
    began, started = time.time(), time.perf_counter()
    code = subprocess.run([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    wall_s = time.perf_counter() - started
    if code not in (0, _NO_RESULT):
        raise SystemExit(f"autocut, seed {seed}, ended with exit code {code}; see {folder}")
    study = open_study(folder)
    found = [
        Found(trial.finished.timestamp() - began, trial.recipe == Recipe(), trial.measured.values)
        for trial in study.trials()
        if trial.measured is not None and trial.finished is not None
    ]
    bundles = sum(final.verified for final in study.finals().values())
    study.close()
    shutil.rmtree(folder / "stages")
    return wall_s, sorted(found, key=lambda one: one.at), bundles


def run_plain(task: str, space: Path, budget: str, seed: int, folder: Path) -> tuple[float, list[Found], int]:
    """Let two processes ask one Optuna study until the time is up; what is not finished by then does not count."""
    spawn = multiprocessing.get_context("spawn")
    start, budget_s = spawn.Barrier(WORKERS + 1), parse_duration(budget)
    workers = [
        spawn.Process(target=_plain_worker, args=(task, space, seed, folder, start, number), daemon=True)
        for number in range(WORKERS)
    ]
    folder.mkdir(parents=True)
    study = _plain_study(folder, load_space(str(space), known_methods()))
    for worker in workers:
        worker.start()
    start.wait(_START_S)
    began = time.time()
    time.sleep(budget_s)
    if not all(worker.is_alive() for worker in workers):
        raise SystemExit(f"plain Optuna, seed {seed}: a worker died before its time was up; its search does not count")
    for worker in workers:
        worker.kill()
        worker.join()
    found = [
        Found(trial.datetime_complete.timestamp() - began, trial.user_attrs["untouched"], trial.user_attrs["values"])
        for trial in study.trials
        if trial.state == TrialState.COMPLETE and trial.datetime_complete is not None
    ]
    shutil.rmtree(folder)
    return budget_s, sorted(found, key=lambda one: one.at), 0


def _plain_study(folder: Path, space: Space, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
    directions = list(space.objectives.values())
    return optuna.create_study(study_name="plain", storage=storage, directions=directions, load_if_exists=True, sampler=sampler)


def _plain_worker(task_name: str, space_path: Path, seed: int, folder: Path, start: Any, number: int) -> None:
    import torch

    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    task, space, quiet = load_task(TASKS[task_name]), load_space(str(space_path), known_methods()), QuietLock()
    start.wait(_START_S)
    common = folder / "untouched"
    untouched = Pipeline(StageContext(task, StageCache(common, CACHE_BYTES), quiet, seed))
    reference = untouched.cost(untouched.baseline, "fp32", "eager")
    study = _plain_study(folder, space, optuna.samplers.TPESampler(seed=WORKERS * seed + number))

    def measure(recipe: Recipe) -> dict[str, float]:
        own = folder / f"trial-{number}"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(common, own)
        measured = Pipeline(StageContext(task, StageCache(own, CACHE_BYTES), quiet, seed)).measure(recipe)
        return dict(values_of(measured.measurement, reference, PRICE, measured.train_seconds))

    if number == 0:
        values, attrs = measure(Recipe()), {"untouched": True}
        study.add_trial(create_trial(values=[values[name] for name in space.objectives], user_attrs={**attrs, "values": values}))
    while True:
        _try_one(study, space, measure)


def _try_one(study: optuna.Study, space: Space, measure: Callable[[Recipe], dict[str, float]]) -> None:
    trial = study.ask()
    recipe = suggest(trial, space)
    try:
        if lowering.infeasible_reason(*recipe.lowering) is not None:
            raise TrialError("it cannot run here")
        values = measure(recipe)
    except TrialError:
        study.tell(trial, state=TrialState.PRUNED)
        return
    except Exception:  # what would end one trial of ours ends one here
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr("untouched", value=False)
    trial.set_user_attr("values", values)
    study.tell(trial, [values[name] for name in space.objectives])


def volumes(found: Sequence[Found], objectives: Mapping[str, str], goal: float) -> tuple[tuple[float, float], ...]:
    """Hypervolume from the corner of the search's own untouched model, as a share of `goal`, after each model that enlarged it."""
    untouched = next(one.values for one in found if one.is_untouched)
    volume, front, grown = Volume(objectives, untouched), [], []
    for one in found:
        front.append(volume.losses(one.values))
        now = round(volume.of(front) / goal, 5)
        if not grown or now > grown[-1][1]:
            grown.append((round(one.at, 2), now))
    return tuple(grown)


def rows(searches: Sequence[Search], budget_s: float) -> list[str]:
    """The result as a table: hypervolume at the end, and how soon ours was where plain Optuna ended, by seed and in all."""
    ours, plain = (sorted((s for s in searches if s.strategy == name), key=lambda s: s.seed) for name in (OURS, PLAIN))
    target = statistics.median(search.end for search in plain)
    heads = "| seed | autocut | models | verified bundles | its wall clock | plain Optuna | models | autocut is there after |"
    lines = [heads, "|---|---|---|---|---|---|---|---|"]
    for mine, theirs in zip(ours, plain, strict=True):
        soon = quartiles([mine.reaches(theirs.end) / budget_s]).partition(" ")[0]
        lines.append(
            f"| {mine.seed} | {100 * mine.end:.1f} | {mine.measured} | {mine.bundles} | {mine.wall_s:.1f} s "
            f"| {100 * theirs.end:.1f} | {theirs.measured} | {soon} of the budget |"
        )
    soon = quartiles([search.reaches(target) / budget_s for search in ours])
    median = statistics.median(search.end for search in ours)
    lines.append(f"| median | {100 * median:.1f} | | | | {100 * target:.1f} | | {soon} |")
    return lines


def main() -> None:
    """Run the searches in turn, print the table, keep the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TABLES)
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    name, budget = arguments.task, arguments.budget
    space_path, out = HERE / f"{name}.toml", HERE / "runs" / f"confirm-{name}-{budget}"
    contest = Setting(name, budget).contest()
    goal = best_of(contest)
    print(f"{name}, budget {format_duration(contest.budget_s)}; 100 = the recorded table's front", flush=True)
    searches = []
    for seed in range(arguments.seeds):
        for strategy, run in ((OURS, run_ours), (PLAIN, run_plain)):
            folder = out / f"{strategy.partition(' ')[0]}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            wall_s, found, bundles = run(name, space_path, budget, seed, folder)
            grown = volumes(found, contest.space.objectives, goal)
            searches.append(search := Search(strategy, seed, round(wall_s, 1), len(found), bundles, grown))
            (out / "searches.json").write_text(json.dumps([asdict(one) for one in searches]))
            print(f"  {strategy}, seed {seed}: {100 * search.end:.1f} with {len(found)} models in {wall_s:.0f} s", file=sys.stderr)
    print("\n".join(rows(searches, contest.budget_s)))


if __name__ == "__main__":
    main()
