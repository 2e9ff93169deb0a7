"""Replay strategies against a recorded table: how fast each one's front grows, over many seeds, in simulated time.

python studies/search_efficiency/replay.py digits --budget 30m --seeds 20
python studies/search_efficiency/replay.py digits --budget 30m --seeds 20 --only autocut "optuna tpe, nothing reused"
python studies/search_efficiency/replay.py digits --budget 4h --training-scale 30      as if there were more data
python studies/search_efficiency/replay.py digits --budget 5m --lowering-scale 4      as if the processor were slower
python studies/search_efficiency/replay.py digits --budget 10m --within 5%           hypervolume of what loses five points at most
python studies/search_efficiency/replay.py digits --budget 30m --show        what earlier calls have kept, nothing is run
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
import table
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from simulation import Clock, Simulation
from strategies import PRICE, STRATEGIES, WORKERS, Contest, Strategy
from world import RecordedWorld

from autocut.budget import format_duration, parse_duration, parse_percent
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.volume import Volume
from autocut.space import Space, SpaceFile, parse_space

HERE = Path(__file__).parent
PLAIN = "optuna tpe, nothing reused"
OURS = "autocut"
PROCESS_S = 0.3
FINALIZE_S = 8.0
"""Seconds of a worker's start and of finalizing a point: medians of real searches on two shared cores (README)."""
GRID = 200
CLOSE = 0.03
TABLES = tuple(sorted(path.name.removesuffix(".table.json.gz") for path in HERE.glob("*.table.json.gz")))
"""What was recorded."""


@dataclass(frozen=True)
class Setting:
    """What is replayed: a table within a budget, as if trainings and lowerings took so many times as long as recorded.

    `within`: hypervolume counts from this loss of accuracy on; None: from a tenth of it.
    """

    task: str
    budget: str
    training_scale: float = 1.0
    lowering_scale: float = 1.0
    within: float | None = None

    def contest(self) -> Contest:
        """Read the table."""
        recorded = table.read(HERE / f"{self.task}.table.json.gz")
        budget_s = parse_duration(self.budget)
        return Contest(recorded, _space(recorded), budget_s, self.training_scale, self.lowering_scale, self.within)

    @property
    def kept(self) -> Path:
        """Where the runs are kept, for the plot and for the rows of another call."""
        slower = "" if self.training_scale == 1 else f"-x{self.training_scale:g}"
        slower += "" if self.lowering_scale == 1 else f"-lowerings-x{self.lowering_scale:g}"
        within = "" if self.within is None else f"-within{100 * self.within:g}"
        return HERE / "runs" / f"{self.task}-{self.budget}{slower}{within}.json"

    def describe(self) -> str:
        """Say what takes longer than recorded."""
        scales = {"trainings": self.training_scale, "lowerings and measurements": self.lowering_scale}
        told = [f"{what} take {scale:g} times as long as recorded" for what, scale in scales.items() if scale != 1]
        return "".join(f"; {each}" for each in told)


@dataclass(frozen=True)
class Run:
    """One seed of one strategy: hypervolume, as a share of the table's own front, at `GRID` moments of the budget."""

    strategy: str
    seed: int
    volumes: tuple[float, ...]
    recipes: int
    trained: int
    seconds: Mapping[str, float]
    driver_s: float
    close: int = 0
    """Finalized models that lose at most `CLOSE` of the accuracy."""


def replay(contest: Contest, strategy: Strategy, seed: int, goal: float) -> Run:
    """Run one search in simulated time."""
    clock = Clock(0.0)
    process_s = PROCESS_S if strategy.fresh_processes else 0.0
    world = RecordedWorld(contest.table, process_s, FINALIZE_S, contest.training_scale, contest.lowering_scale)
    simulation = Simulation(strategy.build(contest, clock, seed), world, clock, WORKERS, strategy.reuse)
    started = time.process_time()
    simulation.run()
    driver_s = time.process_time() - started
    measured = [(at, recipe) for at, (what, recipe) in zip(simulation.times, simulation.log, strict=True) if what == "measure"]
    return Run(
        strategy.name,
        seed,
        tuple((volumes_over_time(contest, measured) / goal).round(5).tolist()),
        len(measured),
        len({recipe.prefix for _, recipe in measured if recipe.is_trained}),
        {name: round(seconds, 1) for name, seconds in simulation.seconds.items()},
        round(driver_s, 2),
        sum(is_close(contest, recipe) for what, recipe in simulation.log if what == "finalize"),
    )


