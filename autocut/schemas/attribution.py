"""Documents that say what bought what: explanations, comparisons, remeasured bundles, and reports."""

from __future__ import annotations

from typing import Any, Literal

from autocut.measurement import Accuracy, Interval, Latency, Layout
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
    """What a bundle gave in a fresh process.

    `accuracy` is that of the examples in the bundle; null where they have none. `output_deviation` is that from the stored outputs,
    relative to the largest of them; null where the outputs cannot be compared: another shape, or a NaN.
    """

    latencies: tuple[Latency, ...]
    accuracy: Accuracy | None
    output_deviation: float | None
    size_bytes: int
    cold_start_ms: float | None


class FoundPart(RunPart):
    """What a bundle gave, and where. Speed-ups are those over the untouched model if `has_untouched`; otherwise they are 1."""

    machine: str
    threads: int
    has_untouched: bool


class ClaimPart(Part):
    """What a bundle claims, and where that was measured. The whole machine served most in the layout `served`, if that is known."""

    machine: str
    threads: int
    latencies: tuple[Latency, ...]
    size_bytes: int
    cold_start_ms: float
    examples_accuracy: float | None
    instance: str | None
    usd_per_million: float | None
    served: Layout | None = None


class RemeasuredPart(Part):
    """A bundle's claim beside what was found now; `found` is null where it does not run here.

    `failure` says why the bundle cannot be used here: it does not run, or it answers otherwise. `instance` is the machine of the
    sheet, or of the user, whose price `usd_per_million` has; its interval is that of the latency, or of what the layout `served`
    gives, where the claim is of a whole machine too. Only `usd_at_claimed_price`, the dollars here at the price of the claim,
    compares with the dollars of the claim. `notes` say what else differs.
    """

    trial: int | None
    bundle: str
    sha256: str
    recipe: dict[str, Value]
    claim: ClaimPart
    found: FoundPart | None
    instance: str | None
    usd_per_million: Interval | None
    usd_at_claimed_price: Interval | None = None
    notes: tuple[str, ...]
    failure: str | None
    served: Layout | None = None


class RemeasureDocument(Document):
    """`autocut remeasure --json`. The exit code is 1 if a bundle has a `failure`."""

    target: str
    bundles: tuple[RemeasuredPart, ...]


class BundleSide(RunPart):
    """One of two compared bundles. Both took turns: the speed-ups of `latencies` are those over the other bundle."""

    bundle: str
    recipe: dict[str, Value]


class PickPart(Part):
    """The point that most people should take. `values` are of `split`: the test split where both picks were tested."""

    trial: int
    recipe: dict[str, Value]
    values: dict[str, float]
    split: str


class StudySide(Part):
    """One of two compared studies. `front` has the numbers of its trials.

    `hypervolume` is that of the front, from the reference on; `share` the part that it has of the hypervolume of both fronts
    together. Both are null where the fronts have no common scale.
    """

    study: str
    front: tuple[int, ...]
    hypervolume: float | None
    share: float | None
    pick: PickPart | None


class LatencyVerdict(Part):
    """How much faster the second bundle is at one batch size, and whether that is a tie."""

    batch_size: int
    speedup_of_b: Interval
    is_tie: bool


class PairedAccuracy(Part):
    """Accuracy of two bundles on the examples that both carry; in `b` with the paired difference to `a`."""

    a: Accuracy
    b: Accuracy


class CompareDocument(Document):
    """`autocut compare --json`. Fields that belong to the other kind of comparison are left out.

    `not_comparable` says what the two do not share; numbers that depend on it do not compare.
    """

    compared: Literal["bundles", "studies"]
    a: BundleSide | StudySide
    b: BundleSide | StudySide
    sentences: tuple[str, ...]
    not_comparable: tuple[str, ...]
    threads: int | None = None
    machine: str | None = None
    latency: tuple[LatencyVerdict, ...] | None = None
    accuracy: PairedAccuracy | None = None
    is_accuracy_tie: bool | None = None
    is_size_tie: bool | None = None
    reference: dict[str, float] | None = None
    is_pick_tie: bool | None = None

    def plain(self) -> dict[str, Any]:
        """Return the document as plain values, without the fields of the other kind."""
        of_bundles = ("threads", "machine", "latency", "accuracy", "is_accuracy_tie", "is_size_tie")
        others = ("reference", "is_pick_tie") if self.compared == "bundles" else of_bundles
        return self.model_dump(mode="json", exclude=set(others))


class ReportDocument(Document):
    """`autocut report --json`: the file that was written, its size, and the recommended trial; null where there is none."""

    study: str
    report: str
    bytes: int
    recommended: int | None
