"""Documents that say what bought what: explanations, comparisons, remeasured bundles, and reports."""

from __future__ import annotations

from typing import Literal

from autocut.measurement import Accuracy, Interval, Latency
from autocut.recipe import Value
from autocut.schemas.document import Document, Part


class EffectPart(Part):
    """What changed between two recipes.

    `accuracy` is the difference of the metric, `is_paired` whether it is that of the same examples. `speedup` is a ratio above 1 if
    faster. `size` and `compressed` are ratios of sizes, below 1 if smaller.
    """

    accuracy: Interval
    is_paired: bool
    speedup: Interval
    size: float
    compressed: float


class StepPart(Part):
    """One step of the ladder: a knob that was turned, and what it bought. `apart` is its effect alone on the untouched model."""

    name: str
    recipe: dict[str, Value]
    values: dict[str, float]
    effect: EffectPart
    apart: EffectPart | None
    bought_nothing: bool
    interacts: bool


class MissingPart(Part):
    """A rung that was not measured, and why."""

    recipe: dict[str, Value]
    reason: str


class ImportancePart(Part):
    """The share of each setting in what separates the best trials from the others by one value."""

    value: str
    trials: int
    shares: dict[str, float]


class ExplainDocument(Document):
    """`autocut explain --json`: the ladder from the untouched model to a recipe, one knob a step.

    `whole` is the effect of all knobs together, `apart` the product of the knobs measured alone; `knobs_multiply` says whether the
    two agree; null where some knob was not measured alone.
    """

    study: str
    trial: int
    recipe: dict[str, Value]
    split: str
    steps: tuple[StepPart, ...]
    whole: EffectPart | None
    apart: EffectPart | None
    knobs_multiply: bool | None
    longer_training: EffectPart | None
    sentences: tuple[str, ...]
    missing: tuple[MissingPart, ...]
    importance: tuple[ImportancePart, ...]
    importance_refused: str | None


class RunPart(Part):
    """What a bundle gave in a fresh process."""

    latencies: tuple[Latency, ...]
    accuracy: Accuracy | None
    output_deviation: float
    size_bytes: int
    cold_start_ms: float


class FoundPart(RunPart):
    """What a bundle gave, and where."""

    machine: str
    threads: int


class ClaimPart(Part):
    """What a bundle claims, and where that was measured."""

    machine: str
    threads: int
    latencies: tuple[Latency, ...]
    size_bytes: int
    examples_accuracy: float | None
    usd_per_million: float | None


class RemeasuredPart(Part):
    """A bundle's claim beside what was found now; `found` is null where it does not run here, and `failure` says why."""

    bundle: str
    sha256: str
    recipe: dict[str, Value]
    claim: ClaimPart
    found: FoundPart | None
    usd_per_million: float | None
    failure: str | None


class RemeasureDocument(Document):
    """`autocut remeasure --json`."""

    target: str
    bundles: tuple[RemeasuredPart, ...]


class BundleSide(RunPart):
    """One of two compared bundles."""

    bundle: str


class PickPart(Part):
    """The point that most users would take."""

    trial: int
    recipe: dict[str, Value]
    values: dict[str, float]


class StudySide(Part):
    """One of two compared studies. `front` has the numbers of its trials."""

    study: str
    front: tuple[int, ...]
    hypervolume: float | None
    pick: PickPart | None


class LatencyVerdict(Part):
    """How much faster the second bundle is at one batch size, and whether that is a tie."""

    batch_size: int
    speedup_of_b: Interval
    is_tie: bool


class CompareDocument(Document):
    """`autocut compare --json`. Fields that belong to the other kind of comparison are left out."""

    compared: Literal["bundles", "studies"]
    a: BundleSide | StudySide
    b: BundleSide | StudySide
    threads: int | None = None
    machine: str | None = None
    latency: tuple[LatencyVerdict, ...] | None = None
    is_accuracy_tie: bool | None = None
    is_size_tie: bool | None = None
    reference: dict[str, float] | None = None
    is_pick_tie: bool | None = None
    not_comparable: tuple[str, ...] | None = None


class ReportDocument(Document):
    """`autocut report --json`: the file that was written, its size, and the recommended trial; null where there is none."""

    study: str
    report: str
    bytes: int
    recommended: int | None
