"""A machine that exists in arithmetic only: it runs the agent's jobs in simulated time."""

import itertools
from dataclasses import dataclass, field

import pytest

from autocut.budget import Budget
from autocut.front import FrontPoint, non_dominated
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measured, Measurement
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.agent import Agent
from autocut.search.book import is_baseline
from autocut.search.jobs import (
    BaselineReady,
    JobEnded,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipeStarted,
    StageRan,
)
from autocut.search.knowledge import Knowledge
from autocut.search.planner import Planner
from autocut.search.proposals import Proposer
from autocut.space import load_space

METHODS = {
    "prune.method": ("none", "l1_unstructured", "structured", "structured_taylor"),
    "curriculum.schedule": ("none", "linear", "sqrt", "exponential", "step"),
    "curriculum.order": ("easy_first", "random"),
    "distill.loss": ("none", "kl", "kl_zscore"),
    "quantize.dtype": ("fp32", "bf16", "int8_dynamic", "int8_static", "int8_weight_only"),
    "compile.mode": ("eager", "torch_compile", "torch_compile_max_autotune", "aot_inductor", "onnxruntime"),
}
GRAPHS = {
    ("fp32", "eager"): "fp32",
    ("fp32", "onnxruntime"): "fp32",
    ("fp32", "aot_inductor"): "fp32",
    ("bf16", "eager"): "bf16",
    ("int8_static", "onnxruntime"): "int8 ort",
    ("int8_static", "aot_inductor"): "int8",
}
SPEED = {"eager": 1.0, "onnxruntime": 2.5, "aot_inductor": 2.0}
SECONDS = {"eager": 1.0, "onnxruntime": 4.0, "aot_inductor": 30.0}
PRICE = Price("test", 0.1, "today")


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def cost_of(recipe):
    """Cost by (ratio, dtype, mode), as if measured."""
    dtype, mode = recipe.tail
    pruned = recipe["prune.method"] in ("structured", "structured_taylor")
    speedup = (
        SPEED[mode] * {"fp32": 1.0, "bf16": 0.7, "int8_static": 1.9}[dtype] / (1 - 0.9 * recipe.get("prune.ratio", 0) * pruned)
    )
    latency = Latency(
        32, 64, Interval(10 / speedup, 10 / speedup, 10 / speedup), None, None, 10.0, Interval(speedup, speedup, speedup), 1.0
    )
    size = int(1e6 * (1 - 0.9 * recipe.get("prune.ratio", 0) * pruned) * (0.25 if dtype == "int8_static" else 1))
    return Cost((latency,), size, size, 1, 5.0, "simulated")


def accuracy_of(recipe):
    """Untrained cuts lose much, trained ones little; int8 a touch."""
    ratio = recipe.get("prune.ratio", 0.0)
    trained = 0.9 if recipe.is_trained else 0.0
    value = 0.98 - ratio**2 * (1 - trained) - (0.004 if recipe["quantize.dtype"] == "int8_static" else 0)
    return Accuracy("validation", 1000, Interval(value, value - 0.01, value + 0.01))


