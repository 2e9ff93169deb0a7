"""What the search's own driver costs as a study grows: resident memory, and seconds to propose, record and publish.

Everything of the driver is real (Optuna study on SQLite, sampler, agent's knowledge, notes and plots, Ray imported); only the
measurements are made up, because it takes a night to have a thousand real ones.

    python studies/driver_overhead/measure.py --trials 1000
    python studies/driver_overhead/measure.py --trials 10000 --running 100 --siblings 9 --every 2500

The second one is a cluster of 100 nodes: so many trials run while the next one is proposed, and nine in ten trials are other
lowerings of a proposed one, as in a search. At the end the study is opened as its readers open it, each in a process of its own.
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
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from autocut.config import SearchConfig
from autocut.execution.money import describe_money
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
READERS = {
    "autocut front": ("front", "{study}", "--json"),
    "autocut select": ("select", "{study}", "--json"),
    "autocut report": ("report", "{study}", "--to", "{study}/report.html"),
}
_DASHBOARD = """
import io, json, sys, time
from pathlib import Path
from autocut.report.dashboard import dashboard_app
from autocut.study import open_study
study = open_study(Path(sys.argv[1]))
app, number = dashboard_app(study), study.optuna._study_id
def asked():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/api/studies/{number}", "QUERY_STRING": "after=0", "HTTP_HOST": "127.0.0.1",
               "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
               "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": False,
               "wsgi.multiprocess": False, "wsgi.run_once": False}
    began = time.perf_counter()
    size = sum(map(len, app(environ, lambda status, headers, *more: print(status, file=sys.stderr))))
    return time.perf_counter() - began, size
print(json.dumps([asked(), asked()]))
"""


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


def told_by_readers(study: Path) -> None:
    """Print what those that read the study take, each in a process of its own, imports and all."""
    for name, words in READERS.items():
        command = [sys.executable, "-m", "autocut", *(word.format(study=study) for word in words)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = f"{time.perf_counter() - started:5.1f} s, exit code {done.returncode}"
        print(f"{name}: {took}", done.stderr[-200:] if done.returncode > 1 else "", flush=True)
    done = subprocess.run([sys.executable, "-c", _DASHBOARD, str(study)], capture_output=True, text=True, check=True)
    for which, (took_s, size) in zip(("first", "second"), json.loads(done.stdout), strict=True):
        print(f"autocut dashboard, {which} look at the study page: {took_s:5.1f} s, {size / 1e6:.1f} MB of JSON")


STEPS = ("propose", "begin", "record", "front", "publish", "beat")
_KEYS = ("a" * 64, "b" * 64)


class Driver:
    """The driver of a search over a made-up study in `folder`, and the seconds that each of its steps takes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        space, self.price = load_space("default", KNOWN), price_for("c7i.large")
        self.study = create_study(
            folder, name="made-up", task_fingerprint="t", space_json=space_document(space), objectives=OBJECTIVES, seed=0
        )
        self.proposer, self.siblings = Proposer(space, SearchConfig.sampler, seed), Proposer(space, "random", seed)
        self.session = self.study.begin_session("measure.py", versions(()))
        describe_money(self.study, SearchConfig(None, 1.0))
        self.store = StudyTrialStore(self.study, self.proposer)
        self.publisher = Publisher(self.study)
        self.reference = made_up(Recipe(), self.rng).cost
        self.running: deque[tuple[Any, Recipe, Any]] = deque()
        self.seconds: dict[str, list[float]] = {step: [] for step in STEPS}

    def record_untouched(self) -> None:
        """Record the reference and the untouched model, as a search begins."""
        self.study.set_reference(self.reference)
        self.study.describe({"price": asdict(self.price)})
        event, values = self._measured(Recipe(), _KEYS[:1])
        self.store.complete(self.store.begin(Recipe()), event, values, {}, ())

    def record_sibling(self) -> None:
        """Record a trial that nobody proposed: another lowering of a proposed one."""
        _, recipe = self.siblings.propose()
        event, values = self._measured(recipe, _KEYS)
        with self._timed("record"):
            self.store.complete(None, event, values, {}, ())
            self.proposer.learn(recipe, [values[name] for name in OBJECTIVES], {})

    def propose(self, running: int) -> None:
        """Propose and begin trials until `running` of them run."""
        while len(self.running) < running:
            with self._timed("propose"):
                sampled, recipe = self.proposer.propose()
            with self._timed("begin"):
                self.running.append((sampled, recipe, self.store.begin(recipe)))

    def record_oldest(self) -> None:
        """Record the trial that has run longest."""
        sampled, recipe, stored = self.running.popleft()
        event, values = self._measured(recipe, _KEYS)
        with self._timed("record"):
            self.store.complete(stored, event, values, {}, [float(x) for x in self.rng.uniform(0.9, 1, EPOCHS)])
            self.proposer.tell(sampled, [values[name] for name in OBJECTIVES], {})

    def tick(self, number: int) -> None:
        """Do what a search does beside its trials: look at the front, write the ledger, publish now and then."""
        with self._timed("front"):
            self.study.front()
        with self._timed("beat"):
            self.session.beat(float(number), {"training": float(number)})
        started = time.perf_counter()
        if self.publisher.publish():
            self.seconds["publish"].append(time.perf_counter() - started)

    def _measured(self, recipe: Recipe, keys: tuple[str, ...]) -> tuple[RecipeMeasured, dict[str, float]]:
        measurement = made_up(recipe, self.rng)
        event = RecipeMeasured(recipe, Measured(measurement, 30.0, 10_000, keys, "c" * 16))
        return event, values_of(measurement, self.reference, self.price, 30.0)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step].append(time.perf_counter() - started)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--running", type=int, default=1, help="trials that run while the next one is proposed")
    parser.add_argument("--siblings", type=int, default=0, help="trials that are recorded with a proposed one")
    parser.add_argument("--every", type=int, default=250, help="trials between two lines")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def grow(driver: Driver, trials: int, *, running: int, siblings: int, every: int) -> None:
    """Record `trials` trials and print a line about the driver after each `every` of them."""
    print(f"{'trials':>6}  {'resident':>9}  " + "  ".join(f"{step:>10}" for step in STEPS), "  (medians of the last 100)")
    for number in range(1, trials + 1):
        if number % (1 + siblings):
            driver.record_sibling()
            continue
        driver.propose(running)
        driver.record_oldest()
        driver.tick(number)
        if number % every == 0 or number == trials:
            medians = "  ".join(f"{1e3 * statistics.median(times[-100:] or [0.0]):7.0f} ms" for times in driver.seconds.values())
            print(f"{number:6}  {resident_mb():6.0f} MB  {medians}", flush=True)


def main() -> None:
    """Grow a study, telling every 250 trials what the driver takes; then read it."""
    arguments = read_arguments()
    if "torch" in sys.modules or not (tune and Agent):
        raise SystemExit("the driver must be as in a search: Ray and the agent imported, torch not")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "study")
        driver = Driver(folder, arguments.seed)
        driver.record_untouched()
        grow(driver, arguments.trials, running=arguments.running, siblings=arguments.siblings, every=arguments.every)
        driver.study.close()
        told_by_readers(folder)


if __name__ == "__main__":
    main()
