"""A machine that exists in arithmetic only: it runs the agent's jobs in simulated time."""

from dataclasses import dataclass, field

import pytest
from simulation import DIED, Clock, MemoryTrialStore, Simulation, Stage

from autocut.budget import Budget
from autocut.config import SearchConfig
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measured, Measurement, Rung
from autocut.price import Price
from autocut.recipe import without_kept
from autocut.search.agent import Agent
from autocut.search.planner import Planner
from autocut.search.proposals import Proposer
from autocut.search.settings import EVERYTHING, SearchSettings
from autocut.search.state import SearchState
from autocut.space import load_space, with_students
from autocut.space.axes import fit_space
from tests.fakes import KNOWN

UNFIT = {"distill.loss": ("mse_logits", "kl_sigmoid", "mse"), "prune.method": ("heads_and_neurons", "low_rank", "depth")}
"""What a search leaves out before it begins: what this made-up task cannot do."""
GRAPHS = {
    ("fp32", "eager"): "fp32",
    ("fp32", "onnxruntime"): "fp32",
    ("fp32", "aot_inductor"): "fp32",
    ("bf16", "eager"): "bf16",
    ("int8_static", "onnxruntime"): "int8 ort",
    ("int8_static", "aot_inductor"): "int8",
}
SPEED = {"eager": 1.0, "onnxruntime": 2.5, "aot_inductor": 2.0}
STUDENT_SPEED = 8.0
SECONDS = {"eager": 1.0, "onnxruntime": 4.0, "aot_inductor": 30.0}
PRICE = Price("test", 0.1, "today")


def cost_of(recipe):
    """Cost by (ratio, dtype, mode), as if measured."""
    dtype, mode = without_kept(recipe.lowering[0])[0], recipe.lowering[1]
    pruned = recipe["prune.method"] in ("structured", "structured_taylor")
    speedup = (
        SPEED[mode] * {"fp32": 1.0, "bf16": 0.7, "int8_static": 1.9}[dtype] / (1 - 0.9 * recipe.get("prune.ratio", 0) * pruned)
    ) * (1 if recipe.student is None else STUDENT_SPEED)
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
    if recipe.student is not None:
        value = 0.97 - 0.5 / (1 + recipe["train.epochs"])
    return Accuracy("validation", 1000, Interval(value, value - 0.01, value + 0.01))


@dataclass
class MadeUp:
    """A world of arithmetic. `broken` recipes fail, `deadly` ones take their process with them."""

    process_s: float = 5.0
    finalize_s: float = 10.0
    broken: dict = field(default_factory=dict)
    deadly: set = field(default_factory=set)
    deadly_to_finalize: set = field(default_factory=set)

    def baseline(self):
        return Stage("baseline", "baseline", "train", 10.0, "training", samples=10_000)

    def prefix(self, recipe):
        epochs = recipe["train.epochs"]
        rungs = tuple(
            Rung(epoch, epochs, accuracy_of(recipe.prefix).metric.value - 0.02 * (epochs - epoch)) for epoch in range(1, epochs + 1)
        )
        return Stage(
            f"train {recipe.prefix.fingerprint}", "train", "none/none", 2.0 * epochs, "training", samples=1000 * epochs, rungs=rungs
        )

    def lowering(self, recipe):
        dtype, mode = recipe.lowering
        return (Stage(f"compile {recipe.fingerprint}", "compile", f"{dtype}/{mode}", SECONDS[mode], "compiling"),)

    def measured(self, recipe):
        return Measured(Measurement(accuracy_of(recipe), cost_of(recipe)), 2.0 * recipe["train.epochs"], 0, ("key",), "structure")

    def failure(self, kind, recipe):
        if recipe in (self.deadly_to_finalize if kind == "finalize" else self.deadly):
            return DIED
        return self.broken.get(recipe) if kind == "measure" else None


@pytest.fixture
def space():
    """The shipped default space."""
    return fit_space(load_space("default", KNOWN), UNFIT)


@pytest.fixture
def start():
    """Make a simulation of a new agent: `start(budget_s=..., seed=...)`."""

    def make(
        budget_s=600.0, seed=0, spent_s=0.0, space_name="default", tactics=EVERYTHING, workers=1, limits=(), tries=(),
        max_drop=None, memory=None, students=(), graphs=GRAPHS,
    ):  # fmt: skip
        clock = Clock()
        space = with_students(fit_space(load_space(space_name, KNOWN), UNFIT), students, epochs=20)
        budget = Budget(budget_s, spent_s, clock=clock)
        priors = {lowering: SECONDS[lowering[1]] for lowering in graphs}
        settings = SearchSettings(space, graphs, budget_s, PRICE, limits, tuple(tries), tactics, workers, max_drop)
        state = SearchState(settings, Planner(1000, priors))
        proposer = Proposer(space, SearchConfig.sampler, seed)
        store = MemoryTrialStore(space.objectives)
        agent = Agent(state=state, store=store, proposer=proposer, budget=budget, memory=memory)
        return Simulation(agent, MadeUp(), clock, workers)

    return make
