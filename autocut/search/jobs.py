"""What the agent plans and sends to a worker process, and what comes back. Plain records: the driver never needs torch."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autocut.bill import UNTOLD, Serving
from autocut.measurement import Accuracy, Cost, Measured, Measurement, Rung
from autocut.precision import CONTIGUOUS, FULL, MemoryFormat, Precision
from autocut.price import Price
from autocut.recipe import Recipe

TASK_FAILED = "the task's own code failed"
"""How the reason begins where the user's code raised an error: no method of the recipe is to blame."""


class JobKind(enum.StrEnum):
    """What a worker does with the recipes of a job."""

    BASELINE = "baseline"  # build or train the untouched model, and time it
    PRICE = "price"  # time structures of the model before it is trained
    PREPARE = "prepare"  # lower the untouched model while it is measured
    TRAIN = "train"  # only the trainings of a job that measures, on a node that times nothing
    MEASURE = "measure"  # lowerings of one prefix, or of several cheap ones
    FINALIZE = "finalize"  # export, measure on the locked test split and verify, one recipe after the other


class Phase(enum.StrEnum):
    """How far a search has come. Finalizing is no phase: it may begin in each of them, and the search may go on after it."""

    LEARNED = "learned recipes"
    BASELINES = "baselines"
    COST_FIRST = "cost first"
    USER_RECIPES = "user recipes"
    RATIOS = "ratios"
    RECOVERIES = "recoveries"
    PROPOSALS = "proposals"


class Purpose(enum.Enum):
    """Why the search wants a job."""

    BASELINE = enum.auto()
    PRICING = enum.auto()
    PREPARATION = enum.auto()
    QUICK_LOWERINGS = enum.auto()
    COST_FIRST = enum.auto()
    USER_RECIPE = enum.auto()
    ANCHOR = enum.auto()
    PROPOSAL = enum.auto()
    SLOW_LOWERING = enum.auto()
    TRAINED_BASELINE = enum.auto()
    FINALIZATION = enum.auto()


@dataclass(frozen=True)
class PlannedJob:
    """Recipes that wait for a worker. `why` is for people; `may_skip` lets the agent drop recipes that were beaten meanwhile."""

    recipes: tuple[Recipe, ...]
    purpose: Purpose
    why: str
    may_skip: bool = True


@dataclass(frozen=True)
class ScoringPlan:
    """How the models of a study are scored where that is slow: on the first `examples` of a seeded order of the validation split.

    `of` is the number of examples in the split, `seconds_each` what the untouched model took for one on one core.
    """

    examples: int
    of: int
    seconds_each: float

    def describe(self) -> str:
        """Say it to a person."""
        seconds = f"scoring all would take {self.of * self.seconds_each:.0f} s a model on one core"
        if self.examples < self.of:
            return f"accuracy on {self.examples} of {self.of} validation examples: {seconds}"
        return f"accuracy on all {self.of} validation examples: {seconds}"


@dataclass(frozen=True)
class Job:
    """Work for one fresh worker process."""

    number: int
    kind: JobKind
    recipes: tuple[Recipe, ...]
    deadline: float
    """Reading of the setting's clock. The worker stops at the next batch boundary after it, and is killed shortly later."""
    why: str
    trials: tuple[int, ...] = ()  # numbers of the recipes that are finalized; bundles tell these and the next two
    validation: Mapping[Recipe, Accuracy] = field(default_factory=dict)  # of these; bundles name it beside the test split's
    reference: Cost | None = None  # of the untouched model
    search_seconds: float = 0.0  # the whole budget
    spent_s: float = 0.0  # what the search had worked when this job began; bundles tell its price
    patience_s: float = 3600.0  # a recipe that takes longer hangs: its worker is killed, and the recipe has failed
    may_skip: bool = True  # what was beaten meanwhile need not run again
    floors: Mapping[Recipe, tuple[float, ...]] = field(default_factory=dict)
    """By prefix, the metric after each epoch before the last that its training needs to go on."""
    untouched_epochs: int | None = None  # that the untouched model of this study is trained for; None: as many as the task says
    scoring: ScoringPlan | None = None  # None: scoring is fast, or the study is older than the plan
    is_urgent: bool = False  # no other worker times a model before this one is done
    max_drop: float | None = None
    """What a point may lose of the metric, in its unit, against the untouched model; None: no limit, or not known yet. Slow scoring
    of a model that surely loses more may end early."""

    def floor(self, recipe: Recipe, rung: Rung) -> float:
        """What the metric of `recipe` must be at `rung` for its training to go on."""
        floors = self.floors.get(recipe.prefix, ())
        return floors[rung.epoch - 1] if rung.epoch <= len(floors) else -math.inf


@dataclass(frozen=True)
class KnownTask:
    """What holds of a task as long as its source has the hash `source_sha256`. To find it, the model is built up to three times."""

    fingerprint: str
    source_sha256: str
    is_pretrained: bool


