"""What the search's own driver costs as a study grows: resident memory, and seconds to propose, record and publish.

Everything of the driver is real (Optuna study on SQLite, sampler, agent's knowledge, notes and plots, Ray imported); only the
measurements are made up, because it takes a night to have a thousand real ones.

    python studies/driver_overhead/measure.py --trials 1000
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ray import tune

from autocut.config import SearchConfig
from autocut.execution.session import space_document, versions
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measured, Measurement
from autocut.price import price_for
from autocut.recipe import Recipe
from autocut.report.publish import Publisher
from autocut.score import values_of
from autocut.search.agent import Agent
from autocut.search.jobs import RecipeMeasured
from autocut.search.proposals import Proposer
from autocut.search.trial_store import StudyTrialStore
from autocut.space import load_space
from autocut.stages.methods import REGISTRIES
from autocut.study import create_study

KNOWN = json.loads(
    subprocess.run(
        [sys.executable, "-c", "import json; from autocut.stages.methods import known_methods; print(json.dumps(known_methods()))"],
        capture_output=True, text=True, check=True,
    ).stdout
)  # fmt: skip
"""Asked of another process, because the answer imports torch: the driver of a search never does."""
OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize", "size_bytes": "minimize"}
EPOCHS = 8


def made_up(recipe: Recipe, rng: np.random.Generator) -> Measurement:
    """A measurement in which more pruning costs accuracy and saves money."""
    ratio = float(recipe.get("prune.ratio", 0.0))
    accuracy = 0.98 - 0.1 * ratio**2 + rng.normal(0, 0.005)
    speedup = (1 + 10 * ratio) * rng.uniform(0.8, 1.2)
    near = Interval(speedup, 0.98 * speedup, 1.02 * speedup)
    latencies = tuple(
        Latency(size, 64, Interval(size / speedup, size / speedup, size / speedup), None, None, float(size), near, 0.3)
        for size in (1, 32)
    )
    size = int(1e6 * (1 - 0.9 * ratio))
    split = Accuracy("validation", 1000, Interval(accuracy, accuracy - 0.01, accuracy + 0.01), Interval(0.0, -0.01, 0.01), 0.5)
    return Measurement(split, Cost(latencies, size, size, 1, 5.0, "made up"))


def resident_mb() -> float:
    """Resident memory of this process, MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Grow a study, telling every 250 trials what the driver takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "torch" in sys.modules or set(KNOWN) != set(REGISTRIES) or not (tune and Agent):
        raise SystemExit("the driver must be as in a search: Ray and the agent imported, torch not, every axis known")
    rng = np.random.default_rng(arguments.seed)
    space, price = load_space("default", KNOWN), price_for("c7i.large")
    with tempfile.TemporaryDirectory() as folder:
        study = create_study(
            Path(folder) / "study", name="made-up", task_fingerprint="t", space_json=space_document(space),
            objectives=OBJECTIVES, seed=0,
        )  # fmt: skip
        proposer = Proposer(space, SearchConfig.sampler, arguments.seed)
        study.begin_session("measure.py", versions(()))
        store = StudyTrialStore(study, proposer)
        publisher = Publisher(study)
        reference = made_up(Recipe(), rng).cost
        seconds: dict[str, list[float]] = {"propose": [], "record": [], "front": [], "publish": []}

        def timed(what: str, started: float) -> None:
            seconds[what].append(time.perf_counter() - started)

        print(f"{'trials':>6}  {'resident':>9}  " + "  ".join(f"{name:>10}" for name in seconds), "  (medians of the last 100)")
        for number in range(1, arguments.trials + 1):
            started = time.perf_counter()
            trial, recipe = proposer.propose()
            timed("propose", started)
            measurement = made_up(recipe, rng)
            values = values_of(measurement, reference, price, 30.0)
            event = RecipeMeasured(recipe, Measured(measurement, 30.0, 10_000, ("a" * 64, "b" * 64), "c" * 16))
            started = time.perf_counter()
            store.complete(store.begin(recipe), event, values, {}, [float(x) for x in rng.uniform(0.9, 1, EPOCHS)])
            proposer.tell(trial, [values[name] for name in OBJECTIVES], {})
            timed("record", started)
            started = time.perf_counter()
            study.front()
            timed("front", started)
            started = time.perf_counter()
            if publisher.publish():
                timed("publish", started)
            if number % 250 == 0 or number == arguments.trials:
                medians = "  ".join(f"{1e3 * statistics.median(times[-100:] or [0.0]):7.0f} ms" for times in seconds.values())
                print(f"{number:6}  {resident_mb():6.0f} MB  {medians}", flush=True)
        study.close()


if __name__ == "__main__":
    main()