def is_close(contest: Contest, recipe: Recipe) -> bool:
    """Whether a user would look at `recipe`: it loses at most `CLOSE` against the untouched model."""
    return _values(contest, Recipe())["accuracy"] - _values(contest, recipe)["accuracy"] <= CLOSE


def volumes_over_time(contest: Contest, measured: Sequence[tuple[float, Recipe]]) -> NDArray[np.float64]:
    """Hypervolume of everything measured until each of `GRID` moments."""
    volume, times, volumes = volume_of(contest), [0.0], [0.0]
    front = np.empty((0, len(contest.space.objectives)))
    for at, recipe in measured:
        point = np.array(losses_of(contest, volume, recipe))
        if (front <= point).all(axis=1).any():
            continue  # beaten: nothing grows
        front = np.vstack([front[~(front >= point).all(axis=1)], point])
        times.append(at)
        volumes.append(volume.of(front))
    moments = np.linspace(0, contest.budget_s, GRID + 1)[1:]
    return np.array(volumes)[np.searchsorted(times, moments, side="right") - 1]


def volume_of(contest: Contest) -> Volume:
    """The hypervolume's corner lies at the untouched model of the table."""
    return Volume(contest.space.objectives, _values(contest, Recipe()), drop=contest.drop)


def losses_of(contest: Contest, volume: Volume, recipe: Recipe) -> list[float]:
    """Where a recipe of the table lies."""
    return volume.losses(_values(contest, recipe))


def _values(contest: Contest, recipe: Recipe) -> dict[str, float]:
    measured, reference = contest.table.measured(recipe), contest.table.measured(Recipe())
    if measured is None or reference is None:
        raise ValueError(f"{recipe} was not recorded")
    return values_of(measured.measurement, reference.measurement.cost, PRICE, measured.train_seconds)


def best_of(contest: Contest, *, children: bool = True) -> float:
    """Hypervolume of the whole table: what an endless search would reach; without `children`, one that inherits no weights."""
    volume = volume_of(contest)
    prefixes = [prefix for prefix in contest.table.prefixes if children or prefix.parent is None]
    recipes = [prefix.with_lowering(*lowering) for prefix in prefixes for lowering in contest.table.graphs]
    return volume.of([losses_of(contest, volume, recipe) for recipe in recipes if contest.table.measured(recipe)])


def _space(recorded: table.Table) -> Space:
    from autocut.stages.methods import known_methods

    return parse_space(SpaceFile(f"replay-{recorded.document['task']}", recorded.document["space"], "table"), known_methods())


# ---- result ----------------------------------------


def reach(run: Run, target: float) -> float:
    """Share of the budget after which a run has reached `target`; infinite where it never does."""
    at = np.flatnonzero(np.array(run.volumes) >= target)
    return (int(at[0]) + 1) / GRID if len(at) else float("inf")