@dataclass
class Machine:
    """Runs jobs one after the other. `broken` recipes fail, `deadly` ones take their process with them; `log` lists what ran."""

    agent: Agent
    clock: Clock
    broken: dict = field(default_factory=dict)
    deadly: set = field(default_factory=set)
    deadly_to_finalize: set = field(default_factory=set)
    log: list = field(default_factory=list)
    jobs: list = field(default_factory=list)

    def run(self, most_jobs=10_000):
        for _ in range(most_jobs):
            try:
                job = self.agent.next_job()
            except StopIteration:
                return
            if job is None:
                self.clock.now += 0.1
                continue
            self.jobs.append(job)
            self.run_job(job)

    def run_job(self, job):
        self.clock.now += 5.0
        died = None
        if job.kind == "baseline":
            self.work(job, "baseline", "train", 10.0, samples_seen=10_000)
            self.agent.on_event(job, BaselineReady(cost_of(Recipe()), accuracy_of(Recipe()), {}, 10.0, 10_000))
            self.measured(job, Recipe())
        elif job.kind == "finalize":
            for recipe in job.recipes:
                if recipe in self.deadly_to_finalize:
                    self.agent.on_event(job, RecipeStarted(recipe))
                    died = "the worker process died"
                    break
                self.finalize(job, recipe)
        else:
            for recipe in job.recipes:
                self.agent.on_event(job, RecipeStarted(recipe))
                if recipe in self.deadly:
                    died = "the worker process died"
                    break
                if not self.measure(job, recipe):
                    break
        if died is None:
            self.agent.on_event(job, JobEnded(0.0, 1.0))
        self.agent.on_job_end(job, died)

    def finalize(self, job, recipe):
        self.agent.on_event(job, RecipeStarted(recipe))
        if self.clock.now + 10.0 > job.deadline:
            self.clock.now = max(self.clock.now, job.deadline)
            self.agent.on_event(job, RecipeFailed(recipe, "interrupted", "time is up"))
            return
        self.clock.now += 10.0
        measurement = Measurement(accuracy_of(recipe), cost_of(recipe))
        self.agent.on_event(job, RecipeFinalized(recipe, measurement, "bundle", "0" * 64, None))
        self.log.append(("finalize", recipe))

    def measure(self, job, recipe):
        seconds = (2.0 * recipe["train.epochs"] if recipe.prefix not in [r.prefix for _, r in self.log] else 0) + SECONDS[
            recipe.tail[1]
        ]
        if self.clock.now + seconds > job.deadline:
            self.clock.now = max(self.clock.now, job.deadline)
            self.agent.on_event(job, RecipeFailed(recipe, "interrupted", "time is up"))
            return False
        if recipe in self.broken:
            self.agent.on_event(job, RecipeFailed(recipe, self.broken[recipe], "simulated"))
            return True
        self.work(job, "compile", "/".join(recipe.tail), SECONDS[recipe.tail[1]])
        self.clock.now += seconds - SECONDS[recipe.tail[1]]
        self.measured(job, recipe)
        return True

    def work(self, job, stage, method, seconds, samples_seen=0):
        self.clock.now += seconds
        self.agent.on_event(job, StageRan("key", stage, method, seconds, False, "compiling", samples_seen))

    def measured(self, job, recipe):
        measurement = Measurement(accuracy_of(recipe), cost_of(recipe))
        self.agent.on_event(
            job, RecipeMeasured(recipe, Measured(measurement, 2.0 * recipe["train.epochs"], 0, ("key",), "structure"))
        )
        self.log.append(("measure", recipe))


class MemoryBook:
    """A study in memory."""

    def __init__(self, objectives):
        self.objectives = objectives
        self.points = {}
        self.failures = []
        self.finals = {}
        self.numbers = itertools.count()

    def begin(self, recipe):
        return recipe

    def start(self, recipe):
        pass

    def complete(self, handle, recipe, values, event, violations, curve):
        number = next(self.numbers)
        if all(violation <= 0 for violation in violations.values()):
            self.points[recipe] = FrontPoint(number, recipe, values, event.measured.measurement, is_baseline(recipe), None)
        return number

    def fail(self, handle, recipe, failure, curve):
        self.failures.append(failure)
        return next(self.numbers)

    def finalize(self, recipe, values, finalized):
        self.finals[recipe] = values

    def refuse(self, recipe, reason):
        self.points.pop(recipe)

    def record_stage(self, stage, job, recipe):
        pass

    def end_job(self, job, ended):
        pass

    def set_baseline(self, ready):
        pass

    def candidates(self):
        return list(self.points.values())

    def front(self):
        return non_dominated(self.candidates(), self.objectives)

    def trial_number(self, recipe):
        return self.points[recipe].trial if recipe in self.points else None


@pytest.fixture
def space():
    """The shipped default space."""
    return load_space("default", METHODS)


@pytest.fixture
def start():
    """Make a machine with a new agent: `start(budget_s=..., seed=...)`."""

    def make(budget_s=600.0, seed=0, spent_s=0.0, space_name="default", **options):
        clock = Clock()
        space = load_space(space_name, METHODS)
        budget = Budget(budget_s, spent_s, clock=clock)
        priors = {tail: SECONDS[tail[1]] for tail in GRAPHS}
        known = Knowledge(space, GRAPHS, Planner(1000, priors), budget_s)
        book = MemoryBook(space.objectives)
        agent = Agent(known=known, book=book, proposer=Proposer(space, "tpe", seed), budget=budget, price=PRICE, **options)
        return Machine(agent, clock)

    return make
