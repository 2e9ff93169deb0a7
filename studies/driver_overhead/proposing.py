"""What a proposal takes as a study grows: the sampler asked, its offers and variations of the front judged and weighed, one chosen.

Everything is the agent's own; only the measurements are made up. The seconds of one request are what a free worker waits for: where
proposals are short beside what a process takes to start, it gets several at once.

    python studies/driver_overhead/proposing.py
"""

from __future__ import annotations

import itertools
import statistics
import time
import warnings

import numpy as np
import optuna
from measure import KNOWN, made_up

from autocut.config import SearchConfig
from autocut.price import price_for
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.jobs import StageRan
from autocut.search.lowerings import LoweringChoice
from autocut.search.planner import Planner
from autocut.search.proposals import Proposer
from autocut.search.proposing import Proposing
from autocut.search.settings import SearchSettings
from autocut.search.state import SearchState
from autocut.space import load_space

GRAPHS = {
    (dtype, mode): dtype
    for dtype, mode in itertools.product(KNOWN["quantize.dtype"], KNOWN["compile.mode"])
    if mode != "eager" or dtype in ("fp32", "bf16")
}
SIZES = (100, 1_000, 10_000)
REQUESTS = 15


def main() -> None:
    """Grow the knowledge, and time requests at each size."""
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng, space = np.random.default_rng(0), load_space("default", KNOWN)
    planner = Planner(10_000, dict.fromkeys(GRAPHS, 3.0))
    planner.observe(StageRan("key", "train", "none/none", 10.0, False, "training", samples_seen=10_000))
    price = price_for("c7i.large")
    state = SearchState(SearchSettings(space, GRAPHS, 1e6, price), planner)
    proposer = Proposer(space, SearchConfig.sampler, 0)
    proposing = Proposing(state, LoweringChoice(state), proposer, time.perf_counter)
    reference = made_up(Recipe(), rng).cost

    def learn(recipe: Recipe) -> None:
        values = values_of(made_up(recipe, rng), reference, price, 30.0)
        state.finish(recipe, values)
        proposer.learn(recipe, state.settings.objective_values(values), {})

    for lowering in GRAPHS:
        learn(Recipe().with_lowering(*lowering))
    random = Proposer(space, "random", 0)
    print(f"{'trials':>7}  {'one request, median':>20}  {'longest':>10}  {'proposals in it':>16}  {'one proposal':>13}")
    for size in SIZES:
        while len(state.finished) < size:
            _, recipe = random.propose()
            if recipe.lowering in GRAPHS:
                learn(recipe)
        seconds, proposals = [], []
        for _ in range(REQUESTS):
            started = time.perf_counter()
            proposed = proposing.next_job(1e6)
            seconds.append(time.perf_counter() - started)
            recipes = proposed.planned.recipes if proposed else ()
            proposals.append(len({recipe.prefix for recipe in recipes}))
            for recipe in recipes:
                learn(recipe)
        told = f"{size:7}  {1e3 * statistics.median(seconds):17.0f} ms  {1e3 * max(seconds):7.0f} ms"
        print(f"{told}  {statistics.fmean(proposals):16.1f}  {1e3 * sum(seconds) / sum(proposals):10.0f} ms", flush=True)


if __name__ == "__main__":
    main()