@dataclass(frozen=True)
class Setting:
    """What every worker of one search needs to know."""

    task_path: str | None
    folder: str
    seed: int
    threads: int
    cache_bytes: int
    price: Price
    command: str
    worker_bytes: int | None = None  # of memory that one worker may ask for; None: what the machine has
    share_examples: bool = True  # False: bundles carry no real examples, whatever the task says
    serving: Serving = UNTOLD  # what bundles say about a month, and about CO2
    known_task: KnownTask | None = None  # what the search has found of the task
    train_on: str = "cpu"  # or "cuda": the kind of device that trains
    train_precision: Precision = FULL
    train_memory_format: MemoryFormat = CONTIGUOUS
    serve_on: str = "cpu"  # or "cuda": the kind of device that scores and times, and that bundles are for
    data_hash: str = ""  # a part of the task's fingerprint that is found once for all workers
    clock: Callable[[], float] = time.time  # the one that deadlines are readings of
    secret: bytes | None = field(default=None, repr=False)  # signs stage outputs, on every node; None: the worker's own user's key


TEST_SCORING = "scoring on the test split"
"""The stage that a worker begins when it looks at the locked test split: the look counts, whatever becomes of the bundle."""


@dataclass(frozen=True)
class WorkerUp:
    """First word of a worker: its process has started and imported everything. Now it waits for the machine."""


@dataclass(frozen=True)
class StageRan:
    """A stage was made, or found in the cache (`cached`); `seconds` is what making it took at that time.

    `samples_seen` are the training examples of these seconds. Both leave out what an earlier, interrupted process trained.
    `borrowed_s` are the seconds that cores without a worker helped meanwhile, added up over these cores; without them it would have
    taken `saved_s` seconds more.
    """

    key: str
    stage: str
    method: str
    seconds: float
    cached: bool
    category: str
    samples_seen: int = 0
    borrowed_s: float = 0.0
    saved_s: float = 0.0


@dataclass(frozen=True)
class StageStarted:
    """A worker begins to make the stage `key`; its `StageRan` or `StageBroke` follows.

    Without a key it is a step that leaves no stage output, such as a verification. It ends where the next step begins.
    """

    stage: str
    method: str
    category: str = ""
    key: str = ""


@dataclass(frozen=True)
class Waited:
    """A worker has waited for the machine, or for another process that made the same stage."""

    seconds: float


@dataclass(frozen=True)
class StageBroke:
    """A stage ended without an output; its seconds count as work."""

    seconds: float
    category: str


@dataclass(frozen=True)
class ModelLoaded:
    """A lowered model was loaded to be scored; some modes compile it then. `method` is its dtype and mode."""

    method: str
    seconds: float


@dataclass(frozen=True)
class TrainingPlanned:
    """The untouched model will be trained for `epochs` of the task's `asked` epochs. All of them would take `asked_s` seconds."""

    epochs: int
    asked: int
    seconds: float
    asked_s: float


@dataclass(frozen=True)
class ScoringPlanned:
    """Scoring the untouched model, which has begun, takes as long as `plan` says. `model_bytes` is the size of its weights."""

    plan: ScoringPlan
    model_bytes: int


@dataclass(frozen=True)
class TrainingPaced:
    """A long training will take `seconds_left` more, if nothing keeps it waiting."""

    seconds_left: float


@dataclass(frozen=True)
class RecipePriced:
    """The structure of a recipe was timed before the untouched model was trained."""

    recipe: Recipe
    cost: Cost


@dataclass(frozen=True)
class BaselineReady:
    """The untouched model is there and has been timed: every speedup refers to it.

    `epochs` are those that it was trained for; None where the task brings its weights.
    """

    reference: Cost
    accuracy: Accuracy
    machine: dict[str, Any]
    train_seconds: float
    samples_seen: int
    epochs: int | None = None
    scoring: ScoringPlan | None = None


@dataclass(frozen=True)
class RecipeStarted:
    """The worker now works on `recipe`: if its process dies, this recipe is blamed."""

    recipe: Recipe


@dataclass(frozen=True)
class RungReached:
    """Validation metric of a recovery training after an epoch."""

    recipe: Recipe
    rung: Rung


@dataclass(frozen=True)
class RecipeMeasured:
    """A recipe was measured on the validation split."""

    recipe: Recipe
    measured: Measured


@dataclass(frozen=True)
class RecipeFailed:
    """A recipe ended without a measurement.

    `outcome` is "infeasible", "failed", "bug", "stopped" (its training could not reach the front any more) or "interrupted" (its
    time was up; it may be tried again).
    """

    recipe: Recipe
    outcome: str
    reason: str


@dataclass(frozen=True)
class RecipeFinalized:
    """A recipe was exported and measured on the locked test split in fresh processes.

    `refusal` says why its bundle was not accepted.
    """

    recipe: Recipe
    measurement: Measurement
    bundle: str | None
    digest: str | None
    refusal: str | None


@dataclass(frozen=True)
class WorkerFault:
    """A fault that would end every other trial too: the disk is full, the task cannot be loaded. It ends the search."""

    message: str
    hint: str | None


@dataclass(frozen=True)
class JobEnded:
    """Last word of a worker: seconds spent waiting for a quiet machine, and seconds in all.

    `peak_memory_bytes` is what its process grew by at most; 0 where that is not known. `leaves_rest` says that a recipe may have
    harmed the process when it failed: the recipes that have no result yet need another one.
    """

    waited_s: float
    seconds: float
    peak_memory_bytes: int = 0
    leaves_rest: bool = False


Event = (
    WorkerUp | StageStarted | StageRan | StageBroke | Waited | ModelLoaded | TrainingPlanned | TrainingPaced | ScoringPlanned
    | RecipePriced | BaselineReady | RecipeStarted | RungReached | RecipeMeasured | RecipeFailed | RecipeFinalized | WorkerFault
    | JobEnded
)  # fmt: skip