def rows(runs: Sequence[Run]) -> list[str]:
    """The result as a table: hypervolume at moments of the budget, and how soon ours is where each one ends."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.strategy, []).append(run)
    ours = by_name.get(OURS, [])
    lines = [
        "| strategy | seeds | 10% | 25% | 50% | 100% of the budget (quartiles) | measured | trained | autocut is there after "
        "| behind autocut all the time, by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_name in by_name.items():
        volumes = np.array([run.volumes for run in of_name])
        at = [100 * float(np.median(volumes[:, round(share * GRID) - 1])) for share in (0.1, 0.25, 0.5)]
        low, end, high = (100 * float(value) for value in np.percentile(volumes[:, -1], [25, 50, 75]))
        soon = quartiles([reach(run, end / 100) for run in ours]) if ours and name != OURS else ""
        lines.append(
            f"| {name} | {len(of_name)} | {at[0]:.1f} | {at[1]:.1f} | {at[2]:.1f} | {end:.1f} ({low:.1f} to {high:.1f}) "
            f"| {statistics.median(run.recipes for run in of_name):.0f} | {statistics.median(run.trained for run in of_name):.0f} "
            f"| {soon} | {behind(ours, of_name) if ours and name != OURS else ''} |"
        )
    return lines


def behind(ours: Sequence[Run], others: Sequence[Run]) -> str:
    """By how many points `others` lie behind ours in the mean over the budget, seed by seed; p of Wilcoxon's signed-rank test."""
    means = [{run.seed: 100 * statistics.fmean(run.volumes) for run in runs} for runs in (ours, others)]
    differences = [means[0][seed] - means[1][seed] for seed in sorted(means[0].keys() & means[1].keys())]
    p = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
    return f"{statistics.fmean(differences):.1f} (p={p:.2g})"


def quartiles(shares: Sequence[float]) -> str:
    """Median and quartiles of shares of the budget."""
    low, middle, high = np.percentile(shares, [25, 50, 75], method="nearest")
    return " ".join([_percent(middle), f"({_percent(low)} to {_percent(high)})"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if np.isfinite(share) else "never"


def _told(run: Run) -> Run:
    print(f"  {run.strategy}, seed {run.seed}: {100 * run.volumes[-1]:.1f}", file=sys.stderr, flush=True)
    return run


def _one(arguments: tuple[Setting, str, int, float]) -> Run:
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    setting, strategy, seed, goal = arguments
    return replay(_cached(setting), STRATEGIES[strategy], seed, goal)


_cached = functools.cache(Setting.contest)


def main() -> None:
    """Replay, print the table, keep the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TABLES)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--training-scale", type=float, default=1.0, help="trainings take this many times as long as recorded")
    parser.add_argument("--lowering-scale", type=float, default=1.0, help="so do lowerings, scores and timings: a slower processor")
    parser.add_argument(
        "--within", type=parse_percent, help="hypervolume counts from this loss of accuracy on; default: a tenth of it"
    )
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    setting = Setting(arguments.task, arguments.budget, arguments.training_scale, arguments.lowering_scale, arguments.within)
    if arguments.show:
        print("\n".join(rows(_read(setting.kept))))
        return
    contest = setting.contest()
    goal = best_of(contest)
    grid = 100 * best_of(contest, children=False) / goal
    told = f"100 = the whole table's front, {grid:.1f} without inherited weights{setting.describe()}"
    print(f"{setting.task}, budget {format_duration(contest.budget_s)}, {arguments.seeds} seeds; {told}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core: the GP sampler's threads would wait for one another
    work = [(setting, name, seed, goal) for name in arguments.only for seed in range(arguments.seeds)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        runs = [_told(run) for run in pool.imap(_one, work)]
    earlier = _read(setting.kept)
    ours = [run for run in earlier if run.strategy == OURS]
    print("\n".join(rows(runs if OURS in arguments.only else [*ours, *runs])))
    driver = statistics.median(run.driver_s for run in runs if run.strategy == arguments.only[0])
    share = 100 * driver / contest.budget_s
    print(f"\n{arguments.only[0]}: the driver itself took {driver:.1f} s of CPU, {share:.2f}% of the budget")
    for name in arguments.only:
        close = statistics.fmean(run.close for run in runs if run.strategy == name)
        print(f"{name}: {close:.1f} finalized models lose at most {100 * CLOSE:g} points, in the mean over the seeds")
    setting.kept.parent.mkdir(exist_ok=True)
    others = [run for run in earlier if run.strategy not in arguments.only]
    kept = sorted(others + runs, key=lambda run: list(STRATEGIES).index(run.strategy))
    setting.kept.write_text(json.dumps([asdict(run) for run in kept]))


def _read(path: Path) -> list[Run]:
    return [Run(**run) for run in json.loads(path.read_text())] if path.exists() else []


if __name__ == "__main__":
    main()
